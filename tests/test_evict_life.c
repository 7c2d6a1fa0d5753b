/* The life of caches under policies that evict: budgets kept at every step, memory that is really given back, forks, saved states,
 * full pools, failing calls; and the same through sessions. */
#include "evict_support.h"
#include "tiny_model.h"

#include <unistd.h>

/* ---- budgets ---- */

static bool prompt_policy(int which) { return which == 3; }

/* After every step of prefill and decode; snapkv's budget holds for what is left of the prompt. */
static void check_step(const rig *r, const dmc_seq *seq, int which, int64_t n)
{
    const dmc_policy *p = &r->s.policy;
    int64_t appended = prompt_policy(which) ? n - r->s.prompt : 0;
    if (prompt_policy(which) && n < r->s.prompt) return;
    for (int64_t i = 0; i < seq->n_heads; i++) {
        int64_t slots = seq->heads[i].n_slots - appended;
        assert_true(slots <= n && slots > 0);
        if (p->budget_unit == DMC_BUDGET_SLOTS) assert_true(slots <= p->budget);
        if (p->budget_unit == DMC_BUDGET_RATIO) assert_true(slots <= fmax(16, p->budget * (double)(n - appended)));
        assert_int_equal(seq->heads[i].n_pages, dmc_pages_for(seq->heads[i].n_slots));
    }
    if (p->budget_unit == DMC_BUDGET_BYTES && appended == 0) assert_true(dmc_seq_bytes(seq) <= p->budget);
}

static void test_budgets(void **state)
{
    (void)state;
    static const double budgets[3][3] = {{0.1, 0.5, 1}, {9, 33, 500}, {40000, 60000, 1e6}};
    for (int which = 0; which < POLICIES; which++) {
        for (int unit = 0; unit < 3; unit++) {
            for (int b = 0; b < 3; b++) {
                shape s = usual(which);
                set_policy(&s, which, (dmc_budget_unit)unit, budgets[unit][b]);
                rig r;
                setup(&r, &s);
                float *out = floats((size_t)s.T * (size_t)out_row(&r));
                dmc_seq *seq = new_seq(&r), *chunks = new_seq(&r);
                for (int t = 0, n; t < s.T; t += n) {
                    n = t < s.prompt ? s.prompt - t : 50 < s.T - t ? 50 : s.T - t;
                    feed(&r, chunks, t, n, out);
                    check_step(&r, chunks, which, t + n);
                }
                for (int t = 0; t < s.T; t++) {
                    feed(&r, seq, t, 1, out);
                    check_step(&r, seq, which, t + 1);
                }
                assert_int_equal(dmc_seq_bytes(seq), dmc_seq_bytes(chunks));
                if (unit == 0 && b == 2) assert_int_equal(dmc_seq_slots(seq, 0, 0), s.T);
                dmc_seq_close(seq), dmc_seq_close(chunks);
                dmc_free(out);
                teardown(&r);
            }
        }
    }
}

/* What cannot work is refused, with the least that can: and that does work. */
static void test_least_budgets(void **state)
{
    (void)state;
    for (int which = 0; which < POLICIES; which++) {
        shape s = usual(which);
        set_policy(&s, which, DMC_BUDGET_BYTES, 100);
        if (which == 2) s.policy.sinks = 20;
        rig r;
        setup(&r, &s);
        dmc_seq *seq;
        dmc_seq_options o = options_of(&r);
        assert_int_equal(dmc_seq_create(&seq, r.pool, &o), DMC_ERR_ARG);
        const char *least = strstr(dmc_last_error(), "at least ");
        assert_non_null(least);
        o.policy.budget = atof(least + 9) - 1;
        assert_int_equal(dmc_seq_create(&seq, r.pool, &o), DMC_ERR_ARG);
        o.policy.budget += 1;
        assert_ok(dmc_seq_create(&seq, r.pool, &o));
        dmc_seq_close(seq);
        o.policy.budget_unit = DMC_BUDGET_SLOTS;
        o.policy.budget = 0;
        assert_int_not_equal(dmc_seq_create(&seq, r.pool, &o), DMC_OK);
        o.policy.budget = NAN;
        assert_int_not_equal(dmc_seq_create(&seq, r.pool, &o), DMC_OK);
        o.policy.budget = which == 2 ? 20 : which == KEYNORM ? 7 : 1;
        bool enough = which != 2 && which != KEYNORM;
        assert_int_equal(dmc_seq_create(&seq, r.pool, &o), enough ? DMC_OK : DMC_ERR_ARG);
        dmc_seq_close(seq);
        o.policy.budget = 40;
        o.forced_cr = 4;
        assert_int_equal(dmc_seq_create(&seq, r.pool, &o), DMC_ERR_ARG);
        teardown(&r);
    }
}

