/* test_policies.c: every truncation policy against NumPy, and at the edges. */
#include "check.h"

#include <math.h>
#include <string.h>

enum { MOST = 20000 };

/* tests/golden/quantizers.py, shape_of */
static void make(float *x, size_t n, int shape)
{
    fill_lcg(x, n, n);
    for (size_t i = 0; i < n; i++) switch (shape) {
        case 1: x[i] = x[i] * x[i] * x[i]; break;
        case 2: x[i] = x[i] > 0 ? x[i] : 0; break;
        case 3: x[i] = x[i] + 1.5f; break;
        case 4: x[i] = i == 5 ? 60 : x[i]; break;
        case 5: x[i] = -0.3f; break;
        default: break;
        }
}

/* mean |x - Q(x)|^p in double */
static double mean_error(const float *x, size_t n, struct kure_scale s, const struct kure_quantizer *q, double p)
{
    double half = ldexp(1, q->bits - 1), low = q->symmetric ? 1 - half : -half, sum = 0;
    for (size_t i = 0; i < n; i++) {
        double code = fmin(fmax(rint(x[i] / s.step) + s.zero_point, low), half - 1);
        sum += pow(fabs(x[i] - s.step * (code - s.zero_point)), p);
    }
    return sum / (double)n;
}

static struct kure_quantizer quantizer(int policy, double value, int bits, int symmetric)
{
    return (struct kure_quantizer){.bits = bits, .truncation = (enum kure_truncation)policy, .truncation_value = value,
                                   .step_ratio = 1, .symmetric = symmetric,
                                   .grid = symmetric ? KURE_GRID_NARROW : KURE_GRID_FULL};
}

/* The formulas are exact; bins of a histogram blur an edge by a 4096th of the range. */
static double tolerance(int policy, size_t n, int shape)
{
    int binned = n >= KURE_HISTOGRAM_BINS && (policy == KURE_TRUNCATION_PERCENTILE || policy == KURE_TRUNCATION_KL);
    return !binned ? 2e-6 : shape == 4 ? 0.05 : 0.01;
}

static void numpy(void **state)
{
    (void)state;
    struct golden *g = golden_open("policies.txt");
    const char *name;
    float *x = guard(MOST);
    while ((name = golden_case(g))) {
        size_t n = (size_t)golden_value(g, "n"), count;
        int shape = (int)golden_value(g, "shape");
        make(x, n, shape);
        const double *row = golden_values(g, "scales", &count);
        for (; count; count -= 6, row += 6) {
            struct kure_quantizer q = quantizer((int)row[0], row[1], (int)row[2], (int)row[3]);
            struct kure_scale s;
            struct kure_error error = {""};
            if (kure_scale_find(x, n, &q, &s, &error) != KURE_OK) fail_msg("%s: %s", name, error.text);
            double near = tolerance((int)row[0], n, shape);
            if (fabs(s.step / row[4] - 1) > near || (near < 1e-3 && s.zero_point != (int)row[5]))
                fail_msg("%s, %s %g, %d bits, symmetric %d: step %.9g, zero point %d; NumPy %.9g, %d", name,
                         kure_policy_text((int)row[0]).name, row[1], q.bits, q.symmetric, s.step, s.zero_point, row[4], (int)row[5]);
            check_near(near < 1e-3 ? "policy's step, share" : "policy's step from a histogram, share", s.step / row[4], 1, near);
        }
        row = golden_values(g, "errors", &count);
        for (; count; count -= 5, row += 5) {
            struct kure_quantizer q = quantizer((int)row[0], row[1], (int)row[2], (int)row[3]);
            double p = row[1] != 0 ? row[1] : 2;
            struct kure_scale s;
            assert_int_equal(kure_scale_find(x, n, &q, &s, NULL), KURE_OK);
            double got = mean_error(x, n, s, &q, p), scale = pow(s.step, p);
            if (got > 1.02 * row[4] + 1e-9 * scale)
                fail_msg("%s, p %g, %d bits, symmetric %d: error %g, brute force %g", name, p, q.bits, q.symmetric, got, row[4]);
            check_near("error above brute force, share", fmax(got / (row[4] + 1e-9 * scale) - 1, 0), 0, 0.02);
        }
    }
    guard_free(x);
    golden_close(g);
}

