/* Serving checks against golden vectors: the cache token by token and in chunks, and a whole model through the engine. */
#include "cache/cache.h"
#include "oracle_compare.h"

#include <stdlib.h>
#include <unistd.h>

/* ---- one layer ---- */

typedef struct {
    dmc_safetensors *f;
    int H, G, D;
    int64_t T, pos0, prompt; /* prompt: tokens of one, for policies that care */
    const dmc_st_tensor *q, *k;
    float *qx, *kx, *vx, *adapter, *out;
    dmc_policy policy;
    dmc_rope rope;
    dmc_pool *pool;
    dmc_seq *seq;
    float *scratch;
} layer;

static bool ready(dmc_status s, char why[ORACLE_WHY])
{
    if (s != DMC_OK) snprintf(why, ORACLE_WHY, "%s", dmc_last_error());
    return s == DMC_OK;
}

/* What the adapter of a DMS layer makes of the residual stream, [T][H]: W RMSNorm(x). */
static float *adapter_of(const dmc_safetensors *f)
{
    const dmc_st_tensor *x = need(f, "resid"), *gain = need(f, "adapter_norm"), *w = need(f, "adapter_weight");
    int64_t T = x->shape[0], E = x->shape[1], H = w->shape[0];
    float *out = floats((size_t)(T * H));
    for (int64_t t = 0; t < T; t++) {
        double square = 0;
        for (int64_t i = 0; i < E; i++) square += at(x, t * E + i) * at(x, t * E + i);
        double scale = 1 / sqrt(square / (double)E + setting(f, "adapter_eps"));
        for (int64_t h = 0; h < H; h++) {
            double sum = 0;
            for (int64_t i = 0; i < E; i++) sum += at(x, t * E + i) * scale * at(gain, i) * at(w, h * E + i);
            out[t * H + h] = (float)sum;
        }
    }
    return out;
}

static dmc_policy fmp_policy_of(const dmc_safetensors *f, int D)
{
    dmc_policy p = dmc_policy_default(DMC_POLICY_FMP, D);
    p.period = (int)setting(f, "cr");
    return p;
}

/* 0 in a file means none; in a policy it means the default. */
static int or_none(double n) { return n > 0 ? (int)n : -1; }

static dmc_policy evicting(dmc_policy_kind kind, int D, double slots)
{
    dmc_policy p = dmc_policy_default(kind, D);
    p.budget_unit = DMC_BUDGET_SLOTS;
    p.budget = slots;
    return p;
}

static dmc_policy h2o_policy_of(const dmc_safetensors *f, int D)
{
    dmc_policy p = evicting(DMC_POLICY_H2O, D, setting(f, "heavy") + setting(f, "recent"));
    p.recent = or_none(setting(f, "recent"));
    return p;
}

static dmc_policy tova_policy_of(const dmc_safetensors *f, int D)
{
    return evicting(DMC_POLICY_TOVA, D, setting(f, "size"));
}

static dmc_policy streaming_policy_of(const dmc_safetensors *f, int D)
{
    dmc_policy p = evicting(DMC_POLICY_STREAMING, D, setting(f, "sinks") + setting(f, "recent"));
    p.sinks = or_none(setting(f, "sinks"));
    return p;
}

static dmc_policy snapkv_policy_of(const dmc_safetensors *f, int D)
{
    dmc_policy p = evicting(DMC_POLICY_SNAPKV, D, setting(f, "capacity"));
    p.recent = or_none(setting(f, "window"));
    return p;
}

typedef dmc_policy policy_reader(const dmc_safetensors *f, int D);

