/* simulate_cuda_weights.c: the quantized twins of the weights on a GPU; see simulate_cuda.h. */
#include "simulate_cuda_parts.h"

#ifdef GPU
#include <stdlib.h>

#include "chunks.h"
#include "policy.h"
#include "quantize_parts.h"

static const enum kure_cuda_op ops[WEIGHTS_BATCHES] = {
    [WEIGHTS_FOLD] = KURE_CUDA_multiply, [WEIGHTS_RANGE] = KURE_CUDA_range, [WEIGHTS_QUANTIZE] = KURE_CUDA_fake_quantize,
    [WEIGHTS_KEEP] = KURE_CUDA_multiply, [WEIGHTS_UNFOLD] = KURE_CUDA_divide, [WEIGHTS_MASK] = KURE_CUDA_ste_backward,
    [WEIGHTS_SLOPE] = KURE_CUDA_step_gradient,
};

static struct kure_weight_quantizer *quantizer_of(const struct kure_network *k, int i)
{
    return &k->simulation->layers[i].weights;
}

static struct kure_cuda_weights *weights_of(const struct kure_network *k)
{
    return &k->simulation->cuda->weights;
}

static struct kure_cuda_arguments *arguments_of(const struct kure_network *k, int batch, int i)
{
    return kure_cuda_batch_arguments(weights_of(k)->batch[batch]) + weights_of(k)->first_row[i];
}

/* Chunks of layer i's rows, cut as the CPU cuts a row. */
static size_t chunk_count(const struct kure_network *k, int i)
{
    const struct kure_weight_quantizer *q = quantizer_of(k, i);
    return q->q.bits ? q->rows * kure_chunk_count(q->row_length) : 0;
}

static size_t list_chunks(const struct kure_weight_quantizer *q, size_t first_row, struct kure_cuda_chunk *chunks)
{
    size_t n = 0, size = kure_chunk_size(q->row_length);
    for (size_t r = 0; r < q->rows; ++r) {
        for (size_t c = 0; c < kure_chunk_count(q->row_length); ++c) {
            chunks[n++] = (struct kure_cuda_chunk){(uint32_t)(first_row + r), c * size, kure_chunk_length(q->row_length, c)};
        }
    }
    return n;
}

void kure_cuda_weights_make(struct kure_network *k)
{
    struct kure_cuda_weights *w = weights_of(k);
    size_t n = (size_t)k->plan.count, rows = 0, chunks = 0, largest = 1, most_rows = 1;
    struct kure_error error;
    w->first_row = calloc(n, sizeof *w->first_row);
    w->first_chunk = calloc(n, sizeof *w->first_chunk);
    w->values = calloc(n, sizeof *w->values);
    w->folded = calloc(n, sizeof *w->folded);
    if (!w->first_row || !w->first_chunk || !w->values || !w->folded) kure_stop(&(struct kure_error){"not enough memory for [quantization]"});
    for (int i = 0; i < k->plan.count; ++i) {
        const struct kure_weight_quantizer *q = quantizer_of(k, i);
        w->first_row[i] = rows;
        w->first_chunk[i] = chunks;
        if (!q->q.bits) continue;
        rows += q->rows;
        chunks += chunk_count(k, i);
        if (q->rows > most_rows) most_rows = q->rows;
        if (q->rows * q->row_length > largest) largest = q->rows * q->row_length;
        w->values[i] = cuda_make_array(NULL, q->rows * q->row_length);
        if (q->fold) w->folded[i] = cuda_make_array(NULL, q->rows * q->row_length);
    }
    w->room = cuda_make_array(NULL, largest);
    w->ranges = calloc(most_rows, sizeof *w->ranges);
    struct kure_cuda_chunk *list = calloc(chunks + 1, sizeof *list);
    if (!list || !w->ranges) kure_stop(&(struct kure_error){"not enough memory for [quantization]"});
    for (int i = 0; i < k->plan.count; ++i) {
        if (quantizer_of(k, i)->q.bits) list_chunks(quantizer_of(k, i), w->first_row[i], list + w->first_chunk[i]);
    }
    for (int b = 0; b < WEIGHTS_BATCHES; ++b) {
        size_t turns = b == WEIGHTS_SLOPE ? k->simulation->cuda->turns : 1;
        enum kure_status status = kure_cuda_batch_make_turns(&w->batch[b], ops[b], list, chunks, rows, turns, "[quantization]", &error);
        if (status != KURE_OK) kure_cuda_check(k, 0, status, &error);
    }
    free(list);
}

void kure_cuda_weights_free(struct kure_network *k)
{
    struct kure_cuda_weights *w = weights_of(k);
    for (int b = 0; b < WEIGHTS_BATCHES; ++b) kure_cuda_batch_free(w->batch[b]);
    for (int i = 0; w->values && w->folded && i < k->plan.count; ++i) {
        cuda_free(w->values[i]);
        cuda_free(w->folded[i]);
    }
    cuda_free(w->room);
    free(w->ranges);
    free(w->values);
    free(w->folded);
    free(w->first_row);
    free(w->first_chunk);
}

