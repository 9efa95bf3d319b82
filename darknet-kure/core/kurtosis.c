/*
 * kurtosis.c: the KURE term of one tensor and the step it makes.
 *
 *     dK/dw_i = 4/(n s^4) * t_i,  t_i = d_i^3 - m3 - (m4/m2) d_i,  d = w - mean
 *
 * for both conventions of s. sum t = 0 and sum t*w = 0: K does not depend on
 * shift and scale. |t|^2 = n (m6 - m3^2 - m4^2/m2).
 *
 * Tested by tests/unit/test_kurtosis.c and test_kurtosis_fold.c.
 */
#include <math.h>

#include "../backend/backend.h"
#include "chunks.h"
#include "fold.h"
#include "kure.h"
#include "kurtosis_parts.h"

double kure_kurtosis(const struct kure_statistics *s, enum kure_std std)
{
    if (s->nonfinite || s->n < KURE_MIN_WEIGHTS || !(s->m2 > 0)) return NAN;
    double ratio = std == KURE_STD_UNBIASED ? (double)(s->n - 1) / (double)s->n : 1;
    return s->m4 / s->m2 / s->m2 * (ratio * ratio);
}

struct kure_cubic kure_kurtosis_cubic(const struct kure_statistics *s)
{
    return (struct kure_cubic){.mean = s->mean, .m3 = s->m3, .slope = s->m4 / s->m2};
}

double kure_kurtosis_gain(const struct kure_statistics *s, const struct kure_kurtosis_rule *rule)
{
    double k = kure_kurtosis(s, rule->std);
    return 8 * (k - rule->target) * (k / s->m4) / (double)s->n; /* k/m4 = 1/s^4 */
}

/* factor that shortens `step` to `limit` */
static double shorten(double step, double limit)
{
    return step > limit ? limit / step : 1;
}

double kure_step_share(double step, double max_step, const struct kure_statistics *whole)
{
    return max_step > 0 ? shorten(step, max_step * sqrt((double)whole->n * whole->m2)) : 1;
}

/* ------------------------------------------------------------------------- */
/* Measure                                                                    */

/* Rows whose weights are all equal have no kurtosis and are left out. */
void kure_rows_add(struct kure_rows_kurtosis *rows, const struct kure_statistics *row, const struct kure_kurtosis_rule *rule)
{
    double k = kure_kurtosis(row, rule->std);
    if (isnan(k)) return;
    rows->kurtosis += k;
    rows->loss += (k - rule->target) * (k - rule->target);
    rows->counted++;
}

void kure_kurtosis_finish(const struct kure_statistics *whole, const struct kure_rows_kurtosis *rows, size_t row_length,
                          const struct kure_kurtosis_rule *rule, struct kure_kurtosis_measure *out)
{
    *out = (struct kure_kurtosis_measure){.skip = KURE_SKIP_NO, .statistics = *whole};
    if (whole->nonfinite) {
        out->skip = KURE_SKIP_NONFINITE;
    } else if ((rows ? row_length : whole->n) < KURE_MIN_WEIGHTS) {
        out->skip = KURE_SKIP_SMALL;
    } else if (rows) {
        if (rows->counted == 0) {
            out->skip = KURE_SKIP_CONSTANT;
            return;
        }
        out->kurtosis = rows->kurtosis / (double)rows->counted;
        out->loss = rows->loss / (double)rows->counted;
    } else {
        out->kurtosis = kure_kurtosis(whole, rule->std);
        out->loss = (out->kurtosis - rule->target) * (out->kurtosis - rule->target);
        if (isnan(out->kurtosis)) out->skip = KURE_SKIP_CONSTANT;
    }
}

void kure_kurtosis_measure(const struct kure_tensor *tensor, const struct kure_kurtosis_rule *rule,
                           struct kure_kurtosis_measure *out)
{
    int by_row = rule->granularity == KURE_GRANULARITY_CHANNEL;
    struct kure_rows_kurtosis rows = {0};
    struct kure_statistics whole;
    const float *x = tensor->weights;

    if (rule->fold && tensor->gamma) {
        kure_fold(tensor);
        x = tensor->scratch;
    }
    kure_statistics_compute(x, tensor->rows * tensor->row_length, &whole);
    for (size_t c = 0; by_row && !whole.nonfinite && tensor->row_length >= KURE_MIN_WEIGHTS && c < tensor->rows; c++) {
        struct kure_statistics s;
        kure_statistics_compute(tensor->weights + c * tensor->row_length, tensor->row_length, &s);
        kure_rows_add(&rows, &s, rule);
    }
    kure_kurtosis_finish(&whole, by_row ? &rows : NULL, tensor->row_length, rule, out);
}

/* ------------------------------------------------------------------------- */
/* Apply: one tensor                                                          */