static bool layer_open(layer *l, const char *path, policy_reader *policy, int tier, char why[ORACLE_WHY])
{
    *l = (layer){0};
    if (!ready(dmc_safetensors_open(&l->f, path), why)) return false;
    l->q = need(l->f, "q");
    l->k = need(l->f, "k");
    l->T = l->k->shape[0];
    l->H = (int)l->k->shape[1];
    l->D = (int)l->k->shape[2];
    l->G = (int)l->q->shape[1] / l->H;
    const dmc_st_tensor *pos = dmc_safetensors_find(l->f, "pos");
    l->pos0 = pos ? (int64_t)at(pos, 0) : 0;
    l->prompt = (int64_t)setting(l->f, "prompt");
    l->policy = policy(l->f, l->D);
    if (l->policy.decision == DMC_DECISION_ADAPTER) l->adapter = adapter_of(l->f);
    double theta = setting(l->f, "theta");
    l->qx = copy(l->q);
    l->kx = copy(l->k);
    l->vx = copy(need(l->f, "v"));
    l->out = floats((size_t)l->q->n_elements);
    double inv_freq[1024];
    dmc_rope_inv_freq(inv_freq, l->D, theta > 0 ? theta : 1e4);
    if (!ready(dmc_rope_create(&l->rope, l->D, l->pos0 + l->T, setting(l->f, "interleaved") != 0, inv_freq), why))
        return false;
    if (!ready(dmc_pool_create(&l->pool, DMC_KV_F32, l->D, 0), why)) return false;
    dmc_seq_options o = {.n_layers = 1,
                         .n_kv_heads = l->H,
                         .group = l->G,
                         .head_dim = l->D,
                         .n_ctx = l->T,
                         .pos0 = l->pos0,
                         .policy = l->policy,
                         .rope = &l->rope,
                         .kernels = dmc_kernels_pick(tier)};
    if (!ready(dmc_seq_create(&l->seq, l->pool, &o), why)) return false;
    l->scratch = floats(dmc_seq_scratch(l->seq, l->T));
    return true;
}

static void layer_close(layer *l)
{
    dmc_seq_close(l->seq);
    dmc_pool_close(l->pool);
    dmc_rope_free(&l->rope);
    float *all[] = {l->qx, l->kx, l->vx, l->adapter, l->out, l->scratch};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) dmc_free(all[i]);
    dmc_safetensors_close(l->f);
}

/* Tokens t .. t + n - 1, all heads. */
static bool layer_feed(layer *l, int64_t t, int64_t n, char why[ORACLE_WHY])
{
    int64_t nq = (int64_t)l->H * l->G * l->D, nk = (int64_t)l->H * l->D;
    if (!ready(dmc_seq_reserve(l->seq, n), why)) return false;
    if (t + n == l->prompt) dmc_seq_end_prompt(l->seq);
    dmc_new_tokens x = {.T = n,
                        .q = l->qx + t * nq,
                        .k = l->kx + t * nk,
                        .v = l->vx + t * nk,
                        .ld_q = nq,
                        .ld_kv = nk,
                        .adapter = l->adapter ? l->adapter + t * l->H : NULL,
                        .out = l->out + t * nq};
    for (int h = 0; h < l->H; h++) dmc_cache_update_attend(l->seq, 0, h, &x, l->scratch);
    dmc_seq_advance(l->seq, n);
    return true;
}

static void check_step(const layer *l, worst *w, int64_t t, bool detail)
{
    int64_t D = l->D;
    double key_tol = l->pos0 ? 1e-4 : 1e-5; /* angles at large positions */
    for (int h = 0; h < l->H; h++) {
        int64_t i = t * l->H + h, slots = dmc_seq_slots(l->seq, 0, h);
        equal(w, "len", slots, at(need(l->f, "len"), i));
        if (!detail) continue;
        const dmc_accumulator *a = dmc_seq_accumulator(l->seq, 0, h);
        compare(w, "z", a->z, at(need(l->f, "z"), i), 1e-5 * fmax(1, fabs(a->z)));
        float k[D], v[D];
        dmc_seq_slot(l->seq, 0, h, slots - 1, k, v);
        for (int64_t j = 0; j < D; j++) {
            compare(w, "slot_k", k[j], at(need(l->f, "slot_k"), i * D + j), key_tol);
            compare(w, "slot_v", v[j], at(need(l->f, "slot_v"), i * D + j), 1e-5);
        }
    }
}

