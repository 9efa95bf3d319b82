/*
 * kure.h: the core of darknet-kure, which knows nothing of Darknet.
 *
 * Formulas: "Robust Quantization: One Model to Rule Them All", Shkolnik et al.,
 * NeurIPS 2020 (KURE: equations 14 and 15).
 *
 * Conventions. A weight tensor is w[rows][row_length], float32, one row per
 * output channel. Functions that can fail return a status and, unless `error`
 * is NULL, one sentence. None prints, exits or keeps a pointer to its arguments.
 *
 * A float below FLT_MIN in magnitude counts as 0 everywhere, so that results do
 * not depend on how the process treats subnormals (Darknet's -Ofast start-up
 * code drops them).
 */
#ifndef KURE_H
#define KURE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define KURE_CHECKED __attribute__((warn_unused_result))
#else
#define KURE_CHECKED
#endif

enum kure_status {
    KURE_OK = 0,
    KURE_ERROR_INPUT,  /* what the user gave is wrong: the sentence says what */
    KURE_ERROR_FILE,   /* a file cannot be read or written */
    KURE_ERROR_MEMORY, /* an allocation failed */
};

/* text: always terminated; names file, line, layer, key, value and limit */
struct kure_error {
    char text[1024];
};

/* ------------------------------------------------------------------------- */
/* Statistics (core/statistics.c, backend)                                    */

/* m2..m4 and m6 are central moments, (1/n) sum (x - mean)^k. With nonfinite != 0
 * the fields after it are unspecified. n = 0 gives zeros. */
struct kure_statistics {
    uint64_t n;
    uint64_t nonfinite; /* elements that are NaN or infinite */
    double mean, m2, m3, m4, m6;
    float min, max;
};

/* Statistics of x[n]. The same bits for any number of threads and any
 * instruction set: fixed chunks, fixed lanes, a fixed tree of double sums. */
void kure_statistics_compute(const float *x, size_t n, struct kure_statistics *out);

double kure_statistics_std(const struct kure_statistics *s);      /* unbiased, n-1; 0 for n < 2 */
double kure_statistics_skewness(const struct kure_statistics *s); /* m3/m2^1.5; 0 for m2 = 0 */

/* ------------------------------------------------------------------------- */
/* Kurtosis and its gradient (core/kurtosis.c)                                */

enum kure_std { KURE_STD_UNBIASED, KURE_STD_BIASED };
enum kure_mode { KURE_MODE_AVG, KURE_MODE_SUM, KURE_MODE_MAX };
enum kure_granularity { KURE_GRANULARITY_TENSOR, KURE_GRANULARITY_CHANNEL };

enum { KURE_MIN_WEIGHTS = 16 }; /* fewer weights have no kurtosis worth regularizing */

/* K = m4/s^4, s^2 = m2 (biased) or m2*n/(n-1) (unbiased). NaN where it is not
 * defined: nonfinite values, m2 = 0, fewer than KURE_MIN_WEIGHTS elements. */
double kure_kurtosis(const struct kure_statistics *s, enum kure_std std);

/* A layer's weights as the regularizer sees them. The views own nothing. */
struct kure_tensor {
    float *weights;        /* [in]      [rows][row_length] */
    float *updates;        /* [in, out] [rows][row_length]: the term is subtracted here */
    size_t rows, row_length;
    /* batch-norm folding (fold = 1); all NULL: no batch norm, folding is the identity */
    const float *gamma;    /* [in]      [rows] batch-norm scale */
    const float *variance; /* [in]      [rows] rolling variance */
    float *gamma_updates;  /* [in, out] [rows] */
    /* [rows][row_length] floats, needed with fold = 1 and batch norm, else NULL */
    float *scratch;
};

struct kure_kurtosis_rule {
    double target;                     /* K_T, > 0 */
    enum kure_granularity granularity; /* channel: mean over rows of at least KURE_MIN_WEIGHTS weights */
    enum kure_std std;
    int fold;                          /* 1: on gamma/sqrt(variance + 1e-5) * w */
};

enum kure_skip { KURE_SKIP_NO, KURE_SKIP_NONFINITE, KURE_SKIP_CONSTANT, KURE_SKIP_SMALL };

struct kure_kurtosis_measure {
    enum kure_skip skip; /* other than NO: nothing below holds and apply does nothing */
    double kurtosis;     /* tensor: K; channel: mean of the rows' K */
    double loss;         /* tensor: (K - K_T)^2; channel: (1/C) sum_c (K_c - K_T)^2 */
    struct kure_statistics statistics; /* of the tensor (folded with fold = 1) */
};

