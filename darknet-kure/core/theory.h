/*
 * theory.h: what a quantizer with another step than the best one costs: section 3
 * of the paper, exactly, for three distributions and for the values of a tensor;
 * and the paper's own approximations of it.
 *
 *   MSE(X, D)     = E[(X - Q_D(X))^2]
 *   D~            = argmin over D of MSE(X, D), the best step
 *   Gamma(X, eps) = |MSE(X, D) - MSE(X, D~)|, eps = |D - D~|
 *
 * Q_D rounds to the nearest of D (k + offset), k from the lowest to the highest
 * code of a grid, offset 1/2 for midrise and 0 else: zero point 0. A quantizer
 * here is q->grid and q->bits, 2 to 8; its other fields are not read.
 */
#ifndef KURE_THEORY_H
#define KURE_THEORY_H

#include "kure.h"

/* of mean 0 and variance 1 */
enum kure_density {
    KURE_DENSITY_UNIFORM, /* on -sqrt 3 .. sqrt 3 */
    KURE_DENSITY_NORMAL,
    KURE_DENSITY_LAPLACE, /* exp(-|x|/b)/(2b), b = 1/sqrt 2 */
    KURE_DENSITIES
};
const char *kure_density_name(enum kure_density density);

/* ---- exact ------------------------------------------------------------------- */

/* X. */
struct kure_source {
    enum kure_density density; /* where values is NULL */
    float *values;             /* [n] ascending; owned */
    double *sums;              /* [n + 1] sums[i] = values[0] + ... + values[i - 1]; owned */
    size_t n;
    double mean, squares;      /* E[X], E[X^2] */
    double low, high;          /* X lies between them, for normal and Laplace all but 1e-9 of its square */
    double magnitude;          /* E|X| */
};

struct kure_source kure_source_of_density(enum kure_density density);

/* x [in]: [n] finite, n > 0; copied: 12 bytes a value. X takes each of them with
 * probability 1/n. KURE_ERROR_MEMORY. */
KURE_CHECKED enum kure_status kure_source_of_values(const float *x, size_t n, struct kure_source *source,
                                                    struct kure_error *error);
void kure_source_free(struct kure_source *source);

/* MSE(X, step), step > 0. No approximation: E[X^2] - 2 step E[X l] + step^2 E[l^2],
 * l(X) being the level in steps, and both expectations are sums over the limits
 * between levels of closed integrals (of values: of partial sums). What is left is
 * the rounding of doubles: relative error below 1e-9 where MSE > 1e-5 E[X^2]. */
double kure_source_mse(const struct kure_source *source, const struct kure_quantizer *q, double step);

/* D~, for a density to a relative 1e-9. MSE of values has many local minima: of at least
 * 50 values, that of the step returned is within 1e-5 of the least one in every test.
 * 0: all values are 0. */
double kure_source_best_step(const struct kure_source *source, const struct kure_quantizer *q);

/* ---- the paper's approximations ------------------------------------------------ */

/* They take the error of what is not clipped as D^2/12 everywhere, with 2^bits
 * intervals between -t and t, t = 2^(bits-1) D:
 *   uniform on -a..a  (a - t)^3/(3a) + 2^bits D^3/(24a), supplement equation 12;
 *                     D^2/12 for t > a, where nothing is clipped
 *   normal            (1 + t^2) erfc(t/sqrt 2) - sqrt(2/pi) t exp(-t^2/2) + D^2/12
 *   Laplace           2 b^2 exp(-t/b) + D^2/12; the paper has none, this is ACIQ's
 * step > 0 */
double kure_paper_mse(enum kure_density density, int bits, double step);

/* Where that is least: 2a/(2^bits + 1) (supplement, equations 13 to 15), and the
 * roots of ACIQ's equations (policies.c). */
double kure_paper_step(enum kure_density density, int bits);

/* Its second derivative. */
double kure_paper_curvature(enum kure_density density, int bits, double step);

/* Lemma 1: curvature at D~ times eps^2/2. For uniform, at the paper's D~ = 2a/2^bits,
 * where it is 1/2: theorem 4 rests on that. At the exact minimum, 2a/(2^bits + 1),
 * it is 2^(bits-1), more than normal's. */
double kure_paper_gamma(enum kure_density density, int bits, double epsilon);

#endif
