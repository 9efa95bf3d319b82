/*
 * arithmetic.c: see arithmetic.h.
 *
 *   FLOAT32            onnxruntime core/providers/cpu/quantization/qlinearconv.cc (scales, float32, from left
 *                      to right), core/mlas/lib/{qladd,qlgavgpool}.cpp; a LOOKUP is DequantizeLinear, the function,
 *                      QuantizeLinear, as contrib_ops/cpu/quantization/qlinear_lookup_table.h
 *   _DIVIDED           ONNX QuantizeLinear-21 and DequantizeLinear-21, TensorRT
 *   _MULTIPLIED        ncnn src/layer/convolution.cpp: int8 scales are 1 / scale, in float32
 *   DOUBLE_, SINGLE_   TensorFlow Lite kernels/kernel_util.cc, kernels/add.cc, kernels/activations.cc,
 *                      kernels/quantize.cc, kernels/internal/quantization_util.cc
 *   SHIFT              exponents; a LOOKUP as with FLOAT32, in the rounding of the shifts
 *
 * Tested by tests/test_export.py against Python's own arithmetic.
 */
#include "arithmetic.h"

#include <math.h>

#include "kure_intmath.h"
#include "kure_math.h"
#include "multiplier.h"

int kure_clamp_code(double x, int low, int high)
{
    return x < low ? low : x > high ? high : (int)x;
}

/* ---- float32 -------------------------------------------------------------------- */

static void row_float32(const struct kure_row_scales *s, uint32_t words[2])
{
    words[0] = kure_bits(kure_flush(s->in * s->weight / s->out));
    words[1] = 0;
}

static void row_divided(const struct kure_row_scales *s, uint32_t words[2])
{
    words[0] = kure_bits(kure_flush(s->in * s->weight));
    words[1] = kure_bits(kure_flush(s->bias));
}

static void row_multiplied(const struct kure_row_scales *s, uint32_t words[2])
{
    float in = 1.f / s->in, weight = 1.f / s->weight;
    words[0] = kure_bits(kure_flush(1.f / (in * weight)));
    words[1] = kure_bits(kure_flush(s->bias));
}

static void last_divided(float slope, float out, uint32_t parameter[10])
{
    parameter[2] = kure_bits(slope);
    parameter[3] = kure_bits(out);
}

static void last_multiplied(float slope, float out, uint32_t parameter[10])
{
    last_divided(slope, 1.f / out, parameter);
}

static void add_float32(const struct kure_sum_scales *s, uint32_t parameter[10])
{
    float a = s->a / s->out, b = s->b / s->out;
    float product_a = a * (float)s->zero_a, product_b = b * (float)s->zero_b, products = product_a + product_b;
    parameter[0] = kure_bits(a);
    parameter[1] = kure_bits(b);
    parameter[2] = kure_bits(kure_flush((float)s->zero_out - products));
}

static void add_divided(const struct kure_sum_scales *s, uint32_t parameter[10])
{
    parameter[0] = kure_bits(s->a);
    parameter[1] = kure_bits(s->b);
    last_divided(s->slope, s->out, parameter);
}

static void add_multiplied(const struct kure_sum_scales *s, uint32_t parameter[10])
{
    parameter[0] = kure_bits(s->a);
    parameter[1] = kure_bits(s->b);
    last_multiplied(s->slope, s->out, parameter);
}

static void average_float32(const struct kure_row_scales *s, int n, uint32_t parameter[10])
{
    parameter[0] = kure_bits(s->in / (s->out * (float)n));
}

static void average_divided(const struct kure_row_scales *s, int n, uint32_t parameter[10])
{
    parameter[0] = kure_bits(s->in / (float)n);
    last_divided(1, s->out, parameter);
}

static void average_multiplied(const struct kure_row_scales *s, int n, uint32_t parameter[10])
{
    parameter[0] = kure_bits(s->in / (float)n);
    last_multiplied(1, s->out, parameter);
}

static float leaky_value(const struct kure_code_scales *s, int code)
{
    float v = (float)(code - s->in->zero_point) * s->in->scale;
    return v > 0 ? v : v * s->slope;
}

static int code_divided(const struct kure_code_scales *s, int code)
{
    return kure_clamp_code((double)rintf(leaky_value(s, code) / s->out->scale) + s->out->zero_point, -128, 127);
}

static int code_multiplied(const struct kure_code_scales *s, int code)
{
    float last = 1.f / s->out->scale;
    return kure_clamp_code((double)roundf(leaky_value(s, code) * last) + s->out->zero_point, -128, 127);
}

/* ---- fixed point ------------------------------------------------------------------- */

static double row_ratio(const struct kure_row_scales *s)
{
    double product = s->one_product ? (double)(s->in * s->weight) : (double)s->in * (double)s->weight;
    return product / (double)s->out;
}

static void row_double(const struct kure_row_scales *s, uint32_t words[2])
{
    kure_quantize_multiplier(row_ratio(s), 0, words);
}

static void row_single(const struct kure_row_scales *s, uint32_t words[2])
{
    kure_quantize_multiplier(row_ratio(s), 1, words);
}