/* sum of t^2 over x[n], all in one sum */
static double sum_squares(const float *x, size_t n, struct kure_cubic cubic)
{
    const struct kure_backend *cpu = kure_cpu();
    size_t size = kure_chunk_size(n), chunks = kure_chunk_count(n);
    double sums[KURE_CHUNKS_MAX], total = 0;
    KURE_PARALLEL(n,
        for (size_t c = 0; c < chunks; c++) {
            struct kure_dots dots;
            const float *piece = x + c * size;
            cpu->kurtosis_dots(piece, piece, kure_chunk_length(n, c), cubic, &dots);
            sums[c] = dots.tt;
        });
    for (size_t c = 0; c < chunks; c++) total += sums[c];
    return total;
}

/* |t|^2 / n; what cancels is the part of t along 1 and d */
static double cubic_variance(const struct kure_statistics *s)
{
    return s->m6 - s->m3 * s->m3 - s->m4 * (s->m4 / s->m2);
}

int kure_cubic_norm(const struct kure_statistics *s, double *norm)
{
    double variance = cubic_variance(s);
    *norm = sqrt((double)s->n * variance);
    return variance > 1e-6 * s->m6;
}

/* |t| from the moments, or element by element where they cancel */
static double cubic_norm(const float *x, const struct kure_statistics *s)
{
    double norm;
    if (kure_cubic_norm(s, &norm)) return norm;
    return sqrt(sum_squares(x, s->n, kure_kurtosis_cubic(s)));
}

/* x, or 0 where it is nothing next to scale */
static double significant(double x, double scale)
{
    return fabs(x) < 0x1p-60 * scale ? 0 : x;
}

/* The cubic in floats and its gain; 0 where floats are too narrow:
 * - The terms of t cancel to less than a tenth: the gradient would be off by
 *   more than some 1e-6 of its norm.
 * - A subnormal could show. Inside these limits |cubic->mean| >= 2^-30 sigma >=
 *   2^-70 swallows a subnormal x, z is 0 or at least 2^-84, and what is left of
 *   the product with the gain is below the precision of kure_subtract. (Where
 *   the mean is closer to 0, `rest` takes back what `mean` adds.) */
static int make_narrow(const struct kure_statistics *s, double gain,
                       struct kure_narrow_cubic *cubic, float *narrow_gain)
{
    double sigma = sqrt(s->m2), kurtosis = s->m4 / s->m2 / s->m2;
    double scaled = gain * sigma * s->m2;
    if (cubic_variance(s) < 0.01 * s->m6) return 0;
    if (sigma < 0x1p-40 || sigma > 0x1p40 || kurtosis > 0x1p12) return 0;
    if (fabs(scaled) < 0x1p-60 || fabs(scaled) > 0x1p60) return 0;
    cubic->mean = (float)(fabs(s->mean) < 0x1p-30 * sigma ? 0x1p-30 * sigma : s->mean);
    cubic->rest = (float)significant(s->mean - cubic->mean, sigma);
    cubic->inverse = (float)(1 / sigma);
    cubic->skewness = (float)significant(s->m3 / sigma / s->m2, 1);
    cubic->kurtosis = (float)kurtosis;
    *narrow_gain = (float)scaled;
    return 1;
}

struct kure_descent kure_descent_of(const struct kure_statistics *s, double gain)
{
    struct kure_descent d = {.kind = KURE_DESCENT_NONE};
    if (gain == 0) return d;
    d.kind = make_narrow(s, gain, &d.narrow, &d.narrow_gain) ? KURE_DESCENT_NARROW : KURE_DESCENT_WIDE;
    d.cubic = kure_kurtosis_cubic(s);
    d.gain = gain;
    return d;
}

/* updates -= gain * t(x) */
static void descend(float *updates, const float *x, const struct kure_statistics *s, double gain)
{
    const struct kure_backend *cpu = kure_cpu();
    size_t n = s->n, size = kure_chunk_size(n), chunks = kure_chunk_count(n);
    const struct kure_descent d = kure_descent_of(s, gain);

    if (d.kind == KURE_DESCENT_NONE) return;
    KURE_PARALLEL(n,
        for (size_t c = 0; c < chunks; c++) {
            const float *from = x + c * size;
            if (d.kind == KURE_DESCENT_NARROW)
                cpu->kurtosis_descend(updates + c * size, from, kure_chunk_length(n, c), d.narrow, d.narrow_gain);
            else
                cpu->kurtosis_descend_across(updates + c * size, from, from, kure_chunk_length(n, c), d.cubic, d.gain, 0);
        });
}

static int apply_tensor(const struct kure_tensor *t, const struct kure_kurtosis_rule *rule,
                        const struct kure_statistics *s, double factor, double rate, double max_step)
{
    double gain = factor * kure_kurtosis_gain(s, rule), share = 1;
    if (max_step > 0) share = kure_step_share(rate * fabs(gain) * cubic_norm(t->weights, s), max_step, s);
    descend(t->updates, t->weights, s, gain * share);
    return share < 1;
}

/* ------------------------------------------------------------------------- */
/* Apply: rows                                                                */