/* ACIQ's published clips, in units of sigma (normal) and b (Laplace): Banner et al., and the official KURE code. */
static void aciq_tables(void **state)
{
    (void)state;
    static const double normal[] = {1.71, 2.15, 2.55, 2.93, 3.28, 3.61, 3.92}, laplace[] = {2.83, 3.89, 5.03, 6.20, 7.41, 8.64, 9.89};
    float x[4000];
    for (int i = 0; i < 4000; i++) x[i] = i < 2000 ? 1.0f - (float)(i % 2) * 2 : 0;
    x[0] = 100; /* so that no clip is beyond the largest value */
    x[1] = -100;
    double sigma = sqrt((1998 + 2e4) / 4000), b = (1998 + 200) / 4000.0;
    for (int bits = 2; bits <= 8; bits++) {
        struct kure_scale s;
        struct kure_quantizer q = quantizer(KURE_TRUNCATION_GAUSS, 0, bits, 1);
        assert_int_equal(kure_scale_find(x, 4000, &q, &s, NULL), KURE_OK);
        check_near("ACIQ, normal", s.step * (ldexp(1, bits - 1) - 1) / sigma, normal[bits - 2], 0.011);
        q.truncation = KURE_TRUNCATION_LAPLACE;
        assert_int_equal(kure_scale_find(x, 4000, &q, &s, NULL), KURE_OK);
        check_near("ACIQ, Laplace", s.step * (ldexp(1, bits - 1) - 1) / b, laplace[bits - 2], 0.011);
    }
}

static double value_for(int policy)
{
    struct kure_choice_text text = kure_policy_text(policy);
    if (!*text.value) return 0;
    return policy == KURE_TRUNCATION_PERCENTILE ? 99.9 : policy == KURE_TRUNCATION_LP ? 2.5 : 2;
}

/* Constant, of one value, with an outlier, all zero: a scale that serves. */
static void edges(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    float *x = guard(MOST), *y = guard(MOST);
    for (int policy = 0; policy < KURE_TRUNCATIONS; policy++)
        for (int symmetric = 0; symmetric <= 1; symmetric++)
            for (int kind = 0; kind < 8; kind++) {
                static const size_t sizes[] = {0, 1, 7, 7, 300, 300, MOST, MOST};
                struct kure_quantizer q = quantizer(policy, value_for(policy), 4, symmetric);
                struct kure_scale s;
                struct kure_error error = {""};
                size_t n = sizes[kind];
                for (size_t i = 0; i < n; i++) x[i] = kind == 3 || kind == 6 ? 0 : kind == 2 ? 0.7f : (float)random_normal(&r);
                if (kind == 5 || kind == 7) x[n / 2] = 1e6f;
                int status = kure_scale_find(x, n, &q, &s, &error);
                if (policy == KURE_TRUNCATION_EMA) {
                    assert_int_equal(status, KURE_ERROR_INPUT);
                    continue;
                }
                if (status != KURE_OK) fail_msg("%s, kind %d: %s", kure_policy_text(policy).name, kind, error.text);
                int zeros = kind == 0 || kind == 3 || kind == 6;
                if (zeros != (s.step == 0) || !isfinite(s.step) || s.step < 0)
                    fail_msg("%s, kind %d, symmetric %d: step %g", kure_policy_text(policy).name, kind, symmetric, s.step);
                assert_true(s.zero_point >= -8 && s.zero_point <= 7);
                kure_fake_quantize(x, y, n, s, &q, NULL);
                if (kind == 2 && policy != KURE_TRUNCATION_FIXED)
                    for (size_t i = 0; i < n; i++) check_near("constant", y[i], x[i], 0.51 * s.step);
                if (n > 1 && !zeros) {
                    x[1] = NAN;
                    assert_int_equal(kure_scale_find(x, n, &q, &s, &error), KURE_ERROR_INPUT);
                    if (!strstr(error.text, "not finite")) fail_msg("NaN: \"%s\"", error.text);
                }
            }
    guard_free(x);
    guard_free(y);
}

