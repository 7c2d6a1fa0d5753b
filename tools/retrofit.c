/* dmc retrofit: teach a pretrained model to compress its own key-value cache. */
#include "tools/commands.h"
#include "tools/training.h"
#include "train/prepare.h"
#include "train/recipe.h"

#include <math.h>
#include <string.h>

static const char about[] =
    "Continues the training of a model until every attention head decides for each token, online, whether to append it to the "
    "cache or to merge it into the newest slot, at the compression ratio asked for. No parameters are added.\n\n"
    "Only the model, text and a ratio are needed; all other options have defaults made from them (doc/retrofit.md). The text should "
    "be of the kind that the model was trained on. Of the files, the last twentieth is held out for measuring, unless --held-out "
    "names other files. A run that was stopped or killed goes on with --resume and ends with the same bits.\n\n"
    "--method dmc is Dynamic Memory Compression, with one ratio over all layers and heads; dmc-c holds the heads of a layer to the same "
    "ratio, dmc-hardc lets them decide as one. dms evicts instead of merging, decided by a channel of the queries; dms-adapter adds small "
    "matrices that decide, and trains them alone. fmp lets a fixed number of tokens share a slot, gqa pools --cr neighbouring KV heads "
    "into one (the result can be retrofitted again). none trains the model on in the same way without compression: the fair control for "
    "what compression costs.";

typedef struct {
    training t;
    dmc_recipe r;
    int method, decision_from, regime, recipe; /* indices of their choices */
    const char *model, *loss;
    double tau, steer, price, decision_scale, offset;
    int window, channel;
} retrofit;

enum { FROM_KEY, FROM_NOISE, FROM_PERIOD };

static void parse(retrofit *x, int argc, char **argv)
{
    const cli_option options[] = {
        TRAINING_FILES(&x->t),
        CLI_OPTION("cr", 0, &x->r.cr, .arg = "CR", .min = 1, .max = 64,
                   .help = "compression ratio, the recent window counted"),
        CLI_OPTION("method", 0, &x->method, .choices = "none|dmc|dmc-c|dmc-hardc|dms|dms-adapter|fmp|gqa",
                   .help = "what the model learns (above)"),
        CLI_OPTION("delay", 'd', &x->r.delay, .arg = "D", .min = -1, .max = 1 << 20,
                   .def = "half of the slots that the CR leaves",
                   .help = "recent tokens held exactly before they settle; 0 is the paper's DMC"),
        CLI_OPTION("window", 0, &x->window, .arg = "W", .min = 0, .max = 256,
                   .help = "dmc: a slot averages the last W tokens of its run; 0: all"),
        CLI_OPTION("channel", 0, &x->channel, .arg = "CH", .min = -1, .max = 4096,
                   .def = "the cheapest, measured; dms: the last",
                   .help = "channel of queries and keys that decides; -1: the cheapest"),
        CLI_OPTION("decision-from", 0, &x->decision_from, .choices = "key|noise|period",
                   .help =
                       "dmc, dms: the channel; by chance; one token in so many, in turn: what is a decision worth?"),
        CLI_OPTION("loss", 0, &x->loss, .choices = "lm|distill|both", .def = "lm; dms: distill",
                   .help = "next token, the original's distribution, or both"),
        CLI_OPTION("regime", 0, &x->regime, .choices = "short|regular|long",
                   .help = "30, 60 or 120 steps for each unit of CR, and four times that beside"),
        CLI_OPTION("steps", 0, &x->r.steps, .arg = "N", .min = 0, .max = 1e12, .def = "240 + 60 CR",
                   .help = "of the whole run, whatever the regime"),
        TRAINING_AGAIN(&x->t, "of the order of samples and of the noise"),
        CLI_HEADING("Batches"),
        TRAINING_BATCHES(&x->t),
        CLI_HEADING("Recipe"),
        CLI_OPTION(
            "recipe", 0, &x->recipe, .choices = "default|paper",
            .help =
                "paper: dmc (or none, its control) with the published constants, its stages in proportion to the steps; the options below go over either"),
        CLI_OPTION("lr", 0, &x->t.lr, .arg = "X", .min = 0, .max = 10, .def = "0.128 / width", .help = "learning rate"),
        CLI_OPTION("decision-scale", 0, &x->decision_scale, .arg = "X", .min = 0, .max = 1e6,
                   .def = "2.5 / (lr width); dms: a hundredth of it", .help = "factor on it for the rows that decide"),
        CLI_OPTION(
            "steer", 0, &x->steer, .arg = "X", .min = 0, .max = 1, .def = "0.2",
            .help =
                "each step moves the offset of the decisions by this share of the way to where its batch would have had the CR; 0: it stays, and "
                "the compression loss alone pulls, as published"),
        CLI_OPTION("price", 0, &x->price, .arg = "X", .min = -1, .max = 1e6, .def = "5",
                   .help = "weight of the compression loss, with --steer 0; dmc-c: of heads being unequal"),
        CLI_OPTION("offset", 0, &x->offset, .arg = "C", .min = -100, .max = 100,
                   .help = "c of the decision logit, at the start"),
        CLI_OPTION("tau", 0, &x->tau, .arg = "X", .min = 1e-3, .max = 100, .help = "temperature of the soft decisions"),
        TRAINING_RUNNING(&x->t, "a quarter of the run"),
        {0}};
    const cli_operand operands[] = {CLI_MODEL_OPERAND(&x->model), {0}};
    cli_parse(&(cli_command){.options = options,
                             .operands = operands,
                             .about = about,
                             .examples =
                                 "dmc retrofit models/story.gguf --data stories.txt --cr 4 -o story-dmc4.gguf\n"
                                 "dmc retrofit Llama-3.2-1B --data books.txt --cr 8 --ctx 2048 -o Llama-3.2-1B-dmc8\n"
                                 "dmc retrofit Llama-3.2-1B --data books.txt --method dms --cr 8 -o Llama-3.2-1B-dms8"},
              argc, argv);
}

