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
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../backend/backend.h"
#include "policy.h"
#include "simulate_cuda.h"

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
    return s->after.q.bits != 0 || s->own_activation;
}

static void activate_outputs(const struct simulated_layer *s, float *x, int n)
{
    if (!s->own_activation) {
        activate_array(x, n, s->activation);
    } else {
        kure_cpu()->rectify(x, x, (size_t)n, kure_rectifier_slope(s), kure_rectifier_cap(s));
    }
}

/* delta *= derivative at x, which is activated */
static void activation_gradient(const struct simulated_layer *s, const float *x, int n, float *delta)
{
    if (!s->own_activation) {
        gradient_array(x, n, s->activation, delta);
    } else {
        kure_cpu()->rectify_backward(x, delta, delta, (size_t)n, kure_rectifier_slope(s), kure_rectifier_cap(s));
    }
}

struct kure_noise kure_simulate_noise(const struct kure_network *k, long long update, int layer_number, int use)
{
    long long seed = k->options.net.seed < 0 ? 0 : k->options.net.seed;
    return (struct kure_noise){.seed = (uint64_t)seed, .stream = ((uint64_t)update << 20 | (uint64_t)layer_number << 4 | (uint64_t)use)};
}

int kure_simulate_is_on(const struct kure_network *k)
{
    return !k->simulation->observing && k->simulation->update >= k->plan.quantization.start;
}

int kure_simulate_is_frozen(const struct kure_network *k, int i)
{
    const struct kure_quantization_options *o = &k->plan.quantization;
    return k->simulation->layers[i].weights.fold && o->batchnorm == KURE_BATCHNORM_FREEZE && k->simulation->update >= o->freeze_at;
}

/* ------------------------------------------------------------------------- */
/* Once an update                                                             */

static struct kure_frozen_batchnorm frozen_of(const layer *l)
{
    return (struct kure_frozen_batchnorm){.beta = l->biases, .mean = l->rolling_mean, .beta_updates = l->bias_updates};
}

static void refresh_weights(struct kure_network *k, int i)
{
    struct simulated_layer *s = &k->simulation->layers[i];
    struct kure_error error;
    if (!s->weights.q.bits) return;
    struct kure_tensor t = kure_tensor_of(&k->net->layers[i], k->simulation->room);
    long long update = k->simulation->update;
    s->weights.noise = kure_simulate_noise(k, update, i, USE_WEIGHTS);
    s->weights.frozen = kure_simulate_is_frozen(k, i);
    if (kure_weights_refresh(&s->weights, &t, update, (int)k->plan.quantization.every, &k->simulation->rate, &error) != KURE_OK) {
        kure_simulation_stop(k, i, &error);
    }
    struct kure_frozen_batchnorm frozen = frozen_of(&k->net->layers[i]);
    if (s->weights.frozen) kure_weights_fold_biases(&s->weights, &t, &frozen);
}

