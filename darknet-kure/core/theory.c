/*
 * theory.c: see theory.h. Tested by tests/unit/test_theory.c.
 *
 * E[X l] and E[l^2], from the level l0 next to 0: whenever X passes a limit t
 * between two levels away from 0, |l| grows by one, so with p = P(X beyond t) and
 * m = E[X; X beyond t]
 *     E[X l] = l0 E[X] + sum over t of |m|
 *     E[l^2] = l0^2    + sum over t of 2 |t|/D p
 * in which no two large terms cancel. Q rounds to the nearest, so MSE is
 * continuous and d MSE/d D = 2 (D E[l^2] - E[X l]).
 */
#include "theory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "levels.h"
#include "policy.h"

static const double UNIFORM_A = 1.7320508075688773, LAPLACE_B = 0.70710678118654752, ROOT_HALF = 0.70710678118654752;
static const double ROOT_2_OVER_PI = 0.79788456080286536;

static const char *const density_names[] = {
    [KURE_DENSITY_UNIFORM] = "uniform", [KURE_DENSITY_NORMAL] = "normal", [KURE_DENSITY_LAPLACE] = "laplace"};

const char *kure_density_name(enum kure_density density)
{
    return density_names[density];
}

/* ---- X ------------------------------------------------------------------------ */

struct kure_source kure_source_of_density(enum kure_density density)
{
    static const double reach[] = {[KURE_DENSITY_UNIFORM] = UNIFORM_A, [KURE_DENSITY_NORMAL] = 7, [KURE_DENSITY_LAPLACE] = 18};
    static const double magnitude[] = {
        [KURE_DENSITY_UNIFORM] = UNIFORM_A / 2, [KURE_DENSITY_NORMAL] = ROOT_2_OVER_PI, [KURE_DENSITY_LAPLACE] = LAPLACE_B};
    return (struct kure_source){.density = density, .squares = 1, .low = -reach[density], .high = reach[density],
                                .magnitude = magnitude[density]};
}

static int ascending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

enum kure_status kure_source_of_values(const float *x, size_t n, struct kure_source *source, struct kure_error *error)
{
    struct kure_source s = {.values = malloc(n * sizeof(float)), .sums = malloc((n + 1) * sizeof(double)), .n = n};
    *source = s;
    if (!s.values || !s.sums) {
        kure_source_free(source);
        return kure_fail_memory(error);
    }
    memcpy(s.values, x, n * sizeof(float));
    qsort(s.values, n, sizeof(float), ascending);
    s.sums[0] = 0;
    for (size_t i = 0; i < n; i++) {
        double v = s.values[i];
        s.sums[i + 1] = s.sums[i] + v;
        s.squares += v * v;
        s.magnitude += fabs(v);
    }
    s.mean = s.sums[n] / (double)n;
    s.squares /= (double)n;
    s.magnitude /= (double)n;
    s.low = s.values[0];
    s.high = s.values[n - 1];
    *source = s;
    return KURE_OK;
}

void kure_source_free(struct kure_source *source)
{
    free(source->values);
    free(source->sums);
    source->values = NULL;
    source->sums = NULL;
}

/* ---- MSE ------------------------------------------------------------------------ */

struct beyond {
    double p, m; /* P(X beyond t), |E[X; X beyond t]| */
};

/* t >= 0; the densities are symmetric */
static struct beyond beyond_density(enum kure_density density, double t)
{
    switch (density) {
    case KURE_DENSITY_UNIFORM:
        if (t >= UNIFORM_A) return (struct beyond){0, 0};
        return (struct beyond){(UNIFORM_A - t) / (2 * UNIFORM_A), (UNIFORM_A - t) * (UNIFORM_A + t) / (4 * UNIFORM_A)};
    case KURE_DENSITY_NORMAL:
        return (struct beyond){erfc(t * ROOT_HALF) / 2, ROOT_2_OVER_PI / 2 * exp(-t * t / 2)};
    default:
        return (struct beyond){exp(-t / LAPLACE_B) / 2, (t + LAPLACE_B) * exp(-t / LAPLACE_B) / 2};
    }
}

