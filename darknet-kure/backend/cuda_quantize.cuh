/* cuda_quantize.cuh: the rows of ops.def about quantization; see cuda_ops.cuh. */
#ifndef KURE_CUDA_QUANTIZE_CUH
#define KURE_CUDA_QUANTIZE_CUH

#include "cuda_ops.cuh"

/* Of element i of a call: four elements share a counter. */
static __device__ float uniform_at(const struct kure_noise &noise, uint64_t i)
{
    const uint64_t index = noise.first + i;
    const struct kure_four four = kure_philox(noise.seed, noise.stream, index / 4);
    const unsigned k = (unsigned)(index % 4);
    return kure_uniform(k == 0 ? four.word[0] : k == 1 ? four.word[1] : k == 2 ? four.word[2] : four.word[3]);
}

/* t: a position; i: number of the element among those that noise is for */
static __device__ float round_position(float t, enum kure_rounding rounding, const struct kure_noise &noise, uint64_t i)
{
    switch (rounding) {
#define KURE_ROUNDING(ENUM, name, draws, help) \
    case KURE_ROUNDING_##ENUM: return kure_round_##name(t, draws ? uniform_at(noise, i) : 0);
#include "rounding.def"
#undef KURE_ROUNDING
    default: return t;
    }
}

static __device__ float fake_quantized(float x, const struct kure_codec &codec, uint64_t i)
{
    const struct kure_levels q = codec.levels;
    if (!(q.step > 0)) return 0;
    const float t = kure_clamp(kure_position(x, q), q.low, q.high);
    return kure_dequantize(round_position(t, codec.rounding, codec.noise, i), q);
}

static __device__ void fake_quantize_cuda(const work &w, void *)
{
    const float *x = w.a->x + w.start;
    float *y = w.a->y + w.start;
    const struct kure_codec codec = w.a->fold.codec;
    const size_t start = w.start;
    each(w.n, [=](size_t i) { y[i] = fake_quantized(x[i], codec, start + i); });
}

static __device__ void range_quantize_cuda(const work &w, range_quantize_result *out)
{
    const float *x = w.a->x + w.start;
    float *y = w.a->y + w.start;
    const struct kure_codec codec = w.a->fold.codec;
    const size_t start = w.start;
    int32_t min = INT32_MAX, max = INT32_MIN;
    each(w.n, [&](size_t i) {
        const float v = x[i];
        const int32_t key = kure_order(v);
        min = key < min ? key : min;
        max = key > max ? key : max;
        y[i] = fake_quantized(v, codec, start + i);
    });
    min = over_threads(min, least());
    max = over_threads(max, most());
    if (threadIdx.x == 0) *out = {min, max};
}

/* What the quantizer sees of x */
static __device__ float folded(float x, const struct kure_fold_codec &fold)
{
    return kure_flush_result(kure_flush(x) * fold.factor);
}

static __device__ void fold_quantize_cuda(const work &w, void *)
{
    const float *x = w.a->x + w.start;
    float *y = w.a->y + w.start;
    const struct kure_fold_codec fold = w.a->fold;
    const int quantizes = fold.codec.levels.step > 0;
    const size_t start = w.start;
    each(w.n, [=](size_t i) {
        const float v = folded(x[i], fold);
        y[i] = kure_flush_result(kure_flush(quantizes ? fake_quantized(v, fold.codec, start + i) : v) / fold.divisor);
    });
}

static __device__ void quantization_sums_cuda(const work &w, quantization_sums_result *out)
{
    const float *x = w.a->x + w.start;
    const struct kure_codec codec = w.a->fold.codec;
    const size_t start = w.start;
    const terms<2> s = lane_sums<2>(w.n, [=](size_t i) {
        const double v = kure_flush(x[i]), error = v - fake_quantized(x[i], codec, start + i);
        return terms<2>{{v * v, error * error}};
    });
    if (threadIdx.x == 0) *out = {s.of[0], s.of[1]};
}

