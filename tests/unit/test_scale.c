/* test_scale.c: kure_scale_find with minmax and mse; kinds of steps, zero points. */
#include "check.h"

#include <math.h>
#include <string.h>

static double step_of(const float *x, size_t n, const struct kure_quantizer *q)
{
    struct kure_scale scale = {1, 1};
    assert_int_equal(kure_scale_find(x, n, q, &scale, NULL), KURE_OK);
    assert_int_equal(scale.zero_point, 0);
    return scale.step;
}

static void limits(int bits, int grid, double *low, double *high, double *offset)
{
    double half = ldexp(1, bits - 1);
    *low = grid == KURE_GRID_NARROW ? 1 - half : -half;
    *high = half - 1;
    *offset = grid == KURE_GRID_MIDRISE ? 0.5 : 0;
}

/* sum (x - Q(x))^2 in double */
static double error_of(const float *x, size_t n, double step, int bits, int grid)
{
    double low, high, offset, sum = 0;
    limits(bits, grid, &low, &high, &offset);
    for (size_t i = 0; i < n; i++) {
        double code = fmin(fmax(rint(x[i] / step - offset), low), high);
        double e = x[i] - step * (code + offset);
        sum += e * e;
    }
    return sum;
}

/* The search must not be worse than brute force by more than this share: on all
 * values, and on a histogram (whose bins blur 8-bit steps a little). */
static const double WORSE = 0.002, WORSE_HISTOGRAM = 0.005;

static void brute_force(void **state)
{
    (void)state;
    struct golden *g = golden_open("step_size.txt");
    while (golden_case(g)) {
        size_t n = (size_t)golden_value(g, "n"), count, results;
        int is_lcg = n > 0;
        float *x = golden_floats(g, "x", &count);
        double signal = golden_value(g, "signal");
        const double *row = golden_values(g, "results", &results);
        if (is_lcg) {
            guard_free(x);
            x = guard(n);
            fill_lcg(x, n, n);
        } else {
            n = count;
        }
        for (; results; results -= 5, row += 5) { /* bits, grid, covering, best, its error */
            struct kure_quantizer q = {.bits = (int)row[0], .grid = (enum kure_grid)row[1], .step_ratio = 1, .symmetric = 1};
            double step, error;
            q.truncation = KURE_TRUNCATION_MINMAX;
            step = step_of(x, n, &q);
            check_near("covering step", step, row[2], 1e-7 * row[2]);
            q.truncation = KURE_TRUNCATION_MSE;
            step = step_of(x, n, &q);
            error = error_of(x, n, step, q.bits, (int)q.grid);
            double more = error > row[4] ? error - row[4] : 0;
            int histogram = n >= KURE_HISTOGRAM_BINS;
            check_near(histogram ? "error above brute force, histogram" : "error above brute force", more,
                       0, (histogram ? WORSE_HISTOGRAM : WORSE) * row[4] + 1e-12 * signal);
        }
        guard_free(x);
    }
    golden_close(g);
}

/* x[n]: the quantiles of the unit normal, without the noise of a sample */
static void normal_quantiles(float *x, size_t n)
{
    double z = 0;
    for (size_t i = n / 2; i < n; i++) { /* Newton's method from the quantile before */
        double above = ((double)(n - i) - 0.5) / (double)n;
        for (int k = 0; k < 4; k++)
            z += (0.5 * erfc(z / sqrt(2)) - above) / (exp(-z * z / 2) / sqrt(6.283185307179586));
        x[i] = (float)z;
        x[n - 1 - i] = (float)-z;
    }
}

