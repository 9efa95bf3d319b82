/*
 * values.c: from float32 to codes and back, on the bits of the floats.
 *
 * Tested by tests/test_runtime_layers.py.
 */
#include "kinds.h"

#include <string.h>

/* by enum kure_input_rounding */
static const struct input_rounding {
    unsigned char multiplies;
    enum kure_ties ties;
} input_roundings[KURE_INPUT_ROUNDINGS] = {
    [KURE_INPUT_DIVIDED_HALF_EVEN] = {0, KURE_TIES_EVEN},
    [KURE_INPUT_DIVIDED_HALF_AWAY] = {0, KURE_TIES_AWAY},
    [KURE_INPUT_DIVIDED_HALF_UP] = {0, KURE_TIES_UP},
    [KURE_INPUT_MULTIPLIED_HALF_AWAY] = {1, KURE_TIES_AWAY},
};

/* The code of the float that has these bits, less the zero point */
static int32_t code_of(uint32_t bits, struct kure_soft factor, struct input_rounding rounding)
{
    if ((bits >> 23 & 0xff) == 255) return bits & 0x7fffff ? 0 : bits >> 31 ? INT16_MIN : INT16_MAX;
    struct kure_soft x = kure_soft_float(bits);
    return kure_soft_round(rounding.multiplies ? kure_soft_multiply(x, factor) : kure_soft_divide(x, factor), rounding.ties);
}

void kure_runtime_quantize(const struct kure_model *model, const float *x, int8_t *codes)
{
    struct kure_model_tensor t = kure_runtime_tensor(model, 0);
    struct kure_soft factor = kure_soft_float(kure_header_word(model, KURE_HEADER_INPUT_FACTOR));
    struct input_rounding rounding = input_roundings[kure_header_word(model, KURE_HEADER_INPUT_ROUNDING)];
    for (uint32_t i = 0; i < t.elements; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        codes[i] = (int8_t)kure_limit((int64_t)code_of(bits, factor, rounding) + t.zero_point, t.low, t.high);
    }
}

enum kure_runtime_status kure_runtime_pixels(const struct kure_model *model, const uint8_t *x, int8_t *codes)
{
    uint32_t table = kure_header_word(model, KURE_HEADER_PIXEL_TABLE), n = kure_runtime_tensor(model, 0).elements;
    if (!table) return KURE_RUNTIME_NO_PIXELS;
    for (uint32_t i = 0; i < n; i++) codes[i] = kure_array_codes(model, table)[x[i]];
    return KURE_RUNTIME_OK;
}

void kure_runtime_dequantize(const struct kure_model *model, uint32_t tensor, const int8_t *codes, float *y)
{
    struct kure_model_tensor t = kure_runtime_tensor(model, tensor);
    struct kure_soft scale = kure_soft_float(t.scale_bits);
    for (uint32_t i = 0; i < t.elements; i++) {
        uint32_t bits = kure_soft_bits(kure_soft_multiply(kure_soft_integer(codes[i] - t.zero_point), scale));
        memcpy(&y[i], &bits, sizeof bits);
    }
}
