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

/* Rows that folding makes as good as zero against the largest stay float: their
 * weights would come back divided by next to nothing. */
static int is_folded(const struct kure_tensor *t, size_t row, float largest)
{
    float factor = kure_fold_factor(t->gamma[row], t->variance[row]);
    return factor != 0 && !(fabsf(factor) < 0x1p-40f * largest);
}

static float largest_factor(const struct kure_tensor *t)
{
    float largest = 0;
    for (size_t c = 0; c < t->rows; c++)
        largest = fmaxf(largest, fabsf(kure_fold_factor(t->gamma[c], t->variance[c])));
    return largest;
}

/* What a quantizer sees of a tensor: values[parts][n], each part with a step of its own. */
struct parts {
    float *values;
    size_t parts, n;
    int folds;     /* values are folded copies, in scratch, of the rows that have a factor */
    float largest; /* factor of folding */
};

static struct parts parts_of(const struct kure_tensor *t, const struct kure_quantizer *q, int fold)
{
    struct parts p = {.values = t->weights, .folds = fold && t->gamma};
    size_t k = t->row_length, rows = t->rows;
    if (p.folds) {
        assert(t->scratch && t->variance);
        p.values = t->scratch;
        p.largest = largest_factor(t);
        rows = 0;
        for (size_t c = 0; c < t->rows; c++)
            if (is_folded(t, c, p.largest))
                kure_cpu()->multiply(t->weights + c * k, t->scratch + rows++ * k, k, kure_fold_factor(t->gamma[c], t->variance[c]));
    }
    int by_row = q->granularity == KURE_GRANULARITY_CHANNEL;
    p.parts = by_row ? rows : 1;
    p.n = by_row ? k : rows * k;
    return p;
}

/* scales [in, out]: [parts] at the front, to one for each row: from the last row on, in place. */
static void spread_to_rows(const struct kure_tensor *t, const struct kure_quantizer *q, const struct parts *p, struct kure_scale *scales)
{
    size_t part = p->parts;
    struct kure_scale whole = scales[0];
    for (size_t c = t->rows; c-- > 0;) {
        if (p->folds && !is_folded(t, c, p->largest)) scales[c] = (struct kure_scale){0, 0};
        else scales[c] = q->granularity == KURE_GRANULARITY_CHANNEL ? scales[--part] : whole;
    }
}

enum kure_status kure_tensor_scales(const struct kure_tensor *t, const struct kure_quantizer *q, int fold, struct kure_scale *scales,
                                    struct kure_error *error)
{
    enum kure_status status = kure_quantizer_check(q, error);
    if (status != KURE_OK) return status;
    struct parts p = parts_of(t, q, fold);
    KURE_PARALLEL(p.parts * p.n,
        for (size_t i = 0; i < p.parts; i++)
            if (kure_scale_find(p.values + i * p.n, p.n, q, &scales[i], NULL) != KURE_OK) scales[i].step = NAN);
    for (size_t i = 0; i < p.parts && status == KURE_OK; i++) /* again, for the sentence */
        if (isnan(scales[i].step)) status = kure_scale_find(p.values + i * p.n, p.n, q, &scales[i], error);
    if (status == KURE_OK) spread_to_rows(t, q, &p, scales);
    return status;
}

static void quantize_parts(const struct kure_tensor *t, const struct kure_quantizer *q, const struct parts *p,
                           const struct kure_scale *scales, const struct kure_noise *noise, struct kure_quantization *out)
{
    size_t row = 0;
    for (size_t i = 0; i < p->parts; i++, row++) {
        while (p->folds && row < t->rows && !is_folded(t, row, p->largest)) row++;
        if (p->n == 0) return;
        float *x = p->values + i * p->n;
        struct kure_codec codec = kure_codec_from(kure_codec_of(scales[row], q, noise), i * p->n);
        add_sums(x, p->n, codec, out);
        kure_fake_quantize(x, x, p->n, scales[row], q, &codec.noise);
    }
}

void kure_tensor_quantize(const struct kure_tensor *t, const struct kure_quantizer *q, int fold, const struct kure_scale *scales,
                          const struct kure_noise *noise, struct kure_quantization *out)
{
    struct parts p = parts_of(t, q, fold);
    size_t k = t->row_length, row = 0;
    *out = (struct kure_quantization){0};
    if (q->bits == 0) {
        struct kure_statistics s;
        kure_statistics_compute(p.values, p.parts * p.n, &s);
        out->signal = (double)s.n * (s.m2 + s.mean * s.mean);
        return;
    }
    quantize_parts(t, q, &p, scales, noise, out);
    for (size_t c = 0; p.folds && c < t->rows; c++)
        if (is_folded(t, c, p.largest))
            kure_cpu()->divide(t->scratch + row++ * k, t->weights + c * k, k, kure_fold_factor(t->gamma[c], t->variance[c]));
}

enum kure_status kure_quantize_tensor(const struct kure_tensor *tensor, const struct kure_quantizer *q, int fold,
                                      const struct kure_noise *noise, struct kure_quantization *out,
                                      struct kure_error *error)
{
    enum kure_status status = kure_quantizer_check(q, error);
    *out = (struct kure_quantization){0};
    if (status != KURE_OK) return status;
    struct kure_scale *scales = malloc((tensor->rows ? tensor->rows : 1) * sizeof *scales);
    if (!scales) return kure_fail_memory(error);
    if (q->bits) status = kure_tensor_scales(tensor, q, fold, scales, error);
    if (status == KURE_OK) kure_tensor_quantize(tensor, q, fold, scales, noise, out);
    free(scales);
    return status;
}
