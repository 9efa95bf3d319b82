/* test_math.c: kure_math.h, one element at a time. */
#include "check.h"

#include <float.h>
#include <math.h>

#include "../../darknet-kure/math/kure_math.h"

/* Every row of rounding.def has a function here by its name ... */
struct rounding {
    const char *name;
    float (*round)(float);
};
static const struct rounding roundings[] = {
#define KURE_ROUNDING(name, help) {#name, kure_round_##name},
#include "../../darknet-kure/core/rounding.def"
#undef KURE_ROUNDING
};

/* ... and a row of what it makes of these. */
static const float inputs[] = {-2.5f, -1.5f, -0.75f, -0.5f, -0.25f, 0, 0.25f, 0.5f, 0.75f, 1.5f, 2.5f};
static const struct {
    const char *name;
    float outputs[COUNT(inputs)];
} expected[] = {
    {"half_even", {-2, -2, -1, 0, 0, 0, 0, 0, 1, 2, 2}},
};

static void rounding_table(void **state)
{
    (void)state;
    assert_int_equal(COUNT(roundings), COUNT(expected));
    for (size_t r = 0; r < COUNT(roundings); r++) {
        assert_string_equal(roundings[r].name, expected[r].name);
        for (size_t i = 0; i < COUNT(inputs); i++) {
            float got = roundings[r].round(inputs[i]);
            if (got != expected[r].outputs[i] || (got == 0 && signbit(got)))
                fail_msg("%s(%g) is %g", roundings[r].name, inputs[i], got);
        }
    }
}

static void half_even_is_rint(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    for (int i = 0; i < 200000; i++) {
        float x = (float)ldexp(random_uniform(&r) - 0.5, (int)(random_uniform(&r) * 24));
        assert_true(kure_round_half_even(x) == rintf(x));
    }
    for (int k = -4194304; k < 4194304; k += 1023) /* ties up to 2^22 */
        assert_true(kure_round_half_even((float)k + 0.5f) == rintf((float)k + 0.5f));
    assert_true(kure_round_half_even(4194304) == 4194304);
    assert_true(kure_round_half_even(-4194304) == -4194304);
}

static int same(float a, float b)
{
    return kure_bits(a) == kure_bits(b);
}

static void subnormals_are_zero(void **state)
{
    (void)state;
    const float below = nextafterf(FLT_MIN, 0), above = nextafterf(FLT_MIN, 1);
    assert_true(same(kure_flush(below), 0) && same(kure_flush(-below), 0) && same(kure_flush(-0.0f), 0));
    assert_true(same(kure_flush(FLT_MIN), FLT_MIN) && same(kure_flush(-FLT_MIN), -FLT_MIN));
    assert_true(same(kure_flush(FLT_MAX), FLT_MAX) && same(kure_flush(-INFINITY), -INFINITY));
    assert_true(isnan(kure_flush(NAN)));
    assert_true(same(kure_flush_result(FLT_MIN), 0) && same(kure_flush_result(-FLT_MIN), 0));
    assert_true(same(kure_flush_result(above), above) && same(kure_flush_result(-above), -above));
    assert_true(isnan(kure_flush_result(NAN)) && same(kure_flush_result(INFINITY), INFINITY));
}

static void subtract_drops_tiny_updates(void **state)
{
    (void)state;
    assert_true(same(kure_subtract(1, 0.25f), 0.75f));
    assert_true(same(kure_subtract(0, 0x1p-100f), 0) && same(kure_subtract(-0x1p-100f, 0), 0));
    assert_true(same(kure_subtract(0, 0x1.000002p-100f), -0x1.000002p-100f));
    for (int flush = 0; flush <= 1; flush++) { /* subnormal operands do not show */
        set_flush_to_zero(flush);
        float a = kure_subtract(0x1p-127f, 0x1p-99f), b = kure_subtract(0x1p-99f, 0x1p-127f);
        float c = kure_subtract(-0x1.000002p-100f, 0x1.fffffcp-127f);
        set_flush_to_zero(0);
        assert_true(same(a, -0x1p-99f) && same(b, 0x1p-99f) && same(c, -0x1.000002p-100f));
    }
}

static void order_follows_floats(void **state)
{
    (void)state;
    const float sorted[] = {-INFINITY, -FLT_MAX, -1, -FLT_MIN, 0, FLT_MIN, 0.5f, 1, FLT_MAX, INFINITY};
    for (size_t i = 0; i < COUNT(sorted); i++) {
        assert_true(same(kure_unorder(kure_order(sorted[i])), sorted[i]));
        if (i) assert_true(kure_order(sorted[i - 1]) < kure_order(sorted[i]));
        assert_int_equal(kure_is_finite(sorted[i]), isfinite(sorted[i]) != 0);
    }
    assert_false(kure_is_finite(NAN));
}

/* The float cubic is the double one in units of sigma^3. */
static void cubics_agree(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    const double mean = 0.7, sigma = 0.03, skewness = 0.4, kurtosis = 3.3;
    const struct kure_cubic wide = {mean, skewness * pow(sigma, 3), kurtosis * sigma * sigma};
    const struct kure_narrow_cubic narrow = {
        (float)mean, (float)(mean - (float)mean), (float)(1 / sigma), (float)skewness, (float)kurtosis,
    };
    for (int i = 0; i < 10000; i++) {
        float x = (float)(mean + sigma * random_normal(&r));
        double z = fabs((x - mean) / sigma), scale = z * z * z + kurtosis * z + skewness;
        check_near("float cubic against double, share of its terms", kure_narrow_cubic_at(x, narrow),
                   kure_cubic_at(x, wide) / pow(sigma, 3), 1e-6 * scale);
    }
}

int main(void)
{
    const struct CMUnitTest math[] = {
        cmocka_unit_test(rounding_table),       cmocka_unit_test(half_even_is_rint),
        cmocka_unit_test(subnormals_are_zero),  cmocka_unit_test(subtract_drops_tiny_updates),
        cmocka_unit_test(order_follows_floats), cmocka_unit_test(cubics_agree),
    };
    return check_main(math);
}
