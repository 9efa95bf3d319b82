/* test_average_precision.c: AP on cases whose answer can be counted by hand; tests/test_detector.py has pycocotools. */
#include "check.h"

#include <math.h>

#include "average_precision.h"

#define BOX(x, y, w, h) {x, y, w, h}

static struct kure_average_precision measure(const struct kure_truth *truths, size_t truth_count, const struct kure_detected *detected, size_t count,
                                             double threshold)
{
    struct kure_detection_set set = {truths, truth_count, detected, count, 1, threshold};
    struct kure_average_precision one, all;
    assert_int_equal(kure_average_precision(&set, &one, &all, NULL), KURE_OK);
    assert_true(one.ap50 == all.ap50 || isnan(one.ap50)); /* the mean of one */
    return one;
}

#define NEAR(a, b) assert_true(fabs((a) - (b)) < 1e-12)

static void perfect(void **state)
{
    (void)state;
    const struct kure_truth truths[] = {{0, 0, BOX(10, 20, 50, 40)}};
    const struct kure_detected detected[] = {{0, 0, 0.9, BOX(10, 20, 50, 40)}};
    struct kure_average_precision a = measure(truths, 1, detected, 1, 0.5);
    NEAR(a.ap[KURE_BOX_ANY], 1);
    NEAR(a.ap50, 1);
    NEAR(a.ap75, 1);
    NEAR(a.ap[KURE_BOX_MEDIUM], 1); /* 2000 pixels */
    assert_true(isnan(a.ap[KURE_BOX_SMALL]) && isnan(a.ap[KURE_BOX_LARGE]));
    assert_true(a.precision == 1 && a.recall == 1 && a.f1 == 1 && a.truths == 1 && a.detections == 1 && a.hits == 1);
}

static void empty(void **state)
{
    (void)state;
    const struct kure_truth truths[] = {{0, 0, BOX(0, 0, 10, 10)}};
    const struct kure_detected detected[] = {{0, 0, 0.9, BOX(0, 0, 10, 10)}};
    struct kure_average_precision a = measure(NULL, 0, NULL, 0, 0.5);
    assert_true(isnan(a.ap[KURE_BOX_ANY]) && isnan(a.ap50) && isnan(a.precision) && isnan(a.recall) && isnan(a.f1));
    a = measure(truths, 1, NULL, 0, 0.5); /* nothing is found */
    assert_true(a.ap[KURE_BOX_ANY] == 0 && a.ap50 == 0 && isnan(a.precision) && a.recall == 0 && a.f1 == 0);
    a = measure(NULL, 0, detected, 1, 0.5); /* nothing is there */
    assert_true(isnan(a.ap[KURE_BOX_ANY]) && a.precision == 0 && isnan(a.recall) && a.f1 == 0 && a.detections == 1);
}

/* Of 100 pixels 62 are covered, and nothing else: 0.62 reaches 0.5, 0.55 and 0.6 of the ten thresholds. */
static void thresholds(void **state)
{
    (void)state;
    const struct kure_truth truths[] = {{3, 0, BOX(0, 0, 10, 10)}};
    const struct kure_detected detected[] = {{3, 0, 0.9, BOX(0, 0, 6.2, 10)}}, half[] = {{3, 0, 0.9, BOX(5, 0, 5, 10)}};
    struct kure_average_precision a = measure(truths, 1, detected, 1, 0.5);
    NEAR(a.ap[KURE_BOX_ANY], 0.3);
    NEAR(a.ap50, 1);
    assert_true(a.ap75 == 0);
    NEAR(measure(truths, 1, half, 1, 0.5).ap[KURE_BOX_ANY], 0.1); /* exactly 0.5 */
    assert_true(measure(truths, 1, detected, 1, 0.9).detections == 0); /* the score itself is not above it */
}

/* Equal scores: the one that comes first counts first. */
static void ties(void **state)
{
    (void)state;
    const struct kure_truth truths[] = {{0, 0, BOX(0, 0, 10, 10)}};
    const struct kure_detected miss_first[] = {{0, 0, 0.5, BOX(50, 50, 10, 10)}, {0, 0, 0.5, BOX(0, 0, 10, 10)}};
    const struct kure_detected hit_first[] = {{0, 0, 0.5, BOX(0, 0, 10, 10)}, {0, 0, 0.5, BOX(50, 50, 10, 10)}};
    const struct kure_detected images[] = {{0, 0, 0.5, BOX(50, 50, 10, 10)}, {1, 0, 0.5, BOX(0, 0, 10, 10)}};
    const struct kure_truth second[] = {{1, 0, BOX(0, 0, 10, 10)}};
    NEAR(measure(truths, 1, miss_first, 2, 0.1).ap50, 0.5);
    NEAR(measure(truths, 1, hit_first, 2, 0.1).ap50, 1);
    NEAR(measure(second, 1, images, 2, 0.1).ap50, 0.5);
}

