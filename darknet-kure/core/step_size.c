/*
 * step_size.c: truncation policies: from the values of a tensor to a step.
 *
 * mse. For a step D every value x has a level l (code + offset), and the squared
 * error is S - 2 D P + D^2 Q with S = sum x^2, P = sum l*x, Q = sum l^2. For
 * these levels the best step is P/Q with error S - P^2/Q; rounding anew with
 * that step can only lower the error. So each trial of a grid of steps yields
 * the bottom of its own basin, of which there are many. A coarse grid over all
 * sensible steps and a fine one around its best end within a small fraction of a
 * percent of the least error (tests/unit/test_step_size.c).
 *
 * Tested by tests/unit/test_step_size.c.
 */
#include <math.h>
#include <stdlib.h>

#include "../backend/backend.h"
#include "error.h"
#include "kure.h"
#include "levels.h"

/* the smallest step whose outermost levels lie at or beyond min and max */
static double covering_step(double min, double max, const struct kure_quantizer *q)
{
    struct kure_levels levels = kure_levels_of(1, q->bits, q->grid);
    double up = max / (levels.high + levels.offset), down = min / (levels.low + levels.offset);
    if (up < 0) up = 0;
    if (down < 0) down = 0;
    return up > down ? up : down;
}

/* ------------------------------------------------------------------------- */
/* Points: the values themselves, or a histogram of them                      */

struct cloud {
    struct kure_points points;
    double squares; /* sum of x^2 */
    double mean_magnitude;
    float *value;
    double *total, *count;
};

static void cloud_free(struct cloud *cloud)
{
    free(cloud->value);
    free(cloud->total);
    free(cloud->count);
}

/* Bins of equal width from -magnitude to magnitude; a bin stands for its values
 * by their mean, so that a tensor of few distinct values stays exact. */
static void fill_histogram(struct cloud *cloud, const float *x, size_t n, double magnitude)
{
    double scale = KURE_HISTOGRAM_BINS / 2 / magnitude;
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        double v = kure_flush(x[i]);
        int bin = (int)(v * scale + KURE_HISTOGRAM_BINS / 2);
        if (bin > KURE_HISTOGRAM_BINS - 1) bin = KURE_HISTOGRAM_BINS - 1;
        cloud->total[bin] += v;
        cloud->count[bin] += 1;
    }
    for (size_t b = 0; b < KURE_HISTOGRAM_BINS; b++) {
        if (cloud->count[b] == 0) continue;
        cloud->total[used] = cloud->total[b];
        cloud->count[used] = cloud->count[b];
        cloud->value[used] = (float)(cloud->total[used] / cloud->count[used]);
        used++;
    }
    cloud->points.n = used;
}

static void fill_values(struct cloud *cloud, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        cloud->value[i] = kure_flush(x[i]);
        cloud->total[i] = cloud->value[i];
        cloud->count[i] = 1;
    }
    cloud->points.n = n;
}

static int cloud_make(struct cloud *cloud, const float *x, size_t n, double magnitude)
{
    size_t size = n < KURE_HISTOGRAM_BINS ? n : KURE_HISTOGRAM_BINS;
    *cloud = (struct cloud){
        .value = malloc(size * sizeof *cloud->value),
        .total = calloc(size, sizeof *cloud->total),
        .count = calloc(size, sizeof *cloud->count),
    };
    if (!cloud->value || !cloud->total || !cloud->count) {
        cloud_free(cloud);
        return 0;
    }
    if (n < KURE_HISTOGRAM_BINS) fill_values(cloud, x, n);
    else fill_histogram(cloud, x, n, magnitude);
    cloud->points.value = cloud->value;
    cloud->points.total = cloud->total;
    cloud->points.count = cloud->count;
    for (size_t i = 0; i < n; i++) {
        double v = kure_flush(x[i]);
        cloud->squares += v * v;
        cloud->mean_magnitude += fabs(v);
    }
    cloud->mean_magnitude /= (double)n;
    return 1;
}

/* ------------------------------------------------------------------------- */
/* Least squared error                                                        */

struct trial {
    double error; /* squared, for the levels of the step that was tried ... */
    double step;  /* ... and the best step for these levels */
};

/* levels for `step`, then the best step for these levels */
static struct trial try_step(const struct cloud *cloud, const struct kure_quantizer *q, double step)
{
    struct kure_level_sums sums;
    kure_cpu()->level_sums(&cloud->points, kure_levels_of((float)step, q->bits, q->grid), &sums);
    if (!(sums.lx > 0) || !(sums.ll > 0)) return (struct trial){cloud->squares, step};
    return (struct trial){cloud->squares - sums.lx * sums.lx / sums.ll, sums.lx / sums.ll};
}

static struct trial better(struct trial a, struct trial b)
{
    return b.error < a.error ? b : a;
}

static double least_error_step(const struct cloud *cloud, const struct kure_quantizer *q,
                               double covering)
{
    /* Outermost levels below half the mean magnitude are never best: the error
     * falls as they move out. */
    double lowest = fmax(cloud->mean_magnitude / (1 << q->bits), 0x1p-120);
    struct trial best = {INFINITY, covering}, next;

    for (double step = 1.05 * covering; step >= lowest; step *= 0.96)
        best = better(best, try_step(cloud, q, step));

    /* Near the covering step the error rises and falls with every level that
     * comes in range, that is, once in 1/2^(bits-1) of the step. */
    int fine = 16 + (1 << q->bits) / 3;
    double from = 0.94 * best.step, width = 0.12 * best.step / fine;
    for (int i = 0; i <= fine; i++) best = better(best, try_step(cloud, q, from + i * width));

    while ((next = try_step(cloud, q, best.step)).error < best.error) best = next;
    return best.step;
}

/* ------------------------------------------------------------------------- */

enum kure_status kure_step_size(const float *x, size_t n, const struct kure_quantizer *q,
                                double *step, struct kure_error *error)
{
    struct kure_statistics s;
    struct cloud cloud;

    *step = 0;
    if (q->bits < 2 || q->bits > 16)
        return kure_fail(error, KURE_ERROR_INPUT, "bits is %d: a step size needs 2 to 16", q->bits);
    if (q->bits > 8 && q->truncation == KURE_TRUNCATION_MSE) /* finer than the histogram */
        return kure_fail(error, KURE_ERROR_INPUT, "bits is %d: truncation mse needs 2 to 8", q->bits);
    kure_statistics_compute(x, n, &s);
    if (s.nonfinite)
        return kure_fail(error, KURE_ERROR_INPUT, "%llu of %zu values are not finite",
                         (unsigned long long)s.nonfinite, n);
    *step = covering_step(s.min, s.max, q);
    if (q->truncation == KURE_TRUNCATION_MINMAX || *step < 0x1p-100) return KURE_OK;
    if (!cloud_make(&cloud, x, n, fmax(s.max, -s.min)))
        return kure_fail_memory(error);
    *step = least_error_step(&cloud, q, *step);
    cloud_free(&cloud);
    return KURE_OK;
}
