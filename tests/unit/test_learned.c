/* test_learned.c: backward passes against PyTorch's autograd; learned steps. */
#include "check.h"

#include <math.h>
#include <string.h>

enum { N = 97 };

static struct kure_quantizer quantizer(int bits, int zero_point)
{
    return (struct kure_quantizer){.bits = bits, .step_ratio = 1, .symmetric = zero_point == 0,
                                   .grid = zero_point == 0 ? KURE_GRID_NARROW : KURE_GRID_FULL};
}

/* the same bits, but for two dx: PyTorch's tanh is not ours, and its LSQ gives dy * step / step */
static void compare(struct golden *g, const char *name, const float *y, const float *dx)
{
    size_t n;
    float *want = golden_floats(g, "y", &n), *want_dx = golden_floats(g, "dx", &n);
    double wide[N];
    assert_int_equal(n, N);
    check_same(name, y, want, N);
    for (int i = 0; i < N; i++) wide[i] = want_dx[i];
    if (strcmp(name, "dorefa") == 0) check_vector("gradient through DoReFa", dx, wide, N, 2e-6);
    else if (strcmp(name, "lsq") == 0) check_vector("gradient through LSQ", dx, wide, N, 1e-7);
    else check_same(name, dx, want_dx, N);
    guard_free(want);
    guard_free(want_dx);
}

/* fake_quantize of PyTorch multiplies by 1/step: none of these values is that near a tie. */
static void pytorch(void **state)
{
    (void)state;
    struct golden *g = golden_open("learned.txt");
    float x[N], dy[N], y[N], dx[N];
    const char *name;
    fill_lcg(dy, N, N + 1);
    while ((name = golden_case(g))) {
        int bits = (int)golden_value(g, "bits");
        fill_lcg(x, N, N);
        if (strcmp(name, "pact") == 0) {
            const float clip = (float)golden_value(g, "clip");
            const struct kure_quantizer q = {.bits = bits, .grid = KURE_GRID_FULL, .step_ratio = 1};
            kure_fake_quantize(x, y, N, kure_pact_scale(clip, bits), &q, NULL);
            double gradient = kure_pact_backward(x, dy, dx, N, clip);
            compare(g, name, y, dx);
            check_near("gradient of the clip", gradient, golden_value(g, "gradient"), 1e-5);
        } else if (strcmp(name, "dorefa") == 0) {
            if (golden_value(g, "ties") != 0) {
                x[3] = x[7] = 1.9f;
                x[9] = -1.9f;
            }
            const struct kure_quantizer q = quantizer(bits, 0);
            kure_dorefa_quantize(x, y, N, &q, NULL);
            kure_dorefa_backward(x, dy, dx, N);
            compare(g, name, y, dx);
        } else {
            struct kure_scale s = {(float)golden_value(g, "step"), 0};
            s.zero_point = (int)golden_value(g, "zero_point");
            struct kure_quantizer q = quantizer(bits, s.zero_point);
            int lsq = strcmp(name, "lsq") == 0;
            if (lsq && golden_value(g, "exponent") != 0) {
                q.step = KURE_STEP_POWER_OF_TWO;
                s = kure_learned_step_scale(&(struct kure_learned_step){s.step, 0}, s.zero_point, &q);
            }
            kure_fake_quantize(x, y, N, s, &q, NULL);
            kure_ste_backward(x, dy, dx, N, s, &q, NULL);
            compare(g, name, y, dx);
            if (!lsq) continue;
            double gradient = kure_learned_step_backward(x, dy, y, N, N, s, &q, NULL);
            assert_memory_equal(y, dx, sizeof dx);
            check_near("gradient of the step", gradient, golden_value(g, "gradient"), 1e-5);
        }
    }
    golden_close(g);
}

