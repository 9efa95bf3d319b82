/*
 * fold.h: batch-norm folding of a weight tensor, row by row:
 * folded_c = gamma_c / sqrt(variance_c + 1e-5) * w_c.
 */
#ifndef KURE_FOLD_H
#define KURE_FOLD_H

#include "kure.h"
#include "../math/kure_math.h" /* kure_fold_sigma, kure_fold_factor */

/* tensor->scratch = the folded weights; tensor->gamma is not NULL */
void kure_fold(const struct kure_tensor *tensor);

#endif
