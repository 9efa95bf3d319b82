/* weights.c: what a weights file brought: its extent, finite values, the sidecar. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "state.h"

void kure_weights_extent(network *net, int layers, size_t left)
{
    struct kure_network *k = net->kure;
    k->extent_known = 1;
    k->loaded_layers = layers;
    k->bytes_left = left;
}

/* By bits: Darknet's link switches the float environment, ours must not matter. */
static size_t first_nonfinite(const float *x, size_t n)
{
    for (size_t i = 0; i < n; ++i) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        if ((bits & 0x7f800000u) == 0x7f800000u) return i;
    }
    return n;
}

static void check_array(const char *file, int layer, const char *name, const float *x, size_t n)
{
    size_t i = x ? first_nonfinite(x, n) : n;
    if (i == n) return;
    struct kure_error error;
    snprintf(error.text, sizeof error.text, "%s: layer %d: %s %zu is not finite (%g): these weights cannot be used", file, layer,
             name, i, (double)x[i]);
    kure_stop(&error);
}

static void check_finite(const network *net, const char *file)
{
    const struct kure_network *k = net->kure;
    for (int i = 0; i < net->n; ++i) {
        const layer *l = &net->layers[i];
        const struct kure_plan_row *row = &k->plan.rows[i];
        size_t rows = row->rows;
        check_array(file, i, "weight", l->weights, rows * row->row_length);
        check_array(file, i, "bias", l->biases, rows);
        if (!l->batch_normalize) continue;
        check_array(file, i, "scale", l->scales, rows);
        check_array(file, i, "rolling mean", l->rolling_mean, rows);
        check_array(file, i, "rolling variance", l->rolling_variance, rows);
    }
}

void kure_weights_loaded(network *net, const char *file, int start, int cutoff)
{
    struct kure_network *k = net->kure;
    check_finite(net, file);
    kure_simulation_touch(k);
    int complete = start == 0 && cutoff >= net->n && (!k->extent_known || k->loaded_layers >= net->n);
    if (complete && kure_has_sidecar(k)) kure_sidecar_load(k, file);
}