static void check_gates(const layer *l, worst *w, bool detail)
{
    float *logit = floats((size_t)l->T), *omega = floats((size_t)l->T);
    for (int h = 0; h < l->H; h++) {
        dmc_gate_rows x = {.head_dim = l->D,
                           .group = l->G,
                           .n_kv_heads = l->H,
                           .ih = h,
                           .T = l->T,
                           .q = l->qx,
                           .k = l->kx,
                           .ld_q = (int64_t)l->H * l->G * l->D,
                           .ld_k = (int64_t)l->H * l->D};
        dmc_gates(&l->policy, &x, logit, omega);
        for (int64_t t = 0; t < l->T; t++) {
            equal(w, "alpha", t > 0 && logit[t] > 0, at(need(l->f, "alpha"), t * l->H + h));
            if (!detail) continue;
            compare(w, "r", logit[t], at(need(l->f, "r"), t * l->H + h), 1e-5);
            compare(w, "omega", omega[t], at(need(l->f, "omega"), t * l->H + h), 1e-5);
        }
    }
    dmc_free(logit);
    dmc_free(omega);
}

static void check_end(const layer *l, worst *w, const int64_t *slot_pos, const float *slot_z)
{
    int64_t D = l->D, n = need(l->f, "final_k")->shape[1];
    for (int h = 0; h < l->H; h++) {
        const dmc_accumulator *a = dmc_seq_accumulator(l->seq, 0, h);
        for (int64_t s = 0; s < dmc_seq_slots(l->seq, 0, h); s++) {
            float k[D], v[D];
            dmc_seq_slot(l->seq, 0, h, s, k, v);
            for (int64_t j = 0; j < D; j++) {
                compare(w, "final_k", k[j], at(need(l->f, "final_k"), (h * n + s) * D + j), l->pos0 ? 1e-4 : 1e-5);
                compare(w, "final_v", v[j], at(need(l->f, "final_v"), (h * n + s) * D + j), 1e-5);
            }
            double z = slot_z[h * l->T + s];
            compare(w, "final_z", z, at(need(l->f, "final_z"), h * n + s), 1e-5 * fmax(1, z));
            equal(w, "final_pos", slot_pos[h * l->T + s], at(need(l->f, "final_pos"), h * n + s));
        }
        for (int64_t j = 0; j < 2 * D; j++)
            compare(w, "final_S", a->sum[j], at(need(l->f, "final_S"), h * 2 * D + j), 1e-5 * fmax(1, fabs(a->sum[j])));
        compare(w, "final_Z", a->z, at(need(l->f, "final_Z"), h), 1e-5 * fmax(1, a->z));
        equal(w, "final_n", a->n_run, at(need(l->f, "final_n"), h));
    }
}

/* Token by token with every step checked; `detail`: the vector file has the slots of every step, too. */
static bool stream(layer *l, worst *w, bool detail)
{
    int64_t *slot_pos = dmc_calloc((size_t)(l->H * l->T), sizeof *slot_pos);
    float *slot_z = floats((size_t)(l->H * l->T));
    bool ok = true;
    for (int64_t t = 0; t < l->T && ok; t++) {
        int64_t before[64];
        for (int h = 0; h < l->H; h++) before[h] = dmc_seq_slots(l->seq, 0, h);
        ok = layer_feed(l, t, 1, w->why);
        if (!ok) break;
        check_step(l, w, t, detail);
        for (int h = 0; h < l->H; h++) {
            int64_t slots = dmc_seq_slots(l->seq, 0, h), settled = t - l->policy.delay;
            if (settled >= 0) equal(w, "alpha", slots == before[h], at(need(l->f, "alpha"), settled * l->H + h));
            slot_pos[h * l->T + slots - 1] = l->pos0 + t;
            slot_z[h * l->T + slots - 1] = dmc_seq_accumulator(l->seq, 0, h)->z;
        }
    }
    check_gates(l, w, detail);
    if (ok && detail) check_end(l, w, slot_pos, slot_z);
    dmc_free(slot_pos);
    dmc_free(slot_z);
    return ok;
}

