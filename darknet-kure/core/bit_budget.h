/*
 * bit_budget.h: bits for every layer's weights, for a given average over all weights.
 *
 * Every layer begins at the largest width. Then, again and again, the one layer goes down to
 * its next width whose loss grows least for each bit that this saves, until the average is
 * reached: a greedy answer, on the assumption that the losses of layers add up. What
 * counts as loss is what the layer costs when it alone is quantized; one that falls with fewer
 * bits (measurements have noise) counts as that of more bits.
 */
#ifndef KURE_BIT_BUDGET_H
#define KURE_BIT_BUDGET_H

#include "kure.h"

struct kure_bit_budget {
    int layers, widths;
    const int *bits;       /* [widths] descending */
    const size_t *weights; /* [layers] > 0 */
    const double *loss;    /* [layers][widths] of that layer alone, in any unit; NaN counts as infinite */
    const double *noise;   /* [layers][widths] noise/signal of its weights: decides between equal losses */
    double average;        /* bits of all weights together, at most: from bits[widths - 1] */
};

/* bits [out]: [layers]; returns their average over the weights. */
double kure_bit_budget(const struct kure_bit_budget *b, int *bits);

#endif
