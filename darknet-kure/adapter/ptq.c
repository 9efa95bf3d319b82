/* ptq.c: post-training quantization: points put in force on a network; see evaluate.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ptq.h"

static size_t weight_count(const struct kure_plan_row *row)
{
    int quantized = row->weights == KURE_WEIGHTS_CONVOLUTIONAL || row->weights == KURE_WEIGHTS_CONNECTED;
    return quantized ? row->rows * row->row_length : 0;
}

static void push_weights(const layer *l)
{
#ifdef GPU
    if (gpu_index < 0) return;
    if (l->type == CONVOLUTIONAL) push_convolutional_layer(*l);
    if (l->type == CONNECTED) push_connected_layer(*l);
#else
    (void)l;
#endif
}

static float *copy_of(const float *x, size_t n)
{
    float *copy = n ? malloc(n * sizeof *copy) : NULL;
    if (n && !copy) kure_stop(&(struct kure_error){"not enough memory for a copy of the weights"});
    if (n) memcpy(copy, x, n * sizeof *copy);
    return copy;
}

static void add_count(void *context, const char *name, float *data, size_t count)
{
    (void)name;
    (void)data;
    *(size_t *)context += count;
}

static void keep_tensor(void *context, const char *name, float *data, size_t count)
{
    float **to = context;
    (void)name;
    memcpy(*to, data, count * sizeof *data);
    *to += count;
}

static void put_back_tensor(void *context, const char *name, float *data, size_t count)
{
    const float **from = context;
    (void)name;
    memcpy(data, *from, count * sizeof *data);
    *from += count;
}

struct kure_ptq *kure_ptq_begin(network *net)
{
    struct kure_ptq *p = calloc(1, sizeof *p);
    size_t largest = 1;
    if (p) p->layers = calloc((size_t)net->n, sizeof *p->layers);
    if (!p || !p->layers) kure_stop(&(struct kure_error){"not enough memory for a copy of the weights"});
    p->net = net;
    p->k = net->kure;
    p->own = p->k->plan;
    for (int i = 0; i < net->n; ++i) {
        const layer *l = &net->layers[i];
        size_t n = weight_count(&p->own.rows[i]), channels = kure_batchnorm_channels(l);
        if (n > largest) largest = n;
        p->layers[i].weights = copy_of(l->weights, n);
        p->layers[i].mean = copy_of(l->rolling_mean, channels);
        p->layers[i].variance = copy_of(l->rolling_variance, channels);
        p->layers[i].biases = copy_of(l->biases, n ? p->own.rows[i].rows : 0);
        p->layers[i].scales = n ? calloc(p->own.rows[i].rows, sizeof *p->layers[i].scales) : NULL;
        if (n && !p->layers[i].scales) kure_stop(&(struct kure_error){"not enough memory for a copy of the weights"});
    }
    p->scratch = malloc(largest * sizeof(float));
    kure_simulation_each_tensor(p->k, add_count, &p->state_size);
    p->state = p->state_size ? malloc(p->state_size * sizeof(float)) : NULL;
    if (p->state_size && !p->state) kure_stop(&(struct kure_error){"not enough memory for a copy of the ranges"});
    float *to = p->state;
    kure_simulation_each_tensor(p->k, keep_tensor, &to);
    p->views = kure_views_of(net);
    if (!p->scratch || !p->views) kure_stop(&(struct kure_error){"not enough memory for a copy of the weights"});
    return p;
}

void kure_ptq_free(struct kure_ptq *p)
{
    for (int i = 0; i < p->net->n; ++i) {
        free(p->layers[i].weights);
        free(p->layers[i].mean);
        free(p->layers[i].variance);
        free(p->layers[i].biases);
        free(p->layers[i].scales);
    }
    kure_simulation_release(p->k);
    if (p->k->plan.rows != p->own.rows) kure_plan_free(&p->k->plan);
    p->k->plan = p->own;
    free(p->layers);
    free(p->state);
    free(p->scratch);
    kure_views_free(p->views);
    free(p);
}

void kure_ptq_restore_weights(struct kure_ptq *p)
{
    for (int i = 0; i < p->net->n; ++i) {
        if (p->layers[i].weights) memcpy(p->net->layers[i].weights, p->layers[i].weights, weight_count(&p->own.rows[i]) * sizeof(float));
    }
}

static void restore_statistics(struct kure_ptq *p)
{
    for (int i = 0; i < p->net->n; ++i) {
        layer *l = &p->net->layers[i];
        size_t bytes = kure_batchnorm_channels(l) * sizeof(float);
        if (p->layers[i].biases) memcpy(l->biases, p->layers[i].biases, p->own.rows[i].rows * sizeof(float));
        if (!bytes) continue;
        memcpy(l->rolling_mean, p->layers[i].mean, bytes);
        memcpy(l->rolling_variance, p->layers[i].variance, bytes);
    }
}

void kure_report_float_layers(const network *net)
{
    const char *gap = "not quantized: layers of these kinds stay float: ";
    for (int i = 0; i < net->n; ++i) {
        const struct kure_plan_row *row = &((const struct kure_network *)net->kure)->plan.rows[i];
        if (row->weights != KURE_WEIGHTS_OTHER) continue;
        fprintf(stderr, "%s%d [%s]", gap, i, row->type);
        gap = ", ";
    }
    if (gap[0] == ',') fprintf(stderr, "\n");
}

void (**kure_layer_function(struct kure_network *k, int i))(layer, network)
{
    struct kure_simulation *s = k->simulation;
    return s && s->layers[i].forward ? &s->layers[i].forward : &k->net->layers[i].forward;
}

/* ------------------------------------------------------------------------- */
/* A point                                                                    */

