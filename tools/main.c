/* dmc: one program, a subcommand for each job. */
#include "cli.h"
#include "cli_page.h"
#include "commands.h"
#include "commit.h"
#include "origin.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} commands[] = {
    {"run", cmd_run, "generate text, with the cache compressed as the model decides"},
    {"retrofit", cmd_retrofit, "teach a pretrained model to compress its own key-value cache"},
    {"train", cmd_train, "pretrain a small model from nothing"},
    {"eval", cmd_eval, "measure a model: perplexity, benchmarks, recall, compression"},
    {"inspect", cmd_inspect, "show what is in a model file and how each head compresses"},
    {"convert", cmd_convert, "convert between Hugging Face, GGUF and llama2.c files, and quantise"},
    {"sample", cmd_sample, "write text of a model's own, to retrofit it with"},
    {"story", cmd_story, "write the synthetic stories that the shipped model learns from"},
    {"bench", cmd_bench, "measure speed and memory, against depth, batch and compression"},
    {"study", cmd_study, "train and measure a whole table of methods, ratios and seeds"},
    {"demo", cmd_demo, "show a model beside its compressed self: text, cache, numbers"},
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static const char about[] =
    "dmc runs language models that compress their own key-value cache (Dynamic Memory Compression): "
    "every head decides, token by token, whether to append to its cache or to merge into its "
    "newest slot.";

static int find(const char *name)
{
    const char *names[N_COMMANDS];
    for (int i = 0; i < N_COMMANDS; i++) {
        names[i] = commands[i].name;
        if (strcmp(names[i], name) == 0) return i;
    }
    const char *nearest = cli_nearest(name, names, N_COMMANDS);
    if (nearest) cli_usage("unknown command '%s'; did you mean '%s'?", name, nearest);
    cli_usage("unknown command '%s'", name);
}

static int run_command(int i, int argc, char **argv)
{
    cli_begin(commands[i].name, commands[i].summary);
    int status = commands[i].run(argc, argv);
    cli_close_stdout();
    return status;
}

static int print_help(void)
{
    printf("Usage: dmc COMMAND [ARGUMENTS] [OPTIONS]\n\n");
    cli_wrap(about, 0, 0);
    printf("\nCommands:\n");
    for (int i = 0; i < N_COMMANDS; i++) cli_wrap(commands[i].summary, 12, printf("  %s", commands[i].name));
    printf("\n'dmc COMMAND --help' explains a command, 'dmc --version' prints the version.\n");
    cli_close_stdout();
    return 0;
}

static int print_man(void)
{
    cli_man_head("dmc", "run language models that compress their own key-value cache");
    printf(".SH SYNOPSIS\n\\fBdmc\\fR \\fICOMMAND\\fR [\\fIARGUMENTS\\fR] [\\fIOPTIONS\\fR]\n.SH DESCRIPTION\n");
    cli_troff(about);
    printf(".SH COMMANDS\n");
    for (int i = 0; i < N_COMMANDS; i++) {
        printf(".TP\n\\fBdmc\\-%s\\fR(1)\n", commands[i].name);
        cli_troff(commands[i].summary);
    }
    printf(".SH OPTIONS\n.TP\n\\fB\\-\\-help\\fR\nlist the commands\n.TP\n\\fB\\-\\-version\\fR\nprint the version\n"
           ".SH EXIT STATUS\n0 on success, 1 if the work failed, 2 if the command line was wrong.\n");
    cli_close_stdout();
    return 0;
}

/* dmc help [--man] [COMMAND] */
static int help(int argc, char **argv)
{
    bool man = argc > 2 && strcmp(argv[2], "--man") == 0;
    if (argc > 3 + man) cli_usage("help takes one command");
    if (argc == 2 + man) return man ? print_man() : print_help();
    int i = find(argv[2 + man]);
    return run_command(i, 2, (char *[]){argv[2 + man], man ? "--man" : "--help", NULL});
}

int main(int argc, char **argv)
{
    origin_commit = DMC_COMMIT;
    if (argc < 2) cli_usage("which command?");
    const char *first = argv[1];
    if (strcmp(first, "--help") == 0 || strcmp(first, "-h") == 0) return print_help();
    if (strcmp(first, "help") == 0) return help(argc, argv);
    if (strcmp(first, "--version") == 0 || strcmp(first, "-V") == 0) {
        printf(*DMC_COMMIT ? "dmc %s (%s)\n" : "dmc %s\n", DMC_VERSION, DMC_COMMIT);
        cli_close_stdout();
        return 0;
    }
    if (first[0] == '-') cli_usage("unknown option %s", first);
    return run_command(find(first), argc - 1, argv + 1);
}