void kure_simulate_refresh_activations(struct kure_network *k, int i)
{
    struct simulated_layer *s = &k->simulation->layers[i];
    struct kure_error error;
    if ((s->before.q.bits && kure_activation_refresh(&s->before, &k->simulation->rate, &error) != KURE_OK) ||
        (s->after.q.bits && kure_activation_refresh(&s->after, &k->simulation->rate, &error) != KURE_OK)) {
        kure_simulation_stop(k, i, &error);
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

/* The inputs of a route that have one range: it covers all of theirs. */
static void share_ranges(struct kure_network *k)
{
    for (int i = 0; i < k->plan.count; ++i) { /* the leader is the first of them */
        int leader = k->plan.rows[i].shares;
        float low = INFINITY, high = -INFINITY;
        struct kure_error error;
        for (int j = i; leader == i && j < k->plan.count; ++j) {
            if (k->plan.rows[j].shares == i) kure_activation_widen(&k->simulation->layers[j].after, &low, &high);
        }
        for (int j = i; low <= high && j < k->plan.count; ++j) {
            if (k->plan.rows[j].shares != i) continue;
            if (kure_activation_cover(&k->simulation->layers[j].after, low, high, &error) != KURE_OK) kure_simulation_stop(k, j, &error);
        }
    }
}

/* Quantizers of this update: drawn while training, else those of the plan. */
static void select_quantizers(struct kure_network *k)
{
    const struct kure_sample *sample = &k->plan.quantization.sample;
    struct kure_noise noise = kure_simulate_noise(k, k->simulation->update, 0, USE_SAMPLE);
    double drawn[KURE_SAMPLE_ITEMS];
    struct kure_error error;
    kure_sample_draw(sample, noise.seed, noise.stream, drawn);
    for (int i = 0; i < k->plan.count; ++i) {
        const struct kure_plan_row *row = &k->plan.rows[i];
        struct simulated_layer *s = &k->simulation->layers[i];
        unsigned weight = k->simulation->drawing ? row->sampled_weight : 0, activation = k->simulation->drawing ? row->sampled_activation : 0;
        struct kure_quantizer w = kure_sample_apply(sample, drawn, weight, &row->weight);
        struct kure_quantizer before = kure_sample_apply(sample, drawn, activation, &row->before);
        struct kure_quantizer after = kure_sample_apply(sample, drawn, activation, &row->after);
        if (row->sampled_weight) kure_weights_select(&s->weights, &w);
        if ((row->sampled_activation && row->before.bits && kure_activation_select(&s->before, &before, &error) != KURE_OK) ||
            (row->sampled_activation && row->after.bits && kure_activation_select(&s->after, &after, &error) != KURE_OK)) {
            kure_simulation_stop(k, i, &error);
        }
    }
}

/* The quantizers of an update and the scales of its activations. */
static void use_update(struct kure_network *k, long long update, int drawing)
{
    struct kure_simulation *s = k->simulation;
    for (int i = 0; i < k->plan.count; ++i) { /* while the quantizers are those of the update that ended */
        if (s->layers[i].weights.q.bits) kure_weights_settle(&s->layers[i].weights, &s->rate);
        kure_simulate_refresh_activations(k, i);
    }
    s->update = update;
    s->stale = 0;
    s->drawing = drawing;
    if (k->plan.quantization.sample.text) select_quantizers(k);
    share_ranges(k);
}

/* The update that a minibatch belongs to; training counts its images before its forward pass. */
static long long update_of(const struct kure_network *k, const network *net)
{
    return (long long)((*net->seen - (net->train ? (size_t)net->batch : 0)) / k->simulation->images);
}

void kure_simulate_begin(struct kure_network *k, const network *net)
{
    struct kure_simulation *s = k->simulation;
    int drawing = k->plan.quantization.sample.text && net->train;
    long long update = update_of(k, net);
    if (update != s->update || s->stale || drawing != s->drawing) {
        kure_cuda_simulation_collect(k);
        use_update(k, update, drawing);
        if (s->cuda) kure_cuda_simulation_refresh(k);
        for (int i = 0; !s->cuda && i < k->plan.count; ++i) refresh_weights(k, i);
    }
    if (!net->train) return;
    set_rate(k);
    k->trained = 1;
}

void kure_simulate_scales(struct kure_network *k)
{
    struct kure_simulation *s = k->simulation;
    use_update(k, update_of(k, k->net), 0);
    for (int i = 0; i < k->plan.count; ++i) {
        struct kure_tensor t = kure_tensor_of(&k->net->layers[i], s->room);
        struct kure_error error;
        if (s->layers[i].weights.q.bits && kure_weights_rescale(&s->layers[i].weights, &t, s->update, (int)k->plan.quantization.every, &s->rate, &error) != KURE_OK) {
            kure_simulation_stop(k, i, &error);
        }
    }
    s->stale = 1; /* the twins are not made */
}

/* ------------------------------------------------------------------------- */
/* A minibatch                                                                */

/* Is the range unknown that evaluation uses, since sample= has not drawn it yet? */
static int lacks_own_slot(const struct kure_activation_quantizer *a)
{
    return a->now != a->slots && !(a->slots[0].state[0] > 0);
}

static void begin_own_slot(struct kure_network *k, struct kure_activation_quantizer *a, const layer *l, int number, int use, const float *x)
{
    const struct kure_plan_row *row = &k->plan.rows[number];
    const struct kure_quantizer drawn = a->q, *own = use == USE_BEFORE ? &row->before : &row->after;
    struct kure_error error;
    if (!lacks_own_slot(a)) return;
    if (kure_activation_select(a, own, &error) != KURE_OK || kure_activation_observe(a, l, x, &error) != KURE_OK ||
        kure_activation_refresh(a, &k->simulation->rate, &error) != KURE_OK || kure_activation_select(a, &drawn, &error) != KURE_OK) {
        kure_simulation_stop(k, number, &error);
    }
}

int kure_simulate_wants_values(const struct kure_network *k, const struct kure_activation_quantizer *a, int train)
{
    int searches = a->method == KURE_METHOD_STE && kure_policy_needs(a->now->of_update.truncation) != KURE_NEEDS_RANGE;
    return k->simulation->observing || (train && (!kure_activation_ready(a) || searches || lacks_own_slot(a)));
}

void kure_simulate_observe(struct kure_network *k, struct kure_activation_quantizer *a, const layer *l, int number, int use, int train,
                           const float *x)
{
    struct kure_error error;
    if ((train || k->simulation->observing) && !(kure_activation_ready(a) && a->method != KURE_METHOD_STE)) {
        if (kure_activation_observe(a, l, x, &error) != KURE_OK) kure_simulation_stop(k, number, &error);
        if (train && !kure_activation_ready(a) && kure_activation_refresh(a, &k->simulation->rate, &error) != KURE_OK) {
            kure_simulation_stop(k, number, &error);
        }
    }
    if (train) begin_own_slot(k, a, l, number, use, x);
    if (!kure_activation_ready(a) && kure_simulate_is_on(k)) {
        snprintf(error.text, sizeof error.text, "the file .kure beside the weights is missing, or has no range for this quantizer: ranges come "
                 "with training or from 'darknet kure calibrate CFG WEIGHTS DATA'");
        kure_simulation_stop(k, number, &error);
    }
}

/* x -> y by one quantizer of layer l; in training the values are observed first. */
static void pass_quantizer(struct kure_network *k, struct kure_activation_quantizer *a, const layer *l, int number, int use,
                           int train, const float *x, float *y)
{
    size_t n = (size_t)l->outputs * (size_t)l->batch;
    kure_simulate_observe(k, a, l, number, use, train, x);
    struct kure_noise noise = kure_simulate_noise(k, k->simulation->update, number, use);
    if (kure_simulate_is_on(k)) kure_activation_quantize(a, l, x, y, &noise);
    else if (x != y) memcpy(y, x, n * sizeof(float));
}

static void quantize_input(struct kure_network *k, network *net)
{
    struct kure_simulation *s = k->simulation;
    size_t n = (size_t)net->inputs * (size_t)net->batch;
    if (!k->plan.input.bits || !kure_simulate_is_on(k)) return;
    ensure_room(&s->input, &s->input_size, n);
    struct kure_noise noise = kure_simulate_noise(k, s->update, 0, USE_INPUT);
    kure_fake_quantize(net->input, s->input, n, k->plan.input_scale, &k->plan.input, &noise);
    net->input = s->input;
}

/* A copy of what goes into the last quantizer, where a target has another arithmetic there; else NULL. */
static const float *keep_for_target(struct kure_network *k, int i, const float *x, size_t n)
{
    if (!kure_target_differs(k, i)) return NULL;
    ensure_room(&k->simulation->room, &k->simulation->room_size, n);
    memcpy(k->simulation->room, x, n * sizeof *x);
    return k->simulation->room;
}

/* Points the wrapper's copy of a layer at the quantized weights. */
static void use_weights(struct simulated_layer *s, layer *own)
{
    own->weights = s->weights.values;
    if (!s->weights.frozen) return;
    own->batch_normalize = 0;
    own->biases = s->weights.biases;
    own->bias_updates = s->weights.bias_gradient;
}

void kure_simulate_forward(layer l, network net)
{
    struct kure_network *k = l.kure;
    int i = net.index, n = l.outputs * l.batch;
    struct simulated_layer *s = &k->simulation->layers[i];
    if (i == 0) kure_simulate_begin(k, &net);
    if (i == 0) quantize_input(k, &net);
    layer own = l;
    if (s->weights.q.bits && kure_simulate_is_on(k)) use_weights(s, &own);
    if (!has_outputs(s)) {
        s->forward(own, net);
        return;
    }
    if (!k->simulation->observing) { /* else what is looked at stays as it is: in its place */
        ensure_room(&s->raw, &s->raw_size, (size_t)n);
        own.output = s->raw;
    }
    own.activation = LINEAR;
    s->forward(own, net);
    if (!net.train && kure_simulate_is_on(k)) kure_target_biases(k, i, &l, own.output);
    const float *x = own.output;
    if (s->activation != LINEAR) {
        if (s->before.q.bits) pass_quantizer(k, &s->before, &l, i, USE_BEFORE, net.train, x, l.output);
        else if (x != l.output) memcpy(l.output, x, (size_t)n * sizeof(float));
        activate_outputs(s, l.output, n);
        x = l.output;
    }
    const float *activated = keep_for_target(k, i, x, (size_t)n);
    if (s->after.q.bits) pass_quantizer(k, &s->after, &l, i, USE_AFTER, net.train, x, l.output);
    if (activated && kure_simulate_is_on(k)) kure_target_outputs(k, i, activated, l.output, (size_t)n, l.h * l.w);
}

/* delta of the output -> delta of the raw output. The way forward is gone again up to
 * the activation; that is cheaper than keeping one more copy of every output. */
static void backward_outputs(struct kure_network *k, struct simulated_layer *s, const layer *l, int i)
{
    struct kure_simulation *all = k->simulation;
    int n = l->outputs * l->batch, quantized = kure_simulate_is_on(k) && s->after.q.bits;
    const float *x = s->raw;
    struct kure_noise before = kure_simulate_noise(k, all->update, i, USE_BEFORE), after = kure_simulate_noise(k, all->update, i, USE_AFTER);
    if (!quantized) {
        activation_gradient(s, l->output, n, l->delta);
        return;
    }
    if (s->activation != LINEAR) {
        ensure_room(&all->room, &all->room_size, (size_t)n);
        if (s->before.q.bits) kure_activation_quantize(&s->before, l, x, all->room, &before);
        else memcpy(all->room, x, (size_t)n * sizeof(float));
        activate_outputs(s, all->room, n);
        x = all->room;
    }
    kure_activation_mask(&s->after, l, x, l->delta, &after);
    activation_gradient(s, x, n, l->delta);
    if (s->before.q.bits) kure_activation_mask(&s->before, l, s->raw, l->delta, &before);
}

void kure_simulate_backward(layer l, network net)
{
    struct kure_network *k = l.kure;
    int i = net.index;
    struct simulated_layer *s = &k->simulation->layers[i];
    layer own = l;
    if (i == 0 && k->plan.input.bits && kure_simulate_is_on(k)) net.input = k->simulation->input;
    if (has_outputs(s)) {
        backward_outputs(k, s, &l, i);
        own.output = s->raw;
        own.activation = LINEAR;
    }
    if (!s->weights.q.bits || !kure_simulate_is_on(k)) {
        s->backward(own, net);
        return;
    }
    use_weights(s, &own);
    if (!s->weights.frozen && !kure_weights_clip(&s->weights)) {
        s->backward(own, net); /* straight through, nothing clipped: the gradient is the master weights' own */
        return;
    }
    struct kure_frozen_batchnorm frozen = frozen_of(&l);
    own.weight_updates = k->simulation->room;
    memset(own.weight_updates, 0, s->weights.rows * s->weights.row_length * sizeof(float));
    memset(s->weights.bias_gradient, 0, s->weights.rows * sizeof(float));
    s->backward(own, net);
    struct kure_tensor t = kure_tensor_of(&l, NULL);
    kure_weights_add_gradient(&s->weights, &t, own.weight_updates, l.weight_updates, s->weights.frozen ? &frozen : NULL);
}
