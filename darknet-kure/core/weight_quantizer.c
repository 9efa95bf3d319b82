/* weight_quantizer.c: see weight_quantizer.h. Tested by tests/test_quantization.py. */
#include "weight_quantizer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../backend/backend.h"
#include "chunks.h"
#include "error.h"
#include "fold.h"
#include "policy.h"
#include "quantize_parts.h"

enum kure_status kure_weights_init(struct kure_weight_quantizer *w, const struct kure_quantizer *q, size_t rows,
                                   size_t row_length, int fold, struct kure_error *error)
{
    *w = (struct kure_weight_quantizer){.q = *q, .rows = rows, .row_length = row_length, .fold = fold};
    w->values = malloc(rows * row_length * sizeof *w->values);
    w->scales = calloc(rows, sizeof *w->scales);
    w->factors = calloc(rows, sizeof *w->factors);
    w->gains = calloc(rows, sizeof *w->gains);
    w->place = calloc(rows, sizeof *w->place);
    struct kure_error slot;
    enum kure_status status = kure_weights_add_slot(w, q->bits, &slot);
    w->descent = calloc(rows, sizeof *w->descent);
    w->biases = calloc(rows, sizeof *w->biases);
    w->bias_gradient = calloc(rows, sizeof *w->bias_gradient);
    if (w->values && w->scales && w->factors && w->gains && w->place && w->descent && w->biases && w->bias_gradient && status == KURE_OK) return KURE_OK;
    kure_weights_free(w);
    return kure_fail_memory(error);
}

void kure_weights_free(struct kure_weight_quantizer *w)
{
    free(w->values);
    free(w->scales);
    free(w->factors);
    free(w->gains);
    free(w->place);
    free(w->states);
    free(w->slot_bits);
    free(w->descent);
    free(w->biases);
    free(w->bias_gradient);
    memset(w, 0, sizeof *w);
}

static int is_learned(const struct kure_weight_quantizer *w)
{
    return w->method == KURE_METHOD_LSQ;
}

enum kure_status kure_weights_add_slot(struct kure_weight_quantizer *w, int bits, struct kure_error *error)
{
    for (int i = 0; i < w->slots; ++i) {
        if (w->slot_bits[i] == bits) return KURE_OK;
    }
    size_t n = (size_t)w->slots + 1;
    struct kure_learned_parameter *states = realloc(w->states, n * w->rows * sizeof *states);
    if (states) w->states = w->state = states;
    int *slot_bits = realloc(w->slot_bits, n * sizeof *slot_bits);
    if (slot_bits) w->slot_bits = slot_bits;
    if (!states || !slot_bits) return kure_fail_memory(error);
    memset(states + (n - 1) * w->rows, 0, w->rows * sizeof *states);
    slot_bits[w->slots++] = bits;
    return KURE_OK;
}

void kure_weights_select(struct kure_weight_quantizer *w, const struct kure_quantizer *q)
{
    w->q = *q;
    w->has_scales = 0;
    if (!is_learned(w)) return; /* its scales are found anew */
    for (int i = 0; i < w->slots; ++i) {
        if (w->slot_bits[i] == q->bits) w->state = w->states + (size_t)i * w->rows;
    }
    if (w->state[0].least > 0) kure_weights_restore(w);
}

static int by_row(const struct kure_weight_quantizer *w)
{
    return w->q.granularity == KURE_GRANULARITY_CHANNEL;
}

void kure_weights_find_factors(struct kure_weight_quantizer *w, const struct kure_tensor *t)
{
    float largest = 0;
    for (size_t c = 0; c < w->rows; ++c) {
        w->factors[c] = w->fold ? kure_fold_factor(t->gamma[c], t->variance[c]) : 1;
        w->gains[c] = w->frozen ? w->factors[c] : 1;
        largest = fmaxf(largest, fabsf(w->factors[c]));
    }
    for (size_t c = 0, at = 0; c < w->rows; ++c) {
        if (fabsf(w->factors[c]) < 0x1p-40f * largest) w->factors[c] = 0;
        w->place[c] = at;
        at += w->factors[c] != 0;
    }
}

/* The rows as the quantizer sees them, one behind the other in `out`, without those
 * that stay float; returns their number. */
static size_t gather(const struct kure_weight_quantizer *w, const struct kure_tensor *t, float *out)
{
    size_t n = 0, k = w->row_length;
    for (size_t c = 0; c < w->rows; ++c) {
        if (w->factors[c] != 0) kure_cpu()->multiply(t->weights + c * k, out + n++ * k, k, w->factors[c]);
    }
    return n;
}

static enum kure_status take_scales(struct kure_weight_quantizer *w, size_t parts)
{
    w->has_scales = 1;
    for (size_t p = 0; p < parts; ++p) {
        if (is_learned(w)) kure_learned_begin(&w->state[p], w->scales[p], &w->q);
        else w->state[p] = (struct kure_learned_parameter){.value = w->scales[p].step, .zero_point = (float)w->scales[p].zero_point};
    }
    return KURE_OK;
}

