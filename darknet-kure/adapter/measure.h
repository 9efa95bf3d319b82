/*
 * measure.h: how good a network is on labelled images: a classifier by top-1 and top-5, a
 * detector, whose head is [yolo] or [region], by average precision.
 */
#ifndef KURE_MEASURE_H
#define KURE_MEASURE_H

#include "average_precision.h"
#include "evaluate.h"

enum kure_measure_value {
#define KURE_MEASURE(value, column, name, format) KURE_MEASURE_##value,
#include "measures.def"
#undef KURE_MEASURE
    KURE_MEASURES
};

struct kure_measure {
    double value[KURE_MEASURES]; /* NaN: the network has none such */
};

struct kure_measure_text {
    const char *column, *name, *format;
};
struct kure_measure_text kure_measure_text(int value);
/* The one that counts where one number is wanted: top-1 or AP. */
int kure_main_measure(const network *net);
/* A network as a table has it: "top-1 90.00 %, top-5 99.00 %" or "AP 60.00 %, AP50 ..." */
void kure_measure_describe(const struct kure_measure *m, char *out, size_t size);

/* The network's outputs for a batch, in place of network_predict: pixels [in]: [count][net->inputs], count is net->batch;
 * returns [count][net->outputs]. For a detector the outputs of its heads are filled. */
typedef float *kure_predictor(void *predictor, network *net, const float *pixels, int count);

#define KURE_DEFAULT_THRESHOLD 0.25

struct kure_measuring {
    kure_predictor *predict;       /* NULL: network_predict */
    void *predictor;
    double threshold;              /* of a detection's score, for precision, recall and F1 */
    struct kure_average_precision *categories; /* [out] [images->class_count] of a detector; NULL: not wanted */
    FILE *detections;              /* [out] what was detected, COCO's format of results; NULL: not wanted */
    void (*done)(void *, int);     /* done(context, images): from one thread as batches are finished */
    void *context;
};

/* images: labelled. The same values for any number of threads. */
struct kure_measure kure_measure(network *net, struct kure_images *images, const struct kure_measuring *how);

/* classify.c, detect.c: the two kinds of it. */
struct kure_measure kure_classify(network *net, struct kure_images *images, const struct kure_measuring *how);
struct kure_measure kure_detect(network *net, struct kure_images *images, const struct kure_measuring *how);
/* The values of a detector, in percent; the others stay. */
void kure_measure_set_precision(struct kure_measure *m, const struct kure_average_precision *a);
float *kure_predict(const struct kure_measuring *how, network *net, float *pixels, int count);

#endif