/* How many values are at most t. */
static size_t count_up_to(const struct kure_source *s, double t)
{
    size_t low = 0, high = s->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (s->values[middle] <= t) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* sign: 1: above t >= 0; -1: below t <= 0 */
static struct beyond beyond(const struct kure_source *s, double t, int sign)
{
    if (!s->values) return beyond_density(s->density, fabs(t));
    size_t i = count_up_to(s, t);
    double n = (double)s->n;
    if (sign > 0) return (struct beyond){(double)(s->n - i) / n, (s->sums[s->n] - s->sums[i]) / n};
    return (struct beyond){(double)i / n, -s->sums[i] / n};
}

struct sums {
    double lx, ll; /* E[X l], E[l^2] */
};

static struct sums level_sums(const struct kure_source *s, const struct kure_quantizer *q, double step)
{
    struct kure_levels levels = kure_levels_of((struct kure_scale){1, 0}, q);
    double nearest = levels.offset, highest = levels.high + levels.offset, lowest = levels.low + levels.offset;
    struct sums sums = {nearest * s->mean, nearest * nearest};
    for (double limit = nearest + 0.5; limit < highest && limit * step < s->high; limit++) {
        struct beyond b = beyond(s, limit * step, 1);
        sums.lx += b.m;
        sums.ll += 2 * limit * b.p;
    }
    for (double limit = nearest - 0.5; limit > lowest && limit * step > s->low; limit--) {
        struct beyond b = beyond(s, limit * step, -1);
        sums.lx += b.m;
        sums.ll -= 2 * limit * b.p;
    }
    return sums;
}

double kure_source_mse(const struct kure_source *s, const struct kure_quantizer *q, double step)
{
    struct sums sums = level_sums(s, q, step);
    return fmax(s->squares - step * (2 * sums.lx - step * sums.ll), 0);
}

/* ---- the best step --------------------------------------------------------------- */

struct trial {
    double mse, step;
};

/* The best step for the levels that `step` gives, and the MSE if they stay as they
 * are: no less than that of rounding anew. */
static struct trial try_step(const struct kure_source *s, const struct kure_quantizer *q, double step)
{
    struct sums sums = level_sums(s, q, step);
    if (!(sums.lx > 0) || !(sums.ll > 0)) return (struct trial){s->squares, step};
    return (struct trial){s->squares - sums.lx * sums.lx / sums.ll, sums.lx / sums.ll};
}

static struct trial better(struct trial a, struct trial b)
{
    return b.mse < a.mse ? b : a;
}

/* Where d MSE/d D goes from - to + between low and high. */
static double find_zero(const struct kure_source *s, const struct kure_quantizer *q, double low, double high)
{
    for (int i = 0; i < 60; i++) {
        double middle = (low + high) / 2;
        struct sums sums = level_sums(s, q, middle);
        if (middle * sums.ll < sums.lx) low = middle;
        else high = middle;
    }
    return high;
}

double kure_source_best_step(const struct kure_source *s, const struct kure_quantizer *q)
{
    enum { FINE = 64 };
    const double ratio = 0.9985;
    struct kure_levels levels = kure_levels_of((struct kure_scale){1, 0}, q);
    double covering = fmax(s->high / ((double)levels.high + levels.offset), s->low / ((double)levels.low + levels.offset));
    double lowest = s->magnitude / (1 << q->bits); /* below, MSE falls as the outermost levels move out */
    if (!(s->squares > 0)) return 0;

    struct trial best = {INFINITY, covering};
    double at = covering; /* the trial that led to best.step */
    for (double step = 2.1 * covering; step >= lowest; step *= ratio) {
        struct trial next = try_step(s, q, step);
        if (next.mse < best.mse) {
            best = next;
            at = step;
        }
    }
    double width = (1 / ratio - ratio) * at / FINE;
    for (int i = 0; i <= FINE; i++) best = better(best, try_step(s, q, ratio * at + i * width));
    if (s->values) {
        struct trial next;
        while ((next = try_step(s, q, best.step)).mse < best.mse) best = next;
        return best.step;
    }
    /* the trials' own steps lag behind the zero of the derivative, but stay in its basin */
    return find_zero(s, q, ratio * at, at / ratio);
}

/* ---- the paper ---------------------------------------------------------------------- */

double kure_paper_mse(enum kure_density density, int bits, double step)
{
    double t = ldexp(step, bits - 1), inside = step * step / 12;
    switch (density) {
    case KURE_DENSITY_UNIFORM:
        if (t > UNIFORM_A) return inside;
        return pow(UNIFORM_A - t, 3) / (3 * UNIFORM_A) + ldexp(pow(step, 3), bits) / (24 * UNIFORM_A);
    case KURE_DENSITY_NORMAL:
        return (1 + t * t) * erfc(t * ROOT_HALF) - ROOT_2_OVER_PI * t * exp(-t * t / 2) + inside;
    default:
        return 2 * LAPLACE_B * LAPLACE_B * exp(-t / LAPLACE_B) + inside;
    }
}

double kure_paper_step(enum kure_density density, int bits)
{
    double intervals = ldexp(1, bits - 1);
    switch (density) {
    case KURE_DENSITY_UNIFORM: return 2 * UNIFORM_A / (ldexp(1, bits) + 1);
    case KURE_DENSITY_NORMAL: return kure_aciq_clip_normal(intervals) / intervals;
    default: return LAPLACE_B * kure_aciq_clip_laplace(intervals) / intervals;
    }
}

double kure_paper_curvature(enum kure_density density, int bits, double step)
{
    double t = ldexp(step, bits - 1), squared = ldexp(1, 2 * bits - 1);
    switch (density) {
    case KURE_DENSITY_UNIFORM:
        if (t > UNIFORM_A) return 1.0 / 6;
        return (ldexp(step, bits - 2) + squared * (UNIFORM_A - t)) / UNIFORM_A;
    case KURE_DENSITY_NORMAL: return squared * erfc(t * ROOT_HALF) + 1.0 / 6;
    default: return squared * exp(-t / LAPLACE_B) + 1.0 / 6;
    }
}

double kure_paper_gamma(enum kure_density density, int bits, double epsilon)
{
    double step = density == KURE_DENSITY_UNIFORM ? ldexp(UNIFORM_A, 1 - bits) : kure_paper_step(density, bits);
    return kure_paper_curvature(density, bits, step) * epsilon * epsilon / 2;
}
