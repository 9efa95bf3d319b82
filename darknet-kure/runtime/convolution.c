/*
 * convolution.c: convolutional and connected layers.
 *
 * A block of output positions at a time: their patches, the input less its zero point, as
 * int16 rows; then for each row of weights, as int16 too, the products, which compilers
 * turn into multiply-and-add of pairs. A sum cannot leave int32: kure_convolution_check has
 * added up the magnitudes of every row.
 *
 * Tested by tests/test_runtime_layers.py.
 */
#include "kinds.h"

#include <string.h>

enum { TOGETHER = 4, MOST_POSITIONS = 64, PATCH_ELEMENTS = 1 << 15 };

/* Positions of a block: patches of up to 64 KiB, and at least so many that a row of weights
 * serves several */
static uint32_t positions_of(const struct kure_placed_layer *v)
{
    uint32_t all = v->out.height * v->out.width, fit = PATCH_ELEMENTS / v->l.row;
    uint32_t most = fit < TOGETHER ? TOGETHER : fit < MOST_POSITIONS ? fit : MOST_POSITIONS;
    return all < most ? all : most;
}

uint64_t kure_convolution_work(const struct kure_placed_layer *v)
{
    uint64_t positions = positions_of(v);
    return ((positions + 1) * v->l.row * sizeof(int16_t) + 3) / 4 * 4 + positions * sizeof(int32_t);
}

/* patch[channels][size][size] of output (y, x); outside the input there is its zero point */
static void fill_patch(const struct kure_placed_layer *v, const int8_t *in, uint32_t channels, uint32_t y, uint32_t x, int16_t *patch)
{
    int32_t size = (int32_t)v->l.size, height = (int32_t)v->a.height, width = (int32_t)v->a.width, zero = v->a.zero_point;
    int32_t top = (int32_t)(y * v->l.stride) - (int32_t)v->l.padding, left = (int32_t)(x * v->l.stride) - (int32_t)v->l.padding;
    int32_t first = left < 0 ? -left : 0, last = width - left < size ? width - left : size;
    if (first > 0 || last < size || top < 0 || top + size > height) memset(patch, 0, (size_t)channels * v->l.size * v->l.size * sizeof *patch);
    for (uint32_t c = 0; c < channels; c++) {
        for (int32_t k = 0; k < size; k++, patch += size) {
            if (top + k < 0 || top + k >= height) continue;
            const int8_t *line = in + ((size_t)c * v->a.height + (size_t)(top + k)) * v->a.width;
            for (int32_t j = first; j < last; j++) patch[j] = (int16_t)(line[left + j] - zero);
        }
    }
}

static void fill_flat(const struct kure_placed_layer *v, const int8_t *in, int16_t *patch)
{
    for (uint32_t i = 0; i < v->l.row; i++) patch[i] = (int16_t)(in[i] - v->a.zero_point);
}

/* Row r of the weights as int16 */
static void unpack_row(const struct kure_model *m, const struct kure_placed_layer *v, uint32_t r, int16_t *weights)
{
    size_t first = (size_t)r * v->l.row;
    if (v->l.weight_bits == 8) {
        const int8_t *w = kure_array_codes(m, v->l.weights) + first;
        for (uint32_t i = 0; i < v->l.row; i++) weights[i] = w[i];
    } else {
        const uint8_t *packed = m->bytes + v->l.weights;
        for (uint32_t i = 0; i < v->l.row; i++) weights[i] = (int16_t)kure_nibble(packed, first + i);
    }
}

static int32_t dot(const int16_t *w, const int16_t *x, uint32_t n)
{
    int32_t sum = 0;
    for (uint32_t i = 0; i < n; i++) sum += w[i] * x[i];
    return sum;
}

/* One row of weights and TOGETHER patches */
static void dots(const int16_t *w, const int16_t *x, uint32_t n, int32_t *sums)
{
    const int16_t *x1 = x + n, *x2 = x1 + n, *x3 = x2 + n;
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    for (uint32_t i = 0; i < n; i++) {
        s0 += w[i] * x[i];
        s1 += w[i] * x1[i];
        s2 += w[i] * x2[i];
        s3 += w[i] * x3[i];
    }
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
}

/* Row r of the weights on `count` patches, to codes of its output channel from position `at` on */
static void run_row(const struct kure_model *m, const struct kure_placed_layer *v, struct kure_rescale *r, uint32_t row, uint32_t at,
                    uint32_t count, const int16_t *patches, int16_t *weights, int32_t *sums, int8_t *out)
{
    const struct kure_arithmetic_row *arithmetic = &kure_arithmetic_rows[v->l.arithmetic];
    uint32_t words[2] = {kure_array_word(m, v->l.multipliers, 2 * row), kure_array_word(m, v->l.multipliers, 2 * row + 1)}, p = 0;
    int32_t bias = v->l.biases ? kure_signed(kure_array_word(m, v->l.biases, row)) : 0;
    unpack_row(m, v, row, weights);
    for (; p + TOGETHER <= count; p += TOGETHER) dots(weights, patches + (size_t)p * v->l.row, v->l.row, sums + p);
    for (; p < count; p++) sums[p] = dot(weights, patches + (size_t)p * v->l.row, v->l.row);
    for (p = 0; p < count; p++) sums[p] += bias;
    arithmetic->load(r, words);
    arithmetic->requantize(r, sums, out + (size_t)row * v->out.height * v->out.width + at, count);
}

void kure_convolution_run(const struct kure_model *m, const struct kure_placed_layer *v, uint8_t *arena, void *work)
{
    uint32_t groups = v->l.kind == KURE_KIND_CONNECTED ? 1 : v->l.groups, channels = v->a.channels / groups, rows = v->l.rows / groups;
    uint32_t all = v->out.height * v->out.width, positions = positions_of(v);
    int16_t *patches = work, *weights = patches + (size_t)positions * v->l.row;
    int32_t *sums = (int32_t *)((uint8_t *)work + kure_convolution_work(v)) - positions;
    struct kure_rescale r = {.zero_point = v->out.zero_point, .low = v->out.low, .high = v->out.high};
    kure_arithmetic_rows[v->l.arithmetic].load_last(&r, v->l.parameter);
    for (uint32_t g = 0; g < groups; g++) {
        const int8_t *in = (const int8_t *)arena + v->a.place + (size_t)g * channels * v->a.height * v->a.width;
        for (uint32_t at = 0, count; at < all; at += count) {
            count = all - at < positions ? all - at : positions;
            for (uint32_t p = 0; p < count; p++) {
                int16_t *patch = patches + (size_t)p * v->l.row;
                if (v->l.kind == KURE_KIND_CONNECTED) fill_flat(v, in, patch);
                else fill_patch(v, in, channels, (at + p) / v->out.width, (at + p) % v->out.width, patch);
            }
            for (uint32_t i = 0; i < rows; i++) {
                run_row(m, v, &r, g * rows + i, at, count, patches, weights, sums, (int8_t *)arena + v->out.place);
            }
        }
    }
}
