/*
 * cpu_kernels.c: the loops of ops.def, compiled once per instruction set:
 *
 *     -DKURE_ISA=baseline
 *     -DKURE_ISA=avx2   -mavx2
 *     -DKURE_ISA=avx512 -mavx512f -mavx512dq -mavx512vl
 *
 * The bits do not depend on the instruction set. Element-wise loops are plain C
 * that the compiler vectorizes; sums see cpu_lanes.h. The loops of quantization
 * are in cpu_quantize.h.
 */
#include "backend.h"
#include "cpu_lanes.h"
#include "cpu_quantize.h"

static double sum_cpu(const float *x, size_t n)
{
    double lanes[LANES] = {0}, block[BLOCK];
    for (size_t m; n; x += m, n -= m) {
        m = block_size(n);
        for (size_t i = 0; i < m; i++) block[i] = kure_flush(x[i]);
        fill_up(block, m);
        add_sum(lanes, block, m);
    }
    return lanes_sum(lanes);
}

static void add_powers(double lanes[6][LANES], const float *x, size_t n, double pivot)
{
    for (size_t v = 0; v < LANES; v += WIDTH) {
        doubles s1 = {0}, s2 = {0}, s3 = {0}, s4 = {0}, s5 = {0}, s6 = {0};
        for (size_t i = v; i < n; i += LANES) {
            doubles d = load_floats(x + i) - pivot, d2 = d * d, d3 = d2 * d;
            s1 += d;
            s2 += d2;
            s3 += d3;
            s4 += d2 * d2;
            s5 += d2 * d3;
            s6 += d3 * d3;
        }
        add_to(lanes[0] + v, s1);
        add_to(lanes[1] + v, s2);
        add_to(lanes[2] + v, s3);
        add_to(lanes[3] + v, s4);
        add_to(lanes[4] + v, s5);
        add_to(lanes[5] + v, s6);
    }
}

static void power_sums_cpu(const float *x, size_t n, float pivot, struct kure_power_sums *out)
{
    /* In double a pivot of at least 2^-70 swallows a subnormal x. */
    const int clean = kure_beyond(pivot, 0x1c800000) == 0;
    double lanes[6][LANES] = {{0}};
    float block[BLOCK];
    int32_t min = INT32_MAX, max = INT32_MIN;
    for (size_t m; n; x += m, n -= m) {
        m = block_size(n);
        for (size_t i = 0; i < m; i++) {
            int32_t key = kure_order(x[i]);
            min = key < min ? key : min;
            max = key > max ? key : max;
        }
        if (clean || m % LANES) {
            for (size_t i = 0; i < m; i++) block[i] = kure_flush(x[i]);
            for (size_t i = m; i % LANES; i++) block[i] = pivot; /* adds 0 to each sum */
        }
        add_powers(lanes, clean || m % LANES ? block : x, m, pivot);
    }
    *out = (struct kure_power_sums){
        .s1 = lanes_sum(lanes[0]), .s2 = lanes_sum(lanes[1]), .s3 = lanes_sum(lanes[2]),
        .s4 = lanes_sum(lanes[3]), .s5 = lanes_sum(lanes[4]), .s6 = lanes_sum(lanes[5]),
        .pivot = pivot,
        .min = kure_order(kure_flush(kure_unorder(min))),
        .max = kure_order(kure_flush(kure_unorder(max))),
    };
}

static void kurtosis_descend_cpu(float *restrict updates, const float *restrict x, size_t n,
                                 struct kure_narrow_cubic cubic, float gain)
{
    for (size_t i = 0; i < n; i++)
        updates[i] = kure_subtract(updates[i], gain * kure_narrow_cubic_at(x[i], cubic));
}

static void kurtosis_dots_cpu(const float *x, const float *w, size_t n, struct kure_cubic cubic,
                              struct kure_dots *out)
{
    double tt[LANES] = {0}, tw[LANES] = {0}, ww[LANES] = {0}, t[BLOCK], block[BLOCK];
    for (size_t m; n; x += m, w += m, n -= m) {
        m = block_size(n);
        for (size_t i = 0; i < m; i++) {
            t[i] = kure_cubic_at(x[i], cubic);
            block[i] = kure_flush(w[i]);
        }
        fill_up(t, m);
        fill_up(block, m);
        add_products(tt, t, t, m);
        add_products(tw, t, block, m);
        add_products(ww, block, block, m);
    }
    *out = (struct kure_dots){lanes_sum(tt), lanes_sum(tw), lanes_sum(ww)};
}

static void kurtosis_descend_across_cpu(float *updates, const float *x, const float *w, size_t n,
                                        struct kure_cubic cubic, double gain, double along)
{
    for (size_t i = 0; i < n; i++) {
        double across = kure_cubic_at(x[i], cubic) - along * kure_flush(w[i]);
        updates[i] = kure_subtract(updates[i], (float)(gain * across));
    }
}

