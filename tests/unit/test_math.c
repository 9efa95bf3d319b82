/* test_math.c: kure_math.h, one element at a time. */
#include "check.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "../../darknet-kure/math/kure_math.h"

/* Every row of rounding.def has a function here by its name ... */
struct rounding {
    const char *name;
    float (*round)(float x, float u);
};
static const struct rounding roundings[] = {
#define KURE_ROUNDING(ENUM, name, draws, help) {#name, kure_round_##name},
#include "../../darknet-kure/math/rounding.def"
#undef KURE_ROUNDING
};

/* ... and a row of what it makes of these (stochastic: with u = 1/2) ... */
static const float inputs[] = {-2.5f, -1.5f, -0.75f, -0.5f, -0.25f, 0, 0.25f, 0.5f, 0.75f, 1.5f, 2.5f};
static const struct {
    const char *name;
    float outputs[COUNT(inputs)];
} expected[] = {
    {"half_even", {-2, -2, -1, 0, 0, 0, 0, 0, 1, 2, 2}},
    {"half_away", {-3, -2, -1, -1, 0, 0, 0, 1, 1, 2, 3}},
    {"half_up", {-2, -1, -1, 0, 0, 0, 0, 1, 1, 2, 3}},
    {"half_down", {-3, -2, -1, -1, 0, 0, 0, 0, 1, 1, 2}},
    {"half_to_zero", {-2, -1, -1, 0, 0, 0, 0, 0, 1, 1, 2}},
    {"floor", {-3, -2, -1, -1, -1, 0, 0, 0, 0, 1, 2}},
    {"ceil", {-2, -1, 0, 0, 0, 0, 1, 1, 1, 2, 3}},
    {"to_zero", {-2, -1, 0, 0, 0, 0, 0, 0, 0, 1, 2}},
    {"stochastic", {-2, -1, -1, 0, 0, 0, 0, 1, 1, 2, 3}},
};

static void rounding_table(void **state)
{
    (void)state;
    assert_int_equal(COUNT(roundings), COUNT(expected));
    for (size_t r = 0; r < COUNT(roundings); r++) {
        assert_string_equal(roundings[r].name, expected[r].name);
        for (size_t i = 0; i < COUNT(inputs); i++) {
            float got = roundings[r].round(inputs[i], 0.5f);
            if (got != expected[r].outputs[i] || (got == 0 && signbit(got)))
                fail_msg("%s(%g) is %g", roundings[r].name, inputs[i], got);
        }
    }
}

/* ... and its definition by the C library, in double. */
static double defined(const char *name, double x, double u)
{
    if (!strcmp(name, "half_even")) return rint(x);
    if (!strcmp(name, "half_away")) return round(x);
    if (!strcmp(name, "half_up")) return floor(x + 0.5);
    if (!strcmp(name, "half_down")) return ceil(x - 0.5);
    if (!strcmp(name, "half_to_zero")) return x < 0 ? -ceil(-x - 0.5) : ceil(x - 0.5);
    if (!strcmp(name, "floor")) return floor(x);
    if (!strcmp(name, "ceil")) return ceil(x);
    if (!strcmp(name, "to_zero")) return trunc(x);
    if (!strcmp(name, "stochastic")) return floor(x + u);
    fail_msg("no definition of %s", name);
    return 0;
}

static void check_rounding(float x, float u)
{
    for (size_t r = 0; r < COUNT(roundings); r++) {
        float got = roundings[r].round(x, u);
        double want = defined(roundings[r].name, x, u);
        if (got != want || (got == 0 && signbit(got)))
            fail_msg("%s(%a) with u %a is %g, by definition %g", roundings[r].name, x, u, got, want);
    }
}

static void rounding_definitions(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    for (int i = 0; i < 200000; i++) {
        float x = (float)ldexp(random_uniform(&r) - 0.5, (int)(random_uniform(&r) * 24));
        float u = kure_uniform((uint32_t)(random_uniform(&r) * 4294967296.0));
        if (fabsf(x) > 0x1p-20f) check_rounding(x, u); /* below, double's x + u rounds too */
    }
    for (int k = -4194304; k <= 4194304; k += 1023) { /* whole codes, ties, and their neighbours */
        float tie = k < 4194304 ? (float)k + 0.5f : (float)k;
        check_rounding((float)k, 1 - 0x1p-24f);
        check_rounding(tie, 0.5f);
        check_rounding(nextafterf(tie, -INFINITY), 0);
        check_rounding(nextafterf(tie, 0), 0.5f);
    }
    check_rounding(-4194304, 0);
    check_rounding(0.0f, 1 - 0x1p-24f);
    for (int i = 0; i < 2; i++) { /* -0, and what is smaller than any u's distance to 1 */
        float x = i ? -0.0f : 0.0f;
        assert_true(kure_round_floor(x, 0) == 0 && kure_round_ceil(x, 0) == 0 && kure_round_stochastic(x, 0.9f) == 0);
    }
    assert_true(kure_round_stochastic(-0x1p-30f, 0) == -1 && kure_round_stochastic(-0x1p-30f, 0x1p-24f) == 0);
    assert_true(kure_round_stochastic(0x1p-30f, 1 - 0x1p-24f) == 0);
    assert_true(kure_round_floor(-FLT_MIN, 0) == -1 && kure_round_ceil(FLT_MIN, 0) == 1 && kure_round_to_zero(-FLT_MIN, 0) == 0);
}

/* The vectors that Random123, the authors' library, tests with (kat_vectors). */
static void philox(void **state)
{
    (void)state;
    static const struct {
        uint64_t seed, stream, counter;
        uint32_t word[4];
    } known[] = {
        {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {UINT64_MAX, UINT64_MAX, UINT64_MAX, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < COUNT(known); i++) {
        struct kure_four got = kure_philox(known[i].seed, known[i].stream, known[i].counter);
        assert_memory_equal(got.word, known[i].word, sizeof got.word);
    }
    assert_true(kure_uniform(0) == 0 && kure_uniform(UINT32_MAX) == 1 - 0x1p-24f);
}

/* Against the C library's in double, in units of the last place. */
static void tanh_is_close(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    for (int i = 0; i < 400000; i++) {
        float x = (float)((random_uniform(&r) - 0.5) * ldexp(1, (int)(random_uniform(&r) * 130) - 124));
        if (fabsf(x) < 2 * FLT_MIN) continue;
        double want = tanh(x);
        int exponent;
        frexp(want, &exponent);
        check_near("tanh, ulp", kure_tanh(x) / ldexp(1, exponent - 24), want / ldexp(1, exponent - 24), 3);
        assert_true(kure_tanh(-x) == -kure_tanh(x));
    }
    assert_true(kure_tanh(0) == 0 && kure_tanh(100) == 1 && kure_tanh(-INFINITY) == -1 && kure_tanh(FLT_MAX) == 1);
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
        cmocka_unit_test(rounding_table),       cmocka_unit_test(rounding_definitions),
        cmocka_unit_test(philox),               cmocka_unit_test(tanh_is_close),
        cmocka_unit_test(subnormals_are_zero),  cmocka_unit_test(subtract_drops_tiny_updates),
        cmocka_unit_test(order_follows_floats), cmocka_unit_test(cubics_agree),
    };
    return check_main(math);
}
