/*
 * observer.c: the statistics that policies need, from one batch after another.
 *
 * Tested by tests/unit/test_observer.c.
 */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "chunks.h"
#include "error.h"
#include "histogram.h"
#include "policy.h"
#include "quantize_parts.h"

static const double MOMENTUM = 0.1; /* PyTorch's MovingAverageMinMaxObserver */

static int serves_all(const struct kure_observer *o)
{
    return o->policy == KURE_TRUNCATIONS;
}

static int needs(const struct kure_observer *o, enum kure_needs what)
{
    return serves_all(o) || kure_policy_needs(o->policy) == what;
}

static enum kure_status begin(struct kure_observer *o, enum kure_truncation policy, struct kure_error *error)
{
    *o = (struct kure_observer){.policy = policy};
    if (!needs(o, KURE_NEEDS_VALUES)) return KURE_OK;
    o->histogram = calloc(1, sizeof *o->histogram);
    return o->histogram ? KURE_OK : kure_fail_memory(error);
}

enum kure_status kure_observer_init(struct kure_observer *o, const struct kure_quantizer *q, struct kure_error *error)
{
    enum kure_status status = kure_quantizer_check(q, error);
    *o = (struct kure_observer){.policy = q->truncation};
    return status == KURE_OK ? begin(o, q->truncation, error) : status;
}

enum kure_status kure_observer_init_all(struct kure_observer *o, struct kure_error *error)
{
    return begin(o, KURE_TRUNCATIONS, error);
}

void kure_observer_free(struct kure_observer *o)
{
    free(o->histogram);
    o->histogram = NULL;
}

void kure_observer_reset(struct kure_observer *o)
{
    struct kure_observer kept = *o;
    *o = (struct kure_observer){.ema_min = kept.ema_min, .ema_max = kept.ema_max, .ema_batches = kept.ema_batches,
                                .policy = kept.policy, .histogram = kept.histogram};
    if (o->histogram) memset(o->histogram, 0, sizeof *o->histogram);
}

/* 0: some are not finite */
static int floats_of(struct kure_range_keys keys, float *min, float *max)
{
    *min = kure_flush(kure_unorder(keys.min));
    *max = kure_flush(kure_unorder(keys.max));
    return kure_is_finite(*min) && kure_is_finite(*max);
}

/* One pass over x[n], n > 0: min and max, and if asked for the spread about center; 0: some are not finite */
static int look(const float *x, size_t n, int spread, double center, float *min, float *max, struct kure_spread_sums *all)
{
    struct kure_range_keys keys[KURE_CHUNKS_MAX], range = {INT32_MAX, INT32_MIN};
    struct kure_spread_sums sums[KURE_CHUNKS_MAX];
    size_t size = kure_chunk_size(n), chunks = kure_chunk_count(n);
    KURE_PARALLEL(n,
        for (size_t c = 0; c < chunks; c++) {
            kure_cpu()->range(x + c * size, kure_chunk_length(n, c), &keys[c]);
            if (spread) kure_cpu()->spread_sums(x + c * size, kure_chunk_length(n, c), (float)center, &sums[c]);
        });
    *all = (struct kure_spread_sums){0};
    for (size_t c = 0; c < chunks; c++) {
        if (keys[c].min < range.min) range.min = keys[c].min;
        if (keys[c].max > range.max) range.max = keys[c].max;
        if (!spread) continue;
        all->s1 += sums[c].s1;
        all->s2 += sums[c].s2;
        all->deviation += sums[c].deviation;
        all->zeros += sums[c].zeros;
    }
    return floats_of(range, min, max);
}

/* Chan et al.: moments of two sets together */
static void add_moments(struct kure_observer *o, const struct kure_spread_sums *sums, double center, size_t n)
{
    if (o->batches == 0) o->center = center;
    double old = (double)o->n, more = (double)n, total = old + more;
    double mean = o->center + sums->s1 / more, m2 = sums->s2 / more - (sums->s1 / more) * (sums->s1 / more);
    double d = mean - o->mean;
    o->m2 = (old * o->m2 + more * m2) / total + d * d * (old / total) * (more / total);
    o->mean += d * (more / total);
    o->deviation = (old * o->deviation + sums->deviation) / total;
    o->zeros += sums->zeros;
}

