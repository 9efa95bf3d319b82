/*
 * profiles.h: targets: the quantizers that their integer arithmetic can run.
 */
#ifndef KURE_PROFILES_H
#define KURE_PROFILES_H

#include "kure_runtime.h"
#include "options.h"

struct kure_profile {
    const char *name, *keys[3]; /* by enum kure_quantized; [0] unused */
    int fuses, shares;          /* profiles.def */
    enum kure_arithmetic arithmetic;
    enum kure_input_rounding input;
    const char *help, *source;
};

/* For the key: "none onnx tflite ..."; the value of the key less one is the profile's number. */
extern const char kure_profile_names[];

/* NULL past the end, and for -1. */
const struct kure_profile *kure_profile(int i);
/* The number of a name, -1: there is none. */
int kure_profile_find(const char *name);

/* What a target makes of an activation= in a layer: nothing, a table of 256 codes between two quantizers, or a form of its own. */
enum kure_activation_form { KURE_FORM_NONE, KURE_FORM_TABLE, KURE_FORM_OWN };
enum kure_activation_form kure_profile_form(const struct kure_profile *profile, const char *activation);

/* The profile's default of every key into those that are not given. */
KURE_CHECKED enum kure_status kure_profile_defaults(const struct kure_profile *profile, enum kure_quantized which,
                                                    struct kure_quantizer_keys *keys, struct kure_error *error);

/* Can the target run q? at [in]: "net.cfg:12: layer 3 [convolutional]", for the sentence. */
KURE_CHECKED enum kure_status kure_profile_check(const struct kure_profile *profile, enum kure_quantized which,
                                                 const struct kure_quantizer *q, const char *at, struct kure_error *error);

#endif
