/*
 * window.h: the weights of a layer as TensorFlow Lite and CMSIS-NN want them: the window's
 * rows and columns outside, channels inside.
 */
#ifndef KURE_EXPORT_WINDOW_H
#define KURE_EXPORT_WINDOW_H

#include "model.h"

/* A convolution, or a connected layer as one over the whole image. Weights are
 * [rows][height][width][channels], those of one channel a group (depthwise) [height][width][rows]. */
struct kure_window {
    int rows, channels, height, width; /* channels: of a group */
    int depthwise;
    int row_step, y_step, x_step, channel_step; /* how far apart weights lie */
};

struct kure_window kure_window(const struct kure_integer_layer *layer, const struct kure_integer_tensor *in);

/* The codes in that order, to be freed; NULL: out of memory.
 *   bytes  [out]: one for each code, or half a byte: two in one, the first in the low half */
uint8_t *kure_window_weights(const struct kure_window *window, const struct kure_integer_layer *layer, size_t *bytes);

#endif