static struct kure_quantizer_keys keys_of(const struct kure_quantizer *q)
{
    return (struct kure_quantizer_keys){.line = 1, .bits = q->bits, .rounding = q->rounding, .truncation = q->truncation, .step = q->step,
                                        .granularity = q->granularity, .grid = q->grid, .symmetric = q->symmetric,
                                        .truncation_value = q->truncation_value, .step_ratio = q->step_ratio};
}

static const struct kure_quantizer plain = {.bits = 8, .step_ratio = 1, .grid = KURE_GRID_FULL};

/* Without the quantizer keys of the layers for what stays float, but for quantize=0. */
static struct kure_layer_options *bare_layers(const struct kure_options *o, int weights, int activations)
{
    struct kure_layer_options *layers = malloc((size_t)o->layers * sizeof *layers);
    if (!layers) kure_stop(&(struct kure_error){"not enough memory"});
    memcpy(layers, o->layer, (size_t)o->layers * sizeof *layers);
    for (int i = 0; i < o->layers; ++i) {
        if (weights) kure_quantizer_keys_clear(&layers[i].quantizer[KURE_QUANTIZED_WEIGHTS]);
        if (activations) kure_quantizer_keys_clear(&layers[i].quantizer[KURE_QUANTIZED_ACTIVATIONS]);
        if (weights && activations) kure_quantizer_keys_clear(&layers[i].quantizer[KURE_QUANTIZED_BOTH]);
    }
    return layers;
}

/* Single layers that are not as the point has them; the network input is quantized for the first ones. */
static void set_layers(struct kure_plan *plan, const unsigned char *layers)
{
    int first = 0;
    for (int i = 0; i < plan->count; ++i) {
        struct kure_plan_row *row = &plan->rows[i];
        if (layers[i] == KURE_LAYER_FLOAT) row->weight.bits = row->before.bits = row->after.bits = 0;
        else if (layers[i] != KURE_LAYER_AS_POINT && row->weight.bits) row->weight.bits = layers[i];
        first |= row->reads_input && layers[i] != KURE_LAYER_FLOAT;
    }
    if (!first) plan->input.bits = 0;
}

struct kure_plan kure_ptq_plan(const struct kure_ptq *p, const struct kure_point *point)
{
    struct kure_options o = p->k->options;
    struct kure_plan plan;
    struct kure_error error;
    const struct kure_quantizer *weights = point->weights.bits ? &point->weights : &plain;
    const struct kure_quantizer *activations = point->activations.bits ? &point->activations : &plain;
    int all = point->everywhere || !(point->weights.bits || point->activations.bits);
    struct kure_layer_options *bare = bare_layers(&o, all || !point->weights.bits, all || !point->activations.bits);
    o.layer = bare;
    o.kurtosis.line = 0;
    o.quantization = (struct kure_quantization_options){
        .line = KURE_NO_SECTION, .quantizer = {keys_of(activations), keys_of(weights), keys_of(activations)}, .method = KURE_METHOD_STE,
        .first_bits = point->first_bits, .last_bits = point->last_bits, .batchnorm = point->fold, .every = 1};
    if (kure_plan_build(&o, p->views, p->net->n, &plan, &error) != KURE_OK) kure_stop(&error);
    free(bare);
    if (!point->activations.bits) plan.input.bits = 0;
    for (int i = 0; i < plan.count; ++i) {
        if (!point->weights.bits) plan.rows[i].weight.bits = 0;
        if (!point->activations.bits) plan.rows[i].before.bits = plan.rows[i].after.bits = 0;
    }
    if (point->layers) set_layers(&plan, point->layers);
    return plan;
}

