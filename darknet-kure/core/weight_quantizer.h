/*
 * weight_quantizer.h: the fake-quantized twin of a weight tensor in training.
 *
 * values = Q(w), or with folding Q(w*s)/s, s = gamma/sqrt(variance + 1e-5) of each row:
 * the grid is that of the folded tensor. Rows with |s| < 2^-40 of the largest stay
 * float. The twin is made once an update; its gradient goes straight through to w where
 * the quantizer did not clip.
 *
 * Frozen batch norm is no layer any more but part of the weights: values = Q(w*s), with
 * biases beta - mean*s, and gamma learns through s.
 */
#ifndef KURE_WEIGHT_QUANTIZER_H
#define KURE_WEIGHT_QUANTIZER_H

#include "learned_parameter.h"

struct kure_weight_quantizer {
    struct kure_quantizer q; /* bits = 0: none, and nothing below holds */
    size_t rows, row_length;
    int fold;
    int frozen;               /* with fold; set before a refresh */
    struct kure_noise noise;  /* of this update; set before a refresh */
    enum kure_method method;  /* ste, lsq or dorefa, which works on the raw tensor */
    int has_scales;
    int has_gradient;         /* of the learned steps, for the update that ends */
    double *descent;          /* [rows] negative gradients of the learned steps; of one step they add up */
    float *values;            /* [rows][row_length] */
    struct kure_scale *scales; /* [rows], or [1] with granularity tensor */
    float *factors;           /* [rows] s; 0: the row stays float. Without folding all 1 */
    float *gains;             /* [rows] with frozen batch norm s, else 1 */
    size_t *place;            /* [rows] number of the row among those that are quantized */
    /* [slots][rows] what a file keeps of the scales; without LSQ: value is the step. There
     * are several where sample= draws widths for steps that are learned. */
    struct kure_learned_parameter *states, *state; /* state: of this update */
    int *slot_bits;           /* [slots]; the first one is the plan's */
    int slots;
    float *biases;            /* [rows] with frozen batch norm: beta - mean*s */
    float *bias_gradient;     /* [rows] room for the negative gradient of these */
};

/* What of a layer's batch norm the weights do not have; [rows] each. */
struct kure_frozen_batchnorm {
    const float *beta, *mean;
    float *beta_updates; /* [in, out] */
};

/* fold [in]: 1: with folding; every tensor passed later has batch norm */
KURE_CHECKED enum kure_status kure_weights_init(struct kure_weight_quantizer *w, const struct kure_quantizer *q, size_t rows,
                                                size_t row_length, int fold, struct kure_error *error);
void kure_weights_free(struct kure_weight_quantizer *w);

/* Makes the twin.
 *   tensor [in]: the master weights; scratch: [rows][row_length], used with folding
 *   update, every [in]: policies that search find their scales anew where update is a
 *                       multiple of every, or where there are none
 *   rate   [in]: of the update that ended, for learned steps
 * KURE_ERROR_INPUT: weights that are not finite, a step outside 2^-100 .. 2^100. */
KURE_CHECKED enum kure_status kure_weights_refresh(struct kure_weight_quantizer *w, const struct kure_tensor *tensor,
                                                   long long update, int every, const struct kure_learned_rate *rate,
                                                   struct kure_error *error);

/* The scales alone, as a refresh finds them, and that of a row; step 0: a row of zeros, or one that stays float. */
KURE_CHECKED enum kure_status kure_weights_rescale(struct kure_weight_quantizer *w, const struct kure_tensor *tensor, long long update,
                                                   int every, const struct kure_learned_rate *rate, struct kure_error *error);
struct kure_scale kure_weights_scale(const struct kure_weight_quantizer *w, size_t row);

/* Room for a learned step of another width; before the first refresh. */
KURE_CHECKED enum kure_status kure_weights_add_slot(struct kure_weight_quantizer *w, int bits, struct kure_error *error);

/* Quantizes by q, which sample= has drawn, from the next refresh on; after kure_weights_settle. */
void kure_weights_select(struct kure_weight_quantizer *w, const struct kure_quantizer *q);

/* Moves the learned steps at once, if the update has left them a gradient. */
void kure_weights_settle(struct kure_weight_quantizer *w, const struct kure_learned_rate *rate);

/* Takes over scales that a file has put into `state`. */
void kure_weights_restore(struct kure_weight_quantizer *w);

/* Can this quantizer clip a weight? 0: the gradient needs no mask. */
int kure_weights_clip(const struct kure_weight_quantizer *w);

/* updates += gradient where the master weight was not clipped. Both [rows][row_length];
 * gradient [in, out] is room for dorefa's.
 * frozen [in, out]: NULL, or with frozen batch norm what it leaves: gradient is that of
 * Q(w*s), bias_gradient that of the biases; w, gamma and beta get theirs by the chain
 * rule, mean and variance being constants. */
void kure_weights_add_gradient(struct kure_weight_quantizer *w, const struct kure_tensor *tensor, float *gradient, float *updates,
                               const struct kure_frozen_batchnorm *frozen);

/* w->biases from the statistics of a frozen batch norm. */
void kure_weights_fold_biases(struct kure_weight_quantizer *w, const struct kure_tensor *tensor, const struct kure_frozen_batchnorm *frozen);

#endif
