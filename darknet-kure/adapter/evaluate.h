/*
 * evaluate.h: loads networks and data for the commands, and quantizes weights in place;
 * measure.h says how good they are. Faults of the user's end the process with one sentence
 * (kure_stop), as in the hooks.
 */
#ifndef KURE_EVALUATE_H
#define KURE_EVALUATE_H

#include <stdio.h>

#include "state.h"

/* Parses the cfg and, with weights != NULL, loads them whole: a partial file or one
 * with bytes left over is refused. Darknet's own chatter is held back and shown only
 * if it ends the process. The network is freed with free_network. */
network *kure_network_load(const char *cfg, const char *weights);

/* One quantizer of weights and one of activations, for all layers of a network but the
 * first and the last; keys of a layer of the cfg stand. */
struct kure_point {
    struct kure_quantizer weights, activations; /* bits = 0: all float, the first and the last layers too */
    int first_bits, last_bits;
    int fold;
    int everywhere;           /* whatever quantizer keys the layers have, but for quantize=0 */
    const unsigned char *layers; /* [layers of the cfg] KURE_LAYER_FLOAT, KURE_LAYER_AS_POINT, or the bits of its weights; NULL: all as the point */
};
enum { KURE_LAYER_FLOAT, KURE_LAYER_AS_POINT };

/* Post-training quantization: the float weights and batch-norm statistics are kept while points replace them. */
struct kure_ptq;
struct kure_ptq *kure_ptq_begin(network *net);
void kure_ptq_free(struct kure_ptq *ptq); /* the network is to be freed next */

/* What the activations of the float network are, wherever a quantizer can sit. */
struct kure_calibration;

/* Ends the process with a sentence if a layer's own keys do not go together with the point's. */
void kure_ptq_check(const struct kure_ptq *ptq, const struct kure_point *point);

/* Puts a point in force: the weights are quantized in place, from the kept ones, and
 * the activations as the network predicts, with the ranges of `calibration` (NULL: the
 * point's activations are float).
 * Stochastic rounding draws from stream i in layer i, seed 0.
 * Returns the SQNR in dB, the mean over the layers that carry weight_bits (over
 * all quantized layers where there is none such); NaN where nothing is quantized. */
double kure_ptq_set(struct kure_ptq *ptq, const struct kure_point *point, const struct kure_calibration *calibration);

struct kure_images;

/* Batch-norm statistics under the point in force, from all of `images`, a batch at a
 * time: mean and variance of the batches' values together. With folding the weights are
 * then quantized again, on the grid of these statistics; returns the SQNR as above. */
double kure_ptq_reestimate(struct kure_ptq *ptq, struct kure_images *images, void (*done)(void *, int), void *context);

/* lapq.c: as kure_ptq_set, with the steps that LAPQ finds for the labelled `images` in place
 * of the point's truncation policies; its step ratios are applied after that. Steps of the
 * first and the last layers stay where their L_p fit puts them. What was found for a point
 * serves the next one if that differs in its step ratios alone. */
struct kure_lapq_steps;
struct kure_lapq_steps *kure_lapq_begin(network *net, struct kure_images *images); /* ends the process for a network without [softmax] at its end */
double kure_lapq_set(struct kure_lapq_steps *steps, struct kure_ptq *ptq, const struct kure_point *point, const struct kure_calibration *calibration,
                     void (*done)(void *, int), void *context);
int kure_lapq_passes(const struct kure_ptq *ptq); /* over the images, at most */
/* The point that was put in force for this one: truncation is the L_p fit that was found. */
struct kure_point kure_lapq_found(const struct kure_lapq_steps *steps, const struct kure_point *point);
void kure_lapq_free(struct kure_lapq_steps *steps);

/* save.c: writes the point in force as a network that a cfg alone describes: NAME.cfg, with the point's quantizers in
 * [quantization] and steps that LAPQ has moved as step ratios of the layers; NAME.weights, float, with biases and batch norm as
 * they are now; NAME.weights.kure with the ranges of the calibration. The float weights are then in force.
 *   cfg [in]: the file that the network came from */
void kure_ptq_save(struct kure_ptq *ptq, const struct kure_point *point, const struct kure_calibration *calibration, const char *cfg, const char *name);

/* equalize.c: cross-layer equalization of the float network, whose function stays; says on
 * stderr which layers are left out, and why. */
void kure_equalize(network *net, const char *cfg);

/* Biases moved until every channel has the mean of the float network: begin looks at that
 * network, apply at the point in force. */
struct kure_correction;
int kure_correction_passes(const struct kure_ptq *ptq); /* of apply over the images, one a layer with weights */
struct kure_correction *kure_correction_begin(struct kure_ptq *ptq, struct kure_images *images, void (*done)(void *, int), void *context);
void kure_correction_apply(struct kure_correction *correction, struct kure_ptq *ptq, struct kure_images *images,
                           void (*done)(void *, int), void *context);
