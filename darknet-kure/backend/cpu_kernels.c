/*
 * cpu_kernels.c: the loops of ops.def, compiled once per instruction set:
 *
 *     -DKURE_ISA=baseline
 *     -DKURE_ISA=avx2   -mavx2
 *     -DKURE_ISA=avx512 -mavx512f -mavx512dq -mavx512vl
 *
 * The bits do not depend on the instruction set. Element-wise loops are plain C
 * that the compiler vectorizes. Sums run in LANES lanes: within a block element
 * i belongs to lane i % LANES and a lane adds its elements in order, whatever
 * the width of a vector; then blocks in order, then lanes_sum.
 */
#if defined(__AVX2__)
#include <immintrin.h>
#endif
#include <string.h>

#include "backend.h"

#if defined(__AVX512F__)
enum { WIDTH = 8 }; /* doubles in a vector */
#elif defined(__AVX2__)
enum { WIDTH = 4 };
#else
enum { WIDTH = 2 };
#endif
enum { LANES = 8, BLOCK = 256 }; /* a block of doubles stays in the nearest cache */

typedef double doubles __attribute__((vector_size(8 * WIDTH)));
typedef float floats __attribute__((vector_size(4 * WIDTH)));

static doubles load(const double *x)
{
    doubles d;
    memcpy(&d, x, sizeof d);
    return d;
}

/* gcc takes __builtin_convertvector apart into halves */
static doubles load_floats(const float *x)
{
#if defined(__AVX512F__)
    return _mm512_cvtps_pd(_mm256_loadu_ps(x));
#elif defined(__AVX2__)
    return _mm256_cvtps_pd(_mm_loadu_ps(x));
#else
    floats f;
    memcpy(&f, x, sizeof f);
    return __builtin_convertvector(f, doubles);
#endif
}

/* lanes[0..WIDTH-1] += s */
static void add_to(double *lanes, doubles s)
{
    s = load(lanes) + s;
    memcpy(lanes, &s, sizeof s);
}

static double lanes_sum(const double lanes[LANES])
{
    return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
           ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

/* block[n ..] = 0 up to a whole number of lanes: adds nothing to any sum */
static void fill_up(double *block, size_t n)
{
    for (; n % LANES; n++) block[n] = 0;
}

static size_t block_size(size_t left)
{
    return left < BLOCK ? left : BLOCK;
}

static void add_sum(double lanes[LANES], const double *x, size_t n)
{
    for (size_t v = 0; v < LANES; v += WIDTH) {
        doubles s = {0};
        for (size_t i = v; i < n; i += LANES) s += load(x + i);
        add_to(lanes + v, s);
    }
}

static void add_products(double lanes[LANES], const double *x, const double *y, size_t n)
{
    for (size_t v = 0; v < LANES; v += WIDTH) {
        doubles s = {0};
        for (size_t i = v; i < n; i += LANES) s += load(x + i) * load(y + i);
        add_to(lanes + v, s);
    }
}

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

static void fake_quantize_cpu(const float *x, float *y, size_t n, struct kure_levels levels)
{
    for (size_t i = 0; i < n; i++) y[i] = kure_dequantize(kure_quantize(x[i], levels), levels);
}

static void quantization_sums_cpu(const float *x, size_t n, struct kure_levels levels,
                                  struct kure_error_sums *out)
{
    double signal[LANES] = {0}, noise[LANES] = {0}, block[BLOCK], error[BLOCK];
    for (size_t m; n; x += m, n -= m) {
        m = block_size(n);
        for (size_t i = 0; i < m; i++) {
            block[i] = kure_flush(x[i]);
            error[i] = block[i] - kure_dequantize(kure_quantize(x[i], levels), levels);
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
