/*
 * least_error.c: the policies mse and lp: the range of least mean |x - Q(x)|^p,
 * for rounding to the nearest.
 *
 * mse, symmetric. For a step D every value x has a level l (code + offset), and
 * the squared error is S - 2 D P + D^2 Q with S = sum x^2, P = sum l*x, Q = sum
 * l^2. For these levels the best step is P/Q with error S - P^2/Q; rounding anew
 * with that step can only lower the error. So each trial of a grid of steps
 * yields the bottom of its own basin, of which there are many. A coarse grid
 * over all sensible steps and a fine one around its best end within a small
 * fraction of a percent of the least error (tests/unit/test_scale.c).
 *
 * Other exponents have no such shortcut, and a free zero point makes two ends of
 * the range: these try the error itself, coarse, then finer around the best.
 */
#include <math.h>

#include "levels.h"
#include "policy.h"

struct trial {
    double error;
    double step;
};

struct search {
    const struct kure_summary *s;
    const struct kure_quantizer *q;
    double p, squares; /* squares: sum of x^2 */
};

static struct kure_levels levels_at(const struct search *search, double step)
{
    return kure_levels_of((struct kure_scale){(float)step, 0}, search->q);
}

/* the error of a step, or for p = 2 that of the best step for its levels */
static struct trial try_step(const struct search *search, double step)
{
    const struct kure_points *points = &search->s->points;
    struct kure_level_sums sums;
    if (search->p != 2)
        return (struct trial){kure_cpu()->error_power(points, levels_at(search, step), search->p), step};
    kure_cpu()->level_sums(points, levels_at(search, step), &sums);
    if (!(sums.lx > 0) || !(sums.ll > 0)) return (struct trial){search->squares, step};
    return (struct trial){search->squares - sums.lx * sums.lx / sums.ll, sums.lx / sums.ll};
}

static struct trial better(struct trial a, struct trial b)
{
    return b.error < a.error ? b : a;
}

/* mean |x|, and sum of x^2 */
static double mean_magnitude(struct search *search)
{
    const struct kure_points *points = &search->s->points;
    double sum = 0, n = 0;
    for (size_t i = 0; i < points->n; i++) {
        sum += fabs(points->total[i]);
        n += points->count[i];
        search->squares += points->total[i] * points->value[i];
    }
    return sum / n;
}

/* Outermost levels below half the mean magnitude (a quarter for p < 2) are never
 * best: the error falls as they move out. */
static double lowest_step(double magnitude, const struct search *search)
{
    return fmax(magnitude / (1 << search->q->bits) / (search->p < 2 ? 2 : 1), 0x1p-120);
}

static struct kure_range symmetric(struct search *search)
{
    const struct kure_quantizer *q = search->q;
    double covering = kure_range_step((struct kure_range){search->s->min, search->s->max}, q);
    double lowest = lowest_step(mean_magnitude(search), search);
    struct trial best = try_step(search, covering), next;

    for (double step = 1.05 * covering; step >= lowest; step *= 0.96) best = better(best, try_step(search, step));

    /* Near the covering step the error rises and falls with every level that
     * comes in range, that is, once in 1/2^(bits-1) of the step. */
    int fine = 16 + (1 << q->bits) / 3;
    double from = 0.94 * best.step, width = 0.12 * best.step / fine;
    for (int i = 0; i <= fine; i++) best = better(best, try_step(search, from + i * width));

    if (search->p == 2)
        while ((next = try_step(search, best.step)).error < best.error) best = next;
    struct kure_levels unit = levels_at(search, 1);
    return (struct kure_range){0, best.step * ((double)unit.high + unit.offset)};
}

/* ---- a free zero point ------------------------------------------------------- */

struct range_trial {
    double error;
    struct kure_range range;
};

static struct kure_range clipped(double min, double max, double bound)
{
    return (struct kure_range){fmax(min, -bound), fmin(max, bound)};
}

static struct range_trial try_range(const struct search *search, struct kure_range range)
{
    double step = kure_range_step(range, search->q);
    struct kure_scale scale = {(float)step, kure_range_zero_point(range, step, search->q)};
    double error = kure_cpu()->error_power(&search->s->points, kure_levels_of(scale, search->q), search->p);
    return (struct range_trial){error, range};
}

static struct range_trial better_range(struct range_trial a, struct range_trial b)
{
    return b.error < a.error ? b : a;
}

static struct kure_range asymmetric(struct search *search)
{
    enum { TRIALS = 24 };
    double min = fmin(search->s->min, 0), max = fmax(search->s->max, 0);
    double lowest = lowest_step(mean_magnitude(search), search);
    struct range_trial best = {INFINITY, {min, max}};

    for (double bound = fmax(max, -min); kure_range_step(clipped(min, max, bound), search->q) >= lowest; bound *= 0.96)
        best = better_range(best, try_range(search, clipped(min, max, bound)));
    for (double width = 0.5; width > 0.01; width /= 3) /* each end by itself */
        for (int end = 0; end < 2; end++) {
            struct kure_range r = best.range;
            if ((end ? r.low : r.high) == 0) continue;
            for (int i = 0; i <= TRIALS; i++) {
                double share = 1 - width + 2 * width * i / TRIALS;
                struct kure_range next = {end ? fmax(share * r.low, min) : r.low, end ? r.high : fmin(share * r.high, max)};
                best = better_range(best, try_range(search, next));
            }
        }
    return best.range;
}

static struct kure_range least_error(const struct kure_summary *s, const struct kure_quantizer *q, double p)
{
    struct search search = {s, q, p, 0};
    return q->symmetric ? symmetric(&search) : asymmetric(&search);
}

struct kure_range kure_policy_mse(const struct kure_summary *s, const struct kure_quantizer *q)
{
    return least_error(s, q, 2);
}

struct kure_range kure_policy_lp(const struct kure_summary *s, const struct kure_quantizer *q)
{
    return least_error(s, q, q->truncation_value);
}
