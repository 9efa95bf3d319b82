/* test_quantize.c: kure_fake_quantize and kure_quantize_tensor. */
#include "check.h"

#include <float.h>
#include <math.h>
#include <string.h>

static void numpy(void **state)
{
    (void)state;
    struct golden *g = golden_open("quantize.txt");
    while (golden_case(g)) {
        int bits = (int)golden_value(g, "bits");
        enum kure_grid grid = (enum kure_grid)golden_value(g, "grid");
        struct kure_scale scale = {(float)golden_value(g, "step"), 0};
        const struct kure_quantizer q = {.bits = bits, .grid = grid, .symmetric = 1};
        size_t n;
        float *x = golden_floats(g, "x", &n), *want = golden_floats(g, "y", &n), *y = guard(n);
        kure_fake_quantize(x, y, n, scale, &q, NULL);
        check_same("fake quantization against NumPy", y, want, n);
        kure_fake_quantize(x, x, n, scale, &q, NULL); /* in place */
        check_same("in place", x, want, n);
        kure_fake_quantize(y, y, n, scale, &q, NULL);
        check_same("twice", y, want, n);
        guard_free(x);
        guard_free(y);
        guard_free(want);
    }
    golden_close(g);
}

static void zero_steps_and_subnormals(void **state)
{
    (void)state;
    const float zeros[4] = {0};
    float x[4] = {1, -2, 1e-40f, NAN}, y[4];
    const struct kure_quantizer midrise = {.bits = 4, .grid = KURE_GRID_MIDRISE, .symmetric = 1};
    const struct kure_quantizer narrow = {.bits = 4, .grid = KURE_GRID_NARROW, .symmetric = 1};
    kure_fake_quantize(x, y, 4, (struct kure_scale){0, 0}, &midrise, NULL);
    check_same("step 0", y, zeros, 4);
    kure_fake_quantize(x, y, 4, (struct kure_scale){1e-40f, 0}, &narrow, NULL);
    check_same("subnormal step", y, zeros, 4);
    kure_fake_quantize(x, y, 4, (struct kure_scale){2 * FLT_MIN, 0}, &midrise, NULL);
    check_same("step 2^-125", y, zeros, 4);
    for (int i = 0; i < 4; i++) x[i] = i % 2 ? 1.1e-38f : -1.1e-38f; /* less than FLT_MIN */
    kure_fake_quantize(x, y, 4, (struct kure_scale){3 * FLT_MIN, 0}, &narrow, NULL);
    check_same("subnormal values", y, zeros, 4);
}

struct sums {
    double signal, noise;
};

/* quantizes x[n] the slow way with the scale that kure_scale_find gives */
static struct sums reference(const float *x, float *y, size_t n, const struct kure_quantizer *q)
{
    struct sums s = {0};
    struct kure_scale scale;
    assert_int_equal(kure_scale_find(x, n, q, &scale, NULL), KURE_OK);
    kure_fake_quantize(x, y, n, scale, q, NULL);
    for (size_t i = 0; i < n; i++) {
        s.signal += (double)x[i] * x[i];
        s.noise += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
    }
    return s;
}

static void check_sums(const struct kure_quantization *got, struct sums want)
{
    check_near("signal", got->signal, want.signal, 1e-12 * want.signal);
    check_near("noise", got->noise, want.noise, 1e-12 * want.noise);
}

static void tensors_and_channels(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    const size_t shapes[][2] = {{1, 1}, {3, 5}, {8, 9}, {7, 513}, {2, 9000}};
    for (size_t k = 0; k < COUNT(shapes); k++)
        for (int grid = 0; grid <= 2; grid++)
            for (int truncation = 0; truncation <= 1; truncation++)
                for (int by_row = 0; by_row <= 1; by_row++) {
                    size_t rows = shapes[k][0], length = shapes[k][1], n = rows * length;
                    const struct kure_quantizer q = {
                        .bits = 4, .grid = (enum kure_grid)grid, .symmetric = 1, .step_ratio = 1.1,
                        .truncation = truncation ? KURE_TRUNCATION_MSE : KURE_TRUNCATION_MINMAX,
                        .granularity = by_row ? KURE_GRANULARITY_CHANNEL : KURE_GRANULARITY_TENSOR};
                    float *w = guard(n), *want = guard(n);
                    struct kure_tensor t = {.weights = w, .rows = rows, .row_length = length};
                    struct kure_quantization out;
                    struct sums sums = {0};
                    fill(&r, w, n, LAPLACE, 0.1, 1);
                    for (size_t c = 0; c < (by_row ? rows : 1); c++) {
                        size_t m = by_row ? length : n;
                        struct sums part = reference(w + c * m, want + c * m, m, &q);
                        sums.signal += part.signal;
                        sums.noise += part.noise;
                    }
                    assert_int_equal(kure_quantize_tensor(&t, &q, 0, NULL, &out, NULL), KURE_OK);
                    check_same("quantized tensor", w, want, n);
                    check_sums(&out, sums);
                    guard_free(w);
                    guard_free(want);
                }
}

