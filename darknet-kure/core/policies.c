/*
 * policies.c: the truncation policies that are formulas, and the table of all.
 *
 * gauss, laplace. ACIQ (Banner et al. 2019): values of unit scale clipped at r
 * have the expected squared error of the clipped tails plus (2r/2^M)^2/12 for
 * the 2^M intervals between -r and r:
 *     normal   (1 + r^2) erfc(r/sqrt 2) - sqrt(2/pi) r exp(-r^2/2) + r^2/(3 4^M)
 *     Laplace  2 exp(-r) + r^2/(3 4^M)
 * Their derivatives are zero where
 *     r erfc(r/sqrt 2) - sqrt(2/pi) exp(-r^2/2) + r/(3 4^M) = 0
 *     r exp(r) = 3 4^M
 * which have one root each; bisection finds it. Values of one sign (behind a
 * relu) are half of a density about 0: their spread is about 0, without zeros,
 * and a free zero point gives them twice the intervals.
 *
 * Tested by tests/unit/test_policies.c.
 */
#include <math.h>

#include "policy.h"

static const enum kure_needs needs_of[] = {
#define KURE_POLICY(ENUM, name, needs, bits, value, from, to, help, source) \
    [KURE_TRUNCATION_##ENUM] = KURE_NEEDS_##needs,
#include "policies.def"
#undef KURE_POLICY
};

enum kure_needs kure_policy_needs(enum kure_truncation policy)
{
    return needs_of[policy];
}

/* low..high as far as values lie there */
static struct kure_range within(const struct kure_summary *s, double low, double high)
{
    return (struct kure_range){fmax(low, s->min), fmin(high, s->max)};
}

struct kure_range kure_policy_minmax(const struct kure_summary *s, const struct kure_quantizer *q)
{
    (void)q;
    return (struct kure_range){s->min, s->max};
}

struct kure_range kure_policy_ema(const struct kure_summary *s, const struct kure_quantizer *q)
{
    (void)q;
    return (struct kure_range){s->ema_min, s->ema_max};
}

struct kure_range kure_policy_sigma(const struct kure_summary *s, const struct kure_quantizer *q)
{
    double reach = q->truncation_value * sqrt(fmax(s->m2, 0));
    return within(s, s->mean - reach, s->mean + reach);
}

struct kure_range kure_policy_fixed(const struct kure_summary *s, const struct kure_quantizer *q)
{
    double bound = q->truncation_value;
    return (struct kure_range){s->min < 0 || q->symmetric ? -bound : 0, s->max > 0 || q->symmetric ? bound : 0};
}

/* ---- ACIQ ------------------------------------------------------------------ */

static double normal_slope(double r, double intervals)
{
    const double root_2_over_pi = 0.79788456080286536;
    return r * erfc(r * 0.70710678118654752) - root_2_over_pi * exp(-r * r / 2) + r / (12 * intervals * intervals);
}

static double laplace_slope(double r, double intervals)
{
    return r / (12 * intervals * intervals) - exp(-r);
}

/* intervals: half of 2^M, between 0 and r */
static double best_clip(double (*slope)(double, double), double intervals)
{
    double low = 0, high = 64; /* slope is negative at 0, positive at 64 */
    for (int i = 0; i < 60; i++) {
        double middle = (low + high) / 2;
        if (slope(middle, intervals) < 0) low = middle;
        else high = middle;
    }
    return low;
}

double kure_aciq_clip_normal(double intervals)
{
    return best_clip(normal_slope, intervals);
}

double kure_aciq_clip_laplace(double intervals)
{
    return best_clip(laplace_slope, intervals);
}

static int one_sided(const struct kure_summary *s)
{
    return s->min >= 0 || s->max <= 0;
}

/* spread: of all values about their mean; spread_one: of those that are not 0 about 0 */
static struct kure_range aciq(const struct kure_summary *s, const struct kure_quantizer *q,
                              double (*slope)(double, double), double spread, double spread_one)
{
    double intervals = ldexp(1, q->bits - 1);
    if (!one_sided(s)) {
        double reach = best_clip(slope, intervals) * spread;
        return within(s, s->mean - reach, s->mean + reach);
    }
    double reach = best_clip(slope, q->symmetric ? intervals : 2 * intervals) * spread_one;
    return within(s, -reach, reach);
}

struct kure_range kure_policy_gauss(const struct kure_summary *s, const struct kure_quantizer *q)
{
    double m2 = fmax(s->m2, 0), others = (double)(s->n - s->zeros);
    double about_zero = others > 0 ? (m2 + s->mean * s->mean) * (double)s->n / others : 0;
    return aciq(s, q, normal_slope, sqrt(m2), sqrt(about_zero));
}

struct kure_range kure_policy_laplace(const struct kure_summary *s, const struct kure_quantizer *q)
{
    double others = (double)(s->n - s->zeros);
    return aciq(s, q, laplace_slope, s->deviation, others > 0 ? fabs(s->mean) * (double)s->n / others : 0);
}

/* ---- percentile ------------------------------------------------------------ */

enum walk { FROM_TOP, FROM_BOTTOM, BY_MAGNITUDE };

/* The value at `index` (with fractions between two values) of the order that
 * `walk` says, its first element being the largest, smallest, or farthest. */
static double value_at(const struct kure_points *p, double index, enum walk walk)
{
    double whole = floor(index), passed = 0, value = NAN;
    size_t low = 0, high = p->n;
    while (low < high) {
        if (p->count[high - 1] == 0) {
            high--;
            continue;
        }
        if (p->count[low] == 0) {
            low++;
            continue;
        }
        int top = walk == FROM_TOP || (walk == BY_MAGNITUDE && fabsf(p->value[high - 1]) >= fabsf(p->value[low]));
        size_t i = top ? --high : low++;
        double v = walk == BY_MAGNITUDE ? fabsf(p->value[i]) : p->value[i];
        if (!isnan(value)) return value + (index - whole) * (v - value); /* index lay between two points */
        passed += p->count[i];
        if (passed <= whole) continue;
        if (whole + 1 < passed || index == whole) return v;
        value = v;
    }
    return isnan(value) ? 0 : value;
}

/* numpy.percentile's default, linear between neighbours */
struct kure_range kure_policy_percentile(const struct kure_summary *s, const struct kure_quantizer *q)
{
    double index = (100 - q->truncation_value) / 100 * (double)(s->n - 1);
    if (!q->symmetric)
        return (struct kure_range){value_at(&s->points, index, FROM_BOTTOM), value_at(&s->points, index, FROM_TOP)};
    double reach = value_at(&s->points, index, BY_MAGNITUDE);
    return within(s, -reach, reach);
}
