/* test_kurtosis.c: kure_kurtosis_measure and _apply on the weights themselves. */
#include "check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* A tensor without batch norm on memory of its own. */
static struct kure_tensor tensor_of(float *w, size_t rows, size_t row_length)
{
    return (struct kure_tensor){
        .weights = w, .updates = guard(rows * row_length), .rows = rows, .row_length = row_length};
}

static enum kure_skip skip_of(const struct kure_tensor *t, struct kure_kurtosis_rule rule)
{
    struct kure_kurtosis_measure m;
    kure_kurtosis_measure(t, &rule, &m);
    if (m.skip != KURE_SKIP_NO) assert_int_equal(kure_kurtosis_apply(t, &rule, &m, 1, 1, 1), 0);
    return m.skip;
}

/* gradient: updates after one call with factor 1, sign turned */
static struct kure_kurtosis_measure gradient_of(const struct kure_tensor *t,
                                                struct kure_kurtosis_rule rule)
{
    struct kure_kurtosis_measure m;
    size_t n = t->rows * t->row_length;
    kure_kurtosis_measure(t, &rule, &m);
    assert_int_equal(m.skip, KURE_SKIP_NO);
    memset(t->updates, 0, n * sizeof *t->updates);
    assert_int_equal(kure_kurtosis_apply(t, &rule, &m, 1, 0, 0), 0);
    for (size_t i = 0; i < n; i++) t->updates[i] = -t->updates[i];
    return m;
}

/* Against exact rational arithmetic, also where the mean, an outlier or the
 * scale makes it hard: 1e-5 of the norm is the promise. */
static void exact_arithmetic(void **state)
{
    (void)state;
    struct golden *g = golden_open("kurtosis.txt");
    const char *name;
    while ((name = golden_case(g))) {
        size_t n;
        float *w = golden_floats(g, "w", &n);
        struct kure_kurtosis_rule rule = {.target = golden_value(g, "target")};
        struct kure_tensor t = tensor_of(w, 1, n);
        for (int biased = 0; biased <= 1; biased++) {
            char keys[3][32];
            static const char *const parts[3] = {"kurtosis", "loss", "gradient"};
            for (int k = 0; k < 3; k++)
                snprintf(keys[k], sizeof keys[k], "%s_%s", parts[k], biased ? "biased" : "unbiased");
            rule.std = biased ? KURE_STD_BIASED : KURE_STD_UNBIASED;
            double kurtosis = golden_value(g, keys[0]), loss = golden_value(g, keys[1]);
            const double *gradient = golden_values(g, keys[2], &n);
            struct kure_kurtosis_measure m = gradient_of(&t, rule);
            check_near("K against exact", m.kurtosis, kurtosis, 1e-13 * kurtosis);
            check_near("loss against exact", m.loss, loss, 1e-12 * (loss + 1));
            check_vector("gradient against exact", t.updates, gradient, n, 1e-5);
        }
        guard_free(t.updates);
        guard_free(w);
    }
    golden_close(g);
}

static void autograd(void **state)
{
    (void)state;
    struct golden *g = golden_open("kurtosis_torch.txt");
    while (golden_case(g)) {
        size_t n, rows = (size_t)golden_value(g, "rows");
        int by_row = golden_value(g, "by_row") != 0, fold = golden_value(g, "fold") != 0;
        int unbiased = golden_value(g, "unbiased") != 0;
        float *w = golden_floats(g, "w", &n);
        size_t count;
        golden_values(g, "gamma", &count);
        golden_values(g, "variance", &count);
        double kurtosis = golden_value(g, "kurtosis"), loss = golden_value(g, "loss");
        const double *gradient = golden_values(g, "gradient", &n);
        golden_values(g, "gamma_gradient", &count);
        if (!fold) {
            struct kure_tensor t = tensor_of(w, rows, n / rows);
            struct kure_kurtosis_measure m =
                gradient_of(&t, (struct kure_kurtosis_rule){
                                    .target = 1.8,
                                    .std = unbiased ? KURE_STD_UNBIASED : KURE_STD_BIASED,
                                    .granularity = by_row ? KURE_GRANULARITY_CHANNEL
                                                          : KURE_GRANULARITY_TENSOR});
            check_near("K against PyTorch", m.kurtosis, kurtosis, 1e-13 * kurtosis);
            check_near("loss against PyTorch", m.loss, loss, 1e-12 * loss);
            check_vector("gradient against PyTorch", t.updates, gradient, n, 1e-5);
            guard_free(t.updates);
        }
        guard_free(w);
    }
    golden_close(g);
}

