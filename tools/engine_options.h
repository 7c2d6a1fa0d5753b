/* The options that every command has which opens a model: how it computes and what its cache is stored in. */
#ifndef DMC_TOOLS_ENGINE_OPTIONS_H
#define DMC_TOOLS_ENGINE_OPTIONS_H

#include "cli.h"

/* Rows for an option table; o: a dmc_engine_options lvalue. The choices stand in the order of dmc.h's constants. */
/* clang-format off */
#define CLI_ENGINE_OPTIONS(o)                                                                                         \
    CLI_HEADING("Computing"),                                                                                         \
    CLI_OPTION("threads", 't', &(o).n_threads, .min = 0, .max = 4096, .def = "all cores", .help = "CPU threads"),     \
    CLI_OPTION("pin", 0, &(o).pin, .help = "keep each thread on a core of its own"),                                  \
    CLI_OPTION("kv", 0, &(o).kv, .choices = "auto|f32|f16|bf16|q8|q4",                                                \
               .help = "what the cache's slots are stored in; auto: f32 for F32 and F16 weights, else bf16"),          \
    CLI_OPTION("math", 0, &(o).math, .choices = "f32|bf16",                                                           \
               .help = "arithmetic for F32 and F16 weights; bf16 takes half the memory and uses matrix units"),       \
    CLI_OPTION("same-bits", 0, &(o).same_bits,                                                                        \
               .help = "block types, f32 slots: the same bits for chunks of any size; prefill is slower"),            \
    CLI_OPTION("tier", 0, &(o).tier, .choices = "auto|reference|avx2|avx512|amx",                                     \
               .help = "CPU kernels; auto: the best that this machine runs")
/* clang-format on */

#endif
