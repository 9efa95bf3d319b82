/* simulate_cuda_outputs.c: the quantizers of activations on a GPU; see simulate_cuda.h. */
#include "simulate_cuda_parts.h"

#ifdef GPU
#include <math.h>
#include <stdlib.h>

#include "chunks.h"
#include "policy.h"
#include "quantize_parts.h"

static struct kure_cuda_outputs *outputs_of(const struct kure_network *k)
{
    return &k->simulation->cuda->outputs;
}

/* NULL: there is none in front of a linear activation, or at this layer */
static struct kure_activation_quantizer *quantizer_of(const struct kure_network *k, int i, int place)
{
    struct simulated_layer *s = &k->simulation->layers[i];
    if (place == AFTER) return s->after.q.bits ? &s->after : NULL;
    return s->before.q.bits && s->after.q.bits && s->activation != LINEAR ? &s->before : NULL;
}

static size_t number_of(int i, int place)
{
    return PLACES * (size_t)i + (size_t)place;
}

static size_t input_size(const struct kure_network *k)
{
    return k->plan.input.bits ? (size_t)k->net->inputs * (size_t)k->net->batch : 0;
}

static size_t size_of(const layer *l)
{
    return (size_t)l->outputs * (size_t)l->batch;
}

int kure_cuda_has_outputs(const struct kure_network *k, int i)
{
    return k->simulation->layers[i].after.q.bits || k->simulation->layers[i].own_activation;
}

/* ---- memory and tables: at attach, and where a size has changed --------------------- */

struct piece_listing {
    struct kure_cuda_listing *list;
    size_t tensor; /* of the first group */
};

static void list_piece(void *context, int group, size_t offset, size_t count)
{
    const struct piece_listing *p = context;
    size_t from = p->list->count;
    p->list->tensors = p->tensor + (size_t)group;
    kure_cuda_list(p->list, count);
    for (; p->list->chunks && from < p->list->count; ++from) p->list->chunks[from].start += offset;
}

static void list_quantizers(struct kure_network *k, struct kure_cuda_listing *list)
{
    struct kure_cuda_outputs *o = outputs_of(k);
    size_t last = PLACES * (size_t)k->plan.count;
    for (size_t p = 0; p <= last; ++p) {
        const struct kure_activation_quantizer *a = p < last ? quantizer_of(k, (int)(p / PLACES), (int)(p % PLACES)) : NULL;
        struct piece_listing pieces = {list, p * KURE_MOST_GROUPS};
        o->spans[p].first = list->count;
        if (a) kure_activation_each_piece(a, &o->layers[p / PLACES], list_piece, &pieces);
        if (p == last) list_piece(&pieces, 0, 0, input_size(k));
        o->spans[p].count = list->count - o->spans[p].first;
    }
    list->tensors = (last + 1) * KURE_MOST_GROUPS;
    o->all = list->count;
    o->chunks = list->chunks;
}

void kure_cuda_outputs_list(struct kure_network *k, int batch, struct kure_cuda_listing *list)
{
    struct kure_cuda_outputs *o = outputs_of(k);
    if (batch == OUTPUTS_RANGE) {
        list_quantizers(k, list);
        return;
    }
    for (int i = 0; i < k->plan.count; ++i) {
        o->rectified[i].first = list->count;
        kure_cuda_list(list, k->simulation->layers[i].own_activation ? size_of(&o->layers[i]) : 0);
        o->rectified[i].count = list->count - o->rectified[i].first;
    }
}

static void free_sized(struct kure_network *k)
{
    struct kure_cuda_outputs *o = outputs_of(k);
    for (int i = 0; i < k->plan.count; ++i) {
        cuda_free(o->raw[i]);
        o->raw[i] = NULL;
    }
    cuda_free(o->activated);
    cuda_free(o->input);
    free(o->chunks);
    free(o->copy);
    o->chunks = NULL;
}

int kure_cuda_outputs_fit(const struct kure_network *k)
{
    const struct kure_cuda_outputs *o = outputs_of(k);
    int fit = o->layers != NULL;
    for (int i = 0; fit && i < k->plan.count; ++i) {
        const layer *l = &k->net->layers[i];
        fit = size_of(&o->layers[i]) == size_of(l) && o->layers[i].output_gpu == l->output_gpu && o->layers[i].batch == l->batch;
    }
    return fit;
}

