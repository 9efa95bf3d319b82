/*
 * kure_layers.h: the layers of an exported model in C99: no heap, no library, no
 * floating-point arithmetic. model.c includes it behind three functions of its own, which
 * are the requantization of the model's target:
 *
 *   model_requantize(x, m, p)     an accumulator, the two words of its row, the layer's words
 *   model_add(a, b, za, zb, z, p) two codes, zero points of both and of the sum
 *   model_mean(x, codes, n, z, p) sums of n codes, less their zero points and as they are
 *
 * each giving a code less the zero point of the output. Activations lie [height][width][channels]
 * as CMSIS-NN wants them; weights [rows][height][width][channels], or [height][width][rows] of a
 * convolution with one input channel a group.
 */
#ifndef KURE_LAYERS_H
#define KURE_LAYERS_H

#include <stdint.h>

struct kure_shape {
    int32_t height, width, channels, zero_point, low, high;
};

struct kure_convolution {
    struct kure_shape in, out;
    int32_t size_y, size_x, stride, padding, groups;
    int32_t row_step, y_step, x_step, channel_step; /* of a weight's number */
    int32_t packed;                                 /* 1: two codes in a byte, the first in the low half */
    const uint8_t *weights;
    const int32_t *biases;                          /* 0: none */
    const uint32_t *multipliers;                    /* [rows][2] */
    const uint32_t *parameter;
};

static inline int8_t kure_code(const struct kure_shape *out, int32_t y)
{
    y += out->zero_point;
    return (int8_t)(y < out->low ? out->low : y > out->high ? out->high : y);
}

static inline int32_t kure_weight(const struct kure_convolution *l, int32_t i)
{
    int32_t code = l->packed ? l->weights[i / 2] >> 4 * (i % 2) & 15 : l->weights[i], half = l->packed ? 8 : 128;
    return code < half ? code : code - 2 * half;
}

static inline int32_t kure_accumulate(const struct kure_convolution *l, const int8_t *in, int32_t row, int32_t top, int32_t left)
{
    int32_t channels = l->in.channels / l->groups, first = row / (l->out.channels / l->groups) * channels, sum = 0;
    for (int32_t i = 0; i < l->size_y; i++) {
        if (top + i < 0 || top + i >= l->in.height) continue;
        for (int32_t j = 0; j < l->size_x; j++) {
            if (left + j < 0 || left + j >= l->in.width) continue;
            const int8_t *x = in + ((top + i) * l->in.width + left + j) * l->in.channels + first;
            int32_t at = row * l->row_step + i * l->y_step + j * l->x_step;
            for (int32_t c = 0; c < channels; c++) sum += kure_weight(l, at + c * l->channel_step) * (x[c] - l->in.zero_point);
        }
    }
    return l->biases ? sum + l->biases[row] : sum;
}

static inline void kure_convolution(const struct kure_convolution *l, const int8_t *in, int8_t *out)
{
    for (int32_t y = 0; y < l->out.height; y++) {
        for (int32_t x = 0; x < l->out.width; x++) {
            for (int32_t r = 0; r < l->out.channels; r++) {
                int32_t sum = kure_accumulate(l, in, r, y * l->stride - l->padding, x * l->stride - l->padding);
                *out++ = kure_code(&l->out, model_requantize(sum, l->multipliers + 2 * r, l->parameter));
            }
        }
    }
}

/* padding: in all, half of it before the first row */
static inline void kure_maxpool(const struct kure_shape *a, const struct kure_shape *o, int32_t size, int32_t stride, int32_t padding,
                                const int8_t *in, int8_t *out)
{
    for (int32_t y = 0; y < o->height; y++) {
        for (int32_t x = 0; x < o->width; x++) {
            int32_t top = y * stride - padding / 2, left = x * stride - padding / 2;
            for (int32_t c = 0; c < o->channels; c++) {
                int8_t most = -128;
                for (int32_t i = top < 0 ? 0 : top; i < top + size && i < a->height; i++) {
                    for (int32_t j = left < 0 ? 0 : left; j < left + size && j < a->width; j++) {
                        int8_t code = in[(i * a->width + j) * a->channels + c];
                        if (code > most) most = code;
                    }
                }
                *out++ = most;
            }
        }
    }
}