/* Q(w s)/s with the grid of the folded tensor; rows that folding makes next to
 * nothing stay float and do not count. */
static void folded(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    enum { ROWS = 7, LENGTH = 33, N = ROWS * LENGTH };
    const float gamma[ROWS] = {1, -0.5f, 0, 1e-14f, 2, 3e-11f, -4};
    const int quantized[ROWS] = {1, 1, 0, 0, 1, 1, 1};
    float variance[ROWS], w[N], *x = guard(N), *scratch = guard(N), *folded = guard(N), *q_folded = guard(N);
    for (int c = 0; c < ROWS; c++) variance[c] = 0.25f + (float)c / 8;
    fill(&r, w, N, NORMAL, 0.02, 0.1);
    for (int by_row = 0; by_row <= 1; by_row++)
        for (int grid = 0; grid <= 2; grid++) {
            const struct kure_quantizer q = {
                .bits = 4, .grid = (enum kure_grid)grid, .symmetric = 1, .step_ratio = 1,
                .granularity = by_row ? KURE_GRANULARITY_CHANNEL : KURE_GRANULARITY_TENSOR};
            struct kure_tensor t = {.weights = x, .rows = ROWS, .row_length = LENGTH, .gamma = gamma,
                                    .variance = variance, .scratch = scratch};
            struct kure_quantization out;
            struct sums sums = {0};
            size_t rows = 0;
            for (int c = 0; c < ROWS; c++) { /* the quantized rows, folded */
                float s = (float)(gamma[c] / sqrt(variance[c] + 1e-5));
                for (int i = 0; quantized[c] && i < LENGTH; i++)
                    folded[rows * LENGTH + (size_t)i] = w[c * LENGTH + i] * s;
                rows += (size_t)quantized[c];
            }
            for (size_t p = 0; p < (by_row ? rows : 1); p++) {
                size_t m = by_row ? LENGTH : rows * LENGTH;
                struct sums part = reference(folded + p * m, q_folded + p * m, m, &q);
                sums.signal += part.signal;
                sums.noise += part.noise;
            }
            memcpy(x, w, sizeof w);
            assert_int_equal(kure_quantize_tensor(&t, &q, 1, NULL, &out, NULL), KURE_OK);
            check_sums(&out, sums);
            rows = 0;
            for (int c = 0; c < ROWS; c++) {
                float s = (float)(gamma[c] / sqrt(variance[c] + 1e-5)), want[LENGTH];
                for (int i = 0; i < LENGTH; i++)
                    want[i] = quantized[c] ? q_folded[rows * LENGTH + (size_t)i] / s + 0.0f
                                           : w[c * LENGTH + i];
                check_same("folded row", x + c * LENGTH, want, LENGTH);
                rows += (size_t)quantized[c];
            }
        }
    guard_free(x);
    guard_free(scratch);
    guard_free(folded);
    guard_free(q_folded);
}

static void without_batch_norm_fold_is_nothing(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    const struct kure_quantizer q = {.bits = 3, .grid = KURE_GRID_FULL, .truncation = KURE_TRUNCATION_MSE, .symmetric = 1, .step_ratio = 1};
    float a[50], b[50];
    struct kure_tensor t = {.weights = a, .rows = 5, .row_length = 10};
    struct kure_quantization out;
    fill(&r, a, 50, NORMAL, 0, 1);
    memcpy(b, a, sizeof a);
    assert_int_equal(kure_quantize_tensor(&t, &q, 1, NULL, &out, NULL), KURE_OK);
    t.weights = b;
    assert_int_equal(kure_quantize_tensor(&t, &q, 0, NULL, &out, NULL), KURE_OK);
    check_same("fold without batch norm", a, b, 50);
}