/* ---- once an update ------------------------------------------------------------ */

static void run(struct kure_network *k, int batch, int what)
{
    struct kure_error error;
    kure_cuda_check(k, 0, kure_cuda_batch_run(weights_of(k)->batch[batch], what, NULL, &error), &error);
}

/* The row as its quantizer sees it, on the GPU. */
static float *seen_of(const struct kure_network *k, int i, size_t row)
{
    const struct kure_weight_quantizer *q = quantizer_of(k, i);
    if (q->fold) return weights_of(k)->folded[i] + q->place[row] * q->row_length;
    return k->net->layers[i].weights_gpu + row * q->row_length;
}

static void find_factors(struct kure_network *k, int i)
{
    layer *l = &k->net->layers[i];
    struct kure_weight_quantizer *q = quantizer_of(k, i);
    if (q->fold) {
        cuda_pull_array(l->scales_gpu, l->scales, q->rows);
        cuda_pull_array(l->rolling_variance_gpu, l->rolling_variance, q->rows);
    }
    struct kure_tensor t = kure_tensor_of(l, NULL);
    kure_weights_find_factors(q, &t);
}

static void fold_weights(struct kure_network *k)
{
    int some = 0;
    for (int i = 0; i < k->plan.count; ++i) {
        struct kure_weight_quantizer *q = quantizer_of(k, i);
        struct kure_cuda_arguments *fold = arguments_of(k, WEIGHTS_FOLD, i);
        if (!q->q.bits) continue;
        find_factors(k, i);
        some |= q->fold;
        for (size_t r = 0; q->fold && r < q->rows; ++r) {
            fold[r].x = q->factors[r] != 0 ? k->net->layers[i].weights_gpu + r * q->row_length : NULL;
            fold[r].y = seen_of(k, i, r);
            fold[r].factor = q->factors[r];
        }
    }
    if (some) run(k, WEIGHTS_FOLD, KURE_CUDA_SEND);
}

static int wants_scales(const struct kure_network *k, int i)
{
    const struct kure_weight_quantizer *q = quantizer_of(k, i);
    return q->q.bits && kure_weights_wants_scales(q, k->simulation->update, (int)k->plan.quantization.every);
}

/* A policy that needs more than the range, or a sentence on weights that are not finite: on the CPU, from a copy. */
static void rescale_on_cpu(struct kure_network *k, int i)
{
    struct kure_error error;
    layer *l = &k->net->layers[i];
    struct kure_weight_quantizer *q = quantizer_of(k, i);
    cuda_pull_array(l->weights_gpu, l->weights, q->rows * q->row_length);
    struct kure_tensor t = kure_tensor_of(l, k->simulation->room);
    enum kure_status status = kure_weights_rescale(q, &t, k->simulation->update, (int)k->plan.quantization.every, &k->simulation->rate, &error);
    kure_cuda_check(k, i, status, &error);
}

static void rescale_by_ranges(struct kure_network *k, int i)
{
    struct kure_cuda_weights *w = weights_of(k);
    struct kure_weight_quantizer *q = quantizer_of(k, i);
    const struct kure_range_keys *keys = (const struct kure_range_keys *)kure_cuda_batch_results(w->batch[WEIGHTS_RANGE]) + w->first_chunk[i];
    struct kure_error error;
    size_t chunks = kure_chunk_count(q->row_length);
    for (size_t r = 0; r < q->rows; ++r, keys += chunks) {
        struct kure_range_keys all = keys[0];
        for (size_t c = 1; c < chunks; ++c) {
            all.min = keys[c].min < all.min ? keys[c].min : all.min;
            all.max = keys[c].max > all.max ? keys[c].max : all.max;
        }
        w->ranges[r] = all;
    }
    if (kure_weights_scales_of_ranges(q, w->ranges, &error) != KURE_OK) rescale_on_cpu(k, i);
}

static void find_scales(struct kure_network *k)
{
    int some = 0;
    for (int i = 0; i < k->plan.count; ++i) {
        struct kure_weight_quantizer *q = quantizer_of(k, i);
        struct kure_cuda_arguments *range = arguments_of(k, WEIGHTS_RANGE, i);
        int by_range = wants_scales(k, i) && kure_policy_needs(q->q.truncation) == KURE_NEEDS_RANGE;
        some |= by_range;
        for (size_t r = 0; q->q.bits && r < q->rows; ++r) range[r].x = by_range && q->factors[r] != 0 ? seen_of(k, i, r) : NULL;
    }
    if (some) run(k, WEIGHTS_RANGE, KURE_CUDA_SEND | KURE_CUDA_FETCH);
    for (int i = 0; i < k->plan.count; ++i) {
        if (!wants_scales(k, i)) continue;
        if (kure_policy_needs(quantizer_of(k, i)->q.truncation) == KURE_NEEDS_RANGE) rescale_by_ranges(k, i);
        else rescale_on_cpu(k, i);
    }
}