static __device__ void level_sums_cuda(const work &w, level_sums_result *out)
{
    const float *x = w.a->x + w.start;
    const double *total = w.a->points.total + w.start, *count = w.a->points.count + w.start;
    const struct kure_levels levels = w.a->points.levels;
    const terms<2> s = lane_sums<2>(w.n, [=](size_t i) {
        const double level = kure_quantize(x[i], levels) + levels.offset;
        return terms<2>{{level * total[i], level * (level * count[i])}};
    });
    if (threadIdx.x == 0) *out = {s.of[0], s.of[1]};
}

static __device__ double raised(double e, double p)
{
    const int whole = (int)p;
    if (whole != p) return pow(e, p);
    double power = e;
    for (int k = 1; k < whole; k++) power *= e;
    return power;
}

static __device__ void error_power_cuda(const work &w, error_power_result *out)
{
    const float *x = w.a->x + w.start;
    const double *count = w.a->points.count + w.start, p = w.a->points.p;
    const struct kure_levels levels = w.a->points.levels;
    const terms<1> s = lane_sums<1>(w.n, [=](size_t i) {
        const double code = kure_quantize(x[i], levels);
        const double d = (double)x[i] - (double)levels.step * (code + levels.offset);
        return terms<1>{{raised(d < 0 ? -d : d, p) * count[i]}};
    });
    if (threadIdx.x == 0) *out = s.of[0];
}

/* ---- backward ------------------------------------------------------------ */

struct rounded {
    float position, code; /* at most 1 beyond the limits, and what it rounds to */
};

static __device__ rounded round_beyond(float x, const struct kure_codec &codec, uint64_t i)
{
    const struct kure_levels q = codec.levels;
    const float t = kure_clamp(kure_position(x, q), q.low - 1, q.high + 1);
    return {t, round_position(t, codec.rounding, codec.noise, i)};
}

/* dy where the code was not clamped */
static __device__ float passed(const rounded &r, float dy, const struct kure_levels &q)
{
    return kure_if((r.code >= q.low) & (r.code <= q.high), dy);
}

static __device__ void ste_backward_cuda(const work &w, void *)
{
    const float *x = w.a->x + w.start, *dy = w.a->dy + w.start;
    float *dx = w.a->dx + w.start;
    const struct kure_codec codec = w.a->fold.codec;
    const int quantizes = codec.levels.step > 0;
    const size_t start = w.start;
    each(w.n, [=](size_t i) {
        dx[i] = quantizes ? passed(round_beyond(x[i], codec, start + i), dy[i], codec.levels) : dy[i];
    });
}

static __device__ void lsq_backward_cuda(const work &w, lsq_backward_result *out)
{
    const float *x = w.a->x + w.start, *dy = w.a->dy + w.start;
    float *dx = w.a->dx + w.start;
    const struct kure_codec codec = w.a->fold.codec;
    const int quantizes = codec.levels.step > 0;
    const size_t start = w.start;
    const terms<1> s = lane_sums<1>(w.n, [=](size_t i) {
        const float gradient = dy[i];
        if (!quantizes) {
            dx[i] = gradient;
            return terms<1>{{0}};
        }
        const rounded r = round_beyond(x[i], codec, start + i);
        dx[i] = passed(r, gradient, codec.levels);
        const double slope = kure_step_slope(r.position, r.code, codec.levels), g = kure_flush(gradient);
        return terms<1>{{slope * g}};
    });
    if (threadIdx.x == 0) *out = s.of[0];
}

static __device__ void pact_backward_cuda(const work &w, pact_backward_result *out)
{
    const float *x = w.a->x + w.start, *dy = w.a->dy + w.start, clip = w.a->factor;
    float *dx = w.a->dx + w.start;
    const terms<1> s = lane_sums<1>(w.n, [=](size_t i) {
        const float v = kure_flush(x[i]), gradient = dy[i];
        dx[i] = kure_if((v >= 0) & (v < clip), gradient);
        return terms<1>{{(double)kure_if(v >= clip, kure_flush(gradient))}};
    });
    if (threadIdx.x == 0) *out = s.of[0];
}

