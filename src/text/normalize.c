#include "text/normalize.h"

#include "text/grow.h"
#include "text/utf8.h"

#include <utf8proc.h>

dmc_status dmc_text_append(dmc_text *t, const char *s, size_t n)
{
    if (n == 0) return DMC_OK;
    DMC_TRY(dmc_grow(&t->s, &t->cap, t->n + n, 1));
    memcpy(t->s + t->n, s, n);
    t->n += n;
    return DMC_OK;
}

/* ---- Unicode normal forms: pieces of text between two places where nothing composes or reorders across ---- */

#define PIECE_BYTES 1024 /* cut where it is safe from here on ... */
#define MAX_PIECE_BYTES \
    4096 /* ... and anywhere from here on: nobody stacks that many marks on a letter (UAX 15 allows 30),
                                and utf8proc sorts them in quadratic time */

/* Whether text may be cut in front of this character without changing its normal form. */
static bool is_safe_start(uint32_t c)
{
    const utf8proc_property_t *p = utf8proc_get_property((utf8proc_int32_t)c);
    bool mark = p->category == UTF8PROC_CATEGORY_MN || p->category == UTF8PROC_CATEGORY_MC ||
                p->category == UTF8PROC_CATEGORY_ME;
    return p->combining_class == 0 && !mark && !(c >= 0x1160 && c <= 0x11FF); /* Hangul vowels and finals compose */
}

static dmc_status append_form(dmc_text *out, dmc_unicode_form form, const char *s, size_t n)
{
    static const int options[] = {
        [DMC_FORM_NFC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE,
        [DMC_FORM_NFD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
        [DMC_FORM_NFKC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
        [DMC_FORM_NFKD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
    };
    utf8proc_int32_t small[2 * PIECE_BYTES], *codes = small;
    dmc_status status = DMC_OK;
    utf8proc_option_t o = (utf8proc_option_t)options[form];
    utf8proc_ssize_t size = (utf8proc_ssize_t)n;
    utf8proc_ssize_t count = utf8proc_decompose((const utf8proc_uint8_t *)s, size, codes, 2 * PIECE_BYTES, o);
    if (count > 2 * PIECE_BYTES) {
        codes = dmc_malloc((size_t)count, sizeof *codes);
        if (!codes) return dmc_fail(DMC_ERR_MEMORY, "out of memory: %zd characters", (ssize_t)count);
        count = utf8proc_decompose((const utf8proc_uint8_t *)s, size, codes, count, o);
    }
    if (count >= 0) count = utf8proc_normalize_utf32(codes, count, o);
    if (count < 0) { /* cannot be: the bytes are UTF-8 */
        status = dmc_text_append(out, s, n);
        goto done;
    }
    DMC_GOTO(dmc_grow(&out->s, &out->cap, out->n + 4 * (size_t)count, 1));
    for (utf8proc_ssize_t i = 0; i < count; i++) out->n += (size_t)dmc_utf8_put(out->s + out->n, (uint32_t)codes[i]);
done:
    if (codes != small) dmc_free(codes);
    return status;
}

/* Appends s in its normal form. ASCII is in every form; a character that is not may change with the one in front of
 * it. */
static dmc_status append_normal(dmc_text *out, dmc_unicode_form form, const char *s, size_t n)
{
    size_t done = 0; /* appended so far */
    for (size_t i = 0; i < n;) {
        if ((uint8_t)s[i] < 0x80) {
            i++;
            continue;
        }
        size_t start =
            i > done ? i - 1 : i; /* the piece: from a character in front of s[i] to the next ASCII or bad byte */
        DMC_TRY(dmc_text_append(out, s + done, start - done));
        while (i < n && (uint8_t)s[i] >= 0x80) {
            uint32_t c;
            int length = dmc_utf8_scan(s + i, n - i, &c);
            if (length <= 0) break;
            if (i - start >= MAX_PIECE_BYTES || (i - start >= PIECE_BYTES && is_safe_start(c))) {
                DMC_TRY(append_form(out, form, s + start, i - start));
                start = i;
            }
            i += (size_t)length;
        }
        DMC_TRY(append_form(out, form, s + start, i - start));
        done = i;
        if (i < n && (uint8_t)s[i] >= 0x80) { /* a bad byte passes */
            DMC_TRY(dmc_text_append(out, s + i, 1));
            done = ++i;
        }
    }
    return dmc_text_append(out, s + done, n - done);
}

/* ---- the rest works in place or nearly so ---- */

/* Bytes of out from `from` on: U+FFFD for each maximal part that is no UTF-8. */
static dmc_status replace_invalid(dmc_text *out, size_t from)
{
    uint32_t c;
    size_t i = from, length;
    for (; i < out->n; i += length) { /* most text is valid: look before copying */
        int k = dmc_utf8_scan(out->s + i, out->n - i, &c);
        if (k <= 0) break;
        length = (size_t)k;
    }
    if (i == out->n) return DMC_OK;

    dmc_text bad = {0};
    dmc_status status = DMC_OK;
    DMC_GOTO(dmc_text_append(&bad, out->s + i, out->n - i));
    out->n = i;
    for (i = 0; i < bad.n; i += length) {
        int k = dmc_utf8_scan(bad.s + i, bad.n - i, &c);
        length = k > 0 ? (size_t)k : k < 0 ? (size_t)-k : bad.n - i;
        DMC_GOTO(k > 0 ? dmc_text_append(out, bad.s + i, length) : dmc_text_append(out, DMC_REPLACEMENT, 3));
    }
done:
    dmc_free(bad.s);
    return status;
}

size_t dmc_unmark(char *s, size_t n)
{
    const char *mark = n ? memchr(s, (uint8_t)DMC_SPACE_MARK[0], n) : NULL;
    if (!mark) return n;
    size_t w = (size_t)(mark - s);
    for (size_t r = w; r < n;) {
        bool is_mark = n - r >= 3 && memcmp(s + r, DMC_SPACE_MARK, 3) == 0;
        s[w++] = is_mark ? ' ' : s[r];
        r += is_mark ? 3 : 1;
    }
    return w;
}

static void squeeze_spaces(dmc_text *out, size_t from)
{
    size_t w = from;
    for (size_t r = from; r < out->n; r++)
        if (out->s[r] != ' ' || (w > from && out->s[w - 1] != ' ')) out->s[w++] = out->s[r];
    out->n = w;
}

dmc_status dmc_normalize(dmc_text *out, const dmc_normalizer *z, const char *s, size_t n, bool first)
{
    if (n == 0) return DMC_OK;
    size_t from = out->n;
    bool prefix = z->prefix == DMC_PREFIX_ALWAYS || (z->prefix == DMC_PREFIX_FIRST && first);
    if (prefix) DMC_TRY(dmc_text_append(out, " ", 1));
    size_t body = out->n;
    DMC_TRY(z->form == DMC_FORM_NONE ? dmc_text_append(out, s, n) : append_normal(out, z->form, s, n));
    if (z->replace_invalid) DMC_TRY(replace_invalid(out, body));
    if (z->squeeze) squeeze_spaces(out, body); /* U+2581 in the text is not squeezed, only cut off at the end */
    if (z->space_mark && out->n > body) out->n = body + dmc_unmark(out->s + body, out->n - body);
    while (z->squeeze && out->n > body && out->s[out->n - 1] == ' ') out->n--;
    if (out->n == body) out->n = from; /* nothing is left: no prefix either */
    if (prefix && z->prefix_if_missing && out->n > body && out->s[body] == ' ') {
        memmove(out->s + from, out->s + body, out->n - body);
        out->n--;
    }
    return DMC_OK;
}
