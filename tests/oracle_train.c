/* Training checks against golden vectors: soft decisions, pooling, mask, attention, all gradients, whole-model losses, AdamW. */
#include "oracle_compare.h"

#include "train/optim.h"

static float *noise_of(const dmc_safetensors *f, int64_t from, int L, int B, int T, int H)
{
    const dmc_st_tensor *g1 = need(f, "g1"), *g2 = need(f, "g2"); /* [.., L][B][T][H] -> [L][B][H][T] */
    float *n = floats((size_t)L * B * T * H);
    for (int lb = 0; lb < L * B; lb++)
        for (int t = 0; t < T; t++)
            for (int h = 0; h < H; h++) {
                int64_t i = from + ((int64_t)lb * T + t) * H + h;
                n[((int64_t)lb * H + h) * T + t] = (float)at(g1, i) - (float)at(g2, i);
            }
    return n;
}

/* One layer, one sequence: forward (soft), hinge, gradients. */
static bool layer_check(const char *path, char why[ORACLE_WHY], const char *soft_out, const char *soft_l, bool details)
{
    dmc_safetensors *f;
    if (dmc_safetensors_open(&f, path) != DMC_OK) return snprintf(why, ORACLE_WHY, "%s", dmc_last_error()), false;
    const dmc_st_tensor *q = need(f, "q"), *k = need(f, "k");
    int T = (int)q->shape[0], Hq = (int)q->shape[1], D = (int)q->shape[2], H = (int)k->shape[1], G = Hq / H;
    dmc_rope rope;
    double *freq = dmc_calloc((size_t)D, sizeof *freq);
    dmc_rope_inv_freq(freq, D, setting(f, "theta"));
    if (dmc_rope_create(&rope, D, T, setting(f, "interleaved") != 0, freq) != DMC_OK) return false;
    dmc_attention_shape s = {.B = 1,
                             .T = T,
                             .H = H,
                             .G = G,
                             .D = D,
                             .mode = DMC_MODE_SOFT,
                             .policy = policy_of(f, D),
                             .tau = (float)setting(f, "tau"),
                             .rope = &rope,
                             .kernels = dmc_kernels_pick(0)};
    dmc_attention_saved a;
    float *memory = floats(dmc_attention_states_floats(&s) + dmc_attention_gates_floats(&s)),
          *scratch = floats(dmc_attention_scratch_floats(&s));
    dmc_attention_states_carve(&a, &s, memory);
    dmc_attention_gates_carve(&a, &s, memory + dmc_attention_states_floats(&s));
    float *qf = copy(q), *kf = copy(k), *vf = copy(need(f, "v")), *noise = noise_of(f, 0, 1, 1, T, H),
          *d_out = copy(need(f, "grad_out"));
    float *out = floats((size_t)T * Hq * D), *dq = floats((size_t)T * Hq * D), *dk = floats((size_t)T * H * D),
          *dv = floats((size_t)T * H * D);
    a.noise = noise;
    double merged = 0, target = setting(f, "target");
    for (int h = 0; h < H; h++) dmc_attention_forward(&s, &a, 0, h, qf, kf, vf, out, scratch);
    for (int i = 0; i < H * T; i++) merged += a.alpha[i] > 0.5f;
    merged /= H * T;
    double hinge = fmax(0, target - merged);

    worst w = {.why = why};
    compare_all(&w, "out", out, need(f, soft_out), details ? 1e-5 : 2e-5, false);
    compare(&w, "hinge", hinge, at(need(f, "hinge"), 0), 1e-6);
    for (int h = 0; h < H; h++)
        for (int t = 0; t < T; t++) {
            int64_t i = (int64_t)t * H + h, j = (int64_t)h * T + t;
            compare(&w, "l", a.l[j], at(need(f, soft_l), i), 2e-5);
            if (!details) continue;
            compare(&w, "alpha", a.alpha[j], at(need(f, "alpha"), i), 1e-5);
            compare(&w, "omega", a.omega[j], at(need(f, "omega"), i), 1e-6);
            compare(&w, "Z", a.z[j], at(need(f, "Z"), i), 1e-5);
            compare(&w, "M", a.mask[j], at(need(f, "M"), i), 2e-5);
            for (int d = 0; d < D; d++) {
                compare(&w, "yk", a.y[j * 2 * D + d], at(need(f, "yk"), i * D + d), 1e-5);
                compare(&w, "yv", a.y[j * 2 * D + D + d], at(need(f, "yv"), i * D + d), 1e-5);
            }
        }
    for (int pass = details ? 0 : 1; pass < 2; pass++) { /* without and with the compression loss */
        float d_alpha = pass && hinge > 0 ? -1.0f / (float)(H * T) : 0;
        for (int h = 0; h < H; h++)
            dmc_attention_backward(&s, &a, 0, h, kf, vf, out, d_out, d_alpha, T, dq, dk, dv, scratch);
        compare_all(&w, "dq", dq, need(f, pass ? "dq" : "dq_attn"), 1e-4, true);
        compare_all(&w, "dk", dk, need(f, pass ? "dk" : "dk_attn"), 1e-4, true);
        compare_all(&w, "dv", dv, need(f, pass ? "dv" : "dv_attn"), 1e-4, true);
    }
    float *all[] = {memory, scratch, qf, kf, vf, noise, d_out, out, dq, dk, dv};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) dmc_free(all[i]);
    dmc_free(freq);
    dmc_rope_free(&rope);
    dmc_safetensors_close(f);
    return verdict(&w);
}

