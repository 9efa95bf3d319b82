/*
 * dorefa.c: DoReFa-Net's weights (Zhou et al. 2016, equation 9), forward and
 * backward, as the code of the KURE paper computes them (Distiller).
 *
 * Tested by tests/unit/test_learned.c.
 */
#include "chunks.h"
#include "quantize_parts.h"

/* max: tanh of the largest |x|, which is the largest |tanh x|, as tanh rises */
struct kure_dorefa kure_dorefa_constants(struct kure_range_keys range, int bits)
{
    float min = kure_flush(kure_unorder(range.min)), most = kure_flush(kure_unorder(range.max));
    float max = kure_tanh(-min > most ? -min : most);
    return (struct kure_dorefa){.max = max > 0 ? max : 1, .levels = (float)((1 << bits) - 1)};
}

static struct kure_dorefa constants(const float *x, size_t n, int bits)
{
    struct kure_range_keys keys[KURE_CHUNKS_MAX], all = {INT32_MAX, INT32_MIN};
    size_t size = kure_chunk_size(n), chunks = kure_chunk_count(n);
    KURE_PARALLEL(n,
        for (size_t c = 0; c < chunks; c++) kure_cpu()->range(x + c * size, kure_chunk_length(n, c), &keys[c]));
    for (size_t c = 0; c < chunks; c++) {
        all.min = keys[c].min < all.min ? keys[c].min : all.min;
        all.max = keys[c].max > all.max ? keys[c].max : all.max;
    }
    return kure_dorefa_constants(all, bits);
}

void kure_dorefa_quantize(const float *x, float *y, size_t n, const struct kure_quantizer *q,
                          const struct kure_noise *noise)
{
    struct kure_dorefa d = constants(x, n, q->bits);
    struct kure_codec codec = {.rounding = q->rounding};
    size_t size = kure_chunk_size(n), chunks = kure_chunk_count(n);
    if (noise) codec.noise = *noise;
    KURE_PARALLEL(n,
        for (size_t c = 0; c < chunks; c++) {
            struct kure_codec part = kure_codec_from(codec, c * size);
            kure_cpu()->dorefa_quantize(x + c * size, y + c * size, kure_chunk_length(n, c), d, &part);
        });
}

void kure_dorefa_backward(const float *x, const float *dy, float *dx, size_t n)
{
    struct kure_dorefa d = constants(x, n, 2);
    struct kure_dorefa_sums sums[KURE_CHUNKS_MAX], all = {0, 0};
    size_t size = kure_chunk_size(n), chunks = kure_chunk_count(n);
    KURE_PARALLEL(n,
        for (size_t c = 0; c < chunks; c++)
            kure_cpu()->dorefa_sums(x + c * size, dy + c * size, kure_chunk_length(n, c), d, &sums[c]));
    for (size_t c = 0; c < chunks; c++) {
        all.dot += sums[c].dot;
        all.largest += sums[c].largest;
    }
    d.share = kure_dorefa_share(all.dot, all.largest, d.max);
    KURE_PARALLEL(n,
        for (size_t c = 0; c < chunks; c++)
            kure_cpu()->dorefa_backward(x + c * size, dy + c * size, dx + c * size, kure_chunk_length(n, c), d));
}
