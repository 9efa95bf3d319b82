/*
 * kure_intmath.h: what integer inference does to one element, in integers only, once
 * for gcc, g++ and nvcc.
 *
 * Every target's own arithmetic, to the bit; where it computes in float32, its roundings
 * are done here on integers. A function returns the code less the zero point of the
 * output, before the clamp; results beyond +-2^30 are cut there. After the clamp that is
 * the code which the target stores (it would wrap or be undefined beyond int32).
 *
 *   FLOAT32           onnxruntime core/mlas/lib/quantize.cpp (MlasRequantizeOutput), qladd.cpp and
 *                     intrinsics/avx2/qladd_avx2.cpp, qlgavgpool.cpp; XNNPACK src/xnnpack/requantization.h
 *   FLOAT32_MULTIPLIED   ncnn src/layer/convolution.cpp, quantize.cpp, requantize.cpp, fused_activation.h
 *   FLOAT32_DIVIDED   ONNX QuantizeLinear-21 and DequantizeLinear-21; TensorRT, explicit quantization
 *   DOUBLE_ROUNDING, SINGLE_ROUNDING   TensorFlow Lite kernels/internal/common.cc, reference/integer_ops/{add,pooling}.h,
 *                     gemmlowp fixedpoint.h; CMSIS-NN Include/arm_nnsupportfunctions.h
 *   SHIFT_HALF_UP, SHIFT_HALF_AWAY     add half, shift: power-of-two scales
 *
 * Two's complement, and >> of a negative number is arithmetic, as all of these assume.
 *
 * Tested by tests/test_intmath.py.
 */
#ifndef KURE_INTMATH_H
#define KURE_INTMATH_H

#include <stdint.h>

#if defined(__CUDACC__)
#define KURE_INTMATH static __host__ __device__ __forceinline__
#else
#define KURE_INTMATH static inline
#endif

/* Where a number lies in the middle between two integers. */
enum kure_ties { KURE_TIES_EVEN, KURE_TIES_AWAY, KURE_TIES_UP };

KURE_INTMATH int32_t kure_limit(int64_t x, int32_t low, int32_t high)
{
    return x < low ? low : x > high ? high : (int32_t)x;
}

KURE_INTMATH int32_t kure_saturate(int64_t x)
{
    return kure_limit(x, -(1 << 30), 1 << 30);
}

/* |x|, also of the smallest */
KURE_INTMATH uint64_t kure_magnitude(int64_t x)
{
    return x < 0 ? 0 - (uint64_t)x : (uint64_t)x;
}

/* position of the highest bit of x, x > 0 */
KURE_INTMATH int kure_highest_bit(uint64_t x)
{
#if defined(__CUDA_ARCH__)
    return 63 - __clzll((long long)x);
#elif defined(__GNUC__)
    return 63 - __builtin_clzll(x);
#else
    int bit = 0;
    for (int step = 32; step; step /= 2) {
        if (x >> step) {
            x >>= step;
            bit += step;
        }
    }
    return bit;
#endif
}

/* x * 2^-shift to the nearest integer; |x| <= 2^61, 1 <= shift <= 62 */
KURE_INTMATH int64_t kure_shift_right(int64_t x, int shift, enum kure_ties ties)
{
    int64_t half = (int64_t)1 << (shift - 1);
    if (ties == KURE_TIES_AWAY) return x < 0 ? -((half - x) >> shift) : (half + x) >> shift;
    int64_t up = (x + half) >> shift, rest = x & (2 * half - 1);
    return up - (ties == KURE_TIES_EVEN && rest == half && (up & 1)); /* half up; even: not up from an even one */
}

/* ------------------------------------------------------------------------- */
/* float32 in integers: value = significand * 2^exponent. What a function returns
 * has at most 24 bits, rounded half to even as IEEE 754 does. The exponent has no
 * limits; those of a model file (kure_runtime.h) keep every intermediate result
 * where float32 is normal, but for the last product or quotient before the
 * conversion to an integer: beyond the limits there, the code is the same.      */

struct kure_soft {
    int64_t significand;
    int32_t exponent;
};

/* significand * 2^exponent to 24 bits, any int64 */
KURE_INTMATH struct kure_soft kure_soft_nearest(int64_t significand, int32_t exponent)
{
    struct kure_soft x = {significand, exponent};
    uint64_t a = kure_magnitude(significand);
    if (a >> 24) {
        int excess = kure_highest_bit(a) - 23;
        uint64_t odd = a >> excess & 1, half = (uint64_t)1 << (excess - 1);
        a = (a + (half - 1) + odd) >> excess;
        x.significand = significand < 0 ? -(int64_t)a : (int64_t)a;
        x.exponent = exponent + excess;
    }
    return x;
}

