/* test_statistics.c: kure_statistics_compute. */
#include "check.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* the same moments in long double, two passes */
static void reference(const float *x, size_t n, long double m[7])
{
    m[1] = 0;
    for (size_t i = 0; i < n; i++) m[1] += x[i];
    m[1] /= (long double)n;
    for (int k = 2; k <= 6; k++) m[k] = 0;
    for (size_t i = 0; i < n; i++) {
        long double d = x[i] - m[1], power = d;
        for (int k = 2; k <= 6; k++) m[k] += power *= d;
    }
    for (int k = 2; k <= 6; k++) m[k] /= (long double)n;
}

/* Odd moments may be near 0: their scale is sigma^k. A pivot far off the mean
 * costs digits of the high moments. */
static void check_moments(const struct kure_statistics *s, double mean, double m2, double m3, double m4,
                          double m6, int pivot_is_bad)
{
    double sigma = sqrt(m2);
    check_near("mean, share of |mean| + sigma", s->mean, mean, 4e-15 * (fabs(mean) + sigma));
    if (pivot_is_bad) {
        check_near("bad pivot: m2", s->m2, m2, 2e-13 * m2);
        check_near("bad pivot: m3, share of sigma^3", s->m3, m3, 1e-12 * (fabs(m3) + sigma * m2));
        check_near("bad pivot: m4", s->m4, m4, 1e-12 * m4);
        check_near("bad pivot: m6", s->m6, m6, 1e-10 * m6);
    } else {
        check_near("m2", s->m2, m2, 1e-14 * m2);
        check_near("m3, share of sigma^3", s->m3, m3, 2e-14 * (fabs(m3) + sigma * m2));
        check_near("m4", s->m4, m4, 2e-14 * m4);
        check_near("m6", s->m6, m6, 2e-14 * m6);
    }
}

static void exact_arithmetic(void **state)
{
    (void)state;
    struct golden *g = golden_open("statistics.txt");
    while (golden_case(g)) {
        size_t n = (size_t)golden_value(g, "n"), count;
        float shift = (float)golden_value(g, "shift");
        double mean = golden_value(g, "mean");
        const double *m = golden_values(g, "moments", &count);
        double min = golden_value(g, "min"), max = golden_value(g, "max");
        struct kure_statistics s;
        float *x = guard(n);
        fill_lcg(x, n, n);
        for (size_t i = 0; i < n; i++) x[i] += shift; /* exact */
        kure_statistics_compute(x, n, &s);
        assert_int_equal(s.n, n);
        assert_int_equal(s.nonfinite, 0);
        check_moments(&s, mean, m[0], m[1], m[2], m[3], 0);
        assert_true(s.min == (float)min && s.max == (float)max);
        guard_free(x);
    }
    golden_close(g);
}

static void random_tensors(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    const size_t sizes[] = {1, 2, 7, 8, 9, 15, 16, 17, 511, 512, 513, 16383, 16384, 16385, 32768, 70000};
    for (size_t k = 0; k < COUNT(sizes); k++)
        for (int shape = UNIFORM; shape <= EXPONENTIAL; shape++)
            for (int e = -30; e <= 30; e += 10) {
                struct kure_statistics s;
                long double m[7];
                float *x = guard(sizes[k]);
                double sigma = pow(10, e);
                fill(&r, x, sizes[k], (enum shape)shape, sigma * (shape == NORMAL ? 1e4 : 0), sigma);
                reference(x, sizes[k], m);
                kure_statistics_compute(x, sizes[k], &s);
                if (sizes[k] > 1)
                    check_moments(&s, (double)m[1], (double)m[2], (double)m[3], (double)m[4], (double)m[6], 0);
                guard_free(x);
            }
}

/* The pivot is the mean of the first chunk: here it is as far off as it can be. */
static void bad_pivot(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    enum { N = 3000000 };
    float *x = guard(N);
    struct kure_statistics s;
    long double m[7];
    fill(&r, x, N, NORMAL, 0, 1);
    for (size_t i = 0; i < 16384; i++) x[i] += 1e5f;
    reference(x, N, m);
    kure_statistics_compute(x, N, &s);
    check_moments(&s, (double)m[1], (double)m[2], (double)m[3], (double)m[4], (double)m[6], 1);

    fill(&r, x, N, NORMAL, 0, 1); /* and one huge value inside the first chunk */
    x[77] = 1e9f;
    reference(x, N, m);
    kure_statistics_compute(x, N, &s);
    check_moments(&s, (double)m[1], (double)m[2], (double)m[3], (double)m[4], (double)m[6], 1);
    guard_free(x);
}

