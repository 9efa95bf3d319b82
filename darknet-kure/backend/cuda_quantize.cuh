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
    const float t = kure_clamp(kure_position(x, q), q.low, q.high);
    return kure_dequantize(round_position(t, codec.rounding, codec.noise, i), q);
}

static __device__ void fake_quantize_cuda(const work &w, void *)
{
    const float *x = w.a->x + w.start;
    float *y = w.a->y + w.start;
    const struct kure_codec codec = w.a->codec;
    const size_t start = w.start;
    each(w.n, [=](size_t i) { y[i] = fake_quantized(x[i], codec, start + i); });
}

static __device__ void quantization_sums_cuda(const work &w, quantization_sums_result *out)
{
    const float *x = w.a->x + w.start;
    const struct kure_codec codec = w.a->codec;
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

static __device__ void ste_backward_cuda(const work &w, void *)
{
    const float *x = w.a->x + w.start, *dy = w.a->dy + w.start;
    float *dx = w.a->y + w.start;
    const struct kure_codec codec = w.a->codec;
    const size_t start = w.start;
    each(w.n, [=](size_t i) {
        const float code = round_beyond(x[i], codec, start + i).code;
        dx[i] = kure_if((code >= codec.levels.low) & (code <= codec.levels.high), dy[i]);
    });
}

static __device__ void step_gradient_cuda(const work &w, step_gradient_result *out)
{
    const float *x = w.a->x + w.start, *dy = w.a->dy + w.start;
    const struct kure_codec codec = w.a->codec;
    const size_t start = w.start;
    const terms<1> s = lane_sums<1>(w.n, [=](size_t i) {
        const rounded r = round_beyond(x[i], codec, start + i);
        const double slope = kure_step_slope(r.position, r.code, codec.levels), gradient = kure_flush(dy[i]);
        return terms<1>{{slope * gradient}};
    });
    if (threadIdx.x == 0) *out = s.of[0];
}

static __device__ void pact_backward_cuda(const work &w, void *)
{
    const float *x = w.a->x + w.start, *dy = w.a->dy + w.start, clip = w.a->factor;
    float *dx = w.a->y + w.start;
    each(w.n, [=](size_t i) {
        const float v = kure_flush(x[i]);
        dx[i] = kure_if((v >= 0) & (v < clip), dy[i]);
    });
}

static __device__ void pact_gradient_cuda(const work &w, pact_gradient_result *out)
{
    const float *x = w.a->x + w.start, *dy = w.a->dy + w.start, clip = w.a->factor;
    const terms<1> s = lane_sums<1>(w.n, [=](size_t i) {
        return terms<1>{{(double)kure_if(kure_flush(x[i]) >= clip, kure_flush(dy[i]))}};
    });
    if (threadIdx.x == 0) *out = s.of[0];
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

static __device__ void dorefa_backward_cuda(const work &w, void *)
{
    const float *x = w.a->x + w.start, *dy = w.a->dy + w.start;
    float *dx = w.a->y + w.start;
    const struct kure_dorefa d = w.a->dorefa.constants;
    each(w.n, [=](size_t i) { dx[i] = kure_dorefa_slope(x[i], dy[i], d); });
}

#endif
