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
/* Quantizers (math/rounding.def, core/policies.def, core/quantizer.c)        */

enum kure_rounding {
    KURE_ROUNDING_HALF_EVEN, KURE_ROUNDING_HALF_AWAY, KURE_ROUNDING_HALF_UP,
    KURE_ROUNDING_HALF_DOWN, KURE_ROUNDING_HALF_TO_ZERO, KURE_ROUNDING_FLOOR,
    KURE_ROUNDING_CEIL, KURE_ROUNDING_TO_ZERO, KURE_ROUNDING_STOCHASTIC,
    KURE_ROUNDINGS
};
enum kure_truncation {
    KURE_TRUNCATION_MINMAX, KURE_TRUNCATION_EMA, KURE_TRUNCATION_PERCENTILE,
    KURE_TRUNCATION_MSE, KURE_TRUNCATION_KL, KURE_TRUNCATION_GAUSS,
    KURE_TRUNCATION_LAPLACE, KURE_TRUNCATION_LP, KURE_TRUNCATION_SIGMA,
    KURE_TRUNCATION_FIXED, KURE_TRUNCATIONS
};
enum kure_grid {
    KURE_GRID_NARROW,  /* codes +-(2^(b-1)-1) */
    KURE_GRID_FULL,    /* codes -2^(b-1) .. 2^(b-1)-1 */
    KURE_GRID_MIDRISE, /* levels +-D/2, +-3D/2 ...: 2^b of them, no zero (the paper's) */
};
enum kure_step {
    KURE_STEP_FREE,
    KURE_STEP_POWER_OF_TWO, /* the nearest in log2, after step_ratio */
};

struct kure_quantizer {
    int bits;                          /* 2..16; 0: leave float */
    enum kure_rounding rounding;
    enum kure_truncation truncation;
    double truncation_value;           /* what kure_policy_text says; 0 where the policy has none */
    enum kure_step step;
    double step_ratio;                 /* multiplies the step, > 0 */
    enum kure_granularity granularity; /* tensor: one step; channel: one per row */
    enum kure_grid grid;
    int symmetric;                     /* 1: zero point 0. 0: zero point free, on the full grid */
};

/* A sentence if a value is out of range or two do not go together: symmetric=0
 * with another grid than full (narrow gives up a code for the sake of symmetry,
 * midrise has no zero for a zero point to stand for), a policy above its bits,
 * without its value, or with one that it ignores. With bits = 0 nothing else matters. */
KURE_CHECKED enum kure_status kure_quantizer_check(const struct kure_quantizer *q, struct kure_error *error);

int kure_quantizer_equal(const struct kure_quantizer *a, const struct kure_quantizer *b);

/* A row of the tables for documentation and for parsing, NULL name past the end.
 * The index is the value of the enum. */
struct kure_choice_text {
    const char *name, *help;
    const char *value;          /* policies: what truncation_value is, "" where there is none */
    double value_from, value_to;  /* its range */
    int most_bits;
    const char *source;         /* policies: paper or program, or "" */
};
struct kure_choice_text kure_rounding_text(int rounding);
struct kure_choice_text kure_policy_text(int truncation);
const char *kure_grid_name(enum kure_grid grid);
const char *kure_step_name(enum kure_step step);
const char *kure_granularity_name(enum kure_granularity granularity);

/* ------------------------------------------------------------------------- */
/* Scales: from values to a step and a zero point (core/scale.c)              */

/* real value = step * (code - zero_point); midrise: step * (code + 1/2).
 * zero_point is a code of the grid, so 0 is exact; step 0: all values are 0. */
struct kure_scale {
    float step;
    int zero_point;
};

enum { KURE_HISTOGRAM_BINS = 8192 };

/* The scale of x[n]. symmetric: the smallest step whose outermost levels lie at
 * or beyond what the policy covers. Not symmetric: step = (max - min)/(2^b - 1)
 * with 0 inside min..max, zero_point = low - round_half_even(min/step), clamped;
 * step_ratio and powers of two then change the step alone: both ends of the range
 * move in proportion.
 * Step 0 for values that are all 0 or n = 0, and only for these: a policy that
 * would cover nothing (a percentile of mostly zeros) covers all values instead.
 *
 * Policies see the values themselves below KURE_HISTOGRAM_BINS of them and a
 * histogram above; mse, lp and kl assume rounding to the nearest. An error: what
 * kure_quantizer_check finds, bits = 0, ema (which has no meaning for one
 * tensor), non-finite values, a step outside 2^-100 .. 2^100. Does not
 * allocate; takes up to 256 KiB of stack. */
KURE_CHECKED enum kure_status kure_scale_find(const float *x, size_t n, const struct kure_quantizer *q,
                                              struct kure_scale *scale, struct kure_error *error);

