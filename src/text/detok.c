#include "text/detok.h"

#include "text/utf8.h"
#include "text/vocab.h"

#include <string.h>

/* Decodes the held bytes followed by n more: writes characters and U+FFFD to out (NULL: only counts) and holds the
 * beginning of a character at the end. end: nothing follows, so that beginning is bad, too. Returns the bytes
 * written. */
static size_t decode(dmc_detok *d, const char *bytes, size_t n, bool end, char *out)
{
    size_t written = 0, taken = 0;
    char window[4];
    for (;;) {
        size_t n_window = (size_t)d->n_held;
        memcpy(window, d->held, n_window);
        while (n_window < 4 && taken < n) window[n_window++] = bytes[taken++];
        if (n_window == 0) break;
        uint32_t code;
        int length = dmc_utf8_scan(window, n_window, &code);
        if (length == 0 && !end) { /* the window is all that is left */
            memcpy(d->held, window, n_window);
            d->n_held = (int)n_window;
            break;
        }
        size_t used = length > 0 ? (size_t)length : length < 0 ? (size_t)-length : n_window;
        const char *from = length > 0 ? window : DMC_REPLACEMENT;
        size_t n_from = length > 0 ? used : 3;
        if (out) memcpy(out + written, from, n_from);
        written += n_from;
        d->n_held = (int)(n_window - used);
        memcpy(d->held, window + used, n_window - used);
    }
    return written;
}

dmc_status dmc_detok_push_tokenizer(const dmc_tokenizer *t, dmc_detok *d, int32_t id, char *out, size_t cap,
                                    size_t *n_out)
{
    const char *bytes;
    size_t n;
    *n_out = 0;
    DMC_TRY(dmc_tokenizer_bytes(t, id, &bytes, &n));
    bool control = dmc_tokenizer_is_control(t, id);
    if (control) n = 0;
    dmc_detok next = *d;
    if (n > 0 && !d->started && t->strip_start && bytes[0] == ' ') {
        bytes++;
        n--;
    }
    next.started = control ? d->started && id != t->bos : true;

    dmc_detok trial = next;
    size_t need = decode(&trial, bytes, n, control, NULL);
    if (need > cap) return dmc_fail(DMC_ERR_ARG, "%zu bytes of text for a buffer of %zu", need, cap);
    *n_out = decode(&next, bytes, n, control, out);
    *d = next;
    return DMC_OK;
}

size_t dmc_detok_flush(dmc_detok *d, char *out, size_t cap)
{
    dmc_detok trial = *d;
    if (decode(&trial, "", 0, true, NULL) > cap) return 0;
    return decode(d, "", 0, true, out);
}
