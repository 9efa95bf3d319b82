/*
 * builder.h: an integer model while it grows; of build.c and the files for single kinds of layers.
 */
#ifndef KURE_EXPORT_BUILDER_H
#define KURE_EXPORT_BUILDER_H

#include "arithmetic.h"
#include "network.h"
#include "profiles.h"

enum { KURE_MOST_PARTS = 2 }; /* boxes and scores */

struct kure_builder {
    const struct kure_network_view *net;
    const struct kure_profile *profile;
    const struct kure_arithmetic_rules *rules;
    struct kure_integer_model *model;
    int (*tensors)[KURE_MOST_PARTS]; /* [net->count] that hold a layer's output; -1: none; [1]: the scores of a head */
    int layer;                       /* of the network, under way */
    struct kure_error *error;
};

/* The layer under way. */
static inline const struct kure_network_layer *kure_builder_layer(const struct kure_builder *b)
{
    return &b->net->layers[b->layer];
}

/* KURE_ERROR_INPUT with "net.cfg: layer 3 [convolutional]: " before the sentence. */
__attribute__((format(printf, 2, 3))) enum kure_status kure_builder_fail(const struct kure_builder *b, const char *format, ...);

/* A note for the user of the layer under way. */
__attribute__((format(printf, 2, 3))) enum kure_status kure_builder_note(const struct kure_builder *b, const char *format, ...);

/* "net.cfg: layer 3 [convolutional]" */
void kure_builder_place(const struct kure_builder *b, char *out, size_t size);

/* The single tensor that holds layer `from` (-1: the input). KURE_ERROR_INPUT: there is none, or two. */
KURE_CHECKED enum kure_status kure_builder_input(const struct kure_builder *b, int from, int *tensor);

/* Adds a layer and the tensor that it writes. layer, tensor [in]: copied; inputs [in]: [layer->input_count] tensors, copied.
 * The layer under way is its source; name [in]: text behind "layer_3", "" or "_raw" */
KURE_CHECKED enum kure_status kure_builder_add(struct kure_builder *b, const struct kure_integer_layer *layer, const int *inputs,
                                               const struct kure_integer_tensor *tensor, const char *name);
static inline int kure_builder_last(const struct kure_builder *b) /* number of the last tensor */
{
    return b->model->layer_count;
}

/* A tensor of the layer's shape with the scale of a quantizer, all of its codes possible.
 * KURE_ERROR_INPUT: no codes of 8 bits, or a scale that the profile cannot have. */
KURE_CHECKED enum kure_status kure_builder_tensor(const struct kure_builder *b, const struct kure_network_quantizer *q, int part,
                                                  struct kure_integer_tensor *tensor);

/* activation.c */

/* Limits of linear, relu and relu6 on a tensor with the scale of `q`. */
void kure_builder_limit(const struct kure_builder *b, const struct kure_network_quantizer *q, struct kure_integer_tensor *tensor);

/* The code that the layer's activation makes of a value, under quantizer q and scale of a tensor. */
int kure_builder_activated_code(const struct kure_builder *b, float value, const struct kure_network_quantizer *q,
                                const struct kure_integer_tensor *out);

/* Adds what comes behind a layer with an activation that is not fused: a LOOKUP from the last tensor to `after`. */
KURE_CHECKED enum kure_status kure_builder_add_activation(struct kure_builder *b, int part, const char *name);

/* Adds a LOOKUP from tensor `from` to the scale, zero point and limits of `to`. */
KURE_CHECKED enum kure_status kure_builder_add_requantization(struct kure_builder *b, int from, const struct kure_integer_tensor *to, const char *name);

/* What comes first for a layer with an activation: the tensor that it writes itself and, in *slope, what its arithmetic
 * applies; *has_lookup: kure_builder_add_activation follows. */
KURE_CHECKED enum kure_status kure_builder_begin_activation(const struct kure_builder *b, int part, struct kure_integer_tensor *tensor,
                                                            struct kure_integer_layer *layer, float *slope, int *has_lookup);

/* One of each kind of the network's layers: adds what it becomes and fills b->tensors[b->layer]. */
typedef enum kure_status kure_layer_builder(struct kure_builder *b);
kure_layer_builder kure_build_weighted;                                          /* build_weighted.c */
kure_layer_builder kure_build_shortcut, kure_build_route, kure_build_avgpool;    /* build_join.c */
kure_layer_builder kure_build_maxpool, kure_build_upsample, kure_build_reorg, kure_build_nothing; /* build_move.c */

#endif
