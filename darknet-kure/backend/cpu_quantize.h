/*
 * cpu_quantize.h: the loops of quantization, a part of cpu_kernels.c.
 *
 * They work block by block: positions, then codes by one loop per row of
 * rounding.def, then what is asked. A block stays in the nearest cache, and the
 * choice of the rounding is outside the loops.
 */
#ifndef KURE_CPU_QUANTIZE_H
#define KURE_CPU_QUANTIZE_H

#include <math.h>

#include "backend.h"
#include "cpu_lanes.h"

/* u[m] of elements index .. index + m - 1, m <= BLOCK */
static void fill_uniform(float *u, size_t m, const struct kure_noise *noise, uint64_t index)
{
    float fours[BLOCK + 8];
    uint64_t first = noise->first + index;
    size_t skip = first % 4;
    for (size_t q = 0; 4 * q < skip + m; q++) { /* four elements share a counter */
        struct kure_four four = kure_philox(noise->seed, noise->stream, first / 4 + q);
        for (int k = 0; k < 4; k++) fours[4 * q + (size_t)k] = kure_uniform(four.word[k]);
    }
    memcpy(u, fours + skip, m * sizeof *u);
}

#define KURE_ROUNDING(ENUM, name, draws, help)                                                        \
    static void round_block_##name(float *t, size_t m, const struct kure_noise *noise, uint64_t index) \
    {                                                                                                  \
        float u[draws ? BLOCK : 1];                                                                    \
        if (draws) fill_uniform(u, m, noise, index);                                                   \
        for (size_t i = 0; i < m; i++) t[i] = kure_round_##name(t[i], draws ? u[draws ? i : 0] : 0);   \
    }
#include "rounding.def"
#undef KURE_ROUNDING

/* t[m] [in, out]: positions become codes */
typedef void round_block(float *t, size_t m, const struct kure_noise *noise, uint64_t index);

static round_block *const round_blocks[] = {
#define KURE_ROUNDING(ENUM, name, draws, help) [KURE_ROUNDING_##ENUM] = round_block_##name,
#include "rounding.def"
#undef KURE_ROUNDING
};

/* y[m] = quantized x[m] of elements index .. */
static void quantize_block(const float *x, float *y, size_t m, const struct kure_codec *codec, uint64_t index)
{
    const struct kure_levels q = codec->levels;
    float code[BLOCK];
    if (!(q.step > 0)) {
        memset(y, 0, m * sizeof *y);
        return;
    }
    for (size_t i = 0; i < m; i++) code[i] = kure_clamp(kure_position(x[i], q), q.low, q.high);
    round_blocks[codec->rounding](code, m, &codec->noise, index);
    for (size_t i = 0; i < m; i++) y[i] = kure_dequantize(code[i], q);
}

static void fake_quantize_cpu(const float *x, float *y, size_t n, const struct kure_codec *codec)
{
    for (size_t at = 0, m; at < n; at += m) {
        m = block_size(n - at);
        quantize_block(x + at, y + at, m, codec, at);
    }
}

static void range_quantize_cpu(const float *x, float *y, size_t n, const struct kure_codec *codec, struct kure_range_keys *out)
{
    struct kure_range_keys all = {INT32_MAX, INT32_MIN};
    for (size_t at = 0, m; at < n; at += m) {
        m = block_size(n - at);
        for (size_t i = 0; i < m; i++) {
            int32_t key = kure_order(x[at + i]);
            all.min = key < all.min ? key : all.min;
            all.max = key > all.max ? key : all.max;
        }
        quantize_block(x + at, y + at, m, codec, at);
    }
    *out = all;
}

static void quantization_sums_cpu(const float *x, size_t n, const struct kure_codec *codec,
                                  struct kure_error_sums *out)
{
    double signal[LANES] = {0}, noise[LANES] = {0}, block[BLOCK], error[BLOCK];
    for (size_t at = 0, m; at < n; at += m) {
        float y[BLOCK];
        m = block_size(n - at);
        quantize_block(x + at, y, m, codec, at);
        for (size_t i = 0; i < m; i++) {
            block[i] = kure_flush(x[at + i]);
            error[i] = block[i] - y[i];
        }
        fill_up(block, m);
        fill_up(error, m);
        add_products(signal, block, block, m);
        add_products(noise, error, error, m);
    }
    *out = (struct kure_error_sums){lanes_sum(signal), lanes_sum(noise)};
}

static void level_sums_cpu(const struct kure_points *points, struct kure_levels levels,
                           struct kure_level_sums *out)
{
    double lx[LANES] = {0}, ll[LANES] = {0};
    for (size_t start = 0, m; start < points->n; start += m) {
        double level[BLOCK], product[BLOCK], total[BLOCK];
        m = block_size(points->n - start);
        for (size_t i = 0; i < m; i++) {
            level[i] = kure_quantize(points->value[start + i], levels) + levels.offset;
            product[i] = level[i] * points->count[start + i];
            total[i] = points->total[start + i];
        }
        fill_up(level, m);
        fill_up(product, m);
        fill_up(total, m);
        add_products(lx, level, total, m);
        add_products(ll, level, product, m);
    }
    *out = (struct kure_level_sums){lanes_sum(lx), lanes_sum(ll)};
}