/* The scale with its step multiplied by ratio (> 0), and for power_of_two rounded to the
 * nearest in log2; the zero point stays, so that both ends of the range move in proportion. */
struct kure_scale kure_scale_times(struct kure_scale scale, double ratio, const struct kure_quantizer *q);

/* The same from batches of values that come one after another, for any policy
 * (core/observer.c). Memory does not grow with them: a histogram's bins widen
 * to twice their width when a value lies outside. The same bits for any number
 * of threads. */
struct kure_observer {
    uint64_t n, batches;          /* since the last reset; n: elements */
    double mean, m2;              /* m2: (1/n) sum (x - mean)^2 */
    double deviation;             /* (1/n) sum |x - center| */
    double center;                /* about the mean of the first batch */
    uint64_t zeros;
    float min, max;
    double ema_min, ema_max;      /* over all batches: ema += 0.1 * (new - ema), the first one sets */
    uint64_t ema_batches;
    enum kure_truncation policy;      /* KURE_TRUNCATIONS: all of them */
    struct kure_histogram *histogram; /* where the policy needs the values, else NULL */
};

/* Allocates what the policy of q needs; add and scale do not allocate. */
KURE_CHECKED enum kure_status kure_observer_init(struct kure_observer *o, const struct kure_quantizer *q,
                                                 struct kure_error *error);
/* The same for every policy and any number of bits, from one pass over the values. */
KURE_CHECKED enum kure_status kure_observer_init_all(struct kure_observer *o, struct kure_error *error);
/* Returns how many of x[n] are not finite; a batch with any is left out whole. */
uint64_t kure_observer_add(struct kure_observer *o, const float *x, size_t n);
/* q->truncation must be that of init, or after init_all any. Step 0 before the first batch. */
KURE_CHECKED enum kure_status kure_observer_scale(const struct kure_observer *o, const struct kure_quantizer *q,
                                                  struct kure_scale *scale, struct kure_error *error);
/* How a scale serves what was observed; of an observer that keeps a histogram. */
struct kure_observed_error {
    double below, above;  /* shares of the values that lie beyond the outermost levels by more than half a step */
    double signal, noise; /* sums of x^2 and (x - Q(x))^2, rounding to the nearest */
};
void kure_observer_error(const struct kure_observer *o, struct kure_scale scale, const struct kure_quantizer *q,
                         struct kure_observed_error *out);
void kure_observer_reset(struct kure_observer *o); /* all but the moving averages */
void kure_observer_free(struct kure_observer *o);

/* ------------------------------------------------------------------------- */
/* Simulated quantization (core/quantize.c)                                   */

/* What stochastic rounding draws from: element i of a call has random number
 * first + i of the stream, so cutting a tensor in pieces changes nothing. */
struct kure_noise {
    uint64_t seed, stream, first;
};

/* y[i] = step * (clamp(round(x[i]/step) + zero_point) - zero_point), or for
 * midrise step * (clamp(round(x[i]/step - 1/2)) + 1/2), each operation in float;
 * x and y may be the same. NaN counts as 0, infinities are clamped, and a step
 * of 0 (or up to 2^-125) gives zeros. noise: NULL is {0, 0, 0}. EXACT: the same
 * bits on every instruction set.
 *
 * torch.fake_quantize multiplies by 1/step where we divide: the codes differ
 * where x/step is within an ulp of a tie. */
void kure_fake_quantize(const float *x, float *y, size_t n, struct kure_scale scale,
                        const struct kure_quantizer *q, const struct kure_noise *noise);

/* The NaN among x[n]. */
uint64_t kure_count_nan(const float *x, size_t n);

struct kure_quantization {
    double signal; /* sum of x^2 */
    double noise;  /* sum of (x - Q(x))^2 */
};

/* The scale of each row of a tensor's weights, by the truncation policy of q.
 * fold   [in]:  1: of the folded tensor, w*s with s = gamma/sqrt(variance + 1e-5);
 *               scratch is needed then and overwritten
 * scales [out]: [rows]; alike with granularity=tensor. Step 0: a row of zeros, or one
 *               with |s| < 2^-40 of the largest, which stays float
 * KURE_ERROR_INPUT as kure_scale_find. */
KURE_CHECKED enum kure_status kure_tensor_scales(const struct kure_tensor *tensor, const struct kure_quantizer *q, int fold,
                                                 struct kure_scale *scales, struct kure_error *error);

/* Replaces a tensor's weights by their quantized values under these scales; else as
 * kure_quantize_tensor. */
void kure_tensor_quantize(const struct kure_tensor *tensor, const struct kure_quantizer *q, int fold, const struct kure_scale *scales,
                          const struct kure_noise *noise, struct kure_quantization *out);

