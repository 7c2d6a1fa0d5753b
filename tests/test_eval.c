/* Measuring: documents and the bytes of their tokens, windows, agreement with training, questions, pictures. */
#include "reader_model.h"
#include "inspect_picture.h"
#include "train/trainer.h"

#include <math.h>

static char questions_path[64];

/* Documents with questions whose answers are words that the stories are full of; the last has one answer of two words. */
static const char questions[] =
    "One day, Ann had a lot of time and said so. She was glad.\n"
    "Question: What did Ann have? Answer: time.\nQuestion: What was it? Answer: and.\nThen they all went home.\n"
    "Question: What? Answer: and.\n<|endoftext|>\n"
    "They talked and the day was over.\nQuestion: Who talked? Answer: they.\nQuestion: And? Answer: and.\n"
    "Question: What was over? Answer: the day.\n<|endoftext|>\n";
enum { QUESTIONS = 6, AND = 3, QUESTION_DOCUMENTS = 2 };

static int set_up(void **state)
{
    (void)state;
    dmc_writer *w;
    if (reader_set_up() != 0) return 1;
    snprintf(questions_path, sizeof questions_path, "%s/questions.txt", reader_directory);
    if (dmc_writer_open(&w, questions_path) != DMC_OK) return 1;
    dmc_writef(w, "%s", questions);
    return dmc_writer_commit(w) != DMC_OK;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(questions_path);
    return reader_tear_down();
}

static float *weights(dmc_checkpoint *k, const char *name)
{
    return (float *)(uintptr_t)dmc_checkpoint_find(k, name)->data;
}

static eval_tokens read_stories(const dmc_engine *e)
{
    eval_tokens t;
    assert_ok(eval_read_files(&t, e, (const char *[]){stories_path}, 1));
    return t;
}

/* ---- documents --------------------------------------------------------------------------------------------------- */

static void test_documents(void **state)
{
    (void)state;
    static const char text[] = "\n\none\n<|endoftext|>\n\r\n<|endoftext|>two\nlines<|endoftext|><|endoftext|>\nthree\n";
    static const char *const want[] = {"one", "two\nlines", "three"};
    size_t pos = 0, begin, end;
    for (int i = 0; i < 3; i++) {
        assert_true(eval_next_document(text, sizeof text - 1, &pos, &begin, &end));
        assert_int_equal(end - begin, strlen(want[i]));
        assert_memory_equal(text + begin, want[i], end - begin);
    }
    assert_false(eval_next_document(text, sizeof text - 1, &pos, &begin, &end));
    pos = 0;
    assert_false(eval_next_document("<|endoftext|>\n\n", 15, &pos, &begin, &end));
}

static void test_tokens_share_the_text(void **state)
{
    (void)state;
    static const char text[] = "Mia lived in a caf\xc3\xa9. \xff\n\nEnd";
    dmc_engine *e = random_reader(0, 0);
    eval_tokens t = {0};
    size_t sum = 0;
    assert_ok(eval_append_document(&t, e, text, sizeof text - 1, true, true));
    assert_int_equal(t.ids[0], 0);
    assert_int_equal(t.ids[t.n - 1], 1);
    assert_int_equal(t.bytes[0] + t.bytes[t.n - 1], 0);
    for (size_t i = 0; i < t.n; i++) {
        const char *bytes;
        size_t n;
        if (sum < 20 && t.bytes[i]) { /* before what is not UTF-8 */
            assert_ok(dmc_token_bytes(e, t.ids[i], &bytes, &n));
            assert_int_equal(n, t.bytes[i]);
            assert_memory_equal(bytes, text + sum, n);
        }
        sum += t.bytes[i];
    }
    assert_int_equal(sum, sizeof text - 1);
    eval_tokens_free(&t);
    dmc_engine_close(e);
}

