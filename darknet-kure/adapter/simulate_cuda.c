/* simulate_cuda.c: see simulate_cuda.h. The order of everything is that of simulate.c. */
#include "simulate_cuda_parts.h"

#ifdef GPU
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy.h"
#include "profiles.h"

void kure_cuda_check(const struct kure_network *k, int i, enum kure_status status, const struct kure_error *error)
{
    if (status != KURE_OK) kure_simulation_stop(k, i < k->plan.count ? i : 0, error);
}

/* ---- what does not run there yet ------------------------------------------------------ */

static void __attribute__((noreturn)) refuse(const struct kure_network *k, int i, const char *what)
{
    struct kure_error error;
    char place[80] = "";
    if (i >= 0) snprintf(place, sizeof place, "layer %d [%s]: ", i, k->plan.rows[i].type);
    snprintf(error.text, sizeof error.text, "%s: %s%s does not run on the GPU in this version: add -nogpu", k->options.path, place, what);
    kure_stop(&error);
}

static void check_layer(const struct kure_network *k, int i)
{
    const struct kure_plan_row *row = &k->plan.rows[i];
    if (k->options.layer[i].is_relu6) refuse(k, i, "activation=relu6");
    if (k->options.layer[i].slope_line) refuse(k, i, "slope=");
    if (row->weight.bits && row->weight_method == KURE_METHOD_DOREFA) refuse(k, i, "method=dorefa");
    if (!row->after.bits) return;
    if (row->activation_method == KURE_METHOD_DOREFA) refuse(k, i, "method=dorefa");
    if (row->activation_method == KURE_METHOD_PACT) refuse(k, i, "method=pact");
    if (kure_policy_needs(row->after.truncation) != KURE_NEEDS_RANGE) refuse(k, i, "activation_truncation= other than ema, minmax and fixed");
}

static void check_plan(const struct kure_network *k)
{
    static int gpu = -1; /* of the first network */
    const struct kure_quantization_options *o = &k->plan.quantization;
    const struct kure_profile *profile = kure_profile((int)o->profile - 1);
    if (gpu >= 0 && gpu != gpu_index) refuse(k, -1, "[quantization] on several GPUs");
    gpu = gpu_index;
    if (o->sample.text) refuse(k, -1, "[quantization] sample=");
    if (o->batchnorm == KURE_BATCHNORM_FREEZE) refuse(k, -1, "[quantization] batchnorm=freeze");
    if (profile && profile->arithmetic != KURE_ARITHMETIC_NONE) refuse(k, -1, "[quantization] profile= with an arithmetic of its own");
    for (int i = 0; i < k->plan.count; ++i) check_layer(k, i);
}

/* ---- attach ------------------------------------------------------------------------------ */

void kure_cuda_simulation_attach(struct kure_network *k)
{
    check_plan(k);
    struct kure_cuda_simulation *c = calloc(1, sizeof *c);
    if (c) c->went_back = calloc((size_t)k->plan.count, 1);
    if (!c || !c->went_back) kure_stop(&(struct kure_error){"not enough memory for [quantization]"});
    c->turns = (size_t)k->net->subdivisions;
    k->simulation->cuda = c;
}

void kure_cuda_simulation_make(struct kure_network *k)
{
    kure_cuda_weights_make(k);
    kure_cuda_outputs_make(k);
}

void kure_cuda_simulation_release(struct kure_network *k)
{
    struct kure_cuda_simulation *c = k->simulation->cuda;
    if (!c) return;
    for (int i = 0; i < k->plan.count; ++i) {
        if (!k->simulation->layers[i].forward) continue;
        k->net->layers[i].forward_gpu = k->simulation->layers[i].forward;
        k->net->layers[i].backward_gpu = k->simulation->layers[i].backward;
    }
    kure_cuda_weights_free(k);
    kure_cuda_outputs_free(k);
    free(c->went_back);
    free(c);
    k->simulation->cuda = NULL;
}