static void add_fixed(const struct kure_sum_scales *s, int single, uint32_t parameter[10])
{
    enum { LEFT = 20 }; /* of 8-bit inputs */
    double most = 2 * (double)(s->a > s->b ? s->a : s->b);
    kure_quantize_multiplier((double)s->a / most, single, parameter);
    kure_quantize_multiplier((double)s->b / most, single, parameter + 2);
    kure_quantize_multiplier(most / ((double)(1 << LEFT) * (double)s->out), single, parameter + 4);
    parameter[6] = LEFT;
}

static void add_double(const struct kure_sum_scales *s, uint32_t parameter[10])
{
    add_fixed(s, 0, parameter);
}

static void add_single(const struct kure_sum_scales *s, uint32_t parameter[10])
{
    add_fixed(s, 1, parameter);
}

static void average_codes(const struct kure_row_scales *s, int n, uint32_t parameter[10])
{
    (void)s;
    (void)n;
    (void)parameter; /* none */
}

/* QUANTIZE takes the ratio of scales in double. */
static int code_fixed(const struct kure_code_scales *s, int code, int single)
{
    uint32_t words[2];
    int x = code - s->in->zero_point, y;
    if (s->is_leaky) {
        y = kure_leaky_code(x, s->in->scale, s->out->scale, s->slope, single);
    } else {
        kure_quantize_multiplier((double)s->in->scale / (double)s->out->scale, single, words);
        y = single ? kure_requantize_single_rounding(x, (int32_t)words[0], (int32_t)words[1])
                   : kure_requantize_double_rounding(x, (int32_t)words[0], (int32_t)words[1]);
    }
    return kure_clamp_code((double)y + s->out->zero_point, -128, 127);
}

static int code_double(const struct kure_code_scales *s, int code)
{
    return code_fixed(s, code, 0);
}

static int code_single(const struct kure_code_scales *s, int code)
{
    return code_fixed(s, code, 1);
}

/* ---- shifts ---------------------------------------------------------------------------- */

static int exponent_of(float power)
{
    return ilogbf(power);
}

static void row_shift(const struct kure_row_scales *s, uint32_t words[2])
{
    words[0] = 0;
    words[1] = (uint32_t)(exponent_of(s->out) - exponent_of(s->in) - exponent_of(s->weight));
}

static void add_shift(const struct kure_sum_scales *s, uint32_t parameter[10])
{
    int a = exponent_of(s->a), b = exponent_of(s->b), least = a < b ? a : b;
    parameter[0] = (uint32_t)(a - least);
    parameter[1] = (uint32_t)(b - least);
    parameter[2] = (uint32_t)(exponent_of(s->out) - least);
}

static void average_shift(const struct kure_row_scales *s, int n, uint32_t parameter[10])
{
    (void)n;
    parameter[1] = (uint32_t)(exponent_of(s->out) - exponent_of(s->in));
}

static int code_half_up(const struct kure_code_scales *s, int code)
{
    return kure_clamp_code(floor((double)(leaky_value(s, code) / s->out->scale) + 0.5) + s->out->zero_point, -128, 127);
}

static int code_half_away(const struct kure_code_scales *s, int code)
{
    return kure_clamp_code(round((double)(leaky_value(s, code) / s->out->scale)) + s->out->zero_point, -128, 127);
}

static const struct kure_arithmetic_rules rules[KURE_ARITHMETICS] = {
    [KURE_ARITHMETIC_FLOAT32] = {.signed_sum = 1, .row = row_float32, .add = add_float32, .average = average_float32, .code = code_divided},
    [KURE_ARITHMETIC_FLOAT32_MULTIPLIED] = {.float_bias = 1, .signed_sum = 1, .row = row_multiplied, .add = add_multiplied,
                                            .average = average_multiplied, .code = code_multiplied, .last = last_multiplied},
    [KURE_ARITHMETIC_FLOAT32_DIVIDED] = {.float_bias = 1, .signed_sum = 1, .row = row_divided, .add = add_divided, .average = average_divided,
                                         .code = code_divided, .last = last_divided},
    [KURE_ARITHMETIC_DOUBLE_ROUNDING] = {.keeps_scale = 1, .row = row_double, .add = add_double, .average = average_codes, .code = code_double},
    [KURE_ARITHMETIC_SINGLE_ROUNDING] = {.keeps_scale = 1, .row = row_single, .add = add_single, .average = average_codes, .code = code_single},
    [KURE_ARITHMETIC_SHIFT_HALF_UP] = {.powers_of_two = 1, .ties_up = 1, .row = row_shift, .add = add_shift, .average = average_shift, .code = code_half_up},
    [KURE_ARITHMETIC_SHIFT_HALF_AWAY] = {.powers_of_two = 1, .row = row_shift, .add = add_shift, .average = average_shift, .code = code_half_away},
};

const struct kure_arithmetic_rules *kure_arithmetic_rules(enum kure_arithmetic arithmetic)
{
    return &rules[arithmetic];
}
