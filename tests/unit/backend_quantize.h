/* backend_quantize.h: the part of test_backend.c about the loops of quantization, as in
 * backend/cpu_quantize.h: one function per row of ops.def. */
#ifndef BACKEND_QUANTIZE_H
#define BACKEND_QUANTIZE_H

/* codecs of both kinds: with an offset, with a zero point; all roundings in turn */
static const struct kure_levels levels = {.step = 0.3f, .low = -8, .high = 7, .offset = 0.5f};
static const struct kure_levels shifted = {.step = 0.2f, .low = -3, .high = 12, .offset = 0};
static const struct kure_noise noise = {5, 6, 7};

static struct kure_codec codec_of(int rounding)
{
    return (struct kure_codec){rounding % 2 ? shifted : levels, (enum kure_rounding)rounding, noise};
}

static float round_by(const struct kure_codec *c, float t, size_t i)
{
    uint64_t index = c->noise.first + i;
    float u = kure_uniform(kure_philox(c->noise.seed, c->noise.stream, index / 4).word[index % 4]);
    switch (c->rounding) {
#define KURE_ROUNDING(ENUM, name, draws, help) case KURE_ROUNDING_##ENUM: return kure_round_##name(t, u);
#include "../../darknet-kure/math/rounding.def"
#undef KURE_ROUNDING
    default: fail_msg("rounding %d", c->rounding);
    }
    return 0;
}

static float position(const struct kure_codec *c, float x)
{
    return (isnan(x) || fabsf(x) < 0x1p-126f ? 0 : x) / c->levels.step - c->levels.offset;
}

static float quantized(const struct kure_codec *c, float x, size_t i)
{
    float t = fminf(fmaxf(position(c, x), c->levels.low), c->levels.high);
    return c->levels.step * (round_by(c, t, i) + c->levels.offset);
}

static void try_fake_quantize(const struct kure_backend *cpu, const struct inputs *in)
{
    if (in->n > 3) in->x[3] = NAN;
    if (in->n > 4) in->x[4] = -INFINITY;
    for (int rounding = 0; rounding < KURE_ROUNDINGS; rounding++) {
        struct kure_codec c = codec_of(rounding);
        cpu->fake_quantize(in->x, in->out, in->n, &c);
        for (size_t i = 0; i < in->n; i++) in->want[i] = quantized(&c, in->x[i], i);
        check_same("fake_quantize", in->out, in->want, in->n);
    }
}

static void try_quantization_sums(const struct kure_backend *cpu, const struct inputs *in)
{
    for (int rounding = 0; rounding < KURE_ROUNDINGS; rounding++) {
        struct kure_codec c = codec_of(rounding);
        struct kure_error_sums got;
        double signal = 0, error = 0;
        for (size_t i = 0; i < in->n; i++) {
            double x = in->w[i], e = x - quantized(&c, in->w[i], i);
            signal += x * x;
            error += e * e;
        }
        cpu->quantization_sums(in->w, in->n, &c, &got);
        check_near("quantization_sums", got.signal, signal, SUM * signal);
        check_near("quantization_sums", got.noise, error, SUM * error);
    }
}

static void try_range(const struct kure_backend *cpu, const struct inputs *in)
{
    struct kure_range_keys got;
    float min = INFINITY, max = -INFINITY;
    for (size_t i = 0; i < in->n; i++) {
        min = fminf(min, in->x[i]);
        max = fmaxf(max, in->x[i]);
    }
    cpu->range(in->x, in->n, &got);
    if (in->n == 0) assert_true(got.min == INT32_MAX && got.max == INT32_MIN);
    else assert_true(kure_unorder(got.min) == min && kure_unorder(got.max) == max);
}

static void try_spread_sums(const struct kure_backend *cpu, const struct inputs *in)
{
    struct kure_spread_sums got;
    double s1 = 0, s2 = 0, deviation = 0;
    uint64_t zeros = 0;
    for (size_t i = 0; i < in->n; i++) {
        double d = (double)kure_flush(in->x[i]) - 0.25;
        s1 += d;
        s2 += d * d;
        deviation += fabs(d);
        zeros += kure_flush(in->x[i]) == 0;
    }
    cpu->spread_sums(in->x, in->n, 0.25f, &got);
    check_near("spread_sums", got.s1, s1, SUM * deviation);
    check_near("spread_sums", got.s2, s2, SUM * s2);
    check_near("spread_sums", got.deviation, deviation, SUM * deviation);
    assert_true(got.zeros == zeros);
}

