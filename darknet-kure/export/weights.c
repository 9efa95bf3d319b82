/*
 * weights.c: see weights.h.
 *
 * The codes are those of the simulation: the same products, quotients and roundings in
 * float32. Only biases are folded in double, as nothing simulates their quantization.
 *
 *     y = gamma * (w x - mean)/sqrt(variance + eps) + beta = (s w) x + (beta - mean s)
 *
 * Where the quantizer saw w itself (batchnorm=train, dorefa), s is part of the row's scale,
 * and its sign goes to the codes.
 *
 * Tested by tests/test_export_weights.py.
 */
#include "weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "fold.h"

static const double MOST_BIAS = 0x1p30; /* |bias code|: as much again is left to the sum */

/* What one layer's rows are made from. */
struct rows {
    const struct kure_network_layer *from;
    const struct kure_weights_target *target;
    struct kure_integer_layer *to;
    struct kure_quantizer q; /* of the codes: dorefa's have a bit more */
    float *room;             /* [2][row] */
    const float *dorefa;     /* [all rows][row] their values; NULL: not dorefa */
    float *steps;            /* [rows] of what the quantizer sees; 0: zero codes */
    double *larger;          /* [rows] that multiplies them */
};

static size_t source_row(const struct rows *w, int r)
{
    return (size_t)(w->to->source_rows ? w->to->source_rows[r] : r);
}

static float factor_of(const struct kure_network_layer *from, size_t row)
{
    const struct kure_tensor *t = &from->weights;
    return t->gamma ? kure_fold_factor(t->gamma[row], t->variance[row]) : 1;
}

/* beta - mean * gamma/sqrt(variance + eps), in double; of a row without weights beta alone */
static double bias_of(const struct kure_network_layer *from, size_t row, int is_zero)
{
    const struct kure_tensor *t = &from->weights;
    if (!from->means || is_zero) return (double)from->offsets[row];
    return (double)from->offsets[row] - (double)from->means[row] * ((double)t->gamma[row] / kure_fold_sigma(t->variance[row]));
}

/* Factors, biases and steps; rows that folding makes as good as zero get step 0. */
static void find_steps(struct rows *w, struct kure_weights_report *report)
{
    const struct kure_network_layer *from = w->from;
    float largest = 0;
    for (size_t r = 0; r < from->weights.rows; ++r) largest = fmaxf(largest, fabsf(factor_of(from, r)));
    for (int r = 0; r < w->to->rows; ++r) {
        size_t row = source_row(w, r);
        float factor = factor_of(from, row);
        int is_zero = factor == 0 || fabsf(factor) < 0x1p-40f * largest;
        w->to->factors[r] = factor;
        w->steps[r] = is_zero ? 0 : w->dorefa ? 1 / (float)((1 << from->weight.bits) - 1) : from->scales[row].step;
        w->larger[r] = 1;
        w->to->biases[r] = kure_flush((float)bias_of(from, row, w->steps[r] == 0 && is_zero));
        w->to->weight_scales[r] = from->folds || !from->means ? w->steps[r] : (float)((double)w->steps[r] * fabs((double)factor));
        report->zero_rows += w->steps[r] == 0;
    }
}

/* Rows of zeros take the scale of the others where there is one for all, else one that makes
 * their bias 16 bits finer than the output. */
static void scale_zero_rows(struct rows *w)
{
    struct kure_integer_layer *to = w->to;
    float common = 0;
    int several = 0;
    for (int r = 0; r < to->rows; ++r) {
        if (w->steps[r] == 0) continue;
        several |= common != 0 && common != to->weight_scales[r];
        common = to->weight_scales[r];
    }
    to->one_scale = w->from->weight.granularity == KURE_GRANULARITY_TENSOR && !several;
    if (common == 0 || !to->one_scale) common = w->target->out->scale / w->target->in->scale * 0x1p-16f;
    for (int r = 0; r < to->rows; ++r) {
        if (w->steps[r] == 0) to->weight_scales[r] = common;
    }
}