/* Positions that the slots of head h hold after token t, against the row of `kept`; pos: of the settled slots. */
static void check_kept(const layer *l, worst *w, int64_t t, int h, const int64_t *pos, int64_t n_settled)
{
    const dmc_st_tensor *kept = need(l->f, "kept");
    int64_t n = kept->shape[2], first = t - l->policy.delay + 1;
    for (int64_t i = 0; i < n; i++) {
        int64_t recent = (first > 0 ? first : 0) + i - n_settled;
        equal(w, "kept", i < n_settled ? pos[i] : recent <= t ? recent : -1, at(kept, (t * l->H + h) * n + i));
    }
}

/* Token by token: which positions stay. */
static bool stream_kept(layer *l, worst *w)
{
    int64_t *pos = dmc_calloc((size_t)(l->H * l->T), sizeof *pos);
    const dmc_st_tensor *len = dmc_safetensors_find(l->f, "len"), *flags = dmc_safetensors_find(l->f, "evict_prev");
    bool ok = true;
    for (int64_t t = 0; t < l->T && ok; t++) {
        ok = layer_feed(l, t, 1, w->why);
        int64_t settled = t - l->policy.delay, recent = settled >= 0 ? l->policy.delay : t + 1;
        for (int h = 0; h < l->H && ok; h++) {
            int64_t slots = dmc_seq_slots(l->seq, 0, h), n = slots - recent, before = 0;
            int64_t *p = pos + h * l->T;
            while (before < l->T && settled > 0 && p[before] >= 0) before++;
            if (settled == 0)
                for (int64_t i = 0; i < l->T; i++) p[i] = -1;
            if (settled >= 0) p[n - 1] = settled;
            if (settled > 0 && flags) equal(w, "evict_prev", n == before, at(flags, settled * l->H + h));
            if (len) equal(w, "len", slots, at(len, t * l->H + h));
            check_kept(l, w, t, h, p, settled >= 0 ? n : 0);
        }
    }
    dmc_free(pos);
    return ok;
}

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Policies that evict, token by token: the slots know what they hold, in no order. */
static bool stream_evicting(layer *l, worst *w)
{
    const dmc_st_tensor *kept = need(l->f, "kept");
    int64_t n = kept->shape[2], *pos = dmc_calloc((size_t)l->T, sizeof *pos);
    bool ok = true;
    for (int64_t t = 0; t < l->T && ok; t++) {
        ok = layer_feed(l, t, 1, w->why);
        for (int h = 0; h < l->H && ok && t + 1 >= l->prompt; h++) {
            int64_t slots = dmc_seq_slots(l->seq, 0, h);
            for (int64_t i = 0; i < slots; i++) pos[i] = dmc_seq_position(l->seq, 0, h, i);
            qsort(pos, (size_t)slots, sizeof *pos, ascending);
            for (int64_t i = 0; i < n; i++) equal(w, "kept", i < slots ? pos[i] : -1, at(kept, (t * l->H + h) * n + i));
            equal(w, "slots", slots > n, 0);
        }
    }
    dmc_free(pos);
    return ok;
}

static bool stream_all(layer *l, worst *w) { return stream(l, w, true); }
static bool stream_delayed(layer *l, worst *w) { return stream(l, w, false); }

/* Every kernel tier; token by token, then in chunks, which must give the same bits. */
static bool check_layer(const char *path, policy_reader *policy, bool (*check)(layer *, worst *), char why[ORACLE_WHY])
{
    worst w = {.why = why};
    bool ok = true;
    for (int tier = 1; tier <= 3 && ok; tier++) {
        if (!dmc_kernels_pick(tier)) continue;
        layer single = {0}, chunks = {0};
        ok = layer_open(&single, path, policy, tier, why) && layer_open(&chunks, path, policy, tier, why) &&
             check(&single, &w);
        for (int64_t t = 0, n = 1, end; t < single.T && ok; t += n, n = n * 2 + 3) {
            end = t < single.prompt ? single.prompt : single.T;
            if (n > end - t) n = end - t;
            ok = layer_feed(&chunks, t, n, why);
        }
        if (ok) {
            compare_all(&w, "out", single.out, need(single.f, "out"), 2e-5, false);
            equal(&w, "chunks differ from single tokens",
                  memcmp(single.out, chunks.out, (size_t)single.q->n_elements * sizeof(float)) != 0, 0);
        }
        layer_close(&single);
        layer_close(&chunks);
    }
    return ok && verdict(&w);
}

