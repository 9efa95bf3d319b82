/*
 * simulate.c: quantization simulated while Darknet trains and predicts.
 *
 * Every layer that the plan quantizes gets wrappers of forward and backward. A layer
 * is passed by value, so the wrapper points its own copy at the fake-quantized weights,
 * at a buffer for the raw output and at a linear activation, calls Darknet's function,
 * and makes the layer's real output from the raw one:
 *
 *     raw -> quantize (before) -> activation -> quantize (after) -> output
 *
 * Backward takes the same way in reverse: straight through where nothing was clipped.
 * The consumers of a layer see quantized values without knowing of it.
 *
 * Weights are quantized once an update, before its first minibatch; so are the scales
 * of activations, from the values up to the update before.
 */
#include <stdlib.h>
#include <string.h>

#include "activations.h"
#include "evaluate.h"
#include "state.h"
#include "weight_quantizer.h"

struct simulated_layer {
    void (*forward)(layer, network);
    void (*backward)(layer, network);
    struct kure_weight_quantizer weights;          /* q.bits = 0: float */
    struct kure_activation_quantizer before, after;
    ACTIVATION activation; /* LINEAR for kinds of layers that have none: Darknet leaves 0, a logistic, there */
    float *raw;      /* [raw_size] the output before the quantizers */
    size_t raw_size;
};

struct kure_simulation {
    struct simulated_layer *layers; /* [plan.count] */
    float *input;                   /* [input_size] the network's input, quantized */
    size_t input_size;
    float *gradient;                /* room for the largest weight tensor */
    float *activated;               /* [activated_size] room for the largest output */
    size_t activated_size;
    struct kure_learned_rate rate;  /* of the update under way */
    long long update;               /* whose weights and scales are in force */
    int stale;                      /* weights have changed otherwise */
    int off;                        /* switched off: float */
};

static void stop_layer(const struct kure_network *k, int i, const struct kure_error *reason)
{
    struct kure_error error;
    snprintf(error.text, sizeof error.text, "%s: layer %d [%s]: update %lld: %.900s", k->options.path, i, k->plan.rows[i].type,
             k->simulation->update, reason->text);
    kure_stop(&error);
}

/* room[0..size) of floats, kept from call to call */
static void ensure_room(float **room, size_t *capacity, size_t size)
{
    if (size <= *capacity) return;
    free(*room);
    *room = malloc(size * sizeof(float));
    if (!*room) kure_stop(&(struct kure_error){"not enough memory for [quantization]"});
    *capacity = size;
}

static int has_outputs(const struct simulated_layer *s)
{
    return s->after.q.bits != 0;
}

/* Random numbers of stochastic rounding: a stream of its own for every update, layer and use. */
static struct kure_noise noise_of(const struct kure_network *k, long long update, int layer_number, int use)
{
    long long seed = k->options.net.seed < 0 ? 0 : k->options.net.seed;
    return (struct kure_noise){.seed = (uint64_t)seed, .stream = ((uint64_t)update << 20 | (uint64_t)layer_number << 4 | (uint64_t)use)};
}

enum { USE_WEIGHTS, USE_BEFORE, USE_AFTER, USE_INPUT };

/* ------------------------------------------------------------------------- */
/* Once an update                                                             */

static void refresh_weights(struct kure_network *k, int i)
{
    struct simulated_layer *s = &k->simulation->layers[i];
    struct kure_error error;
    if (!s->weights.q.bits) return;
    struct kure_tensor t = kure_tensor_of(&k->net->layers[i], k->simulation->gradient);
    long long update = k->simulation->update;
    s->weights.noise = noise_of(k, update, i, USE_WEIGHTS);
    if (kure_weights_refresh(&s->weights, &t, update, (int)k->plan.quantization.every, &k->simulation->rate, &error) != KURE_OK) {
        stop_layer(k, i, &error);
    }
}

