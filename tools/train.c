/* dmc train: pretrain a small model from nothing, or train a model on. */
#include "tools/commands.h"
#include "tools/training.h"
#include "train/init.h"
#include "train/recipe.h"

#include <string.h>

static const char about[] =
    "Trains a Llama-type model from nothing: its shape from the options (or a --config file), its tokenizer, a byte-level BPE, from the "
    "text, unless --tokenizer names a model whose tokenizer it shall have. With --init MODEL a model is trained on instead.\n\n"
    "Of the files, the last twentieth is held out for measuring, unless --held-out names other files. A run that was stopped or killed "
    "goes on with --resume and ends with the same bits.";

/* All files as one text, for the tokenizer's training. */
static char *read_all(const cli_list *files, size_t *n)
{
    char *text = NULL;
    *n = 0;
    for (int i = 0; i < files->n; i++) {
        dmc_mapping m;
        cli_check(dmc_map_file(&m, files->items[i]));
        text = dmc_realloc(text, *n + m.size, 1);
        if (!text) cli_die("give it less text", "out of memory");
        memcpy(text + *n, m.data, m.size);
        *n += m.size;
        dmc_unmap(&m);
    }
    return text;
}

/* -> the tokenizer.json that `source` then points to (dmc_free). */
static char *train_tokenizer(dmc_tokenizer_source *source, const cli_list *data, int n_vocab)
{
    static const char *const specials[] = {"<|begin_of_text|>", "<|end_of_text|>", "<|endoftext|>"};
    size_t n, n_json;
    char *json, *text = read_all(data, &n);
    cli_check(dmc_bpe_train(&json, &n_json, text, n, n_vocab, specials, 3));
    dmc_free(text);
    source->hf_json = json;
    source->hf_json_bytes = n_json;
    return json;
}