/* Optimal steps and errors for unit variance, from piecewise integration. */
static void theory(void **state)
{
    (void)state;
    static const struct {
        int grid, bits;
        double normal_step, normal_error, uniform_step, uniform_error;
    } table[] = {
        {KURE_GRID_MIDRISE, 2, 0.99569, 0.118846, 0.86603, 0.062500},
        {KURE_GRID_MIDRISE, 3, 0.58602, 0.037440, 0.43301, 0.015625},
        {KURE_GRID_MIDRISE, 4, 0.33520, 0.011543, 0.21651, 0.003906},
        {KURE_GRID_MIDRISE, 6, 0.10406, 0.001040, 0.05413, 0.000244},
        {KURE_GRID_MIDRISE, 8, 0.03076, 0.0000877, 0.01353, 0.0000153},
        {KURE_GRID_FULL, 2, 1.04839, 0.149431, 0.94475, 0.107438},
        {KURE_GRID_FULL, 3, 0.60182, 0.040638, 0.47546, 0.020377},
        {KURE_GRID_FULL, 4, 0.33861, 0.011864, 0.22891, 0.004444},
        {KURE_GRID_FULL, 8, 0.03077, 0.0000877, 0.01358, 0.0000154},
        {KURE_GRID_NARROW, 2, 1.22401, 0.190174, 1.15470, 0.111111},
        {KURE_GRID_NARROW, 3, 0.65077, 0.046860, 0.49487, 0.020408},
        {KURE_GRID_NARROW, 4, 0.35341, 0.012889, 0.23094, 0.004444},
        {KURE_GRID_NARROW, 8, 0.03087, 0.0000883, 0.01358, 0.0000154},
    };
    enum { N = 1000000 };
    float *normal = guard(N), *uniform = guard(N);
    normal_quantiles(normal, N);
    for (size_t i = 0; i < N; i++) uniform[i] = (float)(sqrt(12) * (((double)i + 0.5) / N - 0.5));
    for (size_t i = 0; i < COUNT(table); i++) {
        const struct kure_quantizer q = {.bits = table[i].bits, .grid = (enum kure_grid)table[i].grid,
                                         .truncation = KURE_TRUNCATION_MSE, .step_ratio = 1, .symmetric = 1};
        double step;
        step = step_of(normal, N, &q);
        double error = error_of(normal, N, step, q.bits, table[i].grid) / N;
        check_near("step for normal values, share", step / table[i].normal_step, 1, 0.01);
        check_near("its error, share", error / table[i].normal_error, 1, 0.005);
        step = step_of(uniform, N, &q);
        error = error_of(uniform, N, step, q.bits, table[i].grid) / N;
        check_near("step for uniform values, share", step / table[i].uniform_step, 1, 0.01);
        check_near("its error, share", error / table[i].uniform_error, 1, 0.005);
    }
    guard_free(normal);
    guard_free(uniform);
}

/* minmax: no value is further than half a step from its level; a smaller step
 * would leave one outside. */
static void minmax_covers(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    float x[100];
    for (int bits = 2; bits <= 16; bits++)
        for (int grid = 0; grid <= 2; grid++)
            for (int kind = 0; kind < 3; kind++) {
                const struct kure_quantizer q = {.bits = bits, .grid = (enum kure_grid)grid, .step_ratio = 1, .symmetric = 1};
                double step, low, high, offset, min = 0, max = 0;
                fill(&r, x, 100, LAPLACE, kind - 1, 0.3);
                limits(bits, grid, &low, &high, &offset);
                for (int i = 0; i < 100; i++) {
                    min = fmin(min, x[i]);
                    max = fmax(max, x[i]);
                }
                step = step_of(x, 100, &q);
                double room = fmin(step * (high + offset) - max, min - step * (low + offset));
                check_near("minmax: room beyond the values, share of the step", room / step, 0,
                           1e-7 * high + 1e-7);
            }
}

/* The step follows the scale of the values, from end to end of the range. */
static void scales(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    float x[500], y[500];
    fill(&r, x, 500, NORMAL, 0, 1);
    for (int e = -90; e <= 90; e += 20) {
        const struct kure_quantizer q = {.bits = 4, .truncation = KURE_TRUNCATION_MSE, .step_ratio = 1, .symmetric = 1};
        double one, scaled;
        for (int i = 0; i < 500; i++) y[i] = ldexpf(x[i], e);
        one = step_of(x, 500, &q);
        scaled = step_of(y, 500, &q);
        check_near("step at another scale, share", scaled / ldexp(one, e), 1, 1e-6);
    }
}