static inline void kure_average_pool(const struct kure_shape *a, const struct kure_shape *o, const uint32_t *parameter, const int8_t *in, int8_t *out)
{
    int32_t n = a->height * a->width;
    for (int32_t c = 0; c < a->channels; c++) {
        int32_t sum = 0;
        for (int32_t i = 0; i < n; i++) sum += in[i * a->channels + c];
        out[c] = kure_code(o, model_mean(sum - n * a->zero_point, sum, n, o->zero_point, parameter));
    }
}

static inline void kure_upsample(const struct kure_shape *a, const struct kure_shape *o, int32_t stride, const int8_t *in, int8_t *out)
{
    for (int32_t y = 0; y < o->height; y++) {
        for (int32_t x = 0; x < o->width; x++) {
            const int8_t *from = in + (y / stride * a->width + x / stride) * a->channels;
            for (int32_t c = 0; c < a->channels; c++) *out++ = from[c];
        }
    }
}

static inline void kure_lookup(const int8_t *table, int32_t count, const int8_t *in, int8_t *out)
{
    for (int32_t i = 0; i < count; i++) out[i] = table[in[i] + 128];
}

/* Where the element that is number i in the order [channels][height][width] lies. */
static inline int32_t kure_place(const struct kure_shape *s, int32_t i)
{
    int32_t plane = s->height * s->width;
    return i % plane * s->channels + i / plane;
}

/* Darknet's reorg_cpu: mode 0 forward, 1 reverse, with c, h, w of the input; 2 flatten, 3 unflatten */
static inline void kure_reorg(const struct kure_shape *a, const struct kure_shape *o, int32_t stride, int32_t mode, const int8_t *in, int8_t *out)
{
    int32_t w = a->width, h = a->height, count = a->channels * h * w, inner = a->channels / (stride * stride);
    for (int32_t i = 0; i < count; i++) {
        int32_t k = i / (h * w), x = i % w, y = i / w % h, one = i, other;
        if (mode < 2) {
            int32_t offset = k / inner;
            other = x * stride + offset % stride + w * stride * (y * stride + offset / stride + h * stride * (k % inner));
        } else {
            int32_t plane = mode == 2 ? h * w : a->channels, layers = count / plane;
            other = i;
            one = i % plane * layers + i / plane;
        }
        if (mode == 0) out[kure_place(o, one)] = in[kure_place(a, other)];
        else if (mode == 1) out[kure_place(o, other)] = in[kure_place(a, one)];
        else out[kure_place(o, one)] = in[kure_place(a, other)];
    }
}

/* The elements of one input of a concatenation, from element `first` of the output on */
static inline void kure_concatenate(const struct kure_shape *a, const struct kure_shape *o, int32_t first, const int8_t *in, int8_t *out)
{
    int32_t count = a->channels * a->height * a->width;
    for (int32_t i = 0; i < count; i++) out[kure_place(o, first + i)] = in[kure_place(a, i)];
}

/* Darknet's shortcut; elements of a that b does not reach go through table (0: there are none) */
static inline void kure_add(const struct kure_shape *a, const struct kure_shape *b, const struct kure_shape *o, const uint32_t *parameter,
                            const int8_t *table, const int8_t *as, const int8_t *bs, int8_t *out)
{
    int32_t stride = b->width / a->width > 1 ? b->width / a->width : 1, sample = a->width / b->width > 1 ? a->width / b->width : 1;
    for (int32_t y = 0; y < a->height; y++) {
        for (int32_t x = 0; x < a->width; x++) {
            int32_t i = y / sample, j = x / sample, at = (y * a->width + x) * a->channels;
            int32_t reached = y % sample == 0 && x % sample == 0 && i < b->height && j < b->width && i < a->height && j < a->width;
            const int8_t *other = reached ? bs + (i * stride * b->width + j * stride) * b->channels : bs;
            for (int32_t c = 0; c < a->channels; c++) {
                if (reached && c < b->channels) {
                    out[at + c] = kure_code(o, model_add(as[at + c], other[c], a->zero_point, b->zero_point, o->zero_point, parameter));
                } else {
                    out[at + c] = table[as[at + c] + 128];
                }
            }
        }
    }
}

#endif
