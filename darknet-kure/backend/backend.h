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

/* Sums over the elements of a piece, elements below FLT_MIN taken as 0. */
struct kure_power_sums {
    double s1, s2, s3, s4, s5, s6; /* of (x - pivot)^k */
    int32_t min, max;              /* as keys of kure_order */
};

struct kure_dots {
    double tt, tw, ww; /* t = kure_cubic_at(x) */
};

struct kure_error_sums {
    double signal, noise;
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
typedef void kure_op_fake_quantize(const float *x, float *y, size_t n, struct kure_levels levels);

/* x[n], finite */
typedef void kure_op_quantization_sums(const float *x, size_t n, struct kure_levels levels,
                                       struct kure_error_sums *out);

/* value[i] finite */
typedef void kure_op_level_sums(const struct kure_points *points, struct kure_levels levels,
                                struct kure_level_sums *out);

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
