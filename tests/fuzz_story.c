/* Question lines and documents found in any bytes lie within them, in order. */
#include "story.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    size_t begin, end, last = 0;
    for (size_t pos = 0; story_next_question(text, size, &pos, &begin, &end); last = end)
        if (begin < last || begin >= end || end >= size || text[end] != '.' || text[begin - 1] != ' ') abort();
    last = 0;
    for (size_t pos = 0; story_next_document(text, size, &pos, &begin, &end); last = pos)
        if (begin < last || begin >= end || end > pos || pos > size) abort();
    return 0;
}