static __device__ void fold_backward_cuda(const work &w, void *)
{
    const float *x = w.a->x + w.start, *dy = w.a->dy + w.start;
    float *updates = w.a->dx + w.start;
    const struct kure_fold_codec fold = w.a->fold;
    const int quantizes = fold.codec.levels.step > 0;
    const size_t start = w.start;
    each(w.n, [=](size_t i) {
        const float g = quantizes ? passed(round_beyond(folded(x[i], fold), fold.codec, start + i), dy[i], fold.codec.levels) : dy[i];
        updates[i] = kure_add(updates[i], g, fold.gain);
    });
}

static __device__ void fold_backward_sums_cuda(const work &w, fold_backward_sums_result *out)
{
    const float *x = w.a->x + w.start, *dy = w.a->dy + w.start;
    float *updates = w.a->dx + w.start;
    const struct kure_fold_codec fold = w.a->fold;
    const int quantizes = fold.codec.levels.step > 0;
    const size_t start = w.start;
    const terms<2> s = lane_sums<2>(w.n, [=](size_t i) {
        const float v = x[i], gradient = dy[i];
        const rounded r = quantizes ? round_beyond(folded(v, fold), fold.codec, start + i) : rounded{0, 0};
        const float g = quantizes ? passed(r, gradient, fold.codec.levels) : gradient;
        updates[i] = kure_add(updates[i], g, fold.gain);
        const double slope = quantizes ? kure_step_slope(r.position, r.code, fold.codec.levels) : 0;
        return terms<2>{{slope * (double)kure_flush(gradient), (double)kure_flush(g) * (double)kure_flush(v)}};
    });
    if (threadIdx.x == 0) *out = {s.of[0], s.of[1]};
}

static __device__ void dorefa_quantize_cuda(const work &w, void *)
{
    const float *x = w.a->x + w.start;
    float *y = w.a->y + w.start;
    const struct kure_dorefa d = w.a->dorefa.constants;
    const enum kure_rounding rounding = w.a->dorefa.rounding;
    const struct kure_noise noise = w.a->dorefa.noise;
    const size_t start = w.start;
    each(w.n, [=](size_t i) {
        y[i] = kure_dorefa_level(round_position(kure_dorefa_position(x[i], d), rounding, noise, start + i), d);
    });
}

static __device__ void dorefa_sums_cuda(const work &w, dorefa_sums_result *out)
{
    const float *x = w.a->x + w.start, *dy = w.a->dy + w.start;
    const struct kure_dorefa d = w.a->dorefa.constants;
    unsigned long long largest = 0;
    const terms<1> s = lane_sums<1>(w.n, [&](size_t i) {
        const float tanh = kure_tanh(x[i]);
        largest += (tanh == d.max) | (tanh == -d.max);
        const double h = kure_flush(tanh), gradient = kure_flush(dy[i]);
        return terms<1>{{h * gradient}};
    });
    largest = over_threads(largest, plus());
    if (threadIdx.x == 0) *out = {s.of[0], largest};
}

static __device__ struct kure_dorefa with_share(const struct kure_cuda_arguments *a)
{
    struct kure_dorefa d = a->dorefa.constants;
    struct kure_dorefa_sums all = {0, 0};
    if (!a->dorefa.sums) return d;
    for (size_t c = 0; c < a->dorefa.chunks; c++) {
        all.dot += a->dorefa.sums[c].dot;
        all.largest += a->dorefa.sums[c].largest;
    }
    d.share = kure_dorefa_share(all.dot, all.largest, d.max);
    return d;
}

static __device__ void dorefa_backward_cuda(const work &w, void *)
{
    const float *x = w.a->x + w.start, *dy = w.a->dy + w.start;
    float *dx = w.a->dx + w.start;
    const struct kure_dorefa d = with_share(w.a);
    each(w.n, [=](size_t i) { dx[i] = kure_dorefa_slope(x[i], dy[i], d); });
}

#endif
