/* Where and when a number was made, for the files that keep it. */
#ifndef DMC_TOOLS_ORIGIN_H
#define DMC_TOOLS_ORIGIN_H

typedef struct {
    char machine[96]; /* its processor; "unknown" */
    char date[24];    /* UTC */
    int cores;
    const char *commit; /* origin_commit */
} origin;

extern const char *origin_commit; /* what git calls the tree that was built, or ""; set by main */
origin origin_here(void);

#endif
