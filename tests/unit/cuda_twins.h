/* cuda_twins.h: the part of test_cuda.c with a row for every row of ops.def: the same by the
 * CPU, arguments, and what comes out. */
#ifndef CUDA_TWINS_H
#define CUDA_TWINS_H

#include <math.h>
#include <string.h>

#include "../../darknet-kure/backend/cuda.h"
#include "check.h"

typedef struct kure_cuda_arguments arguments; /* with pointers of either side */

/* ---- one function per row of ops.def: the same by the CPU ---------------------- */

static struct kure_codec codec_from(const arguments *a, size_t start)
{
    struct kure_codec codec = a->fold.codec;
    codec.noise.first += start;
    return codec;
}

static void cpu_sum(const arguments *a, size_t at, size_t n, void *out)
{
    *(double *)out = kure_cpu()->sum(a->x + at, n);
}

static void cpu_power_sums(const arguments *a, size_t at, size_t n, void *out)
{
    kure_cpu()->power_sums(a->x + at, n, a->pivot.pivot, out);
}

static void cpu_kurtosis_descend(const arguments *a, size_t at, size_t n, void *out)
{
    (void)out;
    kure_cpu()->kurtosis_descend(a->dx + at, a->x + at, n, a->descend.cubic, a->descend.gain);
}

static void cpu_kurtosis_descend_across(const arguments *a, size_t at, size_t n, void *out)
{
    (void)out;
    kure_cpu()->kurtosis_descend_across(a->dx + at, a->x + at, a->w + at, n, a->across.cubic, a->across.gain, a->across.along);
}

static void cpu_kurtosis_dots(const arguments *a, size_t at, size_t n, void *out)
{
    kure_cpu()->kurtosis_dots(a->x + at, a->w + at, n, a->across.cubic, out);
}

static void cpu_multiply(const arguments *a, size_t at, size_t n, void *out)
{
    (void)out;
    kure_cpu()->multiply(a->x + at, a->y + at, n, a->factor);
}

static void cpu_divide(const arguments *a, size_t at, size_t n, void *out)
{
    (void)out;
    kure_cpu()->divide(a->x + at, a->y + at, n, a->factor);
}

static void cpu_range(const arguments *a, size_t at, size_t n, void *out)
{
    kure_cpu()->range(a->x + at, n, out);
}

static void cpu_spread_sums(const arguments *a, size_t at, size_t n, void *out)
{
    kure_cpu()->spread_sums(a->x + at, n, a->pivot.pivot, out);
}

static void cpu_count_nan(const arguments *a, size_t at, size_t n, void *out)
{
    *(uint64_t *)out = kure_cpu()->count_nan(a->x + at, n);
}

static void cpu_fake_quantize(const arguments *a, size_t at, size_t n, void *out)
{
    const struct kure_codec codec = codec_from(a, at);
    (void)out;
    kure_cpu()->fake_quantize(a->x + at, a->y + at, n, &codec);
}

static void cpu_quantization_sums(const arguments *a, size_t at, size_t n, void *out)
{
    const struct kure_codec codec = codec_from(a, at);
    kure_cpu()->quantization_sums(a->x + at, n, &codec, out);
}

static struct kure_points points_of(const arguments *a, size_t at, size_t n)
{
    return (struct kure_points){a->x + at, a->points.total + at, a->points.count + at, n};
}

static void cpu_level_sums(const arguments *a, size_t at, size_t n, void *out)
{
    const struct kure_points points = points_of(a, at, n);
    kure_cpu()->level_sums(&points, a->points.levels, out);
}

static void cpu_error_power(const arguments *a, size_t at, size_t n, void *out)
{
    const struct kure_points points = points_of(a, at, n);
    *(double *)out = kure_cpu()->error_power(&points, a->points.levels, a->points.p);
}

static void cpu_ste_backward(const arguments *a, size_t at, size_t n, void *out)
{
    const struct kure_codec codec = codec_from(a, at);
    (void)out;
    kure_cpu()->ste_backward(a->x + at, a->dy + at, a->dx + at, n, &codec);
}

static void cpu_range_quantize(const arguments *a, size_t at, size_t n, void *out)
{
    const struct kure_codec codec = codec_from(a, at);
    kure_cpu()->range_quantize(a->x + at, a->y + at, n, &codec, out);
}

static void cpu_lsq_backward(const arguments *a, size_t at, size_t n, void *out)
{
    const struct kure_codec codec = codec_from(a, at);
    *(double *)out = kure_cpu()->lsq_backward(a->x + at, a->dy + at, a->dx + at, n, &codec);
}

static void cpu_pact_backward(const arguments *a, size_t at, size_t n, void *out)
{
    *(double *)out = kure_cpu()->pact_backward(a->x + at, a->dy + at, a->dx + at, n, a->factor);
}

