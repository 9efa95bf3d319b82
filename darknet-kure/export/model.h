/*
 * model.h: the integer model in memory: what export makes of a network, what writers read.
 *
 * The graph is that of model.kure (kure_runtime.h, which defines every kind of layer, its
 * arithmetic and the order of elements): tensor 0 is the input, layer i writes tensor i + 1,
 * one image, [channels][height][width], value = scale * (code - zero_point). Batch norm is
 * folded, dropout and routes of one layer are gone, decoding (softmax, yolo, region) is float
 * and behind the outputs. On top of what model.kure holds, a layer says where it comes from:
 * its number in the cfg, float weights and biases, the scale of each row, its activation.
 *
 *     one layer of the cfg             layers of the model
 *     convolutional, connected         CONVOLUTION or CONNECTED; linear, relu and relu6 are the
 *                                      low..high of its output; behind any other activation a
 *                                      LOOKUP, unless the profile's arithmetic applies a leaky one
 *     the same, feeding yolo, region   that twice: the rows of all boxes, then those of all scores
 *     shortcut                         ADD; then as above
 *     route of several                 a LOOKUP for each input that has another scale, CONCATENATE
 *     maxpool, avgpool, upsample, reorg   one of that kind; behind avgpool of a profile that keeps
 *                                      the scale there a LOOKUP, where the plan has another scale
 *
 * A writer only reads. Everything is owned by the model but what is said to be borrowed.
 */
#ifndef KURE_EXPORT_MODEL_H
#define KURE_EXPORT_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "kure.h"
#include "kure_runtime.h"

enum { KURE_INTEGER_NAME = 24 }; /* bytes of a tensor's name, as in model.kure */

struct kure_integer_tensor {
    char name[KURE_INTEGER_NAME]; /* unique, [a-z0-9_]: "input", "layer_3"; "layer_3_raw" in front of its LOOKUP, "layer_3_boxes",
                                   * "layer_3_scores", "layer_8_from_3": layer 3 with the scale of route 8 */
    int channels, height, width;  /* 1 .. KURE_MODEL_MOST_EDGE */
    float scale;                  /* > 0 */
    int zero_point;               /* -128 .. 127 */
    int low, high;                /* codes that can occur, -128 .. 127: the quantizer's, within them an activation's limits */
    int bits;                     /* 2 .. 8: of the quantizer; its codes are -2^(bits-1) .. 2^(bits-1)-1 */
    int source;                   /* the layer of the cfg that it belongs to; -1: the input */
};

/* Which rows of a layer of the cfg. */
enum kure_integer_part { KURE_PART_ALL, KURE_PART_BOXES, KURE_PART_SCORES };

enum kure_integer_activation {
    KURE_INTEGER_LINEAR,
    KURE_INTEGER_RELU,  /* low of the output is its zero point */
    KURE_INTEGER_RELU6, /* and high the code of `slope`, its cap */
    KURE_INTEGER_LEAKY, /* x > 0 ? x : slope * x */
    KURE_INTEGER_OTHER, /* of a LOOKUP only; activation_name says which */
};

/* Where a LOOKUP comes from. */
enum kure_integer_lookup {
    KURE_LOOKUP_NONE,       /* no LOOKUP */
    KURE_LOOKUP_ACTIVATION, /* activation, slope, activation_name */
    KURE_LOOKUP_REQUANTIZE, /* another scale and zero point: in front of CONCATENATE, behind AVERAGE_POOL */
};

struct kure_integer_layer {
    enum kure_model_kind kind;
    enum kure_arithmetic arithmetic; /* KURE_ARITHMETIC_NONE where the kind has none */
    int source;                      /* number of the layer in the cfg */
    const char *type;                /* its kind there, "convolutional"; static text */
    enum kure_integer_part part;
    int *inputs;                     /* [input_count] numbers of tensors, 0 .. number of this layer */
    int input_count;
    int size, stride, padding, groups; /* as kure_runtime.h says for the kind; else 0. MAXPOOL: padding in all */

    /* CONVOLUTION, CONNECTED; else rows = 0 and NULL. Row r is [in.channels/groups][size][size],
     * or all input elements in the order [channels][height][width]. */
    int rows, row;         /* output channels; weights of each */
    int weight_bits;       /* 2 .. 8: the least that holds every code in two's complement; dorefa's 4 bits need 5 */
    int stored_bits;       /* 8, or 4 for weight_bits <= 4 */
    int one_scale;         /* 1: all rows have one scale (granularity=tensor); 0: granularity=channel */
    int8_t *codes;         /* [rows][row], unpacked: weight = weight_scales[r] * code */
    float *weight_scales;  /* [rows], > 0 */
    int *source_rows;      /* [rows] the row in the cfg's layer; NULL: the same number */
    const float *master;   /* borrowed from the network: [rows of the cfg's layer][row] weights before folding; see kure_integer_folded_row */
    float *factors;        /* [rows] gamma / sqrt(variance + 1e-5), 1 without batch norm */
    float *biases;         /* [rows] with batch norm folded in double, beta - mean * factor: before quantization */
    int32_t *bias_codes;   /* [rows] of scale input.scale * weight_scales[r]; NULL: the profile adds float32 `biases` */
    uint32_t (*multipliers)[2]; /* [rows] m0, m1 of the arithmetic: kure_runtime.h; _MULTIPLIED and _DIVIDED: m1 = bits of the bias */

