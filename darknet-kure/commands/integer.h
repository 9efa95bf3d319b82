/*
 * integer.h: the integer model of a network, for export, compare and eval --integer.
 */
#ifndef KURE_COMMANDS_INTEGER_H
#define KURE_COMMANDS_INTEGER_H

#include "export_view.h"
#include "measure.h"
#include "points.h"

/* What the command line says of it. */
struct kure_integer_request {
    const char *command, *cfg, *weights, *data; /* data: NULL, not given */
    const char *profile;                        /* NULL: the cfg's, else onnx */
    struct kure_points points;                  /* quantizer keys of a cfg without [quantization] */
    int images;                                 /* to calibrate with; 0: as kure_images_sample */
    uint64_t seed;
};

/* A loaded network and what was put on it. */
struct kure_integer_source {
    const struct kure_integer_request *request;
    network *net;
    struct kure_ptq *ptq;                 /* NULL: the cfg's own quantizers and ranges are in force */
    struct kure_calibration *calibration; /* NULL: none was needed */
    struct kure_quantization_options quantization; /* where the cfg has none */
    int has_section;                      /* the cfg has one */
    char ranges[256];                     /* where they come from, in words */
};

/* Loads the network. -1: go on; else the exit status after a sentence: the options contradict each other or the cfg. */
int kure_integer_load(struct kure_integer_source *s, const struct kure_integer_request *request);

/* The name of the profile that the request and the cfg ask for. */
const char *kure_integer_profile(const struct kure_integer_source *s);

/* Its model for a profile. replan [in]: 1: the quantizers of that profile, whatever the cfg's are, with the trained ranges or a
 * calibration; 0: the cfg's own, which must fit. Ends the process after a sentence where there is none.
 *   view   [out]: borrowed by the model; to be freed after it with kure_export_view_free */
void kure_integer_make(struct kure_integer_source *s, const char *profile, int replan, struct kure_network_view *view, struct kure_integer_model *model);
void kure_integer_end(struct kure_integer_source *s);

/* An integer model measured as kure_measure does it: its outputs, as values, go through the layers behind them.
 * how [in]: its predictor is set here */
struct kure_measure kure_integer_measure(const struct kure_integer_model *model, network *net, struct kure_images *images, struct kure_measuring *how);

#endif