/* What does not go together, said before anything is loaded. */
static void check(const retrofit *x)
{
    bool dmc = x->method >= DMC_METHOD_DMC && x->method <= DMC_METHOD_DMC_HARDC,
         chooses = x->method == DMC_METHOD_DMC || x->method == DMC_METHOD_DMS;
    if (x->window && !dmc) cli_usage("--window: only slots of dmc are averages over one");
    if (x->decision_from != FROM_KEY && !chooses)
        cli_usage("--decision-from %s: for --method dmc and dms", x->decision_from == FROM_NOISE ? "noise" : "period");
    if (x->recipe && !dmc && x->method != DMC_METHOD_NONE)
        cli_usage("--recipe paper: for --method dmc, dmc-c, dmc-hardc, and none, their control");
    bool learns = (dmc || x->method == DMC_METHOD_DMS || x->method == DMC_METHOD_DMS_ADAPTER) &&
                  x->decision_from == FROM_KEY,
         steers = cli_given(&x->steer) ? x->steer > 0 : !x->recipe;
    if (cli_given(&x->steer) && !learns) cli_usage("--steer: nothing decides here that learns to");
    if (learns && cli_given(&x->price) && steers && x->method != DMC_METHOD_DMC_C)
        cli_usage("--price: the compression loss counts with --steer 0 alone");
    if (x->method == DMC_METHOD_GQA && x->r.cr != floor(x->r.cr)) cli_usage("--cr: gqa pools a whole number of heads");
}

/* The recipe, and over it what was asked for. */
static void choose_recipe(retrofit *x, const dmc_config *c)
{
    dmc_train_options *o = &x->t.o;
    x->r.method = (dmc_method)x->method;
    x->r.regime = (dmc_regime)x->regime;
    x->r.decision = x->decision_from == FROM_NOISE    ? DMC_DECISION_NOISE
                    : x->decision_from == FROM_PERIOD ? DMC_DECISION_PERIOD
                                                      : DMC_DECISION_CHANNEL;
    x->r.paper = x->recipe == 1;
    x->r.ctx = x->t.ctx, x->r.batch = x->t.batch;
    dmc_recipe_retrofit(o, c, &x->r);
    training_apply(&x->t);
    if (x->r.paper) o->adamw.decision_scale = 1, o->lr_min = o->lr / 10; /* whatever --lr is */
    if (o->steps_train) return;
    if (x->channel >= c->head_dim) cli_usage("--channel: heads have channels 0 to %d", c->head_dim - 1);
    if (cli_given(&x->channel)) o->policy.channel = x->channel;
    if (x->loss) o->ce_weight = strcmp(x->loss, "distill") != 0, o->kl_weight = strcmp(x->loss, "lm") != 0;
    if (x->decision_scale > 0) o->adamw.decision_scale = (float)x->decision_scale;
    if (x->steer >= 0) o->steer = (float)x->steer;
    if (x->price >= 0) o->price = (float)x->price;
    if (cli_given(&x->window)) o->policy.window = x->window;
    o->policy.offset = (float)x->offset;
    o->tau = (float)x->tau;
}

int cmd_retrofit(int argc, char **argv)
{
    retrofit x = {.t = training_default(),
                  .r = {.cr = 4, .delay = -1},
                  .method = DMC_METHOD_DMC,
                  .regime = DMC_REGIME_REGULAR,
                  .tau = 0.1,
                  .steer = -1,
                  .price = -1,
                  .offset = 5,
                  .channel = -1};
    dmc_checkpoint *original, *model, *prepared = NULL;
    parse(&x, argc, argv);
    check(&x);
    training_check_out(&x.t, x.model);
    cli_check(dmc_checkpoint_open(&original, x.model));
    if (original->config.policy.kind != DMC_POLICY_NONE)
        cli_die("start from the original model", "%s has been retrofitted already", x.model);
    cli_check(dmc_checkpoint_clone_f32(&model, original));
    choose_recipe(&x, &model->config);
    if (x.method == DMC_METHOD_GQA) cli_check(dmc_prepare_gqa(&prepared, model, (int)x.r.cr));
    if (x.method == DMC_METHOD_DMS_ADAPTER) cli_check(dmc_prepare_adapters(&prepared, model, &x.t.o.policy));
    int status = training_run(&x.t, "retrofit", prepared ? prepared : model, original);
    dmc_checkpoint_close(prepared);
    dmc_checkpoint_close(model);
    dmc_checkpoint_close(original);
    return status;
}