/* x [in]: [parts][n], each with a scale of its own */
static enum kure_status find_scales(struct kure_weight_quantizer *w, const float *x, size_t parts, size_t n, struct kure_error *error)
{
    KURE_PARALLEL_FOR(parts * n)
    for (size_t p = 0; p < parts; ++p) {
        if (kure_scale_find(x + p * n, n, &w->q, &w->scales[p], NULL) != KURE_OK) w->scales[p].step = NAN;
    }
    for (size_t p = 0; p < parts; ++p) { /* again, for the sentence */
        if (!isnan(w->scales[p].step)) continue;
        enum kure_status status = kure_scale_find(x + p * n, n, &w->q, &w->scales[p], error);
        if (status != KURE_OK) return status;
    }
    return take_scales(w, parts);
}

enum kure_status kure_weights_scales_of_ranges(struct kure_weight_quantizer *w, const struct kure_range_keys *ranges, struct kure_error *error)
{
    size_t parts = 0;
    struct kure_summary s = {.n = 0};
    for (size_t c = 0; c < w->rows; ++c) {
        if (w->factors[c] == 0) continue;
        double min = kure_flush(kure_unorder(ranges[c].min)), max = kure_flush(kure_unorder(ranges[c].max));
        if (!isfinite(min) || !isfinite(max)) return kure_fail(error, KURE_ERROR_INPUT, "weights that are not finite");
        int is_first = by_row(w) || s.n == 0;
        s = (struct kure_summary){.n = w->row_length + (is_first ? 0 : s.n), .min = is_first ? min : fmin(min, s.min), .max = is_first ? max : fmax(max, s.max)};
        enum kure_status status = by_row(w) ? kure_summary_scale(&s, &w->q, &w->scales[parts++], error) : KURE_OK;
        if (status != KURE_OK) return status;
    }
    if (by_row(w)) return take_scales(w, parts);
    enum kure_status status = kure_summary_scale(&s, &w->q, &w->scales[0], error);
    return status == KURE_OK ? take_scales(w, 1) : status;
}

void kure_weights_settle(struct kure_weight_quantizer *w, const struct kure_learned_rate *rate)
{
    if (!w->has_gradient) return;
    for (size_t c = 1; !by_row(w) && c < w->rows; ++c) {
        w->descent[0] += w->descent[c];
        w->descent[c] = 0;
    }
    for (size_t p = 0; p < (by_row(w) ? w->rows : 1); ++p) {
        if (w->state[p].least > 0) kure_learned_descend(&w->state[p], w->descent[p], rate, &w->q);
        w->descent[p] = 0;
    }
    w->has_gradient = 0;
    kure_weights_restore(w);
}

static int is_search(enum kure_truncation truncation)
{
    return truncation == KURE_TRUNCATION_MSE || truncation == KURE_TRUNCATION_KL || truncation == KURE_TRUNCATION_LP ||
           truncation == KURE_TRUNCATION_PERCENTILE;
}

int kure_weights_wants_scales(const struct kure_weight_quantizer *w, long long update, int every)
{
    return !(w->has_scales && (is_learned(w) || (is_search(w->q.truncation) && update % every != 0)));
}

enum kure_status kure_weights_rescale(struct kure_weight_quantizer *w, const struct kure_tensor *t, long long update, int every,
                                      const struct kure_learned_rate *rate, struct kure_error *error)
{
    size_t k = w->row_length, rows = w->rows;
    if (w->method == KURE_METHOD_DOREFA) return KURE_OK;
    const float *x = t->weights;
    kure_weights_find_factors(w, t);
    kure_weights_settle(w, rate);
    if (!kure_weights_wants_scales(w, update, every)) return KURE_OK;
    if (w->fold) {
        rows = gather(w, t, t->scratch);
        x = t->scratch;
    }
    return by_row(w) ? find_scales(w, x, rows, k, error) : find_scales(w, x, 1, rows * k, error);
}

struct kure_scale kure_weights_scale(const struct kure_weight_quantizer *w, size_t row)
{
    return w->factors[row] == 0 ? (struct kure_scale){0, 0} : w->scales[by_row(w) ? w->place[row] : 0];
}

struct kure_fold_codec kure_weights_codec(const struct kure_weight_quantizer *w, size_t row)
{
    const struct kure_codec codec = kure_codec_of(kure_weights_scale(w, row), &w->q, &w->noise);
    struct kure_fold_codec fold = {kure_codec_from(codec, w->place[row] * w->row_length), w->factors[row], 1, w->gains[row]};
    if (w->factors[row] == 0) fold.factor = w->gains[row]; /* stays float */
    else if (!(codec.levels.step > 0)) fold.factor = 0;    /* zeros */
    else if (!w->frozen) fold.divisor = w->factors[row];
    return fold;
}

