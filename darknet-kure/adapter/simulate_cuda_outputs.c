/* simulate_cuda_outputs.c: the quantizers of activations on a GPU; see simulate_cuda.h. */
#include "simulate_cuda_parts.h"

#ifdef GPU
#include <stdlib.h>

#include "chunks.h"
#include "quantize_parts.h"

static const enum kure_cuda_op ops[OUTPUTS_BATCHES] = {
    [OUTPUTS_OBSERVE] = KURE_CUDA_range, [OUTPUTS_QUANTIZE] = KURE_CUDA_fake_quantize, [OUTPUTS_MASK] = KURE_CUDA_ste_backward,
    [OUTPUTS_SLOPE] = KURE_CUDA_step_gradient,
};

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

/* ---- tables: at attach, and where a resize has changed a size ---------------------- */

/* A list of chunks, or with chunks NULL their number. */
struct listing {
    struct kure_cuda_chunk *chunks;
    size_t count;
    uint32_t tensor;
};

static void list_piece(void *context, int group, size_t offset, size_t count)
{
    struct listing *list = context;
    size_t size = kure_chunk_size(count);
    for (size_t c = 0; c < kure_chunk_count(count); ++c, ++list->count) {
        if (!list->chunks) continue;
        list->chunks[list->count] = (struct kure_cuda_chunk){list->tensor + (uint32_t)group, offset + c * size, kure_chunk_length(count, c)};
    }
}

static size_t list_all(struct kure_network *k, struct kure_cuda_chunk *chunks)
{
    struct kure_cuda_outputs *o = outputs_of(k);
    struct listing list = {.chunks = chunks};
    size_t last = PLACES * (size_t)k->plan.count;
    for (size_t p = 0; p < last; ++p) {
        const struct kure_activation_quantizer *a = quantizer_of(k, (int)(p / PLACES), (int)(p % PLACES));
        list.tensor = (uint32_t)(p * KURE_MOST_GROUPS);
        o->first[p] = list.count;
        if (a) kure_activation_each_piece(a, &o->layers[p / PLACES], list_piece, &list);
        o->count[p] = list.count - o->first[p];
    }
    list.tensor = (uint32_t)(last * KURE_MOST_GROUPS);
    o->first[last] = list.count;
    if (input_size(k)) list_piece(&list, 0, 0, input_size(k));
    o->count[last] = list.count - o->first[last];
    return list.count;
}

static void free_tables(struct kure_network *k)
{
    struct kure_cuda_outputs *o = outputs_of(k);
    for (int b = 0; b < OUTPUTS_BATCHES; ++b) kure_cuda_batch_free(o->batch[b]);
    for (int i = 0; o->raw && i < k->plan.count; ++i) {
        cuda_free(o->raw[i]);
        o->raw[i] = NULL;
    }
    cuda_free(o->activated);
    cuda_free(o->input);
    free(o->chunks);
}

static void make_tables(struct kure_network *k)
{
    struct kure_cuda_outputs *o = outputs_of(k);
    struct kure_error error;
    size_t most = 1;
    for (int i = 0; i < k->plan.count; ++i) {
        size_t n = (size_t)k->net->layers[i].outputs * (size_t)k->net->layers[i].batch;
        o->layers[i] = k->net->layers[i];
        if (!quantizer_of(k, i, AFTER)) continue;
        o->raw[i] = cuda_make_array(NULL, n);
        if (n > most) most = n;
    }
    o->activated = cuda_make_array(NULL, most);
    o->input = input_size(k) ? cuda_make_array(NULL, input_size(k)) : NULL;
    size_t chunks = list_all(k, NULL);
    o->chunks = calloc(chunks + 1, sizeof *o->chunks);
    if (!o->chunks) kure_stop(&(struct kure_error){"not enough memory for [quantization]"});
    list_all(k, o->chunks);
    for (int b = 0; b < OUTPUTS_BATCHES; ++b) {
        size_t tensors = (PLACES * (size_t)k->plan.count + 1) * KURE_MOST_GROUPS;
        size_t turns = b == OUTPUTS_OBSERVE || b == OUTPUTS_SLOPE ? k->simulation->cuda->turns : 1;
        enum kure_status status = kure_cuda_batch_make_turns(&o->batch[b], ops[b], o->chunks, chunks, tensors, turns, "[quantization]", &error);
        if (status != KURE_OK) kure_cuda_check(k, 0, status, &error);
    }
}

