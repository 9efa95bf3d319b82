/*
 * kure_math.h: what is done to one element, once for gcc, g++ and nvcc.
 *
 * Backends hold loops, indices and launches; the arithmetic is here. Only
 * + - * / sqrt and bit operations, no libm, no contraction (-ffp-contract=off,
 * --fmad=false), round to nearest: the same bits on every machine.
 *
 * Subnormals. Darknet is linked with -Ofast, whose start-up code makes the
 * whole process treat subnormal operands and results as zero (DAZ, FTZ); our
 * tests and tools do not. So that both give the same bits, a float below
 * FLT_MIN in magnitude counts as +0 here, decided on its bits.
 *
 * Tested by tests/unit/test_math.c.
 */
#ifndef KURE_MATH_H
#define KURE_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__CUDACC__)
#define KURE_MATH static __host__ __device__ __forceinline__
#else
#define KURE_MATH static inline
#endif

KURE_MATH uint32_t kure_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

KURE_MATH float kure_float(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* x where the condition (0 or 1) holds, else +0. No branch: compilers vectorize it. */
KURE_MATH float kure_if(int condition, float x)
{
    return kure_float(kure_bits(x) & (0u - (uint32_t)condition));
}

/* x where |x| > limit, else +0; limit as bits */
KURE_MATH float kure_beyond(float x, int32_t limit)
{
    return kure_if((int32_t)(kure_bits(x) & 0x7fffffffu) > limit, x);
}

/* |x| < FLT_MIN and -0 become +0: for values that were stored, and for sums and
 * differences, which are exact where they are subnormal. */
KURE_MATH float kure_flush(float x)
{
    uint32_t bits = kure_bits(x);
    return kure_float(bits & (0u - (uint32_t)((bits & 0x7f800000u) != 0)));
}

/* |x| <= FLT_MIN becomes +0: for products, quotients and conversions, where a
 * result just below FLT_MIN is rounded up to it without FTZ and is 0 with it. */
KURE_MATH float kure_flush_result(float x)
{
    return kure_beyond(x, 0x00800000);
}

KURE_MATH int kure_is_finite(float x)
{
    return (kure_bits(x) & 0x7f800000u) != 0x7f800000u;
}

/* Keys that compare as integers the way the floats compare (NaN lies outside
 * the infinities): compilers vectorize integer minima, not those of floats. */
KURE_MATH int32_t kure_order(float x)
{
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits ^ (int32_t)((uint32_t)(bits >> 31) & 0x7fffffffu);
}

KURE_MATH float kure_unorder(int32_t key)
{
    int32_t bits = key ^ (int32_t)((uint32_t)(key >> 31) & 0x7fffffffu);
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* ------------------------------------------------------------------------- */
/* Random numbers: Philox4x32-10, Salmon et al., "Parallel random numbers: as
 * easy as 1, 2, 3", SC 2011. A counter-based generator: any element of any
 * stream at once, integers only, so all machines agree.                       */

struct kure_four {
    uint32_t word[4];
};

KURE_MATH struct kure_four kure_philox(uint64_t seed, uint64_t stream, uint64_t counter)
{
    uint32_t c0 = (uint32_t)counter, c1 = (uint32_t)(counter >> 32);
    uint32_t c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)c0 * 0xd2511f53u, b = (uint64_t)c2 * 0xcd9e8d57u;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)b;
        c3 = (uint32_t)a;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    struct kure_four four = {{c0, c1, c2, c3}};
    return four;
}

/* [0, 1), a multiple of 2^-24: exact in a float, as 1 - u is */
KURE_MATH float kure_uniform(uint32_t word)
{
    return (float)(int32_t)(word >> 8) * 0x1p-24f;
}

/* ------------------------------------------------------------------------- */
/* Rounding: kure_round_NAME for each row of rounding.def, |x| <= 2^22,
 * exact, never -0. All start from the nearest integer r, ties to even, and
 * d = x - r, which is exact and at most 1/2. Only stochastic looks at u.      */

/* The sum has no fraction bits left, so the addition rounds. */
KURE_MATH float kure_nearest(float x)
{
    const float shift = 12582912.0f; /* 1.5 * 2^23 */
    return (x + shift) - shift;
}

KURE_MATH float kure_round_half_even(float x, float u)
{
    (void)u;
    return kure_nearest(x);
}

KURE_MATH float kure_round_half_away(float x, float u)
{
    float r = kure_nearest(x), d = x - r;
    (void)u;
    return r + kure_if((d == 0.5f) & (x > 0), 1) - kure_if((d == -0.5f) & (x < 0), 1);
}