/* (loss(w + h) - loss(w - h)) / 2h for some elements of a large tensor. */
static void finite_differences(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    enum { ROWS = 20, LENGTH = 30, N = ROWS * LENGTH };
    float *w = guard(N);
    struct kure_tensor t = tensor_of(w, ROWS, LENGTH);
    for (int shape = UNIFORM; shape <= EXPONENTIAL; shape++)
        for (int granularity = 0; granularity <= 1; granularity++) {
            struct kure_kurtosis_rule rule = {.target = 2.5, .granularity = granularity};
            struct kure_kurtosis_measure up, down;
            fill(&r, w, N, (enum shape)shape, 0.25, 1);
            gradient_of(&t, rule);
            for (int i = 0; i < N; i += 7) {
                const float value = w[i], h = 0x1p-10f;
                w[i] = value + h;
                float high = w[i];
                kure_kurtosis_measure(&t, &rule, &up);
                w[i] = value - h;
                float low = w[i];
                kure_kurtosis_measure(&t, &rule, &down);
                w[i] = value;
                check_near("gradient against finite differences", t.updates[i],
                           (up.loss - down.loss) / ((double)high - low),
                           1e-4 * fabs(t.updates[i]) + 1e-5);
            }
        }
    guard_free(t.updates);
    guard_free(w);
}

/* K does not change by shift and scale: sum g = 0, sum g*w = 0. */
static void gradient_is_orthogonal(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    const size_t n = 40000;
    float *w = guard(n);
    struct kure_tensor t = tensor_of(w, 1, n);
    for (int shape = UNIFORM; shape <= EXPONENTIAL; shape++) {
        double sum = 0, dot = 0, gg = 0, ww = 0;
        fill(&r, w, n, (enum shape)shape, 0, 0.03);
        gradient_of(&t, (struct kure_kurtosis_rule){.target = 1.5});
        for (size_t i = 0; i < n; i++) {
            double g = t.updates[i];
            sum += g;
            dot += g * w[i];
            gg += g * g;
            ww += (double)w[i] * w[i];
        }
        check_near("sum g, share of |g| |1|", sum / sqrt(gg * (double)n), 0, 1e-6);
        check_near("sum g*w, share of |g| |w|", dot / sqrt(gg * ww), 0, 1e-6);
    }
    guard_free(t.updates);
    guard_free(w);
}

/* A channel's loss is the mean of its rows' losses as tensors. */
static void channels_are_tensors(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    enum { ROWS = 9, LENGTH = 50, N = ROWS * LENGTH };
    float *w = guard(N);
    double want[N], kurtosis = 0, loss = 0;
    fill(&r, w, N, LAPLACE, 0.1, 1);
    for (int i = 0; i < LENGTH; i++) w[4 * LENGTH + i] = 0.5f; /* all equal: left out */
    struct kure_tensor t = tensor_of(w, ROWS, LENGTH);
    for (int c = 0; c < ROWS; c++) {
        struct kure_tensor row = tensor_of(w + c * LENGTH, 1, LENGTH);
        if (c == 4) {
            assert_int_equal(skip_of(&row, (struct kure_kurtosis_rule){.target = 1.8}),
                             KURE_SKIP_CONSTANT);
        } else {
            struct kure_kurtosis_measure m =
                gradient_of(&row, (struct kure_kurtosis_rule){.target = 1.8});
            kurtosis += m.kurtosis / (ROWS - 1);
            loss += m.loss / (ROWS - 1);
        }
        for (int i = 0; i < LENGTH; i++) want[c * LENGTH + i] = row.updates[i] / (ROWS - 1.0);
        guard_free(row.updates);
    }
    struct kure_kurtosis_measure m = gradient_of(
        &t, (struct kure_kurtosis_rule){.target = 1.8, .granularity = KURE_GRANULARITY_CHANNEL});
    check_near("channels: K", m.kurtosis, kurtosis, 1e-13 * kurtosis);
    check_near("channels: loss", m.loss, loss, 1e-13 * loss);
    check_vector("channels: gradient", t.updates, want, N, 1e-6);
    guard_free(t.updates);
    guard_free(w);
}