/* power[m] = e^p: whole p by products, others by the C library */
static void raise(const double *e, double *power, size_t m, double p)
{
    int whole = (int)p;
    if (whole != p) {
        for (size_t i = 0; i < m; i++) power[i] = pow(e[i], p);
        return;
    }
    memcpy(power, e, m * sizeof *power);
    for (int k = 1; k < whole; k++)
        for (size_t i = 0; i < m; i++) power[i] *= e[i];
}

static double error_power_cpu(const struct kure_points *points, struct kure_levels levels, double p)
{
    double sum[LANES] = {0};
    for (size_t start = 0, m; start < points->n; start += m) {
        double e[BLOCK], power[BLOCK], count[BLOCK];
        m = block_size(points->n - start);
        for (size_t i = 0; i < m; i++) {
            float x = points->value[start + i];
            double code = kure_quantize(x, levels);
            double d = (double)x - (double)levels.step * (code + levels.offset);
            e[i] = d < 0 ? -d : d;
            count[i] = points->count[start + i];
        }
        raise(e, power, m, p);
        fill_up(power, m);
        fill_up(count, m);
        add_products(sum, power, count, m);
    }
    return lanes_sum(sum);
}

/* ---- backward ------------------------------------------------------------ */

/* t[m]: positions of x, at most 1 beyond the limits; code[m]: what they round to */
static void position_block(const float *x, float *t, float *code, size_t m, const struct kure_codec *codec,
                           uint64_t index)
{
    const struct kure_levels q = codec->levels;
    for (size_t i = 0; i < m; i++) code[i] = t[i] = kure_clamp(kure_position(x[i], q), q.low - 1, q.high + 1);
    round_blocks[codec->rounding](code, m, &codec->noise, index);
}

static void ste_backward_cpu(const float *x, const float *dy, float *dx, size_t n,
                             const struct kure_codec *codec)
{
    const float low = codec->levels.low, high = codec->levels.high;
    if (!(codec->levels.step > 0)) {
        memmove(dx, dy, n * sizeof *dx);
        return;
    }
    for (size_t at = 0, m; at < n; at += m) {
        float t[BLOCK], code[BLOCK];
        m = block_size(n - at);
        position_block(x + at, t, code, m, codec, at);
        for (size_t i = 0; i < m; i++)
            dx[at + i] = kure_if((code[i] >= low) & (code[i] <= high), dy[at + i]);
    }
}

/* dx = dy where the code was not clamped; returns the sum of dy * d level / d step */
static double lsq_backward_cpu(const float *x, const float *dy, float *dx, size_t n, const struct kure_codec *codec)
{
    const float low = codec->levels.low, high = codec->levels.high;
    double sum[LANES] = {0}, slope[BLOCK], gradient[BLOCK];
    if (!(codec->levels.step > 0)) {
        memmove(dx, dy, n * sizeof *dx);
        return 0;
    }
    for (size_t at = 0, m; at < n; at += m) {
        float t[BLOCK], code[BLOCK];
        m = block_size(n - at);
        position_block(x + at, t, code, m, codec, at);
        for (size_t i = 0; i < m; i++) {
            slope[i] = kure_step_slope(t[i], code[i], codec->levels);
            gradient[i] = kure_flush(dy[at + i]);
            dx[at + i] = kure_if((code[i] >= low) & (code[i] <= high), dy[at + i]);
        }
        fill_up(slope, m);
        fill_up(gradient, m);
        add_products(sum, slope, gradient, m);
    }
    return lanes_sum(sum);
}

static double pact_backward_cpu(const float *x, const float *dy, float *dx, size_t n, float clip)
{
    double sum[LANES] = {0}, block[BLOCK];
    for (size_t m; n; x += m, dy += m, dx += m, n -= m) {
        m = block_size(n);
        for (size_t i = 0; i < m; i++) {
            float v = kure_flush(x[i]), gradient = dy[i];
            block[i] = kure_if(v >= clip, kure_flush(gradient));
            dx[i] = kure_if((v >= 0) & (v < clip), gradient);
        }
        fill_up(block, m);
        add_sum(sum, block, m);
    }
    return lanes_sum(sum);
}

/* block[m]: what the quantizer sees of x[m] */
static void fold_block(const float *x, float *block, size_t m, float factor)
{
    for (size_t i = 0; i < m; i++) block[i] = kure_flush_result(kure_flush(x[i]) * factor);
}

