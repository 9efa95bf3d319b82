/* simulation.c: attaches simulated quantization, keeps its state; see simulation.h. */
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "evaluate.h"
#include "simulate_cuda.h"

void kure_simulation_stop(const struct kure_network *k, int i, const struct kure_error *reason)
{
    struct kure_error error;
    char update[40] = "";
    if (k->net->train) snprintf(update, sizeof update, "update %lld: ", k->simulation->update);
    snprintf(error.text, sizeof error.text, "%s: layer %d [%s]: %s%.900s", k->options.path, i, k->plan.rows[i].type, update, reason->text);
    kure_stop(&error);
}

/* ------------------------------------------------------------------------- */
/* Attach, release                                                            */

static struct kure_activation_plan activation_plan(const struct kure_network *k, const struct kure_plan_row *row, const struct kure_quantizer *q)
{
    return (struct kure_activation_plan){.q = q, .method = row->activation_method, .head_rows = row->head_rows, .head_boxes = row->head_boxes,
                                         .sample = &k->plan.quantization.sample, .sampled = row->sampled_activation};
}

/* A learned step for every width that sample= draws. */
static enum kure_status add_slots(const struct kure_network *k, const struct kure_plan_row *row, struct kure_weight_quantizer *w,
                                  struct kure_error *error)
{
    struct kure_quantizer q;
    enum kure_status status = KURE_OK;
    if (!row->sampled_weight || row->weight_method != KURE_METHOD_LSQ) return KURE_OK;
    for (int i = 0; status == KURE_OK && kure_sample_pair(&k->plan.quantization.sample, row->sampled_weight, &row->weight, i, &q); ++i) {
        status = kure_weights_add_slot(w, q.bits, error);
    }
    return status;
}

static void attach_layer(struct kure_network *k, int i)
{
    const struct kure_plan_row *row = &k->plan.rows[i];
    struct simulated_layer *s = &k->simulation->layers[i];
    layer *l = &k->net->layers[i];
    struct kure_error error;
    enum kure_status status = KURE_OK;
    const struct kure_layer_options *options = &k->options.layer[i];
    s->own_activation = options->is_relu6 || options->slope_line;
    s->cap = 6;
    s->slope = options->slope_line ? (float)options->slope : .1f;
    if (i > 0 && !row->weight.bits && !row->after.bits && !s->own_activation) return;
    int folds = k->plan.quantization.batchnorm != KURE_BATCHNORM_TRAIN && row->batch_normalize && row->weight_method != KURE_METHOD_DOREFA;
    struct kure_activation_plan before = activation_plan(k, row, &row->before), after = activation_plan(k, row, &row->after);
    if (row->weight.bits) status = kure_weights_init(&s->weights, &row->weight, row->rows, row->row_length, folds, &error);
    if (status == KURE_OK) status = add_slots(k, row, &s->weights, &error);
    if (status == KURE_OK) status = kure_activation_init(&s->before, &before, &error);
    if (status == KURE_OK) status = kure_activation_init(&s->after, &after, &error);
    if (status != KURE_OK) kure_stop(&error);
    s->weights.method = row->weight_method;
    s->activation = l->type == CONVOLUTIONAL || l->type == CONNECTED || l->type == SHORTCUT ? l->activation : LINEAR;
    l->kure = k;
    if (k->simulation->cuda) {
        kure_cuda_simulation_wrap(s, l);
        return;
    }
    s->forward = l->forward;
    s->backward = l->backward;
    l->forward = kure_simulate_forward;
    if (l->backward) l->backward = kure_simulate_backward;
}

/* Quantizers, or an activation that Darknet lacks. */
static int is_needed(const struct kure_network *k)
{
    for (int i = 0; i < k->plan.count; ++i) {
        const struct kure_plan_row *row = &k->plan.rows[i];
        if (row->weight.bits || row->after.bits || k->options.layer[i].is_relu6 || k->options.layer[i].slope_line) return 1;
    }
    return k->plan.input.bits != 0;
}

void kure_simulation_attach(struct kure_network *k)
{
    if (!is_needed(k)) return;
    struct kure_simulation *s = calloc(1, sizeof *s);
    if (s) s->layers = calloc((size_t)k->plan.count, sizeof *s->layers);
    if (!s || !s->layers) kure_stop(&(struct kure_error){"not enough memory for [quantization]"});
    k->simulation = s;
    s->stale = 1;
    if (gpu_index >= 0) kure_cuda_simulation_attach(k);
    s->images = (size_t)k->net->batch * (size_t)k->net->subdivisions;
    s->room_size = 1;
    for (int i = 0; i < k->plan.count; ++i) {
        const struct kure_plan_row *row = &k->plan.rows[i];
        size_t n = row->rows * row->row_length;
        if (row->weight.bits && n > s->room_size) s->room_size = n;
        attach_layer(k, i);
    }
    s->room = malloc(s->room_size * sizeof(float));
    if (!s->room) kure_stop(&(struct kure_error){"not enough memory for [quantization]"});
    if (s->cuda) kure_cuda_simulation_make(k);
}