/* The gradient of the step is that of the error where no code changes: finite differences away from ties. */
static void step_by_differences(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    for (int trial = 0; trial < 50; trial++) {
        const float steps[3] = {0.25f, 0.25f - 0x1p-14f, 0.25f + 0x1p-14f};
        const struct kure_quantizer q = {.bits = 3, .grid = (enum kure_grid)(trial % 3), .step_ratio = 1, .symmetric = 1};
        float x[60], dy[60], y[3][60];
        double difference = 0;
        size_t n = 0;
        while (n < 60) { /* codes, not too near a tie, and clipped values; slopes inside are 0 by differences of Q alone */
            float t = (float)(8 * random_uniform(&r) - 4), from_tie = fabsf(t * 2 - rintf(t * 2)) / 2;
            if (from_tie > 0.05f) x[n++] = t * 0.25f;
        }
        fill(&r, dy, 60, NORMAL, 0, 1);
        for (int k = 0; k < 3; k++) kure_fake_quantize(x, y[k], 60, (struct kure_scale){steps[k], 0}, &q, NULL);
        /* straight through: Q = step * (t + const), so dQ/dstep by differences less x/step inside */
        float dx[60];
        kure_ste_backward(x, dy, dx, 60, (struct kure_scale){steps[0], 0}, &q, NULL);
        for (int i = 0; i < 60; i++)
            difference += dy[i] * ((double)y[2][i] - y[1][i]) / ((double)steps[2] - steps[1]) - (dx[i] != 0 ? dy[i] * (double)x[i] / steps[0] : 0);
        double most = q.bits == 3 ? 3 : 0, got = kure_learned_step_backward(x, dy, dx, 60, 60, (struct kure_scale){steps[0], 0}, &q, NULL);
        check_near("gradient of the step by differences", got * sqrt(60 * most), difference, 0.05);
    }
}

/* 200 steps of gradient descent on the error arrive near its least (an exponent next to it: straight through its
 * rounding it swings between two); the step never leaves its limits. */
static void descent(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    enum { M = 2000 };
    float x[M], y[M], dy[M];
    fill(&r, x, M, NORMAL, 0, 1);
    for (int exponent = 0; exponent <= 1; exponent++) {
        struct kure_quantizer q = quantizer(3, 0);
        struct kure_scale best;
        double error = 0, least = 0;
        q.step = exponent ? KURE_STEP_POWER_OF_TWO : KURE_STEP_FREE;
        q.truncation = KURE_TRUNCATION_MSE;
        struct kure_learned_step s = kure_learned_step_start(x, M, 0, &q);
        check_near("start", exponent ? exp2(s.value) : s.value, 2 * sqrt(2 / 3.14159265) / sqrt(3), 0.03);
        for (int i = 0; i < 200; i++) {
            struct kure_scale scale = kure_learned_step_scale(&s, 0, &q);
            kure_fake_quantize(x, y, M, scale, &q, NULL);
            for (int k = 0; k < M; k++) dy[k] = (y[k] - x[k]) / M;
            kure_learned_step_move(&s, -20 * kure_learned_step_backward(x, dy, dy, M, M, scale, &q, NULL), &q);
        }
        assert_int_equal(kure_scale_find(x, M, &q, &best, NULL), KURE_OK);
        kure_fake_quantize(x, y, M, kure_learned_step_scale(&s, 0, &q), &q, NULL);
        for (int k = 0; k < M; k++) error += ((double)y[k] - x[k]) * ((double)y[k] - x[k]);
        kure_fake_quantize(x, y, M, best, &q, NULL);
        for (int k = 0; k < M; k++) least += ((double)y[k] - x[k]) * ((double)y[k] - x[k]);
        if (exponent) assert_true(fabs(s.value - log2(best.step)) <= 1);
        else check_near("error of a learned step, share of the least", error / least, 1, 0.02);
        kure_learned_step_move(&s, -1e9, &q);
        float step = kure_learned_step_scale(&s, 0, &q).step;
        assert_true(step > 0 && step >= 0x1p-100f);
        kure_learned_step_move(&s, INFINITY, &q);
        assert_true(kure_learned_step_scale(&s, 0, &q).step <= 0x1p100f);
    }
    const float zeros[4] = {0};
    struct kure_quantizer q = quantizer(4, 0);
    assert_true(kure_learned_step_start(zeros, 4, 0, &q).value > 0);
}

/* With a step of 0 gradients pass: a row of zeros can leave zero. */
static void zero_step(void **state)
{
    (void)state;
    const float x[3] = {0}, dy[3] = {1, -2, 3};
    float dx[3];
    const struct kure_quantizer q = quantizer(4, 0);
    kure_ste_backward(x, dy, dx, 3, (struct kure_scale){0, 0}, &q, NULL);
    check_same("step 0", dx, dy, 3);
    float y[3];
    kure_dorefa_quantize(x, y, 3, &q, NULL);
    kure_dorefa_backward(x, dy, dx, 3);
    for (int i = 0; i < 3; i++) assert_true(isfinite(y[i]) && isfinite(dx[i]));
}

int main(void)
{
    const struct CMUnitTest learned[] = {
        cmocka_unit_test(pytorch), cmocka_unit_test(step_by_differences), cmocka_unit_test(descent), cmocka_unit_test(zero_step),
    };
    return check_main(learned);
}