enum kure_status kure_weights_refresh(struct kure_weight_quantizer *w, const struct kure_tensor *t, long long update, int every,
                                      const struct kure_learned_rate *rate, struct kure_error *error)
{
    size_t k = w->row_length;
    if (w->method == KURE_METHOD_DOREFA) {
        kure_dorefa_quantize(t->weights, w->values, w->rows * k, &w->q, &w->noise);
        return KURE_OK;
    }
    enum kure_status status = kure_weights_rescale(w, t, update, every, rate, error);
    if (status != KURE_OK) return status;
    KURE_PARALLEL_FOR(w->rows * k)
    for (size_t c = 0; c < w->rows; ++c) {
        const struct kure_fold_codec codec = kure_weights_codec(w, c);
        kure_cpu()->fold_quantize(t->weights + c * k, w->values + c * k, k, &codec);
    }
    return KURE_OK;
}

void kure_weights_restore(struct kure_weight_quantizer *w)
{
    if ((w->state[0].least > 0) != is_learned(w)) return; /* of a training by another method */
    for (size_t p = 0; p < (by_row(w) ? w->rows : 1); ++p) {
        w->scales[p] = is_learned(w) ? kure_learned_scale(&w->state[p], &w->q)
                                  : (struct kure_scale){w->state[p].value, (int)w->state[p].zero_point};
    }
    w->has_scales = 1;
}

int kure_weights_clip(const struct kure_weight_quantizer *w)
{
    return w->method != KURE_METHOD_STE || w->q.truncation != KURE_TRUNCATION_MINMAX || w->q.step_ratio < 1 || w->q.step != KURE_STEP_FREE;
}

/* Of the row; sums may be NULL. */
static struct kure_folded_norm batchnorm_of(struct kure_weight_quantizer *w, const struct kure_tensor *t, size_t row,
                                          const struct kure_frozen_batchnorm *frozen, const struct kure_fold_sums *sums)
{
    return (struct kure_folded_norm){.gamma = t->gamma + row, .beta = frozen->beta + row, .mean = frozen->mean + row, .variance = t->variance + row,
                                   .sums = sums, .chunks = kure_chunk_count(w->row_length), .bias_gradient = w->bias_gradient + row,
                                   .gamma_updates = t->gamma_updates + row};
}

void kure_weights_fold_biases(struct kure_weight_quantizer *w, const struct kure_tensor *t, const struct kure_frozen_batchnorm *frozen)
{
    const struct kure_folded_norm batchnorm = batchnorm_of(w, t, 0, frozen, NULL);
    kure_cpu()->fold_biases(&batchnorm, w->biases, w->rows);
}

/* values = Q(w s)/s, so that the step's gradient is that of Q over s */
void kure_weights_add_descent(struct kure_weight_quantizer *w, size_t row, const struct kure_fold_sums *sums)
{
    size_t features = by_row(w) ? w->row_length : w->row_length * w->rows;
    double sum = 0;
    if (w->factors[row] == 0) return;
    for (size_t c = 0; c < kure_chunk_count(w->row_length); ++c) sum += sums[c].step;
    w->descent[w->place[row]] += kure_learned_step_gradient_of(&sum, 1, features, kure_weights_scale(w, row), &w->q) / (w->frozen ? 1 : w->factors[row]);
}

/* dy [in]: of the row's values; updates [in, out]: of its weights */
static void pass_row(struct kure_weight_quantizer *w, const struct kure_tensor *t, size_t row, const float *dy, float *updates,
                     const struct kure_frozen_batchnorm *frozen)
{
    const struct kure_fold_codec codec = kure_weights_codec(w, row);
    const float *x = t->weights + row * w->row_length;
    struct kure_fold_sums sums[KURE_CHUNKS_MAX];
    size_t n = w->row_length, size = kure_chunk_size(n);
    if (!is_learned(w) && !frozen) {
        kure_cpu()->fold_backward(x, dy, updates, n, &codec);
        return;
    }
    for (size_t c = 0; c < kure_chunk_count(n); ++c) {
        struct kure_fold_codec part = codec;
        part.codec = kure_codec_from(codec.codec, c * size);
        kure_cpu()->fold_backward_sums(x + c * size, dy + c * size, updates + c * size, kure_chunk_length(n, c), &part, &sums[c]);
    }
    if (is_learned(w)) kure_weights_add_descent(w, row, sums);
    if (!frozen) return;
    const struct kure_folded_norm batchnorm = batchnorm_of(w, t, row, frozen, sums);
    kure_cpu()->batchnorm_backward(&batchnorm, 1);
    frozen->beta_updates[row] += w->bias_gradient[row];
}

void kure_weights_add_gradient(struct kure_weight_quantizer *w, const struct kure_tensor *t, float *gradient, float *updates,
                               const struct kure_frozen_batchnorm *frozen)
{
    size_t k = w->row_length;
    if (w->method == KURE_METHOD_DOREFA) {
        kure_dorefa_backward(t->weights, gradient, gradient, w->rows * k);
        for (size_t i = 0; i < w->rows * k; ++i) updates[i] += gradient[i];
        return;
    }
    w->has_gradient = is_learned(w);
    KURE_PARALLEL_FOR(w->rows * k)
    for (size_t c = 0; c < w->rows; ++c) pass_row(w, t, c, gradient + c * k, updates + c * k, frozen);
}
