/*
 * quantize_parts.h: simulated quantization apart from its loops over elements, for a backend
 * whose memory the CPU does not see: adapter/simulate_cuda.c. kurtosis_parts.h is the same
 * for the KURE term.
 */
#ifndef KURE_QUANTIZE_PARTS_H
#define KURE_QUANTIZE_PARTS_H

#include "levels.h"
#include "weight_quantizer.h"

/* ---- weights: kure_weights_refresh step by step ------------------------------ */

/* w->factors and w->place from the tensor's gamma and variance; its weights are not looked at */
void kure_weights_find_factors(struct kure_weight_quantizer *w, const struct kure_tensor *tensor);

/* Are the scales to be found anew in this update? After kure_weights_settle. */
int kure_weights_wants_scales(const struct kure_weight_quantizer *w, long long update, int every);

/* The scales of a policy that needs the range alone.
 *   ranges [in]: [rows] of the rows times their factors; those of factor 0 are not looked at
 * KURE_ERROR_INPUT: as kure_scale_find, but without the number of values that are not finite. */
KURE_CHECKED enum kure_status kure_weights_scales_of_ranges(struct kure_weight_quantizer *w, const struct kure_range_keys *ranges,
                                                            struct kure_error *error);

/* What the twin's row and the gradient's are made with: fold_quantize, fold_backward. */
struct kure_fold_codec kure_weights_codec(const struct kure_weight_quantizer *w, size_t row);

/* sums [in]: [kure_chunk_count(row_length)] of fold_backward_sums over the chunks of the row */
void kure_weights_add_descent(struct kure_weight_quantizer *w, size_t row, const struct kure_fold_sums *sums);

/* dorefa's, but for the share. range [in]: of the tensor */
struct kure_dorefa kure_dorefa_constants(struct kure_range_keys range, int bits);

/* ---- activations -------------------------------------------------------------- */

/* kure_observer_add for policies that need the range alone, of n > 0 values. Returns 1 where some are not finite. */
int kure_observer_add_range(struct kure_observer *o, struct kure_range_keys range, size_t n);

/* What kure_learned_step_backward returns, from the sums of the chunks. */
double kure_learned_step_gradient_of(const double *sums, size_t chunks, size_t features, struct kure_scale scale,
                                     const struct kure_quantizer *q);

#endif
