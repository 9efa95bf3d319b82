/*
 * simulate_cuda.h: simulated quantization on a GPU: what simulate.c does, with the loops of
 * backend/cuda.h.
 *
 * Once an update one launch looks at the weights of all layers, and one copy brings their
 * ranges down, with the ranges of activations and the gradients of learned steps that the
 * minibatches have left on the GPU; one copy takes the scales up that the CPU makes of them,
 * and one launch quantizes all weights. Passes wait for nothing, except where the CPU has to see
 * values: in the first minibatch of all, which sets the scales from itself, for policies that
 * search, and for targets with an arithmetic of their own.
 *
 * Without GPU=1 collect and release do nothing, and the others are not called.
 */
#ifndef KURE_SIMULATE_CUDA_H
#define KURE_SIMULATE_CUDA_H

#include "simulation.h"

void kure_cuda_simulation_attach(struct kure_network *k);
void kure_cuda_simulation_make(struct kure_network *k); /* once the layers' quantizers are there: memory on the GPU */
void kure_cuda_simulation_release(struct kure_network *k);

/* Puts the wrappers in front of the functions of l, which s keeps. */
void kure_cuda_simulation_wrap(struct simulated_layer *s, layer *l);

/* What the minibatches so far have left on the GPU, to the observers and learned parameters. */
void kure_cuda_simulation_collect(struct kure_network *k);

/* Weights of a new update, and what its activations are quantized with. */
void kure_cuda_simulation_refresh(struct kure_network *k);

#endif