static void add_range(struct kure_observer *o, float min, float max, size_t n)
{
    o->min = o->batches && o->min < min ? o->min : min;
    o->max = o->batches && o->max > max ? o->max : max;
    o->ema_min = o->ema_batches ? o->ema_min + MOMENTUM * (min - o->ema_min) : min;
    o->ema_max = o->ema_batches ? o->ema_max + MOMENTUM * (max - o->ema_max) : max;
    o->n += n;
    o->batches++;
    o->ema_batches++;
}

int kure_observer_add_range(struct kure_observer *o, struct kure_range_keys range, size_t n)
{
    float min, max;
    if (!floats_of(range, &min, &max)) return 1;
    add_range(o, min, max, n);
    return 0;
}

uint64_t kure_observer_add(struct kure_observer *o, const float *x, size_t n)
{
    struct kure_spread_sums sums;
    float min, max;
    if (n == 0) return 0;
    int moments = needs(o, KURE_NEEDS_MOMENTS);
    double center = o->center;
    if (moments && o->batches == 0) { /* the mean of the first chunk */
        size_t first = kure_chunk_length(n, 0);
        center = kure_flush_result((float)(kure_cpu()->sum(x, first) / (double)first));
    }
    if (!look(x, n, moments, center, &min, &max, &sums)) {
        uint64_t count = 0;
        for (size_t i = 0; i < n; i++) count += !kure_is_finite(x[i]);
        return count;
    }
    if (moments) add_moments(o, &sums, center, n);
    if (o->histogram) kure_histogram_add(o->histogram, x, n, fmax(max, -min));
    add_range(o, min, max, n);
    return 0;
}

enum kure_status kure_observer_scale(const struct kure_observer *o, const struct kure_quantizer *q,
                                     struct kure_scale *scale, struct kure_error *error)
{
    enum kure_status status = kure_quantizer_check(q, error);
    *scale = (struct kure_scale){0, 0};
    if (status != KURE_OK) return status;
    if (q->bits == 0) return kure_fail(error, KURE_ERROR_INPUT, "bits is 0: a step size needs 2 to 16");
    assert(serves_all(o) || q->truncation == o->policy);
    struct kure_summary s = {.n = o->n, .min = o->min, .max = o->max, .ema_min = o->ema_min, .ema_max = o->ema_max,
                             .mean = o->mean, .m2 = o->m2, .deviation = o->deviation, .zeros = o->zeros};
    if (q->truncation == KURE_TRUNCATION_EMA && o->ema_batches) { /* the averages outlive a reset */
        s.n = 1;
        s.min = o->ema_min;
        s.max = o->ema_max;
    }
    if (o->histogram) s.points = kure_histogram_points(o->histogram);
    return kure_summary_scale(&s, q, scale, error);
}

void kure_observer_error(const struct kure_observer *o, struct kure_scale scale, const struct kure_quantizer *q,
                         struct kure_observed_error *out)
{
    struct kure_levels levels = kure_levels_of(scale, q);
    struct kure_points points = kure_histogram_points(o->histogram);
    double n = 0, below = 0, above = 0;
    *out = (struct kure_observed_error){0};
    for (size_t i = 0; i < points.n; i++) {
        double x = points.value[i], level = levels.step > 0 ? rint(x / levels.step - levels.offset) : 0;
        n += points.count[i];
        if (level < levels.low) below += points.count[i];
        if (level > levels.high) above += points.count[i];
        level = levels.step > 0 ? fmin(fmax(level, levels.low), levels.high) + levels.offset : 0;
        double error = x - level * levels.step;
        out->signal += points.count[i] * x * x;
        out->noise += points.count[i] * error * error;
    }
    if (n > 0) {
        out->below = below / n;
        out->above = above / n;
    }
}
