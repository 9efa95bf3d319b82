/* simulate_cuda.c: see simulate_cuda.h. The order of everything is that of simulate.c. */
#include "simulate_cuda_parts.h"

#ifdef GPU
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chunks.h"

void kure_cuda_check(const struct kure_network *k, int i, enum kure_status status, const struct kure_error *error)
{
    if (status != KURE_OK) kure_simulation_stop(k, i < k->plan.count ? i : 0, error);
}

void kure_cuda_launch(const struct kure_network *k, int batch, int i, struct kure_cuda_span span, size_t turn)
{
    struct kure_error error;
    kure_cuda_check(k, i, kure_cuda_batch_launch(k->simulation->cuda->batch[batch], span.first, span.count, turn, NULL, &error), &error);
}

void kure_cuda_send(const struct kure_network *k, int i)
{
    struct kure_error error;
    kure_cuda_check(k, i, kure_cuda_batch_send(k->simulation->cuda->batch[0], NULL, &error), &error);
}

void *kure_cuda_table(size_t count, size_t size)
{
    void *table = calloc(count + 1, size);
    if (!table) kure_stop(&(struct kure_error){"not enough memory for [quantization]"});
    return table;
}

/* ---- attach ------------------------------------------------------------------------------ */

void kure_cuda_simulation_attach(struct kure_network *k)
{
    struct kure_cuda_simulation *c = kure_cuda_table(1, sizeof *c);
    c->went_back = kure_cuda_table((size_t)k->plan.count, 1);
    c->turns = (size_t)k->net->subdivisions;
    k->simulation->cuda = c;
}

void kure_cuda_list(struct kure_cuda_listing *list, size_t n)
{
    size_t size = kure_chunk_size(n);
    for (size_t c = 0; c < kure_chunk_count(n); ++c, ++list->count) {
        if (!list->chunks) continue;
        list->chunks[list->count] = (struct kure_cuda_chunk){(uint32_t)list->tensors, c * size, kure_chunk_length(n, c)};
    }
    ++list->tensors;
}

/* The batches, by groups that have their tensors and chunks in common. */
enum { WITHOUT_RESULTS, EACH_TURN, SUMS_OF_ROWS, ONCE }; /* turns whose results are kept */
static const struct {
    enum kure_cuda_op op;
    int turns;
    void (*list)(struct kure_network *k, int batch, struct kure_cuda_listing *list); /* NULL: of the group of the batch before */
} batches[BATCHES] = {
    [ROWS_RANGE] = {KURE_CUDA_range, ONCE, kure_cuda_weights_list},
    [ROWS_QUANTIZE] = {KURE_CUDA_fold_quantize, WITHOUT_RESULTS, NULL},
    [ROWS_BACK] = {KURE_CUDA_fold_backward, WITHOUT_RESULTS, NULL},
    [ROWS_BACK_SUMS] = {KURE_CUDA_fold_backward_sums, SUMS_OF_ROWS, NULL},
    [DOREFA_RANGE] = {KURE_CUDA_range, ONCE, kure_cuda_weights_list},
    [DOREFA_QUANTIZE] = {KURE_CUDA_dorefa_quantize, WITHOUT_RESULTS, NULL},
    [DOREFA_SUMS] = {KURE_CUDA_dorefa_sums, ONCE, NULL},
    [DOREFA_BACK] = {KURE_CUDA_dorefa_backward, WITHOUT_RESULTS, NULL},
    [NORM_BIASES] = {KURE_CUDA_fold_biases, WITHOUT_RESULTS, kure_cuda_weights_list},
    [NORM_BACK] = {KURE_CUDA_batchnorm_backward, WITHOUT_RESULTS, kure_cuda_weights_list},
    [GATHER] = {KURE_CUDA_gather, ONCE, kure_cuda_weights_list},
    [OUTPUTS_RANGE] = {KURE_CUDA_range, EACH_TURN, kure_cuda_outputs_list},
    [OUTPUTS_RANGE_QUANTIZE] = {KURE_CUDA_range_quantize, EACH_TURN, NULL},
    [OUTPUTS_QUANTIZE] = {KURE_CUDA_fake_quantize, WITHOUT_RESULTS, NULL},
    [OUTPUTS_BACK_STE] = {KURE_CUDA_ste_backward, WITHOUT_RESULTS, NULL},
    [OUTPUTS_BACK_LSQ] = {KURE_CUDA_lsq_backward, EACH_TURN, NULL},
    [OUTPUTS_BACK_PACT] = {KURE_CUDA_pact_backward, EACH_TURN, NULL},
    [RECTIFY] = {KURE_CUDA_rectify, WITHOUT_RESULTS, kure_cuda_outputs_list},
    [RECTIFY_BACK] = {KURE_CUDA_rectify_backward, WITHOUT_RESULTS, NULL},
};

/* Counts a group's chunks, then lists them. */
static void list_group(struct kure_network *k, int b, struct kure_cuda_plan *plan)
{
    struct kure_cuda_listing list = {NULL, 0, 0};
    batches[b].list(k, b, &list);
    list = (struct kure_cuda_listing){kure_cuda_table(list.count, sizeof *list.chunks), 0, 0};
    batches[b].list(k, b, &list);
    plan->chunks = list.chunks;
    plan->count = list.count;
    plan->tensors = list.tensors;
}