static void constant(void **state)
{
    (void)state;
    const float values[] = {0, 1, -0.1f, FLT_MAX, FLT_MIN, 3.3e-20f};
    const size_t sizes[] = {1, 16, 17, 1000, 16385, 50001};
    for (size_t v = 0; v < COUNT(values); v++)
        for (size_t k = 0; k < COUNT(sizes); k++) {
            struct kure_statistics s;
            float *x = guard(sizes[k]);
            for (size_t i = 0; i < sizes[k]; i++) x[i] = values[v];
            kure_statistics_compute(x, sizes[k], &s);
            assert_true(s.m2 == 0 && s.m3 == 0 && s.m4 == 0 && s.m6 == 0);
            assert_true(s.mean == values[v] && s.min == values[v] && s.max == values[v]);
            assert_true(isnan(kure_kurtosis(&s, KURE_STD_BIASED)));
            guard_free(x);
        }
}

static void empty(void **state)
{
    (void)state;
    struct kure_statistics s;
    memset(&s, 0x55, sizeof s);
    kure_statistics_compute(NULL, 0, &s);
    assert_true(s.n == 0 && s.nonfinite == 0 && s.mean == 0 && s.m2 == 0 && s.m6 == 0);
    assert_true(s.min == 0 && s.max == 0);
    assert_true(kure_statistics_std(&s) == 0 && kure_statistics_skewness(&s) == 0);
}

static void nonfinite_are_counted(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    const float bad[] = {NAN, INFINITY, -INFINITY};
    const size_t n = 40000, places[] = {0, 16383, 16384, 39999};
    float *x = guard(n);
    struct kure_statistics s;
    for (size_t p = 0; p < COUNT(places); p++)
        for (size_t b = 0; b < COUNT(bad); b++) {
            fill(&r, x, n, NORMAL, 0, 1);
            x[places[p]] = bad[b];
            kure_statistics_compute(x, n, &s);
            assert_int_equal(s.nonfinite, 1);
            x[7] = bad[b];
            x[20000] = bad[(b + 1) % COUNT(bad)];
            kure_statistics_compute(x, n, &s);
            assert_int_equal(s.nonfinite, 3);
            assert_true(isnan(kure_kurtosis(&s, KURE_STD_UNBIASED)));
        }
    for (size_t i = 0; i < n; i++) x[i] = i % 2 ? FLT_MAX : -FLT_MAX; /* finite, and the largest */
    kure_statistics_compute(x, n, &s);
    assert_int_equal(s.nonfinite, 0);
    check_near("K of two values", kure_kurtosis(&s, KURE_STD_BIASED), 1, 1e-12);
    guard_free(x);
}

static void subnormals_count_as_zero(void **state)
{
    (void)state;
    float x[32];
    struct kure_statistics s;
    for (int i = 0; i < 32; i++) x[i] = i % 2 ? 1e-39f : -1e-39f;
    kure_statistics_compute(x, COUNT(x), &s);
    assert_true(s.m2 == 0 && s.mean == 0 && s.min == 0 && s.max == 0);
    x[5] = FLT_MIN;
    kure_statistics_compute(x, COUNT(x), &s);
    assert_true(s.max == FLT_MIN && s.min == 0 && s.m2 > 0);
}

static void std_and_skewness(void **state)
{
    (void)state;
    const float x[] = {1, 2, 4, 9};
    struct kure_statistics s;
    kure_statistics_compute(x, COUNT(x), &s);
    check_near("std", kure_statistics_std(&s), sqrt(38.0 / 3), 1e-14); /* sum d^2 = 38 */
    check_near("skewness", kure_statistics_skewness(&s), 22.5 / pow(9.5, 1.5), 1e-14); /* sum d^3 = 90 */
}

int main(void)
{
    const struct CMUnitTest statistics[] = {
        cmocka_unit_test(exact_arithmetic), cmocka_unit_test(random_tensors),
        cmocka_unit_test(bad_pivot),        cmocka_unit_test(constant),
        cmocka_unit_test(empty),            cmocka_unit_test(nonfinite_are_counted),
        cmocka_unit_test(subnormals_count_as_zero), cmocka_unit_test(std_and_skewness),
    };
    return check_main(statistics);
}
