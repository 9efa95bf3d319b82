/*
 * cuda_ops.cuh: the CUDA twin of every row of ops.def, as backend.h describes it: all
 * threads of a block call it for one chunk of a tensor.
 *
 * Compiled with --fmad=false: with the same operations in the same order the bits are the
 * CPU's. error_power alone is not exact, where p is no whole number: pow is CUDA's own.
 */
#ifndef KURE_CUDA_OPS_CUH
#define KURE_CUDA_OPS_CUH

#include <math.h>

#include "cuda.h"
#include "cuda_lanes.cuh"

/* What the threads of a block share: one chunk of one tensor. */
struct work {
    const struct kure_cuda_arguments *a;
    size_t start, n;
};

/* ---- results: no member where the op has none ------------------------------- */

typedef double sum_result;
typedef struct kure_gathered gather_result;
typedef void rectify_result, rectify_backward_result, fold_biases_result, batchnorm_backward_result, fold_quantize_result, fold_backward_result;
typedef struct kure_range_keys range_quantize_result;
typedef struct kure_fold_sums fold_backward_sums_result;
typedef struct kure_power_sums power_sums_result;
typedef void kurtosis_descend_result, kurtosis_descend_across_result, multiply_result, divide_result;
typedef struct kure_dots kurtosis_dots_result;
typedef struct kure_range_keys range_result;
typedef struct kure_spread_sums spread_sums_result;
typedef uint64_t count_nan_result;
typedef void fake_quantize_result, ste_backward_result, dorefa_quantize_result, dorefa_backward_result;
typedef struct kure_error_sums quantization_sums_result;
typedef struct kure_level_sums level_sums_result;
typedef double error_power_result, lsq_backward_result, pact_backward_result;
typedef struct kure_dorefa_sums dorefa_sums_result;

/* ---- statistics and kurtosis ------------------------------------------------ */

static __device__ void sum_cuda(const work &w, sum_result *out)
{
    const float *x = w.a->x + w.start;
    const terms<1> s = lane_sums<1>(w.n, [=](size_t i) { return terms<1>{{(double)kure_flush(x[i])}}; });
    if (threadIdx.x == 0) *out = s.of[0];
}

static __device__ float pivot_of(const struct kure_cuda_arguments *a)
{
    if (!a->pivot.sum) return a->pivot.pivot;
    return kure_flush_result((float)(*a->pivot.sum / (double)a->pivot.first));
}

static __device__ struct kure_range_keys range_of(const float *x, size_t n)
{
    int32_t min = INT32_MAX, max = INT32_MIN;
    each(n, [&](size_t i) {
        const int32_t key = kure_order(x[i]);
        min = key < min ? key : min;
        max = key > max ? key : max;
    });
    min = over_threads(min, least());
    max = over_threads(max, most());
    return {min, max};
}

static __device__ void power_sums_cuda(const work &w, power_sums_result *out)
{
    const float *x = w.a->x + w.start;
    const double pivot = pivot_of(w.a);
    int32_t min = INT32_MAX, max = INT32_MIN;
    const terms<6> s = lane_sums<6>(w.n, [&](size_t i) {
        const float v = x[i];
        const int32_t key = kure_order(v);
        const double d = (double)kure_flush(v) - pivot, d2 = d * d, d3 = d2 * d;
        min = key < min ? key : min;
        max = key > max ? key : max;
        return terms<6>{{d, d2, d3, d2 * d2, d2 * d3, d3 * d3}};
    });
    min = over_threads(min, least());
    max = over_threads(max, most());
    if (threadIdx.x == 0)
        *out = {s.of[0], s.of[1], s.of[2], s.of[3], s.of[4], s.of[5], pivot,
                kure_order(kure_flush(kure_unorder(min))), kure_order(kure_flush(kure_unorder(max)))};
}

static __device__ void kurtosis_descend_cuda(const work &w, void *)
{
    const float *x = w.a->x + w.start, gain = w.a->descend.gain;
    float *updates = w.a->dx + w.start;
    const struct kure_narrow_cubic cubic = w.a->descend.cubic;
    each(w.n, [=](size_t i) { updates[i] = kure_subtract(updates[i], gain * kure_narrow_cubic_at(x[i], cubic)); });
}

static __device__ void kurtosis_descend_across_cuda(const work &w, void *)
{
    const float *x = w.a->x + w.start, *v = w.a->w + w.start;
    float *updates = w.a->dx + w.start;
    const struct kure_cubic cubic = w.a->across.cubic;
    const double gain = w.a->across.gain, along = w.a->across.along;
    each(w.n, [=](size_t i) {
        const double across = kure_cubic_at(x[i], cubic) - along * kure_flush(v[i]);
        updates[i] = kure_subtract(updates[i], (float)(gain * across));
    });
}

