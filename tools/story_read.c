/* Finding documents and question lines in a text. */
#define _GNU_SOURCE
#include "story.h"

#include <string.h>

static const char question[] = "Question: ", answer[] = "? Answer: ", separator[] = STORY_SEPARATOR;
enum { N_QUESTION = sizeof question - 1, N_ANSWER = sizeof answer - 1, N_SEPARATOR = sizeof separator - 1 };

/* End of the line that holds text[pos]: its newline, or n. */
static size_t line_end(const char *text, size_t n, size_t pos)
{
    const char *newline = pos < n ? memchr(text + pos, '\n', n - pos) : NULL;
    return newline ? (size_t)(newline - text) : n;
}

/* Without the carriage return of a Windows line end. */
static size_t without_return(const char *line, size_t n) { return n - (n > 0 && line[n - 1] == '\r'); }

static bool parse_question(const char *line, size_t n, size_t *begin, size_t *end)
{
    if (n < N_QUESTION || memcmp(line, question, N_QUESTION) != 0) return false;
    const char *found = memmem(line + N_QUESTION, n - N_QUESTION, answer, N_ANSWER);
    if (!found) return false;
    *begin = (size_t)(found - line) + N_ANSWER;
    *end = n - 1;
    return *begin < *end && line[*begin] != ' ' && memchr(line + *begin, '.', n - *begin) == line + *end;
}

bool story_next_question(const char *text, size_t n, size_t *pos, size_t *answer_begin, size_t *answer_end)
{
    if (*pos > n) return false;
    size_t at = *pos;
    if (at > 0 && text[at - 1] != '\n') at = line_end(text, n, at) + 1;
    while (at < n) {
        size_t end = line_end(text, n, at);
        if (parse_question(text + at, without_return(text + at, end - at), answer_begin, answer_end)) {
            *answer_begin += at;
            *answer_end += at;
            *pos = end;
            return true;
        }
        at = end + 1;
    }
    *pos = n;
    return false;
}

bool story_next_document(const char *text, size_t n, size_t *pos, size_t *begin, size_t *end)
{
    size_t at = *pos;
    while (at < n) {
        *begin = at;
        for (*end = n; at < n;) {
            size_t line = at, newline = line_end(text, n, at);
            at = newline < n ? newline + 1 : n;
            if (without_return(text + line, newline - line) == N_SEPARATOR &&
                memcmp(text + line, separator, N_SEPARATOR) == 0) {
                *end = line;
                break;
            }
        }
        *pos = at;
        if (*end > *begin) return true;
    }
    return false;
}
