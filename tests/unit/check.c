/* check.c: see check.h. */
#include "check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#ifndef KURE_GOLDEN
#define KURE_GOLDEN "tests/golden"
#endif

/* ---- random numbers ------------------------------------------------------ */

static uint64_t run_seed(void)
{
    const char *text = getenv("KURE_SEED");
    return text ? strtoull(text, NULL, 10) : 1;
}

/* splitmix64 */
static uint64_t next(struct random *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

struct random random_start(const char *test)
{
    struct random r = {run_seed()};
    for (; *test; test++) r.state = next(&r) ^ (unsigned char)*test;
    return r;
}

double random_uniform(struct random *r)
{
    return ((double)(next(r) >> 12) + 0.5) * 0x1p-52;
}

double random_normal(struct random *r)
{
    double u = random_uniform(r);
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * random_uniform(r));
}

double random_laplace(struct random *r)
{
    double u = random_uniform(r);
    return u < 0.5 ? log(2 * u) : -log(2 - 2 * u);
}

void fill(struct random *r, float *x, size_t n, enum shape shape, double mean, double sigma)
{
    for (size_t i = 0; i < n; i++) {
        double z = 0;
        switch (shape) {
        case UNIFORM: z = sqrt(12) * (random_uniform(r) - 0.5); break;
        case NORMAL: z = random_normal(r); break;
        case LAPLACE: z = random_laplace(r) / sqrt(2); break;
        case EXPONENTIAL: z = -log(random_uniform(r)) - 1; break;
        }
        x[i] = (float)(mean + sigma * z);
    }
}

void fill_lcg(float *x, size_t n, uint64_t seed)
{
    uint64_t state = seed;
    for (size_t i = 0; i < n; i++) {
        int64_t sum = 0;
        for (int k = 0; k < 4; k++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            sum += (int64_t)(state >> 48);
        }
        x[i] = (float)(sum - 131070) / 65536;
    }
}

/* ---- memory -------------------------------------------------------------- */

enum { ZONE = 32 }; /* floats on either side; the first holds n */

static const float MARK = 12345.678f;

float *guard(size_t n)
{
    float *zone = malloc((n + 2 * ZONE) * sizeof *zone);
    assert_non_null(zone);
    for (size_t i = 0; i < ZONE; i++) zone[i] = zone[ZONE + n + i] = MARK;
    memcpy(zone, &n, sizeof n);
    memset(zone + ZONE, 0, n * sizeof *zone);
    return zone + ZONE;
}

void guard_free(float *x)
{
    float *zone = x - ZONE;
    size_t n;
    memcpy(&n, zone, sizeof n);
    for (size_t i = 0; i < ZONE; i++) {
        if (i * sizeof *zone >= sizeof n && zone[i] != MARK) fail_msg("written before a buffer");
        if (zone[ZONE + n + i] != MARK) fail_msg("written behind a buffer of %zu", n);
    }
    free(zone);
}

/* ---- comparisons --------------------------------------------------------- */

static struct share {
    const char *name;
    double largest;
    size_t calls;
} shares[64];

static void use_share(const char *name, double share)
{
    size_t i = 0;
    while (i < COUNT(shares) - 1 && shares[i].name && strcmp(shares[i].name, name)) i++;
    shares[i].name = name;
    shares[i].calls++;
    if (share > shares[i].largest) shares[i].largest = share;
}

void check_near(const char *name, double got, double want, double tolerance)
{
    double error = fabs(got - want);
    if (!(isfinite(got) && isfinite(want) && error <= tolerance))
        fail_msg("%s: %.17g, expected %.17g: off by %g, tolerance %g", name, got, want, error,
                 tolerance);
    use_share(name, tolerance > 0 ? error / tolerance : 0);
}