static __device__ void kurtosis_dots_cuda(const work &w, kurtosis_dots_result *out)
{
    const float *x = w.a->x + w.start, *v = w.a->w + w.start;
    const struct kure_cubic cubic = w.a->across.cubic;
    const terms<3> s = lane_sums<3>(w.n, [=](size_t i) {
        const double t = kure_cubic_at(x[i], cubic), u = kure_flush(v[i]);
        return terms<3>{{t * t, t * u, u * u}};
    });
    if (threadIdx.x == 0) *out = {s.of[0], s.of[1], s.of[2]};
}

static __device__ void multiply_cuda(const work &w, void *)
{
    const float *x = w.a->x + w.start, factor = w.a->factor;
    float *y = w.a->y + w.start;
    each(w.n, [=](size_t i) { y[i] = kure_flush_result(kure_flush(x[i]) * factor); });
}

static __device__ void divide_cuda(const work &w, void *)
{
    const float *x = w.a->x + w.start, divisor = w.a->factor;
    float *y = w.a->y + w.start;
    each(w.n, [=](size_t i) { y[i] = kure_flush_result(kure_flush(x[i]) / divisor); });
}

static __device__ void gather_cuda(const work &w, gather_result *out)
{
    const float *x = w.a->x + w.start;
    const unsigned t = threadIdx.x;
    if (t < KURE_GATHERED) out->value[t] = t < w.n ? x[t] : 0;
}

static __device__ void rectify_cuda(const work &w, void *)
{
    const float *x = w.a->x + w.start, slope = w.a->factor, cap = w.a->cap;
    float *y = w.a->y + w.start;
    each(w.n, [=](size_t i) { y[i] = kure_rectify(x[i], slope, cap); });
}

static __device__ void rectify_backward_cuda(const work &w, void *)
{
    const float *x = w.a->x + w.start, *dy = w.a->dy + w.start, slope = w.a->factor, cap = w.a->cap;
    float *dx = w.a->dx + w.start;
    each(w.n, [=](size_t i) { dx[i] = kure_rectify_slope(x[i], dy[i], slope, cap); });
}

static __device__ void batchnorm_backward_cuda(const work &w, void *)
{
    const struct kure_folded_norm b = w.a->batchnorm;
    const size_t start = w.start;
    each(w.n, [=](size_t i) {
        const size_t r = start + i;
        double sum = 0;
        for (size_t c = 0; c < b.chunks; c++) sum += b.sums[r * b.chunks + c].factor;
        b.gamma_updates[r] = kure_fold_gamma(b.gamma_updates[r], sum, b.mean[r], b.variance[r], b.bias_gradient[r]);
    });
}

static __device__ void fold_biases_cuda(const work &w, void *)
{
    const struct kure_folded_norm b = w.a->batchnorm;
    float *y = w.a->y;
    const size_t start = w.start;
    each(w.n, [=](size_t i) {
        const size_t r = start + i;
        y[r] = kure_fold_bias(b.gamma[r], b.beta[r], b.mean[r], b.variance[r]);
    });
}

static __device__ void range_cuda(const work &w, range_result *out)
{
    const struct kure_range_keys keys = range_of(w.a->x + w.start, w.n);
    if (threadIdx.x == 0) *out = keys;
}

static __device__ void spread_sums_cuda(const work &w, spread_sums_result *out)
{
    const float *x = w.a->x + w.start;
    const double pivot = pivot_of(w.a);
    unsigned long long zeros = 0;
    const terms<3> s = lane_sums<3>(w.n, [&](size_t i) {
        const float v = kure_flush(x[i]);
        const double d = (double)v - pivot;
        zeros += v == 0;
        return terms<3>{{d, d * d, d < 0 ? -d : d}};
    });
    zeros = over_threads(zeros, plus());
    if (threadIdx.x == 0) *out = {s.of[0], s.of[1], s.of[2], zeros};
}

static __device__ void count_nan_cuda(const work &w, count_nan_result *out)
{
    const float *x = w.a->x + w.start;
    unsigned long long count = 0;
    each(w.n, [&](size_t i) { count += (kure_bits(x[i]) & 0x7fffffffu) > 0x7f800000u; });
    count = over_threads(count, plus());
    if (threadIdx.x == 0) *out = count;
}

#endif