int kure_cuda_outputs_fit(const struct kure_network *k)
{
    const struct kure_cuda_outputs *o = outputs_of(k);
    int fit = o->layers != NULL;
    for (int i = 0; fit && i < k->plan.count; ++i) {
        fit = o->layers[i].outputs == k->net->layers[i].outputs && o->layers[i].output_gpu == k->net->layers[i].output_gpu;
    }
    return fit;
}

void kure_cuda_outputs_make(struct kure_network *k)
{
    struct kure_cuda_outputs *o = outputs_of(k);
    size_t n = (size_t)k->plan.count;
    if (kure_cuda_outputs_fit(k)) return;
    if (o->layers) {
        free_tables(k);
    } else {
        o->layers = calloc(n, sizeof *o->layers);
        o->first = calloc(PLACES * n + 1, sizeof *o->first);
        o->count = calloc(PLACES * n + 1, sizeof *o->count);
        o->known = calloc(PLACES * n, sizeof *o->known);
        o->raw = calloc(n, sizeof *o->raw);
        if (!o->layers || !o->first || !o->count || !o->known || !o->raw) kure_stop(&(struct kure_error){"not enough memory for [quantization]"});
    }
    make_tables(k);
}

void kure_cuda_outputs_free(struct kure_network *k)
{
    struct kure_cuda_outputs *o = outputs_of(k);
    free_tables(k);
    free(o->layers);
    free(o->first);
    free(o->count);
    free(o->known);
    free(o->raw);
}

/* ---- once an update ------------------------------------------------------------------ */

static void set_quantizer(struct kure_network *k, int i, int place)
{
    struct kure_cuda_outputs *o = outputs_of(k);
    const struct kure_activation_quantizer *a = quantizer_of(k, i, place);
    const layer *l = &k->net->layers[i];
    float *x = place == AFTER && k->simulation->layers[i].activation != LINEAR ? o->activated : o->raw[i];
    const struct kure_noise noise = kure_simulate_noise(k, k->simulation->update, i, place == AFTER ? USE_AFTER : USE_BEFORE);
    for (int g = 0; g < kure_activation_groups(a); ++g) {
        size_t tensor = number_of(i, place) * KURE_MOST_GROUPS + (size_t)g;
        const struct kure_codec codec = kure_codec_of(a->now->group[g].scale, &a->q, &noise);
        struct kure_cuda_arguments *quantize = kure_cuda_batch_arguments(o->batch[OUTPUTS_QUANTIZE]) + tensor;
        struct kure_cuda_arguments *mask = kure_cuda_batch_arguments(o->batch[OUTPUTS_MASK]) + tensor;
        struct kure_cuda_arguments *slope = kure_cuda_batch_arguments(o->batch[OUTPUTS_SLOPE]) + tensor;
        kure_cuda_batch_arguments(o->batch[OUTPUTS_OBSERVE])[tensor].x = quantize->x = x;
        quantize->y = place == AFTER ? l->output_gpu : o->activated;
        quantize->codec = kure_zero_codec(codec);
        mask->x = slope->x = codec.levels.step > 0 ? x : NULL;
        mask->dy = slope->dy = mask->y = l->delta_gpu;
        mask->codec = slope->codec = codec;
    }
}

static void send_all(struct kure_network *k, int i)
{
    struct kure_error error;
    for (int b = 0; b < OUTPUTS_BATCHES; ++b) kure_cuda_check(k, i, kure_cuda_batch_send(outputs_of(k)->batch[b], NULL, &error), &error);
}