/* Of two boxes one is found: precision 1 at the recalls 0, 0.01 ... 0.5 of 101. */
static void half_found(void **state)
{
    (void)state;
    const struct kure_truth truths[] = {{0, 0, BOX(0, 0, 10, 10)}, {1, 0, BOX(0, 0, 10, 10)}};
    const struct kure_detected detected[] = {{0, 0, 0.9, BOX(0, 0, 10, 10)}, {0, 0, 0.8, BOX(0, 0, 10, 10)}};
    struct kure_average_precision a = measure(truths, 2, detected, 2, 0.1);
    NEAR(a.ap50, 51. / 101);
    assert_true(a.hits == 1 && a.detections == 2); /* one box is found once */
    NEAR(a.precision, 0.5);
    NEAR(a.recall, 0.5);
    NEAR(a.f1, 0.5);
}

/* The detection of the higher score takes the box it overlaps most, and leaves the other one. */
static void best_overlap(void **state)
{
    (void)state;
    const struct kure_truth truths[] = {{0, 0, BOX(0, 0, 10, 10)}, {0, 0, BOX(2, 0, 10, 10)}};
    const struct kure_detected detected[] = {{0, 0, 0.8, BOX(0, 0, 10, 10)}, {0, 0, 0.9, BOX(2, 0, 10, 10)}};
    assert_int_equal(measure(truths, 2, detected, 2, 0.1).hits, 2);
    NEAR(measure(truths, 2, detected, 2, 0.1).ap[KURE_BOX_ANY], 1);
}

static void sizes(void **state)
{
    (void)state;
    const struct kure_truth truths[] = {{0, 0, BOX(0, 0, 32, 32)}, {0, 0, BOX(200, 200, 100, 100)}};
    const struct kure_detected detected[] = {
        {0, 0, 0.9, BOX(200, 200, 100, 100)}, {0, 0, 0.8, BOX(500, 500, 100, 100)}, /* a large one beside everything */
        {0, 0, 0.7, BOX(0, 0, 32, 32)}, {0, 0, 0.6, BOX(600, 600, -3, 20)}, /* no area: outside the image */
    };
    struct kure_average_precision a = measure(truths, 2, detected, COUNT(detected), 0.1);
    NEAR(a.ap[KURE_BOX_SMALL], 1);  /* the large ones do not count */
    NEAR(a.ap[KURE_BOX_MEDIUM], 1); /* 32 x 32 is both */
    NEAR(a.ap[KURE_BOX_LARGE], 1);  /* the miss comes behind the hit */
    NEAR(a.ap50, (51 + 50 * 2. / 3) / 101);
    assert_int_equal(a.detections, 3);
}

static void hundred_count(void **state)
{
    (void)state;
    const struct kure_truth truths[] = {{0, 0, BOX(0, 0, 10, 10)}};
    struct kure_detected detected[101];
    for (int i = 0; i < 101; ++i) detected[i] = (struct kure_detected){0, 0, 0.9 - i * 0.001, BOX(100 + 20 * i, 0, 10, 10)};
    detected[100].box = truths[0].box;
    assert_true(measure(truths, 1, detected, 101, 0.1).ap50 == 0);
    detected[99].box = truths[0].box;
    NEAR(measure(truths, 1, detected, 101, 0.1).ap50, 0.01);
}

/* Categories do not see each other; one without a box does not count in the mean. */
static void categories(void **state)
{
    (void)state;
    const struct kure_truth truths[] = {{0, 2, BOX(0, 0, 10, 10)}, {0, 0, BOX(0, 0, 10, 10)}, {1, 0, BOX(0, 0, 10, 10)}};
    const struct kure_detected detected[] = {{0, 1, 0.9, BOX(0, 0, 10, 10)}, {0, 0, 0.9, BOX(0, 0, 10, 10)}, {0, 2, 0.3, BOX(90, 0, 10, 10)}};
    struct kure_detection_set set = {truths, 3, detected, 3, 3, 0.5};
    struct kure_average_precision of[3], all;
    assert_int_equal(kure_average_precision(&set, of, &all, NULL), KURE_OK);
    NEAR(of[0].ap50, 51. / 101);
    assert_true(isnan(of[1].ap50) && of[1].detections == 1 && of[2].ap50 == 0 && of[2].truths == 1);
    NEAR(all.ap50, 51. / 202);
    assert_true(all.truths == 3 && all.detections == 2 && all.hits == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(perfect),      cmocka_unit_test(empty), cmocka_unit_test(thresholds),    cmocka_unit_test(ties),      cmocka_unit_test(half_found),
        cmocka_unit_test(best_overlap), cmocka_unit_test(sizes), cmocka_unit_test(hundred_count), cmocka_unit_test(categories),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
