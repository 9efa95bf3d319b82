/*
 * histogram.h: values for the policies that need them: as they are, or in bins.
 */
#ifndef KURE_HISTOGRAM_H
#define KURE_HISTOGRAM_H

#include "../backend/backend.h"

/* As a histogram: bins of equal width from -reach to reach, of which bin
 * KURE_HISTOGRAM_BINS/2 begins at 0. A bin stands for its values by their mean,
 * so that a tensor of few distinct values stays exact. All zeros to begin with. */
struct kure_histogram {
    double reach; /* 0: so far there are only zeros */
    double count[KURE_HISTOGRAM_BINS], total[KURE_HISTOGRAM_BINS];
    float value[KURE_HISTOGRAM_BINS];
};

/* x[n] finite, all at most `magnitude` away from 0. Bins widen as needed. */
void kure_histogram_add(struct kure_histogram *h, const float *x, size_t n, double magnitude);

/* Points in ascending order, some with count 0; they point into h. */
struct kure_points kure_histogram_points(struct kure_histogram *h);

/* Points of x[n] themselves, n <= KURE_HISTOGRAM_BINS, in ascending order; h is
 * only memory. */
struct kure_points kure_histogram_values(struct kure_histogram *h, const float *x, size_t n);

#endif