static void fold_quantize_cpu(const float *x, float *y, size_t n, const struct kure_fold_codec *fold)
{
    for (size_t at = 0, m; at < n; at += m) {
        float block[BLOCK];
        m = block_size(n - at);
        fold_block(x + at, block, m, fold->factor);
        if (fold->codec.levels.step > 0) quantize_block(block, block, m, &fold->codec, at);
        for (size_t i = 0; i < m; i++) y[at + i] = kure_flush_result(kure_flush(block[i]) / fold->divisor);
    }
}

/* gradient[m]: dy where the code was not clamped; t, code: as by position_block, for a step above 0 */
static void fold_gradient_block(const float *x, const float *dy, float *gradient, float *t, float *code, size_t m,
                                const struct kure_fold_codec *fold, uint64_t index)
{
    const float low = fold->codec.levels.low, high = fold->codec.levels.high;
    float block[BLOCK];
    if (!(fold->codec.levels.step > 0)) {
        memcpy(gradient, dy, m * sizeof *dy);
        return;
    }
    fold_block(x, block, m, fold->factor);
    position_block(block, t, code, m, &fold->codec, index);
    for (size_t i = 0; i < m; i++) gradient[i] = kure_if((code[i] >= low) & (code[i] <= high), dy[i]);
}

static void fold_backward_cpu(const float *x, const float *dy, float *updates, size_t n, const struct kure_fold_codec *fold)
{
    for (size_t at = 0, m; at < n; at += m) {
        float t[BLOCK], code[BLOCK], gradient[BLOCK];
        m = block_size(n - at);
        fold_gradient_block(x + at, dy + at, gradient, t, code, m, fold, at);
        for (size_t i = 0; i < m; i++) updates[at + i] = kure_add(updates[at + i], gradient[i], fold->gain);
    }
}

static void fold_backward_sums_cpu(const float *x, const float *dy, float *updates, size_t n, const struct kure_fold_codec *fold,
                                   struct kure_fold_sums *out)
{
    const int quantizes = fold->codec.levels.step > 0;
    double step[LANES] = {0}, factor[LANES] = {0}, slope[BLOCK], block[BLOCK], weight[BLOCK], passed[BLOCK];
    for (size_t at = 0, m; at < n; at += m) {
        float t[BLOCK], code[BLOCK], gradient[BLOCK];
        m = block_size(n - at);
        fold_gradient_block(x + at, dy + at, gradient, t, code, m, fold, at);
        for (size_t i = 0; i < m; i++) {
            slope[i] = quantizes ? kure_step_slope(t[i], code[i], fold->codec.levels) : 0;
            block[i] = kure_flush(dy[at + i]);
            weight[i] = kure_flush(x[at + i]);
            passed[i] = kure_flush(gradient[i]);
            updates[at + i] = kure_add(updates[at + i], gradient[i], fold->gain);
        }
        fill_up(slope, m);
        fill_up(block, m);
        fill_up(weight, m);
        fill_up(passed, m);
        add_products(step, slope, block, m);
        add_products(factor, passed, weight, m);
    }
    *out = (struct kure_fold_sums){lanes_sum(step), lanes_sum(factor)};
}

static void dorefa_quantize_cpu(const float *x, float *y, size_t n, struct kure_dorefa d,
                                const struct kure_codec *codec)
{
    for (size_t at = 0, m; at < n; at += m) {
        float code[BLOCK];
        m = block_size(n - at);
        for (size_t i = 0; i < m; i++) code[i] = kure_dorefa_position(x[at + i], d);
        round_blocks[codec->rounding](code, m, &codec->noise, at);
        for (size_t i = 0; i < m; i++) y[at + i] = kure_dorefa_level(code[i], d);
    }
}

static void dorefa_sums_cpu(const float *x, const float *dy, size_t n, struct kure_dorefa d,
                            struct kure_dorefa_sums *out)
{
    double dot[LANES] = {0}, h[BLOCK], gradient[BLOCK];
    uint64_t largest = 0;
    for (size_t m; n; x += m, dy += m, n -= m) {
        int32_t here = 0;
        m = block_size(n);
        for (size_t i = 0; i < m; i++) {
            float tanh = kure_tanh(x[i]);
            here += (tanh == d.max) | (tanh == -d.max);
            h[i] = kure_flush(tanh);
            gradient[i] = kure_flush(dy[i]);
        }
        largest += (uint64_t)here;
        fill_up(h, m);
        fill_up(gradient, m);
        add_products(dot, h, gradient, m);
    }
    *out = (struct kure_dorefa_sums){lanes_sum(dot), largest};
}

static void dorefa_backward_cpu(const float *x, const float *dy, float *dx, size_t n, struct kure_dorefa d)
{
    for (size_t i = 0; i < n; i++) dx[i] = kure_dorefa_slope(x[i], dy[i], d);
}

#endif