/* Bits 0 leave the weights and report the signal. */
static void float_weights(void **state)
{
    (void)state;
    float w[6] = {1, 2, 3, -4, 0, 0.5f};
    struct kure_tensor t = {.weights = w, .rows = 2, .row_length = 3};
    const struct kure_quantizer q = {.bits = 0, .step_ratio = 1, .symmetric = 1};
    struct kure_quantization out;
    assert_int_equal(kure_quantize_tensor(&t, &q, 0, NULL, &out, NULL), KURE_OK);
    check_near("signal of float weights", out.signal, 30.25, 1e-13);
    assert_true(out.noise == 0 && w[3] == -4);
}

/* Each mistake gives a status, a sentence, and leaves the weights. */
static void errors(void **state)
{
    (void)state;
    const struct kure_quantizer good = {.bits = 4, .granularity = KURE_GRANULARITY_CHANNEL, .symmetric = 1, .step_ratio = 1};
    struct {
        struct kure_quantizer q;
        float last;       /* weight */
        const char *text; /* in the sentence */
    } cases[] = {
        {good, NAN, "not finite"}, {good, INFINITY, "not finite"}, {good, 1e-32f, "2^-100"},
        {good, 1e38f, "2^100"},    {good, 1, "bits"},              {good, 1, "bits"},
        {good, 1, "step_ratio"},   {good, 1, "step_ratio"},        {good, 1, "mse"},
    };
    cases[4].q.bits = 1;
    cases[5].q.bits = 17;
    cases[6].q.step_ratio = 0;
    cases[7].q.step_ratio = NAN;
    cases[8].q.bits = 9;
    cases[8].q.truncation = KURE_TRUNCATION_MSE;
    for (size_t i = 0; i < COUNT(cases); i++) {
        float w[4] = {0.3f, 0.2f, cases[i].last, 0};
        struct kure_tensor t = {.weights = w, .rows = 2, .row_length = 2};
        struct kure_quantization out;
        struct kure_error error = {""};
        assert_int_equal(kure_quantize_tensor(&t, &cases[i].q, 0, NULL, &out, &error), KURE_ERROR_INPUT);
        if (!strstr(error.text, cases[i].text)) fail_msg("case %zu: \"%s\"", i, error.text);
        assert_int_equal(kure_quantize_tensor(&t, &cases[i].q, 0, NULL, &out, NULL), KURE_ERROR_INPUT);
        assert_true(w[0] == 0.3f && w[1] == 0.2f);
    }
}

/* Mean x, variance d(1-d) steps^2 with d = t - floor(t); other streams and seeds draw other numbers. */
static void stochastic_moments(void **state)
{
    (void)state;
    enum { M = 100000 };
    const struct kure_quantizer q = {.bits = 6, .rounding = KURE_ROUNDING_STOCHASTIC, .grid = KURE_GRID_FULL};
    const struct kure_scale s = {0.5f, 3};
    float *x = guard(M), *y = guard(M), *first = guard(M);
    for (int k = 0; k < 12; k++) {
        const struct kure_noise noise = {(uint64_t)(k / 4), (uint64_t)(k % 4) << 40, 0};
        double t = -3.3 + 0.57 * k, d = t - floor(t), sum = 0, squares = 0, together = 0;
        for (int i = 0; i < M; i++) x[i] = (float)(t * 0.5);
        kure_fake_quantize(x, y, M, s, &q, &noise);
        for (int i = 0; i < M; i++) {
            double e = y[i] / 0.5 - t;
            sum += e;
            squares += e * e;
            if (i) together += e * (y[i - 1] / 0.5 - t);
        }
        double sigma = sqrt(d * (1 - d));
        check_near("stochastic: mean, standard errors", sum / sqrt(M) / sigma, 0, 4.5);
        check_near("stochastic: variance, share", squares / M / (sigma * sigma), 1, 0.03);
        check_near("stochastic: neighbours, standard errors", together / sqrt(M) / (sigma * sigma), 0, 4.5);
        size_t same = 0;
        for (int i = 0; i < M; i++) x[i] = -1.25f; /* half a step above a code */
        kure_fake_quantize(x, y, M, s, &q, &noise);
        for (int i = 0; k && i < M; i++) same += y[i] == first[i];
        if (k) check_near("stochastic: another stream, standard errors", ((double)same - M / 2.0) / sqrt(M / 4.0), 0, 4.5);
        else memcpy(first, y, M * sizeof *y);
    }
    guard_free(x);
    guard_free(y);
    guard_free(first);
}