static void skips(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    const struct kure_kurtosis_rule tensor = {.target = 1.8};
    const struct kure_kurtosis_rule channel = {.target = 1.8, .granularity = KURE_GRANULARITY_CHANNEL};
    float w[64];
    struct kure_tensor t = tensor_of(w, 1, 0);
    guard_free(t.updates);
    t.updates = guard(64);
    fill(&r, w, 64, NORMAL, 0, 1);

    for (size_t n = 0; n <= 17; n++) {
        t.row_length = n;
        assert_int_equal(skip_of(&t, tensor), n < 16 ? KURE_SKIP_SMALL : KURE_SKIP_NO);
        assert_int_equal(skip_of(&t, channel), n < 16 ? KURE_SKIP_SMALL : KURE_SKIP_NO);
    }
    t.rows = 4; /* enough together, too few in a row */
    t.row_length = 15;
    assert_int_equal(skip_of(&t, tensor), KURE_SKIP_NO);
    assert_int_equal(skip_of(&t, channel), KURE_SKIP_SMALL);
    t.row_length = 16;
    w[3] = NAN;
    assert_int_equal(skip_of(&t, tensor), KURE_SKIP_NONFINITE);
    assert_int_equal(skip_of(&t, channel), KURE_SKIP_NONFINITE);
    for (int i = 0; i < 64; i++) w[i] = 0.1f;
    assert_int_equal(skip_of(&t, tensor), KURE_SKIP_CONSTANT);
    assert_int_equal(skip_of(&t, channel), KURE_SKIP_CONSTANT);
    for (int i = 0; i < 64; i++) assert_true(i < 17 || t.updates[i] == 0);
    guard_free(t.updates);
}

/* The term is subtracted from what stands in updates, times factor. */
static void factor_and_sign(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    enum { N = 1000 };
    float *w = guard(N);
    double want[N];
    struct kure_tensor t = tensor_of(w, 1, N);
    const struct kure_kurtosis_rule rule = {.target = 1.8};
    fill(&r, w, N, NORMAL, 0, 0.5);
    struct kure_kurtosis_measure m = gradient_of(&t, rule);
    for (int i = 0; i < N; i++) want[i] = 3 - 2.5 * t.updates[i];
    for (int i = 0; i < N; i++) t.updates[i] = 3;
    kure_kurtosis_apply(&t, &rule, &m, 2.5, 0, 0);
    check_vector("3 - 2.5 g", t.updates, want, N, 1e-7);
    guard_free(t.updates);
    guard_free(w);
}

static double norm_of(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
    return sqrt(sum);
}