/* ---- memory ---- */

static size_t resident(void)
{
    long size, pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f || fscanf(f, "%ld %ld", &size, &pages) != 2) pages = 0;
    if (f) fclose(f);
    return (size_t)pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* 64 MiB of prompt, of which an eighth stays: in the sequence, in the pool and in the process. */
static void test_memory_goes_back(void **state)
{
    (void)state;
    shape s = {.L = 1, .H = 256, .G = 1, .D = 128, .T = 257, .kv = DMC_KV_F32, .kernels = dmc_kernels_pick(0)};
    set_policy(&s, 3, DMC_BUDGET_RATIO, 0.125);
    s.prompt = 256;
    rig r;
    setup(&r, &s);
    float *out = floats((size_t)s.T * (size_t)out_row(&r));
    dmc_seq *seq = new_seq(&r);
    feed(&r, seq, 0, 240, out);
    size_t slots = dmc_pool_bytes_used(r.pool), process = resident();
    assert_int_equal(slots, 240 / 16 * 256 * 16 * 2 * 128 * sizeof(float));
    feed(&r, seq, 240, 16, out);
    assert_int_equal(dmc_pool_bytes_used(r.pool), 32 / 16 * 256 * 16 * 2 * 128 * sizeof(float));
    assert_true(dmc_pool_bytes_held(r.pool) < slots / 4);
    if (process == 0) print_message("no /proc/self/statm: the process is not looked at\n");
    else assert_true(resident() + slots / 2 < process);
    dmc_seq_close(seq);
    dmc_free(out);
    teardown(&r);
}

/* Once the budget is used up no page comes any more; and no step allocates. */
static void test_token_loop(void **state)
{
    (void)state;
    for (int which = 0; which < POLICIES; which++) {
        shape s = usual(which);
        rig r;
        setup(&r, &s);
        float *out = floats((size_t)s.T * (size_t)out_row(&r));
        dmc_seq *seq = new_seq(&r);
        float *scratch = floats(dmc_seq_scratch(seq, s.T));
        feed_rows(&r, seq, 0, 0, s.prompt ? s.prompt : 41, out, scratch);
        size_t used = dmc_pool_bytes_used(r.pool);
        dmc_fault_memory(0);
        for (int t = s.prompt ? s.prompt : 41; t < s.T; t++) feed_rows(&r, seq, t, t, 1, out, scratch);
        if (!prompt_policy(which)) assert_int_equal(dmc_fault_memory_count(), 0);
        if (!prompt_policy(which)) assert_int_equal(dmc_pool_bytes_used(r.pool), used);
        dmc_seq_close(seq);
        dmc_free(out);
        dmc_free(scratch);
        teardown(&r);
    }
}

