/*
 * kure_math.h: what is done to one element, once for gcc, g++ and nvcc.
 *
 * Backends hold loops, indices and launches; the arithmetic is here. Only
 * + - * / and bit operations, no libm, no contraction (-ffp-contract=off,
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

/* x where |x| > limit, else +0; limit as bits. No branch: compilers vectorize it. */
KURE_MATH float kure_beyond(float x, int32_t limit)
{
    uint32_t bits = kure_bits(x);
    int32_t magnitude = (int32_t)(bits & 0x7fffffffu);
    return kure_float(bits & (0u - (uint32_t)(magnitude > limit)));
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
/* Rounding: kure_round_NAME for each row of core/rounding.def                */

/* |x| <= 2^22. The sum has no fraction bits left, so the addition rounds, ties
 * to even; the result of the subtraction is exact and never -0. */
KURE_MATH float kure_round_half_even(float x)
{
    const float shift = 12582912.0f; /* 1.5 * 2^23 */
    return (x + shift) - shift;
}

/* ------------------------------------------------------------------------- */
/* Quantization. A code c stands for the level step * (c + offset).           */

struct kure_levels {
    float step;      /* > 2 FLT_MIN, so that every level is 0 or normal */
    float low, high; /* smallest and largest code, |code| <= 2^15 */
    float offset;    /* 0, or 1/2 for the midrise grid, which has no zero level */
};

/* NaN counts as 0. A clamp of the quotient before rounding is the clamp of the
 * code after it, since the limits are whole. */
KURE_MATH float kure_quantize(float x, struct kure_levels q)
{
    float t = kure_flush(x == x ? x : 0.0f) / q.step - q.offset;
    t = t < q.low ? q.low : t;
    t = t > q.high ? q.high : t;
    return kure_round_half_even(t);
}

KURE_MATH float kure_dequantize(float code, struct kure_levels q)
{
    return q.step * (code + q.offset);
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
