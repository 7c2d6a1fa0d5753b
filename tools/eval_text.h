/* Text as a model reads it: documents, their tokens, and how much of the text each token stands for. */
#ifndef EVAL_TEXT_H
#define EVAL_TEXT_H

#include "base/base.h"

typedef struct {
    int32_t *ids;
    uint32_t *bytes; /* of the document that each token stands for: they add up to it. 0 for tokens that are not text */
    size_t n, capacity;
    size_t *document; /* [n_documents] where each document of eval_read_files begins; else NULL */
    size_t n_documents, documents_capacity;
} eval_tokens;

/* The next document that is not empty at or after text[*pos], as training sees it: documents end at "<|endoftext|>", line ends
 * around them do not count. False: no more. */
bool eval_next_document(const char *text, size_t n, size_t *pos, size_t *begin, size_t *end);

/* Appends the document as [BOS] its tokens [EOS]; begin and end of text where the model has them and they are asked for. */
dmc_status eval_append_document(eval_tokens *t, const dmc_engine *e, const char *text, size_t n, bool bos, bool eos);
void eval_tokens_free(eval_tokens *t);

/* All documents of the files, one after the other: the stream that training cuts its samples from (src/train/data.h). */
dmc_status eval_read_files(eval_tokens *out, const dmc_engine *e, const char *const *files, int n_files);

/* The files as they stand, each [BOS] its tokens with BOS where the model's settings put one; `strip_newline`: without one line end at the
 * end of each. */
dmc_status eval_read_texts(eval_tokens *out, const dmc_engine *e, const char *const *files, int n_files,
                           bool strip_newline);

#endif
