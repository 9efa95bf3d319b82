/* export_view.c: see export_view.h. Tested by tests/test_export.py. */
#include "export_view.h"

#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "ptq.h"

/* ---- layers ------------------------------------------------------------------------ */

static const struct kind {
    LAYER_TYPE type;
    enum kure_network_kind kind;
} kinds[] = {
    {CONVOLUTIONAL, KURE_NETWORK_CONVOLUTIONAL}, {CONNECTED, KURE_NETWORK_CONNECTED}, {MAXPOOL, KURE_NETWORK_MAXPOOL}, {AVGPOOL, KURE_NETWORK_AVGPOOL},
    {UPSAMPLE, KURE_NETWORK_UPSAMPLE}, {REORG, KURE_NETWORK_REORG}, {SHORTCUT, KURE_NETWORK_SHORTCUT}, {ROUTE, KURE_NETWORK_ROUTE},
    {DROPOUT, KURE_NETWORK_PASSES}, {SOFTMAX, KURE_NETWORK_DECODES}, {YOLO, KURE_NETWORK_DECODES}, {REGION, KURE_NETWORK_DECODES},
    {DETECTION, KURE_NETWORK_DECODES}, {COST, KURE_NETWORK_DECODES}, {LOGXENT, KURE_NETWORK_DECODES}, {L2NORM, KURE_NETWORK_DECODES},
};

static enum kure_network_kind kind_of(const layer *l)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; ++i) {
        if (kinds[i].type == l->type) return kinds[i].kind;
    }
    return KURE_NETWORK_OTHER;
}

const char *kure_export_why_not(const layer *l)
{
    if (kind_of(l) == KURE_NETWORK_OTHER) {
        return "integer models are made of convolutional, connected, maxpool, avgpool, upsample, reorg, shortcut, route and dropout layers";
    }
    if (l->binary || l->xnor) return "binary and xnor weights are computed in float: use [quantization] weight_bits instead";
    if (l->type == UPSAMPLE && l->reverse) return "a negative stride (downsampling) adds up values: use maxpool, or a convolutional layer with a stride";
    if (l->type == UPSAMPLE && l->scale != 1) return "scale= multiplies values: leave it out";
    if (l->type == REORG && l->extra) return "extra= pads with zeros: leave it out";
    return NULL;
}

static void activate(const struct kure_network_layer *l, float *x, int n)
{
    if (l->activation == KURE_INTEGER_LEAKY) {
        for (int i = 0; i < n; ++i) x[i] = x[i] > 0 ? x[i] : l->slope * x[i];
    } else if (l->activation == KURE_INTEGER_RELU6) {
        for (int i = 0; i < n; ++i) x[i] = x[i] > 0 ? (x[i] < l->slope ? x[i] : l->slope) : 0;
    } else {
        activate_array(x, n, (ACTIVATION)l->host_activation);
    }
}

static void view_activation(const layer *l, const struct kure_layer_options *options, struct kure_network_layer *out)
{
    int has_one = l->type == CONVOLUTIONAL || l->type == CONNECTED || l->type == SHORTCUT;
    ACTIVATION a = has_one ? l->activation : LINEAR;
    out->activation = KURE_INTEGER_OTHER;
    out->host_activation = (int)a;
    out->activate = activate;
    out->activation_name = get_activation_string(a);
    if (a == LINEAR) out->activation = KURE_INTEGER_LINEAR;
    if (a == RELU) out->activation = KURE_INTEGER_RELU;
    if (a == RELU && options->is_relu6) {
        out->activation = KURE_INTEGER_RELU6;
        out->activation_name = "relu6";
        out->slope = 6;
    }
    if (a != LEAKY) return;
    out->activation = KURE_INTEGER_LEAKY;
    out->slope = options->slope_line ? (float)options->slope : .1f;
}

static void view_geometry(const layer *l, struct kure_network_layer *out)
{
    int is_image = l->out_c > 0 && l->out_h > 0 && l->out_w > 0 && l->out_c * l->out_h * l->out_w == l->outputs;
    out->channels = is_image ? l->out_c : 0;
    out->height = is_image ? l->out_h : 0;
    out->width = is_image ? l->out_w : 0;
    out->outputs = l->outputs;
    out->size = l->size;
    out->stride = l->stride;
    out->padding = l->pad;
    out->groups = l->groups;
    out->alpha = l->alpha;
    out->beta = l->beta;
    out->reorg = l->flatten ? (l->reverse ? KURE_REORG_UNFLATTEN : KURE_REORG_FLATTEN) : l->reverse ? KURE_REORG_REVERSE : KURE_REORG_FORWARD;
    if (l->type == REORG && l->flatten) out->stride = 1;
    if (l->type == AVGPOOL || l->type == CONNECTED) { /* the latter's c, h, w are those of its input in some versions */
        out->channels = l->outputs;
        out->height = out->width = 1;
    }
}

