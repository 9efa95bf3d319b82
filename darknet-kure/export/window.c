/* window.c: see window.h. Tested by tests/test_clients_c.py. */
#include "window.h"

#include <stdlib.h>

struct kure_window kure_window(const struct kure_integer_layer *layer, const struct kure_integer_tensor *in)
{
    struct kure_window v = {.rows = layer->rows, .channels = in->channels, .height = in->height, .width = in->width, .channel_step = 1};
    if (layer->kind == KURE_KIND_CONVOLUTION) {
        v.channels = in->channels / layer->groups;
        v.height = v.width = layer->size;
        v.depthwise = layer->groups > 1 && v.channels == 1;
    }
    v.x_step = v.depthwise ? v.rows : v.channels;
    v.y_step = v.width * v.x_step;
    v.row_step = v.depthwise ? 1 : v.height * v.y_step;
    return v;
}

uint8_t *kure_window_weights(const struct kure_window *v, const struct kure_integer_layer *layer, size_t *bytes)
{
    size_t row = (size_t)layer->row, count = (size_t)layer->rows * row, width = (size_t)v->width, plane = (size_t)v->height * width;
    int packed = layer->stored_bits == 4;
    *bytes = packed ? (count + 1) / 2 : count;
    uint8_t *out = calloc(*bytes, 1);
    for (size_t i = 0; out && i < count; ++i) {
        size_t c = i % row / plane, y = i % plane / width, x = i % width;
        size_t at = i / row * (size_t)v->row_step + y * (size_t)v->y_step + x * (size_t)v->x_step + c * (size_t)v->channel_step;
        if (packed) out[at / 2] |= (uint8_t)((layer->codes[i] & 15) << 4 * (at % 2));
        else out[at] = (uint8_t)layer->codes[i];
    }
    return out;
}
