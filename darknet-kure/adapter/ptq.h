/*
 * ptq.h: what a post-training quantization keeps; of ptq.c, calibration.c, batchnorm.c and lapq.c.
 */
#ifndef KURE_PTQ_H
#define KURE_PTQ_H

#include "evaluate.h"
#include "simulation.h"

struct kept_layer {
    float *weights;                  /* NULL: none that are quantized */
    float *mean, *variance;          /* rolling ones of batch norm, NULL: none */
    float *biases;                   /* of layers with weights, else NULL */
    struct kure_quantizer quantizer; /* of the weights, of the point in force */
    struct kure_scale *scales;       /* [rows] of the weights, by the policy of that quantizer */
    double ratio;                    /* that multiplies them */
};

struct kure_ptq {
    network *net;
    struct kure_network *k;
    struct kure_plan own;            /* of the cfg */
    struct kure_layer_view *views;
    struct kept_layer *layers;       /* [net->n] */
    float *scratch;                  /* the largest tensor, for folding */
    float *state;                    /* of the cfg's own simulation: what a training has left */
    size_t state_size;
    int fold;                        /* of the point in force */
    double sqnr;                     /* of its weights */
};

/* The float network and the cfg's own plan again, with its simulation. */
void kure_ptq_restore(struct kure_ptq *ptq);

/* The float weights; biases and batch norm stay. */
void kure_ptq_restore_weights(struct kure_ptq *ptq);

/* Replaces the plan, which is then owned, and attaches its simulation. */
void kure_ptq_use_plan(struct kure_ptq *ptq, struct kure_plan plan);

/* The cfg's layers as this point would have them quantized. */
struct kure_plan kure_ptq_plan(const struct kure_ptq *ptq, const struct kure_point *point);

/* Quantizes the weights of layer i, or of all layers, anew, from the kept ones, with their
 * scales and ratios; of all: their SQNR, as kure_ptq_set returns it. */
struct kure_quantization kure_ptq_quantize(struct kure_ptq *ptq, int i);
double kure_ptq_quantize_all(struct kure_ptq *ptq);

/* Where a layer's own forward function stands: behind the wrapper of the simulation, if it has one. */
void (**kure_layer_function(struct kure_network *k, int i))(layer, network);

/* batchnorm.c: channels of a layer's batch norm, 0: none. */
size_t kure_batchnorm_channels(const layer *l);
/* Rolling statistics from all of `images`, under the weights and activations in force. */
void kure_batchnorm_reestimate(struct kure_ptq *ptq, struct kure_images *images, void (*done)(void *, int), void *context);

/* calibration.c: the scales of the activations in force. */
void kure_calibration_apply(const struct kure_calibration *calibration, struct kure_network *k);

#endif
