/*
 * statistics.c: moments of a tensor in one pass.
 *
 * Power sums about a pivot near the mean, in double, give the central moments
 * by the binomial theorem. The pivot is the mean of the first chunk. It is at
 * most sqrt(chunks) <= 32 standard deviations off the mean (a part of share f
 * with a mean off by e makes a variance of at least f/(1-f) e^2), so m4 loses
 * at most 32^4 = 1e6 of double's 1e16, and m6, which only limits a step, 1e9.
 *
 * Tested by tests/unit/test_statistics.c.
 */
#include <math.h>

#include "../backend/backend.h"
#include "chunks.h"
#include "kure.h"
#include "kurtosis_parts.h"

static struct kure_power_sums add(struct kure_power_sums a, struct kure_power_sums b)
{
    return (struct kure_power_sums){
        a.s1 + b.s1, a.s2 + b.s2, a.s3 + b.s3, a.s4 + b.s4, a.s5 + b.s5, a.s6 + b.s6, a.pivot,
        a.min < b.min ? a.min : b.min, a.max > b.max ? a.max : b.max,
    };
}

/* sums[n] = chunks, n > 0: neighbours pairwise, then pairs of pairs, ... */
static struct kure_power_sums add_tree(struct kure_power_sums *sums, size_t n)
{
    for (; n > 1; n = (n + 1) / 2)
        for (size_t i = 0; i < n; i += 2)
            sums[i / 2] = i + 1 < n ? add(sums[i], sums[i + 1]) : sums[i];
    return sums[0];
}

static uint64_t count_nonfinite(const float *x, size_t n)
{
    uint64_t count = 0;
    for (size_t i = 0; i < n; i++) count += !kure_is_finite(x[i]);
    return count;
}

static void central_moments(const struct kure_power_sums *s, struct kure_statistics *out)
{
    double n = (double)out->n;
    double a1 = s->s1 / n, a2 = s->s2 / n, a3 = s->s3 / n;
    double a4 = s->s4 / n, a5 = s->s5 / n, a6 = s->s6 / n, b2 = a1 * a1;
    out->mean = s->pivot + a1;
    out->m2 = a2 - b2;
    out->m3 = a3 - a1 * (3 * a2 - 2 * b2);
    out->m4 = a4 - a1 * (4 * a3 - a1 * (6 * a2 - 3 * b2));
    out->m6 = a6 - a1 * (6 * a5 - a1 * (15 * a4 - a1 * (20 * a3 - a1 * (15 * a2 - 5 * b2))));
    out->min = kure_unorder(s->min);
    out->max = kure_unorder(s->max);
}

void kure_statistics_finish(struct kure_power_sums *sums, size_t chunks, size_t n, struct kure_statistics *out)
{
    struct kure_power_sums total = add_tree(sums, chunks);
    *out = (struct kure_statistics){.n = n};
    if (!isfinite(total.s2)) /* no finite floats add up to infinity in double */
        out->nonfinite = 1;
    else
        central_moments(&total, out);
}

void kure_statistics_compute(const float *x, size_t n, struct kure_statistics *out)
{
    const struct kure_backend *cpu = kure_cpu();
    struct kure_power_sums sums[KURE_CHUNKS_MAX];
    size_t size = kure_chunk_size(n), chunks = kure_chunk_count(n);

    *out = (struct kure_statistics){.n = n};
    if (n == 0) return;

    size_t first = kure_chunk_length(n, 0);
    float pivot = kure_flush_result((float)(cpu->sum(x, first) / (double)first));
    KURE_PARALLEL(n,
        for (size_t c = 0; c < chunks; c++)
            cpu->power_sums(x + c * size, kure_chunk_length(n, c), pivot, &sums[c]));
    kure_statistics_finish(sums, chunks, n, out);
    if (out->nonfinite) out->nonfinite = count_nonfinite(x, n);
}

double kure_statistics_std(const struct kure_statistics *s)
{
    return s->n > 1 ? sqrt(s->m2 * ((double)s->n / (double)(s->n - 1))) : 0;
}

double kure_statistics_skewness(const struct kure_statistics *s)
{
    return s->m2 > 0 ? s->m3 / (s->m2 * sqrt(s->m2)) : 0;
}
