/* pool.c: max and average pooling. Tested by tests/test_runtime_layers.py. */
#include "kinds.h"

void kure_maxpool_run(const struct kure_model *m, const struct kure_placed_layer *v, uint8_t *arena, void *work)
{
    int32_t size = (int32_t)v->l.size, stride = (int32_t)v->l.stride, half = (int32_t)v->l.padding / 2;
    int32_t height = (int32_t)v->a.height, width = (int32_t)v->a.width;
    const int8_t *in = (const int8_t *)arena + v->a.place;
    int8_t *out = (int8_t *)arena + v->out.place;
    (void)m;
    (void)work;
    for (uint32_t c = 0; c < v->a.channels; c++, in += (size_t)height * (size_t)width) {
        for (int32_t y = 0; y < (int32_t)v->out.height; y++) {
            int32_t top = y * stride - half, first_row = top < 0 ? 0 : top, last_row = top + size < height ? top + size : height;
            for (int32_t x = 0; x < (int32_t)v->out.width; x++) {
                int32_t left = x * stride - half, first = left < 0 ? 0 : left, last = left + size < width ? left + size : width;
                int8_t most = -128;
                for (int32_t i = first_row; i < last_row; i++) {
                    const int8_t *line = in + (size_t)i * (size_t)width;
                    for (int32_t j = first; j < last; j++) most = line[j] > most ? line[j] : most;
                }
                *out++ = most;
            }
        }
    }
}

void kure_average_pool_run(const struct kure_model *m, const struct kure_placed_layer *v, uint8_t *arena, void *work)
{
    const struct kure_arithmetic_row *arithmetic = &kure_arithmetic_rows[v->l.arithmetic];
    int32_t n = (int32_t)(v->a.height * v->a.width);
    const int8_t *in = (const int8_t *)arena + v->a.place;
    int8_t *out = (int8_t *)arena + v->out.place;
    struct kure_rescale r = {.zero_point = v->out.zero_point, .low = v->out.low, .high = v->out.high};
    (void)m;
    (void)work;
    arithmetic->load(&r, v->l.parameter);
    arithmetic->load_last(&r, v->l.parameter);
    for (uint32_t c = 0; c < v->a.channels; c++, in += n) {
        int32_t sum = 0;
        for (int32_t i = 0; i < n; i++) sum += in[i];
        out[c] = (int8_t)arithmetic->mean(&r, sum - n * v->a.zero_point, sum, n);
    }
}
