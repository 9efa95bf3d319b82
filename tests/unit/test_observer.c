/* test_observer.c: struct kure_observer: batches against the whole. */
#include "check.h"

#include <math.h>
#include <stdlib.h>

static struct kure_quantizer quantizer(int policy)
{
    const double value = policy == KURE_TRUNCATION_PERCENTILE ? 99 : policy == KURE_TRUNCATION_LP ? 3 : 2;
    return (struct kure_quantizer){.bits = 8, .truncation = (enum kure_truncation)policy, .grid = KURE_GRID_FULL, .step_ratio = 1,
                                   .truncation_value = *kure_policy_text(policy).value ? value : 0};
}

static void pytorch(void **state)
{
    (void)state;
    struct golden *g = golden_open("observer.txt");
    while (golden_case(g)) {
        float x[300], batch[50], shift = (float)golden_value(g, "shift");
        size_t count;
        const double *want = golden_values(g, "scales", &count);
        const struct kure_quantizer kinds[] = {quantizer(KURE_TRUNCATION_MINMAX), quantizer(KURE_TRUNCATION_EMA)};
        struct kure_observer o[2];
        fill_lcg(x, 300, 9);
        for (int i = 0; i < 2; i++) assert_int_equal(kure_observer_init(&o[i], &kinds[i], NULL), KURE_OK);
        for (int k = 0; k < 6; k++) {
            for (int i = 0; i < 50; i++) batch[i] = x[50 * k + i] * (float)(k + 1) + shift;
            for (int i = 0; i < 2; i++, want += 2) {
                struct kure_scale s;
                assert_int_equal(kure_observer_add(&o[i], batch, 50), 0);
                assert_int_equal(kure_observer_scale(&o[i], &kinds[i], &s, NULL), KURE_OK);
                check_near("observer's step against PyTorch, share", s.step / want[0], 1, 1e-6);
                assert_int_equal(s.zero_point, (int)want[1]);
            }
        }
        for (int i = 0; i < 2; i++) kure_observer_free(&o[i]);
    }
    golden_close(g);
}

/* Batches of odd sizes give what all values at once give, if not to the bit. */
static void batches_equal_the_whole(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    enum { N = 30000 };
    float *x = guard(N);
    for (int policy = 0; policy < KURE_TRUNCATIONS; policy++)
        for (int relu = 0; relu <= 1; relu++) {
            struct kure_quantizer q = quantizer(policy);
            struct kure_observer o;
            struct kure_scale got, want;
            fill(&r, x, N, NORMAL, 0.2, 1);
            for (int i = 0; relu && i < N; i++) x[i] = x[i] > 0 ? x[i] : 0;
            x[N - 10] = 7; /* widens the histogram late */
            if (policy == KURE_TRUNCATION_EMA) continue;
            assert_int_equal(kure_observer_init(&o, &q, NULL), KURE_OK);
            for (size_t at = 0, m = 501; at < N; at += m, m = 2 * m + 1) {
                if (m > N - at) m = N - at;
                assert_int_equal(kure_observer_add(&o, x + at, m), 0);
            }
            assert_true(o.n == N);
            assert_int_equal(kure_observer_scale(&o, &q, &got, NULL), KURE_OK);
            assert_int_equal(kure_scale_find(x, N, &q, &want, NULL), KURE_OK);
            /* kl's least is one of many of nearly the same divergence: other bins, another one */
            if (policy == KURE_TRUNCATION_KL) check_near("kl: step from other bins, share", got.step / want.step, 1, 0.15);
            else check_near("observer's step against the whole, share", got.step / want.step, 1, 0.01);
            assert_true(abs(got.zero_point - want.zero_point) <= 2);
            kure_observer_free(&o);
        }
    guard_free(x);
}

static void moments(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    struct kure_quantizer q = quantizer(KURE_TRUNCATION_GAUSS);
    struct kure_observer o;
    struct kure_statistics s;
    float x[5000];
    double deviation = 0;
    fill(&r, x, 5000, LAPLACE, 3, 0.5);
    for (int i = 0; i < 5000; i += 50) x[i] = 0;
    assert_int_equal(kure_observer_init(&o, &q, NULL), KURE_OK);
    for (size_t at = 0; at < 5000; at += 1250) kure_observer_add(&o, x + at, 1250);
    kure_statistics_compute(x, 5000, &s);
    for (int i = 0; i < 5000; i++) deviation += fabs(x[i] - o.center) / 5000;
    check_near("running mean", o.mean, s.mean, 1e-12);
    check_near("running variance", o.m2, s.m2, 1e-12);
    check_near("running deviation", o.deviation, deviation, 1e-12);
    assert_true(o.min == s.min && o.max == s.max && o.zeros == 100 && o.n == 5000 && o.batches == 4);
    kure_observer_free(&o);
}

/* A reset forgets all but the moving averages; a batch with NaN does not count. */
static void reset_and_nan(void **state)
{
    (void)state;
    for (int policy = 0; policy < KURE_TRUNCATIONS; policy++) {
        struct kure_quantizer q = quantizer(policy);
        const float a[4] = {-1, 0, 0.5f, 3}, b[4] = {0, 1, 0.25f, 2}, bad[4] = {1, NAN, 100, -INFINITY};
        struct kure_observer o, fresh;
        struct kure_scale before, after, want;
        assert_int_equal(kure_observer_init(&o, &q, NULL), KURE_OK);
        assert_int_equal(kure_observer_scale(&o, &q, &before, NULL), KURE_OK);
        assert_true(before.step == 0);
        kure_observer_add(&o, a, 4);
        assert_int_equal(kure_observer_scale(&o, &q, &before, NULL), KURE_OK);
        assert_int_equal(kure_observer_add(&o, bad, 4), 2);
        assert_int_equal(kure_observer_add(&o, NULL, 0), 0);
        assert_int_equal(kure_observer_scale(&o, &q, &after, NULL), KURE_OK);
        assert_true(before.step > 0 && before.step == after.step && before.zero_point == after.zero_point);
        kure_observer_reset(&o);
        assert_true(o.n == 0 && o.ema_max == 3 && o.ema_min == -1);
        assert_int_equal(kure_observer_scale(&o, &q, &after, NULL), KURE_OK);
        assert_true(after.step == (policy == KURE_TRUNCATION_EMA ? before.step : 0));
        kure_observer_add(&o, b, 4);
        assert_int_equal(kure_observer_init(&fresh, &q, NULL), KURE_OK);
        if (policy == KURE_TRUNCATION_EMA) kure_observer_add(&fresh, a, 4);
        kure_observer_add(&fresh, b, 4);
        assert_int_equal(kure_observer_scale(&o, &q, &after, NULL), KURE_OK);
        assert_int_equal(kure_observer_scale(&fresh, &q, &want, NULL), KURE_OK);
        assert_true(after.step == want.step && after.zero_point == want.zero_point);
        kure_observer_free(&o);
        kure_observer_free(&fresh);
    }
}

int main(void)
{
    const struct CMUnitTest observer[] = {
        cmocka_unit_test(pytorch), cmocka_unit_test(batches_equal_the_whole), cmocka_unit_test(moments),
        cmocka_unit_test(reset_and_nan),
    };
    return check_main(observer);
}