void kure_cuda_outputs_refresh(struct kure_network *k)
{
    struct kure_cuda_outputs *o = outputs_of(k);
    kure_cuda_outputs_make(k);
    for (int i = 0; i < k->plan.count; ++i) {
        for (int place = BEFORE; place < PLACES; ++place) {
            if (quantizer_of(k, i, place)) set_quantizer(k, i, place);
        }
    }
    if (input_size(k)) {
        const struct kure_noise noise = kure_simulate_noise(k, k->simulation->update, 0, USE_INPUT);
        struct kure_cuda_arguments *input = kure_cuda_batch_arguments(o->batch[OUTPUTS_QUANTIZE]) + number_of(k->plan.count, BEFORE) * KURE_MOST_GROUPS;
        input->x = k->net->input_gpu;
        input->y = o->input;
        input->codec = kure_zero_codec(kure_codec_of(k->plan.input_scale, &k->plan.input, &noise));
    }
    send_all(k, 0);
}

/* Ranges of the turns that the observer does not have yet. */
static void take_ranges(struct kure_network *k, int i, int place)
{
    struct kure_cuda_outputs *o = outputs_of(k);
    struct kure_activation_quantizer *a = quantizer_of(k, i, place);
    const struct kure_range_keys *keys = kure_cuda_batch_results(o->batch[OUTPUTS_OBSERVE]);
    size_t p = number_of(i, place), all = o->first[PLACES * (size_t)k->plan.count] + o->count[PLACES * (size_t)k->plan.count];
    for (; o->known[p] < k->simulation->cuda->turn; ++o->known[p]) {
        for (size_t c = o->first[p]; c < o->first[p] + o->count[p]; ++c) {
            struct kure_observer *observer = &a->now->group[o->chunks[c].tensor % KURE_MOST_GROUPS].observer;
            if (!kure_observer_add_range(observer, keys[o->known[p] * all + c], o->chunks[c].n)) continue;
            kure_simulation_stop(k, i, &(struct kure_error){"some outputs are not finite"});
        }
    }
}

static void fetch(struct kure_network *k, int i, int batch, int *is_fetched)
{
    struct kure_error error;
    if ((*is_fetched)++) return;
    kure_cuda_check(k, i, kure_cuda_batch_fetch(outputs_of(k)->batch[batch], NULL, &error), &error);
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
    if (kure_codec_of(g->scale, &d->a->q, NULL).levels.step > 0)
        g->descent += kure_learned_step_gradient_of(d->sums, chunks, d->features[group], g->scale, &d->a->q);
    d->sums += chunks;
}

static void take_gradients(struct kure_network *k, int i, int place)
{
    struct kure_cuda_outputs *o = outputs_of(k);
    const layer *l = &o->layers[i];
    size_t p = number_of(i, place), all = o->first[PLACES * (size_t)k->plan.count] + o->count[PLACES * (size_t)k->plan.count];
    size_t outputs = (size_t)l->outputs;
    struct descent d = {.a = quantizer_of(k, i, place), .features = {outputs, outputs}};
    if (d.a->head_rows) {
        d.features[0] = outputs / (size_t)d.a->head_rows * (size_t)d.a->head_boxes;
        d.features[1] = outputs - d.features[0];
    }
    for (size_t turn = 0; turn < k->simulation->cuda->turn; ++turn) {
        d.sums = (const double *)kure_cuda_batch_results(o->batch[OUTPUTS_SLOPE]) + turn * all + o->first[p];
        kure_activation_each_piece(d.a, l, descend_piece, &d);
    }
    d.a->has_gradient = 1;
}

void kure_cuda_outputs_collect(struct kure_network *k)
{
    struct kure_cuda_outputs *o = outputs_of(k);
    int ranges = 0, gradients = 0;
    for (int i = 0; i < k->plan.count; ++i) {
        for (int place = BEFORE; place < PLACES; ++place) {
            const struct kure_activation_quantizer *a = quantizer_of(k, i, place);
            if (!a) continue;
            if (a->method == KURE_METHOD_STE) {
                fetch(k, i, OUTPUTS_OBSERVE, &ranges);
                take_ranges(k, i, place);
            } else if (kure_simulate_is_on(k) && k->simulation->cuda->went_back[i]) {
                fetch(k, i, OUTPUTS_SLOPE, &gradients);
                take_gradients(k, i, place);
            }
            o->known[number_of(i, place)] = 0;
        }
    }
}