/* A row of zeros among others stays zero, whatever the policy, and none is lost. */
static void zero_channel(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    enum { ROWS = 5, LENGTH = 40 };
    for (int policy = 0; policy < KURE_TRUNCATIONS; policy++) {
        struct kure_quantizer q = quantizer(policy, value_for(policy), 3, policy % 2);
        float *w = guard(ROWS * LENGTH);
        struct kure_tensor t = {.weights = w, .rows = ROWS, .row_length = LENGTH};
        struct kure_quantization out;
        if (policy == KURE_TRUNCATION_EMA) q.truncation = KURE_TRUNCATION_MINMAX;
        q.granularity = KURE_GRANULARITY_CHANNEL;
        fill(&r, w, ROWS * LENGTH, LAPLACE, 0.1, 1);
        memset(w + 2 * LENGTH, 0, LENGTH * sizeof *w);
        assert_int_equal(kure_quantize_tensor(&t, &q, 0, NULL, &out, NULL), KURE_OK);
        for (int c = 0; c < ROWS; c++) {
            int distinct = 0, any = 0;
            for (int i = 0; i < LENGTH; i++) {
                int seen = 0;
                for (int j = 0; j < i; j++) seen |= w[c * LENGTH + j] == w[c * LENGTH + i];
                distinct += !seen;
                any |= w[c * LENGTH + i] != 0;
            }
            assert_true(c == 2 ? !any : any && distinct <= 8);
        }
        guard_free(w);
    }
}

/* A percentile of mostly zeros is 0: all values are covered instead. */
static void mostly_zeros(void **state)
{
    (void)state;
    float x[100] = {[7] = 2, [60] = -4};
    const struct kure_quantizer q = quantizer(KURE_TRUNCATION_PERCENTILE, 90, 3, 1);
    struct kure_scale s;
    assert_int_equal(kure_scale_find(x, 100, &q, &s, NULL), KURE_OK);
    check_near("step of mostly zeros", s.step, 4.0 / 3, 1e-6);
}

/* A scaled tensor has a scaled step, of random shapes, kinds and bits. */
static void property_scaling(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    float *x = guard(900), *y = guard(900);
    for (int trial = 0; trial < 200; trial++) {
        int policy = trial % KURE_TRUNCATIONS;
        size_t n = 1 + (size_t)(random_uniform(&r) * 900);
        struct kure_quantizer q = quantizer(policy, value_for(policy), 2 + trial % 7, trial / 10 % 2);
        struct kure_scale a, b;
        if (policy == KURE_TRUNCATION_EMA || policy == KURE_TRUNCATION_FIXED) continue;
        fill(&r, x, n, (enum shape)(trial % 4), random_uniform(&r) - 0.5, 1);
        for (size_t i = 0; i < n; i++) y[i] = ldexpf(x[i], -7);
        assert_int_equal(kure_scale_find(x, n, &q, &a, NULL), KURE_OK);
        assert_int_equal(kure_scale_find(y, n, &q, &b, NULL), KURE_OK);
        check_near("scaled values, share of the step", b.step * 128 / a.step, 1, 1e-6);
        assert_int_equal(a.zero_point, b.zero_point);
    }
    guard_free(x);
    guard_free(y);
}

int main(void)
{
    const struct CMUnitTest policies[] = {
        cmocka_unit_test(numpy), cmocka_unit_test(aciq_tables), cmocka_unit_test(edges),
        cmocka_unit_test(zero_channel), cmocka_unit_test(mostly_zeros), cmocka_unit_test(property_scaling),
    };
    return check_main(policies);
}