void kure_cuda_outputs_make(struct kure_network *k)
{
    struct kure_cuda_outputs *o = outputs_of(k);
    size_t n = (size_t)k->plan.count, most = 1;
    if (o->layers) {
        free_sized(k);
    } else {
        o->layers = kure_cuda_table(n, sizeof *o->layers);
        o->spans = kure_cuda_table(PLACES * n + 1, sizeof *o->spans);
        o->rectified = kure_cuda_table(n, sizeof *o->rectified);
        o->known = kure_cuda_table(PLACES * n, sizeof *o->known);
        o->raw = kure_cuda_table(n, sizeof *o->raw);
    }
    for (int i = 0; i < k->plan.count; ++i) {
        o->layers[i] = k->net->layers[i];
        if (!kure_cuda_has_outputs(k, i)) continue;
        o->raw[i] = cuda_make_array(NULL, size_of(&o->layers[i]));
        if (size_of(&o->layers[i]) > most) most = size_of(&o->layers[i]);
    }
    o->activated = cuda_make_array(NULL, most);
    o->copy = kure_cuda_table(most, sizeof *o->copy);
    o->input = input_size(k) ? cuda_make_array(NULL, input_size(k)) : NULL;
}

void kure_cuda_outputs_free(struct kure_network *k)
{
    struct kure_cuda_outputs *o = outputs_of(k);
    free_sized(k);
    free(o->layers);
    free(o->spans);
    free(o->rectified);
    free(o->known);
    free(o->raw);
}

/* ---- once an update ------------------------------------------------------------------ */

static int has_activation(const struct kure_network *k, int i)
{
    return k->simulation->layers[i].activation != LINEAR;
}

static void set_quantizer(struct kure_network *k, int i, int place)
{
    const struct kure_cuda_outputs *o = outputs_of(k);
    const struct kure_activation_quantizer *a = quantizer_of(k, i, place);
    const layer *l = &k->net->layers[i];
    const struct kure_noise noise = kure_simulate_noise(k, k->simulation->update, i, place == AFTER ? USE_AFTER : USE_BEFORE);
    for (int g = 0; g < kure_activation_groups(a); ++g) {
        kure_cuda_arguments_of(k, OUTPUTS_RANGE)[number_of(i, place) * KURE_MOST_GROUPS + (size_t)g] = (struct kure_cuda_arguments){
            .x = place == AFTER && has_activation(k, i) ? o->activated : o->raw[i],
            .y = place == AFTER ? l->output_gpu : o->activated,
            .dy = l->delta_gpu,
            .dx = l->delta_gpu,
            .fold.codec = kure_codec_of(a->now->group[g].scale, &a->q, &noise),
            .factor = kure_activation_clip(a, g),
        };
    }
}

/* In place, on what the last quantizer sees; where there is none, on the output. */
static void set_rectifier(struct kure_network *k, int i)
{
    const struct simulated_layer *s = &k->simulation->layers[i];
    const layer *l = &k->net->layers[i];
    float *x = s->after.q.bits ? outputs_of(k)->activated : l->output_gpu;
    kure_cuda_arguments_of(k, RECTIFY)[i] = (struct kure_cuda_arguments){
        .x = x, .y = x, .dy = l->delta_gpu, .dx = l->delta_gpu, .factor = kure_rectifier_slope(s), .cap = kure_rectifier_cap(s)};
}

void kure_cuda_outputs_refresh(struct kure_network *k)
{
    struct kure_cuda_outputs *o = outputs_of(k);
    for (int i = 0; i < k->plan.count; ++i) {
        for (int place = BEFORE; place < PLACES; ++place) {
            if (quantizer_of(k, i, place)) set_quantizer(k, i, place);
        }
        if (k->simulation->layers[i].own_activation) set_rectifier(k, i);
    }
    if (!input_size(k)) return;
    const struct kure_noise noise = kure_simulate_noise(k, k->simulation->update, 0, USE_INPUT);
    kure_cuda_arguments_of(k, OUTPUTS_RANGE)[number_of(k->plan.count, BEFORE) * KURE_MOST_GROUPS] = (struct kure_cuda_arguments){
        .x = k->net->input_gpu, .y = o->input, .fold.codec = kure_codec_of(k->plan.input_scale, &k->plan.input, &noise)};
}