bool oracle_update(const char *path, char why[ORACLE_WHY]) { return check_layer(path, policy_of, stream_all, why); }
bool oracle_delay(const char *path, char why[ORACLE_WHY]) { return check_layer(path, policy_of, stream_delayed, why); }
bool oracle_dms(const char *path, char why[ORACLE_WHY]) { return check_layer(path, dms_policy_of, stream_kept, why); }
bool oracle_fmp(const char *path, char why[ORACLE_WHY]) { return check_layer(path, fmp_policy_of, stream_kept, why); }

bool oracle_evicting(const char *path, char why[ORACLE_WHY])
{
    static const struct {
        const char *name;
        policy_reader *policy;
    } kinds[] = {{"policy_h2o", h2o_policy_of},
                 {"policy_tova", tova_policy_of},
                 {"policy_streamingllm", streaming_policy_of},
                 {"policy_snapkv", snapkv_policy_of}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strstr(path, kinds[i].name)) return check_layer(path, kinds[i].policy, stream_evicting, why);
    snprintf(why, ORACLE_WHY, "no policy of this name");
    return false;
}

/* ---- whole model ---- */

/* One sequence: logits in one feed; then token by token for the decisions, with the same logits. */
static bool check_sequence(dmc_engine *e, const dmc_session_options *o, const dmc_safetensors *f, const char *mode,
                           int64_t b, worst *w)
{
    const dmc_info *info = dmc_engine_info(e);
    int delay = o->override_policy ? o->policy.delay : info->policy.delay;
    const dmc_st_tensor *ids = need(f, "ids");
    char name[64];
    int64_t T = ids->shape[1], V = info->n_vocab, L = info->n_layers, H = info->n_kv_heads;
    dmc_session *s = NULL, *single = NULL;
    float *logits = floats((size_t)(T * V)), *one = floats((size_t)V);
    int32_t *x = dmc_calloc((size_t)T, sizeof *x);
    for (int64_t t = 0; t < T; t++) x[t] = (int32_t)at(ids, b * T + t);
    bool ok = ready(dmc_session_create(&s, e, o), w->why) && ready(dmc_session_create(&single, e, o), w->why) &&
              ready(dmc_session_feed(s, x, (size_t)T, logits, true), w->why);
    if (!ok) goto done;
    snprintf(name, sizeof name, "logits_%s", mode);
    for (int64_t i = 0; i < T * V; i++) compare(w, name, logits[i], at(need(f, name), b * T * V + i), 1e-4);
    snprintf(name, sizeof name, "len_%s", mode);
    for (int64_t i = 0; i < L * H; i++)
        equal(w, name, dmc_session_head_slots(s, (int)(i / H), (int)(i % H)), at(need(f, name), b * L * H + i));
    snprintf(name, sizeof name, "flags_%s", mode);
    const dmc_st_tensor *flags = dmc_safetensors_find(f, name);
    for (int64_t t = 0; t < T && ok; t++) {
        int64_t before[256];
        for (int64_t i = 0; i < L * H && i < 256; i++)
            before[i] = dmc_session_head_slots(single, (int)(i / H), (int)(i % H));
        ok = ready(dmc_session_feed(single, &x[t], 1, one, false), w->why);
        equal(w, "single tokens differ from one feed", memcmp(one, logits + t * V, (size_t)V * sizeof(float)) != 0, 0);
        int64_t decided = t - delay; /* when what this step does was decided; the first eviction is of token 0, at 1 */
        for (int64_t i = 0; flags && decided >= (delay > 0) && i < L * H && i < 256; i++) {
            bool merged = dmc_session_head_slots(single, (int)(i / H), (int)(i % H)) == before[i];
            equal(w, name, merged, at(flags, ((b * L + i / H) * T + decided) * H + i % H));
        }
    }
done:
    dmc_session_close(s);
    dmc_session_close(single);
    dmc_free(logits);
    dmc_free(one);
    dmc_free(x);
    return ok;
}

