/* histogram.c: see histogram.h. Tested by tests/unit/test_observer.c and test_scale.c. */
#include "histogram.h"

#include <string.h>

enum { BINS = KURE_HISTOGRAM_BINS, ZERO = BINS / 2 };

/* neighbours from the middle outwards become one bin */
static void widen(double *bins)
{
    double wide[BINS] = {0};
    for (int b = 0; b < BINS; b++) wide[b < ZERO ? (b + ZERO) / 2 : ZERO + (b - ZERO) / 2] += bins[b];
    memcpy(bins, wide, sizeof wide);
}

void kure_histogram_add(struct kure_histogram *h, const float *x, size_t n, double magnitude)
{
    if (h->reach == 0) h->reach = magnitude;
    for (; h->reach < magnitude; h->reach *= 2) {
        widen(h->count);
        widen(h->total);
    }
    double scale = h->reach > 0 ? ZERO / h->reach : 0;
    for (size_t i = 0; i < n; i++) {
        double v = kure_flush(x[i]);
        int bin = (int)(v * scale + ZERO);
        if (bin > BINS - 1) bin = BINS - 1;
        h->total[bin] += v;
        h->count[bin] += 1;
    }
}

struct kure_points kure_histogram_points(struct kure_histogram *h)
{
    for (int b = 0; b < BINS; b++) h->value[b] = h->count[b] > 0 ? (float)(h->total[b] / h->count[b]) : 0;
    return (struct kure_points){h->value, h->total, h->count, BINS};
}

/* key[n] ascending, digit by digit from the lowest; spare[n]: memory. The C
 * library's qsort allocates. */
static void sort(uint32_t *key, uint32_t *spare, size_t n)
{
    for (int shift = 0; shift < 32; shift += 8) { /* an even number of turns: it ends in key */
        size_t place[257] = {0};
        for (size_t i = 0; i < n; i++) place[(key[i] >> shift & 255) + 1]++;
        for (int d = 0; d < 256; d++) place[d + 1] += place[d];
        for (size_t i = 0; i < n; i++) spare[place[key[i] >> shift & 255]++] = key[i];
        uint32_t *sorted = spare;
        spare = key;
        key = sorted;
    }
}

struct kure_points kure_histogram_values(struct kure_histogram *h, const float *x, size_t n)
{
    const uint32_t sign = 0x80000000u; /* makes an unsigned key of kure_order's */
    uint32_t key[BINS], spare[BINS];
    for (size_t i = 0; i < n; i++) key[i] = (uint32_t)kure_order(kure_flush(x[i])) ^ sign;
    sort(key, spare, n);
    for (size_t i = 0; i < n; i++) {
        h->value[i] = kure_unorder((int32_t)(key[i] ^ sign));
        h->total[i] = h->value[i];
        h->count[i] = 1;
    }
    return (struct kure_points){h->value, h->total, h->count, n};
}