/* The outputs keep their list. */
static void make_tables(struct kure_network *k)
{
    struct kure_cuda_simulation *c = k->simulation->cuda;
    const size_t turns[] = {[WITHOUT_RESULTS] = 0, [EACH_TURN] = c->turns, [SUMS_OF_ROWS] = c->weights.sum_turns, [ONCE] = 1};
    struct kure_cuda_plan plans[BATCHES] = {{.op = KURE_CUDA_sum}};
    struct kure_error error;
    kure_cuda_outputs_make(k);
    kure_cuda_batches_free(c->batch, BATCHES);
    for (int b = 0; b < BATCHES; ++b) {
        plans[b].op = batches[b].op;
        plans[b].turns = turns[batches[b].turns];
        if (batches[b].list) list_group(k, b, &plans[b]);
    }
    kure_cuda_check(k, 0, kure_cuda_batches_make(c->batch, plans, BATCHES, "[quantization]", &error), &error);
    for (int b = 0; b < BATCHES; ++b) {
        if (b != OUTPUTS_RANGE) free((void *)(uintptr_t)plans[b].chunks);
    }
    kure_cuda_weights_set(k);
    kure_cuda_send(k, 0);
}

void kure_cuda_simulation_make(struct kure_network *k)
{
    kure_cuda_weights_make(k);
    make_tables(k);
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
    kure_cuda_batches_free(c->batch, BATCHES);
    free(c->went_back);
    free(c);
    k->simulation->cuda = NULL;
}

/* ---- once an update ------------------------------------------------------------------------ */

/* At the weights as they are; brings the results of the update that ended along. */
static void look(struct kure_network *k)
{
    struct kure_error error;
    kure_cuda_weights_look(k);
    kure_cuda_check(k, 0, kure_cuda_batch_fetch(k->simulation->cuda->batch[0], NULL, &error), &error);
}

void kure_cuda_simulation_collect(struct kure_network *k)
{
    struct kure_cuda_simulation *c = k->simulation->cuda;
    if (!c) return;
    look(k);
    if (c->turn == 0) return;
    kure_cuda_weights_collect(k);
    kure_cuda_outputs_collect(k);
    c->turn = 0;
    memset(c->went_back, 0, (size_t)k->plan.count);
}

void kure_cuda_simulation_refresh(struct kure_network *k)
{
    if (!kure_cuda_outputs_fit(k)) {
        make_tables(k);
        look(k);
    }
    kure_cuda_weights_refresh(k);
    kure_cuda_outputs_refresh(k);
    kure_cuda_send(k, 0);
    kure_cuda_weights_quantize(k);
}

/* ---- a minibatch --------------------------------------------------------------------------- */

static void begin(struct kure_network *k, network *net)
{
    struct kure_cuda_simulation *c = k->simulation->cuda;
    if (net->train && c->turn == c->turns) k->simulation->stale = 1;
    if (!kure_cuda_outputs_fit(k)) k->simulation->stale = 1;
    kure_simulate_begin(k, net);
    if (!net->train) { /* commands move scales between predictions */
        kure_cuda_outputs_refresh(k);
        kure_cuda_send(k, 0);
    }
    c->turn += net->train != 0;
    if (k->plan.input.bits && kure_simulate_is_on(k)) net->input_gpu = kure_cuda_outputs_input(k);
}

/* Points the wrapper's copy of a layer at the quantized weights. */
static void use_weights(const struct kure_network *k, int i, layer *own)
{
    const struct kure_cuda_weights *w = &k->simulation->cuda->weights;
    own->weights_gpu = w->values[i];
    if (!k->simulation->layers[i].weights.frozen) return;
    own->batch_normalize = 0;
    own->biases_gpu = w->frozen[i];
    own->bias_updates_gpu = w->bias_room;
}

static void forward(layer l, network net)
{
    struct kure_network *k = l.kure;
    int i = net.index;
    struct simulated_layer *s = &k->simulation->layers[i];
    if (i == 0) begin(k, &net);
    layer own = l;
    if (s->weights.q.bits && kure_simulate_is_on(k)) use_weights(k, i, &own);
    if (!kure_cuda_has_outputs(k, i)) {
        s->forward(own, net);
        return;
    }
    own.output_gpu = k->simulation->cuda->outputs.raw[i];
    own.activation = LINEAR;
    s->forward(own, net);
    if (!net.train) kure_cuda_outputs_move_biases(k, i, &l);
    kure_cuda_outputs_forward(k, i, &l, net.train);
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
    if (kure_cuda_has_outputs(k, i)) {
        kure_cuda_outputs_back(k, i, &l);
        own.output_gpu = c->outputs.raw[i];
        own.activation = LINEAR;
    }
    if (!s->weights.q.bits || !kure_simulate_is_on(k)) {
        s->backward(own, net);
        return;
    }
    use_weights(k, i, &own);
    if (!s->weights.frozen && !kure_weights_clip(&s->weights)) {
        s->backward(own, net); /* straight through, nothing clipped: the gradient is the master weights' own */
        return;
    }
    own.weight_updates_gpu = c->weights.room;
    fill_gpu((int)(s->weights.rows * s->weights.row_length), 0, own.weight_updates_gpu, 1);
    if (s->weights.frozen) fill_gpu((int)s->weights.rows, 0, own.bias_updates_gpu, 1);
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
