/*
 * quantize.c: simulated quantization of a weight tensor.
 *
 * Tested by tests/unit/test_quantize.c.
 */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../backend/backend.h"
#include "chunks.h"
#include "error.h"
#include "fold.h"
#include "kure.h"
#include "levels.h"

static const double STEP_MIN = 0x1p-100, STEP_MAX = 0x1p100;

void kure_fake_quantize(const float *x, float *y, size_t n, float step, int bits, enum kure_grid grid)
{
    const struct kure_backend *cpu = kure_cpu();
    /* a step up to 2^-125 is 0: half of it, a level of midrise, would be subnormal */
    struct kure_levels levels = kure_levels_of(kure_beyond(step, 0x01000000), bits, grid);
    size_t size = kure_chunk_size(n), chunks = kure_chunk_count(n);
    if (!(levels.step > 0)) {
        memset(y, 0, n * sizeof *y);
        return;
    }
    KURE_PARALLEL_FOR(n)
    for (size_t c = 0; c < chunks; c++)
        cpu->fake_quantize(x + c * size, y + c * size, kure_chunk_length(n, c), levels);
}

/* Adds the sums of x[n] to `out`. A step of 0 is that of zeros. */
static void add_sums(const float *x, size_t n, float step, const struct kure_quantizer *q,
                     struct kure_quantization *out)
{
    const struct kure_backend *cpu = kure_cpu();
    struct kure_levels levels = kure_levels_of(step, q->bits, q->grid);
    struct kure_error_sums sums[KURE_CHUNKS_MAX];
    size_t size = kure_chunk_size(n), chunks = kure_chunk_count(n);
    if (step == 0) return;
    KURE_PARALLEL_FOR(n)
    for (size_t c = 0; c < chunks; c++)
        cpu->quantization_sums(x + c * size, kure_chunk_length(n, c), levels, &sums[c]);
    for (size_t c = 0; c < chunks; c++) {
        out->signal += sums[c].signal;
        out->noise += sums[c].noise;
    }
}

static enum kure_status check(const struct kure_quantizer *q, struct kure_error *error)
{
    if (q->bits != 0 && (q->bits < 2 || q->bits > 16))
        return kure_fail(error, KURE_ERROR_INPUT, "bits is %d: possible are 0 (float) and 2 to 16",
                         q->bits);
    if (!(q->step_ratio > 0) || isinf(q->step_ratio))
        return kure_fail(error, KURE_ERROR_INPUT, "step_ratio is %g: it must be a positive number",
                         q->step_ratio);
    return KURE_OK;
}

/* step [out]: of x[n], times step_ratio */
static enum kure_status find_step(const float *x, size_t n, const struct kure_quantizer *q,
                                  float *step, struct kure_error *error)
{
    double d;
    enum kure_status status = kure_step_size(x, n, q, &d, error);
    if (status != KURE_OK) return status;
    d *= q->step_ratio;
    if (d != 0 && (d < STEP_MIN || d > STEP_MAX))
        return kure_fail(error, KURE_ERROR_INPUT, "step size %g is outside 2^-100 .. 2^100", d);
    *step = (float)d;
    return KURE_OK;
}

/* x [in, out]: [parts][n], each part with a step of its own. On an error x is
 * as it was. */
static enum kure_status quantize_parts(float *x, size_t parts, size_t n,
                                       const struct kure_quantizer *q,
                                       struct kure_quantization *out, struct kure_error *error)
{
    enum kure_status status = KURE_OK;
    if (q->bits == 0) {
        struct kure_statistics s;
        kure_statistics_compute(x, parts * n, &s);
        out->signal = (double)s.n * (s.m2 + s.mean * s.mean);
        return status;
    }
    float *steps = malloc((parts ? parts : 1) * sizeof *steps);
    if (!steps) return kure_fail_memory(error);

    KURE_PARALLEL_FOR(parts * n)
    for (size_t p = 0; p < parts; p++)
        if (find_step(x + p * n, n, q, &steps[p], NULL) != KURE_OK) steps[p] = NAN;
    for (size_t p = 0; p < parts && status == KURE_OK; p++)
        if (isnan(steps[p])) status = find_step(x + p * n, n, q, &steps[p], error);
    for (size_t p = 0; p < parts && status == KURE_OK; p++) {
        add_sums(x + p * n, n, steps[p], q, out);
        kure_fake_quantize(x + p * n, x + p * n, n, steps[p], q->bits, q->grid);
    }
    free(steps);
    return status;
}

/* Rows that folding makes as good as zero against the largest stay float: their
 * weights would come back divided by next to nothing. */
static int is_folded(const struct kure_tensor *t, size_t row, float largest)
{
    float factor = kure_fold_factor(t->gamma[row], t->variance[row]);
    return factor != 0 && !(fabsf(factor) < 0x1p-40f * largest);
}

static enum kure_status quantize_folded(const struct kure_tensor *t, const struct kure_quantizer *q,
                                        struct kure_quantization *out, struct kure_error *error)
{
    const struct kure_backend *cpu = kure_cpu();
    size_t k = t->row_length, rows = 0;
    float largest = 0;
    assert(t->scratch && t->variance);

    for (size_t c = 0; c < t->rows; c++)
        largest = fmaxf(largest, fabsf(kure_fold_factor(t->gamma[c], t->variance[c])));
    for (size_t c = 0; c < t->rows; c++) /* scratch: [rows][k], the rows in question only */
        if (is_folded(t, c, largest))
            cpu->multiply(t->weights + c * k, t->scratch + rows++ * k, k,
                          kure_fold_factor(t->gamma[c], t->variance[c]));
    int by_row = q->granularity == KURE_GRANULARITY_CHANNEL;
    enum kure_status status =
        quantize_parts(t->scratch, by_row ? rows : 1, by_row ? k : rows * k, q, out, error);
    if (status != KURE_OK || q->bits == 0) return status;
    for (size_t c = 0, row = 0; c < t->rows; c++)
        if (is_folded(t, c, largest))
            cpu->divide(t->scratch + row++ * k, t->weights + c * k, k,
                        kure_fold_factor(t->gamma[c], t->variance[c]));
    return KURE_OK;
}

enum kure_status kure_quantize_tensor(const struct kure_tensor *tensor,
                                      const struct kure_quantizer *q, int fold,
                                      struct kure_quantization *out, struct kure_error *error)
{
    int by_row = q->granularity == KURE_GRANULARITY_CHANNEL;
    enum kure_status status = check(q, error);
    *out = (struct kure_quantization){0};
    if (status != KURE_OK) return status;
    if (fold && tensor->gamma) return quantize_folded(tensor, q, out, error);
    return quantize_parts(tensor->weights, by_row ? tensor->rows : 1,
                          by_row ? tensor->row_length : tensor->rows * tensor->row_length, q, out,
                          error);
}
