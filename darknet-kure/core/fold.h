/*
 * fold.h: batch-norm folding of a weight tensor, row by row:
 * folded_c = gamma_c / sqrt(variance_c + 1e-5) * w_c.
 */
#ifndef KURE_FOLD_H
#define KURE_FOLD_H

#include <math.h>

#include "kure.h"
#include "../math/kure_math.h"

static inline double kure_fold_sigma(float variance)
{
    return sqrt((double)variance + 1e-5);
}

static inline float kure_fold_factor(float gamma, float variance)
{
    return kure_flush_result((float)(kure_flush(gamma) / kure_fold_sigma(variance)));
}

/* tensor->scratch = the folded weights; tensor->gamma is not NULL */
void kure_fold(const struct kure_tensor *tensor);

#endif