/* At the limit reserve refuses, changes nothing, and the sequence goes on once there is room. */
static void test_exhaustion(void **state)
{
    (void)state;
    for (int which = 0; which < POLICIES; which++) {
        shape s = usual(which);
        rig r, roomy;
        size_t page = 2 * DMC_PAGE_SLOTS * (size_t)s.D * sizeof(float);
        setup(&roomy, &s);
        s.pool_bytes = 25 * page;
        setup(&r, &s);
        float *out = floats((size_t)s.T * (size_t)out_row(&r));
        dmc_seq *a = new_seq(&r), *b = new_seq(&r), *c = new_seq(&roomy), *f;
        feed(&r, a, 0, 36, out); /* 6 heads of 3 pages */
        feed(&r, b, 0, 10, out); /* and of one */
        assert_int_equal(dmc_seq_reserve(b, 20), DMC_ERR_POOL);
        assert_int_equal(dmc_seq_bytes(b), dmc_seq_fixed_bytes(b) + 6 * dmc_seq_page_bytes(b));
        assert_ok(dmc_seq_fork(&f, a));
        assert_int_equal(dmc_seq_reserve(a, 1), DMC_ERR_POOL); /* a copy of a page for each head: 1 is left */
        dmc_seq_close(f);
        assert_ok(dmc_seq_reserve(a, 1));
        dmc_seq_advance(a, 0);
        dmc_seq_close(a);
        feed_pieces(&r, b, 10, 60, 20, out);
        feed(&roomy, c, 0, 60, out);
        assert_same_content(b, c);
        dmc_seq_close(b), dmc_seq_close(c);
        dmc_free(out);
        teardown(&r), teardown(&roomy);
    }
}

/* ---- forks and saved states ---- */

/* Rows of other tokens, for branches. */
static void branch_off(const rig *r, dmc_seq *seq, int t, int n, float *out)
{
    float *scratch = floats(dmc_seq_scratch(seq, n));
    feed_rows(r, seq, t, t + 100, n, out, scratch);
    dmc_free(scratch);
}

static void test_fork(void **state)
{
    (void)state;
    for (int c = 0; c < 4 * POLICIES; c++) {
        shape s = usual(c % POLICIES);
        s.kv = c < 2 * POLICIES ? DMC_KV_F32 : DMC_KV_BF16;
        s.T = 260;
        if (prompt_policy(c % POLICIES)) s.prompt = 70;
        rig r;
        setup(&r, &s);
        float *out = floats((size_t)s.T * (size_t)out_row(&r));
        for (int at = 1; at < 120; at += 17) {
            dmc_seq *trunk = new_seq(&r), *branch, *straight = new_seq(&r), *other = new_seq(&r), *snapshot;
            feed(&r, trunk, 0, at < 70 ? at : 70, out);
            if (at > 70) feed(&r, trunk, 70, at - 70, out);
            assert_ok(dmc_seq_rewind(straight, trunk));
            assert_ok(dmc_seq_fork(&branch, trunk));
            dmc_seq *alone = straight;              /* shares with the others, too, until the end */
            for (int t = at; t < at + 20; t += 4) { /* all write in turns */
                branch_off(&r, branch, t, 4, out);
                feed_pieces(&r, trunk, t, t + 4, 4, out);
                branch_off(&r, alone, t, 4, out);
            }
            assert_same_content(branch, alone);
            feed(&r, other, 0, at < 70 ? at : 70, out);
            if (at > 70) feed(&r, other, 70, at - 70, out);
            for (int t = at; t < at + 20; t += 4) feed_pieces(&r, other, t, t + 4, 4, out);
            assert_same_content(trunk, other);
            assert_ok(dmc_seq_fork(&snapshot, trunk)); /* there and back */
            branch_off(&r, trunk, at + 20, 30, out);
            assert_ok(dmc_seq_rewind(trunk, snapshot));
            assert_same_content(trunk, other);
            assert_ok(dmc_seq_rewind(trunk, branch));
            assert_same_content(trunk, alone);
            dmc_seq_close(trunk), dmc_seq_close(branch), dmc_seq_close(straight), dmc_seq_close(other);
            dmc_seq_close(snapshot);
        }
        dmc_free(out);
        teardown(&r);
    }
}

