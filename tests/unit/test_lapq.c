/* test_lapq.c: kure_lapq on losses whose lowest point is known. */
#include <math.h>
#include <string.h>

#include "check.h"
#include "lapq.h"

enum { MOST = 12, STRETCH = 8 };

/* A bowl in the logarithms of the steps, stretched STRETCH times in one direction and turned, with
 * its lowest point at `best` for the steps of exponent p; over p a parabola at `exponent`. */
struct bowl {
    int n;
    double best[MOST], exponent, offset;
    double p; /* in force */
    int calls, starts;
    int broken; /* every so manyth loss is not finite */
};

static double height(const struct bowl *b, const double *ratio)
{
    double sum = 0, along = 0;
    for (int i = 0; i < b->n; ++i) {
        double d = log2(ratio[i]) - b->best[i];
        sum += d * d;
        along += d;
    }
    return b->n ? sum + STRETCH * along * along / b->n : 0;
}

static double loss_of(struct bowl *b, const double *ratio)
{
    if (b->broken && b->calls && b->calls % b->broken == 0) return NAN;
    return b->offset + pow(b->p - b->exponent, 2) + height(b, ratio);
}

static double start(void *context, double p)
{
    struct bowl *b = context;
    double ones[MOST];
    for (int i = 0; i < b->n; ++i) ones[i] = 1;
    b->p = p;
    ++b->starts;
    return loss_of(b, ones);
}

static double loss(void *context, const double *ratio)
{
    struct bowl *b = context;
    ++b->calls;
    return loss_of(b, ratio);
}

static void solve(struct bowl *b, struct kure_lapq *problem, double *ratio)
{
    *problem = (struct kure_lapq){.count = b->n, .start = start, .loss = loss, .context = b};
    assert_int_equal(kure_lapq(problem, ratio, NULL), KURE_OK);
    assert_true(b->calls + b->starts <= kure_lapq_calls(b->n));
}

static void test_known_optimum(void **state)
{
    (void)state;
    for (int n = 1; n <= MOST; n += 3) {
        struct bowl b = {.n = n, .exponent = 2.7, .offset = 5};
        struct kure_lapq problem;
        double ratio[MOST];
        for (int i = 0; i < n; ++i) b.best[i] = 0.6 * cos(i + 1);
        solve(&b, &problem, ratio);
        double ones[MOST] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, at_start = height(&b, ones), at_end = height(&b, ratio);
        assert_true(fabs(problem.p - 2.7) < 1e-9);
        assert_true(b.p == problem.p);                      /* its steps are in force */
        assert_true(fabs(problem.first - (5 + 0.49 + at_start)) < 1e-6);
        assert_true(fabs(problem.least - (5 + at_end)) < 1e-6); /* of the ratios that were returned */
        assert_true(at_end < (n == 1 ? 1e-4 : 0.05) * at_start);
        if (n == 1) assert_true(fabs(log2(ratio[0]) - b.best[0]) < 0.01);
        int calls = b.calls;
        double again[MOST];
        b.calls = b.starts = 0;
        solve(&b, &problem, again);
        assert_true(b.calls == calls && memcmp(ratio, again, (size_t)n * sizeof *ratio) == 0);
    }
}

static void test_bounds(void **state)
{
    struct bowl b = {.n = 2, .best = {3, -3}, .exponent = 2};
    struct kure_lapq problem;
    double ratio[MOST];
    (void)state;
    solve(&b, &problem, ratio);
    assert_true(ratio[0] > 1.9 && ratio[0] <= 2 && ratio[1] < 0.53 && ratio[1] >= 0.5);
}

/* An exponent of a parabola that opens downwards, or lies far outside; no step at all. */
static void test_exponent(void **state)
{
    struct kure_lapq problem;
    double ratio[MOST];
    (void)state;
    for (double exponent = -4; exponent <= 12; exponent += 0.5) {
        struct bowl b = {.n = 0, .exponent = exponent};
        solve(&b, &problem, ratio);
        assert_true(fabs(problem.p - fmin(fmax(exponent, 1), 5)) < 1e-9);
        assert_true(b.p == problem.p && problem.least <= problem.first && b.calls == 0);
    }
}

static void test_losses_that_are_not_finite(void **state)
{
    struct bowl b = {.n = 2, .best = {0.5, -0.5}, .exponent = 2.5, .broken = 3};
    struct kure_lapq problem;
    double ratio[MOST];
    (void)state;
    solve(&b, &problem, ratio);
    assert_true(isfinite(problem.least) && problem.least < problem.first);
    assert_true(isfinite(ratio[0]) && isfinite(ratio[1]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_optimum),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_exponent),
        cmocka_unit_test(test_losses_that_are_not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