static void try_count_nan(const struct kure_backend *cpu, const struct inputs *in)
{
    uint64_t want = 0;
    for (size_t i = 0; i < in->n; i += 3, want++) in->x[i] = i % 2 ? NAN : -NAN;
    if (in->n > 2) in->x[2] = INFINITY;
    assert_true(cpu->count_nan(in->x, in->n) == want);
}

static void try_error_power(const struct kure_backend *cpu, const struct inputs *in)
{
    const double powers[] = {1, 2, 2.5, 3, 10};
    double total[2048] = {0}, count[2048];
    const struct kure_codec c = codec_of(KURE_ROUNDING_HALF_EVEN);
    for (size_t k = 0; k < COUNT(powers); k++) {
        double sum = 0;
        for (size_t i = 0; i < in->n; i++) {
            double code = kure_quantize(in->w[i], c.levels);
            count[i] = (double)(i % 4);
            sum += count[i] * pow(fabs(in->w[i] - 0.3f * (code + 0.5)), powers[k]);
        }
        const struct kure_points points = {in->w, total, count, in->n};
        check_near("error_power", cpu->error_power(&points, c.levels, powers[k]), sum, 1e-12 * sum);
    }
}

/* Clamped or not is decided on the code. */
static int on_grid(const struct kure_codec *c, float x, size_t i, float *code)
{
    float t = fminf(fmaxf(position(c, x), -1e6f), 1e6f);
    *code = round_by(c, t, i);
    return *code >= c->levels.low && *code <= c->levels.high;
}

static void try_ste_backward(const struct kure_backend *cpu, const struct inputs *in)
{
    for (int rounding = 0; rounding < KURE_ROUNDINGS; rounding++) {
        struct kure_codec c = codec_of(rounding);
        float code;
        memcpy(in->out, in->y, in->n * sizeof *in->out);
        cpu->ste_backward(in->w, in->out, in->out, in->n, &c);
        for (size_t i = 0; i < in->n; i++) in->want[i] = on_grid(&c, in->w[i], i, &code) ? in->y[i] : 0;
        check_same("ste_backward", in->out, in->want, in->n);
    }
}

static void try_lsq_backward(const struct kure_backend *cpu, const struct inputs *in)
{
    for (int rounding = 0; rounding < KURE_ROUNDINGS; rounding++) {
        struct kure_codec c = codec_of(rounding);
        double sum = 0, scale = 0;
        for (size_t i = 0; i < in->n; i++) {
            float code, t = position(&c, in->w[i]), off = c.levels.offset;
            int inside = on_grid(&c, in->w[i], i, &code);
            float slope = inside ? code - t : (code < c.levels.low ? c.levels.low : c.levels.high) + off;
            sum += (double)slope * in->y[i];
            scale += fabs((double)slope * in->y[i]);
            in->want[i] = inside ? in->y[i] : 0;
        }
        memcpy(in->out, in->y, in->n * sizeof *in->out);
        check_near("lsq_backward", cpu->lsq_backward(in->w, in->out, in->out, in->n, &c), sum, SUM * scale);
        check_same("lsq_backward", in->out, in->want, in->n);
    }
}

/* A step of 0: zeros, and all gradients pass. */
static void try_no_step(const struct kure_backend *cpu, const struct inputs *in)
{
    const struct kure_codec c = {.levels = {.low = -8, .high = 7}};
    struct kure_range_keys keys;
    memset(in->want, 0, in->n * sizeof *in->want);
    cpu->fake_quantize(in->w, in->out, in->n, &c);
    check_same("fake_quantize, step 0", in->out, in->want, in->n);
    cpu->range_quantize(in->w, in->out, in->n, &c, &keys);
    check_same("range_quantize, step 0", in->out, in->want, in->n);
    cpu->ste_backward(in->w, in->y, in->out, in->n, &c);
    check_same("ste_backward, step 0", in->out, in->y, in->n);
    assert_true(cpu->lsq_backward(in->w, in->y, in->out, in->n, &c) == 0);
    check_same("lsq_backward, step 0", in->out, in->y, in->n);
}

