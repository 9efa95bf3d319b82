/*
 * check.h: what the unit tests share: replayable random numbers, guard zones,
 * comparisons that report the share of the tolerance they used, golden files.
 *
 * KURE_SEED=N replays a run; a test's numbers depend on N and its own name
 * only, so that running one test alone changes nothing.
 */
#ifndef CHECK_H
#define CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kure.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* ---- random numbers ------------------------------------------------------ */

struct random {
    uint64_t state;
};

struct random random_start(const char *test);
double random_uniform(struct random *r); /* (0, 1) */
double random_normal(struct random *r);
double random_laplace(struct random *r); /* standard deviation sqrt(2) */

enum shape { UNIFORM, NORMAL, LAPLACE, EXPONENTIAL };
/* x[n] = mean + sigma * sample, the samples of variance 1 */
void fill(struct random *r, float *x, size_t n, enum shape shape, double mean, double sigma);

/* The integers that tests/golden/generate.py draws too: x[i] = (sum of four 16-bit
 * numbers - 131070) / 2^16, exact in a float; kurtosis 2.7. */
void fill_lcg(float *x, size_t n, uint64_t seed);

/* ---- memory -------------------------------------------------------------- */

/* n floats of 0 between two zones that guard_free compares. */
float *guard(size_t n);
void guard_free(float *x);

/* ---- comparisons --------------------------------------------------------- */

/* |got - want| <= tolerance, both finite. The largest share of the tolerance
 * that any call with this name used is printed by check_main. */
void check_near(const char *name, double got, double want, double tolerance);

/* |got - want| / |want| <= tolerance, for vectors [n] */
void check_vector(const char *name, const float *got, const double *want, size_t n, double tolerance);

/* the same bits */
void check_same(const char *name, const float *a, const float *b, size_t n);

/* ---- golden files -------------------------------------------------------- */

/* A file holds records: "case NAME", then lines "KEY COUNT VALUE...". */
struct golden;
struct golden *golden_open(const char *file);
const char *golden_case(struct golden *g); /* name of the next case; NULL at the end */
/* The values of the case's next line, whose key must be `key`. Freed by
 * golden_close. */
const double *golden_values(struct golden *g, const char *key, size_t *n);
float *golden_floats(struct golden *g, const char *key, size_t *n); /* to guard_free */
double golden_value(struct golden *g, const char *key);
void golden_close(struct golden *g);

/* ---- the machine --------------------------------------------------------- */

/* FTZ and DAZ, as Darknet's start-up code sets them. Returns 0 where the
 * processor is not x86. */
int set_flush_to_zero(int on);

/* Runs the tests, prints seed and shares of tolerance; returns main's status. */
#define check_main(tests) check_run(#tests, tests, COUNT(tests))
int check_run(const char *name, const struct CMUnitTest *tests, size_t n);

#endif
