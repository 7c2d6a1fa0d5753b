/* What `dmc demo` shows. */
#ifndef DEMO_H
#define DEMO_H

#include "base/base.h"

typedef struct {
    const char *prompt;
    int n_tokens; /* to generate */
    double speed; /* tokens a second of each on a terminal; 0: as fast as they come */
    dmc_sampler_options sampler;
    bool no_color;
} demo_options;

enum { DEMO_STORIES = 2 };
/* Both models tell a story, token by token in turn; on a terminal side by side with a meter of their caches. */
dmc_status demo_stories(dmc_engine *const engines[DEMO_STORIES], const char *const names[DEMO_STORIES],
                        const demo_options *o);

#endif
