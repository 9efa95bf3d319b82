/*
 * regularize_cuda.h: the loops of the KURE term on a GPU, of all layers together.
 *
 * An update takes three launches, a copy down and a copy up: sums that give the pivots, and
 * power sums; then the descent, by what the CPU has made of these. More where granularity=
 * or weights in a few points ask for it.
 */
#ifndef KURE_REGULARIZE_CUDA_H
#define KURE_REGULARIZE_CUDA_H

#include "state.h"

/* Tables and buffers on the GPU that is current. Ends the process where they do not fit. */
void kure_cuda_attach(struct kure_network *k);
void kure_cuda_release(struct kure_network *k);

/* Statistics of the layers' weights as they are on the GPU. */
void kure_cuda_measure(struct kure_network *k);

/* k->measures[i] from these */
void kure_cuda_finish(struct kure_network *k, int i, const struct kure_kurtosis_rule *rule);

/* Plans what kure_kurtosis_apply does to layer i; returns 1 where max_step acts. */
int kure_cuda_apply(struct kure_network *k, int i, const struct kure_kurtosis_rule *rule, double factor, double rate, double max_step);

/* Does it, for all layers that were planned since kure_cuda_measure. */
void kure_cuda_descend(struct kure_network *k);

#endif
