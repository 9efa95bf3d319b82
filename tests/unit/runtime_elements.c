/* runtime_elements.c: math/kure_intmath.h over arrays, for tests/test_intmath.py. Words are
 * what a model file holds; a result is the code less the zero point. */
#include "kure_intmath.h"

#include <stddef.h>

static struct kure_float_step float_step(const uint32_t *w)
{
    struct kure_float_step f = {kure_soft_float(w[0]), kure_soft_float(w[1]), kure_soft_float(w[2]), kure_soft_float(w[3])};
    return f;
}

static struct kure_fixed_add fixed_add(const uint32_t *w)
{
    struct kure_fixed_add f = {(int32_t)w[0], (int32_t)w[2], (int32_t)w[4], (int32_t)w[1], (int32_t)w[3], (int32_t)w[5], (int32_t)w[6]};
    return f;
}

/* y[i] = requantized x[i] with the words w[i][4] */
#define REQUANTIZE(name, expression)                                                        \
    void name(const int32_t *xs, const uint32_t *words, int32_t *y, size_t n);              \
    void name(const int32_t *xs, const uint32_t *words, int32_t *y, size_t n)               \
    {                                                                                       \
        for (size_t i = 0; i < n; i++) {                                                    \
            const uint32_t *w = words + 4 * i;                                              \
            struct kure_float_step f = float_step(w);                                       \
            int32_t x = xs[i];                                                              \
            (void)f;                                                                        \
            y[i] = expression;                                                              \
        }                                                                                   \
    }
REQUANTIZE(requantize_float32, kure_requantize_float32(x, f.scale))
REQUANTIZE(requantize_float32_multiplied, kure_requantize_multiplied(x, &f))
REQUANTIZE(requantize_float32_divided, kure_requantize_divided(x, &f))
REQUANTIZE(requantize_double_rounding, kure_requantize_double_rounding(x, (int32_t)w[0], (int32_t)w[1]))
REQUANTIZE(requantize_single_rounding, kure_requantize_single_rounding(x, (int32_t)w[0], (int32_t)w[1]))
REQUANTIZE(requantize_shift_half_up, kure_requantize_shift(x, (int32_t)w[1], KURE_TIES_UP))
REQUANTIZE(requantize_shift_half_away, kure_requantize_shift(x, (int32_t)w[1], KURE_TIES_AWAY))
REQUANTIZE(mean_codes, kure_mean_codes(x, (int32_t)w[0]))
REQUANTIZE(mean_shift_half_up, kure_mean_shift(x, (int32_t)w[0], (int32_t)w[1], KURE_TIES_UP))
REQUANTIZE(mean_shift_half_away, kure_mean_shift(x, (int32_t)w[0], (int32_t)w[1], KURE_TIES_AWAY))

/* y[i] = a[i] + b[i] with the words w[7]; of FLOAT32 w[3] is the zero point */
#define ADD(name, expression)                                                                            \
    void name(const int32_t *as, const int32_t *bs, const uint32_t *w, int32_t *y, size_t n);            \
    void name(const int32_t *as, const int32_t *bs, const uint32_t *w, int32_t *y, size_t n)             \
    {                                                                                                    \
        struct kure_float_step f = float_step(w);                                                        \
        struct kure_fixed_add g = fixed_add(w);                                                          \
        (void)f;                                                                                         \
        (void)g;                                                                                         \
        for (size_t i = 0; i < n; i++) {                                                                 \
            int32_t a = as[i], b = bs[i];                                                                \
            y[i] = expression;                                                                           \
        }                                                                                                \
    }
ADD(add_float32, kure_add_float32(a, b, f.scale, f.bias, f.slope, (int32_t)w[3]))
ADD(add_float32_multiplied, kure_add_multiplied(a, b, &f))
ADD(add_float32_divided, kure_add_divided(a, b, &f))
ADD(add_double_rounding, kure_add_double_rounding(a, b, &g))
ADD(add_single_rounding, kure_add_single_rounding(a, b, &g))
ADD(add_shift_half_up, kure_add_shift(a, b, (int32_t)w[0], (int32_t)w[1], (int32_t)w[2], KURE_TIES_UP))
ADD(add_shift_half_away, kure_add_shift(a, b, (int32_t)w[0], (int32_t)w[1], (int32_t)w[2], KURE_TIES_AWAY))

/* float32 operations on bits: what the emulation gives, for normal results */
#define OPERATION(name, expression)                                                              \
    void name(const uint32_t *as, const uint32_t *bs, uint32_t *y, size_t n);                    \
    void name(const uint32_t *as, const uint32_t *bs, uint32_t *y, size_t n)                     \
    {                                                                                            \
        for (size_t i = 0; i < n; i++) {                                                         \
            struct kure_soft a = kure_soft_float(as[i]), b = kure_soft_float(bs[i]);             \
            (void)a;                                                                             \
            (void)b;                                                                             \
            y[i] = kure_soft_bits(expression);                                                   \
        }                                                                                        \
    }
OPERATION(soft_add, kure_soft_add(a, b))
OPERATION(soft_multiply, kure_soft_multiply(a, b))
OPERATION(soft_divide, kure_soft_divide(a, b))
OPERATION(soft_integer, kure_soft_integer((int32_t)as[i]))
