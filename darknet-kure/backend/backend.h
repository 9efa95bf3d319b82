/*
 * backend.h: the loops over tensors, one table of functions per backend.
 *
 * One call works on one piece of memory in one thread; core/ cuts tensors into
 * chunks. Inputs and outputs do not overlap unless said otherwise, n may be 0
 * unless said otherwise, nothing is allocated.
 */
#ifndef KURE_BACKEND_H
#define KURE_BACKEND_H

#include <stddef.h>

#include "../math/kure_math.h"
#include "kure.h"

/* Sums over the elements of a piece, elements below FLT_MIN taken as 0. */
struct kure_power_sums {
    double s1, s2, s3, s4, s5, s6; /* of (x - pivot)^k */
    double pivot;
    int32_t min, max;              /* as keys of kure_order */
};

struct kure_dots {
    double tt, tw, ww; /* t = kure_cubic_at(x) */
};

struct kure_error_sums {
    double signal, noise;
};

/* keys of kure_order, of the values as they are: beyond those of the infinities
 * where there is a NaN */
struct kure_range_keys {
    int32_t min, max;
};

/* Sums over d = x - pivot */
struct kure_spread_sums {
    double s1, s2;    /* of d, d^2 */
    double deviation; /* of |d| */
    uint64_t zeros;   /* elements that count as 0 */
};

/* How codes come from positions: the row of rounding.def, and its random numbers,
 * of which element i of a call has number noise.first + i. */
struct kure_codec {
    struct kure_levels levels;
    enum kure_rounding rounding;
    struct kure_noise noise;
};

/* A row of weights whose batch norm may be folded in: x * factor is what is quantized. */
struct kure_fold_codec {
    struct kure_codec codec; /* step 0: nothing is quantized */
    float factor;
    float divisor; /* fold_quantize: of the quantized values */
    float gain;    /* fold_backward: of the gradient */
};

struct kure_fold_sums {
    double step;   /* sum of dy * d fake_quantize(x * factor) / d step; 0 for a step of 0 */
    double factor; /* sum of dy * x where the code was not clamped */
};

/* A frozen batch norm that is folded into n rows of weights and their biases. */
struct kure_folded_norm {
    const float *gamma, *beta, *mean, *variance; /* [n] */
    const struct kure_fold_sums *sums;           /* [n][chunks] of fold_backward_sums */
    size_t chunks;
    const float *bias_gradient;                  /* [n] of the folded biases */
    float *gamma_updates;                        /* [n] [in, out] */
};

enum { KURE_GATHERED = 64 };
struct kure_gathered {
    float value[KURE_GATHERED];
};

/* count[n] equal values each, total = the sum of the values they stand for */
struct kure_points {
    const float *value;
    const double *total, *count;
    size_t n;
};

/* level = code + offset of a point's value: with these the squared error of a
 * step D is sum x^2 - 2 D * lx + D^2 * ll */
struct kure_level_sums {
    double lx; /* sum of level * total */
    double ll; /* sum of level^2 * count */
};

/* x[n]: n >= 0 */
typedef double kure_op_sum(const float *x, size_t n);

/* x[n]: n > 0; pivot: a float that is 0 or at least FLT_MIN in magnitude, so
 * that no power of a difference is subnormal. The sums are not finite exactly
 * where x or pivot is not. */
typedef void kure_op_power_sums(const float *x, size_t n, float pivot, struct kure_power_sums *out);

/* updates[n] [in, out], x[n]; constants of make_narrow in core/kurtosis.c */
typedef void kure_op_kurtosis_descend(float *updates, const float *x, size_t n,
                                      struct kure_narrow_cubic cubic, float gain);

/* x[n]: folded weights; w[n]: weights (may be x) */
typedef void kure_op_kurtosis_dots(const float *x, const float *w, size_t n, struct kure_cubic cubic,
                                   struct kure_dots *out);

/* updates[n] [in, out], x[n], w[n] */
typedef void kure_op_kurtosis_descend_across(float *updates, const float *x, const float *w, size_t n,
                                             struct kure_cubic cubic, double gain, double along);

/* x[n], y[n], which may be the same */
typedef void kure_op_multiply(const float *x, float *y, size_t n, float factor);
typedef void kure_op_divide(const float *x, float *y, size_t n, float divisor);

