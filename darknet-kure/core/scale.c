/*
 * scale.c: from the values of a tensor, or from statistics, to step and zero
 * point.
 *
 * Tested by tests/unit/test_scale.c and test_policies.c.
 */
#include <math.h>
#include <string.h>

#include "chunks.h"
#include "error.h"
#include "histogram.h"
#include "levels.h"
#include "policy.h"

static const double STEP_MIN = 0x1p-100, STEP_MAX = 0x1p100;

static kure_policy *const policies[] = {
#define KURE_POLICY(ENUM, name, needs, bits, value, from, to, help, source) \
    [KURE_TRUNCATION_##ENUM] = kure_policy_##name,
#include "policies.def"
#undef KURE_POLICY
};

/* symmetric: the smallest step whose outermost levels lie at or beyond the range */
double kure_range_step(struct kure_range range, const struct kure_quantizer *q)
{
    double low = fmin(range.low, 0), high = fmax(range.high, 0);
    if (!q->symmetric) return (high - low) / ((1 << q->bits) - 1);
    struct kure_levels levels = kure_levels_of((struct kure_scale){1, 0}, q);
    return fmax(high / ((double)levels.high + levels.offset), low / ((double)levels.low + levels.offset));
}

int kure_range_zero_point(struct kure_range range, double step, const struct kure_quantizer *q)
{
    int low = kure_lowest_code(q), high = kure_highest_code(q);
    if (q->symmetric) return 0;
    double z = step > 0 ? low - rint(fmin(range.low, 0) / step) : low;
    return z < low ? low : z > high ? high : (int)z;
}

/* Powers of two have no ties: the limit between 2^k and 2^(k+1) is sqrt(2) 2^k. */
static double nearest_power_of_two(double step)
{
    int exponent;
    double m = frexp(step, &exponent); /* 1/2 <= m < 1 */
    return ldexp(1, m * m < 0.5 ? exponent - 1 : exponent);
}

enum kure_status kure_summary_scale(const struct kure_summary *s, const struct kure_quantizer *q,
                                    struct kure_scale *scale, struct kure_error *error)
{
    struct kure_range all = {s->min, s->max}, range = all;
    *scale = (struct kure_scale){0, kure_range_zero_point(all, 0, q)};
    if (s->n == 0 || kure_range_step(all, q) == 0) return KURE_OK;
    if (kure_range_step(all, q) >= STEP_MIN || q->truncation == KURE_TRUNCATION_FIXED) range = policies[q->truncation](s, q);
    if (kure_range_step(range, q) == 0) range = all; /* a policy that covers nothing */

    double covering = kure_range_step(range, q), step = covering * q->step_ratio;
    if (step < STEP_MIN || step > STEP_MAX)
        return kure_fail(error, KURE_ERROR_INPUT, "step size %g is outside 2^-100 .. 2^100", step);
    if (q->step == KURE_STEP_POWER_OF_TWO) step = nearest_power_of_two(step);
    scale->step = (float)step;
    scale->zero_point = kure_range_zero_point(range, (float)covering, q);
    return KURE_OK;
}

struct kure_scale kure_scale_times(struct kure_scale scale, double ratio, const struct kure_quantizer *q)
{
    if (ratio == 1) return scale;
    double step = scale.step * ratio;
    if (q->step == KURE_STEP_POWER_OF_TWO && step > 0) step = nearest_power_of_two(step);
    return (struct kure_scale){(float)step, scale.zero_point};
}

/* ---- of one tensor ----------------------------------------------------------- */

static void add_deviation(const float *x, size_t n, struct kure_summary *s)
{
    struct kure_spread_sums sums[KURE_CHUNKS_MAX];
    size_t size = kure_chunk_size(n), chunks = kure_chunk_count(n);
    float center = kure_flush_result((float)s->mean);
    double deviation = 0;
    KURE_PARALLEL(n,
        for (size_t c = 0; c < chunks; c++)
            kure_cpu()->spread_sums(x + c * size, kure_chunk_length(n, c), center, &sums[c]));
    for (size_t c = 0; c < chunks; c++) {
        deviation += sums[c].deviation;
        s->zeros += sums[c].zeros;
    }
    s->deviation = deviation / (double)n;
}

/* The summary of values of which the policy needs them all. They lie on the stack,
 * 164 KiB: the rows of a tensor are searched in parallel, and hooks do not allocate. */
static enum kure_status find_by_values(const float *x, size_t n, struct kure_summary *s, const struct kure_quantizer *q,
                                       struct kure_scale *scale, struct kure_error *error)
{
    struct kure_histogram h;
    if (n < KURE_HISTOGRAM_BINS) {
        s->points = kure_histogram_values(&h, x, n);
    } else {
        memset(&h, 0, sizeof h);
        kure_histogram_add(&h, x, n, fmax(s->max, -s->min));
        s->points = kure_histogram_points(&h);
    }
    return kure_summary_scale(s, q, scale, error);
}

enum kure_status kure_scale_find(const float *x, size_t n, const struct kure_quantizer *q, struct kure_scale *scale,
                                 struct kure_error *error)
{
    struct kure_statistics t;
    enum kure_status status = kure_quantizer_check(q, error);

    *scale = (struct kure_scale){0, 0};
    if (status != KURE_OK) return status;
    if (q->bits == 0) return kure_fail(error, KURE_ERROR_INPUT, "bits is 0: a step size needs 2 to 16");
    if (q->truncation == KURE_TRUNCATION_EMA)
        return kure_fail(error, KURE_ERROR_INPUT, "truncation ema is for activations: weights come in no batches to average over");
    kure_statistics_compute(x, n, &t);
    if (t.nonfinite)
        return kure_fail(error, KURE_ERROR_INPUT, "%llu of %zu values are not finite", (unsigned long long)t.nonfinite, n);

    struct kure_summary s = {.n = n, .min = t.min, .max = t.max, .mean = t.mean, .m2 = t.m2};
    enum kure_needs needs = kure_policy_needs(q->truncation);
    if (needs == KURE_NEEDS_VALUES && n) return find_by_values(x, n, &s, q, scale, error);
    if (needs == KURE_NEEDS_MOMENTS && n) add_deviation(x, n, &s);
    return kure_summary_scale(&s, q, scale, error);
}
