/*
 * bench_kure.c: time of one KURE step (measure and apply) against two memcpys
 * of the same n floats: both move 16 bytes a weight. One thread.
 *
 *     bench_kure             the table; status 1 where the mark is missed
 *     bench_kure --step N    one number: median seconds of a step on N weights
 *                            (bench_torch.py reads it)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(_OPENMP)
#include <omp.h>
#endif

#include "kure.h"

#define MARK 1.3 /* of two memcpys, at MARK_WEIGHTS */
enum { MARK_WEIGHTS = 11000000, REPETITIONS = 101 };

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); /* other processes do not count */
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *times)
{
    qsort(times, REPETITIONS, sizeof *times, compare);
    return times[REPETITIONS / 2];
}

/* roughly normal, standard deviation 0.03 */
static void fill(float *x, size_t n)
{
    unsigned long long state = 1;
    for (size_t i = 0; i < n; i++) {
        float sum = 0;
        for (int k = 0; k < 4; k++) {
            state = state * 6364136223846793005ull + 1442695040888963407ull;
            sum += (float)(state >> 40) / 16777216.0f - 0.5f;
        }
        x[i] = 0.052f * sum;
    }
}

static void step(struct kure_tensor *tensor)
{
    const struct kure_kurtosis_rule rule = {.target = 1.8};
    struct kure_kurtosis_measure measure;
    kure_kurtosis_measure(tensor, &rule, &measure);
    kure_kurtosis_apply(tensor, &rule, &measure, 64, 1e-3 / 64, 0.003);
}

/* out: median seconds of a step and of two memcpys, repetitions interleaved */
static void measure(size_t n, double *out_step, double *out_copies)
{
    float *w = malloc(n * sizeof *w), *u = calloc(n, sizeof *u), *spare = malloc(n * sizeof *spare);
    double steps[REPETITIONS], copies[REPETITIONS];
    if (!w || !u || !spare) {
        fprintf(stderr, "no memory for %zu weights\n", n);
        exit(1);
    }
    fill(w, n);
    struct kure_tensor tensor = {.weights = w, .updates = u, .rows = n / 1000, .row_length = 1000};
    for (int i = -2; i < REPETITIONS; i++) { /* two to warm up */
        double t0 = seconds();
        step(&tensor);
        double t1 = seconds();
        memcpy(spare, w, n * sizeof *w);
        memcpy(spare, u, n * sizeof *u);
        double t2 = seconds();
        if (i < 0) continue;
        steps[i] = t1 - t0;
        copies[i] = t2 - t1;
    }
    *out_step = median(steps);
    *out_copies = median(copies);
    if (spare[n / 2] != u[n / 2]) exit(1); /* the copies are not left out */
    free(w);
    free(u);
    free(spare);
}

int main(int argc, char **argv)
{
    static const size_t sizes[] = {1000000, MARK_WEIGHTS};
    double kure, copies;
    int missed = 0;

#if defined(_OPENMP)
    omp_set_num_threads(1);
#endif
    if (argc == 3 && strcmp(argv[1], "--step") == 0) {
        measure(strtoull(argv[2], NULL, 10), &kure, &copies);
        printf("%.9f\n", kure);
        return 0;
    }
    printf("KURE step against two memcpys, %s, one thread, medians of %d\n", kure_instruction_set(),
           REPETITIONS);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        measure(sizes[i], &kure, &copies);
        printf("%9zu weights: step %7.3f ms, two memcpys %7.3f ms, ratio %.2f", sizes[i], kure * 1e3,
               copies * 1e3, kure / copies);
        if (sizes[i] == MARK_WEIGHTS) {
            missed = kure / copies > MARK;
            printf(", at most %.1f: %s", MARK, missed ? "MISSED" : "OK");
        } else {
            printf(" (in cache, no mark)");
        }
        printf("\n");
    }
    return missed;
}