void kure_ptq_check(const struct kure_ptq *p, const struct kure_point *point)
{
    struct kure_plan plan = kure_ptq_plan(p, point);
    kure_plan_free(&plan);
}

struct kure_quantization kure_ptq_quantize(struct kure_ptq *p, int i)
{
    struct kept_layer *kept = &p->layers[i];
    layer *l = &p->net->layers[i];
    const struct kure_noise noise = {0, (uint64_t)i, 0};
    struct kure_quantization result;
    memcpy(l->weights, kept->weights, weight_count(&p->own.rows[i]) * sizeof(float));
    struct kure_tensor t = kure_tensor_of(l, p->scratch);
    struct kure_scale scaled[t.rows];
    for (size_t c = 0; c < t.rows; ++c) scaled[c] = kure_scale_times(kept->scales[c], kept->ratio, &kept->quantizer);
    kure_tensor_quantize(&t, &kept->quantizer, p->fold, scaled, &noise, &result);
    push_weights(l);
    return result;
}

double kure_ptq_quantize_all(struct kure_ptq *p)
{
    double inner = 0, outer = 0; /* sums of dB */
    int inner_count = 0, outer_count = 0;
    for (int i = 0; i < p->net->n; ++i) {
        const struct kure_plan_row *row = &p->own.rows[i];
        if (!p->layers[i].quantizer.bits) continue;
        struct kure_quantization result = kure_ptq_quantize(p, i);
        double sqnr = 10 * log10(result.signal / result.noise);
        int is_outer = row->reads_input || row->feeds_head;
        *(is_outer ? &outer : &inner) += sqnr;
        ++*(is_outer ? &outer_count : &inner_count);
    }
    p->sqnr = inner_count ? inner / inner_count : outer_count ? outer / outer_count : NAN;
    return p->sqnr;
}

/* Scales by the policies of the quantizers that are kept with the weights, which are then quantized. */
static double find_scales(struct kure_ptq *p)
{
    kure_ptq_restore_weights(p);
    for (int i = 0; i < p->net->n; ++i) {
        struct kept_layer *kept = &p->layers[i];
        struct kure_tensor t = kure_tensor_of(&p->net->layers[i], p->scratch);
        struct kure_error error;
        if (kept->weights) push_weights(&p->net->layers[i]);
        if (kept->quantizer.bits && kure_tensor_scales(&t, &kept->quantizer, p->fold, kept->scales, &error) != KURE_OK) kure_stop(&error);
    }
    return kure_ptq_quantize_all(p);
}

void kure_ptq_use_plan(struct kure_ptq *p, struct kure_plan plan)
{
    struct kure_network *k = p->k;
    kure_simulation_release(k);
    if (k->plan.rows != p->own.rows) kure_plan_free(&k->plan);
    k->plan = plan;
    kure_simulation_attach(k);
}

void kure_ptq_restore(struct kure_ptq *p)
{
    restore_statistics(p);
    kure_ptq_restore_weights(p);
    kure_ptq_use_plan(p, p->own);
    const float *from = p->state;
    kure_simulation_each_tensor(p->k, put_back_tensor, &from);
    kure_simulation_restore(p->k);
}

double kure_ptq_set(struct kure_ptq *p, const struct kure_point *point, const struct kure_calibration *calibration)
{
    struct kure_plan plan = kure_ptq_plan(p, point);
    restore_statistics(p);
    p->fold = point->fold;
    for (int i = 0; i < plan.count; ++i) { /* the simulation finds these quantized already */
        p->layers[i].quantizer = plan.rows[i].weight;
        p->layers[i].ratio = 1;
        plan.rows[i].weight.bits = 0;
    }
    find_scales(p);
    kure_ptq_use_plan(p, plan);
    if (calibration) kure_calibration_apply(calibration, p->k);
    return p->sqnr;
}

double kure_ptq_reestimate(struct kure_ptq *p, struct kure_images *images, void (*done)(void *, int), void *context)
{
    kure_batchnorm_reestimate(p, images, done, context);
    return p->fold ? find_scales(p) : p->sqnr;
}