/* Kurtosis and loss of one tensor (equation 15 before the mean over layers).
 * With fold = 1 and batch norm tensor->scratch holds the folded weights
 * afterwards. Granularity channel: rows whose weights are all equal are left out
 * of the mean; a row's K does not depend on its scale, so folding changes only
 * `statistics`. */
void kure_kurtosis_measure(const struct kure_tensor *tensor, const struct kure_kurtosis_rule *rule,
                           struct kure_kurtosis_measure *out);

/* updates -= factor * d loss/d w, and with fold = 1 gamma_updates likewise
 * (the weights' part without its component along each row: otherwise the
 * filter norms run away, since the variance follows them).
 *
 * measure  [in]: of the same tensor with unchanged weights and scratch
 * factor   [in]: lambda * B * (1/L for mode avg, 1 for sum and max)
 * rate     [in]: learning rate / B: what Darknet multiplies updates by
 * max_step [in]: the step rate*factor*|d loss/d w| is scaled down to at most
 *                max_step * |w - mean| (and the step on gamma to max_step *
 *                |gamma|, separately); 0: no limit
 * Returns 1 where max_step acted, else 0. */
int kure_kurtosis_apply(const struct kure_tensor *tensor, const struct kure_kurtosis_rule *rule,
                        const struct kure_kurtosis_measure *measure, double factor, double rate,
                        double max_step);

/* ------------------------------------------------------------------------- */
/* Quantization of weights (core/quantize.c)                                  */

enum kure_grid {
    KURE_GRID_NARROW,  /* codes +-(2^(b-1)-1) */
    KURE_GRID_FULL,    /* codes -2^(b-1) .. 2^(b-1)-1 */
    KURE_GRID_MIDRISE, /* levels +-D/2, +-3D/2 ...: 2^b of them, no zero (the paper's) */
};
enum kure_truncation { KURE_TRUNCATION_MINMAX, KURE_TRUNCATION_MSE };

struct kure_quantizer {
    int bits;                          /* 2..16; 0: leave float */
    enum kure_grid grid;
    enum kure_truncation truncation;
    enum kure_granularity granularity; /* tensor: one step; channel: one per row */
    double step_ratio;                 /* multiplies the step, > 0 */
};

/* Step size D for x[n] before step_ratio. minmax: the smallest step whose grid
 * covers every value (its outermost levels lie at or beyond min and max); mse,
 * 2 to 8 bits: the one of least squared error (exact values below
 * KURE_HISTOGRAM_BINS elements, a histogram of them above). 0 for a tensor of
 * zeros or n = 0. Non-finite values are an error. May allocate. */
enum { KURE_HISTOGRAM_BINS = 8192 };
KURE_CHECKED enum kure_status kure_step_size(const float *x, size_t n, const struct kure_quantizer *q,
                                             double *step, struct kure_error *error);

/* y[i] = D * clamp(round_half_even(x[i] / D)), or for midrise
 * D * (clamp(round_half_even(x[i]/D - 1/2)) + 1/2), each operation in float;
 * x and y may be the same. NaN counts as 0, infinities are clamped, and a step
 * of 0 (or up to 2^-125) gives zeros. EXACT: the same bits on every instruction
 * set. */
void kure_fake_quantize(const float *x, float *y, size_t n, float step, int bits, enum kure_grid grid);

struct kure_quantization {
    double signal; /* sum of x^2 */
    double noise;  /* sum of (x - Q(x))^2 */
};

/* Replaces a tensor's weights by their quantized values.
 * fold [in]: 1: Q(w*s)/s with s = gamma/sqrt(variance + 1e-5): the grid is that
 *            of the folded tensor; rows with |s| < 2^-40 of the largest stay float.
 * tensor->updates is not used; scratch is needed with fold as above.
 * signal and noise are of what is quantized (the folded tensor with fold = 1).
 * On an error (non-finite weights, a step outside 2^-100 .. 2^100, no memory)
 * the weights are as they were. bits = 0 measures the signal alone. */
KURE_CHECKED enum kure_status kure_quantize_tensor(const struct kure_tensor *tensor,
                                                   const struct kure_quantizer *q, int fold,
                                                   struct kure_quantization *out,
                                                   struct kure_error *error);

/* The name of the instruction set in use: "baseline", "avx2" or "avx512".
 * The environment variable KURE_ISA names another one; where the machine lacks
 * it or the name is unknown the widest is used, as this name then says. */
const char *kure_instruction_set(void);

#ifdef __cplusplus
}
#endif
#endif