KURE_MATH float kure_round_half_up(float x, float u)
{
    float r = kure_nearest(x), d = x - r;
    (void)u;
    return r + kure_if(d == 0.5f, 1);
}

KURE_MATH float kure_round_half_down(float x, float u)
{
    float r = kure_nearest(x), d = x - r;
    (void)u;
    return r - kure_if(d == -0.5f, 1);
}

KURE_MATH float kure_round_half_to_zero(float x, float u)
{
    float r = kure_nearest(x), d = x - r;
    (void)u;
    return r - kure_if((d == -0.5f) & (x > 0), 1) + kure_if((d == 0.5f) & (x < 0), 1);
}

KURE_MATH float kure_round_floor(float x, float u)
{
    float r = kure_nearest(x);
    (void)u;
    return r - kure_if(x < r, 1);
}

KURE_MATH float kure_round_ceil(float x, float u)
{
    float r = kure_nearest(x);
    (void)u;
    return r + kure_if(x > r, 1);
}

KURE_MATH float kure_round_to_zero(float x, float u)
{
    float r = kure_nearest(x);
    (void)u;
    return r - kure_if((x < r) & (x > 0), 1) + kure_if((x > r) & (x < 0), 1);
}

/* floor(x + u) in exact arithmetic: up with probability x - floor(x). */
KURE_MATH float kure_round_stochastic(float x, float u)
{
    float r = kure_nearest(x), d = x - r;
    return r + kure_if(d >= 1 - u, 1) - kure_if(d < -u, 1);
}

/* ------------------------------------------------------------------------- */
/* Quantization. A code c stands for the level step * (c + offset). With a zero
 * point z codes and limits are those of the hardware less z.                  */

struct kure_levels {
    float step;      /* > 2 FLT_MIN, so that every level is 0 or normal */
    float low, high; /* smallest and largest code, |code| <= 2^16 */
    float offset;    /* 0, or 1/2 for the midrise grid, which has no zero level */
};

KURE_MATH float kure_clamp(float x, float low, float high)
{
    x = x < low ? low : x;
    return x > high ? high : x;
}

/* x in units of the step; NaN counts as 0 */
KURE_MATH float kure_position(float x, struct kure_levels q)
{
    return kure_flush(x == x ? x : 0.0f) / q.step - q.offset;
}

/* A clamp before rounding is the clamp of the code after it, since the limits
 * are whole. */
KURE_MATH float kure_quantize(float x, struct kure_levels q)
{
    return kure_nearest(kure_clamp(kure_position(x, q), q.low, q.high));
}

KURE_MATH float kure_dequantize(float code, struct kure_levels q)
{
    return q.step * (code + q.offset);
}

/* d level / d step where the position t has the code c, which is one beyond the
 * limits where it would have been clamped (LSQ, equation 3) */
KURE_MATH float kure_step_slope(float t, float c, struct kure_levels q)
{
    int below = c < q.low, above = c > q.high;
    float outside = kure_if(below, q.low + q.offset) + kure_if(above, q.high + q.offset);
    return kure_if(!below & !above, c - t) + outside;
}

/* ------------------------------------------------------------------------- */
/* tanh, within 3 ulp (tests/unit/test_math.c): E/(E + 2) with E = e^2|x| - 1 =
 * 2^k (e^r - 1) + (2^k - 1), |r| <= ln(2)/2, which keeps its digits near 0.   */

KURE_MATH float kure_tanh(float x)
{
    int32_t magnitude = (int32_t)(kure_bits(kure_flush(x)) & 0x7fffffffu), ten = 0x41200000;
    float y = 2 * kure_float((uint32_t)(magnitude < ten ? magnitude : ten)); /* tanh 10 is 1 */
    float k = kure_nearest(y * 1.44269504f);
    float r = (y - k * 0.693145752f) - k * 1.42860677e-6f; /* ln 2 in two parts */
    /* (e^r - 1 - r)/r^2 by Taylor's series: the next term is below 2^-26 r */
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    float scale = kure_float((uint32_t)((int32_t)k + 127) << 23); /* 2^k */
    float e = scale * (r + kure_flush_result(kure_flush_result(r * r) * p)) + (scale - 1);
    return kure_float(kure_bits(kure_flush_result(e / (e + 2))) | (kure_bits(x) & 0x80000000u));
}

/* DoReFa-Net, Zhou et al. 2016, equation 9, as the Distiller code computes it:
 * 2 round(n t)/n - 1 with t = tanh(w)/(2 max) + 1/2. */
