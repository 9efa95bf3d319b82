/*
 * lapq.h: step sizes found together, by the loss that they cause.
 *
 * Source: "Loss Aware Post-Training Quantization", Nahshan et al. 2019 (LAPQ), algorithm 1:
 * start from the steps of least mean |error|^p, with the p at which a parabola through the
 * losses at three p has its lowest point; then a search over all steps jointly. Two things
 * differ from the paper: the loss is that of training images, not of validation images; and
 * the search, on the logarithms of the steps, so that these stay positive, is Rowan's subplex
 * (NLopt's SBPLX) where the paper has Powell's direction sets. The loss has small jumps
 * everywhere, at which line searches get stuck: NLopt's PRAXIS, Brent's form of Powell's
 * method, COBYLA and BOBYQA ended higher on the demo's network.
 */
#ifndef KURE_LAPQ_H
#define KURE_LAPQ_H

#include "kure.h"

struct kure_lapq {
    int count;       /* [in] step sizes */
    /* [in] puts every step where the mean |error|^p is least; returns the loss */
    double (*start)(void *context, double p);
    /* [in] multiplies these steps by ratio[count]; returns the loss */
    double (*loss)(void *context, const double *ratio);
    void *context;   /* [in] */
    double p;        /* [out] */
    double first, least; /* [out] loss of p = 2, which is that of least squared error; and at the end */
};

/* How often at most `start` and `loss` are called. */
int kure_lapq_calls(int count);

/* ratio [out]: [count], on the steps that the last call of start has left, of the least
 * loss that was seen; from 1/2 to 2. The same ones for the same losses. A loss that is not
 * finite counts as the worst. KURE_ERROR_MEMORY. */
KURE_CHECKED enum kure_status kure_lapq(struct kure_lapq *problem, double *ratio, struct kure_error *error);

#endif