static dmc_mapping written(const dmc_seq *seq, const char *path, uint64_t *sum)
{
    dmc_writer *w;
    dmc_mapping m;
    *sum = 1;
    assert_ok(dmc_writer_open(&w, path));
    dmc_seq_write(seq, w, sum);
    assert_ok(dmc_writer_commit(w));
    assert_ok(dmc_map_file(&m, path));
    return m;
}

/* Whatever bytes are accepted must be usable. */
static void try_bytes(const rig *r, const uint8_t *bytes, size_t n, float *out)
{
    dmc_seq *seq = new_seq(r);
    uint64_t sum = 1;
    dmc_status status = dmc_seq_read(seq, bytes, n, &sum);
    if (status == DMC_OK) {
        if (dmc_seq_tokens(seq) + 2 <= r->s.T) feed(r, seq, (int)dmc_seq_tokens(seq), 2, out);
    } else {
        assert_int_equal(status, DMC_ERR_FORMAT);
        assert_int_equal(dmc_seq_tokens(seq), 0);
    }
    dmc_seq_close(seq);
}

static void check_hostile(const rig *r, const dmc_mapping *m, float *out)
{
    dmc_seq *seq = new_seq(r);
    uint64_t sum;
    uint8_t *bytes = dmc_malloc(m->size + 1, 1);
    memcpy(bytes, m->data, m->size);
    bytes[m->size] = 0;
    for (size_t n = 0; n < m->size; n += 1 + n / 8) assert_int_equal(dmc_seq_read(seq, bytes, n, &sum), DMC_ERR_FORMAT);
    assert_int_equal(dmc_seq_read(seq, bytes, m->size + 1, &sum), DMC_ERR_FORMAT);
    for (size_t n = 0; n < m->size; n += n < 64 ? 1 : 13) {
        uint8_t old = bytes[n];
        bytes[n] ^= (uint8_t)(1 << n % 8);
        try_bytes(r, bytes, m->size, out);
        bytes[n] = 0xff;
        try_bytes(r, bytes, m->size, out);
        bytes[n] = old;
    }
    assert_ok(dmc_seq_read(seq, bytes, m->size, &sum));
    dmc_seq_close(seq);
    dmc_free(bytes);
}

static void test_write_read(void **state)
{
    (void)state;
    char path[] = "/tmp/dmc-test-evict-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    for (int which = 0; which < POLICIES; which++) {
        static const int lengths[] = {0, 1, 2, 17, 70, 90};
        shape s = usual(which);
        s.L = 1, s.H = 2, s.D = 4;
        set_policy(&s, which, DMC_BUDGET_SLOTS, 20);
        if (prompt_policy(which)) s.prompt = 70;
        rig r;
        setup(&r, &s);
        float *out = floats((size_t)s.T * (size_t)out_row(&r));
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
            dmc_seq *a = new_seq(&r), *b = new_seq(&r);
            feed_pieces(&r, a, 0, lengths[i], 30, out);
            uint64_t wrote, read = 1;
            dmc_mapping m = written(a, path, &wrote);
            assert_ok(dmc_seq_read(b, m.data, m.size, &read));
            assert_true(read == wrote);
            assert_same_content(a, b);
            feed_pieces(&r, a, lengths[i], lengths[i] + 80, 20, out);
            feed_pieces(&r, b, lengths[i], lengths[i] + 80, 20, out);
            assert_same_content(a, b);
            check_hostile(&r, &m, out);
            dmc_unmap(&m);
            dmc_seq_close(a), dmc_seq_close(b);
        }
        dmc_free(out);
        teardown(&r);
    }
    unlink(path);
}

