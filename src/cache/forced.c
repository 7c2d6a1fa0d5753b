/* Forced lengths, for benchmarks: how fast would a model be whose heads compress so much, and as unevenly as trained ones do?
 *
 * Head i appends the share f_i of its tokens, spread evenly over time, and merges the others. The shares are spread log-evenly over a
 * factor of 10, as far as 1 does not cap them; neighbouring heads get shares far apart; their mean is 1 / cr.
 */
#include "cache/seq.h"

#include <math.h>

static double share(double scale, int64_t i, int64_t n)
{
    double u = fmod(((double)i + 0.5) * 0.6180339887498949 * (double)n, (double)n) /
               (double)n; /* evenly in (0, 1), shuffled */
    return fmin(1, scale * pow(10, u));
}

void dmc_forced_shares(double cr, int64_t n, float *shares)
{
    double low = 0, high = 1;
    for (int step = 0; step < 60; step++) {
        double scale = (low + high) / 2, sum = 0;
        for (int64_t i = 0; i < n; i++) sum += share(scale, i, n);
        if (sum * cr < (double)n) low = scale;
        else high = scale;
    }
    for (int64_t i = 0; i < n; i++) shares[i] = (float)share(high, i, n);
}