static void test_tokens_of_real_tokenizers(void **state)
{
    (void)state;
    static const char *const models[] = {"weights-stories260K/stories260K.bin", "weights-tinystories-656k"};
    static const char text[] = "Once upon a time, there was a girl. \"Hi!\" said she.\nThe end.";
    for (size_t k = 0; k < sizeof models / sizeof *models; k++) {
        char path[512];
        dmc_engine *e;
        eval_tokens t = {0};
        size_t sum = 0;
        snprintf(path, sizeof path, "%s/%s", DMC_SHARED_DATA, models[k]);
        if (!dmc_exists(path)) {
            print_message("%s is not there\n", path);
            skip();
        }
        assert_ok(dmc_engine_open(&e, path, NULL));
        assert_ok(eval_append_document(&t, e, text, sizeof text - 1, false, false));
        for (size_t i = 0; i < t.n; i++) sum += t.bytes[i];
        assert_int_equal(sum, sizeof text - 1);
        assert_true(t.bytes[0] > 0 || t.bytes[1] > 0); /* a space in front may be a token of its own */
        eval_tokens_free(&t);
        dmc_engine_close(e);
    }
}

/* ---- windows ----------------------------------------------------------------------------------------------------- */

static eval_ppl_result ppl(dmc_engine *e, const eval_tokens *t, const eval_options *o)
{
    eval_ppl_result r;
    assert_ok(eval_ppl(&r, e, t, o, NULL, NULL));
    return r;
}

static void test_windows(void **state)
{
    (void)state;
    dmc_engine *e = random_reader(0, 0);
    eval_tokens t = read_stories(e);
    eval_options o = quiet();
    o.ctx = 128;
    eval_ppl_result all = ppl(e, &t, &o);
    assert_int_equal(all.cache.n, t.n / 127);
    assert_int_equal(all.windows.left_out, t.n % 127);
    assert_int_equal(all.windows.judged, 127 * all.cache.n);
    assert_int_equal(all.cache.tokens, 128 * all.cache.n);
    int64_t bytes = 0;
    for (size_t i = 0; i < 127 * (size_t)all.cache.n; i++) bytes += t.bytes[i];
    assert_int_equal(all.bytes, bytes);
    o.limit = 3;
    eval_ppl_result some = ppl(e, &t, &o);
    assert_int_equal(some.cache.n, 3);
    assert_int_equal(some.windows.left_out, all.windows.left_out);

    t.n = 50; /* less than a window: one of its own length */
    eval_ppl_result one = ppl(e, &t, &o);
    assert_int_equal(one.cache.n, 1);
    assert_int_equal(one.windows.judged, 50);
    assert_int_equal(one.windows.ctx, 51);
    assert_int_equal(one.windows.left_out, 0);
    eval_tokens_free(&t);
    dmc_engine_close(e);
}

/* llama.cpp's way and the sliding one against the plain way: each window through a session of its own. */
static void test_protocols(void **state)
{
    (void)state;
    enum { CTX = 60, STRIDE = 25 };
    dmc_engine *e = random_reader(0, 3);
    eval_options o = quiet();
    dmc_session_options so;
    eval_tokens t;
    eval_judge judge;
    double nll[CTX];
    bool hit[CTX];
    o.ctx = CTX;
    assert_ok(eval_prepare(&so, e, &o));
    assert_ok(eval_judge_create(&judge, e, so.chunk, 1));
    assert_ok(eval_read_texts(&t, e, (const char *[]){stories_path}, 1, true));
    t.n = 500; /* the rest is like it */
    const bool bos = dmc_engine_info(e)->adds_bos;
    for (int sliding = 0; sliding < 2; sliding++) {
        double want = 0;
        int64_t bytes = 0, tokens = 0;
        size_t scored = 1; /* sliding: up to here */
        for (size_t at = 0; at + (sliding ? 1 : CTX) <= t.n; at += sliding ? STRIDE : CTX) {
            const size_t n = t.n - at < CTX ? t.n - at : CTX, from = sliding ? scored - at : CTX / 2 + 1;
            dmc_session *s;
            assert_ok(dmc_session_create(&s, e, &so));
            const int32_t first = t.ids[at];
            if (!sliding && bos) t.ids[at] = dmc_engine_info(e)->bos;
            assert_ok(eval_judge_feed(&judge, s, t.ids + at, n, nll, hit));
            t.ids[at] = first;
            dmc_session_close(s);
            for (size_t i = from; i < n; i++, tokens++) {
                want += nll[i];
                bytes += t.bytes[at + i];
            }
            scored = at + n;
            if (sliding && scored == t.n) break;
        }
        o.protocol = sliding ? EVAL_SLIDING : EVAL_HALVES;
        o.stride = sliding ? STRIDE : 0;
        eval_ppl_result r = ppl(e, &t, &o);
        assert_int_equal(r.windows.judged, tokens);
        assert_int_equal(r.bytes, bytes);
        assert_true(fabs(r.nll / want - 1) < 1e-12);
        assert_int_equal(r.windows.judged, sliding ? 499 : 8 * (CTX / 2 - 1));
    }
    eval_ppl_result r;
    o.stride = CTX + 1;
    assert_int_equal(eval_ppl(&r, e, &t, &o, NULL, NULL), DMC_ERR_ARG);
    o.protocol = EVAL_HALVES;
    t.n = CTX - 1; /* not one window */
    assert_int_equal(eval_ppl(&r, e, &t, &o, NULL, NULL), DMC_ERR_ARG);
    eval_judge_free(&judge);
    eval_tokens_free(&t);
    dmc_engine_close(e);
}

