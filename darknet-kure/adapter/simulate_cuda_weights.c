/* simulate_cuda_weights.c: the quantized twins of the weights on a GPU; see simulate_cuda.h. */
#include "simulate_cuda_parts.h"

#ifdef GPU
#include <stdlib.h>

#include "chunks.h"
#include "policy.h"
#include "quantize_parts.h"

static struct kure_weight_quantizer *quantizer_of(const struct kure_network *k, int i)
{
    return &k->simulation->layers[i].weights;
}

static struct kure_cuda_weights *weights_of(const struct kure_network *k)
{
    return &k->simulation->cuda->weights;
}

static size_t weight_count(const struct kure_weight_quantizer *q)
{
    return q->rows * q->row_length;
}

/* dorefa's quantizer works on a tensor, the others on rows. */
static int is_dorefa(const struct kure_network *k, int i)
{
    return quantizer_of(k, i)->q.bits && quantizer_of(k, i)->method == KURE_METHOD_DOREFA;
}

static int has_rows(const struct kure_network *k, int i)
{
    return quantizer_of(k, i)->q.bits && !is_dorefa(k, i);
}

/* Rows whose batch norm is folded. */
static size_t folds(const struct kure_network *k, int i)
{
    return quantizer_of(k, i)->q.bits && quantizer_of(k, i)->fold ? quantizer_of(k, i)->rows : 0;
}

/* The same where it is to be frozen sooner or later. */
static size_t freezes(const struct kure_network *k, int i)
{
    return k->plan.quantization.batchnorm == KURE_BATCHNORM_FREEZE ? folds(k, i) : 0;
}

/* Turns that ROWS_BACK_SUMS keeps. */
static size_t sum_turns(const struct kure_network *k)
{
    size_t turns = 0;
    for (int i = 0; i < k->plan.count; ++i) {
        if (has_rows(k, i) && quantizer_of(k, i)->method == KURE_METHOD_LSQ) return k->simulation->cuda->turns;
        if (freezes(k, i)) turns = 1;
    }
    return turns;
}

/* ---- memory and tables ----------------------------------------------------------- */

void kure_cuda_weights_make(struct kure_network *k)
{
    struct kure_cuda_weights *w = weights_of(k);
    size_t n = (size_t)k->plan.count, largest = 1, most_rows = 1;
    w->first_row = kure_cuda_table(n, sizeof *w->first_row);
    w->rows = kure_cuda_table(n, sizeof *w->rows);
    w->biases = kure_cuda_table(n, sizeof *w->biases);
    w->norms = kure_cuda_table(n, sizeof *w->norms);
    w->dorefa = kure_cuda_table(n, sizeof *w->dorefa);
    w->gathered = kure_cuda_table(n, sizeof *w->gathered);
    w->values = kure_cuda_table(n, sizeof *w->values);
    w->frozen = kure_cuda_table(n, sizeof *w->frozen);
    w->sum_turns = sum_turns(k);
    for (int i = 0; i < k->plan.count; ++i) {
        const struct kure_weight_quantizer *q = quantizer_of(k, i);
        if (!q->q.bits) continue;
        if (q->rows > most_rows) most_rows = q->rows;
        if (weight_count(q) > largest) largest = weight_count(q);
        w->values[i] = cuda_make_array(NULL, weight_count(q));
        if (freezes(k, i)) w->frozen[i] = cuda_make_array(NULL, q->rows);
    }
    w->room = cuda_make_array(NULL, largest);
    w->bias_room = cuda_make_array(NULL, most_rows);
    w->ranges = kure_cuda_table(most_rows, sizeof *w->ranges);
}

static void list_gathered(struct kure_cuda_listing *list, size_t n)
{
    for (size_t at = 0; at < n; at += KURE_GATHERED, ++list->count) {
        if (!list->chunks) continue;
        list->chunks[list->count] = (struct kure_cuda_chunk){(uint32_t)list->tensors, at, n - at < KURE_GATHERED ? n - at : KURE_GATHERED};
    }
    ++list->tensors;
}

static void list_rows(struct kure_network *k, int i, struct kure_cuda_listing *list)
{
    const struct kure_weight_quantizer *q = quantizer_of(k, i);
    weights_of(k)->first_row[i] = list->tensors;
    for (size_t r = 0; has_rows(k, i) && r < q->rows; ++r) kure_cuda_list(list, q->row_length);
}

