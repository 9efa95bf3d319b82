/*
 * simulate_target.c: where a target does not round a real value to the nearest code.
 *
 * It goes from codes to codes: LEAKY_RELU and AVERAGE_POOL_2D of TensorFlow Lite and CMSIS-NN.
 * Gradients pass as through the quantizers.
 *
 * It adds int32 biases, whose step is that of the input times that of the row's weights: at 4
 * bits that can be a tenth of an output code. Only predictions see it, which evaluate; in
 * training the bias moves anyway.
 *
 * Tested by tests/test_export.py: simulation and integer model have the same codes.
 */
#include <math.h>
#include <stdlib.h>

#include "fold.h"
#include "levels.h"
#include "multiplier.h"
#include "profiles.h"
#include "simulation.h"

static enum kure_arithmetic arithmetic_of(const struct kure_network *k)
{
    const struct kure_profile *p = kure_profile((int)k->plan.quantization.profile - 1);
    return p ? p->arithmetic : KURE_ARITHMETIC_NONE;
}

static int is_leaky(const struct kure_network *k, int i)
{
    const struct simulated_layer *s = &k->simulation->layers[i];
    enum kure_arithmetic a = arithmetic_of(k);
    int fixed = a == KURE_ARITHMETIC_DOUBLE_ROUNDING || a == KURE_ARITHMETIC_SINGLE_ROUNDING;
    return fixed && s->activation == LEAKY && s->before.q.bits && s->after.q.bits && !s->before.head_rows;
}

int kure_target_differs(const struct kure_network *k, int i)
{
    return k->plan.rows[i].averages_codes || is_leaky(k, i);
}

/* Means of codes, ties away from zero: their sums are whole. */
static void average(const struct kure_activation_quantizer *a, const float *x, float *y, size_t count, int n)
{
    struct kure_scale scale = a->now->group[0].scale;
    for (size_t i = 0; scale.step > 0 && i < count; ++i) {
        if (!kure_is_finite(x[i])) continue;
        int sum = (int)lrint((double)x[i] / (double)scale.step * n) + n * scale.zero_point;
        int code = sum > 0 ? (sum + n / 2) / n : (sum - n / 2) / n;
        y[i] = scale.step * (float)(code - scale.zero_point);
    }
}

/* x: leaky values of codes; a table of all differences of two codes to the values behind */
static void leaky(const struct simulated_layer *s, int single, const float *x, float *y, size_t count)
{
    enum { FAR = 256 };
    float values[2 * FAR + 1];
    struct kure_scale in = s->before.now->group[0].scale, out = s->after.now->group[0].scale;
    int low = kure_lowest_code(&s->after.q) - out.zero_point, high = kure_highest_code(&s->after.q) - out.zero_point;
    if (!(in.step > 0) || !(out.step > 0)) return;
    for (int c = -FAR; c <= FAR; ++c) {
        int code = kure_leaky_code(c, in.step, out.step, s->slope, single);
        values[c + FAR] = out.step * (float)(code < low ? low : code > high ? high : code);
    }
    for (size_t i = 0; i < count; ++i) {
        long code = kure_is_finite(x[i]) ? lrint((double)x[i] / (double)(x[i] > 0 ? in.step : in.step * s->slope)) : FAR + 1;
        if (labs(code) <= FAR) y[i] = values[code + FAR];
    }
}

void kure_target_outputs(const struct kure_network *k, int i, const float *x, float *y, size_t n, int plane)
{
    const struct simulated_layer *s = &k->simulation->layers[i];
    if (k->plan.rows[i].averages_codes) average(&s->after, x, y, n, plane);
    else leaky(s, arithmetic_of(k) == KURE_ARITHMETIC_SINGLE_ROUNDING, x, y, n);
}

/* ---- int32 biases ----------------------------------------------------------------- */

/* The step of what layer i reads; 0: several, or float. */
static float input_step(const struct kure_network *k, int i)
{
    int from = i - 1;
    for (;;) {
        if (from < 0) return k->plan.input.bits ? k->plan.input_scale.step : 0;
        const layer *l = &k->net->layers[from];
        const struct kure_activation_quantizer *a = &k->simulation->layers[from].after;
        if (k->plan.rows[from].after.bits) return a->now && !a->head_rows ? a->now->group[0].scale.step : 0;
        if (l->type == ROUTE) from = l->input_layers[0];
        else if (l->type == MAXPOOL || l->type == UPSAMPLE || l->type == REORG || l->type == DROPOUT) --from;
        else return 0;
    }
}

/* What rounding the bias of row r adds to the layer's outputs. */
static float bias_error(const struct simulated_layer *s, const layer *l, size_t r, float step_in)
{
    const struct kure_weight_quantizer *w = &s->weights;
    float factor = l->batch_normalize ? kure_fold_factor(l->scales[r], l->rolling_variance[r]) : 1;
    float step = w->method == KURE_METHOD_DOREFA ? 1 / (float)((1 << w->q.bits) - 1) : kure_weights_scale(w, r).step;
    double grid = (double)step_in * (double)step * (w->fold ? 1 : fabs((double)factor)), bias = (double)l->biases[r];
    if (!(grid > 0)) return 0; /* of a row without weights it is finer */
    if (l->batch_normalize) bias -= (double)l->rolling_mean[r] * ((double)l->scales[r] / kure_fold_sigma(l->rolling_variance[r]));
    return fabs(bias) <= 0x1p30 * grid ? (float)(round(bias / grid) * grid - bias) : 0;
}

int kure_target_rounds_biases(const struct kure_network *k, int i)
{
    enum kure_arithmetic a = arithmetic_of(k);
    int rounds = a == KURE_ARITHMETIC_FLOAT32 || a == KURE_ARITHMETIC_DOUBLE_ROUNDING || a == KURE_ARITHMETIC_SINGLE_ROUNDING;
    return rounds && k->simulation->layers[i].weights.q.bits && input_step(k, i) != 0;
}

void kure_target_biases(const struct kure_network *k, int i, const layer *l, float *x)
{
    const struct simulated_layer *s = &k->simulation->layers[i];
    size_t rows = s->weights.rows, plane = rows ? (size_t)l->outputs / rows : 0;
    if (!kure_target_rounds_biases(k, i)) return;
    for (size_t r = 0; r < rows; ++r) {
        float error = bias_error(s, l, r, input_step(k, i));
        for (size_t b = 0; b < (size_t)l->batch; ++b) {
            for (size_t j = 0; j < plane; ++j) x[(b * rows + r) * plane + j] += error;
        }
    }
}