static enum kure_status view_quantizer(const struct kure_activation_quantizer *a, struct kure_network_quantizer *out)
{
    *out = (struct kure_network_quantizer){.q = a->q};
    if (!a->q.bits) return KURE_OK;
    if (!kure_activation_ready(a)) return KURE_ERROR_INPUT;
    for (int g = 0; g < kure_activation_groups(a); ++g) out->scales[g] = a->now->group[g].scale;
    return KURE_OK;
}

/* [rows] scales, in one block with the views. */
static void view_weights(const layer *l, const struct kure_weight_quantizer *w, struct kure_scale *scales, struct kure_network_layer *out)
{
    out->weights = kure_tensor_of(l, NULL);
    out->offsets = l->biases;
    out->means = l->batch_normalize ? l->rolling_mean : NULL;
    out->weight = w->q;
    out->folds = w->fold;
    out->is_dorefa = w->method == KURE_METHOD_DOREFA;
    out->scales = scales;
    for (size_t r = 0; w->q.bits && !out->is_dorefa && r < w->rows; ++r) scales[r] = kure_weights_scale(w, r);
}

/* anchors: [2 * l->n], to be filled */
static void view_decoder(const layer *l, float *anchors, struct kure_decoder *out)
{
    for (int i = 0; i < l->n; ++i) memcpy(anchors + 2 * i, l->biases + 2 * (l->type == YOLO ? l->mask[i] : i), 2 * sizeof *anchors);
    *out = (struct kure_decoder){.anchors = anchors, .anchor_count = l->n, .classes = l->classes, .class_scores = "sigmoid"};
    if (l->type == REGION && (l->softmax_tree || l->softmax)) out->class_scores = l->softmax_tree ? "tree" : "softmax";
}

static int decodes_boxes(const layer *l)
{
    return l->type == YOLO || l->type == REGION;
}

static enum kure_status fail_range(const struct kure_network *k, int i, const char *cfg, const char *weights, struct kure_error *error)
{
    return kure_fail(error, KURE_ERROR_INPUT, "%s: layer %d [%s]: the range of its activations is not known: add --data DATA, or run 'darknet kure calibrate "
                     "%s %s DATA' first, or train with [quantization]", cfg, i, k->plan.rows[i].type, cfg, weights);
}

enum kure_status kure_export_view(network *net, const char *cfg, const char *weights, struct kure_network_view *view, struct kure_error *error)
{
    struct kure_network *k = net->kure;
    size_t n = (size_t)net->n, rows = 0, anchors = 0;
    enum kure_status status = KURE_OK;
    *view = (struct kure_network_view){.cfg = cfg, .weights_path = weights, .channels = net->c, .height = net->h, .width = net->w, .count = net->n};
    if (!k->simulation) return kure_fail(error, KURE_ERROR_INPUT, "%s: nothing in it is quantized", cfg);
    if (net->inputs != net->c * net->h * net->w) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s: an integer model reads an image: [net] needs width, height and channels", cfg);
    }
    kure_simulate_scales(k);
    for (int i = 0; i < net->n; ++i) {
        rows += k->plan.rows[i].rows;
        if (decodes_boxes(&net->layers[i])) anchors += (size_t)net->layers[i].n;
    }
    struct kure_layer_view *views = kure_views_of(net); /* its inputs are borrowed */
    view->layers = calloc(1, n * sizeof *view->layers + rows * sizeof(struct kure_scale) + anchors * 2 * sizeof(float) + 1);
    if (!views || !view->layers) status = kure_fail_memory(error);
    struct kure_scale *scales = (struct kure_scale *)(void *)(view->layers + n);
    float *anchor = (float *)(void *)(scales + rows);
    for (int i = 0; status == KURE_OK && i < net->n; ++i) {
        const struct kure_plan_row *row = &k->plan.rows[i];
        const struct simulated_layer *s = &k->simulation->layers[i];
        struct kure_network_layer *l = &view->layers[i];
        *l = (struct kure_network_layer){.kind = kind_of(&net->layers[i]), .type = row->type, .why_not = kure_export_why_not(&net->layers[i]), .inputs = views[i].inputs,
                                         .input_count = views[i].input_count, .head_rows = row->after.bits ? row->head_rows : 0, .head_boxes = row->head_boxes};
        view_geometry(&net->layers[i], l);
        view_activation(&net->layers[i], &k->options.layer[i], l);
        if (l->kind == KURE_NETWORK_CONVOLUTIONAL || l->kind == KURE_NETWORK_CONNECTED) {
            view_weights(&net->layers[i], &s->weights, scales, l);
            scales += row->rows;
        }
        if (decodes_boxes(&net->layers[i])) {
            view_decoder(&net->layers[i], anchor, &l->boxes);
            anchor += 2 * net->layers[i].n;
        }
        if (view_quantizer(&s->before, &l->before) != KURE_OK || view_quantizer(&s->after, &l->after) != KURE_OK) {
            status = fail_range(k, i, cfg, weights, error);
        }
    }
    view->input.q = k->plan.input;
    view->input.scales[0] = k->plan.input_scale;
    view->host = views;
    return status;
}