void kure_cuda_weights_list(struct kure_network *k, int batch, struct kure_cuda_listing *list)
{
    struct kure_cuda_weights *w = weights_of(k);
    struct kure_cuda_span *spans = batch == ROWS_RANGE      ? w->rows
                                   : batch == DOREFA_RANGE ? w->dorefa
                                   : batch == NORM_BIASES  ? w->biases
                                   : batch == NORM_BACK    ? w->norms
                                                           : w->gathered;
    for (int i = 0; i < k->plan.count; ++i) {
        spans[i].first = list->count;
        if (batch == ROWS_RANGE) list_rows(k, i, list);
        if (batch == DOREFA_RANGE) kure_cuda_list(list, is_dorefa(k, i) ? weight_count(quantizer_of(k, i)) : 0);
        if (batch == NORM_BIASES) kure_cuda_list(list, freezes(k, i));
        for (size_t turn = 0; batch == NORM_BACK && turn < w->sum_turns; ++turn) kure_cuda_list(list, freezes(k, i));
        if (batch == GATHER) list_gathered(list, folds(k, i)), list_gathered(list, folds(k, i));
        spans[i].count = list->count - spans[i].first;
    }
}

static void set_rows(struct kure_network *k, int i)
{
    const struct kure_cuda_weights *w = weights_of(k);
    const struct kure_weight_quantizer *q = quantizer_of(k, i);
    const layer *l = &k->net->layers[i];
    struct kure_cuda_arguments *a = kure_cuda_arguments_of(k, ROWS_RANGE) + w->first_row[i];
    for (size_t r = 0; r < q->rows; ++r) {
        size_t at = r * q->row_length;
        a[r] = (struct kure_cuda_arguments){.x = l->weights_gpu + at, .y = w->values[i] + at, .dy = w->room + at, .dx = l->weight_updates_gpu + at};
    }
}

static void set_dorefa(struct kure_network *k, int i)
{
    const struct kure_cuda_weights *w = weights_of(k);
    const struct kure_dorefa_sums *sums = kure_cuda_batch_results_there(k->simulation->cuda->batch[DOREFA_SUMS]);
    struct kure_cuda_arguments *a = kure_cuda_arguments_of(k, DOREFA_RANGE) + i;
    *a = (struct kure_cuda_arguments){.x = k->net->layers[i].weights_gpu, .y = w->values[i], .dy = w->room, .dx = w->room};
    a->dorefa.sums = sums + w->dorefa[i].first;
    a->dorefa.chunks = w->dorefa[i].count;
}

/* Chunks of a turn of the rows. */
static size_t all_chunks(const struct kure_network *k)
{
    const struct kure_cuda_span *last = &weights_of(k)->rows[k->plan.count - 1];
    return last->first + last->count;
}

static void set_batchnorm(struct kure_network *k, int i)
{
    const struct kure_cuda_weights *w = weights_of(k);
    const layer *l = &k->net->layers[i];
    const struct kure_fold_sums *sums = kure_cuda_batch_results_there(k->simulation->cuda->batch[ROWS_BACK_SUMS]);
    struct kure_cuda_arguments a = {.x = l->scales_gpu, .y = w->frozen[i]};
    a.batchnorm = (struct kure_folded_norm){.gamma = l->scales_gpu, .beta = l->biases_gpu, .mean = l->rolling_mean_gpu,
                                          .variance = l->rolling_variance_gpu, .bias_gradient = w->bias_room, .gamma_updates = l->scale_updates_gpu,
                                          .chunks = kure_chunk_count(quantizer_of(k, i)->row_length)};
    kure_cuda_arguments_of(k, NORM_BIASES)[i] = a;
    for (size_t turn = 0; turn < w->sum_turns; ++turn) {
        a.batchnorm.sums = sums + turn * all_chunks(k) + w->rows[i].first;
        kure_cuda_arguments_of(k, NORM_BACK)[(size_t)i * w->sum_turns + turn] = a;
    }
}

void kure_cuda_weights_set(struct kure_network *k)
{
    for (int i = 0; i < k->plan.count; ++i) {
        const layer *l = &k->net->layers[i];
        if (has_rows(k, i)) set_rows(k, i);
        if (is_dorefa(k, i)) set_dorefa(k, i);
        if (freezes(k, i)) set_batchnorm(k, i);
        if (!folds(k, i)) continue;
        kure_cuda_arguments_of(k, GATHER)[2 * i].x = l->scales_gpu;
        kure_cuda_arguments_of(k, GATHER)[2 * i + 1].x = l->rolling_variance_gpu;
    }
}