static void refresh_activations(struct kure_network *k, int i)
{
    struct simulated_layer *s = &k->simulation->layers[i];
    struct kure_error error;
    if ((s->before.q.bits && kure_activation_refresh(&s->before, &k->simulation->rate, &error) != KURE_OK) ||
        (s->after.q.bits && kure_activation_refresh(&s->after, &k->simulation->rate, &error) != KURE_OK)) {
        stop_layer(k, i, &error);
    }
}

/* As of the update that this minibatch belongs to: Darknet asks for it at the same count. */
static void set_rate(struct kure_network *k)
{
    const network *net = k->net;
    double images = (double)net->batch * net->subdivisions;
    k->simulation->rate = (struct kure_learned_rate){
        .rate = k->plan.quantization.learned_rate * get_current_rate(k->net) / images,
        .momentum = net->momentum,
        .decay = k->plan.quantization.learned_decay * images,
    };
}

static void begin_minibatch(struct kure_network *k, const network *net)
{
    struct kure_simulation *s = k->simulation;
    size_t images = (size_t)net->batch * (size_t)net->subdivisions;
    /* training counts a minibatch's images before its forward pass */
    long long update = (long long)((*net->seen - (net->train ? (size_t)net->batch : 0)) / images);
    if (update != s->update || s->stale) {
        s->update = update;
        s->stale = 0;
        for (int i = 0; i < k->plan.count; ++i) {
            refresh_weights(k, i);
            refresh_activations(k, i);
        }
    }
    if (!net->train) return;
    set_rate(k);
    k->trained = 1;
}

/* ------------------------------------------------------------------------- */
/* A minibatch                                                                */

static int is_on(const struct kure_network *k)
{
    return !k->simulation->off && k->simulation->update >= k->plan.quantization.start;
}

/* x -> y by one quantizer of layer l; in training the values are observed first. */
static void pass_quantizer(struct kure_network *k, struct kure_activation_quantizer *a, const layer *l, int number, int use,
                           int train, const float *x, float *y)
{
    struct kure_error error;
    size_t n = (size_t)l->outputs * (size_t)l->batch;
    if (train && !(kure_activation_ready(a) && a->method != KURE_METHOD_STE)) {
        if (kure_activation_observe(a, l, x, &error) != KURE_OK) stop_layer(k, number, &error);
        if (!kure_activation_ready(a) && kure_activation_refresh(a, &k->simulation->rate, &error) != KURE_OK) stop_layer(k, number, &error);
    }
    if (!kure_activation_ready(a) && is_on(k)) {
        snprintf(error.text, sizeof error.text, "no range of its activations is known: they come with training, in the file .kure beside the weights");
        stop_layer(k, number, &error);
    }
    struct kure_noise noise = noise_of(k, k->simulation->update, number, use);
    if (is_on(k)) kure_activation_quantize(a, l, x, y, &noise);
    else if (x != y) memcpy(y, x, n * sizeof(float));
}

static void quantize_input(struct kure_network *k, network *net)
{
    struct kure_simulation *s = k->simulation;
    size_t n = (size_t)net->inputs * (size_t)net->batch;
    if (!k->plan.input_bits || !is_on(k)) return;
    ensure_room(&s->input, &s->input_size, n);
    struct kure_quantizer q = {.bits = k->plan.input_bits, .grid = KURE_GRID_FULL, .step_ratio = 1};
    int half = 1 << (q.bits - 1);
    kure_fake_quantize(net->input, s->input, n, (struct kure_scale){1.0f / (float)(2 * half - 1), -half}, &q, NULL);
    net->input = s->input;
}

static void forward_simulated(layer l, network net)
{
    struct kure_network *k = l.kure;
    int i = net.index;
    struct simulated_layer *s = &k->simulation->layers[i];
    if (i == 0) begin_minibatch(k, &net);
    if (i == 0) quantize_input(k, &net);
    layer own = l;
    if (s->weights.q.bits && is_on(k)) own.weights = s->weights.values;
    if (!has_outputs(s)) {
        s->forward(own, net);
        return;
    }
    ensure_room(&s->raw, &s->raw_size, (size_t)l.outputs * (size_t)l.batch);
    own.output = s->raw;
    own.activation = LINEAR;
    s->forward(own, net);
    const float *x = s->raw;
    if (s->before.q.bits) {
        pass_quantizer(k, &s->before, &l, i, USE_BEFORE, net.train, x, l.output);
        x = l.output;
    } else if (s->activation != LINEAR) {
        memcpy(l.output, x, (size_t)l.outputs * (size_t)l.batch * sizeof(float));
        x = l.output;
    }
    activate_array(l.output, l.outputs * l.batch, x == l.output ? s->activation : LINEAR);
    pass_quantizer(k, &s->after, &l, i, USE_AFTER, net.train, x, l.output);
}