/* The model with NVIDIA's DMS keys in its config.json, as its checkpoints are published: a directory of its own for as long as the
 * engine opens. */
static dmc_status open_dms(dmc_engine **out, const char *dir, int window, bool adapter)
{
    char scratch[] = "/tmp/dmc_oracle_XXXXXX", command[1200];
    dmc_mapping m;
    *out = NULL;
    if (!mkdtemp(scratch)) return dmc_fail(DMC_ERR_IO, "%s: cannot be made", scratch);
    char *from = dmc_path_join(dir, "config.json"), *to = dmc_path_join(scratch, "config.json");
    char *weights = dmc_path_join(scratch, "model.safetensors"), *real = dmc_path_join(dir, "model.safetensors");
    char *full = realpath(real, NULL);
    dmc_status status = dmc_map_file(&m, from);
    FILE *f = status == DMC_OK ? fopen(to, "wb") : NULL;
    if (f) {
        const char *text = (const char *)m.data, *brace = memchr(text, '{', m.size);
        fprintf(
            f,
            "{\"dms_cr\": 8, \"dms_window_size\": %d, \"dms_alpha_scale\": 100.0, \"dms_initial_alpha_offset\": 5.0, "
            "\"dms_separate_alpha\": %s,",
            window, adapter ? "true" : "false");
        fwrite(brace + 1, 1, (size_t)(text + m.size - brace - 1), f);
        fclose(f);
        status = full && symlink(full, weights) == 0 ? dmc_engine_open(out, scratch, NULL)
                                                     : dmc_fail(DMC_ERR_IO, "%s: cannot be made", weights);
    }
    dmc_unmap(&m);
    snprintf(command, sizeof command, "rm -rf '%s'", scratch);
    if (system(command) != 0) fprintf(stderr, "oracle: %s stays\n", scratch);
    dmc_free(from);
    dmc_free(to);
    dmc_free(weights);
    dmc_free(real);
    free(full);
    return status;
}

static bool check_model(const char *dir, const char *mode, char why[ORACLE_WHY])
{
    worst w = {.why = why};
    dmc_safetensors *f = NULL;
    dmc_engine *e = NULL;
    char *path = dmc_path_join(dir, "infer.safetensors");
    bool dms = strncmp(mode, "dms", 3) == 0, ok = ready(dmc_safetensors_open(&f, path), why);
    if (ok && dms) ok = ready(open_dms(&e, dir, (int)setting(f, "dms_window"), !strcmp(mode, "dms_adapter")), why);
    else if (ok) ok = ready(dmc_engine_open(&e, dir, NULL), why);
    if (ok) {
        dmc_session_options o = dmc_session_options_default();
        o.override_policy = !dms;
        if (!strcmp(mode, "dmc")) {
            o.policy = dmc_policy_default(DMC_POLICY_DMC, dmc_engine_info(e)->head_dim);
            o.policy.window = (int)setting(f, "dmc_window");
        }
        for (int64_t b = 0; b < need(f, "ids")->shape[0] && ok; b++) ok = check_sequence(e, &o, f, mode, b, &w);
    }
    dmc_engine_close(e);
    dmc_safetensors_close(f);
    dmc_free(path);
    return ok && verdict(&w);
}

bool oracle_model_none(const char *dir, char why[ORACLE_WHY]) { return check_model(dir, "none", why); }
bool oracle_model_dmc(const char *dir, char why[ORACLE_WHY]) { return check_model(dir, "dmc", why); }
bool oracle_model_dms(const char *dir, char why[ORACLE_WHY]) { return check_model(dir, "dms", why); }
bool oracle_model_adapter(const char *dir, char why[ORACLE_WHY]) { return check_model(dir, "dms_adapter", why); }