static void try_range_quantize(const struct kure_backend *cpu, const struct inputs *in)
{
    for (int rounding = 0; rounding < KURE_ROUNDINGS; rounding++) {
        struct kure_codec c = codec_of(rounding);
        struct kure_range_keys got, want;
        cpu->range(in->x, in->n, &want);
        memcpy(in->out, in->x, in->n * sizeof *in->out);
        cpu->range_quantize(in->out, in->out, in->n, &c, &got);
        for (size_t i = 0; i < in->n; i++) in->want[i] = quantized(&c, in->x[i], i);
        check_same("range_quantize", in->out, in->want, in->n);
        assert_true(got.min == want.min && got.max == want.max);
    }
    try_no_step(cpu, in);
}

static void try_pact_backward(const struct kure_backend *cpu, const struct inputs *in)
{
    double sum = 0, scale = 0;
    if (in->n) in->x[0] = 0.75f;
    for (size_t i = 0; i < in->n; i++) {
        sum += in->x[i] >= 0.75f ? in->y[i] : 0;
        scale += fabsf(in->y[i]);
        in->want[i] = kure_flush(in->x[i]) >= 0 && in->x[i] < 0.75f ? in->y[i] : 0;
    }
    memcpy(in->out, in->y, in->n * sizeof *in->out);
    check_near("pact_backward", cpu->pact_backward(in->x, in->out, in->out, in->n, 0.75f), sum, SUM * scale);
    check_same("pact_backward", in->out, in->want, in->n);
}

static const struct kure_dorefa dorefa = {.max = 0.98f, .levels = 15, .share = 0.125f};

static void try_dorefa_quantize(const struct kure_backend *cpu, const struct inputs *in)
{
    for (int rounding = 0; rounding < KURE_ROUNDINGS; rounding++) {
        struct kure_codec c = codec_of(rounding);
        cpu->dorefa_quantize(in->x, in->out, in->n, dorefa, &c);
        for (size_t i = 0; i < in->n; i++) {
            float t = fminf(fmaxf(15 * (kure_tanh(in->x[i]) / 1.96f + 0.5f), 0), 15);
            in->want[i] = 2 * (round_by(&c, t, i) / 15) - 1;
        }
        check_same("dorefa_quantize", in->out, in->want, in->n);
    }
}

static void try_dorefa_sums(const struct kure_backend *cpu, const struct inputs *in)
{
    struct kure_dorefa d = dorefa;
    struct kure_dorefa_sums got;
    double dot = 0, scale = 0;
    uint64_t largest = 0;
    if (in->n) d.max = fabsf(kure_tanh(in->w[in->n / 2]));
    for (size_t i = 0; i < in->n; i++) {
        double h = kure_tanh(in->w[i]);
        dot += h * in->y[i];
        scale += fabs(h * in->y[i]);
        largest += fabs(h) == d.max;
    }
    cpu->dorefa_sums(in->w, in->y, in->n, d, &got);
    check_near("dorefa_sums", got.dot, dot, SUM * scale);
    assert_true(got.largest == largest);
}

static void try_dorefa_backward(const struct kure_backend *cpu, const struct inputs *in)
{
    struct kure_dorefa d = dorefa;
    if (in->n) d.max = fabsf(kure_tanh(in->w[in->n / 2]));
    cpu->dorefa_backward(in->w, in->y, in->out, in->n, d);
    for (size_t i = 0; i < in->n; i++) {
        float h = kure_tanh(in->w[i]);
        in->want[i] = (in->y[i] / d.max + (fabsf(h) == d.max ? copysignf(d.share, h) : 0)) * (1 - h * h);
    }
    check_same("dorefa_backward", in->out, in->want, in->n);
}

static void try_level_sums(const struct kure_backend *cpu, const struct inputs *in)
{
    struct kure_level_sums got;
    double total[2048], count[2048], lx = 0, ll = 0, scale = 0;
    for (size_t i = 0; i < in->n; i++) {
        double level = kure_quantize(in->w[i], levels) + 0.5;
        count[i] = (double)(i % 4 + 1);
        total[i] = in->y[i];
        lx += level * total[i];
        ll += level * level * count[i];
        scale += fabs(level * total[i]);
    }
    cpu->level_sums(&(struct kure_points){in->w, total, count, in->n}, levels, &got);
    check_near("level_sums", got.lx, lx, SUM * scale);
    check_near("level_sums", got.ll, ll, SUM * ll);
}

#endif
