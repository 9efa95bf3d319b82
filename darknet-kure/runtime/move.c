/*
 * move.c: layers that put codes in other places: upsample, reorg, route; and tables.
 *
 * Tested by tests/test_runtime_layers.py.
 */
#include "kinds.h"

#include <string.h>

void kure_upsample_run(const struct kure_model *m, const struct kure_placed_layer *v, uint8_t *arena, void *work)
{
    const uint8_t *in = arena + v->a.place;
    uint8_t *out = arena + v->out.place;
    uint32_t stride = v->l.stride;
    (void)m;
    (void)work;
    for (uint32_t line = 0; line < v->a.channels * v->a.height; line++, in += v->a.width) {
        uint8_t *first = out;
        for (uint32_t i = 0; i < v->a.width; i++, out += stride) memset(out, in[i], stride);
        for (uint32_t i = 1; i < stride; i++, out += v->out.width) memcpy(out, first, v->out.width);
    }
}

/* wide [channels/(s*s)][height*s][width*s] and deep [channels][height][width]: the same
 * elements. reverse: from deep to wide */
static void reorder(uint8_t *wide, uint8_t *deep, uint32_t channels, uint32_t height, uint32_t width, uint32_t s, int reverse)
{
    uint32_t planes = channels / (s * s);
    for (uint32_t c = 0; c < channels; c++) {
        uint32_t plane = c % planes, down = c / planes / s, right = c / planes % s;
        for (uint32_t y = 0; y < height; y++) {
            uint8_t *line = wide + ((size_t)plane * height * s + (size_t)y * s + down) * width * s + right;
            for (uint32_t x = 0; x < width; x++, deep++) {
                if (reverse) line[(size_t)x * s] = *deep;
                else *deep = line[(size_t)x * s];
            }
        }
    }
}

/* y[columns][rows] = x[rows][columns] */
static void transpose(const uint8_t *x, uint32_t rows, uint32_t columns, uint8_t *y)
{
    for (uint32_t i = 0; i < rows; i++) {
        for (uint32_t j = 0; j < columns; j++) y[(size_t)j * rows + i] = *x++;
    }
}

void kure_reorg_run(const struct kure_model *m, const struct kure_placed_layer *v, uint8_t *arena, void *work)
{
    uint8_t *in = arena + v->a.place, *out = arena + v->out.place;
    uint32_t c = v->a.channels, h = v->a.height, w = v->a.width, s = v->l.stride;
    (void)m;
    (void)work;
    switch ((enum kure_reorg)v->l.parameter[0]) {
    case KURE_REORG_FORWARD: reorder(in, out, c, h, w, s, 0); break;
    case KURE_REORG_REVERSE: reorder(out, in, c, h, w, s, 1); break;
    case KURE_REORG_FLATTEN: transpose(in, c, h * w, out); break;
    default: transpose(in, h * w, c, out); break;
    }
}

void kure_concatenate_run(const struct kure_model *m, const struct kure_placed_layer *v, uint8_t *arena, void *work)
{
    uint8_t *out = arena + v->out.place;
    (void)work;
    for (uint32_t i = 0; i < v->l.input_count; i++) {
        struct kure_model_tensor in = kure_runtime_tensor(m, kure_runtime_input(m, &v->l, i));
        memcpy(out, arena + in.place, in.elements);
        out += in.elements;
    }
}

void kure_lookup_run(const struct kure_model *m, const struct kure_placed_layer *v, uint8_t *arena, void *work)
{
    const int8_t *in = (const int8_t *)arena + v->a.place, *table = kure_array_codes(m, v->l.table) + 128;
    int8_t *out = (int8_t *)arena + v->out.place;
    (void)work;
    for (uint32_t i = 0; i < v->out.elements; i++) out[i] = table[in[i]];
}