struct kure_dorefa {
    float max;    /* of |tanh w|, > 0 */
    float levels; /* n = 2^bits - 1 */
    float share;  /* backward: what each weight of the largest |tanh w| gets through max */
};

KURE_MATH float kure_dorefa_position(float w, struct kure_dorefa d)
{
    float t = kure_tanh(w) / (2 * d.max) + 0.5f;
    return kure_clamp(d.levels * t, 0, d.levels);
}

KURE_MATH float kure_dorefa_level(float code, struct kure_dorefa d)
{
    return 2 * (code / d.levels) - 1;
}

/* dy through t, through max where |tanh w| is the largest, and through tanh */
KURE_MATH float kure_dorefa_slope(float w, float dy, struct kure_dorefa d)
{
    float h = kure_tanh(w);
    float through_max = kure_if(h == d.max, d.share) - kure_if(h == -d.max, d.share);
    return kure_flush_result((kure_flush_result(kure_flush(dy) / d.max) + through_max) * (1 - h * h));
}

/* That share: d loss/d max is -dot/max^2, dot = sum of dy * tanh w; `largest` weights share it. */
KURE_MATH float kure_dorefa_share(double dot, uint64_t largest, float max)
{
    return largest ? kure_flush_result((float)(-dot / max / max / (double)largest)) : 0;
}

/* ------------------------------------------------------------------------- */
/* Activations that Darknet lacks, and batch norm folded into weights          */

/* leaky with a slope of its own (cap INFINITY), relu6 (slope 0, cap 6) */
KURE_MATH float kure_rectify(float x, float slope, float cap)
{
    float v = kure_flush(x);
    return v > 0 ? (v < cap ? v : cap) : kure_flush_result(slope * v);
}

/* y: rectified */
KURE_MATH float kure_rectify_slope(float y, float dy, float slope, float cap)
{
    float v = kure_flush(y);
    return v > 0 ? kure_if(v < cap, dy) : kure_flush_result(slope * kure_flush(dy));
}

KURE_MATH double kure_fold_sigma(float variance)
{
    return sqrt((double)variance + 1e-5);
}

KURE_MATH float kure_fold_factor(float gamma, float variance)
{
    return kure_flush_result((float)(kure_flush(gamma) / kure_fold_sigma(variance)));
}

/* sum + gain * x */
KURE_MATH float kure_add(float sum, float x, float gain)
{
    return kure_flush(kure_flush(sum) + kure_flush_result(gain * kure_flush(x)));
}

/* The bias of a row whose batch norm is folded in */
KURE_MATH float kure_fold_bias(float gamma, float beta, float mean, float variance)
{
    return kure_flush_result((float)((double)kure_flush(beta) - (double)kure_flush(mean) * (double)kure_fold_factor(gamma, variance)));
}

/* gamma's update and what it gets of a row: sum of the gradient times the weights, less what comes through the bias */
KURE_MATH float kure_fold_gamma(float update, double sum, float mean, float variance, float bias_gradient)
{
    double gradient = sum - (double)kure_flush(mean) * (double)kure_flush(bias_gradient);
    return kure_add(update, kure_flush_result((float)(gradient * (double)kure_fold_factor(1, variance))), 1);
}

/* ------------------------------------------------------------------------- */
/* Kurtosis                                                                   */

/* dK/dx = 4/(n s^4) * (d^3 - m3 - (m4/m2) d), d = x - mean: the bracket, which
 * does not depend on how s is defined. */
struct kure_cubic {
    double mean, m3;
    double slope; /* m4/m2 */
};

KURE_MATH double kure_cubic_at(float x, struct kure_cubic c)
{
    double d = (double)kure_flush(x) - c.mean;
    return d * (d * d - c.slope) - c.m3;
}

/* The same in floats, a third of the work: z^3 - skewness - kurtosis z, where
 * z = d/sigma and sigma^2 = m2. The mean is mean + rest, since |mean| may be far
 * above sigma. With the constants of make_narrow (core/kurtosis.c) a subnormal x
 * vanishes next to mean, so it needs no treatment of its own. */
struct kure_narrow_cubic {
    float mean, rest;
    float inverse; /* 1/sigma */
    float skewness, kurtosis;
};

KURE_MATH float kure_narrow_cubic_at(float x, struct kure_narrow_cubic c)
{
    float z = ((x - c.mean) - c.rest) * c.inverse;
    return z * (z * z - c.kurtosis) - c.skewness;
}

/* update - term, and 0 up to 2^-100: subnormal operands do not show in what is
 * larger. */
KURE_MATH float kure_subtract(float update, float term)
{
    return kure_beyond(update - term, 0x0d800000);
}

#endif