static struct kure_fold_codec fold_from(const arguments *a, size_t at)
{
    return (struct kure_fold_codec){codec_from(a, at), a->fold.factor, a->fold.divisor, a->fold.gain};
}

static void cpu_fold_quantize(const arguments *a, size_t at, size_t n, void *out)
{
    const struct kure_fold_codec fold = fold_from(a, at);
    (void)out;
    kure_cpu()->fold_quantize(a->x + at, a->y + at, n, &fold);
}

static void cpu_fold_backward(const arguments *a, size_t at, size_t n, void *out)
{
    const struct kure_fold_codec fold = fold_from(a, at);
    (void)out;
    kure_cpu()->fold_backward(a->x + at, a->dy + at, a->dx + at, n, &fold);
}

static void cpu_fold_backward_sums(const arguments *a, size_t at, size_t n, void *out)
{
    const struct kure_fold_codec fold = fold_from(a, at);
    kure_cpu()->fold_backward_sums(a->x + at, a->dy + at, a->dx + at, n, &fold, out);
}

static struct kure_folded_norm norm_from(const arguments *a, size_t at)
{
    struct kure_folded_norm norm = a->batchnorm;
    norm.gamma += at, norm.beta += at, norm.mean += at, norm.variance += at, norm.bias_gradient += at, norm.gamma_updates += at;
    norm.sums += at * norm.chunks;
    return norm;
}

static void cpu_fold_biases(const arguments *a, size_t at, size_t n, void *out)
{
    const struct kure_folded_norm norm = norm_from(a, at);
    (void)out;
    kure_cpu()->fold_biases(&norm, a->y + at, n);
}

static void cpu_batchnorm_backward(const arguments *a, size_t at, size_t n, void *out)
{
    const struct kure_folded_norm norm = norm_from(a, at);
    (void)out;
    kure_cpu()->batchnorm_backward(&norm, n);
}

static void cpu_gather(const arguments *a, size_t at, size_t n, void *out)
{
    kure_cpu()->gather(a->x + at, n, out);
}

static void cpu_rectify(const arguments *a, size_t at, size_t n, void *out)
{
    (void)out;
    kure_cpu()->rectify(a->x + at, a->y + at, n, a->factor, a->cap);
}

static void cpu_rectify_backward(const arguments *a, size_t at, size_t n, void *out)
{
    (void)out;
    kure_cpu()->rectify_backward(a->x + at, a->dy + at, a->dx + at, n, a->factor, a->cap);
}

static void cpu_dorefa_quantize(const arguments *a, size_t at, size_t n, void *out)
{
    const struct kure_codec codec = {.rounding = a->dorefa.rounding,
                                     .noise = {a->dorefa.noise.seed, a->dorefa.noise.stream, a->dorefa.noise.first + at}};
    (void)out;
    kure_cpu()->dorefa_quantize(a->x + at, a->y + at, n, a->dorefa.constants, &codec);
}

static void cpu_dorefa_sums(const arguments *a, size_t at, size_t n, void *out)
{
    kure_cpu()->dorefa_sums(a->x + at, a->dy + at, n, a->dorefa.constants, out);
}

static void cpu_dorefa_backward(const arguments *a, size_t at, size_t n, void *out)
{
    (void)out;
    kure_cpu()->dorefa_backward(a->x + at, a->dy + at, a->dx + at, n, a->dorefa.constants);
}

/* ---- arguments, in variants -------------------------------------------------- */

static const struct kure_levels midrise = {.step = 0.3f, .low = -8, .high = 7, .offset = 0.5f};
static const struct kure_levels shifted = {.step = 0.2f, .low = -3, .high = 12, .offset = 0};

enum kind { SUMS, PIVOT, DESCEND, ACROSS, FACTOR, CODEC, FOLD, NORM, DOREFA, POINTS };

