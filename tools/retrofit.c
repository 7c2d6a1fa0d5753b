/* dmc retrofit: teach a pretrained model to compress its own key-value cache. */
#include "tools/commands.h"
#include "tools/training.h"
#include "train/recipe.h"

#include <math.h>
#include <string.h>

static const char about[] =
    "Continues the training of a model until every attention head decides for each token, online, whether to append it to the "
    "cache or to merge it into the newest slot, at the compression ratio asked for. No parameters are added.\n\n"
    "Only the model, text and a ratio are needed; all other options have defaults made from them (doc/retrofit.md). The text should "
    "be of the kind that the model was trained on. Of the files, the last twentieth is held out for measuring, unless --held-out "
    "names other files. A run that was stopped or killed goes on with --resume and ends with the same bits.\n\n"
    "--method none trains the model on in the same way without compression: the fair control for what compression costs.";

int cmd_retrofit(int argc, char **argv)
{
    training t = {.dtype = "f32"};
    const char *path = NULL, *method = "dmc", *loss = "lm", *text = "packed";
    double cr = 4, tau = 0.1, lr = 0, price = -1, decision_scale = 0, offset = 5;
    int ctx = 0, batch = 0, delay = -1, window = 0, accumulate = 1, channel = -1, math = DMC_MATH_F32;
    bool recompute = false;
    double save_seconds = 30;
    int64_t steps = 0, seed = 1, eval_every = -1;
    const cli_option options[] = {
        CLI_OPTION("data", 0, &t.data, .arg = "FILE", .required = true,
                   .help = "text; documents are separated by lines <|endoftext|>"),
        CLI_OPTION("held-out", 0, &t.held_out, .arg = "FILE", .help = "text to measure on"),
        CLI_OPTION("out", 'o', &t.out, .arg = "OUT", .required = true,
                   .help = "a .gguf file or a directory; the log goes to OUT.csv"),
        CLI_OPTION("cr", 0, &cr, .arg = "CR", .min = 1, .max = 64,
                   .help = "compression ratio, the recent window counted"),
        CLI_OPTION("method", 0, &method, .choices = "dmc|none", .help = "none: the same training without compression"),
        CLI_OPTION("delay", 'd', &delay, .arg = "D", .min = -1, .max = 1 << 20,
                   .def = "half of the slots that the CR leaves",
                   .help = "recent tokens held exactly before they settle; 0 is the paper's DMC"),
        CLI_OPTION("window", 0, &window, .arg = "W", .min = 0, .max = 256,
                   .help = "a slot averages the last W tokens of its run; 0: all"),
        CLI_OPTION("channel", 0, &channel, .arg = "CH", .min = -1, .max = 4096, .def = "the cheapest, measured",
                   .help = "channel of queries and keys that decides"),
        CLI_OPTION("loss", 0, &loss, .choices = "lm|distill|both",
                   .help = "next token, the original's distribution, or both"),
        CLI_OPTION("steps", 0, &steps, .arg = "N", .min = 0, .max = 1e12, .def = "240 + 60 CR",
                   .help = "of the whole run"),
        CLI_OPTION("resume", 0, &t.resume, .help = "go on with the run that OUT.state holds"),
        CLI_OPTION("overwrite", 0, &t.overwrite, .help = "replace OUT if it is there"),
        CLI_OPTION("seed", 0, &seed, .arg = "S", .min = 0, .help = "of the order of samples and of the noise"),
        CLI_HEADING("Batches"),
        CLI_OPTION("ctx", 0, &ctx, .arg = "N", .min = 0, .max = 1 << 20, .def = "the model's, at most 512",
                   .help = "tokens of a sample"),
        CLI_OPTION("batch", 0, &batch, .arg = "B", .min = 0, .max = 65536, .def = "4096 tokens",
                   .help = "samples of a pass"),
        CLI_OPTION("accumulate", 0, &accumulate, .arg = "N", .min = 1, .max = 65536, .help = "passes of a step"),
        CLI_OPTION("documents", 0, &text, .choices = "packed|separate",
                   .help = "run into each other, or one per sample, cut at --ctx"),
        CLI_HEADING("Recipe"),
        CLI_OPTION("lr", 0, &lr, .arg = "X", .min = 0, .max = 10, .def = "0.128 / width", .help = "learning rate"),
        CLI_OPTION("decision-scale", 0, &decision_scale, .arg = "X", .min = 0, .max = 1e6, .def = "2.5 / (lr width)",
                   .help = "factor on it for the rows of the decision channel"),
        CLI_OPTION("price", 0, &price, .arg = "X", .min = -1, .max = 1e6, .def = "5",
                   .help = "weight of the compression loss"),
        CLI_OPTION("offset", 0, &offset, .arg = "C", .min = -100, .max = 100, .help = "c of the decision logit"),
        CLI_OPTION("tau", 0, &tau, .arg = "X", .min = 1e-3, .max = 100, .help = "temperature of the soft decisions"),
        CLI_HEADING("Running"),
        CLI_OPTION("eval-every", 0, &eval_every, .arg = "N", .min = -1, .max = 1e12, .def = "a quarter of the run",
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
    const cli_operand operands[] = {CLI_MODEL_OPERAND(&path), {0}};
    cli_parse(&(cli_command){.options = options,
                             .operands = operands,
                             .about = about,
                             .examples =
                                 "dmc retrofit models/story.gguf --data stories.txt --cr 4 -o story-dmc4.gguf\n"
                                 "dmc retrofit Llama-3.2-1B --data books.txt --cr 8 --ctx 2048 -o Llama-3.2-1B-dmc8"},
              argc, argv);
    training_check_out(&t, path);
    dmc_checkpoint *original, *model;
    cli_check(dmc_checkpoint_open(&original, path));
    cli_check(dmc_checkpoint_clone_f32(&model, original));
    if (model->config.policy.kind != DMC_POLICY_NONE)
        cli_die("start from the original model", "%s has been retrofitted already", path);
    dmc_train_options *o = &t.o;
    bool control = !strcmp(method, "none");
    dmc_recipe_retrofit(o, &model->config, ctx, batch, steps, cr, delay);
    if (control) {
        dmc_train_options r =
            *o; /* the control keeps the retrofit's schedule: its warm-up, its flat part, its cosine */
        dmc_recipe_train(o, &model->config, ctx, batch, r.steps_zero + r.steps_ramp + r.steps_hold, true);
        o->steps_warmup = r.steps_warmup;
        o->steps_flat = r.steps_zero + r.steps_ramp;
    }
    if (lr > 0) {
        o->adamw.decision_scale *= o->lr / (float)lr;
        o->lr = (float)lr;
        o->lr_min = 0.05f * o->lr;
    }
    if (!control && strcmp(loss, "lm")) o->kl_weight = 1;
    if (!control && !strcmp(loss, "distill")) o->ce_weight = 0;
    if (decision_scale > 0) o->adamw.decision_scale = (float)decision_scale;
    if (price >= 0) o->price = (float)price;
    if (eval_every >= 0) o->eval_every = eval_every;
    if (channel >= model->config.head_dim)
        cli_usage("--channel: heads have channels 0 to %d", model->config.head_dim - 1);
    o->policy.window = window;
    o->policy.channel = control ? 0 : channel;
    o->policy.offset = (float)offset;
    o->tau = (float)tau;
    o->seed = (uint64_t)seed;
    o->save_seconds = save_seconds;
    o->accumulate = accumulate;
    o->packed = !strcmp(text, "packed");
    o->math = (dmc_math)math;
    o->recompute = recompute;
    int status = training_run(&t, "retrofit", model, original);
    dmc_checkpoint_close(model);
    dmc_checkpoint_close(original);
    return status;
}
