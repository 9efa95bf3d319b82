/*
 * sidecar_plan.h: what a sidecar says of the plan it was trained by, and how that differs
 * from the cfg it is loaded with: for the user to read, nothing depends on it.
 */
#ifndef KURE_SIDECAR_PLAN_H
#define KURE_SIDECAR_PLAN_H

#include "kure_format.h"
#include "state.h"

void kure_plan_text(const struct kure_network *k, char out[KURE_KURTOSIS_TEXT]);
void kure_plan_quantization_text(const struct kure_network *k, char out[KURE_KURTOSIS_TEXT]);

/* The plan's rows as the tensor plan.layers has them; NULL: no [kurtosis]. To be freed. */
#define KURE_PLAN_LAYERS "plan.layers"
enum { KURE_PLAN_LAYER_FLOATS = 3 };
float *kure_plan_layers(const struct kure_network *k);

/* Names on stderr what `then` said and `now` does not; both are plan texts. */
void kure_plan_report(const char *path, const char *then, const char *now);

/* One line for each layer whose own part of the plan has changed. */
void kure_plan_report_layers(const struct kure_network *k, const char *path, const struct kure_file *file);

#endif