/* One huge value among 20 000: the search still finds the best step. */
static void outliers(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    enum { N = 20000 };
    float *x = guard(N);
    for (int bits = 2; bits <= 8; bits += 2)
        for (double size = 10; size <= 1e5; size *= 10) {
            const struct kure_quantizer q = {.bits = bits, .truncation = KURE_TRUNCATION_MSE, .step_ratio = 1, .symmetric = 1};
            double step, least = INFINITY;
            fill(&r, x, N, NORMAL, 0, 1);
            x[123] = (float)size;
            step = step_of(x, N, &q);
            for (double trial = size / ((1 << (bits - 1)) - 1) * 1.05; trial > 1e-3; trial *= 0.97)
                least = fmin(least, error_of(x, N, trial, bits, KURE_GRID_NARROW));
            double error = error_of(x, N, step, bits, KURE_GRID_NARROW);
            check_near("error above a scan, one outlier", error > least ? error / least - 1 : 0, 0, 0.02);
        }
    guard_free(x);
}

static void nothing(void **state)
{
    (void)state;
    float zeros[20] = {0}, subnormal[3] = {1e-40f, -1e-41f, 0};
    for (int mse = 0; mse <= 1; mse++) {
        const struct kure_quantizer q = {.bits = 4, .truncation = mse ? KURE_TRUNCATION_MSE : KURE_TRUNCATION_MINMAX,
                                         .step_ratio = 1, .symmetric = 1};
        double step = 1;
        step = step_of(zeros, 20, &q);
        assert_true(step == 0);
        step = step_of(NULL, 0, &q);
        assert_true(step == 0);
        step = step_of(subnormal, 3, &q);
        assert_true(step == 0);
    }
}

/* The nearest in log2, after the ratio; neither moves the zero point. */
static void powers_of_two(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    for (int i = 0; i < 2000; i++) {
        float high = (float)ldexp(0.5 + random_uniform(&r), (int)(random_uniform(&r) * 60) - 30);
        const float x[2] = {(float)(-2 * random_uniform(&r)) * high, high};
        struct kure_quantizer q = {.bits = 2 + i % 7, .step_ratio = 0.7 + 0.01 * (i % 60), .symmetric = i % 2,
                                   .grid = i % 2 ? KURE_GRID_NARROW : KURE_GRID_FULL};
        struct kure_scale plain, free, scale;
        const double ratio = q.step_ratio;
        q.step_ratio = 1;
        assert_int_equal(kure_scale_find(x, 2, &q, &plain, NULL), KURE_OK);
        q.step_ratio = ratio;
        assert_int_equal(kure_scale_find(x, 2, &q, &free, NULL), KURE_OK);
        q.step = KURE_STEP_POWER_OF_TWO;
        assert_int_equal(kure_scale_find(x, 2, &q, &scale, NULL), KURE_OK);
        assert_int_equal(free.zero_point, plain.zero_point);
        assert_int_equal(scale.zero_point, plain.zero_point);
        assert_int_equal(kure_scale_times(plain, ratio, &q).zero_point, plain.zero_point);
        double away = log2(scale.step) - log2(free.step);
        assert_true(log2(scale.step) == rint(log2(scale.step)));
        check_near("power of two, distance in log2", away, 0, 0.5 + 1e-6);
    }
}