/* (float)x */
KURE_INTMATH struct kure_soft kure_soft_integer(int32_t x)
{
    return kure_soft_nearest(x, 0);
}

/* The finite float32 that has these bits; exact, also of a subnormal. */
KURE_INTMATH struct kure_soft kure_soft_float(uint32_t bits)
{
    int32_t field = (int32_t)(bits >> 23 & 0xff), significand = (int32_t)(bits & 0x7fffff);
    struct kure_soft x = {significand, -149};
    if (field) {
        x.significand |= 0x800000;
        x.exponent = field - 150;
    }
    if (bits >> 31) x.significand = -x.significand;
    return x;
}

/* The bits of x, whose magnitude is 0 or in 2^-126 .. 2^127. */
KURE_INTMATH uint32_t kure_soft_bits(struct kure_soft x)
{
    uint32_t sign = x.significand < 0 ? 0x80000000u : 0;
    uint64_t a = kure_magnitude(x.significand);
    if (a == 0) return 0;
    int bit = kure_highest_bit(a); /* 24 where rounding has carried */
    a = bit <= 23 ? a << (23 - bit) : a >> (bit - 23);
    return sign | (uint32_t)(x.exponent + bit + 127) << 23 | (uint32_t)(a & 0x7fffff);
}

KURE_INTMATH struct kure_soft kure_soft_multiply(struct kure_soft a, struct kure_soft b)
{
    return kure_soft_nearest(a.significand * b.significand, a.exponent + b.exponent);
}

/* a + b, of exact numbers with up to 33 bits: a product with a code may be one, which
 * makes this a fused multiply and add. */
KURE_INTMATH struct kure_soft kure_soft_add(struct kure_soft a, struct kure_soft b)
{
    if (a.significand == 0) return kure_soft_nearest(b.significand, b.exponent);
    if (b.significand == 0) return kure_soft_nearest(a.significand, a.exponent);
    int up_a = 32 - kure_highest_bit(kure_magnitude(a.significand)), up_b = 32 - kure_highest_bit(kure_magnitude(b.significand));
    a.significand *= (int64_t)1 << up_a; /* both in 2^32 .. 2^33 */
    b.significand *= (int64_t)1 << up_b;
    a.exponent -= up_a;
    b.exponent -= up_b;
    if (a.exponent < b.exponent) {
        struct kure_soft swap = a;
        a = b;
        b = swap;
    }
    int32_t apart = a.exponent - b.exponent, kept = apart < 28 ? apart : 28, cut = apart - kept < 63 ? apart - kept : 63;
    int64_t rest = b.significand & (int64_t)(((uint64_t)1 << cut) - 1);
    int64_t low = (b.significand >> cut) | (rest != 0); /* what is cut lies 37 bits below the last one of the result */
    return kure_soft_nearest(a.significand * ((int64_t)1 << kept) + low, a.exponent - kept);
}

/* a / b, b > 0 */
KURE_INTMATH struct kure_soft kure_soft_divide(struct kure_soft a, struct kure_soft b)
{
    uint64_t n = kure_magnitude(a.significand), d = (uint64_t)b.significand;
    if (n == 0) return kure_soft_nearest(0, 0);
    int up = 61 - kure_highest_bit(n);
    n <<= up;
    uint64_t q = n / d; /* at least 2^36, so that one bit for the remainder is enough */
    int64_t quotient = (int64_t)(q << 1 | (n % d != 0));
    return kure_soft_nearest(a.significand < 0 ? -quotient : quotient, a.exponent - up - b.exponent - 1);
}

/* to the nearest integer, cut at +-2^30 */
KURE_INTMATH int32_t kure_soft_round(struct kure_soft x, enum kure_ties ties)
{
    if (x.significand == 0 || x.exponent < -62) return 0; /* of at most 25 bits: below 1/2 */
    if (x.exponent < 0) return kure_saturate(kure_shift_right(x.significand, -x.exponent, ties));
    return kure_saturate(x.significand * ((int64_t)1 << (x.exponent < 32 ? x.exponent : 32)));
}

/* v > 0 ? v : v * slope */
KURE_INTMATH struct kure_soft kure_soft_leaky(struct kure_soft v, struct kure_soft slope)
{
    return v.significand > 0 ? v : kure_soft_multiply(v, slope);
}

