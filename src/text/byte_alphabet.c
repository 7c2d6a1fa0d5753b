/* GPT-2's rule: a byte whose Latin-1 character is printable stands for itself; the 68 others, in order, are U+0100
 * and on. */
#include "text/byte_alphabet.h"

#include "text/utf8.h"

static bool stands_for_itself(uint32_t c)
{
    return (c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xAC) || (c >= 0xAE && c <= 0xFF);
}

uint32_t dmc_alphabet_char(uint8_t byte)
{
    if (stands_for_itself(byte)) return byte;
    if (byte <= 0x20) return 0x100u + byte;
    if (byte <= 0xA0) return 0x121u + (byte - 0x7Fu);
    return 0x143; /* 0xAD, the soft hyphen */
}

static int alphabet_byte(uint32_t c)
{
    if (stands_for_itself(c)) return (int)c;
    if (c >= 0x100 && c <= 0x120) return (int)(c - 0x100);
    if (c >= 0x121 && c <= 0x142) return (int)(c - 0x121 + 0x7F);
    return c == 0x143 ? 0xAD : -1;
}

bool dmc_alphabet_decode(char *out, size_t *n_out, const char *piece, size_t n)
{
    *n_out = 0;
    for (size_t i = 0; i < n;) {
        uint32_t c;
        int length = dmc_utf8_scan(piece + i, n - i, &c);
        int byte = length > 0 ? alphabet_byte(c) : -1;
        if (byte < 0) return false;
        out[(*n_out)++] = (char)byte;
        i += (size_t)length;
    }
    return true;
}
