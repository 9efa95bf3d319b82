/*
 * bench_quantize.c: time of the element-wise passes of simulated quantization. One thread.
 *
 *     bench_quantize                          against memcpy of the same bytes; status 1 where the mark is missed
 *     bench_quantize rows IN OUT ROWS LENGTH  for bench_torch_quantize.py. IN: x[ROWS][LENGTH], a step for each row.
 *                                             OUT: y. Prints the seconds
 *     bench_quantize tensor IN OUT N          IN: x[N], dy[N], step, zero point. OUT: y[N], dx[N]. Prints the
 *                                             seconds of the forward and of the backward pass
 *
 * The quantizers have 4 bits: a row's is symmetric and narrow, the tensor's full with a zero point.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(_OPENMP)
#include <omp.h>
#endif

#include "kure.h"

#define MARK 1.5 /* of memcpy, which writes past the caches: a plain store reads its line first, 3 transfers for 2 */
enum { VALUES = 11000000, REPETITIONS = 101 };

static const struct kure_quantizer row_quantizer = {
    .bits = 4, .step_ratio = 1, .granularity = KURE_GRANULARITY_CHANNEL, .grid = KURE_GRID_NARROW, .symmetric = 1};
static const struct kure_quantizer tensor_quantizer = {.bits = 4, .step_ratio = 1, .grid = KURE_GRID_FULL};

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); /* other processes do not count */
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Other programs use the memory as well: the least time is that of the pass itself. */
static double least(const double *times)
{
    double found = times[0];
    for (int i = 1; i < REPETITIONS; i++) found = times[i] < found ? times[i] : found;
    return found;
}

static float *room(size_t n)
{
    float *x = calloc(n, sizeof *x);
    if (!x) {
        fprintf(stderr, "no memory for %zu values\n", n);
        exit(1);
    }
    return x;
}

/* ---- the passes ---------------------------------------------------------- */

struct work {
    const float *x, *dy; /* [rows][length] */
    float *y, *dx;
    size_t rows, length;
    const float *steps; /* [rows] */
    struct kure_scale scale;
};

typedef void pass(struct work *w);

static void quantize_rows(struct work *w)
{
    for (size_t r = 0; r < w->rows; r++)
        kure_fake_quantize(w->x + r * w->length, w->y + r * w->length, w->length, (struct kure_scale){w->steps[r], 0}, &row_quantizer, NULL);
}

static void quantize_tensor(struct work *w)
{
    kure_fake_quantize(w->x, w->y, w->rows * w->length, w->scale, &tensor_quantizer, NULL);
}

static void mask_gradient(struct work *w)
{
    kure_ste_backward(w->x, w->dy, w->dx, w->rows * w->length, w->scale, &tensor_quantizer, NULL);
}

static void copy(struct work *w) { memcpy(w->y, w->x, w->rows * w->length * sizeof(float)); }

/* out[i]: seconds of passes[i]; they take turns */
static void measure(struct work *w, pass *const *passes, int count, double *out)
{
    static double times[8][REPETITIONS];
    for (int i = -2; i < REPETITIONS; i++) { /* two to warm up */
        for (int p = 0; p < count; p++) {
            double start = seconds();
            passes[p](w);
            if (i >= 0) times[p][i] = seconds() - start;
        }
    }
    for (int p = 0; p < count; p++) out[p] = least(times[p]);
}

/* ---- memory bandwidth ---------------------------------------------------- */

static void fill(float *x, size_t n)
{
    unsigned long long state = 1;
    for (size_t i = 0; i < n; i++) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        x[i] = (float)(state >> 40) / 8388608.0f - 1.0f;
    }
}

