/* add.c: shortcut layers, as Darknet's shortcut_cpu walks them. Tested by tests/test_runtime_layers.py. */
#include "kinds.h"

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

void kure_add_run(const struct kure_model *m, const struct kure_placed_layer *v, uint8_t *arena, void *work)
{
    const struct kure_arithmetic_row *arithmetic = &kure_arithmetic_rows[v->l.arithmetic];
    const struct kure_model_tensor *a = &v->a, *b = &v->b;
    const int8_t *as = (const int8_t *)arena + a->place, *bs = (const int8_t *)arena + b->place;
    int8_t *out = (int8_t *)arena + v->out.place;
    uint32_t stride = b->width / a->width ? b->width / a->width : 1, sample = a->width / b->width ? a->width / b->width : 1;
    uint32_t channels = least(a->channels, b->channels), height = least(a->height, b->height), width = least(a->width, b->width);
    struct kure_rescale r = {.zero_a = a->zero_point, .zero_b = b->zero_point,
                             .zero_point = v->out.zero_point, .low = v->out.low, .high = v->out.high};
    (void)work;
    arithmetic->load_add(&r, v->l.parameter);
    if (v->l.table) {
        const int8_t *table = kure_array_codes(m, v->l.table) + 128;
        for (uint32_t i = 0; i < v->out.elements; i++) out[i] = table[as[i]];
    }
    for (uint32_t k = 0; k < channels; k++) {
        for (uint32_t j = 0; j < height; j++) {
            size_t line = ((size_t)k * a->height + (size_t)j * sample) * a->width;
            size_t other = ((size_t)k * b->height + (size_t)j * stride) * b->width;
            arithmetic->add_codes(&r, as + line, sample, bs + other, stride, out + line, width);
        }
    }
}