void kure_cuda_weights_free(struct kure_network *k)
{
    struct kure_cuda_weights *w = weights_of(k);
    for (int i = 0; i < k->plan.count; ++i) {
        cuda_free(w->values[i]);
        cuda_free(w->frozen[i]);
    }
    cuda_free(w->room);
    cuda_free(w->bias_room);
    free(w->ranges);
    free(w->values);
    free(w->frozen);
    free(w->biases);
    free(w->first_row);
    free(w->rows);
    free(w->norms);
    free(w->dorefa);
    free(w->gathered);
}

/* ---- once an update ------------------------------------------------------------ */

/* All layers of a batch. */
static void launch_all(struct kure_network *k, int batch, const struct kure_cuda_span *spans)
{
    const struct kure_cuda_span *last = &spans[k->plan.count - 1];
    kure_cuda_launch(k, batch, 0, (struct kure_cuda_span){0, last->first + last->count}, 0);
}

void kure_cuda_weights_look(struct kure_network *k)
{
    launch_all(k, ROWS_RANGE, weights_of(k)->rows);
    launch_all(k, DOREFA_RANGE, weights_of(k)->dorefa);
    launch_all(k, GATHER, weights_of(k)->gathered);
}

/* gamma and variance, as they have come, to Darknet's arrays on the CPU */
static struct kure_tensor tensor_of(struct kure_network *k, int i)
{
    const struct kure_cuda_weights *w = weights_of(k);
    const struct kure_gathered *gathered = kure_cuda_batch_results(k->simulation->cuda->batch[GATHER]);
    layer *l = &k->net->layers[i];
    const struct kure_gathered *gamma = gathered + w->gathered[i].first, *variance = gamma + w->gathered[i].count / 2;
    for (size_t r = 0; r < folds(k, i); ++r) {
        l->scales[r] = gamma[r / KURE_GATHERED].value[r % KURE_GATHERED];
        l->rolling_variance[r] = variance[r / KURE_GATHERED].value[r % KURE_GATHERED];
    }
    return kure_tensor_of(l, k->simulation->room);
}

/* The range of a row, or of a tensor of dorefa, from those of its chunks. */
static struct kure_range_keys range_of(const struct kure_range_keys *keys, size_t chunks)
{
    struct kure_range_keys all = keys[0];
    for (size_t c = 1; c < chunks; ++c) {
        all.min = keys[c].min < all.min ? keys[c].min : all.min;
        all.max = keys[c].max > all.max ? keys[c].max : all.max;
    }
    return all;
}

/* The range of x * factor: rounding keeps the order. Values that are not finite stay so. */
static struct kure_range_keys folded_range(struct kure_range_keys range, float factor)
{
    int32_t a = kure_order(kure_flush_result(kure_flush(kure_unorder(range.min)) * factor));
    int32_t b = kure_order(kure_flush_result(kure_flush(kure_unorder(range.max)) * factor));
    return (struct kure_range_keys){a < b ? a : b, a < b ? b : a};
}

/* A policy that needs more than the range, or a sentence on weights that are not finite: on the CPU, from a copy. */
static void rescale_on_cpu(struct kure_network *k, int i, const struct kure_tensor *t)
{
    struct kure_error error;
    layer *l = &k->net->layers[i];
    struct kure_weight_quantizer *q = quantizer_of(k, i);
    cuda_pull_array(l->weights_gpu, l->weights, weight_count(q));
    enum kure_status status = kure_weights_rescale(q, t, k->simulation->update, (int)k->plan.quantization.every, &k->simulation->rate, &error);
    kure_cuda_check(k, i, status, &error);
}

static void find_scales(struct kure_network *k, int i, const struct kure_tensor *t)
{
    struct kure_cuda_weights *w = weights_of(k);
    struct kure_weight_quantizer *q = quantizer_of(k, i);
    const struct kure_range_keys *keys = (const struct kure_range_keys *)kure_cuda_batch_results(k->simulation->cuda->batch[ROWS_RANGE]) + w->rows[i].first;
    struct kure_error error;
    size_t chunks = kure_chunk_count(q->row_length);
    if (!kure_weights_wants_scales(q, k->simulation->update, (int)k->plan.quantization.every)) return;
    for (size_t r = 0; r < q->rows; ++r) w->ranges[r] = folded_range(range_of(keys + r * chunks, chunks), q->factors[r]);
    if (kure_policy_needs(q->q.truncation) == KURE_NEEDS_RANGE && kure_weights_scales_of_ranges(q, w->ranges, &error) == KURE_OK) return;
    rescale_on_cpu(k, i, t);
}