/* Separate documents, each through a session of its own: one that is cut off, short ones, and one of a single letter, which without marks of
 * its ends is one token and has nothing to predict. */
static void test_separate_documents(void **state)
{
    (void)state;
    enum { CTX = 40 };
    static const char *const texts[] = {
        "One day, a girl and a boy went to the park. They saw a big dog and they were happy. Then they went home and the "
        "boy said that it was a good day, and the girl said so too, and the dog was happy with them and went to sleep.",
        "a", "They were happy.", "One day they saw it."};
    enum { N = sizeof texts / sizeof *texts };
    char path[64];
    dmc_writer *w;
    snprintf(path, sizeof path, "%s/separate.txt", reader_directory);
    assert_ok(dmc_writer_open(&w, path));
    for (int i = 0; i < N; i++) dmc_writef(w, "%s\n<|endoftext|>\n", texts[i]);
    assert_ok(dmc_writer_commit(w));
    for (int marked = 0; marked < 2; marked++) {
        dmc_engine *e = random_reader(0, 3);
        eval_options o = quiet();
        dmc_session_options so;
        eval_judge judge;
        eval_tokens stream = {0};
        size_t document[N];
        double nll[CTX], want = 0;
        bool hit[CTX];
        int64_t judged = 0, bytes = 0, left_out = 0, read = 0;
        o.ctx = CTX;
        o.protocol = EVAL_SEPARATE;
        assert_ok(eval_prepare(&so, e, &o));
        assert_ok(eval_judge_create(&judge, e, so.chunk, 1));
        for (int i = 0; i < N; i++) {
            eval_tokens t = {0};
            dmc_session *s;
            assert_ok(eval_append_document(&t, e, texts[i], strlen(texts[i]), marked, marked));
            document[i] = stream.n;
            if (!marked) assert_ok(eval_append_document(&stream, e, texts[i], strlen(texts[i]), false, false));
            const size_t n = t.n < CTX ? t.n : CTX;
            left_out += (int64_t)(t.n - n);
            if (n > 1) {
                assert_ok(dmc_session_create(&s, e, &so));
                assert_ok(eval_judge_feed(&judge, s, t.ids, n, nll, hit));
                dmc_session_close(s);
                read++;
            }
            for (size_t j = 1; j < n; j++, judged++) want += nll[j], bytes += t.bytes[j];
            eval_tokens_free(&t);
        }
        assert_true(left_out > 0);
        assert_int_equal(read, marked ? N : N - 1);
        if (marked) assert_ok(eval_read_stream(&stream, e, (const char *[]){path}, 1, EVAL_SEPARATE));
        else stream.document = document, stream.n_documents = N;
        assert_int_equal(stream.n_documents, N);
        eval_ppl_result r = ppl(e, &stream, &o);
        assert_int_equal(r.windows.n, N);
        assert_int_equal(r.cache.n, read);
        assert_int_equal(r.windows.judged, judged);
        assert_int_equal(r.windows.left_out, left_out);
        assert_int_equal(r.bytes, bytes);
        assert_memory_equal(&r.nll, &want, sizeof want);
        o.limit = 1;
        assert_int_equal(ppl(e, &stream, &o).windows.judged, CTX - 1);
        if (!marked) {
            eval_ppl_result none;
            o.limit = 0;
            stream.document[0] = document[1], stream.n_documents = 1, stream.n = document[2]; /* the letter alone */
            assert_int_equal(eval_ppl(&none, e, &stream, &o, NULL, NULL), DMC_ERR_ARG);
            stream.document = NULL;
        }
        eval_tokens_free(&stream);
        eval_judge_free(&judge);
        dmc_engine_close(e);
    }
    unlink(path);
}