/* x[n], y[n], which may be the same; a step of 0 gives zeros */
typedef void kure_op_fake_quantize(const float *x, float *y, size_t n, const struct kure_codec *codec);
typedef void kure_op_range_quantize(const float *x, float *y, size_t n, const struct kure_codec *codec,
                                    struct kure_range_keys *out);
typedef void kure_op_fold_quantize(const float *x, float *y, size_t n, const struct kure_fold_codec *fold);

/* x[n], y[n], which may be the same; cap > 0, INFINITY: none */
typedef void kure_op_rectify(const float *x, float *y, size_t n, float slope, float cap);

/* x[n], finite; step > 0 */
typedef void kure_op_quantization_sums(const float *x, size_t n, const struct kure_codec *codec,
                                       struct kure_error_sums *out);
typedef void kure_op_spread_sums(const float *x, size_t n, float pivot, struct kure_spread_sums *out);

/* x[n]; n = 0 gives INT32_MAX, INT32_MIN */
typedef void kure_op_range(const float *x, size_t n, struct kure_range_keys *out);
typedef uint64_t kure_op_count_nan(const float *x, size_t n);
typedef void kure_op_gather(const float *x, size_t n, struct kure_gathered *out);

/* x[n], dy[n], dx[n], which may be dy; codec as in the forward pass, where a step of 0
 * gives dx = dy. Not finite where dy is not. */
typedef void kure_op_ste_backward(const float *x, const float *dy, float *dx, size_t n,
                                  const struct kure_codec *codec);
typedef double kure_op_lsq_backward(const float *x, const float *dy, float *dx, size_t n,
                                    const struct kure_codec *codec);
typedef double kure_op_pact_backward(const float *x, const float *dy, float *dx, size_t n, float clip);

/* x[n]: what rectify has put out */
typedef void kure_op_rectify_backward(const float *x, const float *dy, float *dx, size_t n, float slope, float cap);

/* x[n], dy[n], updates[n] [in, out]; fold as in the forward pass */
typedef void kure_op_fold_backward(const float *x, const float *dy, float *updates, size_t n,
                                   const struct kure_fold_codec *fold);
typedef void kure_op_fold_backward_sums(const float *x, const float *dy, float *updates, size_t n,
                                        const struct kure_fold_codec *fold, struct kure_fold_sums *out);

/* y[n]: biases; backward: those members of batchnorm that are not of the forward pass */
typedef void kure_op_fold_biases(const struct kure_folded_norm *batchnorm, float *y, size_t n);
typedef void kure_op_batchnorm_backward(const struct kure_folded_norm *batchnorm, size_t n);

struct kure_dorefa_sums {
    double dot;       /* sum of dy * tanh x */
    uint64_t largest; /* elements whose |tanh x| is the largest */
};

/* x[n], y[n], dy[n], dx[n]: y may be x, dx may be dy; codec->levels is not used */
typedef void kure_op_dorefa_quantize(const float *x, float *y, size_t n, struct kure_dorefa d,
                                     const struct kure_codec *codec);
typedef void kure_op_dorefa_sums(const float *x, const float *dy, size_t n, struct kure_dorefa d,
                                 struct kure_dorefa_sums *out);
typedef void kure_op_dorefa_backward(const float *x, const float *dy, float *dx, size_t n,
                                     struct kure_dorefa d);

/* value[i] finite */
typedef void kure_op_level_sums(const struct kure_points *points, struct kure_levels levels,
                                struct kure_level_sums *out);

/* value[i] finite, p >= 1 */
typedef double kure_op_error_power(const struct kure_points *points, struct kure_levels levels, double p);

struct kure_backend {
    const char *name;
#define KURE_OP(name, agreement, help) kure_op_##name *name;
#include "ops.def"
#undef KURE_OP
};

/* The CPU's table: KURE_ISA's if the machine has it, else the widest. */
const struct kure_backend *kure_cpu(void);

/* "baseline", "avx2", "avx512"; NULL for a name or an instruction set that is
 * not there. */
const struct kure_backend *kure_cpu_named(const char *name);

/* For tests: what kure_cpu returns from now on; NULL: its own choice again. */
void kure_cpu_use(const struct kure_backend *cpu);

#endif
