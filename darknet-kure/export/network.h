/*
 * network.h: a trained or calibrated network as its host describes it to export: geometry,
 * float weights, the quantizers in force and their scales. Everything is borrowed and stays
 * as it is until the integer model is freed; nothing here knows the host.
 */
#ifndef KURE_EXPORT_NETWORK_H
#define KURE_EXPORT_NETWORK_H

#include "kure.h"
#include "kure_runtime.h"
#include "model.h"

enum kure_network_kind {
    KURE_NETWORK_CONVOLUTIONAL,
    KURE_NETWORK_CONNECTED,
    KURE_NETWORK_MAXPOOL,
    KURE_NETWORK_AVGPOOL,  /* the mean of each channel */
    KURE_NETWORK_UPSAMPLE,
    KURE_NETWORK_REORG,
    KURE_NETWORK_SHORTCUT, /* inputs: the layer in front, the other one */
    KURE_NETWORK_ROUTE,    /* of one or several; with one and a quantizer: [quantize] */
    KURE_NETWORK_PASSES,   /* dropout: nothing happens in prediction */
    KURE_NETWORK_DECODES,  /* softmax, yolo, region, detection, cost: float, behind an output */
    KURE_NETWORK_OTHER,    /* why_not says why it has no integer form */
    KURE_NETWORK_KINDS
};

/* A quantizer of activations. */
struct kure_network_quantizer {
    struct kure_quantizer q;     /* bits = 0: none */
    struct kure_scale scales[2]; /* [1]: of the scores, where the layer feeds a head */
};

struct kure_network_layer {
    enum kure_network_kind kind;
    const char *type;     /* "convolutional"; static text */
    const char *why_not;  /* NULL, or why it has no integer form, and what has one; static text */
    const int *inputs;    /* [input_count] layers; -1: the network input */
    int input_count;
    int channels, height, width; /* of the output; all 0: a row of `outputs` numbers */
    int outputs;
    int size, stride, padding, groups; /* maxpool: padding in all */
    enum kure_reorg reorg;
    float alpha, beta;    /* shortcut: of the layer in front, of the other one */

    /* convolutional, connected */
    struct kure_tensor weights;      /* rows, row_length, weights; with batch norm gamma and variance */
    const float *offsets;            /* [rows] beta of batch norm, or biases */
    const float *means;              /* [rows] rolling mean; NULL: no batch norm */
    struct kure_quantizer weight;    /* bits = 0: float */
    const struct kure_scale *scales; /* [rows] of the weights, folded ones with `folds`; step 0: a row of zeros */
    int folds;                       /* the quantizer sees gamma/sqrt(variance + 1e-5) * w, not w */
    int is_dorefa;                   /* the weights are those of kure_dorefa_quantize, not these */

    struct kure_network_quantizer before, after; /* the activation */
    int head_rows, head_boxes;       /* struct kure_integer_output; 0: one group */
    enum kure_integer_activation activation;
    const char *activation_name;     /* "leaky"; static text */
    float slope;                     /* LEAKY: its slope; RELU6: its cap */
    struct kure_decoder boxes;       /* yolo, region */
    void (*activate)(const struct kure_network_layer *layer, float *x, int n); /* in place, as the network does */
    int host_activation;             /* for activate */
};

struct kure_network_view {
    const char *cfg, *weights_path; /* for messages and the manifest */
    int channels, height, width;    /* of the input, values 0..1 */
    struct kure_network_quantizer input;
    struct kure_network_layer *layers;
    int count;
    char **classes;                 /* [class_count] names, NULL: not known */
    int class_count;
    void *host;                     /* the host's own */
};

/* The integer model of a network for a target.
 *   net      [in]: borrowed as long as the model lives
 *   profile  [in]: a row of profiles.def; its name
 *   model    [out]: to be freed with kure_integer_free, also after an error
 * KURE_ERROR_INPUT: no integer form, or one that the profile cannot do: file, layer, key, value, reason and what to do. */
KURE_CHECKED enum kure_status kure_integer_build(const struct kure_network_view *net, const char *profile, struct kure_integer_model *model,
                                                 struct kure_error *error);

#endif