/* ------------------------------------------------------------------------- */
/* Fixed point multipliers of gemmlowp: m * 2^(shift-31)                      */

/* SaturatingRoundingDoublingHighMul: a*b / 2^31, ties up */
KURE_INTMATH int32_t kure_doubling_high_multiply(int32_t a, int32_t b)
{
    if (a == INT32_MIN && b == INT32_MIN) return INT32_MAX;
    return (int32_t)(((int64_t)a * b + (1 << 30)) >> 31);
}

/* RoundingDivideByPOT: x / 2^shift, ties away from zero; 0 <= shift <= 31 */
KURE_INTMATH int32_t kure_divide_by_power(int32_t x, int shift)
{
    return shift ? (int32_t)kure_shift_right(x, shift, KURE_TIES_AWAY) : x;
}

/* MultiplyByQuantizedMultiplier; multiplier >= 0, -31 <= shift <= 30. x << shift is cut at int32. */
KURE_INTMATH int32_t kure_multiply_double_rounding(int32_t x, int32_t multiplier, int shift)
{
    int left = shift > 0 ? shift : 0, right = shift > 0 ? 0 : -shift;
    int32_t shifted = kure_limit((int64_t)x * ((int64_t)1 << left), INT32_MIN, INT32_MAX);
    return kure_divide_by_power(kure_doubling_high_multiply(shifted, multiplier), right);
}

/* The same of a build with TFLITE_SINGLE_ROUNDING, cut at int32 */
KURE_INTMATH int32_t kure_multiply_single_rounding(int32_t x, int32_t multiplier, int shift)
{
    int right = 31 - shift;
    int64_t product = (int64_t)x * multiplier + ((int64_t)1 << (right - 1));
    return kure_limit(product >> right, INT32_MIN, INT32_MAX);
}

/* ------------------------------------------------------------------------- */
/* Requantization: an accumulator to a code                                   */

/* float32(accumulator) * scale, ties to even */
KURE_INTMATH int32_t kure_requantize_float32(int32_t accumulator, struct kure_soft scale)
{
    return kure_soft_round(kure_soft_multiply(kure_soft_integer(accumulator), scale), KURE_TIES_EVEN);
}

/* What float32 activations become between an accumulator and its code. */
struct kure_float_step {
    struct kure_soft scale; /* v = float32(accumulator) * scale + bias */
    struct kure_soft bias;
    struct kure_soft slope; /* v > 0 ? v : v * slope; 1: linear */
    struct kure_soft last;  /* v * last, or v / last */
};

KURE_INTMATH struct kure_soft kure_float_value(int32_t accumulator, const struct kure_float_step *f)
{
    return kure_soft_leaky(kure_soft_add(kure_soft_multiply(kure_soft_integer(accumulator), f->scale), f->bias), f->slope);
}

/* v * last, ties away from zero */
KURE_INTMATH int32_t kure_requantize_multiplied(int32_t accumulator, const struct kure_float_step *f)
{
    return kure_soft_round(kure_soft_multiply(kure_float_value(accumulator, f), f->last), KURE_TIES_AWAY);
}

/* v / last, ties to even */
KURE_INTMATH int32_t kure_requantize_divided(int32_t accumulator, const struct kure_float_step *f)
{
    return kure_soft_round(kure_soft_divide(kure_float_value(accumulator, f), f->last), KURE_TIES_EVEN);
}

KURE_INTMATH int32_t kure_requantize_double_rounding(int32_t accumulator, int32_t multiplier, int shift)
{
    return kure_saturate(kure_multiply_double_rounding(accumulator, multiplier, shift));
}

KURE_INTMATH int32_t kure_requantize_single_rounding(int32_t accumulator, int32_t multiplier, int shift)
{
    return kure_saturate(kure_multiply_single_rounding(accumulator, multiplier, shift));
}

/* accumulator * 2^-shift, -30 <= shift <= 62 */
KURE_INTMATH int32_t kure_requantize_shift(int32_t accumulator, int shift, enum kure_ties ties)
{
    if (shift <= 0) return kure_saturate((int64_t)accumulator * ((int64_t)1 << -shift));
    return kure_saturate(kure_shift_right(accumulator, shift, ties));
}

/* ------------------------------------------------------------------------- */
/* Addition of two codes; a and b less their zero points, but for FLOAT32      */