/* However a text is cut: divergence judges the tokens that perplexity does, and finds none between a cache and itself. */
static void test_divergence_judges_the_same_tokens(void **state)
{
    (void)state;
    dmc_engine *e = random_reader(0, 3);
    for (eval_protocol protocol = EVAL_PACKED; protocol <= EVAL_SLIDING; protocol++) {
        eval_options o = quiet();
        eval_tokens t;
        eval_kld_result d;
        o.ctx = 70;
        o.limit = 4;
        o.protocol = protocol;
        o.stride = protocol == EVAL_SLIDING ? 30 : 0;
        assert_ok(eval_read_stream(&t, e, (const char *[]){stories_path}, 1, protocol));
        const eval_ppl_result r = ppl(e, &t, &o);
        assert_ok(eval_kld(&d, e, e, &t, &o));
        assert_int_equal(d.windows.judged, r.windows.judged);
        assert_int_equal(d.cache.tokens + d.cache.n, r.cache.tokens); /* the last is judged, not read */
        assert_true(fabs(d.nll / eval_ppl_nll(&r) - 1) < 1e-6);
        assert_true(d.kl > 1e-4);
        o.policy.name = "none";
        const eval_ppl_result plain = ppl(e, &t, &o);
        assert_true(fabs(d.nll_reference / eval_ppl_nll(&plain) - 1) < 1e-6);
        assert_ok(eval_kld(&d, e, e, &t, &o));
        assert_true(d.kl == 0 && d.same == d.windows.judged);
        eval_tokens_free(&t);
    }
    dmc_engine_close(e);
}

static void test_chunks_change_nothing(void **state)
{
    (void)state;
    static const int chunks[] = {1, 7, 128, 512}, delays[] = {0, 5};
    for (size_t d = 0; d < 2; d++) {
        dmc_engine *e = random_reader(d ? 12 : 0, delays[d]);
        eval_tokens t = read_stories(e);
        eval_ppl_result first = {0};
        for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
            eval_options o = quiet();
            o.ctx = 200;
            o.limit = 4;
            o.chunk = chunks[i];
            eval_ppl_result r = ppl(e, &t, &o);
            if (i == 0) first = r;
            assert_memory_equal(&r.nll, &first.nll, sizeof r.nll);
            assert_int_equal(r.cache.slots, first.cache.slots);
        }
        assert_true(eval_cache_cr(&first.cache) > 1.3);
        assert_true(first.cache.bytes < first.cache.bytes_uncompressed);
        eval_tokens_free(&t);
        dmc_engine_close(e);
    }
}

static void test_policies(void **state)
{
    (void)state;
    dmc_engine *e = random_reader(0, 0);
    eval_tokens t = read_stories(e);
    eval_options o = quiet();
    dmc_session_options so;
    o.ctx = 200;
    o.limit = 2;
    eval_ppl_result own = ppl(e, &t, &o);
    o.policy.delay = 50;
    eval_ppl_result late = ppl(e, &t, &o);
    assert_true(eval_cache_cr(&late.cache) < eval_cache_cr(&own.cache));
    o.policy.name = "none";
    assert_int_equal(eval_prepare(&so, e, &o), DMC_ERR_ARG); /* no delay without a policy */
    o.policy.delay = -1;
    eval_ppl_result none = ppl(e, &t, &o);
    assert_true(eval_cache_cr(&none.cache) == 1);
    assert_true(none.nll != own.nll);
    /* the same as a window so long that nothing settles */
    o.policy.name = "dmc";
    o.policy.delay = 200;
    eval_ppl_result unsettled = ppl(e, &t, &o);
    assert_true(eval_cache_cr(&unsettled.cache) == 1);
    assert_true(fabs(unsettled.nll / none.nll - 1) < 1e-6);
    o.ctx = 4096;
    assert_int_equal(eval_prepare(&so, e, &o), DMC_ERR_ARG);
    eval_tokens_free(&t);
    dmc_engine_close(e);
}