static int bandwidth(void)
{
    static const struct {
        const char *name;
        pass *pass;
        double copies; /* memcpys of x that move as many bytes: 8 a value each */
    } rows[] = {{"quantize rows of 4608 weights", quantize_rows, 1},
                {"quantize a tensor", quantize_tensor, 1},
                {"gradient through a quantizer", mask_gradient, 1.5}};
    enum { LENGTH = 4608, ROWS = VALUES / LENGTH, N = ROWS * LENGTH };
    float *x = room(N), *dy = room(N), *y = room(N), *dx = room(N), *steps = room(ROWS);
    int missed = 0;

    fill(x, N);
    fill(dy, N);
    for (size_t r = 0; r < ROWS; r++) steps[r] = 0.1f + 0.0001f * (float)r; /* some rows are clipped */
    struct work w = {.x = x, .dy = dy, .y = y, .dx = dx, .rows = ROWS, .length = LENGTH, .steps = steps, .scale = {0.11f, 1}};
    printf("simulated quantization of %d values, %s, one thread, best of %d\n", N, kure_instruction_set(), REPETITIONS);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        double times[2];
        measure(&w, (pass *[]){rows[i].pass, copy}, 2, times);
        double copies = times[1] * rows[i].copies, ratio = times[0] / copies;
        missed |= ratio > MARK;
        printf("%-30s %6.2f ms, memcpy of the same bytes %6.2f ms, ratio %.2f, at most %.1f: %s\n", rows[i].name, times[0] * 1e3, copies * 1e3,
               ratio, MARK, ratio > MARK ? "MISSED" : "OK");
    }
    free(x);
    free(dy);
    free(y);
    free(dx);
    free(steps);
    return missed;
}

/* ---- on another program's tensors ---------------------------------------- */

static void read_values(FILE *in, float *x, size_t n)
{
    if (fread(x, sizeof *x, n, in) == n) return;
    fprintf(stderr, "the input ends early\n");
    exit(1);
}

static void write_values(FILE *out, const float *x, size_t n)
{
    if (fwrite(x, sizeof *x, n, out) == n) return;
    fprintf(stderr, "the output cannot be written\n");
    exit(1);
}

static int on_files(int is_rows, const char *in_path, const char *out_path, size_t rows, size_t length)
{
    FILE *in = fopen(in_path, "rb"), *out = fopen(out_path, "wb");
    size_t n = rows * length;
    float *x = room(n), *dy = room(n), *y = room(n), *dx = room(n), *steps = room(rows + 2);
    double times[2];
    if (!in || !out) {
        fprintf(stderr, "%s cannot be opened\n", in ? out_path : in_path);
        return 1;
    }
    read_values(in, x, n);
    if (!is_rows) read_values(in, dy, n);
    read_values(in, steps, is_rows ? rows : 2);
    struct work w = {.x = x, .dy = dy, .y = y, .dx = dx, .rows = rows, .length = length, .steps = steps};
    if (is_rows) {
        measure(&w, (pass *[]){quantize_rows}, 1, times);
        write_values(out, y, n);
        printf("%.9f\n", times[0]);
    } else {
        w.scale = (struct kure_scale){steps[0], (int)steps[1]};
        measure(&w, (pass *[]){quantize_tensor, mask_gradient}, 2, times);
        write_values(out, y, n);
        write_values(out, dx, n);
        printf("%.9f %.9f\n", times[0], times[1]);
    }
    fclose(in);
    free(x);
    free(dy);
    free(y);
    free(dx);
    free(steps);
    return fclose(out) != 0;
}

int main(int argc, char **argv)
{
#if defined(_OPENMP)
    omp_set_num_threads(1);
#endif
    if (argc == 1) return bandwidth();
    if (argc == 6 && strcmp(argv[1], "rows") == 0) return on_files(1, argv[2], argv[3], strtoull(argv[4], NULL, 10), strtoull(argv[5], NULL, 10));
    if (argc == 5 && strcmp(argv[1], "tensor") == 0) return on_files(0, argv[2], argv[3], 1, strtoull(argv[4], NULL, 10));
    fprintf(stderr, "see the head of bench_quantize.c\n");
    return 2;
}
