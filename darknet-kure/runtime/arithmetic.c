/*
 * arithmetic.c: the table of arithmetics, and its loops over kure_intmath.h.
 *
 * Tested by tests/test_intmath.py, tests/test_runtime_layers.py.
 */
#include "arithmetic.h"

enum { EXPONENT_BIAS = 127 };

/* Whole numbers: least..most. Floats: exponents, what sign, whether 0. */
static const struct word_limits {
    int64_t least, most;
    unsigned char is_float, zero, negative;
} limits[KURE_WORD_TYPES] = {
    [KURE_WORD_ZERO] = {0, 0, 0, 0, 0},
    [KURE_WORD_FACTOR] = {KURE_MODEL_LEAST_EXPONENT, KURE_MODEL_MOST_EXPONENT, 1, 0, 0},
    [KURE_WORD_SCALE] = {KURE_MODEL_LEAST_EXPONENT, KURE_MODEL_MOST_EXPONENT, 1, 1, 0},
    [KURE_WORD_STEP] = {KURE_MODEL_LEAST_EXPONENT, KURE_MODEL_MOST_EXPONENT, 1, 0, 1},
    [KURE_WORD_NUMBER] = {KURE_MODEL_LEAST_EXPONENT, KURE_MODEL_MOST_EXPONENT, 1, 1, 1},
    [KURE_WORD_RATIO] = {KURE_MODEL_LEAST_EXPONENT, 20, 1, 0, 1},
    [KURE_WORD_FIXED] = {KURE_MODEL_LEAST_EXPONENT, 30, 1, 1, 1},
    [KURE_WORD_SLOPE] = {KURE_MODEL_LEAST_SLOPE_EXPONENT, KURE_MODEL_MOST_SLOPE_EXPONENT, 1, 1, 0},
    [KURE_WORD_MULTIPLIER] = {0, INT32_MAX, 0, 0, 0},
    [KURE_WORD_SHIFT] = {-31, 30, 0, 0, 0},
    [KURE_WORD_RIGHT] = {-31, 0, 0, 0, 0},
    [KURE_WORD_LEFT] = {0, 20, 0, 0, 0},
    [KURE_WORD_ALIGN] = {0, 22, 0, 0, 0},
    [KURE_WORD_POWER] = {-30, 62, 0, 0, 0},
    [KURE_WORD_MEAN_POWER] = {-24, 24, 0, 0, 0},
};

int kure_word_fits(enum kure_word_type type, uint32_t word, int64_t *least, int64_t *most)
{
    const struct word_limits *l = &limits[type];
    *least = l->is_float ? 1 : l->least;
    *most = l->is_float ? 0 : l->most;
    if (!l->is_float) return kure_signed(word) >= l->least && kure_signed(word) <= l->most;
    if (word == 0) return l->zero;
    int32_t exponent = (int32_t)(word >> 23 & 0xff) - EXPONENT_BIAS;
    int power = (word & 0x7fffff) == 0; /* 2^most is the largest */
    return (l->negative || !(word >> 31)) && exponent >= l->least && exponent < l->most + power;
}

/* ---- words -------------------------------------------------------------- */

static void load_scale(struct kure_rescale *r, const uint32_t *words)
{
    r->step.scale = kure_soft_float(words[0]);
    r->step.bias = kure_soft_float(words[1]);
}

static void load_fixed(struct kure_rescale *r, const uint32_t *words)
{
    r->fixed.multiplier = kure_signed(words[0]);
    r->fixed.shift = kure_signed(words[1]);
}

static void load_nothing(struct kure_rescale *r, const uint32_t *words)
{
    (void)r;
    (void)words;
}

static void load_last(struct kure_rescale *r, const uint32_t *words)
{
    r->step.slope = kure_soft_float(words[2]);
    r->step.last = kure_soft_float(words[3]);
}

static void load_add_ratios(struct kure_rescale *r, const uint32_t *words)
{
    load_scale(r, words);
    r->step.last = kure_soft_float(words[2]);
}

static void load_add_steps(struct kure_rescale *r, const uint32_t *words)
{
    load_scale(r, words);
    load_last(r, words);
}