/* What training says of a model as it stands is what eval says, compressed and not. */
static void agree(int window, int delay, bool compressed, bool packed)
{
    const dmc_cpu cpu = {.kernels = dmc_kernels_pick(0)};
    dmc_train_options to = {.ctx = 96,
                            .batch = 2,
                            .accumulate = 1,
                            .packed = packed,
                            .steps_train = 1,
                            .lr = 1e-3f,
                            .adamw = dmc_adamw_default(),
                            .ce_weight = 1,
                            .tau = 0.1f,
                            .eval_samples = 5,
                            .save_seconds = -1};
    dmc_checkpoint *k = reader(window, delay);
    dmc_tokenizer *tokenizer;
    dmc_corpus corpus;
    dmc_trainer *trainer;
    double ce, cr;
    fill(k, 6);
    if (!compressed) k->config.policy = dmc_policy_none();
    to.policy = k->config.policy;
    if (compressed) to.steps_train = 0, to.steps_ramp = to.steps_hold = 1;
    assert_ok(dmc_tokenizer_open(&tokenizer, &k->tokenizer, &k->config));
    assert_ok(dmc_corpus_load(&corpus, tokenizer, &k->config, (const char *[]){stories_path}, 1));
    assert_ok(dmc_trainer_create(&trainer, k, &corpus, &corpus, &to, &cpu));
    assert_ok(dmc_trainer_measure(trainer, compressed, &ce, &cr));
    if (compressed) { /* two steps later */
        assert_ok(dmc_trainer_run(trainer, NULL, NULL, NULL));
        assert_ok(dmc_trainer_measure(trainer, true, &ce, &cr));
    }
    dmc_trainer_close(trainer);

    dmc_engine *e = engine_of(k);
    eval_tokens t = read_stories(e);
    eval_options o = quiet();
    o.ctx = to.ctx;
    o.limit = to.eval_samples;
    o.protocol = packed ? EVAL_PACKED : EVAL_SEPARATE;
    assert_int_equal(t.n, corpus.n);
    assert_memory_equal(t.ids, corpus.ids, t.n * sizeof *t.ids);
    eval_ppl_result r = ppl(e, &t, &o);
    assert_true(fabs(eval_ppl_nll(&r) / ce - 1) < 1e-5);
    assert_true(fabs(eval_cache_cr(&r.cache) / cr - 1) < 1e-12);
    assert_true(compressed ? cr > 1.3 : cr == 1);
    eval_tokens_free(&t);
    dmc_corpus_free(&corpus);
    dmc_tokenizer_close(tokenizer);
    dmc_engine_close(e);
}

static void test_agrees_with_training(void **state)
{
    (void)state;
    for (int packed = 0; packed < 2; packed++) {
        agree(0, 0, false, packed);
        agree(0, 0, true, packed);
        agree(12, 7, true, packed);
    }
}

/* ---- questions --------------------------------------------------------------------------------------------------- */

/* A model that always says the same token. */
static dmc_engine *parrot(int32_t says)
{
    dmc_checkpoint *k = reader(0, 0);
    float *embedding = weights(k, "model.embed_tokens.weight"), *norm = weights(k, "model.norm.weight");
    for (int64_t i = 0; i < (int64_t)READER_VOCAB * k->config.n_embd; i++)
        embedding[i] = i / k->config.n_embd == says ? 2.0f : 1.0f;
    for (int i = 0; i < k->config.n_embd; i++) norm[i] = 1;
    return engine_of(k);
}