static void test_memory_faults(void **state)
{
    (void)state;
    for (int which = 0; which < POLICIES; which++) {
        shape s = usual(which);
        rig r;
        setup(&r, &s);
        float *out = floats((size_t)s.T * (size_t)out_row(&r));
        dmc_seq *seq = new_seq(&r);
        feed(&r, seq, 0, 60, out);
        dmc_seq *f = fork_with_faults(seq);
        dmc_fault_memory(1);
        dmc_status st = dmc_seq_reserve(f, 150); /* the copies may find room in the slabs there are */
        dmc_fault_memory(0);
        assert_true(st == DMC_OK || st == DMC_ERR_MEMORY);
        feed_pieces(&r, f, 60, 200, 60, out);
        feed_pieces(&r, seq, 60, 200, 60, out);
        assert_same_content(f, seq);
        dmc_seq_close(f), dmc_seq_close(seq);
        dmc_free(out);
        teardown(&r);
    }
}

/* ---- sessions ---- */

static dmc_session_options session_options(int which, dmc_budget_unit unit, double budget, int chunk)
{
    shape s = {.D = 16};
    set_policy(&s, which, unit, budget);
    dmc_session_options o = dmc_session_options_default();
    o.override_policy = true;
    o.policy = s.policy;
    o.chunk = chunk;
    return o;
}

static dmc_engine *plain_engine(void)
{
    dmc_engine *e;
    dmc_config c = tiny_config(0, 0);
    c.policy = dmc_policy_none();
    assert_ok(tiny_engine(&e, &c, 3, 0));
    return e;
}

/* One call is one prompt, however it is cut into passes and whoever shares them; contexts of 1 and 2 tokens; state files. */
static void test_sessions(void **state)
{
    (void)state;
    char path[] = "/tmp/dmc-test-evict-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    dmc_engine *e = plain_engine();
    int32_t ids[400];
    int V = dmc_engine_info(e)->n_vocab;
    for (int i = 0; i < 400; i++) ids[i] = (int32_t)(dmc_hash64(1, 1, (uint64_t)i) % (uint64_t)V);
    float *a = floats((size_t)V), *b = floats(3 * (size_t)V);
    for (int which = 0; which < KEYNORM; which++) {
        dmc_session_options o = session_options(which, DMC_BUDGET_RATIO, 0.25, 512), small = o;
        small.chunk = 7;
        for (int n = 1; n <= 300; n = n < 3 ? n + 1 : 3 * n + 1) {
            dmc_session *s[3], *back;
            assert_ok(dmc_session_create(&s[0], e, &o));
            assert_ok(dmc_session_create(&s[1], e, &small));
            assert_ok(dmc_session_create(&s[2], e, &o));
            assert_int_equal(dmc_session_stats(s[0]).n_slots, 0);
            assert_ok(dmc_session_feed(s[0], ids, (size_t)n, a, false));
            assert_ok(dmc_session_feed(s[1], ids, (size_t)n, b, false));
            assert_memory_equal(a, b, (size_t)V * sizeof *a);
            int32_t both[601];
            memcpy(both, ids, (size_t)n * sizeof *ids);
            memcpy(both + n, ids, (size_t)n * sizeof *ids);
            const size_t counts[2] = {(size_t)n, 0};
            dmc_status results[2];
            assert_ok(dmc_batch_feed((dmc_session *[]){s[2], s[1]}, 2, both, counts, b, results));
            assert_int_equal(results[0], DMC_OK);
            assert_memory_equal(a, b, (size_t)V * sizeof *a);
            int64_t most = n / 4 > 16 ? n / 4 : n < 16 ? n : 16;
            for (int i = 0; i < 3; i++) assert_int_equal(dmc_session_stats(s[i]).n_slots, 9 * most);
            assert_ok(dmc_session_save(s[1], path));
            assert_ok(dmc_session_restore(&back, e, path));
            for (int i = 0; i < 30; i++) {
                assert_ok(dmc_session_feed(s[0], ids + n + i, 1, a, false));
                assert_ok(dmc_session_feed(back, ids + n + i, 1, b, false));
                assert_memory_equal(a, b, (size_t)V * sizeof *a);
            }
            for (int i = 0; i < 3; i++) dmc_session_close(s[i]);
            dmc_session_close(back);
        }
    }
    dmc_free(a), dmc_free(b);
    dmc_engine_close(e);
    unlink(path);
}