/* fma(a, ratio_a, fma(b, ratio_b, fixed)) with a, b the codes themselves: MLAS on x86 with
 * AVX2. fixed = zero_point_c - (ratio_a * zero_point_a + ratio_b * zero_point_b), ratio =
 * scale/scale_c, in float32. The zero point of the output is inside: it is taken off again. */
KURE_INTMATH int32_t kure_add_float32(int32_t a, int32_t b, struct kure_soft ratio_a, struct kure_soft ratio_b, struct kure_soft fixed,
                                      int32_t zero_point)
{
    struct kure_soft product_b = {ratio_b.significand * b, ratio_b.exponent}, product_a = {ratio_a.significand * a, ratio_a.exponent};
    return kure_soft_round(kure_soft_add(product_a, kure_soft_add(product_b, fixed)), KURE_TIES_EVEN) - zero_point;
}

/* a * step_a + b * step_b, three roundings */
KURE_INTMATH struct kure_soft kure_float_sum(int32_t a, int32_t b, struct kure_soft step_a, struct kure_soft step_b)
{
    return kure_soft_add(kure_soft_multiply(kure_soft_integer(a), step_a), kure_soft_multiply(kure_soft_integer(b), step_b));
}

/* f->scale and f->bias are those of a and b */
KURE_INTMATH int32_t kure_add_multiplied(int32_t a, int32_t b, const struct kure_float_step *f)
{
    struct kure_soft v = kure_soft_leaky(kure_float_sum(a, b, f->scale, f->bias), f->slope);
    return kure_soft_round(kure_soft_multiply(v, f->last), KURE_TIES_AWAY);
}

KURE_INTMATH int32_t kure_add_divided(int32_t a, int32_t b, const struct kure_float_step *f)
{
    struct kure_soft v = kure_soft_leaky(kure_float_sum(a, b, f->scale, f->bias), f->slope);
    return kure_soft_round(kure_soft_divide(v, f->last), KURE_TIES_EVEN);
}

/* AddElementwise: both inputs << left, times their multipliers, then the sum times the last
 * one. Shifts <= 0, |a|, |b| <= 255, left <= 20, so that all fits into int32. */
struct kure_fixed_add {
    int32_t multiplier_a, multiplier_b, multiplier;
    int32_t shift_a, shift_b, shift, left;
};

KURE_INTMATH int32_t kure_add_double_rounding(int32_t a, int32_t b, const struct kure_fixed_add *f)
{
    int32_t sum = kure_multiply_double_rounding(a * (1 << f->left), f->multiplier_a, f->shift_a) +
                  kure_multiply_double_rounding(b * (1 << f->left), f->multiplier_b, f->shift_b);
    return kure_requantize_double_rounding(sum, f->multiplier, f->shift);
}

KURE_INTMATH int32_t kure_add_single_rounding(int32_t a, int32_t b, const struct kure_fixed_add *f)
{
    int32_t sum = kure_multiply_single_rounding(a * (1 << f->left), f->multiplier_a, f->shift_a) +
                  kure_multiply_single_rounding(b * (1 << f->left), f->multiplier_b, f->shift_b);
    return kure_requantize_single_rounding(sum, f->multiplier, f->shift);
}

/* (a * 2^left_a + b * 2^left_b) * 2^-shift; lefts 0 .. 22 */
KURE_INTMATH int32_t kure_add_shift(int32_t a, int32_t b, int left_a, int left_b, int shift, enum kure_ties ties)
{
    return kure_requantize_shift(a * (1 << left_a) + b * (1 << left_b), shift, ties);
}

/* ------------------------------------------------------------------------- */
/* Mean of n codes, given their sum                                           */

/* TensorFlow Lite and CMSIS-NN: of the codes themselves, ties away from zero */
KURE_INTMATH int32_t kure_mean_codes(int32_t sum, int32_t n)
{
    return sum > 0 ? (sum + n / 2) / n : (sum - n / 2) / n;
}

/* sum / n * 2^-shift; 1 <= n <= 2^23, -24 <= shift <= 24 */
KURE_INTMATH int32_t kure_mean_shift(int32_t sum, int32_t n, int shift, enum kure_ties ties)
{
    int64_t above = 2 * (int64_t)sum * ((int64_t)1 << (shift < 0 ? -shift : 0)), below = (int64_t)n * ((int64_t)1 << (shift > 0 ? shift : 0));
    if (ties == KURE_TIES_AWAY && sum < 0) return kure_saturate(-((below - above) / (2 * below)));
    int64_t up = above + below, floor = up / (2 * below);
    return kure_saturate(floor - (up % (2 * below) < 0));
}

#endif