static void test_recall(void **state)
{
    (void)state;
    dmc_engine *probe = random_reader(0, 0);
    int32_t and[8];
    size_t n;
    eval_options o = quiet();
    eval_recall_result r;
    assert_ok(dmc_encode(probe, " and", 4, false, false, and, 8, &n));
    assert_int_equal(n, 1);
    dmc_engine_close(probe);
    dmc_engine *e = parrot(and[0]);
    assert_ok(eval_recall(&r, e, (const char *[]){questions_path}, 1, &o, 8));
    assert_int_equal(r.questions, QUESTIONS);
    assert_int_equal(r.right, AND);
    assert_int_equal(r.window_right, AND);
    assert_int_equal(r.documents, QUESTION_DOCUMENTS);
    assert_int_equal(r.beyond, 0);
    int64_t asked = 0, right = 0;
    for (int i = 0; i <= EVAL_DISTANCES; i++) asked += r.asked_at[i], right += r.right_at[i];
    assert_int_equal(asked, QUESTIONS);
    assert_int_equal(right, AND);
    assert_int_equal(r.asked_at[EVAL_DISTANCES], 0);

    o.ctx = 80; /* questions behind it are not asked */
    assert_ok(eval_recall(&r, e, (const char *[]){questions_path}, 1, &o, EVAL_WINDOW_NONE));
    assert_int_equal(r.questions + r.beyond, QUESTIONS);
    assert_true(r.beyond > 0 && r.questions > 0);
    o.ctx = 10;
    assert_int_equal(eval_recall(&r, e, (const char *[]){questions_path}, 1, &o, EVAL_WINDOW_NONE), DMC_ERR_FORMAT);
    dmc_engine_close(e);
}

/* The same answers asked one by one: text up to 'Answer:' and the answer with its blank tokenised apart, token after token. */
static void test_recall_piece_by_piece(void **state)
{
    (void)state;
    dmc_engine *e = random_reader(0, 3);
    eval_options o = quiet();
    eval_recall_result r;
    dmc_mapping m;
    size_t at = 0, from, to, pos = 0, begin, end, n, n_answer;
    int32_t *ids = dmc_malloc(4096, sizeof *ids);
    float logits[READER_VOCAB];
    double sum = 0;
    o.limit = 1;
    assert_ok(eval_recall(&r, e, (const char *[]){stories_path}, 1, &o, EVAL_WINDOW_NONE));
    assert_ok(dmc_map_file(&m, stories_path));
    assert_true(eval_next_document((const char *)m.data, m.size, &at, &from, &to));
    const char *text = (const char *)m.data + from;
    while (story_next_question(text, to - from, &pos, &begin, &end)) {
        dmc_session *s;
        assert_ok(dmc_session_create(&s, e, NULL));
        assert_ok(dmc_encode(e, text, begin - 1, true, false, ids, 4096, &n));
        assert_ok(dmc_encode(e, text + begin - 1, end - begin + 1, false, false, ids + n, 4096 - n, &n_answer));
        assert_ok(dmc_session_feed(s, ids, n, logits, false));
        for (size_t i = n; i < n + n_answer; i++) {
            double total = 0;
            for (int v = 0; v < READER_VOCAB; v++) total += exp(logits[v]);
            sum += log(total) - logits[ids[i]];
            assert_ok(dmc_session_feed(s, &ids[i], 1, logits, false));
        }
        dmc_session_close(s);
    }
    assert_true(fabs(sum / r.nll - 1) < 1e-5);
    dmc_unmap(&m);
    dmc_free(ids);
    dmc_engine_close(e);
}

static void test_window_of_all(void **state)
{
    (void)state;
    dmc_engine *e = random_reader(0, 0);
    eval_options o = quiet();
    eval_recall_result r;
    o.policy.name = "none";
    o.limit = 2;
    assert_ok(eval_recall(&r, e, (const char *[]){stories_path}, 1, &o, EVAL_WINDOW_AUTO));
    assert_int_equal(r.right, r.window_right);
    assert_int_equal(r.window, (r.cache.tokens + 1) / 2); /* a slot for every token */
    dmc_engine_close(e);
}

