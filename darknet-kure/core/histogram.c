/* histogram.c: see histogram.h. Tested by tests/unit/test_observer.c and test_scale.c. */
#include "histogram.h"

#include <string.h>

#include "chunks.h"

enum { BINS = KURE_HISTOGRAM_BINS, ZERO = BINS / 2 };

/* neighbours from the middle outwards become one bin */
static void widen(double *bins)
{
    double wide[BINS] = {0};
    for (int b = 0; b < BINS; b++) wide[b < ZERO ? (b + ZERO) / 2 : ZERO + (b - ZERO) / 2] += bins[b];
    memcpy(bins, wide, sizeof wide);
}

enum { BLOCK = 128, PART_MIN = 65536, PARTS_MAX = 64 };
struct bin {
    double count, total; /* beside each other: one vector addition */
};

/* Blocks, so that the bins are found with vectors. */
static void add_values(struct bin *bins, const float *x, size_t n, double scale)
{
    double v[BLOCK];
    int bin[BLOCK];
    for (size_t m; n; x += m, n -= m) {
        m = n < BLOCK ? n : BLOCK;
        for (size_t i = 0; i < m; i++) {
            v[i] = kure_flush(x[i]);
            int b = (int)(v[i] * scale + ZERO);
            bin[i] = b < BINS - 1 ? b : BINS - 1;
        }
        for (size_t i = 0; i < m; i++) {
            struct bin *to = &bins[bin[i]];
            to->count += 1;
            to->total += v[i];
        }
    }
}

static void add_part(struct kure_histogram *h, const struct bin *bins)
{
    for (int b = 0; b < BINS; b++) {
        h->count[b] += bins[b].count;
        h->total[b] += bins[b].total;
    }
}

void kure_histogram_add(struct kure_histogram *h, const float *x, size_t n, double magnitude)
{
    if (h->reach == 0) h->reach = magnitude;
    for (; h->reach < magnitude; h->reach *= 2) {
        widen(h->count);
        widen(h->total);
    }
    double scale = h->reach > 0 ? ZERO / h->reach : 0;
    /* parts depend on n alone and are added in order: the bits do not depend on threads */
    size_t parts = n / PART_MIN < 2 ? 1 : n / PART_MIN < PARTS_MAX ? n / PART_MIN / 2 * 2 : PARTS_MAX; /* even: two threads end together */
    KURE_PARALLEL_ORDERED(n,
        for (size_t p = 0; p < parts; p++) {
            struct bin bins[BINS] = {{0}};
            size_t first = n / parts * p, end = p + 1 < parts ? first + n / parts : n;
            add_values(bins, x + first, end - first, scale);
            KURE_IN_ORDER add_part(h, bins);
        });
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