/* ---- a minibatch ------------------------------------------------------------------------ */

static void launch(struct kure_network *k, int batch, int i, int place)
{
    struct kure_cuda_outputs *o = outputs_of(k);
    struct kure_error error;
    size_t p = number_of(i, place), turn = batch == OUTPUTS_OBSERVE || batch == OUTPUTS_SLOPE ? k->simulation->cuda->turn - 1 : 0;
    kure_cuda_check(k, i, kure_cuda_batch_launch(o->batch[batch], o->first[p], o->count[p], turn, NULL, &error), &error);
}

/* The first minibatch of all sets the scale from itself. */
static void begin_scale(struct kure_network *k, int i, int place)
{
    struct kure_activation_quantizer *a = quantizer_of(k, i, place);
    struct kure_error error;
    int is_fetched = 0;
    fetch(k, i, OUTPUTS_OBSERVE, &is_fetched);
    outputs_of(k)->known[number_of(i, place)] = k->simulation->cuda->turn - 1;
    take_ranges(k, i, place);
    kure_cuda_check(k, i, kure_activation_refresh(a, &k->simulation->rate, &error), &error);
    set_quantizer(k, i, place);
    send_all(k, i);
}

static void pass_quantizer(struct kure_network *k, int i, int place, float *x, float *y, int n)
{
    struct kure_activation_quantizer *a = quantizer_of(k, i, place);
    if (!kure_activation_ready(a) || a->method == KURE_METHOD_STE) launch(k, OUTPUTS_OBSERVE, i, place);
    if (!kure_activation_ready(a)) begin_scale(k, i, place);
    if (kure_simulate_is_on(k)) launch(k, OUTPUTS_QUANTIZE, i, place);
    else copy_gpu(n, x, 1, y, 1);
}

void kure_cuda_outputs_forward(struct kure_network *k, int i, const layer *l)
{
    struct kure_cuda_outputs *o = outputs_of(k);
    int n = l->outputs * l->batch;
    ACTIVATION activation = k->simulation->layers[i].activation;
    float *x = o->raw[i];
    if (activation != LINEAR) {
        if (quantizer_of(k, i, BEFORE)) pass_quantizer(k, i, BEFORE, x, o->activated, n);
        else copy_gpu(n, x, 1, o->activated, 1);
        x = o->activated;
        activate_array_gpu(x, n, activation);
    }
    pass_quantizer(k, i, AFTER, x, l->output_gpu, n);
}

static void mask(struct kure_network *k, int i, int place)
{
    if (quantizer_of(k, i, place)->method == KURE_METHOD_LSQ) launch(k, OUTPUTS_SLOPE, i, place);
    launch(k, OUTPUTS_MASK, i, place);
}

void kure_cuda_outputs_back(struct kure_network *k, int i, const layer *l)
{
    struct kure_cuda_outputs *o = outputs_of(k);
    int n = l->outputs * l->batch;
    ACTIVATION activation = k->simulation->layers[i].activation;
    if (!kure_simulate_is_on(k)) {
        gradient_array_gpu(l->output_gpu, n, activation, l->delta_gpu);
        return;
    }
    if (activation != LINEAR) {
        if (quantizer_of(k, i, BEFORE)) launch(k, OUTPUTS_QUANTIZE, i, BEFORE);
        else copy_gpu(n, o->raw[i], 1, o->activated, 1);
        activate_array_gpu(o->activated, n, activation);
    }
    mask(k, i, AFTER);
    if (activation == LINEAR) return;
    gradient_array_gpu(o->activated, n, activation, l->delta_gpu);
    if (quantizer_of(k, i, BEFORE)) mask(k, i, BEFORE);
}

float *kure_cuda_outputs_input(struct kure_network *k)
{
    launch(k, OUTPUTS_QUANTIZE, k->plan.count, BEFORE);
    return outputs_of(k)->input;
}
#endif
