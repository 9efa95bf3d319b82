/* histogram.c: see histogram.h. Tested by tests/unit/test_observer.c and test_scale.c. */
#include "histogram.h"

#include <stdlib.h>
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

static int ascending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

struct kure_points kure_histogram_values(struct kure_histogram *h, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) h->value[i] = kure_flush(x[i]);
    qsort(h->value, n, sizeof *h->value, ascending);
    for (size_t i = 0; i < n; i++) {
        h->total[i] = h->value[i];
        h->count[i] = 1;
    }
    return (struct kure_points){h->value, h->total, h->count, n};
}
