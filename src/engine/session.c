/* Sessions: create, fork, rewind, statistics. Feeding them is feed.c, saving them state.c. */
#include "engine/engine.h"

dmc_session_options dmc_session_options_default(void)
{
    return (dmc_session_options){
        .n_ctx = 0, .chunk = 0, .forced_cr = 0, .override_policy = false, .policy = dmc_policy_none()};
}

static dmc_status check_options(const dmc_engine *e, dmc_session_options *o)
{
    dmc_config c = e->model.config;
    if (o->n_ctx == 0) o->n_ctx = c.n_ctx;
    if (o->chunk == 0) o->chunk = DMC_MAX_CHUNK;
    if (!o->override_policy) o->policy = c.policy;
    bool lost_channel = c.policy.kind == DMC_POLICY_DMC ||
                        (c.policy.kind == DMC_POLICY_DMS && c.policy.decision == DMC_DECISION_CHANNEL);
    if (o->policy.kind == DMC_POLICY_NONE && lost_channel) {
        /* A retrofitted model has lost its channel for good: 'none' only means that nothing merges. */
        o->policy = c.policy;
        o->policy.decision = DMC_DECISION_PERIOD;
        o->policy.period = 1;
        o->policy.delay = o->policy.window = 0;
    }
    if (dmc_policy_has_budget(o->policy.kind) && lost_channel)
        return dmc_fail(DMC_ERR_ARG,
                        "policy %s is for models that were not retrofitted: this one decides with a channel "
                        "of its heads, which no other policy may attend to; open the original model",
                        dmc_policy_name(o->policy.kind));
    if (o->n_ctx < 0 || o->n_ctx > c.n_ctx)
        return dmc_fail(DMC_ERR_ARG, "a context of %d tokens is not possible: the model has %d%s", o->n_ctx, c.n_ctx,
                        c.sliding_window ? ", the window of its sliding attention; beyond it attention would have to "
                                           "forget tokens, which is not supported"
                                         : "");
    bool adapter = o->policy.kind == DMC_POLICY_DMS && o->policy.decision == DMC_DECISION_ADAPTER;
    if (adapter && !dmc_config_has_adapter(&c))
        return dmc_fail(DMC_ERR_ARG, "policy dms with adapters needs a model that has them");
    if (o->chunk < 0 || o->chunk > DMC_MAX_CHUNK)
        return dmc_fail(DMC_ERR_ARG, "a chunk of %d tokens is not possible; choose 1..%d", o->chunk, DMC_MAX_CHUNK);
    c.policy = o->policy;
    dmc_status status = dmc_config_check(&c, "session options");
    return status == DMC_ERR_FORMAT ? DMC_ERR_ARG : status;
}

dmc_status dmc_session_create(dmc_session **out, dmc_engine *e, const dmc_session_options *opts)
{
    dmc_session_options o = opts ? *opts : dmc_session_options_default();
    const dmc_config *c = &e->model.config;
    dmc_session *s = NULL;
    dmc_status status;
    *out = NULL;
    DMC_TRY(check_options(e, &o));
    dmc_seq_options q = {.n_layers = c->n_layers,
                         .n_kv_heads = c->n_kv_heads,
                         .group = c->n_heads / c->n_kv_heads,
                         .head_dim = c->head_dim,
                         .n_ctx = o.n_ctx,
                         .policy = o.policy,
                         .forced_cr = o.forced_cr,
                         .kernels = e->model.cpu.kernels};
    DMC_TRY(dmc_engine_rope(e, o.n_ctx, &q.rope));
    DMC_GOTO(dmc_array(&s, 1, sizeof *s));
    s->e = e;
    s->chunk = o.chunk;
    DMC_GOTO(dmc_seq_create(&s->seq, e->pool, &q));
    pthread_mutex_lock(&e->lock);
    size_t scratch = dmc_seq_scratch(s->seq, o.chunk);
    int64_t parts = (int64_t)dmc_cache_max_parts(s->seq) * c->n_kv_heads;
    if (scratch > e->n_scratch) e->n_scratch = scratch;
    if (parts > e->n_parts) e->n_parts = parts;
    pthread_mutex_unlock(&e->lock);
    *out = s;
    return DMC_OK;
done:
    dmc_session_close(s);
    return status;
}

void dmc_session_close(dmc_session *s)
{
    if (!s) return;
    dmc_seq_close(s->seq);
    dmc_free(s);
}

dmc_status dmc_session_fork(dmc_session **out, const dmc_session *s)
{
    dmc_session *f;
    *out = NULL;
    DMC_TRY(dmc_array(&f, 1, sizeof *f));
    f->e = s->e;
    f->chunk = s->chunk;
    dmc_status status = dmc_seq_fork(&f->seq, s->seq);
    if (status != DMC_OK) {
        dmc_session_close(f);
        return status;
    }
    *out = f;
    return DMC_OK;
}

dmc_status dmc_session_rewind(dmc_session *s, const dmc_session *snapshot)
{
    return dmc_seq_rewind(s->seq, snapshot->seq);
}

int64_t dmc_session_head_slots(const dmc_session *s, int il, int ih)
{
    const dmc_info *f = &s->e->info;
    return il < 0 || il >= f->n_layers || ih < 0 || ih >= f->n_kv_heads ? 0 : dmc_seq_slots(s->seq, il, ih);
}

float dmc_session_head_weight(const dmc_session *s, int il, int ih)
{
    const dmc_info *f = &s->e->info;
    return il < 0 || il >= f->n_layers || ih < 0 || ih >= f->n_kv_heads ? 0
                                                                        : dmc_seq_accumulator(s->seq, il, ih)->omega;
}

dmc_stats dmc_session_stats(const dmc_session *s)
{
    const dmc_info *f = &s->e->info;
    dmc_stats st = {.n_tokens = dmc_seq_tokens(s->seq),
                    .kv_bytes = dmc_seq_bytes(s->seq),
                    .kv_bytes_uncompressed = dmc_seq_bytes_uncompressed(s->seq),
                    .pool_bytes = dmc_pool_bytes_held(s->e->pool)};
    for (int il = 0; il < f->n_layers; il++)
        for (int ih = 0; ih < f->n_kv_heads; ih++) st.n_slots += dmc_seq_slots(s->seq, il, ih);
    st.n_slots_uncompressed = st.n_tokens * f->n_layers * f->n_kv_heads;
    st.cr = st.n_slots ? (double)st.n_slots_uncompressed / (double)st.n_slots : 1;
    return st;
}