static void test_session_refusals(void **state)
{
    (void)state;
    dmc_engine *e = plain_engine(), *trained;
    dmc_config c = tiny_config(0, 0);
    assert_ok(tiny_engine(&trained, &c, 3, 0));
    static const struct {
        dmc_budget_unit unit;
        double budget;
    } bad[] = {{DMC_BUDGET_RATIO, 0},  {DMC_BUDGET_RATIO, 1.5}, {DMC_BUDGET_RATIO, NAN},  {DMC_BUDGET_SLOTS, 0},
               {DMC_BUDGET_SLOTS, -3}, {DMC_BUDGET_BYTES, 0},   {DMC_BUDGET_BYTES, 5000}, {(dmc_budget_unit)7, 1}};
    for (int which = 0; which < KEYNORM; which++) {
        dmc_session *s;
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
            dmc_session_options o = session_options(which, bad[i].unit, bad[i].budget, 0);
            assert_int_equal(dmc_session_create(&s, e, &o), DMC_ERR_ARG);
            assert_null(s);
        }
        dmc_session_options o = session_options(which, DMC_BUDGET_RATIO, 0.5, 0);
        assert_int_equal(dmc_session_create(&s, trained, &o), DMC_ERR_ARG); /* its channel is taken */
        assert_non_null(strstr(dmc_last_error(), "original model"));
        o.n_ctx = 1;
        assert_ok(dmc_session_create(&s, e, &o));
        assert_ok(dmc_session_feed(s, (int32_t[]){5}, 1, NULL, false));
        assert_int_equal(dmc_session_feed(s, (int32_t[]){5}, 1, NULL, false), DMC_ERR_CONTEXT);
        assert_int_equal(dmc_session_feed(s, NULL, 0, NULL, false), DMC_ERR_ARG);
        dmc_session_close(s);
    }
    dmc_engine_close(e);
    dmc_engine_close(trained);
}

/* A pool too small for a prompt: the session is as it was, and its prompt still to come. */
static void test_prompt_that_failed(void **state)
{
    (void)state;
    dmc_engine *e;
    dmc_config c = tiny_config(0, 0);
    c.policy = dmc_policy_none();
    size_t page = 2 * DMC_PAGE_SLOTS * 16 * sizeof(float);
    assert_ok(tiny_engine(&e, &c, 3, 60 * page)); /* 9 heads of 6 pages: 96 tokens */
    dmc_session *s, *other;
    int32_t ids[200] = {0};
    for (int i = 0; i < 200; i++) ids[i] = i % 97;
    dmc_session_options o = session_options(3, DMC_BUDGET_SLOTS, 20, 32);
    assert_ok(dmc_session_create(&s, e, &o));
    assert_ok(dmc_session_create(&other, e, &o));
    assert_int_equal(dmc_session_feed(s, ids, 200, NULL, false), DMC_ERR_POOL);
    assert_int_equal(dmc_session_stats(s).n_tokens, 0);
    assert_ok(dmc_session_feed(s, ids, 90, NULL, false));
    assert_int_equal(dmc_session_stats(s).n_slots, 9 * 20);
    assert_ok(dmc_session_feed(s, ids, 10, NULL, false)); /* a second call is appended */
    assert_int_equal(dmc_session_stats(s).n_slots, 9 * 30);
    assert_ok(dmc_session_feed(other, ids, 40, NULL, false));
    dmc_session_close(s), dmc_session_close(other);
    dmc_engine_close(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_budgets),
        cmocka_unit_test(test_least_budgets),
        cmocka_unit_test(test_memory_goes_back),
        cmocka_unit_test(test_token_loop),
        cmocka_unit_test(test_exhaustion),
        cmocka_unit_test(test_fork),
        cmocka_unit_test(test_write_read),
        cmocka_unit_test(test_memory_faults),
        cmocka_unit_test(test_sessions),
        cmocka_unit_test(test_session_refusals),
        cmocka_unit_test(test_prompt_that_failed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
