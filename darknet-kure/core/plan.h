/*
 * plan.h: one row per layer: what the plugin does there and, where nothing, why.
 *
 * The host describes its layers (struct kure_layer_view), the user's options say
 * what is wanted; the plan is the result: merged, cross-checked, then fixed.
 */
#ifndef KURE_PLAN_H
#define KURE_PLAN_H

#include "options.h"

enum kure_weights {
    KURE_WEIGHTS_NONE,
    KURE_WEIGHTS_CONVOLUTIONAL,
    KURE_WEIGHTS_CONNECTED,
    KURE_WEIGHTS_OTHER, /* deconvolutional, local, recurrent: not regularized */
};

/* What a layer does to the values that pass through. */
enum kure_flow {
    KURE_FLOW_MAKES,   /* computes new ones: weights, shortcut, average pooling */
    KURE_FLOW_SELECTS, /* each output is one of the inputs: maxpool, upsample, reorg, route of one */
    KURE_FLOW_JOINS,   /* route of several */
    KURE_FLOW_DECODES, /* heads and everything else: float */
};

enum kure_activation { KURE_ACTIVATION_LINEAR, KURE_ACTIVATION_RELU, KURE_ACTIVATION_OTHER };

/* A layer as the host sees it. */
struct kure_layer_view {
    const char *type;       /* "convolutional"; static text */
    enum kure_weights weights;
    size_t rows, row_length; /* of the weight tensor; 0 without weights */
    int groups;
    int batch_normalize;
    const int *inputs;       /* [input_count] layer numbers that feed it; -1: the network input */
    int input_count;
    enum kure_flow flow;
    enum kure_activation activation; /* relu: relu and relu6, whose limits a quantizer's range can take over */
    int is_binary;
    int head_rows, head_boxes; /* feeds [yolo] or [region]: rows of one anchor, and how many of these,
                                * the first ones, are of its box; else 0 */
    int is_head;             /* [yolo], [region], [detection], [softmax], [cost] */
    const char *left_out;    /* NULL, or why the host cannot regularize it; static text */
};

struct kure_plan_row {
    int layer;
    const char *type;
    enum kure_weights weights;
    size_t rows, row_length; /* n = rows * row_length */
    int groups, batch_normalize;
    int reads_input; /* has weights and reads the network input: a `first` layer */
    int feeds_head;  /* has weights and feeds the loss without another weighted layer: a `last` layer */
    int reaches_head; /* with or without weights: no weighted layer between it and the loss */
    enum kure_method weight_method, activation_method;
    struct kure_quantizer weight, before, after; /* bits = 0: float; before and after the activation */
    unsigned sampled_weight, sampled_activation; /* items of sample= that act here (sample.h) */
    int head_rows, head_boxes; /* of the view: `after` has two groups */
    int shares;                /* the first layer of those that have one range together with `after`; -1: its own */
    int averages_codes;        /* average pooling of the target: the mean of codes, ties away from zero, without another scale */
    char quantize_reason[48];  /* why the layer stays float with [quantization] */
    int regularized;
    double target, lambda; /* of this layer; lambda already times [kurtosis] lambda */
    char reason[96];       /* why it is not regularized; "" where it is or has no weights */
};

struct kure_plan {
    struct kure_plan_row *rows;
    int count;
    int regularized; /* rows with regularized = 1: L of equation 15 */
    int quantizers;  /* rows that have any */
    struct kure_quantizer input; /* of the network input, with a scale of its own, never calibrated; bits = 0: float */
    struct kure_scale input_scale;
    struct kure_quantization_options quantization; /* line = 0: no [quantization] */
    struct kure_kurtosis_options kurtosis; /* borrowed text; line = 0: no [kurtosis] */
    char hash[33];       /* XXH3-128 of everything above */
    char state_hash[33]; /* of what a resumed training needs: kinds and shapes */
};

/* options [in] must outlive the plan. views [in]: [count].
 * KURE_ERROR_INPUT: layers= names a layer that does not exist or has no weights;
 * a per-layer key at a layer that cannot be regularized; nothing left to regularize. */
KURE_CHECKED enum kure_status kure_plan_build(const struct kure_options *options, const struct kure_layer_view *views,
                                              int count, struct kure_plan *plan, struct kure_error *error);
void kure_plan_free(struct kure_plan *plan);

/* placement.c: the quantizers of every row, from [quantization] and the layers' keys.
 * KURE_ERROR_INPUT: a key that nothing would read, a combination that no quantizer has. */
KURE_CHECKED enum kure_status kure_place_quantizers(const struct kure_options *options, const struct kure_layer_view *views,
                                                    struct kure_plan *plan, struct kure_error *error);

/* XXH3-128 of a text, likewise. */
void kure_hash_text(const char *text, char hash[33]);

/* XXH3-128 of a file as 32 hexadecimal digits. */
KURE_CHECKED enum kure_status kure_hash_file(const char *path, char hash[33], struct kure_error *error);

#endif