    /* CONVOLUTION, CONNECTED, ADD: what the limits of the output or the arithmetic apply. LOOKUP: its table */
    enum kure_integer_activation activation;
    const char *activation_name; /* Darknet's: "leaky"; static text */
    float slope;                 /* LEAKY: of negative values; RELU6: the cap, 6; else 0 */
    enum kure_integer_lookup lookup;

    /* ADD: alpha * (layer in front) + beta * (layer `from`), Darknet's shortcut. inputs[0] is the one whose
     * shape the output has. */
    float alpha, beta; /* of inputs[0], inputs[1] */
    int8_t *table;     /* [256] of LOOKUP and ADD, index code + 128; NULL: none */
    uint32_t parameter[10]; /* as in model.kure */
};

/* What a program needs to know of [yolo] and [region] to decode an output. */
struct kure_decoder {
    const float *anchors;     /* [anchor_count][2] width, height, of the boxes of this head; NULL: neither of the two */
    int anchor_count;
    int classes;              /* rows of an anchor behind its box and its objectness */
    const char *class_scores; /* of the classes' rows: "sigmoid" each, "softmax" over them, "tree": over the groups of a tree; static text */
};

/* What is decoded, in float, from an output. */
struct kure_integer_output {
    int tensor;
    int source;                  /* layer of the cfg that it is the output of */
    enum kure_integer_part part; /* boxes and scores of a head are two outputs, one after the other */
    int head_rows, head_boxes;   /* rows of an anchor, those of its box; 0: one group. Row r of the cfg's layer is, with
                                  * a = r / head_rows and b = r % head_rows, row a*head_boxes + b of the boxes if
                                  * b < head_boxes, else row a*(head_rows-head_boxes) + b - head_boxes of the scores */
    int decoder;                 /* layer of the cfg that reads it, -1: none: the network ends here */
    const char *decoder_type;    /* "softmax", "yolo", "region", "detection", "cost"; "" without one; static text */
    struct kure_decoder boxes;   /* borrowed */
};

/* The codes of every tensor for one image, to be shipped beside a model. */
struct kure_integer_golden {
    int8_t **codes; /* [tensor_count][elements] */
};

/* A sentence for the user: a row that got a larger scale, what a proof says. */
struct kure_integer_note {
    int source; /* layer of the cfg, -1: none */
    char text[256];
};

/* Per weighted layer: bounds that hold for every input, from the actual codes. */
struct kure_integer_proof {
    int layer;                        /* of the model */
    int64_t accumulator_low, accumulator_high; /* of any sum of a row, with the bias; partial sums in any order stay within
                                                * +-accumulator_partial */
    int64_t accumulator_partial;
    int accumulator_bits;             /* two's complement bits that hold accumulator_partial */
    int64_t pair_high;                /* |w0 x0 + w1 x1| of any two weights of a row, x = code + 128: VPMADDUBSW saturates above 32767 */
    int64_t bias_high;                /* |bias code|; 0 with float32 biases */
    int fits_pair, fits_float;        /* pair_high <= 32767; accumulators below 2^24 are exact in float32 */
};

struct kure_integer_model {
    char profile[KURE_INTEGER_NAME];
    const char *cfg, *weights; /* borrowed: paths that it was made from */
    struct kure_integer_tensor *tensors; /* [layer_count + 1] */
    struct kure_integer_layer *layers;   /* [layer_count] */
    int layer_count;
    struct kure_integer_output *outputs; /* [output_count] */
    int output_count;
    enum kure_input_rounding input_rounding; /* values 0..1 to codes of tensor 0 */
    float input_factor;
    int8_t pixels[256];                  /* the code of each pixel 0..255, value pixel/255 */
    struct kure_integer_proof *proofs;   /* [proof_count] */
    int proof_count;
    struct kure_integer_note *notes;     /* [note_count] */
    int note_count;
    char **classes;                      /* [class_count] names, borrowed; NULL: not known */
    int class_count;
    const struct kure_integer_golden *golden; /* borrowed; of the first golden image; NULL: none yet */
    float batchnorm_epsilon;             /* 1e-5 */
    unsigned char *file;                 /* [file_bytes] model.kure, byte for byte; open with kure_runtime_open */
    size_t file_bytes;
};

static inline size_t kure_integer_elements(const struct kure_integer_tensor *t)
{
    return (size_t)t->channels * (size_t)t->height * (size_t)t->width;
}

/* Row r of a layer's float weights with batch norm folded: master * factor, in float32, which is what was quantized.
 *   out  [out]: [layer->row] */
void kure_integer_folded_row(const struct kure_integer_layer *layer, int r, float *out);

/* Row r as it was quantized: weight_scales[r] * code, [layer->row] */
void kure_integer_quantized_row(const struct kure_integer_layer *layer, int r, float *out);

/* The code of tensor 0 for a value, as kure_runtime_quantize. */
int kure_integer_input_code(const struct kure_integer_model *model, float x);

void kure_integer_free(struct kure_integer_model *model);

#endif
