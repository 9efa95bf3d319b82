/* simulate_cuda_parts.h: what simulate_cuda.c is made of: weights and outputs of all layers. */
#ifndef KURE_SIMULATE_CUDA_PARTS_H
#define KURE_SIMULATE_CUDA_PARTS_H

#include "../backend/cuda.h"
#include "simulate_cuda.h"

/* A tensor of these is a row of weights. */
enum { WEIGHTS_FOLD, WEIGHTS_RANGE, WEIGHTS_QUANTIZE, WEIGHTS_KEEP, WEIGHTS_UNFOLD, WEIGHTS_MASK, WEIGHTS_SLOPE, WEIGHTS_BATCHES };

struct kure_cuda_weights {
    size_t *first_row, *first_chunk; /* [plan.count] among the rows and chunks of all layers */
    float **values, **folded;        /* [plan.count] on the GPU: the twins, and the rows that the quantizer saw */
    float *room;                     /* on the GPU: the gradient of one layer's twin */
    struct kure_range_keys *ranges;  /* of the rows of one layer */
    struct kure_cuda_batch *batch[WEIGHTS_BATCHES];
};

/* A tensor of these is a group of outputs: 4 * layer + 2 * place + group; behind them the network's input. */
enum { OUTPUTS_OBSERVE, OUTPUTS_QUANTIZE, OUTPUTS_MASK, OUTPUTS_SLOPE, OUTPUTS_BATCHES };
enum { BEFORE, AFTER, PLACES }; /* the activation */

struct kure_cuda_outputs {
    layer *layers;                  /* [plan.count] as they were when the tables were made */
    size_t *first, *count;          /* [PLACES * plan.count + 1] chunks of a quantizer; the last one is the input's */
    size_t *known;                  /* [PLACES * plan.count] turns whose ranges the observer has */
    struct kure_cuda_chunk *chunks;
    float **raw;                    /* [plan.count] on the GPU: outputs before the quantizers */
    float *activated, *input;       /* on the GPU: of one layer, what the last quantizer sees; of the network, quantized */
    struct kure_cuda_batch *batch[OUTPUTS_BATCHES];
};

struct kure_cuda_simulation {
    struct kure_cuda_weights weights;
    struct kure_cuda_outputs outputs;
    size_t turn, turns;             /* minibatches of this update that began, and of an update */
    char *went_back;                /* [plan.count] layers whose gradients lie on the GPU */
};

/* Ends the process where status is not KURE_OK: at layer i. */
void kure_cuda_check(const struct kure_network *k, int i, enum kure_status status, const struct kure_error *error);

/* Gives zeros, whatever x is. */
static inline struct kure_codec kure_zero_codec(struct kure_codec codec)
{
    if (codec.levels.step > 0) return codec;
    return (struct kure_codec){.levels = {.step = 1}};
}

void kure_cuda_weights_make(struct kure_network *k);
void kure_cuda_weights_free(struct kure_network *k);
void kure_cuda_weights_refresh(struct kure_network *k);
void kure_cuda_weights_collect(struct kure_network *k);
/* gradient of the twin, which lies in weights.room, to the weights' updates */
void kure_cuda_weights_back(struct kure_network *k, int i, const layer *l);

int kure_cuda_outputs_fit(const struct kure_network *k); /* 0: a layer has another size by now, or there is no table */
void kure_cuda_outputs_make(struct kure_network *k);     /* where they do not fit */
void kure_cuda_outputs_free(struct kure_network *k);
void kure_cuda_outputs_refresh(struct kure_network *k);
void kure_cuda_outputs_collect(struct kure_network *k);
void kure_cuda_outputs_forward(struct kure_network *k, int i, const layer *l);
void kure_cuda_outputs_back(struct kure_network *k, int i, const layer *l);
float *kure_cuda_outputs_input(struct kure_network *k); /* quantizes the network's input */

#endif