/* of tensor t */
static void set(arguments *a, enum kind kind, int variant, size_t t)
{
    const struct kure_noise noise = {5 + t, 6, 7 + 3 * t};
    const struct kure_cubic cubic = {.mean = 0.2, .m3 = -0.1, .slope = 5 + variant};
    switch (kind) {
    case PIVOT: a->pivot.pivot = variant % 2 ? 0 : 0.25f; break;
    case DESCEND:
        a->descend.cubic = (struct kure_narrow_cubic){0.2f, 1e-9f, 1.3f, -0.1f, 4};
        a->descend.gain = 0.01f * (float)(variant + 1);
        break;
    case ACROSS:
        a->across.cubic = cubic;
        a->across.gain = 0.01;
        a->across.along = 0.3;
        break;
    case FACTOR:
        a->factor = variant % 2 ? 0.75f : 1.7f;
        a->cap = variant % 2 ? 1 : INFINITY;
        break;
    case FOLD: /* two variants more than there are roundings: without a step */
        a->fold = (struct kure_fold_codec){{variant % 2 ? shifted : midrise, (enum kure_rounding)(variant % KURE_ROUNDINGS), noise}, 1.3f,
                                           variant % 2 ? 1.3f : 1, variant % 2 ? 1 : 0.6f};
        if (variant >= KURE_ROUNDINGS) a->fold.codec.levels.step = 0;
        break;
    case CODEC: a->fold.codec = (struct kure_codec){variant % 2 ? shifted : midrise, (enum kure_rounding)variant, noise}; break;
    case DOREFA:
        a->dorefa.constants = (struct kure_dorefa){.max = kure_tanh(2.5f), .levels = 15, .share = 0.125f};
        a->dorefa.rounding = (enum kure_rounding)variant;
        a->dorefa.noise = noise;
        break;
    case POINTS:
        a->points.levels = midrise;
        a->points.p = variant % 3 == 2 ? 2.5 : 1 + variant % 3;
        break;
    case NORM:
    case SUMS: break;
    }
}

/* What comes out: results; and does it write? Then what is there must change. */
static const struct {
    size_t result_bytes;
    enum kind kind;
    int finite; /* x must be */
    int writes; /* although it has results */
} about[KURE_CUDA_OPS] = {
    [KURE_CUDA_sum] = {sizeof(double), SUMS, 1, 0},
    [KURE_CUDA_power_sums] = {sizeof(struct kure_power_sums), PIVOT, 1, 0},
    [KURE_CUDA_kurtosis_descend] = {0, DESCEND, 1, 0},
    [KURE_CUDA_kurtosis_descend_across] = {0, ACROSS, 1, 0},
    [KURE_CUDA_kurtosis_dots] = {sizeof(struct kure_dots), ACROSS, 1, 0},
    [KURE_CUDA_multiply] = {0, FACTOR, 1, 0},
    [KURE_CUDA_divide] = {0, FACTOR, 1, 0},
    [KURE_CUDA_range] = {sizeof(struct kure_range_keys), SUMS, 0, 0},
    [KURE_CUDA_spread_sums] = {sizeof(struct kure_spread_sums), PIVOT, 1, 0},
    [KURE_CUDA_count_nan] = {sizeof(uint64_t), SUMS, 0, 0},
    [KURE_CUDA_fake_quantize] = {0, CODEC, 0, 0},
    [KURE_CUDA_quantization_sums] = {sizeof(struct kure_error_sums), CODEC, 1, 0},
    [KURE_CUDA_level_sums] = {sizeof(struct kure_level_sums), POINTS, 1, 0},
    [KURE_CUDA_error_power] = {sizeof(double), POINTS, 1, 0},
    [KURE_CUDA_ste_backward] = {0, CODEC, 0, 0},
    [KURE_CUDA_range_quantize] = {sizeof(struct kure_range_keys), CODEC, 0, 1},
    [KURE_CUDA_lsq_backward] = {sizeof(double), CODEC, 0, 1},
    [KURE_CUDA_pact_backward] = {sizeof(double), FACTOR, 1, 1},
    [KURE_CUDA_gather] = {sizeof(struct kure_gathered), SUMS, 0, 0},
    [KURE_CUDA_rectify] = {0, FACTOR, 1, 0},
    [KURE_CUDA_rectify_backward] = {0, FACTOR, 1, 0},
    [KURE_CUDA_fold_quantize] = {0, FOLD, 1, 0},
    [KURE_CUDA_fold_backward] = {0, FOLD, 1, 0},
    [KURE_CUDA_fold_backward_sums] = {sizeof(struct kure_fold_sums), FOLD, 1, 1},
    [KURE_CUDA_fold_biases] = {0, NORM, 1, 0},
    [KURE_CUDA_batchnorm_backward] = {0, NORM, 1, 0},
    [KURE_CUDA_dorefa_quantize] = {0, DOREFA, 1, 0},
    [KURE_CUDA_dorefa_sums] = {sizeof(struct kure_dorefa_sums), DOREFA, 1, 0},
    [KURE_CUDA_dorefa_backward] = {0, DOREFA, 1, 0},
};

enum agreement { EXACT, TOLERANCE_POW };

/* A row of ops.def without a function above does not compile. */
static const struct {
    const char *name;
    enum agreement agreement;
    void (*cpu)(const arguments *a, size_t at, size_t n, void *out);
} ops[KURE_CUDA_OPS] = {
#define KURE_OP(name, agreement, help) {#name, agreement, cpu_##name},
#include "../../darknet-kure/backend/ops.def"
#undef KURE_OP
};

#endif
