/* What `dmc train` and `dmc retrofit` share: text, progress, log, state file, output. */
#ifndef DMC_TOOLS_TRAINING_H
#define DMC_TOOLS_TRAINING_H

#include "tools/cli.h"
#include "train/trainer.h"

typedef struct {
    cli_list data, held_out;
    const char *out;   /* HF directory, or a file ending in .gguf */
    const char *dtype; /* of the written weights */
    bool resume, overwrite, json, quiet, no_color;
    int threads;
    dmc_train_options o;
} training;

/* Loads the text (the last twentieth of it is held out unless --held-out is given), runs, writes OUT, OUT.csv and, while running, OUT.state.
 * model: F32 in memory; tokenizer_of: where its tokenizer comes from. name: of the command. Returns the exit status. */
int training_run(training *t, const char *name, dmc_checkpoint *model, const dmc_checkpoint *tokenizer_of);

/* Dies unless OUT can be written at the end: called before anything is loaded. model: what is read, or NULL. */
void training_check_out(const training *t, const char *model);

#endif