static void refresh_rows(struct kure_network *k, int i)
{
    struct kure_cuda_weights *w = weights_of(k);
    struct kure_weight_quantizer *q = quantizer_of(k, i);
    struct kure_tensor t = tensor_of(k, i);
    kure_weights_find_factors(q, &t);
    find_scales(k, i, &t);
    for (size_t r = 0; r < q->rows; ++r) {
        kure_cuda_arguments_of(k, ROWS_RANGE)[w->first_row[i] + r].fold = kure_weights_codec(q, r);
    }
}

static void refresh_dorefa(struct kure_network *k, int i)
{
    struct kure_cuda_weights *w = weights_of(k);
    const struct kure_weight_quantizer *q = quantizer_of(k, i);
    const struct kure_range_keys *keys = kure_cuda_batch_results(k->simulation->cuda->batch[DOREFA_RANGE]);
    struct kure_cuda_arguments *a = kure_cuda_arguments_of(k, DOREFA_RANGE) + i;
    a->dorefa.constants = kure_dorefa_constants(range_of(keys + w->dorefa[i].first, w->dorefa[i].count), q->q.bits);
    a->dorefa.rounding = q->q.rounding;
    a->dorefa.noise = q->noise;
}

void kure_cuda_weights_refresh(struct kure_network *k)
{
    for (int i = 0; i < k->plan.count; ++i) {
        struct kure_weight_quantizer *q = quantizer_of(k, i);
        if (!q->q.bits) continue;
        q->noise = kure_simulate_noise(k, k->simulation->update, i, USE_WEIGHTS);
        q->frozen = kure_simulate_is_frozen(k, i);
        if (is_dorefa(k, i)) refresh_dorefa(k, i);
        else refresh_rows(k, i);
    }
}

void kure_cuda_weights_quantize(struct kure_network *k)
{
    launch_all(k, ROWS_QUANTIZE, weights_of(k)->rows);
    launch_all(k, DOREFA_QUANTIZE, weights_of(k)->dorefa);
    if (k->plan.quantization.batchnorm == KURE_BATCHNORM_FREEZE) launch_all(k, NORM_BIASES, weights_of(k)->biases);
}

/* ---- gradients ------------------------------------------------------------------ */

/* Learned steps and gamma want sums. */
static int wants_sums(const struct kure_weight_quantizer *q)
{
    return q->method == KURE_METHOD_LSQ || q->frozen;
}

void kure_cuda_weights_back(struct kure_network *k, int i, const layer *l)
{
    struct kure_cuda_weights *w = weights_of(k);
    const struct kure_weight_quantizer *q = quantizer_of(k, i);
    if (is_dorefa(k, i)) {
        kure_cuda_launch(k, DOREFA_SUMS, i, w->dorefa[i], 0);
        kure_cuda_launch(k, DOREFA_BACK, i, w->dorefa[i], 0);
        axpy_gpu((int)weight_count(q), 1, w->room, 1, l->weight_updates_gpu, 1);
        return;
    }
    if (!wants_sums(q)) {
        kure_cuda_launch(k, ROWS_BACK, i, w->rows[i], 0);
        return;
    }
    size_t turn = (k->simulation->cuda->turn - 1) % w->sum_turns, norms = w->norms[i].count / w->sum_turns;
    kure_cuda_launch(k, ROWS_BACK_SUMS, i, w->rows[i], turn);
    if (!q->frozen) return;
    kure_cuda_launch(k, NORM_BACK, i, (struct kure_cuda_span){w->norms[i].first + turn * norms, norms}, 0);
    axpy_gpu((int)q->rows, 1, w->bias_room, 1, l->bias_updates_gpu, 1);
}

static void collect_layer(struct kure_network *k, int i)
{
    struct kure_cuda_weights *w = weights_of(k);
    struct kure_weight_quantizer *q = quantizer_of(k, i);
    const struct kure_fold_sums *sums = kure_cuda_batch_results(k->simulation->cuda->batch[ROWS_BACK_SUMS]);
    size_t chunks = kure_chunk_count(q->row_length), all = all_chunks(k);
    for (size_t turn = 0; turn < k->simulation->cuda->turn; ++turn) {
        for (size_t r = 0; r < q->rows; ++r) kure_weights_add_descent(q, r, sums + turn * all + w->rows[i].first + r * chunks);
    }
    q->has_gradient = 1;
}

void kure_cuda_weights_collect(struct kure_network *k)
{
    for (int i = 0; i < k->plan.count; ++i) {
        if (has_rows(k, i) && quantizer_of(k, i)->method == KURE_METHOD_LSQ && k->simulation->cuda->went_back[i]) collect_layer(k, i);
    }
}
#endif