/* Replaces a tensor's weights by their quantized values.
 * fold  [in]: 1: Q(w*s)/s with s = gamma/sqrt(variance + 1e-5): the grid is that
 *             of the folded tensor; rows with |s| < 2^-40 of the largest stay float.
 * noise [in]: element 0 is the first of what is quantized; NULL is {0, 0, 0}
 * tensor->updates is not used; scratch is needed with fold as above.
 * signal and noise are of what is quantized (the folded tensor with fold = 1).
 * On an error (see kure_scale_find) the weights are as they were. bits = 0
 * measures the signal alone. */
KURE_CHECKED enum kure_status kure_quantize_tensor(const struct kure_tensor *tensor,
                                                   const struct kure_quantizer *q, int fold,
                                                   const struct kure_noise *noise,
                                                   struct kure_quantization *out,
                                                   struct kure_error *error);

/* ------------------------------------------------------------------------- */
/* Backward passes and learned parameters (core/learned.c, core/dorefa.c)     */

/* How gradients pass a quantizer in training, and what is learned of it. */
enum kure_method { KURE_METHOD_STE, KURE_METHOD_LSQ, KURE_METHOD_PACT, KURE_METHOD_DOREFA };

/* Straight-through estimator: dx = dy where the code before clamping lies on the
 * grid, else 0 (torch.fake_quantize's rule); dx = dy for a step of 0. scale, q
 * and noise as in the forward pass; dx may be dy. EXACT. */
void kure_ste_backward(const float *x, const float *dy, float *dx, size_t n, struct kure_scale scale,
                       const struct kure_quantizer *q, const struct kure_noise *noise);

/* LSQ, Esser et al. 2020: a step that is learned; with q->step = power_of_two
 * its exponent is, as in TQT, Jain et al. 2020, but to the nearest in log2
 * instead of up. The zero point is not learned. */
struct kure_learned_step {
    double value; /* the step, or log2 of it */
    double least; /* the step stays at or above it: start/1024; unused for an exponent */
};

/* start = 2 mean|x| / sqrt(Q_p), Q_p the largest code less the zero point; for
 * values that are all 0, 1/Q_p */
struct kure_learned_step kure_learned_step_start(const float *x, size_t n, int zero_point,
                                                 const struct kure_quantizer *q);
/* The scale in use. Steps are kept within 2^-100 .. 2^100. */
struct kure_scale kure_learned_step_scale(const struct kure_learned_step *s, int zero_point,
                                          const struct kure_quantizer *q);
/* dx as by kure_ste_backward. Returns d loss / d value: sum of dy * d Q(x)/d step
 * over x[n], times 1/sqrt(features * Q_p), and for an exponent times step * ln 2
 * (straight through its rounding).
 * features: weights of the row, or features of one image. */
double kure_learned_step_backward(const float *x, const float *dy, float *dx, size_t n, size_t features,
                                  struct kure_scale scale, const struct kure_quantizer *q,
                                  const struct kure_noise *noise);
/* value += change, then kept in its limits */
void kure_learned_step_move(struct kure_learned_step *s, double change, const struct kure_quantizer *q);

/* PACT, Choi et al. 2018: y = clip(x, 0, clip) in steps of clip/(2^bits - 1): the
 * scale for kure_fake_quantize with symmetric = 0 and the full grid. DoReFa's
 * activations are those of clip = 1. Backward: dx = dy where 0 <= x < clip, else
 * 0 (dx may be dy); returns d loss / d clip = sum of dy where x >= clip. */
struct kure_scale kure_pact_scale(float clip, int bits);
double kure_pact_backward(const float *x, const float *dy, float *dx, size_t n, float clip);

/* DoReFa-Net, Zhou et al. 2016, weights: y = 2 round((2^bits-1) t)/(2^bits-1) - 1,
 * t = tanh(x)/(2 max|tanh x|) + 1/2, with q's bits and rounding; x without NaN, y
 * may be x. All zeros give t = 1/2. Backward goes through tanh and through the
 * max, whose gradient its weights share equally (as PyTorch's); dx may be dy.
 * tanh is within 3 ulp; the forward pass is EXACT. */
void kure_dorefa_quantize(const float *x, float *y, size_t n, const struct kure_quantizer *q,
                          const struct kure_noise *noise);
void kure_dorefa_backward(const float *x, const float *dy, float *dx, size_t n);

/* The name of the instruction set in use: "baseline", "avx2" or "avx512".
 * The environment variable KURE_ISA names another one; where the machine lacks
 * it or the name is unknown the widest is used, as this name then says. */
const char *kure_instruction_set(void);

#ifdef __cplusplus
}
#endif
#endif
