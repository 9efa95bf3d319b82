/*
 * evaluate.h: loads networks and data for the commands, quantizes weights in place,
 * and measures classifiers. Faults of the user's end the process with one sentence
 * (kure_stop), as in the hooks.
 */
#ifndef KURE_EVALUATE_H
#define KURE_EVALUATE_H

#include "state.h"

/* Parses the cfg and, with weights != NULL, loads them whole: a partial file or one
 * with bytes left over is refused. Darknet's own chatter is held back and shown only
 * if it ends the process. The network is freed with free_network. */
network *kure_network_load(const char *cfg, const char *weights);

/* Where a point of an evaluation stands. weights.bits: of the layers between the
 * first and the last; 0: all float. */
struct kure_point {
    struct kure_quantizer weights;
    int first_bits, last_bits;
    int fold;
};

/* The float weights of a network, kept while points replace them. */
struct kure_float_weights;
struct kure_float_weights *kure_float_weights_keep(network *net);
void kure_float_weights_restore(struct kure_float_weights *kept);
void kure_float_weights_free(struct kure_float_weights *kept);

/* Quantizes all convolutional and connected weights in place, from the kept ones.
 * Stochastic rounding draws from stream i in layer i, seed 0.
 * Returns the SQNR in dB, the mean over the layers that carry weight_bits (over
 * all quantized layers where there is none such); NaN where nothing is quantized. */
double kure_quantize_network(struct kure_float_weights *kept, const struct kure_point *point);

/* Names on stderr, in one line, the layers whose weights no quantizer takes: deconvolutional,
 * local, recurrent. */
void kure_report_float_layers(const network *net);

/* Simulation of the cfg's own [quantization], on when the network is loaded. */
void kure_simulation_switch(struct kure_network *k, int on);

/* The validation list of a .data file, checked: every image readable, every path
 * matches a label, classes fit the network. images > 0 takes the first so many. */
struct kure_images {
    char **paths;
    int *classes; /* [count] true class */
    int count;
    int class_count;
    float *pixels; /* [count][net->inputs], where that fits in memory, else NULL */
    int decoded;   /* pixels are filled */
};
struct kure_images *kure_images_load(const network *net, const char *data, int images);
void kure_images_free(struct kure_images *images);

struct kure_accuracy {
    double top1, top5; /* percent */
};

/* done(context, images): called from one thread as batches are finished. */
struct kure_accuracy kure_classify(network *net, struct kure_images *images, void (*done)(void *, int), void *context);

#endif
