/* The subcommands, one file each: cmd_NAME stands in tools/NAME.c. argv[0] is the command's name. They return the exit
 * status of the program. */
#ifndef DMC_TOOLS_COMMANDS_H
#define DMC_TOOLS_COMMANDS_H

int cmd_run(int argc, char **argv);
int cmd_retrofit(int argc, char **argv);
int cmd_train(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_convert(int argc, char **argv);
int cmd_sample(int argc, char **argv);
int cmd_story(int argc, char **argv);
int cmd_demo(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_study(int argc, char **argv);

#endif