/* Which word of the text text[at] begins. */
static size_t word_at(const char *text, size_t at)
{
    size_t n = 0;
    for (size_t i = 0; i < at; i++)
        n += text[i] != ' ' && text[i] != '\n' && (text[i + 1] == ' ' || text[i + 1] == '\n');
    return n;
}

/* Blanks in [begin, end): an answer may have words before its value. */
static size_t words_between(const char *text, size_t begin, size_t end)
{
    size_t n = 0;
    for (size_t i = begin; i < end; i++) n += text[i] == ' ';
    return n;
}

static void test_facts_are_found(void **state)
{
    (void)state;
    story_options o = story_options_default();
    story_document d = {0};
    int asked = 0, right = 0;
    o.seed = 9;
    for (uint64_t i = 0; i < 200; i++) {
        size_t pos = 0, begin, end, at;
        assert_ok(story_write(&d, &o, i));
        for (int k = 0; story_next_question(d.text, d.n, &pos, &begin, &end); k++, asked++) {
            assert_true(eval_find_fact(d.text, begin, end, &at));
            right += word_at(d.text, at) + words_between(d.text, begin, end) == d.facts[d.asked[k].fact].word;
        }
    }
    assert_true(right >= 0.99 * asked); /* two facts may share name and value */
    story_document_free(&d);
}

static void test_facts_that_are_not_there(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        long at;
    } cases[] = {
        {"Question: Where did Mia live? Answer: barn.", -1},
        {"Tom lived in the barn.\nQuestion: Where did Mia live? Answer: barn.", 17},
        {"The dog Star ran. They saw the dog Spot.\nQuestion: Who is the dog? Answer: the dog Star.", 0},
        {"Mia lived in the barns.\nQuestion: Where did Mia live? Answer: barn.", -1},
        {"Mia lived in the barn. Tom had a barn.\nQuestion: Where did Mia live? Answer: barn.", 17},
        {"Mia had a home. It was a barn.\nQuestion: Where did Mia live? Answer: barn.", 25},
        {"Mia: barn\nQuestion: Is Mia in a barn? Answer: barn.\nQuestion: Where did Mia live? Answer: barn.", 5},
        {"barn\nQuestion: ? Answer: barn.", 0},
        {"Question: Is Mia in a barn? Answer: barn.\nQuestion: Where did Mia live? Answer: barn.", -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t pos = 0, begin = 0, end = 0, at;
        while (story_next_question(cases[i].text, strlen(cases[i].text), &pos, &begin, &end)) {}
        assert_true(end > begin);
        bool found = eval_find_fact(cases[i].text, begin, end, &at);
        if (found != (cases[i].at >= 0) || (found && (long)at != cases[i].at))
            fail_msg("case %zu: found %d at %ld", i, found, found ? (long)at : -1);
    }
}

/* ---- what may fail ----------------------------------------------------------------------------------------------- */

static void test_no_memory(void **state)
{
    (void)state;
    dmc_engine *e = random_reader(0, 4);
    eval_options o = quiet();
    o.ctx = 400;
    o.limit = 1;
    long k = 0;
    for (dmc_status status = DMC_ERR_MEMORY; status != DMC_OK;) {
        eval_tokens t;
        eval_ppl_result p;
        eval_kld_result d;
        eval_recall_result r;
        dmc_fault_memory(++k);
        status = eval_read_files(&t, e, (const char *[]){stories_path}, 1);
        if (status == DMC_OK) {
            status = eval_ppl(&p, e, &t, &o, NULL, NULL);
            if (status == DMC_OK) status = eval_kld(&d, e, e, &t, &o);
            eval_tokens_free(&t);
        }
        if (status == DMC_OK) status = eval_recall(&r, e, (const char *[]){questions_path}, 1, &o, 64);
        dmc_fault_memory(0);
        assert_true(status == DMC_OK || status == DMC_ERR_MEMORY);
    }
    assert_true(k > 20);
    dmc_engine_close(e);
}