/* Element i draws number first + i, however a tensor is cut; limits hold. */
static void stochastic_pieces(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    enum { M = 40000 };
    const struct kure_quantizer q = {.bits = 3, .rounding = KURE_ROUNDING_STOCHASTIC, .grid = KURE_GRID_NARROW, .symmetric = 1};
    const struct kure_scale s = {0.3f, 0};
    float *x = guard(M), *whole = guard(M), *pieces = guard(M), *dx = guard(M);
    fill(&r, x, M, NORMAL, 0, 1);
    for (int trial = 0; trial < 20; trial++) {
        const struct kure_noise noise = {7, 8, ((uint64_t)1 << 40) + (uint64_t)trial * 17};
        kure_fake_quantize(x, whole, M, s, &q, &noise);
        for (size_t at = 0, m; at < M; at += m) {
            struct kure_noise part = noise;
            m = 1 + (size_t)(random_uniform(&r) * 3000);
            if (m > M - at) m = M - at;
            part.first += at;
            kure_fake_quantize(x + at, pieces + at, m, s, &q, &part);
        }
        check_same("stochastic in pieces", pieces, whole, M);
    }
    for (int i = 0; i < M; i++) assert_true(fabsf(whole[i]) <= 3 * 0.3f && (fabs(x[i]) > 0.9 || fabs(whole[i] - x[i]) < 0.3 + 1e-6));
    for (int i = 0; i < M; i++) x[i] = (float)(i % 7 - 3) * 0.3f; /* on the grid: nothing to draw */
    kure_fake_quantize(x, whole, M, s, &q, NULL);
    check_same("stochastic on the grid", whole, x, M);
    guard_free(x);
    guard_free(whole);
    guard_free(pieces);
    guard_free(dx);
}

/* Every rounding on random quantizers, as the C library defines them, clamped after rounding. */
static void roundings(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    float x[300], y[300];
    for (int trial = 0; trial < 400; trial++) {
        size_t n = 1 + (size_t)(random_uniform(&r) * 300);
        int bits = 2 + trial % 15, half = 1 << (bits - 1);
        struct kure_quantizer q = {.bits = bits, .rounding = (enum kure_rounding)(trial % 8), .grid = KURE_GRID_FULL};
        const struct kure_scale s = {(float)ldexp(0.5 + random_uniform(&r), trial % 40 - 20), (int)(random_uniform(&r) * 2 * half) - half};
        for (size_t i = 0; i < n; i++) {
            double t = (3 * random_uniform(&r) - 1.5) * half;
            x[i] = (float)((i % 3 ? t : rint(t * 2) / 2) * s.step); /* a third close to a tie */
        }
        kure_fake_quantize(x, y, n, s, &q, NULL);
        for (size_t i = 0; i < n; i++) {
            float t = x[i] / s.step, code = 0;
            switch (q.rounding) {
            case KURE_ROUNDING_HALF_EVEN: code = rintf(t); break;
            case KURE_ROUNDING_HALF_AWAY: code = roundf(t); break;
            case KURE_ROUNDING_HALF_UP: code = (float)floor((double)t + 0.5); break;
            case KURE_ROUNDING_HALF_DOWN: code = (float)ceil((double)t - 0.5); break;
            case KURE_ROUNDING_HALF_TO_ZERO: code = copysignf((float)ceil(fabs((double)t) - 0.5), t); break;
            case KURE_ROUNDING_FLOOR: code = floorf(t); break;
            case KURE_ROUNDING_CEIL: code = ceilf(t); break;
            default: code = truncf(t); break;
            }
            code = fminf(fmaxf(code + (float)s.zero_point, (float)-half), (float)half - 1);
            if (y[i] != s.step * (code - (float)s.zero_point))
                fail_msg("%s, %d bits, t %a, zero point %d: %a", kure_rounding_text((int)q.rounding).name, bits, t, s.zero_point, y[i]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest quantize[] = {
        cmocka_unit_test(numpy),    cmocka_unit_test(zero_steps_and_subnormals),
        cmocka_unit_test(tensors_and_channels), cmocka_unit_test(folded),
        cmocka_unit_test(without_batch_norm_fold_is_nothing), cmocka_unit_test(float_weights),
        cmocka_unit_test(errors), cmocka_unit_test(stochastic_moments),
        cmocka_unit_test(stochastic_pieces), cmocka_unit_test(roundings),
    };
    return check_main(quantize);
}
