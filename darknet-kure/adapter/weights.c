/* weights.c: what a weights file brought or is to hold: its extent, finite values, the sidecar. */
#include <stdio.h>

#include "state.h"

void kure_weights_extent(network *net, int layers, size_t left)
{
    struct kure_network *k = net->kure;
    k->extent_known = 1;
    k->loaded_layers = layers;
    k->bytes_left = left;
}

/* The sentence is about FILE: layer, array, index, value, and what follows from it. */
static void check_array(const char *file, int layer, const char *name, const float *x, size_t n, const char *so)
{
    for (size_t i = 0; x && i < n; ++i) {
        if (kure_is_finite(x[i])) continue;
        struct kure_error error;
        snprintf(error.text, sizeof error.text, "%s: layer %d: %s %zu is not finite (%g): %s", file, layer, name, i, (double)x[i], so);
        kure_stop(&error);
    }
}

static void check_finite(const network *net, const char *file, const char *so)
{
    const struct kure_network *k = net->kure;
    for (int i = 0; i < net->n; ++i) {
        const layer *l = &net->layers[i];
        const struct kure_plan_row *row = &k->plan.rows[i];
        size_t rows = row->rows;
        check_array(file, i, "weight", l->weights, rows * row->row_length, so);
        check_array(file, i, "bias", l->biases, rows, so);
        if (!l->batch_normalize) continue;
        check_array(file, i, "scale", l->scales, rows, so);
        check_array(file, i, "rolling mean", l->rolling_mean, rows, so);
        check_array(file, i, "rolling variance", l->rolling_variance, rows, so);
    }
}

/* Darknet pulls the weights from the GPU while it writes them, which is too late here. */
static void pull_weights(const network *net)
{
#ifdef GPU
    if (net->gpu_index < 0) return;
    cuda_set_device(net->gpu_index);
    for (int i = 0; i < net->n; ++i) {
        LAYER_TYPE type = net->layers[i].type;
        if (type == CONVOLUTIONAL || type == DECONVOLUTIONAL) pull_convolutional_layer(net->layers[i]);
        if (type == CONNECTED) pull_connected_layer(net->layers[i]);
    }
#else
    (void)net;
#endif
}

void kure_weights_saving(network *net, const char *file)
{
    pull_weights(net);
    check_finite(net, file, "not saved, the training has diverged; try a lower learning_rate");
}

void kure_weights_loaded(network *net, const char *file, int start, int cutoff)
{
    struct kure_network *k = net->kure;
    check_finite(net, file, "these weights cannot be used");
    kure_simulation_touch(k);
    int complete = start == 0 && cutoff >= net->n && (!k->extent_known || k->loaded_layers >= net->n);
    if (complete && kure_has_sidecar(k)) kure_sidecar_load(k, file);
}