/* rate * |updates| is exactly max_step * |w - mean| where the limit acts. */
static void max_step_limits(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    enum { ROWS = 10, LENGTH = 400, N = ROWS * LENGTH };
    float *w = guard(N);
    struct kure_tensor t = tensor_of(w, ROWS, LENGTH);
    for (int kind = 0; kind < 4; kind++)
        for (int granularity = 0; granularity <= 1; granularity++) {
            const struct kure_kurtosis_rule rule = {.target = 1.8, .granularity = granularity};
            struct kure_kurtosis_measure m;
            const double rate = 0.01, factor = 1e30;
            fill(&r, w, N, kind == 0 ? NORMAL : LAPLACE, 0.2, 0.03);
            if (kind == 2) w[5] = 3e8f;                    /* moments cancel: |t| element by element */
            if (kind == 3)                                 /* nearly two values: the same */
                for (int i = 0; i < N; i++) w[i] = (i % 2 ? 1.0f : -1.0f) + 1e-4f * w[i];
            kure_kurtosis_measure(&t, &rule, &m);
            memset(t.updates, 0, N * sizeof *t.updates);
            assert_int_equal(kure_kurtosis_apply(&t, &rule, &m, factor, rate, 0.003), 1);
            check_near("length of a limited step",
                       rate * norm_of(t.updates, N) / sqrt(N * m.statistics.m2), 0.003, 3e-8);

            double before = norm_of(t.updates, N); /* a limit that is not reached: no change */
            memset(t.updates, 0, N * sizeof *t.updates);
            kure_kurtosis_apply(&t, &rule, &m, 1e-12, rate, 0);
            double free_step = norm_of(t.updates, N);
            memset(t.updates, 0, N * sizeof *t.updates);
            assert_int_equal(kure_kurtosis_apply(&t, &rule, &m, 1e-12, rate, 0.3), 0);
            assert_true(norm_of(t.updates, N) == free_step && free_step < before);
        }
    guard_free(t.updates);
    guard_free(w);
}

/* Gradient descent on the loss alone, momentum 0.9 as Darknet adds it. Returns
 * K at the end. */
static double descend(struct random *r, enum shape shape, double rate, double max_step, int steps)
{
    enum { ROWS = 16, LENGTH = 288, N = ROWS * LENGTH };
    const struct kure_kurtosis_rule rule = {.target = 1.8};
    const double batch = 64;
    float *w = guard(N);
    struct kure_tensor t = tensor_of(w, ROWS, LENGTH);
    struct kure_kurtosis_measure m;
    fill(r, w, N, shape, 0.001, 0.05);
    kure_kurtosis_measure(&t, &rule, &m);
    double start = sqrt(m.statistics.m2);
    for (int i = 0; i < steps; i++) {
        kure_kurtosis_measure(&t, &rule, &m);
        kure_kurtosis_apply(&t, &rule, &m, batch, rate / batch, max_step);
        for (int j = 0; j < N; j++) {
            w[j] += (float)(rate / batch) * t.updates[j];
            t.updates[j] *= 0.9f;
        }
    }
    kure_kurtosis_measure(&t, &rule, &m);
    if (max_step > 0) check_near("limited descent: sigma", sqrt(m.statistics.m2) / start, 1, 0.25);
    else check_near("descent: sigma", sqrt(m.statistics.m2) / start, 1, 0.1);
    guard_free(t.updates);
    guard_free(w);
    return m.kurtosis;
}

static void descent_reaches_target(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    check_near("K after descent, normal", descend(&r, NORMAL, 2e-4, 0, 4000), 1.8, 0.05);
    check_near("K after descent, Laplace", descend(&r, LAPLACE, 2e-4, 0, 5000), 1.8, 0.05);
    /* a rate that blows up without the limit */
    check_near("K after descent, normal, max_step", descend(&r, NORMAL, 1, 0.003, 1000), 1.8, 0.05);
    check_near("K after descent, Laplace, max_step", descend(&r, LAPLACE, 1, 0.003, 1500), 1.8, 0.05);
}

int main(void)
{
    const struct CMUnitTest kurtosis[] = {
        cmocka_unit_test(exact_arithmetic),   cmocka_unit_test(autograd),
        cmocka_unit_test(finite_differences), cmocka_unit_test(gradient_is_orthogonal),
        cmocka_unit_test(channels_are_tensors), cmocka_unit_test(skips),
        cmocka_unit_test(factor_and_sign),    cmocka_unit_test(max_step_limits),
        cmocka_unit_test(descent_reaches_target),
    };
    return check_main(kurtosis);
}
