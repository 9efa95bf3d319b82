/*
 * equalize.c: cross-layer equalization, Nagel et al. 2019, section 4.1: the scale of each
 * channel between two layers is moved from one to the other until its range is the same
 * in both. The float network stays the same function; one step a tensor fits it better.
 *
 * A pair is a layer with weights and the only layer with weights that reads it, through
 * layers that act on each channel apart and keep its scale. Its activation must be
 * homogeneous: linear, relu, leaky.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "evaluate.h"

enum { MOST_ROUNDS = 100 };
static const double DONE = 1e-3; /* the farthest that a scale still moves in a round, as a share */

struct pair {
    int first, second;
    const char *reason; /* why there is none: second is not set */
};

static int has_rows(const struct kure_plan_row *row)
{
    return row->rows && (row->weights == KURE_WEIGHTS_CONVOLUTIONAL || row->weights == KURE_WEIGHTS_CONNECTED);
}

static int is_binary(const layer *l)
{
    return l->binary || l->xnor;
}

static int is_homogeneous(const struct kure_network *k, int i)
{
    ACTIVATION a = k->net->layers[i].activation;
    return !k->options.layer[i].is_relu6 && (a == LINEAR || a == RELU || a == LEAKY);
}

/* The only reader of layer i; -1: none or several. */
static int only_reader(const struct kure_layer_view *v, int n, int i, int *count)
{
    int reader = -1;
    *count = 0;
    for (int j = i + 1; j < n; ++j) {
        for (int p = 0; p < v[j].input_count; ++p) {
            if (v[j].inputs[p] != i) continue;
            reader = j;
            ++*count;
        }
    }
    return *count == 1 ? reader : -1;
}

/* Keeps channels and their scale: what lies between the two layers of a pair. */
static int passes_channels(const layer *l)
{
    return l->type == MAXPOOL || l->type == UPSAMPLE || l->type == DROPOUT || l->type == AVGPOOL || (l->type == ROUTE && l->n == 1);
}

static struct pair find_pair(const struct kure_network *k, const struct kure_layer_view *v, int first)
{
    struct pair p = {.first = first, .second = -1};
    int readers, at = first;
    if (is_binary(&k->net->layers[first])) p.reason = "binary weights";
    else if (!is_homogeneous(k, first)) p.reason = "its activation is not homogeneous";
    while (!p.reason && p.second < 0) {
        int next = only_reader(v, k->plan.count, at, &readers);
        if (readers > 1) p.reason = "its output goes to several layers";
        else if (next < 0) p.reason = "nothing reads it";
        else if (is_binary(&k->net->layers[next])) p.reason = "binary weights read it";
        else if (has_rows(&k->plan.rows[next])) p.second = next;
        else if (!passes_channels(&k->net->layers[next])) p.reason = "no layer with weights reads it alone";
        at = next;
    }
    return p;
}

/* ------------------------------------------------------------------------- */

static double fold_of(const layer *l, size_t row)
{
    return l->batch_normalize ? l->scales[row] / sqrt((double)l->rolling_variance[row] + 1e-5) : 1;
}

/* Multiplies every weight of `l` that reads input channel c of `channels`; their range, folded. */
static double scale_column(layer *l, const struct kure_plan_row *row, size_t c, size_t channels, double factor)
{
    size_t groups = l->type == CONVOLUTIONAL ? (size_t)l->groups : 1, own = channels / groups, rows = row->rows / groups;
    size_t group = c / own, width = row->row_length / own;
    double range = 0;
    for (size_t r = group * rows; r < (group + 1) * rows; ++r) {
        float *w = l->weights + r * row->row_length + (c - group * own) * width;
        for (size_t i = 0; i < width; ++i) {
            w[i] = (float)(w[i] * factor);
            range = fmax(range, fabs(w[i] * fold_of(l, r)));
        }
    }
    return range;
}

static double row_range(const layer *l, const struct kure_plan_row *row, size_t r)
{
    double range = 0;
    for (size_t i = 0; i < row->row_length; ++i) range = fmax(range, fabs((double)l->weights[r * row->row_length + i]));
    return range * fabs(fold_of(l, r));
}

static void divide_row(layer *l, const struct kure_plan_row *row, size_t r, double factor)
{
    if (l->batch_normalize) l->scales[r] = (float)(l->scales[r] / factor);
    for (size_t i = 0; i < row->row_length && !l->batch_normalize; ++i) {
        l->weights[r * row->row_length + i] = (float)(l->weights[r * row->row_length + i] / factor);
    }
    l->biases[r] = (float)(l->biases[r] / factor);
}

/* Returns how far a scale was from 1 at most. */
static double equalize(struct kure_network *k, const struct pair *p)
{
    layer *a = &k->net->layers[p->first], *b = &k->net->layers[p->second];
    const struct kure_plan_row *first = &k->plan.rows[p->first], *second = &k->plan.rows[p->second];
    double farthest = 0;
    for (size_t c = 0; c < first->rows; ++c) {
        double r1 = row_range(a, first, c), r2 = scale_column(b, second, c, first->rows, 1);
        if (!(r1 > 0) || !(r2 > 0)) continue;
        double factor = sqrt(r1 / r2);
        divide_row(a, first, c, factor);
        scale_column(b, second, c, first->rows, factor);
        farthest = fmax(farthest, fabs(factor - 1));
    }
    return farthest;
}

void kure_equalize(network *net, const char *cfg)
{
    struct kure_network *k = net->kure;
    struct kure_layer_view *views = kure_views_of(net);
    struct pair *pairs = calloc((size_t)net->n, sizeof *pairs);
    int count = 0;
    if (!views || !pairs) kure_stop(&(struct kure_error){"not enough memory to equalize layers"});
    if (gpu_index >= 0) kure_stop(&(struct kure_error){"layers are equalized on the processor only in this version: add -nogpu"});
    for (int i = 0; i < net->n; ++i) {
        if (!has_rows(&k->plan.rows[i])) continue;
        struct pair p = find_pair(k, views, i);
        if (p.reason) fprintf(stderr, "%s: layer %d [%s] is not equalized: %s\n", cfg, i, k->plan.rows[i].type, p.reason);
        else pairs[count++] = p;
    }
    if (!count) {
        struct kure_error error;
        snprintf(error.text, sizeof error.text, "%s: --equalize: no two layers can be equalized", cfg);
        kure_stop(&error);
    }
    for (int round = 0; round < MOST_ROUNDS; ++round) {
        double farthest = 0;
        for (int i = 0; i < count; ++i) farthest = fmax(farthest, equalize(k, &pairs[i]));
        if (farthest < DONE) break;
    }
    kure_views_free(views);
    free(pairs);
}
