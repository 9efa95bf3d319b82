/* test_kurtosis_fold.c: fold = 1, the kurtosis of the batch-norm-folded weights. */
#include "check.h"

#include <math.h>
#include <string.h>

/* A tensor with batch norm; all memory guarded. */
struct layer {
    struct kure_tensor t;
    float *gamma, *variance;
};

static struct layer layer_make(size_t rows, size_t row_length)
{
    struct layer l = {.gamma = guard(rows), .variance = guard(rows)};
    l.t = (struct kure_tensor){
        .weights = guard(rows * row_length), .updates = guard(rows * row_length),
        .rows = rows, .row_length = row_length, .gamma = l.gamma, .variance = l.variance,
        .gamma_updates = guard(rows), .scratch = guard(rows * row_length),
    };
    return l;
}

static void layer_free(struct layer *l)
{
    guard_free(l->t.weights);
    guard_free(l->t.updates);
    guard_free(l->t.gamma_updates);
    guard_free(l->t.scratch);
    guard_free(l->gamma);
    guard_free(l->variance);
}

static double dot(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)a[i] * b[i];
    return sum;
}

static void autograd(void **state)
{
    (void)state;
    struct golden *g = golden_open("kurtosis_torch.txt");
    while (golden_case(g)) {
        size_t n, count, rows = (size_t)golden_value(g, "rows");
        int by_row = golden_value(g, "by_row") != 0, fold = golden_value(g, "fold") != 0;
        int unbiased = golden_value(g, "unbiased") != 0;
        const double *w = golden_values(g, "w", &n), *gamma = golden_values(g, "gamma", &count);
        const double *variance = golden_values(g, "variance", &count);
        double kurtosis = golden_value(g, "kurtosis"), loss = golden_value(g, "loss");
        const double *gradient = golden_values(g, "gradient", &n);
        const double *gamma_gradient = golden_values(g, "gamma_gradient", &count);
        const struct kure_kurtosis_rule rule = {
            .target = 1.8, .fold = fold, .std = unbiased ? KURE_STD_UNBIASED : KURE_STD_BIASED,
            .granularity = by_row ? KURE_GRANULARITY_CHANNEL : KURE_GRANULARITY_TENSOR,
        };
        struct kure_kurtosis_measure m;
        struct layer l = layer_make(rows, n / rows);
        for (size_t i = 0; i < n; i++) l.t.weights[i] = (float)w[i];
        for (size_t c = 0; c < rows; c++) {
            l.gamma[c] = (float)gamma[c];
            l.variance[c] = (float)variance[c];
        }
        kure_kurtosis_measure(&l.t, &rule, &m);
        assert_int_equal(m.skip, KURE_SKIP_NO);
        check_near("K against PyTorch", m.kurtosis, kurtosis, 1e-6 * kurtosis);
        check_near("loss against PyTorch", m.loss, loss, 1e-6 * loss);
        assert_int_equal(kure_kurtosis_apply(&l.t, &rule, &m, -1, 0, 0), 0); /* -1: the gradient */
        check_vector("gradient against PyTorch", l.t.updates, gradient, n, 1e-5);
        check_vector("gamma gradient against PyTorch", l.t.gamma_updates, gamma_gradient, rows, 1e-5);
        layer_free(&l);
    }
    golden_close(g);
}

/* No component along a row, and none of all-zero gamma. */
static void steps_lie_across_rows(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    enum { ROWS = 12, LENGTH = 75 };
    const struct kure_kurtosis_rule rule = {.target = 1.8, .fold = 1};
    struct kure_kurtosis_measure m;
    struct layer l = layer_make(ROWS, LENGTH);
    fill(&r, l.t.weights, ROWS * LENGTH, LAPLACE, 0.01, 0.05);
    for (int c = 0; c < ROWS; c++) {
        l.gamma[c] = c == 3 ? 0 : (float)(c % 2 ? -1 - random_uniform(&r) : 1 + random_uniform(&r));
        l.variance[c] = (float)random_uniform(&r);
    }
    memset(l.t.weights + 7 * LENGTH, 0, LENGTH * sizeof(float)); /* a filter of zeros */
    kure_kurtosis_measure(&l.t, &rule, &m);
    kure_kurtosis_apply(&l.t, &rule, &m, -1, 0, 0);
    for (int c = 0; c < ROWS; c++) {
        const float *w = l.t.weights + c * LENGTH, *u = l.t.updates + c * LENGTH;
        double length = sqrt(dot(w, w, LENGTH) * dot(u, u, LENGTH));
        if (length > 0) check_near("step along its row, share", dot(w, u, LENGTH) / length, 0, 1e-6);
        if (c == 3) assert_true(dot(u, u, LENGTH) == 0 && l.t.gamma_updates[c] != 0);
        if (c == 7) assert_true(l.t.gamma_updates[c] == 0);
    }
    layer_free(&l);
}

/* Both steps are limited, each by its own norm. */
static void max_step_limits(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    enum { ROWS = 12, LENGTH = 75, N = ROWS * LENGTH };
    const struct kure_kurtosis_rule rule = {.target = 1.8, .fold = 1};
    const double rate = 0.1;
    struct kure_kurtosis_measure m;
    struct kure_statistics raw;
    struct layer l = layer_make(ROWS, LENGTH);
    fill(&r, l.t.weights, N, LAPLACE, 0.01, 0.05);
    for (int c = 0; c < ROWS; c++) {
        l.gamma[c] = (float)(0.5 + random_uniform(&r));
        l.variance[c] = (float)random_uniform(&r);
    }
    kure_statistics_compute(l.t.weights, N, &raw);
    kure_kurtosis_measure(&l.t, &rule, &m);
    assert_int_equal(kure_kurtosis_apply(&l.t, &rule, &m, 1e6, rate, 0.003), 1);
    check_near("length of a limited step", rate * sqrt(dot(l.t.updates, l.t.updates, N) / (N * raw.m2)),
               0.003, 3e-8);
    check_near("length of a limited step of gamma",
               rate * sqrt(dot(l.t.gamma_updates, l.t.gamma_updates, ROWS) / dot(l.gamma, l.gamma, ROWS)),
               0.003, 3e-8);
    layer_free(&l);
}

