/* What a command's table says to the reader: --help and the man page. */
#ifndef DMC_TOOLS_CLI_PAGE_H
#define DMC_TOOLS_CLI_PAGE_H

#include "cli.h"

typedef enum { CLI_PAGE_NONE, CLI_PAGE_HELP, CLI_PAGE_MAN } cli_page_kind;
void cli_page(cli_page_kind kind, const char *name, const char *summary, const cli_command *c);
/* "1 to 64", "at least 1", "at most 3", or "" for an option without a range. */
void cli_range_text(const cli_option *o, char *out, size_t size);

/* Prints text broken at 80 columns, each line after `indent` spaces; the first one starts in column `column`. Line breaks
 * in the text are spaces, an empty line starts a paragraph. */
void cli_wrap(const char *text, int indent, int column);
/* Prints text as troff: nothing in it is a request, an empty line starts a paragraph. */
void cli_troff(const char *text);
/* The first lines of a man page, NAME included: "dmc-run", "generate text". */
void cli_man_head(const char *name, const char *summary);

#endif