/* delta of the output -> delta of the raw output. The way forward is gone again up to
 * the activation; that is cheaper than keeping one more copy of every output. */
static void backward_outputs(struct kure_network *k, struct simulated_layer *s, const layer *l, int i)
{
    struct kure_simulation *all = k->simulation;
    int n = l->outputs * l->batch;
    const float *x = s->raw;
    struct kure_noise before = noise_of(k, all->update, i, USE_BEFORE), after = noise_of(k, all->update, i, USE_AFTER);
    if (s->activation != LINEAR) {
        ensure_room(&all->activated, &all->activated_size, (size_t)n);
        if (s->before.q.bits) kure_activation_quantize(&s->before, l, x, all->activated, &before);
        else memcpy(all->activated, x, (size_t)n * sizeof(float));
        activate_array(all->activated, n, s->activation);
        x = all->activated;
    }
    kure_activation_mask(&s->after, l, x, l->delta, &after);
    gradient_array(x, n, s->activation, l->delta);
    if (s->before.q.bits) kure_activation_mask(&s->before, l, s->raw, l->delta, &before);
}

static void backward_simulated(layer l, network net)
{
    struct kure_network *k = l.kure;
    int i = net.index;
    struct simulated_layer *s = &k->simulation->layers[i];
    layer own = l;
    if (i == 0 && k->plan.input_bits && is_on(k)) net.input = k->simulation->input;
    if (has_outputs(s)) {
        if (is_on(k)) backward_outputs(k, s, &l, i);
        else gradient_array(l.output, l.outputs * l.batch, s->activation, l.delta);
        own.output = s->raw;
        own.activation = LINEAR;
    }
    if (!s->weights.q.bits || !is_on(k)) {
        s->backward(own, net);
        return;
    }
    own.weights = s->weights.values;
    if (!kure_weights_clip(&s->weights)) {
        s->backward(own, net); /* straight through, nothing clipped: the gradient is the master weights' own */
        return;
    }
    size_t n = s->weights.rows * s->weights.row_length;
    own.weight_updates = k->simulation->gradient;
    memset(own.weight_updates, 0, n * sizeof(float));
    s->backward(own, net);
    struct kure_tensor t = kure_tensor_of(&l, NULL);
    kure_weights_add_gradient(&s->weights, &t, own.weight_updates, l.weight_updates);
}

/* ------------------------------------------------------------------------- */
/* Attach, release                                                            */

static void attach_layer(struct kure_network *k, int i)
{
    const struct kure_plan_row *row = &k->plan.rows[i];
    struct simulated_layer *s = &k->simulation->layers[i];
    layer *l = &k->net->layers[i];
    struct kure_error error;
    enum kure_status status = KURE_OK;
    if (i > 0 && !row->weight.bits && !row->after.bits) return;
    if (row->weight.bits) status = kure_weights_init(&s->weights, &row->weight, row->rows, row->row_length,
                                                     k->plan.quantization.batchnorm && row->batch_normalize && row->weight_method != KURE_METHOD_DOREFA, &error);
    if (status == KURE_OK) status = kure_activation_init(&s->before, &row->before, row->activation_method, row->head_rows, row->head_boxes, &error);
    if (status == KURE_OK) status = kure_activation_init(&s->after, &row->after, row->activation_method, row->head_rows, row->head_boxes, &error);
    if (status != KURE_OK) kure_stop(&error);
    s->weights.method = row->weight_method;
    s->forward = l->forward;
    s->backward = l->backward;
    s->activation = l->type == CONVOLUTIONAL || l->type == CONNECTED || l->type == SHORTCUT ? l->activation : LINEAR;
    l->kure = k;
    l->forward = forward_simulated;
    if (l->backward) l->backward = backward_simulated;
}

