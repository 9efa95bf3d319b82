/*
 * kurtosis_parts.h: statistics and the KURE term apart from their loops over weights, for
 * a backend whose memory the CPU does not see: adapter/regularize_cuda.c. The functions of
 * kure.h are made of the same pieces, so that both give the same bits.
 */
#ifndef KURE_KURTOSIS_PARTS_H
#define KURE_KURTOSIS_PARTS_H

#include "../backend/backend.h"
#include "kure.h"

/* Statistics of n elements from the sums of their chunks (chunks.h), which are written
 * over; their pivot is the same. nonfinite is 1 where some are not finite. */
void kure_statistics_finish(struct kure_power_sums *sums, size_t chunks, size_t n, struct kure_statistics *out);

/* Rows of granularity channel, added one by one; those without a kurtosis are left out. */
struct kure_rows_kurtosis {
    size_t counted;
    double kurtosis, loss; /* sums */
};
void kure_rows_add(struct kure_rows_kurtosis *rows, const struct kure_statistics *row, const struct kure_kurtosis_rule *rule);

/* What kure_kurtosis_measure says: whole has the statistics of the tensor, rows is NULL
 * with granularity tensor. */
void kure_kurtosis_finish(const struct kure_statistics *whole, const struct kure_rows_kurtosis *rows, size_t row_length,
                          const struct kure_kurtosis_rule *rule, struct kure_kurtosis_measure *out);

/* d/dw (K - K_T)^2 = gain * t, t the cubic */
double kure_kurtosis_gain(const struct kure_statistics *s, const struct kure_kurtosis_rule *rule);
struct kure_cubic kure_kurtosis_cubic(const struct kure_statistics *s);

/* |t| from the moments. Returns 0 where they cancel: then it is the root of the sum of t^2
 * (op kurtosis_dots), element by element. */
int kure_cubic_norm(const struct kure_statistics *s, double *norm);

/* What shortens a step of length `step` to max_step times the length of the centred
 * weights; 1 with max_step = 0 */
double kure_step_share(double step, double max_step, const struct kure_statistics *whole);

/* updates -= gain * t(x): which op does it, and its constants */
struct kure_descent {
    enum kure_descent_kind { KURE_DESCENT_NONE, KURE_DESCENT_NARROW, KURE_DESCENT_WIDE } kind;
    struct kure_narrow_cubic narrow; /* kurtosis_descend */
    float narrow_gain;
    struct kure_cubic cubic; /* kurtosis_descend_across with along = 0 */
    double gain;
};
struct kure_descent kure_descent_of(const struct kure_statistics *s, double gain);

/* fold=1: sums over the rows, whose dots are of the folded (x) and the raw weights (w) */
struct kure_folded_sums {
    double squares, gamma_squares, gammas;
};
void kure_folded_add(struct kure_folded_sums *sums, float gamma, float variance, const struct kure_dots *dots);

/* raw: statistics of the raw weights; used, as the sums, with max_step > 0 only. A row's
 * weights descend across by f * gain, f its factor (fold.h). */
struct kure_folded_step {
    double gain, gamma_gain;
    int is_limited;
};
struct kure_folded_step kure_folded_finish(const struct kure_folded_sums *sums, double gain, double rate, double max_step,
                                           const struct kure_statistics *raw);
float kure_folded_gamma(const struct kure_folded_step *step, float update, float variance, const struct kure_dots *dots);

#endif