void kure_export_view_free(struct kure_network_view *view)
{
    kure_views_free(view->host);
    free(view->layers);
    view->layers = NULL;
    view->host = NULL;
}

/* ---- plans ------------------------------------------------------------------------------ */

/* What a simulation knows, by name. */
struct state {
    struct named {
        char name[96];
        float *data;
        size_t count;
    } *tensors;
    int count;
};

static void keep_tensor(void *context, const char *name, float *data, size_t count)
{
    struct state *s = context;
    struct named *grown = realloc(s->tensors, (size_t)(s->count + 1) * sizeof *grown);
    float *copy = malloc(count * sizeof *copy);
    if (!grown || !copy) kure_stop(&(struct kure_error){"not enough memory for a copy of the ranges"});
    s->tensors = grown;
    struct named *t = &grown[s->count++];
    snprintf(t->name, sizeof t->name, "%s", name);
    t->data = copy;
    t->count = count;
    memcpy(copy, data, count * sizeof *copy);
}

static void put_tensor(void *context, const char *name, float *data, size_t count)
{
    const struct state *s = context;
    for (int i = 0; i < s->count; ++i) {
        if (strcmp(s->tensors[i].name, name) == 0 && s->tensors[i].count == count) memcpy(data, s->tensors[i].data, count * sizeof *data);
    }
}

static void free_state(struct state *s)
{
    for (int i = 0; i < s->count; ++i) free(s->tensors[i].data);
    free(s->tensors);
}

enum kure_status kure_export_use_profile(struct kure_ptq *p, const struct kure_quantization_options *quantization, int profile, struct kure_error *error)
{
    struct kure_options o = p->k->options;
    struct kure_plan plan;
    struct state state = {NULL, 0};
    o.kurtosis.line = 0;
    if (quantization) o.quantization = *quantization;
    o.quantization.profile = profile + 1;
    enum kure_status status = kure_plan_build(&o, p->views, p->net->n, &plan, error);
    if (status != KURE_OK) {
        kure_plan_free(&plan);
        return status;
    }
    if (!quantization) { /* what a training or a calibration has left */
        kure_ptq_restore(p);
        kure_simulation_each_tensor(p->k, keep_tensor, &state);
    }
    kure_ptq_use_plan(p, plan);
    kure_simulation_each_tensor(p->k, put_tensor, &state);
    kure_simulation_restore(p->k);
    free_state(&state);
    return KURE_OK;
}

void kure_export_use_own(struct kure_ptq *p)
{
    kure_ptq_restore(p);
}

void kure_export_calibrate(struct kure_ptq *p, const struct kure_calibration *calibration)
{
    kure_calibration_apply(calibration, p->k);
}

/* ---- decoding ------------------------------------------------------------------------------ */

float *kure_export_decode(network *net, const int *sources, int count)
{
    network passed = *net;
    char *known = calloc((size_t)net->n, 1); /* outputs that are those of the integer model, or come from them */
    if (!known) kure_stop(&(struct kure_error){"not enough memory for the layers of a network"});
    for (int i = 0; i < count; ++i) known[sources[i]] = 1;
    passed.train = 0;
    passed.truth = NULL;
    passed.delta = NULL;
    for (int i = 1; i < net->n; ++i) {
        layer l = net->layers[i];
        if (known[i] || !known[i - 1] || kind_of(&l) != KURE_NETWORK_DECODES) continue;
        passed.index = i;
        passed.input = net->layers[i - 1].output;
        l.forward(l, passed);
        known[i] = 1;
    }
    free(known);
    return get_network_output_layer(net).output;
}