static void test_texts_that_do_not_do(void **state)
{
    (void)state;
    dmc_engine *e = random_reader(0, 0);
    eval_options o = quiet();
    eval_tokens t;
    eval_recall_result r;
    char path[64];
    dmc_writer *w;
    snprintf(path, sizeof path, "%s/empty.txt", reader_directory);
    assert_ok(dmc_writer_open(&w, path));
    dmc_writef(w, "\n<|endoftext|>\n");
    assert_ok(dmc_writer_commit(w));
    assert_int_equal(eval_read_files(&t, e, (const char *[]){path}, 1), DMC_ERR_FORMAT);
    assert_int_equal(eval_recall(&r, e, (const char *[]){path}, 1, &o, 0), DMC_ERR_FORMAT);
    assert_int_equal(eval_read_files(&t, e, (const char *[]){stories_path, "/nowhere/x"}, 2), DMC_ERR_IO);
    assert_int_equal(eval_recall(&r, e, (const char *[]){stories_path, "/nowhere/x"}, 2, &o, 0), DMC_ERR_IO);
    unlink(path);
    dmc_engine_close(e);
}

/* ---- pictures ---------------------------------------------------------------------------------------------------- */

static int count(const char *text, const char *word)
{
    int n = 0;
    for (; (text = strstr(text, word)); text += strlen(word)) n++;
    return n;
}

static void test_picture(void **state)
{
    (void)state;
    static const double values[] = {1, 2, 4, 8, 1.5, 3};
    const picture_map map = {
        .title = "CR <of> heads", .values = values, .low = 1, .high = 8, .logarithmic = true, .format = "%.2f"};
    const picture p = {.title = "a & \"b\"\n", .subtitle = "s", .n_layers = 3, .n_heads = 2, .maps = &map, .n_maps = 1};
    char path[64], text[4096] = "";
    dmc_mapping m;
    snprintf(path, sizeof path, "%s/p.svg", reader_directory);
    assert_ok(picture_svg(&p, path));
    assert_ok(dmc_map_file(&m, path));
    char *svg = strndup((const char *)m.data, m.size);
    assert_int_equal(count(svg, "<title>layer"), 6);
    assert_int_equal(count(svg, "a &amp; \"b\"<"), 1);
    assert_int_equal(count(svg, "CR &lt;of&gt; heads"), 1);
    assert_int_equal(count(svg, ">4.00<"), 1);
    assert_int_equal(count(svg, "layer 1, head 0: 4.00<"), 1);
    assert_int_equal(count(svg, "<text"), count(svg, "</text>"));
    free(svg);
    dmc_unmap(&m);
    unlink(path);
    assert_int_equal(picture_svg(&p, "/nowhere/p.svg"), DMC_ERR_IO);

    FILE *f = fmemopen(text, sizeof text, "w");
    picture_terminal(&p, f, 80, false);
    fclose(f);
    assert_non_null(strstr(text, "layer 0  \u2591  1.00 \u2592  2.00 \nlayer 1  \u2593  4.00 \u2588  8.00 \n"));
    f = fmemopen(text, sizeof text, "w");
    picture_terminal(&p, f, 16, true); /* no room for numbers */
    fclose(f);
    assert_non_null(strstr(text, "layer 0  \033[48;5;"));
    assert_null(strstr(text, "2.00"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_documents),
        cmocka_unit_test(test_tokens_share_the_text),
        cmocka_unit_test(test_tokens_of_real_tokenizers),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_protocols),
        cmocka_unit_test(test_separate_documents),
        cmocka_unit_test(test_divergence_judges_the_same_tokens),
        cmocka_unit_test(test_chunks_change_nothing),
        cmocka_unit_test(test_policies),
        cmocka_unit_test(test_agrees_with_training),
        cmocka_unit_test(test_recall),
        cmocka_unit_test(test_recall_piece_by_piece),
        cmocka_unit_test(test_window_of_all),
        cmocka_unit_test(test_facts_are_found),
        cmocka_unit_test(test_facts_that_are_not_there),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_texts_that_do_not_do),
        cmocka_unit_test(test_picture),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
