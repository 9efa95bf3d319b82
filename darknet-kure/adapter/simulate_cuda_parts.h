/* simulate_cuda_parts.h: what simulate_cuda.c is made of: weights and outputs of all layers. */
#ifndef KURE_SIMULATE_CUDA_PARTS_H
#define KURE_SIMULATE_CUDA_PARTS_H

#include "../backend/cuda.h"
#include "simulate_cuda.h"

/* All batches of a network are made together: an update takes one copy each way. Those of a
 * group have the tensors and the chunks of its first one. */
enum {
    /* a tensor is a row of weights */
    ROWS_RANGE, ROWS_QUANTIZE, ROWS_BACK, ROWS_BACK_SUMS,
    /* a layer's weights, of dorefa */
    DOREFA_RANGE, DOREFA_QUANTIZE, DOREFA_SUMS, DOREFA_BACK,
    /* a layer's batch norm, frozen: its biases; sum_turns * layer + turn: its gradient */
    NORM_BIASES,
    NORM_BACK,
    /* 2 * layer: its gamma; behind it its variance */
    GATHER,
    /* a group of outputs: 4 * layer + 2 * place + group; behind them the network's input */
    OUTPUTS_RANGE, OUTPUTS_RANGE_QUANTIZE, OUTPUTS_QUANTIZE, OUTPUTS_BACK_STE, OUTPUTS_BACK_LSQ, OUTPUTS_BACK_PACT,
    /* a layer's outputs in front of the last quantizer */
    RECTIFY, RECTIFY_BACK,
    BATCHES
};
enum { BEFORE, AFTER, PLACES }; /* the activation */

/* Chunks of a group of batches while it is made; with chunks NULL they are counted. */
struct kure_cuda_listing {
    struct kure_cuda_chunk *chunks;
    size_t count, tensors; /* so far */
};
/* one more tensor, of n elements, cut as the CPU cuts */
void kure_cuda_list(struct kure_cuda_listing *list, size_t n);

/* Where the chunks of a layer, or of a quantizer, are in their batch. */
struct kure_cuda_span {
    size_t first, count;
};

struct kure_cuda_weights {
    size_t *first_row;                   /* [plan.count] the tensor of a layer's first row */
    struct kure_cuda_span *rows, *dorefa, *biases, *norms, *gathered; /* [plan.count] */
    float **values;                      /* [plan.count] on the GPU: the twins */
    float **frozen;                      /* [plan.count] on the GPU: biases with a frozen batch norm; NULL: none */
    size_t sum_turns;                    /* of ROWS_BACK_SUMS: those of an update where steps are learned, 1 where gammas alone want them */
    float *room, *bias_room;             /* on the GPU: the gradient of one layer's twin, and of its biases */
    struct kure_range_keys *ranges;      /* of the rows of one layer */
};

struct kure_cuda_outputs {
    layer *layers;                       /* [plan.count] as they were when the tables were made */
    struct kure_cuda_span *spans;        /* [PLACES * plan.count + 1] of a quantizer; the last one is the input's */
    struct kure_cuda_span *rectified;    /* [plan.count] */
    size_t *known;                       /* [PLACES * plan.count] turns whose ranges the observer has */
    size_t all;                          /* chunks of a turn */
    struct kure_cuda_chunk *chunks;      /* [all] */
    float **raw;                         /* [plan.count] on the GPU: outputs before the quantizers; NULL: none */
    float *activated, *input;            /* on the GPU: of one layer, what the last quantizer sees; of the network, quantized */
    float *copy;                         /* on the CPU: outputs of one layer */
};

struct kure_cuda_simulation {
    struct kure_cuda_batch *batch[BATCHES];
    struct kure_cuda_weights weights;
    struct kure_cuda_outputs outputs;
    size_t turn, turns;                  /* minibatches of this update that began, and of an update */
    char *went_back;                     /* [plan.count] layers whose gradients lie on the GPU */
};

/* Ends the process where status is not KURE_OK: at layer i. */
void kure_cuda_check(const struct kure_network *k, int i, enum kure_status status, const struct kure_error *error);
void kure_cuda_launch(const struct kure_network *k, int batch, int i, struct kure_cuda_span span, size_t turn);
void kure_cuda_send(const struct kure_network *k, int i);

/* calloc, or the end of the process */
void *kure_cuda_table(size_t count, size_t size);

static inline struct kure_cuda_arguments *kure_cuda_arguments_of(const struct kure_network *k, int batch)
{
    return kure_cuda_batch_arguments(k->simulation->cuda->batch[batch]);
}

/* simulate_cuda_weights.c */
void kure_cuda_weights_make(struct kure_network *k); /* memory that stays */
void kure_cuda_weights_list(struct kure_network *k, int batch, struct kure_cuda_listing *list); /* of the group that begins with this batch */
void kure_cuda_weights_set(struct kure_network *k);  /* the arguments that stay */
void kure_cuda_weights_free(struct kure_network *k);
void kure_cuda_weights_look(struct kure_network *k); /* at ranges and batch norm; the results come with the next fetch */
void kure_cuda_weights_refresh(struct kure_network *k); /* arguments of this update */
void kure_cuda_weights_quantize(struct kure_network *k);
void kure_cuda_weights_collect(struct kure_network *k);
/* gradient of the twin, which lies in weights.room, to the weights' updates */
void kure_cuda_weights_back(struct kure_network *k, int i, const layer *l);

/* simulate_cuda_outputs.c */
int kure_cuda_outputs_fit(const struct kure_network *k); /* 0: a layer has another size by now, or there is no memory */
void kure_cuda_outputs_make(struct kure_network *k);
void kure_cuda_outputs_list(struct kure_network *k, int batch, struct kure_cuda_listing *list);
void kure_cuda_outputs_free(struct kure_network *k);
void kure_cuda_outputs_refresh(struct kure_network *k);
void kure_cuda_outputs_collect(struct kure_network *k);
void kure_cuda_outputs_move_biases(struct kure_network *k, int i, const layer *l); /* of a prediction, to a target's */
void kure_cuda_outputs_forward(struct kure_network *k, int i, const layer *l, int train);
void kure_cuda_outputs_back(struct kure_network *k, int i, const layer *l);
float *kure_cuda_outputs_input(struct kure_network *k); /* quantizes the network's input */
int kure_cuda_has_outputs(const struct kure_network *k, int i);

#endif