static int apply_rows(const struct kure_tensor *t, const struct kure_kurtosis_rule *rule,
                      double factor, double rate, double max_step)
{
    size_t counted = 0;
    double squares = 0, share = 1;
    struct kure_statistics s;

    for (size_t c = 0; c < t->rows; c++) {
        const float *row = t->weights + c * t->row_length;
        kure_statistics_compute(row, t->row_length, &s);
        if (isnan(kure_kurtosis(&s, rule->std))) continue;
        counted++;
        if (max_step > 0) {
            double norm = kure_kurtosis_gain(&s, rule) * cubic_norm(row, &s);
            squares += norm * norm;
        }
    }
    if (!counted) return 0;
    factor /= (double)counted;
    if (max_step > 0) {
        kure_statistics_compute(t->weights, t->rows * t->row_length, &s);
        share = kure_step_share(rate * fabs(factor) * sqrt(squares), max_step, &s);
    }
    for (size_t c = 0; c < t->rows; c++) {
        size_t at = c * t->row_length;
        kure_statistics_compute(t->weights + at, t->row_length, &s);
        if (isnan(kure_kurtosis(&s, rule->std))) continue;
        descend(t->updates + at, t->weights + at, &s, factor * share * kure_kurtosis_gain(&s, rule));
    }
    return share < 1;
}

/* ------------------------------------------------------------------------- */
/* Apply: folded tensor                                                       */

/* x_c = f_c w_c with f_c = gamma_c / sigma_c, so with g = dL/dx:
 *     dL/dw_c     = f_c g_c, here without its component along w_c
 *     dL/dgamma_c = g_c . w_c / sigma_c                                       */
void kure_folded_add(struct kure_folded_sums *sums, float gamma, float variance, const struct kure_dots *d)
{
    double f = kure_fold_factor(gamma, variance), sigma = kure_fold_sigma(variance), flushed = kure_flush(gamma);
    double across = d->tt - (d->ww > 0 ? d->tw * (d->tw / d->ww) : 0);
    sums->squares += f * f * (across > 0 ? across : 0);
    sums->gamma_squares += d->tw * d->tw / (sigma * sigma);
    sums->gammas += flushed * flushed;
}

struct kure_folded_step kure_folded_finish(const struct kure_folded_sums *sums, double gain, double rate, double max_step,
                                           const struct kure_statistics *raw)
{
    struct kure_folded_step step = {gain, gain, 0};
    if (max_step > 0) {
        double share = kure_step_share(rate * fabs(gain) * sqrt(sums->squares), max_step, raw);
        double gamma_share = shorten(rate * fabs(gain) * sqrt(sums->gamma_squares), max_step * sqrt(sums->gammas));
        step = (struct kure_folded_step){gain * share, gain * gamma_share, share < 1 || gamma_share < 1};
    }
    return step;
}

float kure_folded_gamma(const struct kure_folded_step *step, float update, float variance, const struct kure_dots *d)
{
    return kure_subtract(update, (float)(step->gamma_gain * d->tw / kure_fold_sigma(variance)));
}

static int apply_folded(const struct kure_tensor *t, const struct kure_kurtosis_rule *rule,
                        const struct kure_statistics *s, double factor, double rate, double max_step)
{
    const struct kure_backend *cpu = kure_cpu();
    struct kure_cubic cubic = kure_kurtosis_cubic(s);
    struct kure_folded_sums sums = {0};
    struct kure_statistics raw = {0};
    struct kure_dots d;
    size_t k = t->row_length;

    if (max_step > 0) {
        for (size_t c = 0; c < t->rows; c++) {
            cpu->kurtosis_dots(t->scratch + c * k, t->weights + c * k, k, cubic, &d);
            kure_folded_add(&sums, t->gamma[c], t->variance[c], &d);
        }
        kure_statistics_compute(t->weights, t->rows * k, &raw);
    }
    const struct kure_folded_step step = kure_folded_finish(&sums, factor * kure_kurtosis_gain(s, rule), rate, max_step, &raw);
    for (size_t c = 0; c < t->rows; c++) {
        double f = kure_fold_factor(t->gamma[c], t->variance[c]);
        const float *x = t->scratch + c * k, *w = t->weights + c * k;
        cpu->kurtosis_dots(x, w, k, cubic, &d);
        if (f != 0)
            cpu->kurtosis_descend_across(t->updates + c * k, x, w, k, cubic, f * step.gain, d.ww > 0 ? d.tw / d.ww : 0);
        t->gamma_updates[c] = kure_folded_gamma(&step, t->gamma_updates[c], t->variance[c], &d);
    }
    return step.is_limited;
}

int kure_kurtosis_apply(const struct kure_tensor *tensor, const struct kure_kurtosis_rule *rule,
                        const struct kure_kurtosis_measure *measure, double factor, double rate,
                        double max_step)
{
    const struct kure_statistics *s = &measure->statistics;
    if (measure->skip != KURE_SKIP_NO) return 0;
    if (rule->granularity == KURE_GRANULARITY_CHANNEL)
        /* a row's K does not depend on its scale, so folding changes nothing */
        return apply_rows(tensor, rule, factor, rate, max_step);
    if (rule->fold && tensor->gamma) return apply_folded(tensor, rule, s, factor, rate, max_step);
    return apply_tensor(tensor, rule, s, factor, rate, max_step);
}
