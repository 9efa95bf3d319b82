/* test_bit_budget.c: bits for an average, on losses whose answer is known. */
#include "check.h"

#include <math.h>

#include "bit_budget.h"

static const int widths[] = {8, 4, 2};
enum { WIDTHS = 3 };

static double solve(int layers, const size_t *weights, const double *loss, double average, int *bits)
{
    double noise[64];
    for (int i = 0; i < layers * WIDTHS; ++i) noise[i] = (i % WIDTHS) * 0.1 * (1 + i / WIDTHS); /* layer 0 is the quietest */
    struct kure_bit_budget b = {layers, WIDTHS, widths, weights, loss, noise, average};
    return kure_bit_budget(&b, bits);
}

static void fragile_layer(void **state)
{
    (void)state;
    const size_t weights[] = {100, 100, 100, 100};
    const double loss[] = {0, 1, 20, 0, 20, 40, 0, 1, 30, 0, 2, 30};
    int bits[4];
    assert_true(solve(4, weights, loss, 5, bits) == 5);
    assert_true(bits[1] == 8 && bits[0] == 4 && bits[2] == 4 && bits[3] == 4);
    assert_true(solve(4, weights, loss, 8, bits) == 8);
    assert_true(solve(4, weights, loss, 2, bits) == 2);
    for (int i = 0; i < 4; ++i) assert_int_equal(bits[i], 2);
}

/* A small fragile layer is cheap to keep; of equal losses the quieter layer goes first. */
static void sizes_and_noise(void **state)
{
    (void)state;
    const size_t weights[] = {10, 1000};
    const double loss[] = {0, 3, 4, 0, 5, 9}, equal[] = {0, 0, 0, 0, 0, 0};
    const size_t same[] = {50, 50};
    int bits[2];
    assert_true(solve(2, weights, loss, 4.5, bits) <= 4.5);
    assert_true(bits[0] == 8 && bits[1] == 4);
    assert_true(solve(2, same, equal, 6, bits) == 6);
    assert_true(bits[0] == 4 && bits[1] == 8);
}

/* A loss that falls with fewer bits is no gain; one that is no number is never chosen while there is another. */
static void strange_losses(void **state)
{
    (void)state;
    const size_t weights[] = {10, 10};
    const double falling[] = {0, 5, -4, 0, 6, 7}, broken[] = {0, NAN, NAN, 0, 50, 90};
    int bits[2];
    assert_true(solve(2, weights, falling, 5, bits) == 5);
    assert_true(bits[0] == 2 && bits[1] == 8);
    assert_true(solve(2, weights, broken, 5, bits) == 5);
    assert_true(bits[0] == 8 && bits[1] == 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(fragile_layer), cmocka_unit_test(sizes_and_noise), cmocka_unit_test(strange_losses)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