/* Without batch norm folding is the identity; by rows it does not matter. */
static void identities(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    enum { ROWS = 6, LENGTH = 40, N = ROWS * LENGTH };
    struct layer l = layer_make(ROWS, LENGTH);
    float *plain = guard(N), *zero = guard(ROWS);
    fill(&r, l.t.weights, N, NORMAL, 0, 1);
    for (int c = 0; c < ROWS; c++) {
        l.gamma[c] = (float)(c - 2);
        l.variance[c] = 0.5f;
    }
    for (int by_row = 0; by_row <= 1; by_row++) {
        struct kure_kurtosis_rule rule = {
            .target = 1.8, .granularity = by_row ? KURE_GRANULARITY_CHANNEL : KURE_GRANULARITY_TENSOR};
        struct kure_kurtosis_measure m, folded;
        struct kure_tensor t = l.t;
        if (!by_row) t.gamma = t.variance = t.gamma_updates = t.scratch = NULL;
        kure_kurtosis_measure(&t, &rule, &m);
        t.updates = plain;
        memset(plain, 0, N * sizeof *plain);
        kure_kurtosis_apply(&t, &rule, &m, 1, 1, 0.001);
        rule.fold = 1;
        kure_kurtosis_measure(&t, &rule, &folded);
        assert_true(folded.kurtosis == m.kurtosis && folded.loss == m.loss);
        t.updates = l.t.updates;
        memset(t.updates, 0, N * sizeof *t.updates);
        kure_kurtosis_apply(&t, &rule, &folded, 1, 1, 0.001);
        check_same("folding that changes nothing", plain, l.t.updates, N);
        check_same("gamma untouched", zero, l.t.gamma_updates, ROWS);
    }
    guard_free(plain);
    guard_free(zero);
    layer_free(&l);
}

static void skips(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    const struct kure_kurtosis_rule rule = {.target = 1.8, .fold = 1};
    struct kure_kurtosis_measure m;
    struct layer l = layer_make(3, 20);
    fill(&r, l.t.weights, 60, NORMAL, 0, 1);
    kure_kurtosis_measure(&l.t, &rule, &m); /* gamma = 0 everywhere: all zeros */
    assert_int_equal(m.skip, KURE_SKIP_CONSTANT);
    l.gamma[1] = NAN;
    kure_kurtosis_measure(&l.t, &rule, &m);
    assert_int_equal(m.skip, KURE_SKIP_NONFINITE);
    l.gamma[1] = 1;
    kure_kurtosis_measure(&l.t, &rule, &m);
    assert_int_equal(m.skip, KURE_SKIP_NO);
    layer_free(&l);
}

/* As a network behaves: the rolling variance follows |w_c|^2. K of the folded
 * tensor reaches its target while no filter's norm runs away. (With momentum
 * norms grow by some percent more: the velocity was across an earlier row.) */
static void descent_keeps_filter_norms(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    enum { ROWS = 16, LENGTH = 288, N = ROWS * LENGTH };
    const struct kure_kurtosis_rule rule = {.target = 1.8, .fold = 1};
    struct kure_kurtosis_measure m;
    struct layer l = layer_make(ROWS, LENGTH);
    double norms[ROWS];
    fill(&r, l.t.weights, N, LAPLACE, 0, 0.05);
    for (int c = 0; c < ROWS; c++) {
        float *w = l.t.weights + c * LENGTH;
        for (int i = 0; i < LENGTH; i++) w[i] *= (float)(0.5 + 0.25 * (c % 5));
        l.gamma[c] = c == 2 ? 0 : (float)((c % 3 ? 1 : -1) * (0.5 + random_uniform(&r)));
        norms[c] = sqrt(dot(w, w, LENGTH));
    }
    const double rate = 1e-3 / 64;
    for (int step = 0; step < 3000; step++) {
        for (int c = 0; c < ROWS; c++) {
            const float *w = l.t.weights + c * LENGTH;
            l.variance[c] = (float)dot(w, w, LENGTH);
        }
        kure_kurtosis_measure(&l.t, &rule, &m);
        memset(l.t.updates, 0, N * sizeof(float));
        memset(l.t.gamma_updates, 0, ROWS * sizeof(float));
        kure_kurtosis_apply(&l.t, &rule, &m, 64, rate, 0.003);
        for (int i = 0; i < N; i++) l.t.weights[i] += (float)rate * l.t.updates[i];
        for (int c = 0; c < ROWS; c++) l.gamma[c] += (float)rate * l.t.gamma_updates[c];
    }
    check_near("K of the folded tensor after descent", m.kurtosis, 1.8, 0.05);
    for (int c = 0; c < ROWS; c++) {
        const float *w = l.t.weights + c * LENGTH;
        check_near("filter norm after descent, share", sqrt(dot(w, w, LENGTH)) / norms[c], 1, 0.01);
    }
    layer_free(&l);
}

int main(void)
{
    const struct CMUnitTest fold[] = {
        cmocka_unit_test(autograd),        cmocka_unit_test(steps_lie_across_rows),
        cmocka_unit_test(max_step_limits), cmocka_unit_test(identities),
        cmocka_unit_test(skips),           cmocka_unit_test(descent_keeps_filter_norms),
    };
    return check_main(fold);
}
