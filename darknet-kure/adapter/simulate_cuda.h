/*
 * simulate_cuda.h: simulated quantization on a GPU: what simulate.c does, with the loops of
 * backend/cuda.h.
 *
 * Once an update the weights of all layers are quantized together, by one launch where batch
 * norm is not folded, with scales that the CPU makes of their ranges. Ranges of activations
 * and gradients of learned steps stay on the GPU until the update ends: the forward pass waits
 * for nothing, except in the first minibatch of all, which sets the scales from itself.
 *
 * Without GPU=1 collect and release do nothing, and the others are not called.
 */
#ifndef KURE_SIMULATE_CUDA_H
#define KURE_SIMULATE_CUDA_H

#include "simulation.h"

/* Ends the process where the plan asks for what the GPU does not do yet. */
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
