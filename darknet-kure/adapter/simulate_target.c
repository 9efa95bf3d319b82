/*
 * simulate_target.c: where a target does not round a real value to the nearest code, but goes
 * from codes to codes: LEAKY_RELU and AVERAGE_POOL_2D of TensorFlow Lite and CMSIS-NN. Gradients
 * pass as through the quantizers.
 *
 * Tested by tests/test_export.py: simulation and integer model have the same codes.
 */
#include <math.h>
#include <stdlib.h>

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
