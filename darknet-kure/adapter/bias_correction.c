/*
 * bias_correction.c: biases moved until the mean of every channel's output, in front of
 * the activation, is that of the float network: Nagel et al. 2019, section 4.2, and
 * Finkelstein et al. 2019, by images instead of by batch-norm statistics.
 *
 * One layer after another, each by a pass through it and those before it, which are
 * corrected already: moved all at once they overshoot.
 */
#include <stdlib.h>
#include <string.h>

#include "ptq.h"

struct kure_correction {
    struct corrected_layer {
        void (*forward)(layer, network); /* Darknet's; NULL: no biases */
        double *wanted, *sum;            /* [channels] means of the float network; sums of this pass */
        double values;                   /* of each channel in this pass */
    } *layers;
};

static size_t channels_of(const struct kure_plan_row *row)
{
    int quantized = row->weights == KURE_WEIGHTS_CONVOLUTIONAL || row->weights == KURE_WEIGHTS_CONNECTED;
    return quantized ? row->rows : 0;
}

/* The layer without its activation, whose inputs are looked at and which then follows. */
static void forward(layer l, network net)
{
    struct kure_network *k = l.kure;
    struct corrected_layer *c = &k->correction->layers[net.index];
    size_t channels = channels_of(&k->plan.rows[net.index]), plane = (size_t)l.outputs / channels;
    layer own = l;
    own.activation = LINEAR;
    c->forward(own, net);
    for (size_t i = 0; i < (size_t)l.batch * channels; ++i) {
        double sum = 0;
        for (size_t p = 0; p < plane; ++p) sum += (double)l.output[i * plane + p];
        c->sum[i % channels] += sum;
    }
    c->values += (double)l.batch * (double)plane;
    activate_array(l.output, l.outputs * l.batch, l.activation);
}

/* One pass through layers 0..last; means [out]: [channels] of each layer from `first` on, in its sum. */
static void measure(struct kure_ptq *ptq, int first, int last, struct kure_images *images, void (*done)(void *, int), void *context)
{
    struct kure_network *k = ptq->k;
    for (int i = first; i <= last; ++i) {
        struct corrected_layer *c = &k->correction->layers[i];
        size_t channels = channels_of(&k->plan.rows[i]);
        if (!channels) continue;
        c->forward = *kure_layer_function(k, i);
        *kure_layer_function(k, i) = forward;
        ptq->net->layers[i].kure = k;
        memset(c->sum, 0, channels * sizeof *c->sum);
        c->values = 0;
    }
    int all = ptq->net->n;
    ptq->net->n = last + 1; /* those behind it are not needed */
    kure_images_predict(ptq->net, images, done, context);
    ptq->net->n = all;
    for (int i = first; i <= last; ++i) {
        struct corrected_layer *c = &k->correction->layers[i];
        if (!c->forward) continue;
        *kure_layer_function(k, i) = c->forward;
        c->forward = NULL;
        for (size_t j = 0; j < channels_of(&k->plan.rows[i]); ++j) c->sum[j] /= c->values;
    }
}

struct kure_correction *kure_correction_begin(struct kure_ptq *ptq, struct kure_images *images, void (*done)(void *, int), void *context)
{
    static const struct kure_point plain = {.fold = 0};
    if (gpu_index >= 0) kure_stop(&(struct kure_error){"biases are corrected on the processor only in this version: add -nogpu"});
    struct kure_correction *correction = calloc(1, sizeof *correction);
    if (correction) correction->layers = calloc((size_t)ptq->net->n, sizeof *correction->layers);
    int ok = correction && correction->layers;
    for (int i = 0; ok && i < ptq->net->n; ++i) {
        size_t channels = channels_of(&ptq->own.rows[i]);
        if (!channels) continue;
        correction->layers[i].wanted = calloc(channels, sizeof(double));
        correction->layers[i].sum = calloc(channels, sizeof(double));
        ok = correction->layers[i].wanted && correction->layers[i].sum;
    }
    if (!ok) kure_stop(&(struct kure_error){"not enough memory for the correction of biases"});
    kure_ptq_set(ptq, &plain, NULL);
    ptq->k->correction = correction;
    measure(ptq, 0, ptq->net->n - 1, images, done, context);
    ptq->k->correction = NULL;
    for (int i = 0; i < ptq->net->n; ++i) {
        struct corrected_layer *c = &correction->layers[i];
        if (c->wanted) memcpy(c->wanted, c->sum, channels_of(&ptq->own.rows[i]) * sizeof *c->wanted);
    }
    return correction;
}

int kure_correction_passes(const struct kure_ptq *ptq)
{
    int passes = 0;
    for (int i = 0; i < ptq->net->n; ++i) passes += channels_of(&ptq->own.rows[i]) != 0;
    return passes;
}

void kure_correction_apply(struct kure_correction *correction, struct kure_ptq *ptq, struct kure_images *images, void (*done)(void *, int), void *context)
{
    ptq->k->correction = correction;
    for (int i = 0; i < ptq->net->n; ++i) {
        const struct corrected_layer *c = &correction->layers[i];
        if (!c->wanted) continue;
        measure(ptq, i, i, images, done, context);
        for (size_t j = 0; j < channels_of(&ptq->own.rows[i]); ++j) ptq->net->layers[i].biases[j] += (float)(c->wanted[j] - c->sum[j]);
    }
    ptq->k->correction = NULL;
}

void kure_correction_free(struct kure_correction *correction, struct kure_ptq *ptq)
{
    for (int i = 0; correction && i < ptq->net->n; ++i) {
        free(correction->layers[i].wanted);
        free(correction->layers[i].sum);
    }
    if (correction) free(correction->layers);
    free(correction);
}
