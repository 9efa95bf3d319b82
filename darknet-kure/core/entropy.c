/*
 * entropy.c: the policy kl, TensorRT's entropy calibration.
 *
 * S. Migacz, "8-bit inference with TensorRT", GTC 2017, in the form of NVIDIA's
 * pytorch-quantization (calib/histogram.py, _compute_amax_entropy): magnitudes
 * in 2048 bins of equal width up to the largest; the bin at 0, which relu fills
 * and which costs nothing, gets the count of its neighbour. For i = 128 .. 2048
 * (or from the number of codes up): P = bins 0 .. i-1, its last with all that is
 * clipped; Q = the same bins without the clipped, in 2^(b-1) cells (2^b for values
 * of one sign with a free zero point), each cell's mean in those of its bins that
 * are not empty. The range ends at bin i of the least KL(P||Q), the last of equals.
 *
 * Q is constant in a cell, so that prefix sums give each i in a logarithm a cell:
 *     KL = (sum P ln P - sum_cells P_cell ln q_cell)/sum P - ln sum P + ln sum Q
 */
#include <math.h>

#include "policy.h"

enum { BINS = 2048, FIRST = 128 };

/* of bins 0 .. i-1 */
struct prefix {
    double sum[BINS + 1], entropy[BINS + 1]; /* sum of c, of c ln c */
    int filled[BINS + 1];
};

static double plogp(double p)
{
    return p > 0 ? p * log(p) : 0;
}

static void fill_prefix(const struct kure_points *points, double reach, struct prefix *prefix)
{
    double bins[BINS] = {0};
    for (size_t i = 0; i < points->n; i++) {
        int bin = (int)(fabs((double)points->value[i]) * BINS / reach);
        bins[bin < BINS ? bin : BINS - 1] += points->count[i];
    }
    bins[0] = bins[1];
    *prefix = (struct prefix){{0}, {0}, {0}};
    for (int i = 0; i < BINS; i++) {
        prefix->sum[i + 1] = prefix->sum[i] + bins[i];
        prefix->entropy[i + 1] = prefix->entropy[i] + plogp(bins[i]);
        prefix->filled[i + 1] = prefix->filled[i] + (bins[i] > 0);
    }
}

/* INFINITY where P has something in a bin in which Q has nothing */
static double divergence(const struct prefix *prefix, int i, int cells)
{
    double kept = prefix->sum[i], all = prefix->sum[BINS], last = kept - prefix->sum[i - 1], cross = 0;
    if (all == 0) return 0;
    if (all > kept && last == 0) return INFINITY;
    for (int c = 0; c < cells; c++) {
        int from = (c * i + cells - 1) / cells, to = ((c + 1) * i + cells - 1) / cells;
        double sum = prefix->sum[to] - prefix->sum[from];
        int filled = prefix->filled[to] - prefix->filled[from];
        if (filled == 0) continue;
        cross += (sum + (to == i ? all - kept : 0)) * log(sum / filled);
    }
    double entropy = prefix->entropy[i - 1] + plogp(last + all - kept);
    return (entropy - cross) / all - log(all) + log(kept);
}

struct kure_range kure_policy_kl(const struct kure_summary *s, const struct kure_quantizer *q)
{
    struct prefix prefix;
    int one_sided = s->min >= 0 || s->max <= 0, best = BINS;
    int cells = 1 << (!q->symmetric && one_sided ? q->bits : q->bits - 1);
    double reach = fmax(s->max, -s->min), least = INFINITY;
    if (!(reach > 0)) return (struct kure_range){0, 0};
    fill_prefix(&s->points, reach, &prefix);
    for (int i = cells > FIRST ? cells : FIRST; i <= BINS; i++) {
        double d = divergence(&prefix, i, cells);
        if (d > least) continue;
        least = d;
        best = i;
    }
    reach *= (double)best / BINS;
    return (struct kure_range){fmax(s->min, -reach), fmin(s->max, reach)};
}
