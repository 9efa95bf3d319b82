/* arithmetic.h: a row for each enum kure_arithmetic: what its words are, and its loops. */
#ifndef KURE_RUNTIME_ARITHMETIC_H
#define KURE_RUNTIME_ARITHMETIC_H

#include "layout.h"

/* What a word of a layer may be: the limits are in arithmetic.c. */
enum kure_word_type {
    KURE_WORD_ZERO,       /* unused */
    KURE_WORD_FACTOR,     /* float32 > 0 */
    KURE_WORD_SCALE,      /* float32 >= 0 */
    KURE_WORD_STEP,       /* float32, not 0 */
    KURE_WORD_NUMBER,     /* float32 */
    KURE_WORD_RATIO,      /* float32, not 0, up to 2^20 */
    KURE_WORD_FIXED,      /* float32, up to 2^30 */
    KURE_WORD_SLOPE,      /* float32 >= 0 */
    KURE_WORD_MULTIPLIER, /* 0 .. 2^31-1 */
    KURE_WORD_SHIFT,      /* -31 .. 30 */
    KURE_WORD_RIGHT,      /* -31 .. 0 */
    KURE_WORD_LEFT,       /* 0 .. 20 */
    KURE_WORD_ALIGN,      /* 0 .. 22 */
    KURE_WORD_POWER,      /* -30 .. 62 */
    KURE_WORD_MEAN_POWER, /* -24 .. 24 */
    KURE_WORD_TYPES
};

/* 1 where the word is one of that type; else 0, with its limits for whole numbers, and
 * least > most for a float. */
int kure_word_fits(enum kure_word_type type, uint32_t word, int64_t *least, int64_t *most);

/* All that turns sums into codes of one row or of one layer. */
struct kure_rescale {
    struct kure_float_step step; /* FLOAT32: scale alone; ADD: scale and bias are those of a and b */
    struct kure_fixed_add fixed; /* multiplier and shift; ADD: all of them */
    int32_t left_a, left_b;      /* ADD by shifts */
    int32_t zero_a, zero_b;      /* ADD */
    int32_t zero_point, low, high;
};

typedef void kure_load_function(struct kure_rescale *r, const uint32_t *words);
typedef void kure_requantize_function(const struct kure_rescale *r, const int32_t *x, int8_t *y, size_t n);
/* y[i*stride_a] = a[i*stride_a] + b[i*stride_b]; y may be a */
typedef void kure_add_function(const struct kure_rescale *r, const int8_t *a, size_t stride_a, const int8_t *b, size_t stride_b, int8_t *y,
                               size_t n);
/* mean of n codes; x: their sum less their zero points, codes: their sum */
typedef int32_t kure_mean_function(const struct kure_rescale *r, int32_t x, int32_t codes, int32_t n);

struct kure_arithmetic_row {
    const char *name;
    unsigned char multiplier[2];   /* enum kure_word_type of a row's words */
    unsigned char convolution[4];  /* of parameter[] */
    unsigned char average[4];
    unsigned char add[7];
    unsigned char biases;          /* 1: int32 biases may be added to the accumulator */
    unsigned char same_scale;      /* 1: the mean keeps scale and zero point */
    kure_load_function *load;      /* multiplier words into r */
    kure_load_function *load_last; /* parameter words of CONVOLUTION, CONNECTED and AVERAGE_POOL */
    kure_load_function *load_add;  /* parameter words of ADD */
    kure_requantize_function *requantize;
    kure_mean_function *mean;
    kure_add_function *add_codes;
};

/* by enum kure_arithmetic; [KURE_ARITHMETIC_NONE] has a name only */
extern const struct kure_arithmetic_row kure_arithmetic_rows[KURE_ARITHMETICS];

#endif