bool oracle_train_file(const char *path, char why[ORACLE_WHY]) { return layer_check(path, why, "out", "l", true); }
bool oracle_delay_train(const char *path, char why[ORACLE_WHY])
{
    return layer_check(path, why, "soft_out", "soft_l", false);
}

/* ---- whole models ---- */

typedef struct {
    dmc_checkpoint *c;
    dmc_safetensors *f;
    dmc_config config;
    dmc_cpu cpu;
    dmc_layout layout;
    dmc_net *net;
    float *w, *g;
    int B, T, L, H;
} model;

static bool model_open(model *m, const char *dir, const char *file, char why[ORACLE_WHY])
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    *m = (model){.cpu = {.kernels = dmc_kernels_pick(0)}};
    if (dmc_checkpoint_open(&m->c, dir) != DMC_OK || dmc_safetensors_open(&m->f, path) != DMC_OK)
        return snprintf(why, ORACLE_WHY, "%s", dmc_last_error()), false;
    m->config = m->c->config;
    m->config.policy = policy_of(m->f, m->config.head_dim);
    const dmc_st_tensor *ids = need(m->f, "ids");
    m->B = (int)ids->shape[ids->n_dims - 2], m->T = (int)ids->shape[ids->n_dims - 1], m->L = m->config.n_layers,
    m->H = m->config.n_kv_heads;
    if (dmc_layout_create(&m->layout, &m->config) != DMC_OK) return false;
    m->w = floats(m->layout.n_floats), m->g = floats(m->layout.n_floats);
    if (dmc_layout_load(&m->layout, m->c, m->w) != DMC_OK ||
        dmc_net_create(&m->net, &m->config, &m->layout, &m->cpu, m->B, m->T, DMC_KEEP_ALL) != DMC_OK)
        return snprintf(why, ORACLE_WHY, "%s", dmc_last_error()), false;
    return true;
}

static void model_close(model *m)
{
    dmc_net_close(m->net);
    dmc_free(m->w), dmc_free(m->g);
    dmc_layout_free(&m->layout);
    dmc_safetensors_close(m->f);
    dmc_checkpoint_close(m->c);
}

