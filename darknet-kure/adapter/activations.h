/*
 * activations.h: one quantizer of a layer's outputs: what it observes, its scales,
 * and its pass over a minibatch.
 *
 * The scales in force in update t come from the values seen up to update t-1; the
 * first minibatch of all sets them from itself. Every policy finds a range from the
 * values of one update; the ranges of the updates are combined: by their extremes
 * (minmax), else by a moving average.
 */
#ifndef KURE_ACTIVATIONS_H
#define KURE_ACTIVATIONS_H

#include "host_darknet.h"
#include "learned_parameter.h"
#include "sample.h"

enum {
    KURE_MOST_GROUPS = 2, /* boxes and scores of a head; else one */
    KURE_ACTIVATION_STATE = 1 + (2 + KURE_LEARNED_FLOATS) * KURE_MOST_GROUPS,
};

struct kure_activation_group {
    struct kure_observer observer; /* of this update */
    struct kure_scale scale;
    double descent;                 /* negative gradient of the learned step in this update */
};

/* What is known of the values for one way to find a range. There are several where
 * sample= draws policies, or widths that the range depends on. */
struct kure_activation_slot {
    struct kure_quantizer q;        /* for which it is: bits and truncation */
    struct kure_quantizer of_update; /* that finds the range of an update */
    /* what a file keeps: updates combined so far (0: no scale yet), low and high of each group, learned parameters */
    float state[KURE_ACTIVATION_STATE];
    struct kure_activation_group group[KURE_MOST_GROUPS];
};

struct kure_activation_quantizer {
    struct kure_quantizer q;       /* bits = 0: none; of this update */
    int head_rows, head_boxes;     /* plan.h; 0: one group */
    enum kure_method method;
    int has_gradient;
    struct kure_activation_slot *slots, *now; /* [slot_count]; the first one is that of the plan */
    int slot_count;
    int draws_bits;                /* sample= draws widths here */
};

/* groups in use */
static inline int kure_activation_groups(const struct kure_activation_quantizer *a)
{
    return a->head_rows ? 2 : 1;
}

/* What the plan says of a layer's activations, for init. */
struct kure_activation_plan {
    const struct kure_quantizer *q; /* bits = 0: no quantizer */
    enum kure_method method;
    int head_rows, head_boxes;
    const struct kure_sample *sample;
    unsigned sampled;               /* items of sample that act here */
};
KURE_CHECKED enum kure_status kure_activation_init(struct kure_activation_quantizer *a, const struct kure_activation_plan *plan,
                                                   struct kure_error *error);
void kure_activation_free(struct kure_activation_quantizer *a);

/* Calls function(context, group, offset, count) for the pieces of a minibatch of `l`, one behind the other. */
typedef void kure_piece_function(void *context, int group, size_t offset, size_t count);
void kure_activation_each_piece(const struct kure_activation_quantizer *a, const layer *l, kure_piece_function *function, void *context);

/* x: the outputs of `l` for the whole minibatch, [batch][rows][plane].
 * KURE_ERROR_INPUT: values that are not finite. */
KURE_CHECKED enum kure_status kure_activation_observe(struct kure_activation_quantizer *a, const layer *l, const float *x,
                                                      struct kure_error *error);

/* Scales from what was observed, then forgets it, or from the learned steps, moved at
 * `rate`. Nothing observed and no gradient: as they were.
 * KURE_ERROR_INPUT: a step out of range. */
KURE_CHECKED enum kure_status kure_activation_refresh(struct kure_activation_quantizer *a, const struct kure_learned_rate *rate,
                                                      struct kure_error *error);

static inline int kure_activation_ready(const struct kure_activation_quantizer *a)
{
    return a->now && a->now->state[0] > 0;
}

/* Names a slot in a file, by what its state depends on: "ema", "mse.4", "lsq.4" */
void kure_activation_slot_name(const struct kure_activation_quantizer *a, int slot, char *out, size_t size);

/* Quantizes by q, which sample= has drawn, from now on. */
KURE_CHECKED enum kure_status kure_activation_select(struct kure_activation_quantizer *a, const struct kure_quantizer *q,
                                                     struct kure_error *error);

/* Scales from `state` alone, which came from a file. */
KURE_CHECKED enum kure_status kure_activation_rescale(struct kure_activation_quantizer *a, struct kure_error *error);

/* For a range that several quantizers have together: low and high [in, out] take in this
 * one's range, if it is ready; then each covers them. */
void kure_activation_widen(const struct kure_activation_quantizer *a, float *low, float *high);
KURE_CHECKED enum kure_status kure_activation_cover(struct kure_activation_quantizer *a, float low, float high, struct kure_error *error);

/* For a calibration: observes for every policy instead of its own. */
KURE_CHECKED enum kure_status kure_activation_observe_all(struct kure_activation_quantizer *a, struct kure_error *error);
/* The scale that the policy of `a` finds in what `observed`, of the same layer, has seen. */
KURE_CHECKED enum kure_status kure_activation_calibrate(struct kure_activation_quantizer *a, const struct kure_activation_quantizer *observed,
                                                        struct kure_error *error);

/* pact's clip, which is learned, or dorefa's, 1; 0 for the other methods */
float kure_activation_clip(const struct kure_activation_quantizer *a, int group);

/* features [out]: outputs of each group in one image */
void kure_activation_features(const struct kure_activation_quantizer *a, const layer *l, size_t features[KURE_MOST_GROUPS]);

/* x to its quantized values; x and y may be the same */
void kure_activation_quantize(const struct kure_activation_quantizer *a, const layer *l, const float *x, float *y,
                              const struct kure_noise *noise);

/* Straight through: delta = 0 where x was clipped; the gradient of a learned step adds
 * up. noise as in the forward pass. */
void kure_activation_mask(struct kure_activation_quantizer *a, const layer *l, const float *x, float *delta,
                          const struct kure_noise *noise);

#endif