int cmd_train(int argc, char **argv)
{
    training t = {.dtype = "f32"};
    dmc_config c = {.n_layers = 4,
                    .n_heads = 4,
                    .n_embd = 128,
                    .n_vocab = 512,
                    .n_ctx = 1024,
                    .norm_eps = 1e-5f,
                    .rope_theta = 10000};
    const char *init = NULL, *tokenizer = NULL, *text = "packed";
    cli_list tokenizer_text = {0};
    bool untied = false, recompute = false;
    char *json = NULL;
    double lr = 0, weight_decay = 0.1;
    int ctx = 0, batch = 0, accumulate = 1, math = DMC_MATH_F32;
    double save_seconds = 30;
    int64_t steps = 2000, warmup = -1, seed = 1, eval_every = -1;
    const cli_option options[] = {
        CLI_OPTION("data", 0, &t.data, .arg = "FILE", .required = true,
                   .help = "text; documents are separated by lines <|endoftext|>"),
        CLI_OPTION("held-out", 0, &t.held_out, .arg = "FILE", .help = "text to measure on"),
        CLI_OPTION("out", 'o', &t.out, .arg = "OUT", .required = true,
                   .help = "a .gguf file or a directory; the log goes to OUT.csv"),
        CLI_OPTION("init", 0, &init, .arg = "MODEL", .help = "train this model on (its shape and tokenizer)"),
        CLI_OPTION("resume", 0, &t.resume, .help = "go on with the run that OUT.state holds"),
        CLI_OPTION("overwrite", 0, &t.overwrite, .help = "replace OUT if it is there"),
        CLI_OPTION("seed", 0, &seed, .arg = "S", .min = 0, .help = "of the weights and of the order of samples"),
        CLI_HEADING("Model"),
        CLI_OPTION("layers", 0, &c.n_layers, .min = 1, .max = 4096, .help = "decoder layers"),
        CLI_OPTION("width", 0, &c.n_embd, .min = 2, .max = 1 << 20, .help = "hidden size"),
        CLI_OPTION("ff", 0, &c.n_ff, .min = 0, .max = 1 << 22, .def = "8/3 of the width", .help = "feed-forward size"),
        CLI_OPTION("heads", 0, &c.n_heads, .min = 1, .max = 4096, .help = "query heads"),
        CLI_OPTION("kv-heads", 0, &c.n_kv_heads, .min = 0, .max = 4096, .def = "as heads",
                   .help = "key and value heads"),
        CLI_OPTION("head-dim", 0, &c.head_dim, .min = 0, .max = 4096, .def = "width / heads", .help = "size of a head"),
        CLI_OPTION("vocab", 0, &c.n_vocab, .min = 260, .max = 1 << 24, .help = "size of the vocabulary"),
        CLI_OPTION("max-ctx", 0, &c.n_ctx, .min = 2, .max = 1 << 30, .help = "longest context"),
        CLI_OPTION("rope-theta", 0, &c.rope_theta, .min = 1, .max = 1e12, .help = "base of the rotary embedding"),
        CLI_OPTION("untied", 0, &untied, .help = "an output matrix of its own"),
        CLI_OPTION("tokenizer", 0, &tokenizer, .arg = "MODEL", .help = "take the tokenizer of this model"),
        CLI_OPTION("tokenizer-text", 0, &tokenizer_text, .arg = "FILE", .def = "the --data",
                   .help = "train the tokenizer on this text"),
        CLI_HEADING("Training"),
        CLI_OPTION("steps", 0, &steps, .min = 1, .max = 1e12, .help = "optimiser steps"),
        CLI_OPTION("ctx", 0, &ctx, .arg = "N", .min = 0, .max = 1 << 20, .def = "the model's, at most 512",
                   .help = "tokens of a sample"),
        CLI_OPTION("batch", 0, &batch, .arg = "B", .min = 0, .max = 65536, .def = "4096 tokens",
                   .help = "samples of a pass"),
        CLI_OPTION("accumulate", 0, &accumulate, .arg = "N", .min = 1, .max = 65536, .help = "passes of a step"),
        CLI_OPTION("documents", 0, &text, .choices = "packed|separate",
                   .help = "run into each other, or one per sample, cut at --ctx"),
        CLI_OPTION("lr", 0, &lr, .arg = "X", .min = 0, .max = 10, .def = "0.384 / width, 0.128 / width with --init",
                   .help = "peak learning rate"),
        CLI_OPTION("warmup", 0, &warmup, .arg = "N", .min = -1, .max = 1e12, .def = "a twentieth",
                   .help = "steps of warm-up"),
        CLI_OPTION("weight-decay", 0, &weight_decay, .arg = "X", .min = 0, .max = 10,
                   .help = "decoupled, matrices only"),
        CLI_HEADING("Running"),
        CLI_OPTION("eval-every", 0, &eval_every, .arg = "N", .min = -1, .max = 1e12, .def = "a fifth of the run",
                   .help = "steps between measurements"),
        CLI_OPTION("save-seconds", 0, &save_seconds, .arg = "S", .min = 0, .max = 1e6, .help = "between state files"),
        CLI_OPTION("math", 0, &math, .choices = "f32|bf16",
                   .help =
                       "of matrix products; bf16: sums and weights stay float32, several times faster on matrix units"),
        CLI_OPTION("recompute", 0, &recompute,
                   .help = "compute activations again in the backward pass: less memory, a fifth to a third more time"),
        CLI_OPTION("threads", 0, &t.threads, .arg = "N", .min = 0, .max = 1024, .def = "all", .help = "CPU threads"),
        CLI_OPTION("type", 0, &t.dtype, .choices = "f32|f16|bf16|q8_0|q4_0|q4_k|q5_k|q6_k",
                   .help = "type of the written weights"),
        CLI_OPTION("json", 0, &t.json, .help = "print the result as one JSON object"),
        CLI_OPTION("quiet", 'q', &t.quiet, .help = "no progress"),
        CLI_OPTION("no-color", 0, &t.no_color, .help = "no colours on the terminal"),
        {0}};
    cli_parse(
        &(cli_command){.options = options,
                       .about = about,
                       .examples = "dmc train --data stories.txt --layers 4 --width 128 --steps 3000 -o story.gguf"},
        argc, argv);
    training_check_out(&t, init);
    dmc_checkpoint *model, *other = NULL;
    if (init) {
        cli_check(dmc_checkpoint_open(&other, init));
        cli_check(dmc_checkpoint_clone_f32(&model, other));
        if (model->config.policy.kind != DMC_POLICY_NONE)
            cli_die("train the original on", "%s has been retrofitted", init);
    } else {
        if (!c.n_ff) c.n_ff = (c.n_embd * 8 / 3 + 31) / 32 * 32;
        if (!c.n_kv_heads) c.n_kv_heads = c.n_heads;
        if (!c.head_dim) c.head_dim = c.n_embd / c.n_heads;
        c.tied = !untied;
        c.policy = dmc_policy_none();
        c.bos = 0, c.eos[0] = 1, c.n_eos = 1;
        if (tokenizer) {
            cli_check(dmc_checkpoint_open(&other, tokenizer));
            c.n_vocab = other->config.n_vocab, c.bos = other->config.bos, c.n_eos = other->config.n_eos;
            memcpy(c.eos, other->config.eos, sizeof c.eos);
        }
        cli_check(dmc_config_check(&c, "the model's shape"));
        cli_check(dmc_checkpoint_create(&model, &c));
        dmc_init_weights(model, (uint64_t)seed);
        if (!tokenizer)
            json = train_tokenizer(&model->tokenizer, tokenizer_text.n ? &tokenizer_text : &t.data, c.n_vocab);
    }
    dmc_train_options *o = &t.o;
    dmc_recipe_train(o, &model->config, ctx, batch, steps, init != NULL);
    if (lr > 0) o->lr = (float)lr, o->lr_min = 0.05f * o->lr;
    if (warmup >= 0) o->steps_warmup = warmup;
    if (eval_every >= 0) o->eval_every = eval_every;
    o->adamw.weight_decay = (float)weight_decay;
    o->seed = (uint64_t)seed;
    o->save_seconds = save_seconds;
    o->accumulate = accumulate;
    o->packed = !strcmp(text, "packed");
    o->math = (dmc_math)math;
    o->recompute = recompute;
    int status = training_run(&t, "train", model, other ? other : model);
    if (other) dmc_checkpoint_close(other);
    dmc_checkpoint_close(model);
    dmc_free(json);
    return status;
}