void kure_simulation_attach(struct kure_network *k)
{
    if (gpu_index >= 0) {
        struct kure_error error;
        snprintf(error.text, sizeof error.text, "%s:%d: [quantization] does not run on the GPU in this version: add -nogpu",
                 k->options.path, k->plan.quantization.line);
        kure_stop(&error);
    }
    struct kure_simulation *s = calloc(1, sizeof *s);
    if (s) s->layers = calloc((size_t)k->plan.count, sizeof *s->layers);
    if (!s || !s->layers) kure_stop(&(struct kure_error){"not enough memory for [quantization]"});
    k->simulation = s;
    s->stale = 1;
    size_t largest = 1;
    for (int i = 0; i < k->plan.count; ++i) {
        size_t n = k->plan.rows[i].rows * k->plan.rows[i].row_length;
        if (k->plan.rows[i].weight.bits && n > largest) largest = n;
        attach_layer(k, i);
    }
    s->gradient = malloc(largest * sizeof(float));
    if (!s->gradient) kure_stop(&(struct kure_error){"not enough memory for [quantization]"});
}

void kure_simulation_release(struct kure_network *k)
{
    struct kure_simulation *s = k->simulation;
    if (!s) return;
    for (int i = 0; i < k->plan.count; ++i) {
        kure_weights_free(&s->layers[i].weights);
        kure_activation_free(&s->layers[i].before);
        kure_activation_free(&s->layers[i].after);
        free(s->layers[i].raw);
    }
    free(s->layers);
    free(s->input);
    free(s->gradient);
    free(s->activated);
    free(s);
    k->simulation = NULL;
}

/* At a checkpoint: what was observed, and the gradients of learned steps, become state now
 * rather than at the next minibatch. */
void kure_simulation_settle(struct kure_network *k)
{
    for (int i = 0; k->simulation && i < k->plan.count; ++i) {
        kure_weights_settle(&k->simulation->layers[i].weights, &k->simulation->rate);
        refresh_activations(k, i);
    }
}

void kure_simulation_restore(struct kure_network *k)
{
    struct kure_error error;
    for (int i = 0; k->simulation && i < k->plan.count; ++i) {
        struct simulated_layer *s = &k->simulation->layers[i];
        if (s->weights.q.bits && s->weights.state[0].value != 0) kure_weights_restore(&s->weights);
        if ((kure_activation_ready(&s->before) && kure_activation_rescale(&s->before, &error) != KURE_OK) ||
            (kure_activation_ready(&s->after) && kure_activation_rescale(&s->after, &error) != KURE_OK)) {
            stop_layer(k, i, &error);
        }
    }
    kure_simulation_touch(k);
}

void kure_simulation_each_tensor(struct kure_network *k, kure_tensor_function *function, void *context)
{
    for (int i = 0; k->simulation && i < k->plan.count; ++i) {
        struct simulated_layer *s = &k->simulation->layers[i];
        struct {
            const char *name;
            float *data;
            size_t count;
        } parts[] = {{"weight_scales", (float *)(void *)s->weights.state, s->weights.q.bits ? KURE_LEARNED_FLOATS * s->weights.rows : 0},
                     {"range_before", s->before.state, s->before.q.bits ? KURE_ACTIVATION_STATE : 0},
                     {"range_after", s->after.state, s->after.q.bits ? KURE_ACTIVATION_STATE : 0}};
        for (int p = 0; p < 3; ++p) {
            char name[64];
            snprintf(name, sizeof name, "layers.%d.%s", i, parts[p].name);
            if (parts[p].count) function(context, name, parts[p].data, parts[p].count);
        }
    }
}

void kure_simulation_switch(struct kure_network *k, int on)
{
    if (k->simulation) k->simulation->off = !on;
}

void kure_simulation_touch(struct kure_network *k)
{
    if (k->simulation) k->simulation->stale = 1;
}