void kure_correction_free(struct kure_correction *correction, struct kure_ptq *ptq);

/* Runs the float network over `images`, which may be more than fit in memory. */
struct kure_calibration *kure_calibrate(struct kure_ptq *ptq, struct kure_images *images, void (*done)(void *, int), void *context);
void kure_calibration_free(struct kure_calibration *calibration);

/* What was seen before and after the activation of layer i: [groups] observers (two, boxes
 * and scores, behind a head); NULL: no quantizer can sit there. */
const struct kure_observer *kure_calibration_observer(const struct kure_calibration *calibration, int i, int after, int group);

/* The ranges of the cfg's own quantizers become those of the calibration, and are written
 * to `<weights>.kure`, beside what a training has left there. */
void kure_calibration_save(struct kure_ptq *ptq, const struct kure_calibration *calibration, const char *weights);

/* Names on stderr, in one line, the layers whose weights no quantizer takes: deconvolutional,
 * local, recurrent. */
void kure_report_float_layers(const network *net);

/* A line of Darknet's file of boxes; shares of the image's width and height. */
struct kure_label {
    int category;
    double x, y, width, height; /* x, y: the centre */
};

/* Images of a .data file: for `valid` every path matches a label, of classes that fit the network;
 * of a detector every image has its boxes. */
struct kure_images {
    char **paths;
    int *lines;    /* [count] of `file`, the list */
    char *file;    /* borrowed */
    int *classes;  /* [count] true class; NULL: unlabelled, or of a detector */
    struct kure_label **boxes; /* [count][box_counts]; NULL: unlabelled, or of a classifier */
    int *box_counts;           /* [count] */
    int (*sizes)[2];           /* [count] width and height of the file's image, once it is decoded */
    int count;
    int class_count;
    float *pixels; /* [count][net->inputs], where that fits in memory, else NULL */
    int decoded;   /* pixels are filled */
    int once;      /* they are looked at once: few pixels are kept */
};
/* The validation list; images > 0 takes the first so many. */
struct kure_images *kure_images_load(const network *net, const char *data, int images);
/* `count` of the training list, drawn by seed without repetition; 0: 256, or all where there are fewer.
 * option [in]: who asks, for messages. */
struct kure_images *kure_images_sample(const network *net, const char *data, int count, uint64_t seed, const char *option);
/* Their classes by the labels of the .data file, or their boxes, as for the validation list. */
void kure_images_label(struct kure_images *images, const network *net, const char *data);
/* The first layer of a detector's head; -1: the network is none. */
int kure_detector_layer(const network *net);
/* boxes.c: the boxes of every image, from the files that Darknet trains with: images -> labels, .jpg -> .txt. A line that is
 * no box, a class or a share out of range, classes= of `data` that are not those of the heads, no box in any file: end
 * the process. An image without a file has no boxes; how many there are is said. */
void kure_boxes_load(struct kure_images *images, const network *net, list *options, const char *data);
/* Decodes and keeps the images where they fit in memory, once and for all; of more of them only
 * looks whether the files are there. One that cannot be read ends the process, named and counted,
 * now or, where they do not fit, in the batch that meets it; with skip_bad it is left out, for
 * which those that do not fit are decoded here and again as they are needed. */
void kure_images_check(const network *net, struct kure_images *images, int skip_bad);
/* Images first .. first+n-1 to out: [n][net->inputs]; for kure_images_each. */
void kure_images_decode_batch(const network *net, const struct kure_images *images, int first, int n, float *out);
/* Name, without its folder, and class of each, one a line. */
void kure_images_describe(const struct kure_images *images, FILE *out);
void kure_images_free(struct kure_images *images);

/* Names of the classes by the .data file, names= or else labels=; NULL: it says none, or not as many as classes=. Darknet's own memory. */
char **kure_class_names(const char *data, int *count);

/* Calls visit for every batch in order, with net->batch set to its number of images; the
 * centre square of an image, resized to the network's input, or for a detector all of it between grey bars. */
typedef void kure_batch_function(void *context, network *net, float *pixels, int first, int count);
void kure_images_each(network *net, struct kure_images *images, kure_batch_function *visit, void *context);

/* The same for what a prediction leaves behind; done(context, images) after each batch. */
void kure_images_predict(network *net, struct kure_images *images, void (*done)(void *, int), void *context);

/* Seconds that an image takes as the network stands, the least of several passes over the first n. */
double kure_images_seconds(network *net, struct kure_images *images, int n);

/* Is what the network puts out the probability of each class? */
int kure_has_probabilities(const network *net);
/* Sum of -ln p, p from FLT_MIN on. output [in]: [count][net->outputs] of such a network; classes [in]: [count] */
double kure_cross_entropy(const network *net, const float *output, const int *classes, int count);

#endif
