/* State files: the header with everything behind it, and the bytes of a cache; what is accepted must be usable. */
#include "engine/engine.h"

#include <stdlib.h>
#include <string.h>

static dmc_engine *engine(void)
{
    static dmc_engine *e;
    if (e) return e;
    dmc_config c = {.n_layers = 1,
                    .n_heads = 4,
                    .n_kv_heads = 2,
                    .head_dim = 4,
                    .n_embd = 8,
                    .n_ff = 8,
                    .n_vocab = 8,
                    .n_ctx = 64,
                    .norm_eps = 1e-5f,
                    .rope_theta = 10000,
                    .bos = -1,
                    .tied = true};
    dmc_checkpoint *k;
    if (dmc_checkpoint_create(&k, &c) != DMC_OK) abort();
    for (size_t i = 0; i < k->n_tensors; i++)
        for (size_t j = 0; j < k->tensors[i].bytes / sizeof(float); j++)
            ((float *)(uintptr_t)k->tensors[i].data)[j] = (float)dmc_normal(1, i, j);
    dmc_engine_options o = {.n_threads = 1, .pool_bytes = 1 << 16};
    if (dmc_engine_of_checkpoint(&e, k, &o) != DMC_OK) abort();
    return e;
}

static void use(dmc_session *s)
{
    dmc_session *f;
    const int32_t ids[] = {1, 2, 3, 4, 5};
    if (dmc_session_fork(&f, s) != DMC_OK) return;
    dmc_session_feed(f, ids, 5, NULL, false);
    dmc_session_feed(s, ids, 1, NULL, false);
    dmc_session_close(f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dmc_engine *e = engine();
    dmc_session *s;
    if (size < 2) return 0;
    if (data[0] & 1) { /* a state file whose first fields are right: magic number, version, model */
        uint8_t *file = malloc(size);
        const uint64_t identity = dmc_engine_identity(e);
        memcpy(file, data, size);
        if (size > 16) memcpy(file, "dmcs\4\0\0\0", 8), memcpy(file + 8, &identity, 8);
        if (dmc_state_parse(&s, e, file, size, "fuzz") == DMC_OK) {
            use(s);
            dmc_session_close(s);
        }
        free(file);
    } else { /* a cache alone, under a policy that the second byte picks */
        uint64_t sum = 0;
        dmc_session_options o = {.override_policy = true, .policy = dmc_policy_default(DMC_POLICY_DMC, 4)};
        if (data[1] & 1) o.policy = dmc_policy_none();
        o.policy.window = data[1] & 2 ? 3 : 0;
        o.policy.delay = data[1] & 4 ? 5 : 0;
        if (data[1] & 8) { /* one that evicts */
            o.policy = dmc_policy_default((dmc_policy_kind)(DMC_POLICY_H2O + (data[1] >> 4) % 4), 4);
            o.policy.budget_unit = DMC_BUDGET_SLOTS;
            o.policy.budget = 8;
        }
        if (dmc_session_create(&s, e, &o) != DMC_OK) abort();
        if (dmc_seq_read(s->seq, data + 2, size - 2, &sum) == DMC_OK) use(s);
        dmc_session_close(s);
    }
    return 0;
}
