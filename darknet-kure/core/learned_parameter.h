/*
 * learned_parameter.h: a learned step as training keeps it: LSQ's, or its exponent.
 *
 * Four floats, so that a file holds all of it: the value, the code that stands for 0
 * (not learned), the least step, the momentum. It starts at the step that the truncation
 * policy finds, which is better than the paper's 2 mean|x|/sqrt(Q_p) for weights that
 * are trained already, and moves as Darknet moves a bias: u += -gradient summed over the
 * images; value += rate/B * u; u *= momentum.
 */
#ifndef KURE_LEARNED_PARAMETER_H
#define KURE_LEARNED_PARAMETER_H

#include "kure.h"

struct kure_learned_parameter {
    float value, zero_point, least, momentum; /* least = 0: not started */
};

enum { KURE_LEARNED_FLOATS = sizeof(struct kure_learned_parameter) / sizeof(float) };

/* What an update does to all of them. */
struct kure_learned_rate {
    double rate;     /* of the update, times learned_rate, over B */
    double momentum; /* 0..1 */
    double decay;    /* learned_decay times B */
};

/* What names it in a file: the value of "lsq" is a step, that of "tqt" an exponent. */
const char *kure_learned_name(const struct kure_quantizer *q);

/* scale.step = 0 (all values are 0): starts at 1/Q_p */
void kure_learned_begin(struct kure_learned_parameter *p, struct kure_scale scale, const struct kure_quantizer *q);
struct kure_scale kure_learned_scale(const struct kure_learned_parameter *p, const struct kure_quantizer *q);

/* descent [in]: the negative gradient, summed over the images of the update */
void kure_learned_descend(struct kure_learned_parameter *p, double descent, const struct kure_learned_rate *rate,
                          const struct kure_quantizer *q);

#endif