/* A bias beyond 2^30 steps of the sum gets a larger step, and its weights with it. */
static void enlarge_scales(struct rows *w, struct kure_weights_report *report)
{
    struct kure_integer_layer *to = w->to;
    report->largest = 1;
    for (int r = 0; r < to->rows; ++r) {
        double code = fabs((double)to->biases[r]) / ((double)w->target->in->scale * (double)to->weight_scales[r]);
        while (code > MOST_BIAS * w->larger[r]) w->larger[r] *= 2;
        report->larger_rows += w->larger[r] > 1;
        if (w->larger[r] <= report->largest) continue;
        report->largest = w->larger[r];
        report->larger_row = r;
    }
    for (int r = 0; r < to->rows; ++r) {
        if (to->one_scale) w->larger[r] = report->largest;
        to->weight_scales[r] *= (float)w->larger[r];
    }
}

/* Row r as the quantizer sees it -> its codes, with the sign of a factor that it does not see */
static enum kure_status quantize_row(struct rows *w, int r, struct kure_error *error)
{
    size_t k = (size_t)w->to->row, row = source_row(w, r);
    const float *x = (w->dorefa ? w->dorefa : w->from->weights.weights) + row * k;
    int8_t *codes = w->to->codes + (size_t)r * k;
    float factor = w->to->factors[r], *seen = w->room, *quantized = w->room + k;
    struct kure_scale scale = {w->steps[r] * (float)w->larger[r], 0};
    int sign = !w->from->folds && factor < 0 ? -1 : 1, half = 1 << (w->to->stored_bits - 1);
    if (scale.step == 0) {
        memset(codes, 0, k);
        return KURE_OK;
    }
    for (size_t i = 0; i < k; ++i) seen[i] = w->from->folds ? kure_flush_result(kure_flush(x[i]) * factor) : x[i];
    kure_fake_quantize(seen, quantized, k, scale, &w->q, NULL);
    for (size_t i = 0; i < k; ++i) {
        int code = sign * (int)rintf(quantized[i] / scale.step);
        if (code >= half) {
            return kure_fail(error, KURE_ERROR_INPUT, "%s: weight_grid=full: the negative scale of row %zu makes code %d of code %d, which %d bits do "
                             "not hold: train with weight_grid=narrow, or batchnorm=fold", w->target->place, row, code, -code, w->to->stored_bits);
        }
        codes[i] = (int8_t)code;
    }
    return KURE_OK;
}

static enum kure_status check_scales(const struct rows *w, struct kure_error *error)
{
    for (int r = 0; r < w->to->rows; ++r) {
        float scale = w->to->weight_scales[r];
        int exponent;
        if (kure_arithmetic_rules(w->target->arithmetic)->powers_of_two && frexpf(scale, &exponent) != 0.5f) {
            return kure_fail(error, KURE_ERROR_INPUT, "%s: row %zu has scale %.9g, no power of two, which profile=pow2 needs: %s", w->target->place,
                             source_row(w, r), (double)scale, w->dorefa ? "train with method=ste or lsq" : "train with batchnorm=fold");
        }
        if (scale >= 0x1p-80f && scale <= 0x1p80f && kure_is_finite(w->to->biases[r])) continue;
        return kure_fail(error, KURE_ERROR_INPUT, "%s: row %zu has scale %.9g and bias %.9g: a scale must be from 2^-80 to 2^80, a bias finite",
                         w->target->place, source_row(w, r), (double)scale, (double)w->to->biases[r]);
    }
    return KURE_OK;
}

