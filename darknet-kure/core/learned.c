/*
 * learned.c: backward passes through a quantizer, learned steps and clips.
 *
 * Tested by tests/unit/test_learned.c.
 */
#include <math.h>

#include "chunks.h"
#include "quantize_parts.h"

static const double EXPONENT_MOST = 100; /* steps within 2^-100 .. 2^100 */

void kure_ste_backward(const float *x, const float *dy, float *dx, size_t n, struct kure_scale scale,
                       const struct kure_quantizer *q, const struct kure_noise *noise)
{
    struct kure_codec codec = kure_codec_of(scale, q, noise);
    size_t size = kure_chunk_size(n), chunks = kure_chunk_count(n);
    KURE_PARALLEL(n,
        for (size_t c = 0; c < chunks; c++) {
            struct kure_codec part = kure_codec_from(codec, c * size);
            kure_cpu()->ste_backward(x + c * size, dy + c * size, dx + c * size, kure_chunk_length(n, c), &part);
        });
}

/* ---- LSQ --------------------------------------------------------------------- */

static int is_exponent(const struct kure_quantizer *q)
{
    return q->step == KURE_STEP_POWER_OF_TWO;
}

static double largest_code(int zero_point, const struct kure_quantizer *q)
{
    return fmax(kure_highest_code(q) - zero_point, 1);
}

struct kure_learned_step kure_learned_step_start(const float *x, size_t n, int zero_point,
                                                 const struct kure_quantizer *q)
{
    struct kure_spread_sums sums[KURE_CHUNKS_MAX];
    size_t size = kure_chunk_size(n), chunks = kure_chunk_count(n);
    double sum = 0, most = largest_code(zero_point, q);
    KURE_PARALLEL(n,
        for (size_t c = 0; c < chunks; c++) kure_cpu()->spread_sums(x + c * size, kure_chunk_length(n, c), 0, &sums[c]));
    for (size_t c = 0; c < chunks; c++) sum += sums[c].deviation;
    double step = sum > 0 ? 2 * (sum / (double)n) / sqrt(most) : 1 / most;
    step = fmin(fmax(step, ldexp(1, -80)), ldexp(1, 80));
    return (struct kure_learned_step){is_exponent(q) ? log2(step) : step, step / 1024};
}

struct kure_scale kure_learned_step_scale(const struct kure_learned_step *s, int zero_point,
                                          const struct kure_quantizer *q)
{
    double step = is_exponent(q) ? ldexp(1, (int)rint(s->value)) : s->value;
    return (struct kure_scale){(float)step, zero_point};
}

void kure_learned_step_move(struct kure_learned_step *s, double change, const struct kure_quantizer *q)
{
    double least = is_exponent(q) ? -EXPONENT_MOST : s->least;
    double most = is_exponent(q) ? EXPONENT_MOST : ldexp(1, (int)EXPONENT_MOST);
    s->value = fmin(fmax(s->value + change, least), most);
}

double kure_learned_step_gradient_of(const double *sums, size_t chunks, size_t features, struct kure_scale scale,
                                     const struct kure_quantizer *q)
{
    double sum = 0;
    for (size_t c = 0; c < chunks; c++) sum += sums[c];
    sum /= sqrt((double)features * largest_code(scale.zero_point, q));
    return is_exponent(q) ? sum * scale.step * 0.69314718055994531 : sum;
}

double kure_learned_step_backward(const float *x, const float *dy, float *dx, size_t n, size_t features,
                                  struct kure_scale scale, const struct kure_quantizer *q,
                                  const struct kure_noise *noise)
{
    struct kure_codec codec = kure_codec_of(scale, q, noise);
    double sums[KURE_CHUNKS_MAX];
    size_t size = kure_chunk_size(n), chunks = kure_chunk_count(n);
    KURE_PARALLEL(n,
        for (size_t c = 0; c < chunks; c++) {
            struct kure_codec part = kure_codec_from(codec, c * size);
            sums[c] = kure_cpu()->lsq_backward(x + c * size, dy + c * size, dx + c * size, kure_chunk_length(n, c), &part);
        });
    return kure_learned_step_gradient_of(sums, chunks, features, scale, q);
}

/* ---- PACT -------------------------------------------------------------------- */

struct kure_scale kure_pact_scale(float clip, int bits)
{
    return (struct kure_scale){clip / (float)((1 << bits) - 1), -(1 << (bits - 1))};
}

double kure_pact_backward(const float *x, const float *dy, float *dx, size_t n, float clip)
{
    double sums[KURE_CHUNKS_MAX], sum = 0;
    size_t size = kure_chunk_size(n), chunks = kure_chunk_count(n);
    KURE_PARALLEL(n,
        for (size_t c = 0; c < chunks; c++) {
            size_t at = c * size, m = kure_chunk_length(n, c);
            sums[c] = kure_cpu()->pact_backward(x + at, dy + at, dx + at, m, clip);
        });
    for (size_t c = 0; c < chunks; c++) sum += sums[c];
    return sum;
}