/* Ranges of the turns that the observer does not have yet. */
static void take_ranges(struct kure_network *k, int i, int place)
{
    struct kure_cuda_outputs *o = outputs_of(k);
    const struct kure_activation_quantizer *a = quantizer_of(k, i, place);
    int batch = kure_simulate_is_on(k) ? OUTPUTS_RANGE_QUANTIZE : OUTPUTS_RANGE;
    const struct kure_range_keys *keys = kure_cuda_batch_results(k->simulation->cuda->batch[batch]);
    size_t p = number_of(i, place);
    const struct kure_cuda_span span = o->spans[p];
    for (; o->known[p] < k->simulation->cuda->turn; ++o->known[p]) {
        for (size_t c = span.first; c < span.first + span.count; ++c) {
            struct kure_observer *observer = &a->now->group[o->chunks[c].tensor % KURE_MOST_GROUPS].observer;
            if (!kure_observer_add_range(observer, keys[o->known[p] * o->all + c], o->chunks[c].n)) continue;
            kure_simulation_stop(k, i, &(struct kure_error){"some outputs are not finite"});
        }
    }
}

struct descent {
    struct kure_activation_quantizer *a;
    const double *sums;
    size_t features[KURE_MOST_GROUPS]; /* of one image */
};

static void descend_piece(void *context, int group, size_t offset, size_t count)
{
    struct descent *d = context;
    struct kure_activation_group *g = &d->a->now->group[group];
    size_t chunks = kure_chunk_count(count);
    (void)offset;
    if (d->a->method == KURE_METHOD_LSQ) g->descent += kure_learned_step_gradient_of(d->sums, chunks, d->features[group], g->scale, &d->a->q);
    else for (size_t c = 0; c < chunks; ++c) g->descent += d->sums[c];
    d->sums += chunks;
}

static void take_gradients(struct kure_network *k, int i, int place)
{
    struct kure_cuda_outputs *o = outputs_of(k);
    struct descent d = {.a = quantizer_of(k, i, place)};
    int batch = d.a->method == KURE_METHOD_LSQ ? OUTPUTS_BACK_LSQ : OUTPUTS_BACK_PACT;
    const double *sums = kure_cuda_batch_results(k->simulation->cuda->batch[batch]);
    kure_activation_features(d.a, &o->layers[i], d.features);
    for (size_t turn = 0; turn < k->simulation->cuda->turn; ++turn) {
        d.sums = sums + turn * o->all + o->spans[number_of(i, place)].first;
        kure_activation_each_piece(d.a, &o->layers[i], descend_piece, &d);
    }
    d.a->has_gradient = 1;
}

void kure_cuda_outputs_collect(struct kure_network *k)
{
    for (int i = 0; i < k->plan.count; ++i) {
        for (int place = BEFORE; place < PLACES; ++place) {
            const struct kure_activation_quantizer *a = quantizer_of(k, i, place);
            if (!a) continue;
            if (a->method == KURE_METHOD_STE) take_ranges(k, i, place);
            else if (a->method != KURE_METHOD_DOREFA && kure_simulate_is_on(k) && k->simulation->cuda->went_back[i]) take_gradients(k, i, place);
            outputs_of(k)->known[number_of(i, place)] = 0;
        }
    }
}

/* ---- a minibatch ------------------------------------------------------------------------ */

static void launch(struct kure_network *k, int batch, int i, int place)
{
    size_t turn = k->simulation->cuda->turn;
    kure_cuda_launch(k, batch, i, outputs_of(k)->spans[number_of(i, place)], turn ? turn - 1 : 0);
}

/* Values that the CPU has to look at: the first minibatch of all sets the scale from itself, and some policies search. */
static int look(struct kure_network *k, int i, int place, const layer *l, const float *x, int train)
{
    struct kure_cuda_outputs *o = outputs_of(k);
    struct kure_activation_quantizer *a = quantizer_of(k, i, place);
    int ready = kure_activation_ready(a);
    if (!kure_simulate_wants_values(k, a, train) && (ready || !kure_simulate_is_on(k))) return 0;
    cuda_pull_array((float *)(uintptr_t)x, o->copy, size_of(l));
    kure_simulate_observe(k, a, l, i, place == AFTER ? USE_AFTER : USE_BEFORE, train, o->copy);
    o->known[number_of(i, place)] = k->simulation->cuda->turn;
    if (ready) return 1;
    set_quantizer(k, i, place);
    kure_cuda_send(k, i);
    return 1;
}

static void pass_quantizer(struct kure_network *k, int i, int place, const layer *l, float *x, float *y, int train)
{
    int looked = look(k, i, place, l, x, train);
    int observes = train && !looked && quantizer_of(k, i, place)->method == KURE_METHOD_STE;
    if (kure_simulate_is_on(k)) {
        launch(k, observes ? OUTPUTS_RANGE_QUANTIZE : OUTPUTS_QUANTIZE, i, place);
        return;
    }
    if (observes) launch(k, OUTPUTS_RANGE, i, place);
    if (x != y) copy_gpu((int)size_of(l), x, 1, y, 1);
}