void kure_simulation_release(struct kure_network *k)
{
    struct kure_simulation *s = k->simulation;
    if (!s) return;
    for (int i = 0; i < k->plan.count; ++i) {
        if (s->layers[i].forward && !s->cuda) {
            k->net->layers[i].forward = s->layers[i].forward;
            k->net->layers[i].backward = s->layers[i].backward;
        }
        kure_weights_free(&s->layers[i].weights);
        kure_activation_free(&s->layers[i].before);
        kure_activation_free(&s->layers[i].after);
        free(s->layers[i].raw);
    }
    kure_cuda_simulation_release(k);
    free(s->layers);
    free(s->input);
    free(s->room);
    free(s);
    k->simulation = NULL;
}

/* At a checkpoint: what was observed, and the gradients of learned steps, become state now
 * rather than at the next minibatch. */
void kure_simulation_settle(struct kure_network *k)
{
    if (k->simulation) kure_cuda_simulation_collect(k);
    for (int i = 0; k->simulation && i < k->plan.count; ++i) {
        kure_weights_settle(&k->simulation->layers[i].weights, &k->simulation->rate);
        kure_simulate_refresh_activations(k, i);
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
            kure_simulation_stop(k, i, &error);
        }
    }
    kure_simulation_touch(k);
}

static void each_range(const struct kure_activation_quantizer *a, int i, const char *place, kure_tensor_function *function, void *context)
{
    for (int slot = 0; slot < a->slot_count; ++slot) {
        char suffix[40], name[96];
        kure_activation_slot_name(a, slot, suffix, sizeof suffix);
        snprintf(name, sizeof name, "layers.%d.range_%s.%s", i, place, suffix);
        function(context, name, a->slots[slot].state, KURE_ACTIVATION_STATE);
    }
}

void kure_simulation_each_tensor(struct kure_network *k, kure_tensor_function *function, void *context)
{
    for (int i = 0; k->simulation && i < k->plan.count; ++i) {
        struct simulated_layer *s = &k->simulation->layers[i];
        struct kure_weight_quantizer *w = &s->weights;
        for (int slot = 0; slot < w->slots; ++slot) {
            char name[64];
            const char *kind = w->method == KURE_METHOD_LSQ ? kure_learned_name(&w->q) : kure_policy_text((int)w->q.truncation).name;
            if (w->method == KURE_METHOD_DOREFA) continue;
            snprintf(name, sizeof name, "layers.%d.weight_scales.%s.%d", i, kind, w->slot_bits[slot]);
            function(context, name, (float *)(void *)(w->states + (size_t)slot * w->rows), KURE_LEARNED_FLOATS * w->rows);
        }
        each_range(&s->before, i, "before", function, context);
        each_range(&s->after, i, "after", function, context);
    }
}

/* ------------------------------------------------------------------------- */
/* Several GPUs                                                               */

struct averaging {
    double *sum; /* [count] of all networks' states; NULL: they are counted */
    size_t count;
    int networks;
};

static void add_state(void *context, const char *name, float *data, size_t count)
{
    struct averaging *a = context;
    (void)name;
    for (size_t i = 0; a->sum && i < count; ++i) a->sum[a->count + i] += (double)data[i];
    a->count += count;
}

/* Is it the code that stands for 0 of a learned parameter? */
static int is_zero_point(const char *name, size_t i)
{
    size_t first = strstr(name, ".range_") ? KURE_ACTIVATION_STATE - KURE_MOST_GROUPS * KURE_LEARNED_FLOATS : 0;
    return i >= first && (i - first) % KURE_LEARNED_FLOATS == offsetof(struct kure_learned_parameter, zero_point) / sizeof(float);
}

static void take_mean(void *context, const char *name, float *data, size_t count)
{
    struct averaging *a = context;
    for (size_t i = 0; i < count; ++i) {
        double mean = a->sum[a->count + i] / a->networks;
        data[i] = (float)(is_zero_point(name, i) ? rint(mean) : mean);
    }
    a->count += count;
}

void kure_simulation_average(network **nets, int n)
{
    struct averaging a = {.networks = n};
    kure_simulation_each_tensor(nets[0]->kure, add_state, &a);
    if (a.count == 0) return;
    a.sum = calloc(a.count, sizeof *a.sum);
    if (!a.sum) kure_stop(&(struct kure_error){"not enough memory for [quantization]"});
    for (int i = 0; i < n; ++i) {
#ifdef GPU
        cuda_set_device(nets[i]->gpu_index);
#endif
        kure_simulation_settle(nets[i]->kure);
        a.count = 0;
        kure_simulation_each_tensor(nets[i]->kure, add_state, &a);
    }
    for (int i = 0; i < n; ++i) {
        a.count = 0;
        kure_simulation_each_tensor(nets[i]->kure, take_mean, &a);
        kure_simulation_restore(nets[i]->kure);
    }
    free(a.sum);
}

/* ------------------------------------------------------------------------- */

int kure_simulation_is_ready(const struct kure_network *k)
{
    for (int i = 0; k->simulation && i < k->plan.count; ++i) {
        if (kure_activation_ready(&k->simulation->layers[i].before) || kure_activation_ready(&k->simulation->layers[i].after)) return 1;
    }
    return 0;
}

void kure_simulation_touch(struct kure_network *k)
{
    if (k->simulation) k->simulation->stale = 1;
}
