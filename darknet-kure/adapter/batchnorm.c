/*
 * batchnorm.c: batch-norm statistics estimated anew, for a network whose weights and
 * activations have been quantized since they were learned.
 *
 * Every batch-norm layer normalizes by the statistics of the batch, as in training, and
 * these are combined over all batches; the rest of the network predicts.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "ptq.h"

struct kure_reestimation {
    struct batchnorm_sums {
        void (*forward)(layer, network); /* Darknet's; NULL: no batch norm */
        double *mean, *square;           /* [channels] sums of mean and mean square, times values */
        double values;                   /* seen of each channel */
    } *layers;
};

size_t kure_batchnorm_channels(const layer *l)
{
    if (!l->rolling_mean || !l->rolling_variance || !l->mean || !l->variance) return 0;
    switch (l->type) {
    case CONVOLUTIONAL:
    case DECONVOLUTIONAL: return l->batch_normalize ? (size_t)l->n : 0;
    case CONNECTED: return l->batch_normalize ? (size_t)l->outputs : 0;
    case BATCHNORM: return (size_t)l->c;
    default: return 0;
    }
}

static void forward(layer l, network net)
{
    struct kure_network *k = l.kure;
    struct batchnorm_sums *s = &k->reestimation->layers[net.index];
    size_t channels = kure_batchnorm_channels(&l);
    double values = (double)l.outputs * l.batch / (double)channels;
    if (values < 2) {
        struct kure_error error;
        snprintf(error.text, sizeof error.text, "layer %d [%s]: a batch of one image has one value a channel here, and so no variance: choose batch= in "
                 "the cfg and --bn-images so that no batch is of one image", net.index, k->plan.rows[net.index].type);
        kure_stop(&error);
    }
    net.train = 1; /* read by batch norm alone here */
    s->forward(l, net);
    for (size_t c = 0; c < channels; ++c) { /* Darknet's variance is the unbiased one */
        double mean = l.mean[c];
        s->mean[c] += values * mean;
        s->square[c] += (values - 1) * l.variance[c] + values * mean * mean;
    }
    s->values += values;
}

static void begin(struct kure_network *k)
{
    struct kure_reestimation *r = k->reestimation;
    for (int i = 0; i < k->net->n; ++i) {
        layer *l = &k->net->layers[i];
        size_t channels = kure_batchnorm_channels(l);
        if (!channels) continue;
        r->layers[i].mean = calloc(channels, sizeof(double));
        r->layers[i].square = calloc(channels, sizeof(double));
        if (!r->layers[i].mean || !r->layers[i].square) kure_stop(&(struct kure_error){"not enough memory for batch-norm statistics"});
        r->layers[i].forward = *kure_layer_function(k, i);
        *kure_layer_function(k, i) = forward;
        l->kure = k;
    }
}

static void end(struct kure_network *k)
{
    struct kure_reestimation *r = k->reestimation;
    for (int i = 0; i < k->net->n; ++i) {
        layer *l = &k->net->layers[i];
        struct batchnorm_sums *s = &r->layers[i];
        if (!s->forward) continue;
        *kure_layer_function(k, i) = s->forward;
        for (size_t c = 0; c < kure_batchnorm_channels(l); ++c) {
            if (!isfinite(s->mean[c]) || !isfinite(s->square[c])) {
                struct kure_error error;
                snprintf(error.text, sizeof error.text, "layer %d [%s]: values that are not finite: no batch-norm statistics", i,
                         k->plan.rows[i].type);
                kure_stop(&error);
            }
            double mean = s->mean[c] / s->values, square = s->square[c] - s->values * mean * mean;
            l->rolling_mean[c] = (float)mean;
            if (square <= 0) continue; /* constant: any variance leaves it so, but one of 0 would make a fold of its weights the largest of all */
            l->rolling_variance[c] = (float)(square / (s->values > 1 ? s->values - 1 : 1));
        }
        free(s->mean);
        free(s->square);
    }
}

void kure_batchnorm_reestimate(struct kure_ptq *ptq, struct kure_images *images, void (*done)(void *, int), void *context)
{
    struct kure_network *k = ptq->k;
    if (gpu_index >= 0) kure_stop(&(struct kure_error){"batch norm is estimated anew on the processor only in this version: add -nogpu"});
    k->reestimation = calloc(1, sizeof *k->reestimation);
    if (k->reestimation) k->reestimation->layers = calloc((size_t)ptq->net->n, sizeof *k->reestimation->layers);
    if (!k->reestimation || !k->reestimation->layers) kure_stop(&(struct kure_error){"not enough memory for batch-norm statistics"});
    begin(k);
    kure_images_predict(ptq->net, images, done, context);
    end(k);
    free(k->reestimation->layers);
    free(k->reestimation);
    k->reestimation = NULL;
}
