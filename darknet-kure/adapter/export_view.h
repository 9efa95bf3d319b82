/*
 * export_view.h: a network with simulated quantization as export sees it (struct
 * kure_network_view), and the plan of a target put on a network that has none.
 */
#ifndef KURE_EXPORT_VIEW_H
#define KURE_EXPORT_VIEW_H

#include "evaluate.h"
#include "network.h"

/* The quantizers and scales in force: of the cfg, the sidecar, a calibration. Borrows from the network, which stays as it is.
 * To be freed with kure_export_view_free.
 * KURE_ERROR_INPUT: nothing is quantized, or ranges are not known. */
KURE_CHECKED enum kure_status kure_export_view(network *net, const char *cfg, const char *weights, struct kure_network_view *view,
                                               struct kure_error *error);
void kure_export_view_free(struct kure_network_view *view);

/* Why a layer has no integer form in any target; NULL: it has one, or is decoded in float behind the outputs. Static text. */
const char *kure_export_why_not(const layer *l);

/* Puts a target's quantizers on a network.
 *   quantization  [in]: in the place of [quantization], with line KURE_NO_SECTION; NULL: that of the cfg, with what a training or a
 *                 calibration has left
 *   profile       [in]: its number; the profile's defaults stand for keys that are not given
 * KURE_ERROR_INPUT: they do not go together. */
KURE_CHECKED enum kure_status kure_export_use_profile(struct kure_ptq *ptq, const struct kure_quantization_options *quantization, int profile,
                                                      struct kure_error *error);

/* The quantizers of the cfg again, with what a training or a calibration has left. */
void kure_export_use_own(struct kure_ptq *ptq);

/* Activations get the ranges of a calibration, where that knows them. */
void kure_export_calibrate(struct kure_ptq *ptq, const struct kure_calibration *calibration);

/* What layers have put out, [net->batch][outputs] in each, runs through the layers that decode it: those behind sources[count].
 * Returns the network's output. */
float *kure_export_decode(network *net, const int *sources, int count);

#endif
