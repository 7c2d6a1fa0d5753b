/* State files: a session on disk.
 *
 *   header     magic, version, what must be the same again (byte order, model, geometry), the session's options
 *   cache      dmc_seq_write
 *   checksum   of all bytes before
 *
 * Native byte order; a file from a machine with the other one fails at the magic number. Nothing in a file is trusted.
 */
#include "engine/engine.h"

#include <string.h>

enum { VERSION = 4, MAGIC = 0x73636d64 }; /* "dmcs" */

typedef struct {
    uint32_t magic, version;
    uint64_t identity;
    int32_t n_layers, n_kv_heads, group, head_dim;
    int32_t n_ctx, chunk;
    int32_t kv, policy, decision, channel, window, delay, period, no_shift, first_append, budget_unit, recent, sinks;
    float offset, scale, eps, cr;
    double budget, forced_cr;
} header;

static header header_of(const dmc_session *s)
{
    const dmc_seq_options *o = dmc_seq_facts(s->seq);
    const dmc_policy *p = &o->policy;
    return (header){.magic = MAGIC,
                    .version = VERSION,
                    .identity = dmc_engine_identity(s->e),
                    .n_layers = o->n_layers,
                    .n_kv_heads = o->n_kv_heads,
                    .group = o->group,
                    .head_dim = o->head_dim,
                    .n_ctx = (int32_t)o->n_ctx,
                    .chunk = s->chunk,
                    .kv = (int32_t)s->e->info.kv,
                    .policy = (int32_t)p->kind,
                    .decision = (int32_t)p->decision,
                    .channel = p->channel,
                    .window = p->window,
                    .delay = p->delay,
                    .period = p->period,
                    .no_shift = p->no_shift,
                    .first_append = p->first_append,
                    .budget_unit = (int32_t)p->budget_unit,
                    .recent = p->recent,
                    .sinks = p->sinks,
                    .offset = p->offset,
                    .scale = p->scale,
                    .eps = p->eps,
                    .cr = p->cr,
                    .budget = p->budget,
                    .forced_cr = o->forced_cr};
}

dmc_status dmc_session_save(const dmc_session *s, const char *path)
{
    dmc_writer *w = NULL;
    header h = header_of(s);
    DMC_TRY(dmc_writer_open(&w, path));
    uint64_t sum = dmc_checksum(&h, sizeof h, 0);
    dmc_write(w, &h, sizeof h);
    dmc_seq_write(s->seq, w, &sum);
    dmc_write(w, &sum, sizeof sum);
    return dmc_writer_commit(w);
}

dmc_status dmc_state_parse(dmc_session **out, dmc_engine *e, const uint8_t *data, size_t n, const char *where)
{
    dmc_session *s = NULL;
    header h;
    *out = NULL;
    if (n < sizeof h + sizeof(uint64_t) || (memcpy(&h, data, sizeof h), h.magic != MAGIC))
        return dmc_fail(DMC_ERR_FORMAT, "%s: not a session that this program has saved", where);
    if (h.version != VERSION)
        return dmc_fail(DMC_ERR_UNSUPPORTED, "%s: saved in version %u of the format, this program reads %d", where,
                        h.version, VERSION);
    if (h.identity != dmc_engine_identity(e))
        return dmc_fail(DMC_ERR_ARG, "%s: was saved with another model; open the one that it was made with", where);
    if (h.kv != (int32_t)e->info.kv)
        return dmc_fail(DMC_ERR_ARG, "%s: was saved with cache slots of another type; open the model with %s", where,
                        h.kv > DMC_KV_AUTO && h.kv < DMC_KV_COUNT ? dmc_kv_name((dmc_kv_type)h.kv) : "that");
    dmc_session_options o = {.n_ctx = h.n_ctx,
                             .chunk = h.chunk,
                             .forced_cr = h.forced_cr,
                             .override_policy = true,
                             .policy = {.kind = (dmc_policy_kind)h.policy,
                                        .decision = (dmc_decision)h.decision,
                                        .channel = h.channel,
                                        .offset = h.offset,
                                        .scale = h.scale,
                                        .eps = h.eps,
                                        .window = h.window,
                                        .delay = h.delay,
                                        .period = h.period,
                                        .no_shift = h.no_shift != 0,
                                        .first_append = h.first_append != 0,
                                        .cr = h.cr,
                                        .budget_unit = (dmc_budget_unit)h.budget_unit,
                                        .budget = h.budget,
                                        .recent = h.recent,
                                        .sinks = h.sinks}};
    DMC_TRY(dmc_session_create(&s, e, &o));
    uint64_t sum = dmc_checksum(&h, sizeof h, 0), wanted;
    memcpy(&wanted, data + n - sizeof wanted, sizeof wanted);
    dmc_status status = dmc_seq_read(s->seq, data + sizeof h, n - sizeof h - sizeof wanted, &sum);
    if (status == DMC_ERR_FORMAT || (status == DMC_OK && sum != wanted))
        status = dmc_fail(DMC_ERR_FORMAT, "%s: damaged: %s", where,
                          status == DMC_OK ? "the checksum does not match" : dmc_last_error());
    if (status != DMC_OK) {
        dmc_session_close(s);
        return status;
    }
    *out = s;
    return DMC_OK;
}

dmc_status dmc_session_restore(dmc_session **out, dmc_engine *e, const char *path)
{
    dmc_mapping m;
    *out = NULL;
    DMC_TRY(dmc_map_file(&m, path));
    dmc_status status = dmc_state_parse(out, e, m.data, m.size, path);
    dmc_unmap(&m);
    return status;
}