static void multiply_cpu(const float *x, float *y, size_t n, float factor)
{
    for (size_t i = 0; i < n; i++) y[i] = kure_flush_result(kure_flush(x[i]) * factor);
}

static void divide_cpu(const float *x, float *y, size_t n, float divisor)
{
    for (size_t i = 0; i < n; i++) y[i] = kure_flush_result(kure_flush(x[i]) / divisor);
}

static void range_cpu(const float *x, size_t n, struct kure_range_keys *out)
{
    int32_t min = INT32_MAX, max = INT32_MIN;
    for (size_t i = 0; i < n; i++) {
        int32_t key = kure_order(x[i]);
        min = key < min ? key : min;
        max = key > max ? key : max;
    }
    *out = (struct kure_range_keys){min, max};
}

static doubles magnitude(doubles x)
{
    typedef int64_t longs __attribute__((vector_size(8 * WIDTH)));
    return (doubles)((longs)x & INT64_MAX);
}

static void add_spread(double lanes[3][LANES], const float *x, size_t n, double pivot)
{
    for (size_t v = 0; v < LANES; v += WIDTH) {
        doubles s1 = {0}, s2 = {0}, deviation = {0};
        for (size_t i = v; i < n; i += LANES) {
            doubles d = load_floats(x + i) - pivot;
            s1 += d;
            s2 += d * d;
            deviation += magnitude(d);
        }
        add_to(lanes[0] + v, s1);
        add_to(lanes[1] + v, s2);
        add_to(lanes[2] + v, deviation);
    }
}

static void spread_sums_cpu(const float *x, size_t n, float pivot, struct kure_spread_sums *out)
{
    double lanes[3][LANES] = {{0}};
    float block[BLOCK];
    uint64_t zeros = 0;
    for (size_t m; n; x += m, n -= m) {
        int32_t zeros_here = 0;
        m = block_size(n);
        for (size_t i = 0; i < m; i++) {
            block[i] = kure_flush(x[i]);
            zeros_here += block[i] == 0;
        }
        zeros += (uint64_t)zeros_here;
        for (size_t i = m; i % LANES; i++) block[i] = pivot; /* adds 0 to each sum */
        add_spread(lanes, block, m, pivot);
    }
    *out = (struct kure_spread_sums){lanes_sum(lanes[0]), lanes_sum(lanes[1]), lanes_sum(lanes[2]), zeros};
}

static uint64_t count_nan_cpu(const float *x, size_t n)
{
    uint64_t count = 0;
    for (size_t m; n; x += m, n -= m) {
        int32_t here = 0;
        m = block_size(n);
        for (size_t i = 0; i < m; i++) here += (kure_bits(x[i]) & 0x7fffffffu) > 0x7f800000u;
        count += (uint64_t)here;
    }
    return count;
}

static void gather_cpu(const float *x, size_t n, struct kure_gathered *out)
{
    *out = (struct kure_gathered){{0}};
    memcpy(out->value, x, (n < KURE_GATHERED ? n : KURE_GATHERED) * sizeof *x);
}

static void rectify_cpu(const float *x, float *y, size_t n, float slope, float cap)
{
    for (size_t i = 0; i < n; i++) y[i] = kure_rectify(x[i], slope, cap);
}

static void rectify_backward_cpu(const float *x, const float *dy, float *dx, size_t n, float slope, float cap)
{
    for (size_t i = 0; i < n; i++) dx[i] = kure_rectify_slope(x[i], dy[i], slope, cap);
}

static void fold_biases_cpu(const struct kure_folded_norm *b, float *y, size_t n)
{
    for (size_t r = 0; r < n; r++) y[r] = kure_fold_bias(b->gamma[r], b->beta[r], b->mean[r], b->variance[r]);
}

static void batchnorm_backward_cpu(const struct kure_folded_norm *b, size_t n)
{
    for (size_t r = 0; r < n; r++) {
        double sum = 0;
        for (size_t c = 0; c < b->chunks; c++) sum += b->sums[r * b->chunks + c].factor;
        b->gamma_updates[r] = kure_fold_gamma(b->gamma_updates[r], sum, b->mean[r], b->variance[r], b->bias_gradient[r]);
    }
}

#define JOIN(a, b) a##b
#define NAME(isa) JOIN(kure_cpu_, isa)
#define TEXT(x) TEXT_(x)
#define TEXT_(x) #x

extern const struct kure_backend NAME(KURE_ISA);
const struct kure_backend NAME(KURE_ISA) = {
    .name = TEXT(KURE_ISA),
#define KURE_OP(name, agreement, help) .name = name##_cpu,
#include "ops.def"
#undef KURE_OP
};