/* A free zero point: 0 and, but for half a step, both ends are on the grid. */
static void asymmetric(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    float x[64], y[64];
    for (int bits = 2; bits <= 16; bits++)
        for (int shift = -4; shift <= 4; shift++) {
            const struct kure_quantizer q = {.bits = bits, .grid = KURE_GRID_FULL, .step_ratio = 1};
            const int low = -(1 << (bits - 1)), high = -low - 1;
            struct kure_scale s;
            float min = 0, max = 0;
            fill(&r, x, 64, UNIFORM, shift, 1);
            x[7] = 0;
            x[8] = NAN;
            for (int i = 0; i < 64; i++) {
                if (isnan(x[i])) continue;
                min = fminf(min, x[i]);
                max = fmaxf(max, x[i]);
            }
            float nan_free[64];
            memcpy(nan_free, x, sizeof x);
            nan_free[8] = 0;
            assert_int_equal(kure_scale_find(nan_free, 64, &q, &s, NULL), KURE_OK);
            check_near("asymmetric step, share", s.step / (((double)max - min) / (high - low)), 1, 1e-7);
            assert_true(s.zero_point >= low && s.zero_point <= high);
            assert_int_equal(s.zero_point, low - (int)rint(min / s.step));
            kure_fake_quantize(x, y, 64, s, &q, NULL);
            assert_true(y[7] == 0 && y[8] == 0);
            assert_int_equal(kure_count_nan(x, 64), 1);
            for (int i = 0; i < 64; i++) {
                int code = (int)rint(nan_free[i] / s.step) + s.zero_point; /* rounding first, z afterwards */
                code = code < low ? low : code > high ? high : code;
                if (y[i] != s.step * (float)(code - s.zero_point)) fail_msg("bits %d, x %a: %a", bits, x[i], y[i]);
                check_near("asymmetric error, steps", (y[i] - nan_free[i]) / s.step, 0, 1.0 + 1e-3);
            }
        }
}

/* kure_quantizer_check: each mistake by its name. */
static void refused(void **state)
{
    (void)state;
    const struct kure_quantizer good = {.bits = 4, .step_ratio = 1, .symmetric = 1};
    struct {
        struct kure_quantizer q;
        const char *text;
    } cases[] = {
        {good, "bits"}, {good, "bits"}, {good, "step_ratio"}, {good, "narrow"}, {good, "midrise"}, {good, "needs a truncation_value"},
        {good, "takes none"}, {good, "percentile"}, {good, "percentile"}, {good, "from 1 to 10"}, {good, "kl"}, {good, "ema"},
        {good, "from 0.001 to 100"}, {good, "one of its list"},
    };
    cases[0].q.bits = 17;
    cases[1].q.bits = 0;
    cases[2].q.step_ratio = -1;
    cases[3].q.symmetric = 0;
    cases[4].q.symmetric = 0;
    cases[4].q.grid = KURE_GRID_MIDRISE;
    cases[5].q.truncation = KURE_TRUNCATION_LP;
    cases[6].q.truncation_value = 3;
    cases[7].q.truncation = cases[8].q.truncation = KURE_TRUNCATION_PERCENTILE;
    cases[7].q.truncation_value = 50;
    cases[8].q.truncation_value = 100.1;
    cases[9].q.truncation = KURE_TRUNCATION_LP;
    cases[9].q.truncation_value = 0.9;
    cases[10].q.truncation = KURE_TRUNCATION_KL;
    cases[10].q.bits = 9;
    cases[11].q.truncation = KURE_TRUNCATION_EMA;
    cases[12].q.truncation = KURE_TRUNCATION_SIGMA;
    cases[12].q.truncation_value = -2;
    cases[13].q.rounding = KURE_ROUNDINGS;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct kure_scale scale;
        struct kure_error error = {""};
        const float x[2] = {1, -1};
        assert_int_equal(kure_scale_find(x, 2, &cases[i].q, &scale, &error), KURE_ERROR_INPUT);
        if (!strstr(error.text, cases[i].text)) fail_msg("case %zu: \"%s\"", i, error.text);
    }
}

int main(void)
{
    const struct CMUnitTest scale[] = {
        cmocka_unit_test(brute_force),   cmocka_unit_test(theory),     cmocka_unit_test(minmax_covers),
        cmocka_unit_test(scales),        cmocka_unit_test(outliers),   cmocka_unit_test(nothing),
        cmocka_unit_test(powers_of_two), cmocka_unit_test(asymmetric), cmocka_unit_test(refused),
    };
    return check_main(scale);
}