/* One step's losses and gradients. */
static void model_step(model *m, int64_t step, double target, double *ce, double *hinge, double *merged)
{
    const dmc_st_tensor *ids = need(m->f, "ids");
    int64_t rows = (int64_t)m->B * m->T, gates = (int64_t)m->L * rows * m->H;
    int32_t *id = dmc_calloc((size_t)rows, sizeof *id);
    for (int64_t i = 0; i < rows; i++) id[i] = (int32_t)at(ids, step * rows + i);
    float *noise = noise_of(m->f, step * gates, m->L, m->B, m->T, m->H), *d_alpha = floats((size_t)m->B);
    dmc_pass p = {.ids = id, .mode = DMC_MODE_SOFT, .tau = (float)setting(m->f, "tau"), .noise = noise};
    dmc_loss_options lo = {.ce_weight = 1};
    dmc_net_forward(m->net, m->w, &p);
    *ce = dmc_net_loss(m->net, m->w, &p, &lo, m->g, 1).ce;
    *hinge = *merged = 0;
    int64_t each = (int64_t)m->H * m->T, n = (int64_t)m->L * each;
    for (int b = 0; b < m->B; b++) {
        double s = 0;
        for (int il = 0; il < m->L; il++)
            for (int64_t i = 0; i < each; i++) s += dmc_net_attention(m->net, il)->alpha[b * each + i] > 0.5f;
        *merged += s / (double)n / m->B;
        *hinge += fmax(0, target - s / (double)n) / m->B;
        d_alpha[b] = target > s / (double)n ? -1.0f / ((float)n * (float)m->B) : 0;
    }
    int32_t *counted = dmc_calloc((size_t)m->B, sizeof *counted);
    for (int b = 0; b < m->B; b++) counted[b] = m->T;
    dmc_net_backward(m->net, m->w, &p, d_alpha, counted, m->g);
    dmc_free(id), dmc_free(counted), dmc_free(noise), dmc_free(d_alpha);
}

bool oracle_model_train(const char *dir, char why[ORACLE_WHY])
{
    model m;
    if (!model_open(&m, dir, "train_dmc.safetensors", why)) return model_close(&m), false;
    double ce, hinge, merged;
    worst w = {.why = why};
    model_step(&m, 0, setting(m.f, "target"), &ce, &hinge, &merged);
    compare(&w, "ce", ce, at(need(m.f, "ce"), 0), 1e-5);
    compare(&w, "hinge", hinge, at(need(m.f, "hinge"), 0), 1e-5);
    compare(&w, "mean alpha", merged, at(need(m.f, "mean_alpha"), 0), 1e-6);
    float *logits = floats((size_t)m.B * m.T * m.config.n_vocab);
    dmc_net_logits(m.net, m.w, 0, (int64_t)m.B * m.T, logits);
    compare_all(&w, "logits", logits, need(m.f, "logits"), 1e-4, false);
    for (int i = 0; i < m.layout.n_params; i++) {
        char name[96];
        snprintf(name, sizeof name, "grad.%s", m.layout.params[i].name);
        compare_all(&w, name, m.g + m.layout.params[i].at, need(m.f, name), 5e-4, true);
    }
    dmc_free(logits);
    model_close(&m);
    return verdict(&w);
}

bool oracle_model_adamw(const char *dir, char why[ORACLE_WHY])
{
    model m;
    if (!model_open(&m, dir, "adamw_dmc.safetensors", why)) return model_close(&m), false;
    dmc_adamw o = {.beta1 = (float)setting(m.f, "beta1"),
                   .beta2 = (float)setting(m.f, "beta2"),
                   .eps = (float)setting(m.f, "eps_adam"),
                   .weight_decay = (float)setting(m.f, "weight_decay"),
                   .clip = (float)setting(m.f, "clip"),
                   .decision_scale = 1};
    float *mm = floats(m.layout.n_floats), *vv = floats(m.layout.n_floats);
    worst w = {.why = why};
    for (int s = 0; s < (int)setting(m.f, "train_iters"); s++) {
        double ce, hinge, merged;
        model_step(&m, s, at(need(m.f, "target"), s), &ce, &hinge, &merged);
        double norm = dmc_adamw_step(&o, &m.layout, &m.cpu, m.config.head_dim, -1, m.w, m.g, mm, vv, s + 1,
                                     (float)setting(m.f, "lr"));
        compare(&w, "loss", ce + hinge, at(need(m.f, "loss"), s), 1e-4);
        compare(&w, "ce", ce, at(need(m.f, "ce"), s), 1e-4);
        compare(&w, "mean alpha", merged, at(need(m.f, "mean_alpha"), s), 1e-6);
        compare(&w, "grad_norm", norm, at(need(m.f, "grad_norm"), s), 2e-3 * at(need(m.f, "grad_norm"), s));
    }
    for (int i = 0; i < m.layout.n_params; i++) {
        char name[96];
        snprintf(name, sizeof name, "final.%s", m.layout.params[i].name);
        compare_all(&w, name, m.w + m.layout.params[i].at, need(m.f, name), 1e-3, false);
    }
    dmc_free(mm), dmc_free(vv);
    model_close(&m);
    return verdict(&w);
}