void check_vector(const char *name, const float *got, const double *want, size_t n, double tolerance)
{
    double error = 0, norm = 0, largest = 0;
    size_t worst = 0;
    for (size_t i = 0; i < n; i++) {
        double e = fabs(got[i] - want[i]);
        if (!isfinite(got[i])) fail_msg("%s: element %zu is not finite", name, i);
        if (e > largest) {
            largest = e;
            worst = i;
        }
        /* the scale keeps squares of tiny and huge vectors in range */
        norm = hypot(norm, want[i]);
        error = hypot(error, e);
    }
    if (!(error <= tolerance * norm))
        fail_msg("%s: off by %g of the norm, tolerance %g; worst element %zu: %.9g, expected %.9g",
                 name, error / norm, tolerance, worst, got[worst], want[worst]);
    use_share(name, norm > 0 ? error / (tolerance * norm) : 0);
}

void check_same(const char *name, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(a + i, b + i, sizeof *a))
            fail_msg("%s: element %zu of %zu: %a against %a", name, i, n, a[i], b[i]);
}

/* ---- golden files -------------------------------------------------------- */

struct golden {
    FILE *file;
    char path[512], word[128];
    double *values[16]; /* of this case */
    size_t used;
};

static const char *word(struct golden *g)
{
    return fscanf(g->file, "%127s", g->word) == 1 ? g->word : NULL;
}

struct golden *golden_open(const char *file)
{
    struct golden *g = calloc(1, sizeof *g);
    int c;
    assert_non_null(g);
    snprintf(g->path, sizeof g->path, "%s/%s", KURE_GOLDEN, file);
    g->file = fopen(g->path, "r");
    if (!g->file) fail_msg("%s cannot be read: make golden", g->path);
    while ((c = getc(g->file)) == '#') /* head of the file: generator, versions, seed */
        while ((c = getc(g->file)) != '\n' && c != EOF) continue;
    ungetc(c, g->file);
    return g;
}

static void drop_values(struct golden *g)
{
    while (g->used) free(g->values[--g->used]);
}

const char *golden_case(struct golden *g)
{
    drop_values(g);
    if (!word(g)) return NULL;
    if (strcmp(g->word, "case")) fail_msg("%s: \"%s\" instead of a case", g->path, g->word);
    assert_non_null(word(g));
    return g->word;
}

const double *golden_values(struct golden *g, const char *key, size_t *n)
{
    char name[128];
    if (fscanf(g->file, "%127s %zu", name, n) != 2 || strcmp(name, key))
        fail_msg("%s: \"%s\" instead of %s", g->path, name, key);
    double *values = malloc((*n ? *n : 1) * sizeof *values);
    assert_non_null(values);
    assert_true(g->used < COUNT(g->values));
    for (size_t i = 0; i < *n; i++)
        if (fscanf(g->file, "%lf", &values[i]) != 1) fail_msg("%s: %s is cut off", g->path, key);
    return g->values[g->used++] = values;
}

float *golden_floats(struct golden *g, const char *key, size_t *n)
{
    const double *values = golden_values(g, key, n);
    float *x = guard(*n);
    for (size_t i = 0; i < *n; i++) x[i] = (float)values[i];
    return x;
}

double golden_value(struct golden *g, const char *key)
{
    size_t n;
    const double *values = golden_values(g, key, &n);
    assert_int_equal(n, 1);
    return values[0];
}

void golden_close(struct golden *g)
{
    drop_values(g);
    fclose(g->file);
    free(g);
}

/* ---- the machine --------------------------------------------------------- */

int set_flush_to_zero(int on)
{
#if defined(__x86_64__)
    _mm_setcsr(on ? _mm_getcsr() | 0x8040u : _mm_getcsr() & ~0x8040u);
    return 1;
#else
    (void)on;
    return 0;
#endif
}

int check_run(const char *name, const struct CMUnitTest *tests, size_t n)
{
    printf("seed %llu (KURE_SEED), instruction set %s\n", (unsigned long long)run_seed(),
           kure_instruction_set());
    int failed = _cmocka_run_group_tests(name, tests, n, NULL, NULL);
    for (size_t i = 0; i < COUNT(shares) && shares[i].name; i++)
        printf("tolerance used: %7.2g %%  %s (%zu comparisons)\n", 100 * shares[i].largest,
               shares[i].name, shares[i].calls);
    return failed != 0;
}