/* What is done to a row, by its scale: quantized, or where its factor is 0 kept. */
static void set_row(struct kure_network *k, int i, size_t r)
{
    struct kure_cuda_weights *w = weights_of(k);
    const struct kure_weight_quantizer *q = quantizer_of(k, i);
    const struct kure_codec codec = kure_weights_codec(q, r);
    struct kure_cuda_arguments *quantize = arguments_of(k, WEIGHTS_QUANTIZE, i) + r, *keep = arguments_of(k, WEIGHTS_KEEP, i) + r;
    struct kure_cuda_arguments *unfold = arguments_of(k, WEIGHTS_UNFOLD, i) + r, *mask = arguments_of(k, WEIGHTS_MASK, i) + r;
    struct kure_cuda_arguments *slope = arguments_of(k, WEIGHTS_SLOPE, i) + r;
    int quantized = q->factors[r] != 0, learns = quantized && codec.levels.step > 0;
    quantize->x = quantized ? seen_of(k, i, r) : NULL;
    quantize->codec = kure_zero_codec(codec);
    quantize->y = keep->y = unfold->y = w->values[i] + r * q->row_length;
    keep->x = quantized ? NULL : k->net->layers[i].weights_gpu + r * q->row_length;
    keep->factor = 1;
    unfold->x = quantized && q->fold ? unfold->y : NULL;
    unfold->factor = q->factors[r];
    mask->x = slope->x = learns ? quantize->x : NULL;
    mask->dy = slope->dy = mask->y = w->room + r * q->row_length;
    mask->codec = slope->codec = codec;
}

void kure_cuda_weights_refresh(struct kure_network *k)
{
    int some = 0, keeps = 0, folds = 0, clips = 0;
    fold_weights(k);
    find_scales(k);
    for (int i = 0; i < k->plan.count; ++i) {
        struct kure_weight_quantizer *q = quantizer_of(k, i);
        if (!q->q.bits) continue;
        q->noise = kure_simulate_noise(k, k->simulation->update, i, USE_WEIGHTS);
        for (size_t r = 0; r < q->rows; ++r) {
            set_row(k, i, r);
            keeps |= q->factors[r] == 0;
        }
        some = 1;
        folds |= q->fold;
        clips |= kure_weights_clip(q);
    }
    if (some) run(k, WEIGHTS_QUANTIZE, KURE_CUDA_SEND);
    if (keeps) run(k, WEIGHTS_KEEP, KURE_CUDA_SEND);
    if (folds) run(k, WEIGHTS_UNFOLD, KURE_CUDA_SEND);
    for (int b = WEIGHTS_MASK; clips && b <= WEIGHTS_SLOPE; ++b) {
        struct kure_error error;
        kure_cuda_check(k, 0, kure_cuda_batch_send(weights_of(k)->batch[b], NULL, &error), &error);
    }
}

/* ---- gradients ------------------------------------------------------------------ */

void kure_cuda_weights_back(struct kure_network *k, int i, const layer *l)
{
    struct kure_cuda_weights *w = weights_of(k);
    const struct kure_weight_quantizer *q = quantizer_of(k, i);
    struct kure_error error;
    size_t first = w->first_chunk[i], count = chunk_count(k, i), turn = k->simulation->cuda->turn - 1;
    if (q->method == KURE_METHOD_LSQ) {
        kure_cuda_check(k, i, kure_cuda_batch_launch(w->batch[WEIGHTS_SLOPE], first, count, turn, NULL, &error), &error);
    }
    kure_cuda_check(k, i, kure_cuda_batch_launch(w->batch[WEIGHTS_MASK], first, count, 0, NULL, &error), &error);
    axpy_gpu((int)(q->rows * q->row_length), 1, w->room, 1, l->weight_updates_gpu, 1);
}

static void collect_layer(struct kure_network *k, int i)
{
    struct kure_cuda_weights *w = weights_of(k);
    struct kure_weight_quantizer *q = quantizer_of(k, i);
    const struct kure_cuda_arguments *slope = arguments_of(k, WEIGHTS_SLOPE, i);
    const double *sums = kure_cuda_batch_results(w->batch[WEIGHTS_SLOPE]);
    size_t chunks = kure_chunk_count(q->row_length), all = 0;
    for (int j = 0; j < k->plan.count; ++j) all += chunk_count(k, j);
    for (size_t turn = 0; turn < k->simulation->cuda->turn; ++turn) {
        for (size_t r = 0; r < q->rows; ++r) {
            if (slope[r].x) kure_weights_add_descent(q, r, sums + turn * all + w->first_chunk[i] + r * chunks);
        }
    }
    q->has_gradient = 1;
}

void kure_cuda_weights_collect(struct kure_network *k)
{
    struct kure_error error;
    int fetched = 0;
    for (int i = 0; i < k->plan.count; ++i) {
        const struct kure_weight_quantizer *q = quantizer_of(k, i);
        if (!q->q.bits || q->method != KURE_METHOD_LSQ || !k->simulation->cuda->went_back[i]) continue;
        if (!fetched++) kure_cuda_check(k, i, kure_cuda_batch_fetch(weights_of(k)->batch[WEIGHTS_SLOPE], NULL, &error), &error);
        collect_layer(k, i);
    }
}
#endif
