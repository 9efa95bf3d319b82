/*
 * arithmetic.h: the numbers that each arithmetic of kure_runtime.h wants, from scales: what a
 * target's own preparation computes, in its precision.
 */
#ifndef KURE_EXPORT_ARITHMETIC_H
#define KURE_EXPORT_ARITHMETIC_H

#include "model.h"

/* A row of weights on its way to a code. */
struct kure_row_scales {
    float in, weight, out;
    float bias;      /* float32 ones only */
    int one_product; /* 1: a fully connected layer of TensorFlow Lite with one scale for all rows: in * weight in float32 */
};

struct kure_sum_scales {
    float a, b, out; /* a and b times alpha and beta of the shortcut; may be negative */
    int zero_a, zero_b, zero_out;
    float slope;     /* float32 ones only; 1: linear */
};

struct kure_code_scales {
    const struct kure_integer_tensor *in, *out;
    float slope;     /* of values below 0; 1: another scale alone */
    int is_leaky;
};

struct kure_arithmetic_rules {
    int float_bias;    /* adds float32 biases; else int32 codes of scale in * weight */
    int keeps_scale;   /* AVERAGE_POOL is of the codes themselves */
    int powers_of_two; /* every scale must be one */
    int ties_up;       /* floor(x * 2^-shift + 1/2): of a sum with floor(bias) it is that of the sum with the bias itself */
    int signed_sum;    /* ADD can take a scale below 0 */
    void (*row)(const struct kure_row_scales *s, uint32_t words[2]);
    void (*add)(const struct kure_sum_scales *s, uint32_t parameter[10]);
    void (*average)(const struct kure_row_scales *s, int n, uint32_t parameter[10]); /* in, out */
    int (*code)(const struct kure_code_scales *s, int code); /* of a LOOKUP, before the limits */
    void (*last)(float slope, float out, uint32_t parameter[10]); /* CONVOLUTION, CONNECTED; NULL: nothing */
};

/* By enum kure_arithmetic */
const struct kure_arithmetic_rules *kure_arithmetic_rules(enum kure_arithmetic arithmetic);

/* x within low..high, as an int */
int kure_clamp_code(double x, int low, int high);

#endif
