/*
 * simulation.h: what simulated quantization keeps for one network; of simulate.c, which
 * runs the minibatches, and simulation.c, which attaches it and keeps its state.
 */
#ifndef KURE_SIMULATION_H
#define KURE_SIMULATION_H

#include <math.h>

#include "activations.h"
#include "state.h"
#include "weight_quantizer.h"

struct kure_cuda_simulation;

struct simulated_layer {
    void (*forward)(layer, network); /* Darknet's own, on the GPU those for it */
    void (*backward)(layer, network);
    struct kure_weight_quantizer weights;          /* q.bits = 0: float */
    struct kure_activation_quantizer before, after;
    float cap, slope;      /* of relu6 and of leaky */
    int own_activation;    /* cap or slope are not Darknet's */
    ACTIVATION activation; /* LINEAR for kinds of layers that have none: Darknet leaves 0, a logistic, there */
    float *raw;      /* [raw_size] the output before the quantizers */
    size_t raw_size;
};

/* Of an own activation: the op rectify's. */
static inline float kure_rectifier_slope(const struct simulated_layer *s)
{
    return s->activation == LEAKY ? s->slope : 0;
}

static inline float kure_rectifier_cap(const struct simulated_layer *s)
{
    return s->activation == LEAKY ? INFINITY : s->cap;
}

struct kure_simulation {
    struct simulated_layer *layers; /* [plan.count] */
    float *input;                   /* [input_size] the network's input, quantized */
    size_t input_size;
    float *room;                    /* [room_size] for one weight tensor or one output at a time */
    size_t room_size;
    struct kure_learned_rate rate;  /* of the update under way */
    size_t images;                  /* of an update, by the cfg */
    long long update;               /* whose weights and scales are in force */
    int drawing;                    /* in force is what sample= drew, not the plan's own quantizers */
    int stale;                      /* weights have changed otherwise */
    int observing;                  /* a calibration: ranges are observed, nothing is quantized */
    struct kure_cuda_simulation *cuda; /* simulate_cuda.c; NULL: the CPU does the loops */
};

/* Ends the process: a fault at layer i in this update. */
void kure_simulation_stop(const struct kure_network *k, int i, const struct kure_error *reason) __attribute__((noreturn));

/* The wrappers; layer.kure is the struct kure_network. */
void kure_simulate_forward(layer l, network net);
void kure_simulate_backward(layer l, network net);

/* Once a minibatch, before its first layer: makes the scales and weights of its update, if it is the first one of it. */
void kure_simulate_begin(struct kure_network *k, const network *net);

/* Random numbers of stochastic rounding: a stream of its own for every update, layer and use. */
enum { USE_WEIGHTS, USE_BEFORE, USE_AFTER, USE_SAMPLE, USE_INPUT };
struct kure_noise kure_simulate_noise(const struct kure_network *k, long long update, int layer_number, int use);

/* Does this update quantize? Is the batch norm of layer i part of its weights by now? */
int kure_simulate_is_on(const struct kure_network *k);
int kure_simulate_is_frozen(const struct kure_network *k, int i);

/* What one quantizer of layer l does before it quantizes: in training, and while a calibration observes, it looks at its
 * values; the first minibatch of all sets the scale from itself. Ends the process where there is no scale to quantize with.
 * x [in]: all outputs of the minibatch; not looked at where wants_values says 0, but for policies that need the range alone */
void kure_simulate_observe(struct kure_network *k, struct kure_activation_quantizer *a, const layer *l, int number, int use, int train,
                           const float *x);
int kure_simulate_wants_values(const struct kure_network *k, const struct kure_activation_quantizer *a, int train);

/* All scales that a prediction would use, without the quantized twins of the weights. */
void kure_simulate_scales(struct kure_network *k);

/* simulate_target.c: has the profile's target an arithmetic of its own between two quantizers of layer i: fixed point
 * multipliers of a leaky activation, or the mean of codes? */
int kure_target_differs(const struct kure_network *k, int i);
/* Its quantized outputs.
 *   x  [in]: [n] what goes into the last quantizer;  y  [out]: [n];  plane: values of a mean */
void kure_target_outputs(const struct kure_network *k, int i, const float *x, float *y, size_t n, int plane);

/* What the target's int32 biases add to outputs of layer l, number i, in front of its activation: x [in, out]. Does it round them? */
int kure_target_rounds_biases(const struct kure_network *k, int i);
void kure_target_biases(const struct kure_network *k, int i, const layer *l, float *x);

/* Scales of layer i's activations from what was observed or learned. */
void kure_simulate_refresh_activations(struct kure_network *k, int i);

#endif