static void activate(struct kure_network *k, int i, float *x, size_t n)
{
    if (k->simulation->layers[i].own_activation) kure_cuda_launch(k, RECTIFY, i, outputs_of(k)->rectified[i], 0);
    else activate_array_gpu(x, (int)n, k->simulation->layers[i].activation);
}

void kure_cuda_outputs_move_biases(struct kure_network *k, int i, const layer *l)
{
    struct kure_cuda_outputs *o = outputs_of(k);
    if (!kure_simulate_is_on(k) || !kure_target_rounds_biases(k, i)) return;
    cuda_pull_array(o->raw[i], o->copy, size_of(l));
    kure_target_biases(k, i, l, o->copy);
    cuda_push_array(o->raw[i], o->copy, size_of(l));
}

/* A target that goes from codes to codes: on the CPU. x [in]: what goes into the last quantizer */
static void put_target_outputs(struct kure_network *k, int i, const layer *l, float *x)
{
    struct kure_cuda_outputs *o = outputs_of(k);
    if (!kure_simulate_is_on(k) || !kure_target_differs(k, i)) return;
    cuda_pull_array(x, o->copy, size_of(l));
    cuda_pull_array(l->output_gpu, l->output, size_of(l));
    kure_target_outputs(k, i, o->copy, l->output, size_of(l), l->h * l->w);
    cuda_push_array(l->output_gpu, l->output, size_of(l));
}

void kure_cuda_outputs_forward(struct kure_network *k, int i, const layer *l, int train)
{
    struct kure_cuda_outputs *o = outputs_of(k);
    const struct simulated_layer *s = &k->simulation->layers[i];
    float *x = o->raw[i];
    if (!s->after.q.bits) {
        copy_gpu((int)size_of(l), x, 1, l->output_gpu, 1);
        activate(k, i, l->output_gpu, size_of(l));
        return;
    }
    if (has_activation(k, i)) {
        if (quantizer_of(k, i, BEFORE)) pass_quantizer(k, i, BEFORE, l, x, o->activated, train);
        else copy_gpu((int)size_of(l), x, 1, o->activated, 1);
        x = o->activated;
        activate(k, i, x, size_of(l));
    }
    pass_quantizer(k, i, AFTER, l, x, l->output_gpu, train);
    put_target_outputs(k, i, l, x);
}

static void pass_back(struct kure_network *k, int i, int place)
{
    static const int batches[] = {[KURE_METHOD_STE] = OUTPUTS_BACK_STE, [KURE_METHOD_LSQ] = OUTPUTS_BACK_LSQ,
                                  [KURE_METHOD_PACT] = OUTPUTS_BACK_PACT, [KURE_METHOD_DOREFA] = OUTPUTS_BACK_PACT};
    launch(k, batches[quantizer_of(k, i, place)->method], i, place);
}

static void activation_back(struct kure_network *k, int i, const layer *l, float *x)
{
    if (k->simulation->layers[i].own_activation) kure_cuda_launch(k, RECTIFY_BACK, i, outputs_of(k)->rectified[i], 0);
    else gradient_array_gpu(x, (int)size_of(l), k->simulation->layers[i].activation, l->delta_gpu);
}

/* The way forward is gone again up to the activation. */
void kure_cuda_outputs_back(struct kure_network *k, int i, const layer *l)
{
    struct kure_cuda_outputs *o = outputs_of(k);
    int n = (int)size_of(l), quantized = k->simulation->layers[i].after.q.bits != 0;
    if (!quantized || !kure_simulate_is_on(k)) {
        if (quantized) copy_gpu(n, l->output_gpu, 1, o->activated, 1);
        activation_back(k, i, l, l->output_gpu);
        return;
    }
    if (has_activation(k, i)) {
        if (quantizer_of(k, i, BEFORE)) launch(k, OUTPUTS_QUANTIZE, i, BEFORE);
        else copy_gpu(n, o->raw[i], 1, o->activated, 1);
        activate(k, i, o->activated, size_of(l));
    }
    pass_back(k, i, AFTER);
    if (!has_activation(k, i)) return;
    activation_back(k, i, l, o->activated);
    if (quantizer_of(k, i, BEFORE)) pass_back(k, i, BEFORE);
}

float *kure_cuda_outputs_input(struct kure_network *k)
{
    launch(k, OUTPUTS_QUANTIZE, k->plan.count, BEFORE);
    return outputs_of(k)->input;
}
#endif