static void load_add_fixed(struct kure_rescale *r, const uint32_t *words)
{
    r->fixed.multiplier_a = kure_signed(words[0]);
    r->fixed.shift_a = kure_signed(words[1]);
    r->fixed.multiplier_b = kure_signed(words[2]);
    r->fixed.shift_b = kure_signed(words[3]);
    r->fixed.multiplier = kure_signed(words[4]);
    r->fixed.shift = kure_signed(words[5]);
    r->fixed.left = kure_signed(words[6]);
}

static void load_add_shift(struct kure_rescale *r, const uint32_t *words)
{
    r->left_a = kure_signed(words[0]);
    r->left_b = kure_signed(words[1]);
    r->fixed.shift = kure_signed(words[2]);
}

/* ---- loops --------------------------------------------------------------- */

static inline int8_t code_of(const struct kure_rescale *r, int32_t y)
{
    y += r->zero_point;
    return (int8_t)(y < r->low ? r->low : y > r->high ? r->high : y);
}

/* name_requantize, name_add and name_mean from an expression each: x, a, b less zero points,
 * but for FLOAT32, which wants the codes a + zero_a and b + zero_b */
#define LOOPS(name, one, sum, mean)                                                                                          \
    static void name##_requantize(const struct kure_rescale *r, const int32_t *xs, int8_t *y, size_t count)                   \
    {                                                                                                                        \
        for (size_t i = 0; i < count; i++) {                                                                                 \
            int32_t x = xs[i];                                                                                               \
            y[i] = code_of(r, one);                                                                                          \
        }                                                                                                                    \
    }                                                                                                                        \
    static void name##_add(const struct kure_rescale *r, const int8_t *as, size_t stride_a, const int8_t *bs, size_t stride_b, \
                           int8_t *y, size_t count)                                                                          \
    {                                                                                                                        \
        for (size_t i = 0; i < count; i++) {                                                                                 \
            int32_t a = as[i * stride_a] - r->zero_a, b = bs[i * stride_b] - r->zero_b;                                      \
            y[i * stride_a] = code_of(r, sum);                                                                               \
        }                                                                                                                    \
    }                                                                                                                        \
    static int32_t name##_mean(const struct kure_rescale *r, int32_t x, int32_t codes, int32_t n)                             \
    {                                                                                                                        \
        (void)x;                                                                                                             \
        (void)codes;                                                                                                         \
        (void)n;                                                                                                             \
        return code_of(r, mean);                                                                                             \
    }

LOOPS(float32, kure_requantize_float32(x, r->step.scale),
      kure_add_float32(a + r->zero_a, b + r->zero_b, r->step.scale, r->step.bias, r->step.last, r->zero_point),
      kure_requantize_float32(x, r->step.scale))
LOOPS(multiplied, kure_requantize_multiplied(x, &r->step), kure_add_multiplied(a, b, &r->step), kure_requantize_multiplied(x, &r->step))
LOOPS(divided, kure_requantize_divided(x, &r->step), kure_add_divided(a, b, &r->step), kure_requantize_divided(x, &r->step))
LOOPS(double_rounding, kure_requantize_double_rounding(x, r->fixed.multiplier, r->fixed.shift),
      kure_add_double_rounding(a, b, &r->fixed), kure_mean_codes(codes, n) - r->zero_point)
LOOPS(single_rounding, kure_requantize_single_rounding(x, r->fixed.multiplier, r->fixed.shift),
      kure_add_single_rounding(a, b, &r->fixed), kure_mean_codes(codes, n) - r->zero_point)
LOOPS(half_up, kure_requantize_shift(x, r->fixed.shift, KURE_TIES_UP),
      kure_add_shift(a, b, r->left_a, r->left_b, r->fixed.shift, KURE_TIES_UP), kure_mean_shift(x, n, r->fixed.shift, KURE_TIES_UP))
LOOPS(half_away, kure_requantize_shift(x, r->fixed.shift, KURE_TIES_AWAY),
      kure_add_shift(a, b, r->left_a, r->left_b, r->fixed.shift, KURE_TIES_AWAY), kure_mean_shift(x, n, r->fixed.shift, KURE_TIES_AWAY))

/* ---- the table ------------------------------------------------------------ */

