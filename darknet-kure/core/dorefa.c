/*
 * dorefa.c: DoReFa-Net's weights (Zhou et al. 2016, equation 9), forward and
 * backward, as the code of the KURE paper computes them (Distiller).
 *
 * Tested by tests/unit/test_learned.c.
 */
#include "chunks.h"
#include "levels.h"

/* max: tanh of the largest |x|, which is the largest |tanh x|, as tanh rises */
static struct kure_dorefa constants(const float *x, size_t n, int bits)
{
    float largest[KURE_CHUNKS_MAX], most = 0;
    size_t size = kure_chunk_size(n), chunks = kure_chunk_count(n);
    KURE_PARALLEL(n,
        for (size_t c = 0; c < chunks; c++) {
            struct kure_range_keys keys;
            kure_cpu()->range(x + c * size, kure_chunk_length(n, c), &keys);
            float min = kure_flush(kure_unorder(keys.min)), max = kure_flush(kure_unorder(keys.max));
            largest[c] = -min > max ? -min : max;
        });
    for (size_t c = 0; c < chunks; c++) most = largest[c] > most ? largest[c] : most;
    float max = kure_tanh(most);
    return (struct kure_dorefa){.max = max > 0 ? max : 1, .levels = (float)((1 << bits) - 1)};
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

/* d/dmax of the loss is -sum dy tanh(x)/max^2; the weights that are the largest
 * share it. */
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
    if (all.largest) d.share = kure_flush_result((float)(-all.dot / d.max / d.max / (double)all.largest));
    KURE_PARALLEL(n,
        for (size_t c = 0; c < chunks; c++)
            kure_cpu()->dorefa_backward(x + c * size, dy + c * size, dx + c * size, kure_chunk_length(n, c), d));
}