/* ---- once an update ------------------------------------------------------------------------ */

void kure_cuda_simulation_collect(struct kure_network *k)
{
    struct kure_cuda_simulation *c = k->simulation->cuda;
    if (!c || c->turn == 0) return;
    kure_cuda_weights_collect(k);
    kure_cuda_outputs_collect(k);
    c->turn = 0;
    memset(c->went_back, 0, (size_t)k->plan.count);
}

void kure_cuda_simulation_refresh(struct kure_network *k)
{
    kure_cuda_weights_refresh(k);
    kure_cuda_outputs_refresh(k);
}

/* ---- a minibatch --------------------------------------------------------------------------- */

static void begin(struct kure_network *k, network *net)
{
    struct kure_cuda_simulation *c = k->simulation->cuda;
    if (!net->train) refuse(k, -1, "a prediction with [quantization]");
    if (c->turn == c->turns) kure_cuda_simulation_collect(k);
    if (!kure_cuda_outputs_fit(k)) k->simulation->stale = 1;
    kure_simulate_begin(k, net);
    c->turn++;
    if (k->plan.input.bits && kure_simulate_is_on(k)) net->input_gpu = kure_cuda_outputs_input(k);
}

static void forward(layer l, network net)
{
    struct kure_network *k = l.kure;
    int i = net.index;
    struct simulated_layer *s = &k->simulation->layers[i];
    struct kure_cuda_simulation *c = k->simulation->cuda;
    if (i == 0) begin(k, &net);
    layer own = l;
    if (s->weights.q.bits && kure_simulate_is_on(k)) own.weights_gpu = c->weights.values[i];
    if (!s->after.q.bits) {
        s->forward(own, net);
        return;
    }
    own.output_gpu = c->outputs.raw[i];
    own.activation = LINEAR;
    s->forward(own, net);
    kure_cuda_outputs_forward(k, i, &l);
}

static void backward(layer l, network net)
{
    struct kure_network *k = l.kure;
    int i = net.index;
    struct simulated_layer *s = &k->simulation->layers[i];
    struct kure_cuda_simulation *c = k->simulation->cuda;
    layer own = l;
    c->went_back[i] = 1;
    if (i == 0 && k->plan.input.bits && kure_simulate_is_on(k)) net.input_gpu = c->outputs.input;
    if (s->after.q.bits) {
        kure_cuda_outputs_back(k, i, &l);
        own.output_gpu = c->outputs.raw[i];
        own.activation = LINEAR;
    }
    if (!s->weights.q.bits || !kure_simulate_is_on(k)) {
        s->backward(own, net);
        return;
    }
    own.weights_gpu = c->weights.values[i];
    if (!kure_weights_clip(&s->weights)) {
        s->backward(own, net); /* straight through, nothing clipped: the gradient is the master weights' own */
        return;
    }
    own.weight_updates_gpu = c->weights.room;
    fill_gpu((int)(s->weights.rows * s->weights.row_length), 0, own.weight_updates_gpu, 1);
    s->backward(own, net);
    kure_cuda_weights_back(k, i, &l);
}

void kure_cuda_simulation_wrap(struct simulated_layer *s, layer *l)
{
    s->forward = l->forward_gpu;
    s->backward = l->backward_gpu;
    l->forward_gpu = forward;
    if (l->backward_gpu) l->backward_gpu = backward;
}
#else
void kure_cuda_simulation_attach(struct kure_network *k) { (void)k; }
void kure_cuda_simulation_make(struct kure_network *k) { (void)k; }
void kure_cuda_simulation_release(struct kure_network *k) { (void)k; }
void kure_cuda_simulation_wrap(struct simulated_layer *s, layer *l) { (void)s, (void)l; }
void kure_cuda_simulation_collect(struct kure_network *k) { (void)k; }
void kure_cuda_simulation_refresh(struct kure_network *k) { (void)k; }
#endif