#define ZERO KURE_WORD_ZERO
#define FLOATS {ZERO, ZERO, KURE_WORD_SLOPE, KURE_WORD_FACTOR}
#define FLOAT_SCALE {KURE_WORD_SCALE, KURE_WORD_NUMBER}
#define FLOAT_MEAN {KURE_WORD_SCALE, ZERO, KURE_WORD_SLOPE, KURE_WORD_FACTOR}
#define FLOAT_ADD {KURE_WORD_STEP, KURE_WORD_STEP, KURE_WORD_SLOPE, KURE_WORD_FACTOR, ZERO, ZERO, ZERO}
#define FIXED_SCALE {KURE_WORD_MULTIPLIER, KURE_WORD_SHIFT}
#define FACTOR_RIGHT KURE_WORD_MULTIPLIER, KURE_WORD_RIGHT
#define FIXED_ADD {FACTOR_RIGHT, FACTOR_RIGHT, FACTOR_RIGHT, KURE_WORD_LEFT}
#define SHIFT_SCALE {ZERO, KURE_WORD_POWER}
#define SHIFT_MEAN {ZERO, KURE_WORD_MEAN_POWER, ZERO, ZERO}
#define SHIFT_ADD {KURE_WORD_ALIGN, KURE_WORD_ALIGN, KURE_WORD_POWER, ZERO, ZERO, ZERO, ZERO}
#define NONE {ZERO, ZERO, ZERO, ZERO}

const struct kure_arithmetic_row kure_arithmetic_rows[KURE_ARITHMETICS] = {
    [KURE_ARITHMETIC_NONE] = {.name = "none"},
    [KURE_ARITHMETIC_FLOAT32] = {"float32", {KURE_WORD_SCALE, ZERO}, NONE, {KURE_WORD_SCALE, ZERO, ZERO, ZERO},
                                 {KURE_WORD_RATIO, KURE_WORD_RATIO, KURE_WORD_FIXED, ZERO, ZERO, ZERO, ZERO}, 1, 0, load_scale, load_nothing,
                                 load_add_ratios, float32_requantize, float32_mean, float32_add},
    [KURE_ARITHMETIC_FLOAT32_MULTIPLIED] = {"float32_multiplied", FLOAT_SCALE, FLOATS, FLOAT_MEAN, FLOAT_ADD, 0, 0, load_scale, load_last,
                                            load_add_steps, multiplied_requantize, multiplied_mean, multiplied_add},
    [KURE_ARITHMETIC_FLOAT32_DIVIDED] = {"float32_divided", FLOAT_SCALE, FLOATS, FLOAT_MEAN, FLOAT_ADD, 0, 0, load_scale, load_last,
                                         load_add_steps, divided_requantize, divided_mean, divided_add},
    [KURE_ARITHMETIC_DOUBLE_ROUNDING] = {"double_rounding", FIXED_SCALE, NONE, NONE, FIXED_ADD, 1, 1, load_fixed, load_nothing, load_add_fixed,
                                         double_rounding_requantize, double_rounding_mean, double_rounding_add},
    [KURE_ARITHMETIC_SINGLE_ROUNDING] = {"single_rounding", FIXED_SCALE, NONE, NONE, FIXED_ADD, 1, 1, load_fixed, load_nothing, load_add_fixed,
                                         single_rounding_requantize, single_rounding_mean, single_rounding_add},
    [KURE_ARITHMETIC_SHIFT_HALF_UP] = {"shift_half_up", SHIFT_SCALE, NONE, SHIFT_MEAN, SHIFT_ADD, 1, 0, load_fixed, load_nothing,
                                       load_add_shift, half_up_requantize, half_up_mean, half_up_add},
    [KURE_ARITHMETIC_SHIFT_HALF_AWAY] = {"shift_half_away", SHIFT_SCALE, NONE, SHIFT_MEAN, SHIFT_ADD, 1, 0, load_fixed, load_nothing,
                                         load_add_shift, half_away_requantize, half_away_mean, half_away_add},
};

const char *kure_arithmetic_name(enum kure_arithmetic arithmetic)
{
    return (unsigned)arithmetic < KURE_ARITHMETICS ? kure_arithmetic_rows[arithmetic].name : "?";
}
