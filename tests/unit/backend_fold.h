/* backend_fold.h: the part of test_backend.c about weights with their batch norm folded in, and activations: one function
 * per row of ops.def. After backend_quantize.h. */
#ifndef BACKEND_FOLD_H
#define BACKEND_FOLD_H

static float flushed(float x)
{
    return fabsf(x) < 0x1p-126f ? 0 : x;
}

/* of weights, which are folded in two ways, and which stay float in two */
static struct kure_fold_codec fold_of(int variant)
{
    struct kure_fold_codec fold = {codec_of(variant % KURE_ROUNDINGS), 1.3f, variant % 2 ? 1.3f : 1, variant % 2 ? 1 : 0.6f};
    if (variant >= KURE_ROUNDINGS) fold.codec.levels.step = 0;
    return fold;
}

static void try_fold_quantize(const struct kure_backend *cpu, const struct inputs *in)
{
    for (int variant = 0; variant < KURE_ROUNDINGS + 2; variant++) {
        const struct kure_fold_codec fold = fold_of(variant);
        cpu->fold_quantize(in->x, in->out, in->n, &fold);
        for (size_t i = 0; i < in->n; i++) {
            float v = flushed(in->x[i]) * fold.factor;
            in->want[i] = (fold.codec.levels.step > 0 ? quantized(&fold.codec, v, i) : v) / fold.divisor;
        }
        check_same("fold_quantize", in->out, in->want, in->n);
    }
}

/* want: updates; returns the gradient that passes element i. */
static float fold_gradient(const struct kure_fold_codec *fold, const struct inputs *in, size_t i, float *slope)
{
    float code, x = flushed(in->x[i]) * fold->factor, off = fold->codec.levels.offset;
    *slope = 0;
    if (!(fold->codec.levels.step > 0)) return in->y[i];
    int inside = on_grid(&fold->codec, x, i, &code);
    *slope = inside ? code - position(&fold->codec, x) : (code < fold->codec.levels.low ? fold->codec.levels.low : fold->codec.levels.high) + off;
    return inside ? in->y[i] : 0;
}

static void try_fold_backward(const struct kure_backend *cpu, const struct inputs *in)
{
    for (int variant = 0; variant < KURE_ROUNDINGS + 2; variant++) {
        const struct kure_fold_codec fold = fold_of(variant);
        float slope;
        memcpy(in->out, in->w, in->n * sizeof *in->out);
        cpu->fold_backward(in->x, in->y, in->out, in->n, &fold);
        for (size_t i = 0; i < in->n; i++) in->want[i] = in->w[i] + fold.gain * fold_gradient(&fold, in, i, &slope);
        check_same("fold_backward", in->out, in->want, in->n);
    }
}

static void try_fold_backward_sums(const struct kure_backend *cpu, const struct inputs *in)
{
    for (int variant = 0; variant < KURE_ROUNDINGS + 2; variant++) {
        const struct kure_fold_codec fold = fold_of(variant);
        struct kure_fold_sums got;
        double step = 0, factor = 0, scale = 0;
        memcpy(in->out, in->w, in->n * sizeof *in->out);
        cpu->fold_backward_sums(in->x, in->y, in->out, in->n, &fold, &got);
        for (size_t i = 0; i < in->n; i++) {
            float slope, gradient = fold_gradient(&fold, in, i, &slope);
            in->want[i] = in->w[i] + fold.gain * gradient;
            step += (double)slope * in->y[i];
            factor += (double)gradient * flushed(in->x[i]);
            scale += fabs(in->y[i]) * (fabs(slope) + fabs(in->x[i]));
        }
        check_same("fold_backward_sums", in->out, in->want, in->n);
        check_near("fold_backward_sums", got.step, step, SUM * scale);
        check_near("fold_backward_sums", got.factor, factor, SUM * scale);
    }
}

static void try_fold_biases(const struct kure_backend *cpu, const struct inputs *in)
{
    for (size_t i = 0; i < in->n; i++) in->want[i] = fabsf(in->y[i]);
    const struct kure_folded_norm norm = {.gamma = in->w, .beta = in->y, .mean = in->w, .variance = in->want};
    cpu->fold_biases(&norm, in->out, in->n);
    for (size_t i = 0; i < in->n; i++)
        in->want[i] = (float)((double)in->y[i] - (double)in->w[i] * (double)(float)((double)in->w[i] / sqrt(fabs((double)in->y[i]) + 1e-5)));
    check_same("fold_biases", in->out, in->want, in->n);
}

static void try_batchnorm_backward(const struct kure_backend *cpu, const struct inputs *in)
{
    enum { CHUNKS = 2 };
    struct kure_fold_sums sums[2048 * CHUNKS];
    for (size_t i = 0; i < CHUNKS * in->n; i++) sums[i] = (struct kure_fold_sums){99, in->w[i / 2] * (double)(i % 3)};
    for (size_t i = 0; i < in->n; i++) in->want[i] = fabsf(in->y[i]);
    memcpy(in->out, in->w, in->n * sizeof *in->out);
    const struct kure_folded_norm norm = {.mean = in->y, .variance = in->want, .sums = sums, .chunks = CHUNKS, .bias_gradient = in->w, .gamma_updates = in->out};
    cpu->batchnorm_backward(&norm, in->n);
    for (size_t i = 0; i < in->n; i++) {
        double sum = sums[2 * i].factor + sums[2 * i + 1].factor - (double)in->y[i] * (double)in->w[i];
        in->want[i] = in->w[i] + (float)(sum * (double)(float)(1 / sqrt(fabs((double)in->y[i]) + 1e-5)));
    }
    check_same("batchnorm_backward", in->out, in->want, in->n);
}

/* leaky with a slope of its own, relu6 */
static const float rectifiers[2][2] = {{0.2f, INFINITY}, {0, 0.5f}};

static void try_rectify(const struct kure_backend *cpu, const struct inputs *in)
{
    for (int k = 0; k < 2; k++) {
        float slope = rectifiers[k][0], cap = rectifiers[k][1];
        memcpy(in->out, in->x, in->n * sizeof *in->out);
        cpu->rectify(in->out, in->out, in->n, slope, cap);
        for (size_t i = 0; i < in->n; i++) in->want[i] = flushed(in->x[i]) > 0 ? fminf(in->x[i], cap) : slope * flushed(in->x[i]) + 0.0f;
        check_same("rectify", in->out, in->want, in->n);
    }
}

static void try_rectify_backward(const struct kure_backend *cpu, const struct inputs *in)
{
    for (int k = 0; k < 2; k++) {
        float slope = rectifiers[k][0], cap = rectifiers[k][1];
        if (in->n) in->x[0] = cap;
        memcpy(in->out, in->y, in->n * sizeof *in->out);
        cpu->rectify_backward(in->x, in->out, in->out, in->n, slope, cap);
        for (size_t i = 0; i < in->n; i++) {
            float derivative = flushed(in->x[i]) > 0 ? in->x[i] < cap : slope;
            in->want[i] = in->y[i] * derivative + 0.0f;
        }
        check_same("rectify_backward", in->out, in->want, in->n);
    }
}

static void try_gather(const struct kure_backend *cpu, const struct inputs *in)
{
    struct kure_gathered got;
    cpu->gather(in->x, in->n, &got);
    for (size_t i = 0; i < KURE_GATHERED; i++) {
        float want = i < in->n ? in->x[i] : 0;
        assert_memory_equal(&got.value[i], &want, sizeof want);
    }
}

#endif
