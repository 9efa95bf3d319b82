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

void kure_fake_quantize(const float *x, float *y, size_t n, struct kure_scale scale,
                        const struct kure_quantizer *q, const struct kure_noise *noise)
{
    const struct kure_backend *cpu = kure_cpu();
    struct kure_codec codec = kure_codec_of(scale, q, noise);
    size_t size = kure_chunk_size(n), chunks = kure_chunk_count(n);
    if (!(codec.levels.step > 0)) {
        memset(y, 0, n * sizeof *y);
        return;
    }
    KURE_PARALLEL(n,
        for (size_t c = 0; c < chunks; c++) {
            struct kure_codec part = kure_codec_from(codec, c * size);
            cpu->fake_quantize(x + c * size, y + c * size, kure_chunk_length(n, c), &part);
        });
}

uint64_t kure_count_nan(const float *x, size_t n)
{
    uint64_t counts[KURE_CHUNKS_MAX], count = 0;
    size_t size = kure_chunk_size(n), chunks = kure_chunk_count(n);
    KURE_PARALLEL(n,
        for (size_t c = 0; c < chunks; c++) counts[c] = kure_cpu()->count_nan(x + c * size, kure_chunk_length(n, c)));
    for (size_t c = 0; c < chunks; c++) count += counts[c];
    return count;
}

/* Adds the sums of x[n] to `out`. A step of 0 is that of zeros. */
static void add_sums(const float *x, size_t n, struct kure_codec codec, struct kure_quantization *out)
{
    const struct kure_backend *cpu = kure_cpu();
    struct kure_error_sums sums[KURE_CHUNKS_MAX];
    size_t size = kure_chunk_size(n), chunks = kure_chunk_count(n);
    if (codec.levels.step == 0) return;
    KURE_PARALLEL(n,
        for (size_t c = 0; c < chunks; c++) {
            struct kure_codec part = kure_codec_from(codec, c * size);
            cpu->quantization_sums(x + c * size, kure_chunk_length(n, c), &part, &sums[c]);
        });
    for (size_t c = 0; c < chunks; c++) {
        out->signal += sums[c].signal;
        out->noise += sums[c].noise;
    }
}

/* x [in, out]: [parts][n], each part with a step of its own. On an error x is
 * as it was. */
static enum kure_status quantize_parts(float *x, size_t parts, size_t n, const struct kure_quantizer *q,
                                       const struct kure_noise *noise, struct kure_quantization *out,
                                       struct kure_error *error)
{
    enum kure_status status = KURE_OK;
    if (q->bits == 0) {
        struct kure_statistics s;
        kure_statistics_compute(x, parts * n, &s);
        out->signal = (double)s.n * (s.m2 + s.mean * s.mean);
        return status;
    }
    struct kure_scale *scales = malloc((parts ? parts : 1) * sizeof *scales);
    if (!scales) return kure_fail_memory(error);

    KURE_PARALLEL(parts * n,
        for (size_t p = 0; p < parts; p++)
            if (kure_scale_find(x + p * n, n, q, &scales[p], NULL) != KURE_OK) scales[p].step = NAN);
    for (size_t p = 0; p < parts && status == KURE_OK; p++)
        if (isnan(scales[p].step)) status = kure_scale_find(x + p * n, n, q, &scales[p], error);
    for (size_t p = 0; p < parts && status == KURE_OK; p++) {
        struct kure_codec codec = kure_codec_from(kure_codec_of(scales[p], q, noise), p * n);
        add_sums(x + p * n, n, codec, out);
        kure_fake_quantize(x + p * n, x + p * n, n, scales[p], q, &codec.noise);
    }
    free(scales);
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
                                        const struct kure_noise *noise, struct kure_quantization *out,
                                        struct kure_error *error)
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
        quantize_parts(t->scratch, by_row ? rows : 1, by_row ? k : rows * k, q, noise, out, error);
    if (status != KURE_OK || q->bits == 0) return status;
    for (size_t c = 0, row = 0; c < t->rows; c++)
        if (is_folded(t, c, largest))
            cpu->divide(t->scratch + row++ * k, t->weights + c * k, k,
                        kure_fold_factor(t->gamma[c], t->variance[c]));
    return KURE_OK;
}

enum kure_status kure_quantize_tensor(const struct kure_tensor *tensor, const struct kure_quantizer *q, int fold,
                                      const struct kure_noise *noise, struct kure_quantization *out,
                                      struct kure_error *error)
{
    int by_row = q->granularity == KURE_GRANULARITY_CHANNEL;
    enum kure_status status = kure_quantizer_check(q, error);
    *out = (struct kure_quantization){0};
    if (status != KURE_OK) return status;
    if (fold && tensor->gamma) return quantize_folded(tensor, q, noise, out, error);
    return quantize_parts(tensor->weights, by_row ? tensor->rows : 1,
                          by_row ? tensor->row_length : tensor->rows * tensor->row_length, q, noise, out, error);
}