static void write_words(struct rows *w, struct kure_weights_report *report)
{
    const struct kure_arithmetic_rules *rules = kure_arithmetic_rules(w->target->arithmetic);
    struct kure_integer_layer *to = w->to;
    for (int r = 0; r < to->rows; ++r) {
        struct kure_row_scales s = {.in = w->target->in->scale, .weight = to->weight_scales[r], .out = w->target->out->scale, .bias = to->biases[r],
                                    .one_product = to->kind == KURE_KIND_CONNECTED && to->one_scale};
        rules->row(&s, to->multipliers[r]);
        if (!to->bias_codes) continue;
        double step = (double)s.in * (double)s.weight, code = (double)to->biases[r] / step;
        int is_exact = rules->ties_up && (int32_t)to->multipliers[r][1] > 0;
        to->bias_codes[r] = (int32_t)(is_exact ? floor(code) : round(code));
        if (!is_exact) report->bias_error = fmax(report->bias_error, fabs(to->bias_codes[r] - code) * step / (double)s.out);
    }
}

static enum kure_status allocate(struct rows *w, struct kure_error *error)
{
    struct kure_integer_layer *to = w->to;
    size_t n = (size_t)to->rows;
    to->codes = malloc(n * (size_t)to->row);
    to->weight_scales = malloc(n * sizeof *to->weight_scales);
    to->factors = malloc(n * sizeof *to->factors);
    to->biases = malloc(n * sizeof *to->biases);
    to->multipliers = malloc(n * sizeof *to->multipliers);
    int floats = kure_arithmetic_rules(w->target->arithmetic)->float_bias;
    if (!floats) to->bias_codes = malloc(n * sizeof *to->bias_codes);
    w->room = malloc(2 * (size_t)to->row * sizeof *w->room);
    w->steps = malloc(n * sizeof *w->steps);
    w->larger = malloc(n * sizeof *w->larger);
    int all = to->codes && to->weight_scales && to->factors && to->biases && to->multipliers && (floats || to->bias_codes) && w->room && w->steps && w->larger;
    return all ? KURE_OK : kure_fail_memory(error);
}

/* dorefa's levels are odd multiples of 1/(2^b - 1), so that its codes have a bit more. */
static enum kure_status bake_dorefa(struct rows *w, float **values, struct kure_error *error)
{
    const struct kure_tensor *t = &w->from->weights;
    if (w->q.bits > 7) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s: method=dorefa, weight_bits=%d: its levels need %d bits as integers, and there are 8: use "
                         "weight_bits up to 7, or method=ste", w->target->place, w->q.bits, w->q.bits + 1);
    }
    *values = malloc(t->rows * t->row_length * sizeof **values);
    if (!*values) return kure_fail_memory(error);
    kure_dorefa_quantize(t->weights, *values, t->rows * t->row_length, &w->q, NULL);
    w->dorefa = *values;
    w->q.bits += 1;
    w->q.grid = KURE_GRID_NARROW;
    return KURE_OK;
}

enum kure_status kure_integer_weights(const struct kure_network_layer *from, const struct kure_weights_target *target,
                                      struct kure_integer_layer *to, struct kure_weights_report *report, struct kure_error *error)
{
    struct rows w = {.from = from, .target = target, .to = to, .q = from->weight};
    float *dorefa = NULL;
    *report = (struct kure_weights_report){.largest = 1};
    to->row = (int)from->weights.row_length;
    to->master = from->weights.weights;
    enum kure_status status = from->is_dorefa ? bake_dorefa(&w, &dorefa, error) : KURE_OK;
    to->weight_bits = w.q.bits;
    to->stored_bits = w.q.bits <= 4 ? 4 : 8;
    if (status == KURE_OK) status = allocate(&w, error);
    if (status == KURE_OK) {
        find_steps(&w, report);
        scale_zero_rows(&w);
        if (to->bias_codes) enlarge_scales(&w, report);
        status = check_scales(&w, error);
    }
    for (int r = 0; status == KURE_OK && r < to->rows; ++r) status = quantize_row(&w, r, error);
    if (status == KURE_OK) write_words(&w, report);
    free(dorefa);
    free(w.room);
    free(w.steps);
    free(w.larger);
    return status;
}
