/*
 * test_cuda.c: every row of ops.def on the GPU against the CPU, many tensors in one launch,
 * at shapes around lanes, blocks and tiles.
 *
 * build/unit/test_cuda runs the .cu files on the CPU (tests/host/cuda_on_cpu), with threads
 * and blocks in both orders; build/gpu/test_cuda (make test-gpu) on a GPU.
 */
#include "check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_twins.h"
#include "device.h"

/* a chunk of n elements ends at, before or behind a lane, a block, a tile, two tiles */
static const size_t sizes[] = {1, 2, 7, 8, 9, 31, 33, 255, 256, 257, 513, 8191, 8192, 8193, 16384, 16385, 20001};
static const size_t cuts[] = {16384, 777, 100000};
enum { TENSORS = COUNT(sizes), VARIANTS = KURE_ROUNDINGS };

/* ---- tensors --------------------------------------------------------------- */

struct tensor {
    size_t n;
    float *x, *w, *dy, *y, *before; /* before: y as it was */
    double *total, *count;
};

static struct tensor tensor_make(struct random *r, size_t n, int finite)
{
    struct tensor t = {n, guard(n), guard(n), guard(n), guard(n), guard(n), calloc(2 * n, sizeof(double)), calloc(n, sizeof(double))};
    assert_true(t.total && t.count);
    fill(r, t.x, n, LAPLACE, 0.2, 1);
    fill(r, t.w, n, NORMAL, 0, 1);
    fill(r, t.dy, n, NORMAL, 0, 1);
    fill(r, t.y, n, NORMAL, 0, 1);
    for (size_t i = 0; i < n; i++) {
        if (i % 5 == 0) t.x[i] = i % 2 ? 1e-40f : -1e-39f; /* subnormal */
        if (i % 97 == 3) t.x[i] = 2.5f;                    /* |tanh x| is dorefa's largest */
        if (!finite && i % 31 == 2) t.x[i] = i % 2 ? NAN : -NAN;
        if (!finite && i % 31 == 3) t.x[i] = i % 2 ? INFINITY : -INFINITY;
        t.total[i] = t.total[n + i] = t.w[i]; /* n numbers, or n pairs */
        t.count[i] = (double)(i % 4);
    }
    memcpy(t.before, t.y, n * sizeof *t.y);
    return t;
}

static void tensor_free(struct tensor *t)
{
    guard_free(t->x);
    guard_free(t->w);
    guard_free(t->dy);
    guard_free(t->y);
    guard_free(t->before);
    free(t->total);
    free(t->count);
}

/* A batch norm of arrays that hold something else elsewhere: its variance is that of x, whose values are not negative. */
static void point_norm(arguments *a, const double *sums)
{
    a->batchnorm = (struct kure_folded_norm){.gamma = a->w, .beta = a->dy, .mean = a->w, .variance = a->x, .sums = (const struct kure_fold_sums *)(const void *)sums,
                                             .chunks = 1, .bias_gradient = a->dy, .gamma_updates = a->y};
}

/* The arguments with pointers to this tensor, here. */
static arguments arguments_of(const struct tensor *t, enum kind kind, int variant, size_t number)
{
    arguments a;
    memset(&a, 0, sizeof a);
    set(&a, kind, variant, number);
    a.x = t->x, a.w = t->w, a.dy = t->dy, a.y = a.dx = t->y;
    for (size_t i = 0; kind == NORM && i < t->n; i++) t->x[i] = fabsf(t->x[i]);
    if (kind == NORM) point_norm(&a, t->total);
    if (kind == POINTS) a.points.total = t->total, a.points.count = t->count;
    return a;
}

static arguments send(const arguments *here, const struct tensor *t, enum kind kind)
{
    arguments a = *here;
    size_t bytes = t->n * sizeof(float);
    a.x = device_make(t->x, bytes);
    a.w = device_make(t->w, bytes);
    a.dy = device_make(t->dy, bytes);
    a.y = a.dx = device_make(t->y, bytes);
    if (kind == NORM) point_norm(&a, device_make(t->total, 4 * bytes));
    if (kind == POINTS) {
        a.points.total = device_make(t->total, 2 * bytes);
        a.points.count = device_make(t->count, 2 * bytes);
    }
    return a;
}

static void release(const arguments *a, enum kind kind)
{
    device_free((void *)(uintptr_t)a->x);
    device_free((void *)(uintptr_t)a->w);
    device_free((void *)(uintptr_t)a->dy);
    device_free(a->y);
    if (kind == NORM) device_free((void *)(uintptr_t)a->batchnorm.sums);
    if (kind == POINTS) {
        device_free((void *)(uintptr_t)a->points.total);
        device_free((void *)(uintptr_t)a->points.count);
    }
}

/* ---- the comparison ---------------------------------------------------------- */

static void check_result(enum kure_cuda_op op, const void *got, const void *want, size_t chunk, double p)
{
    double g, w;
    if (ops[op].agreement == EXACT || p == (int)p) {
        if (memcmp(got, want, about[op].result_bytes)) fail_msg("%s: chunk %zu differs", ops[op].name, chunk);
        return;
    }
    memcpy(&g, got, sizeof g);
    memcpy(&w, want, sizeof w);
    check_near(ops[op].name, g, w, 1e-14 * w);
}

enum { MOST_CHUNKS = 256 };

/* All tensors in one launch, and one chunk of no elements where the op allows it. */
static size_t cut_up(struct kure_cuda_chunk *chunks, size_t cut, int allows_none)
{
    size_t count = 0;
    for (size_t t = 0; t < TENSORS; t++)
        for (size_t at = 0; at < sizes[t]; at += cut) {
            assert_true(count < MOST_CHUNKS - 1);
            chunks[count++] = (struct kure_cuda_chunk){(uint32_t)t, at, sizes[t] - at < cut ? sizes[t] - at : cut};
        }
    if (allows_none) chunks[count++] = (struct kure_cuda_chunk){1, 1, 0};
    return count;
}

/* y of every tensor; where the op is one that writes, some of it must differ from before */
static void check_written(enum kure_cuda_op op, const struct tensor *tensors, const arguments *there)
{
    size_t changed = 0;
    for (size_t t = 0; t < TENSORS; t++) {
        float *y = guard(sizes[t]);
        device_read(y, there[t].y, sizes[t] * sizeof *y);
        check_same(ops[op].name, y, tensors[t].y, sizes[t]);
        for (size_t i = 0; i < sizes[t]; i++) changed += y[i] != tensors[t].before[i];
        guard_free(y);
    }
    assert_true((changed > 0) == (about[op].result_bytes == 0 || about[op].writes));
}

static void compare(enum kure_cuda_op op, size_t cut, int variant)
{
    const enum kind kind = about[op].kind;
    struct tensor tensors[TENSORS];
    arguments here[TENSORS], there[TENSORS];
    struct kure_cuda_chunk chunks[MOST_CHUNKS];
    struct kure_cuda_batch *batch;
    struct kure_error error = {""};
    struct random r = random_start(ops[op].name);
    size_t count = cut_up(chunks, cut, op != KURE_CUDA_power_sums);
    if (kure_cuda_batch_make(&batch, op, chunks, count, TENSORS, "test", &error) != KURE_OK) fail_msg("%s", error.text);
    for (size_t t = 0; t < TENSORS; t++) {
        tensors[t] = tensor_make(&r, sizes[t], about[op].finite);
        here[t] = arguments_of(&tensors[t], kind, variant, t);
        there[t] = send(&here[t], &tensors[t], kind);
        kure_cuda_batch_arguments(batch)[t] = there[t];
    }
    if (kure_cuda_batch_run(batch, KURE_CUDA_SEND | KURE_CUDA_FETCH, NULL, &error) != KURE_OK) fail_msg("%s", error.text);
    const char *got = kure_cuda_batch_results(batch);
    for (size_t c = 0; c < count; c++) {
        unsigned char want[sizeof(struct kure_gathered)];
        ops[op].cpu(&here[chunks[c].tensor], chunks[c].start, chunks[c].n, want);
        check_result(op, got + c * about[op].result_bytes, want, c, kind == POINTS ? here[0].points.p : 1);
    }
    check_written(op, tensors, there);
    for (size_t t = 0; t < TENSORS; t++) {
        release(&there[t], kind);
        tensor_free(&tensors[t]);
    }
    kure_cuda_batch_free(batch);
}

static void compare_all(void)
{
    for (int op = 0; op < KURE_CUDA_OPS; op++) {
        const enum kind kind = about[op].kind;
        int variants = kind == FOLD ? VARIANTS + 2 : kind == CODEC || kind == DOREFA ? VARIANTS : kind == POINTS ? 3 : 2;
        for (int variant = 0; variant < variants; variant++) {
            compare((enum kure_cuda_op)op, cuts[(size_t)(variant + op) % COUNT(cuts)], variant);
        }
    }
}

static void twins(void **state)
{
    (void)state;
    if (!device_name()) fail_msg("there is no GPU here");
    print_message("on %s\n", device_name());
    compare_all();
}

static void twins_reversed(void **state)
{
    (void)state;
    if (!device_is_cpu()) skip(); /* a GPU has an order of its own */
    device_reverse(1);
    compare_all();
    device_reverse(0);
}

/* Sums that are not finite say so. */
static void not_finite(void **state)
{
    (void)state;
    static const float values[] = {NAN, INFINITY, -INFINITY};
    const struct kure_cuda_chunk chunk = {0, 0, 1000};
    for (size_t k = 0; k < COUNT(values); k++) {
        struct kure_cuda_batch *batch;
        float *x = guard(1000);
        x[617] = values[k];
        assert_int_equal(kure_cuda_batch_make(&batch, KURE_CUDA_power_sums, &chunk, 1, 1, "test", NULL), KURE_OK);
        float *there = device_make(x, 1000 * sizeof *x);
        kure_cuda_batch_arguments(batch)[0].x = there;
        assert_int_equal(kure_cuda_batch_run(batch, KURE_CUDA_SEND | KURE_CUDA_FETCH, NULL, NULL), KURE_OK);
        const struct kure_power_sums *got = kure_cuda_batch_results(batch);
        assert_false(isfinite(got->s2));
        device_free(there);
        kure_cuda_batch_free(batch);
        guard_free(x);
    }
}

/* The pivot from a sum that has stayed on the GPU is that of core/statistics.c. */
static void pivot_of_a_sum(void **state)
{
    (void)state;
    enum { N = 9000, FIRST = 8200 };
    const struct kure_cuda_chunk first = {0, 0, FIRST}, whole = {0, 0, N};
    struct kure_cuda_batch *sum, *powers;
    struct kure_power_sums want;
    struct random r = random_start(__func__);
    float *x = guard(N);
    fill(&r, x, N, NORMAL, 100, 0.5);
    assert_int_equal(kure_cuda_batch_make(&sum, KURE_CUDA_sum, &first, 1, 1, "test", NULL), KURE_OK);
    assert_int_equal(kure_cuda_batch_make(&powers, KURE_CUDA_power_sums, &whole, 1, 1, "test", NULL), KURE_OK);
    arguments *a = kure_cuda_batch_arguments(powers);
    float *there = device_make(x, N * sizeof *x);
    kure_cuda_batch_arguments(sum)->x = a->x = there;
    a->pivot.first = FIRST;
    a->pivot.sum = kure_cuda_batch_results_there(sum);
    assert_int_equal(kure_cuda_batch_run(sum, KURE_CUDA_SEND, NULL, NULL), KURE_OK);
    assert_int_equal(kure_cuda_batch_run(powers, KURE_CUDA_SEND | KURE_CUDA_FETCH, NULL, NULL), KURE_OK);
    float pivot = kure_flush_result((float)(kure_cpu()->sum(x, FIRST) / FIRST));
    kure_cpu()->power_sums(x, N, pivot, &want);
    assert_memory_equal(kure_cuda_batch_results(powers), &want, sizeof want);
    device_free(there);
    kure_cuda_batch_free(sum);
    kure_cuda_batch_free(powers);
    guard_free(x);
}

/* One launch, one copy each way, one wait; a table of no chunks does nothing at all. */
static void counts(void **state)
{
    (void)state;
    const struct kure_cuda_chunk chunks[2] = {{0, 0, 3}, {1, 0, 2}};
    const float x[3] = {1, 2, 3};
    struct kure_cuda_batch *batch;
    if (!device_is_cpu()) skip();
    assert_int_equal(kure_cuda_batch_make(&batch, KURE_CUDA_sum, chunks, 2, 2, "test", NULL), KURE_OK);
    float *there = device_make(x, sizeof x);
    for (int t = 0; t < 2; t++) kure_cuda_batch_arguments(batch)[t].x = there;
    struct device_counts before = device_counts();
    assert_int_equal(kure_cuda_batch_run(batch, KURE_CUDA_SEND | KURE_CUDA_FETCH, NULL, NULL), KURE_OK);
    struct device_counts after = device_counts();
    assert_true(after.launches - before.launches == 1 && after.copies_up - before.copies_up == 1);
    assert_true(after.copies_down - before.copies_down == 1 && after.waits - before.waits == 1);
    const double *sums = kure_cuda_batch_results(batch);
    assert_true(sums[0] == 6 && sums[1] == 3);
    kure_cuda_batch_free(batch);
    assert_int_equal(kure_cuda_batch_make(&batch, KURE_CUDA_sum, chunks, 0, 0, "test", NULL), KURE_OK);
    assert_int_equal(kure_cuda_batch_run(batch, KURE_CUDA_SEND | KURE_CUDA_FETCH, NULL, NULL), KURE_OK);
    assert_true(device_counts().launches == after.launches);
    kure_cuda_batch_free(batch);
    device_free(there);
}

/* Made together: the arguments of all go up in one copy, results come down in one; the second batch uses those of the first. */
static void together(void **state)
{
    (void)state;
    const struct kure_cuda_chunk chunks[3] = {{0, 0, 3}, {1, 0, 2}, {1, 1, 1}}, last = {0, 2, 1};
    const struct kure_cuda_plan plans[3] = {{KURE_CUDA_sum, chunks, 3, 2, 2}, {KURE_CUDA_range, NULL, 0, 0, 1}, {KURE_CUDA_sum, &last, 1, 1, 1}};
    const float x[3] = {1, 2, 4};
    struct kure_cuda_batch *batches[3];
    assert_int_equal(kure_cuda_batches_make(batches, plans, 3, "test", NULL), KURE_OK);
    float *there = device_make(x, sizeof x);
    for (int t = 0; t < 2; t++) kure_cuda_batch_arguments(batches[0])[t].x = there;
    kure_cuda_batch_arguments(batches[2])->x = there;
    struct device_counts before = device_counts();
    assert_int_equal(kure_cuda_batch_send(batches[1], NULL, NULL), KURE_OK);
    assert_int_equal(kure_cuda_batch_launch(batches[0], 0, 3, 0, NULL, NULL), KURE_OK);
    assert_int_equal(kure_cuda_batch_launch(batches[0], 2, 1, 1, NULL, NULL), KURE_OK);
    assert_int_equal(kure_cuda_batch_launch(batches[1], 0, 3, 0, NULL, NULL), KURE_OK);
    assert_int_equal(kure_cuda_batch_launch(batches[2], 0, 1, 0, NULL, NULL), KURE_OK);
    assert_int_equal(kure_cuda_batch_fetch(batches[2], NULL, NULL), KURE_OK);
    struct device_counts after = device_counts();
    if (device_is_cpu()) assert_true(after.copies_up - before.copies_up == 1 && after.copies_down - before.copies_down == 1 && after.launches - before.launches == 4);
    const double *sums = kure_cuda_batch_results(batches[0]), *own = kure_cuda_batch_results(batches[2]);
    const struct kure_range_keys *ranges = kure_cuda_batch_results(batches[1]);
    assert_true(sums[0] == 7 && sums[1] == 3 && sums[2] == 2 && sums[5] == 2 && own[0] == 4);
    assert_true(kure_unorder(ranges[0].min) == 1 && kure_unorder(ranges[0].max) == 4 && kure_unorder(ranges[2].max) == 2);
    kure_cuda_batches_free(batches, 3);
    device_free(there);
}

/* dorefa's backward pass with the share from sums that have stayed on the GPU is that of core/dorefa.c. */
static void share_of_sums(void **state)
{
    (void)state;
    enum { N = 20000, CHUNK = 16384 };
    const struct kure_cuda_chunk chunks[2] = {{0, 0, CHUNK}, {0, CHUNK, N - CHUNK}};
    const struct kure_cuda_plan plans[2] = {{KURE_CUDA_dorefa_sums, chunks, 2, 1, 1}, {KURE_CUDA_dorefa_backward, NULL, 0, 0, 0}};
    struct kure_cuda_batch *batches[2];
    struct random r = random_start(__func__);
    float *x = guard(N), *dy = guard(N), *want = guard(N), *got = guard(N);
    fill(&r, x, N, NORMAL, 0, 1);
    fill(&r, dy, N, NORMAL, 0, 1);
    float largest = 0;
    for (size_t i = 0; i < N; i++) largest = fmaxf(largest, fabsf(x[i]));
    assert_int_equal(kure_cuda_batches_make(batches, plans, 2, "test", NULL), KURE_OK);
    arguments *a = kure_cuda_batch_arguments(batches[0]);
    float *there[3] = {device_make(x, N * sizeof *x), device_make(dy, N * sizeof *dy), device_make(got, N * sizeof *got)};
    a->x = there[0], a->dy = there[1], a->dx = there[2];
    a->dorefa.constants = (struct kure_dorefa){.max = kure_tanh(largest), .levels = 15};
    a->dorefa.sums = kure_cuda_batch_results_there(batches[0]);
    a->dorefa.chunks = 2;
    assert_int_equal(kure_cuda_batch_run(batches[0], KURE_CUDA_SEND, NULL, NULL), KURE_OK);
    assert_int_equal(kure_cuda_batch_run(batches[1], 0, NULL, NULL), KURE_OK);
    device_read(got, there[2], N * sizeof *got);
    kure_dorefa_backward(x, dy, want, N);
    check_same("dorefa_backward", got, want, N);
    kure_cuda_batches_free(batches, 2);
    for (int i = 0; i < 3; i++) device_free(there[i]);
    guard_free(x), guard_free(dy), guard_free(want), guard_free(got);
}

/* Sentences name who, where, what, and how much. */
static void refusals(void **state)
{
    (void)state;
    const struct kure_cuda_chunk chunk = {0, 0, 1};
    struct kure_cuda_batch *batch;
    struct kure_error error;
    if (!device_is_cpu()) skip();
    for (int number = 1; number <= 2; number++) { /* on the GPU, then pinned */
        device_fail_allocation(number);
        assert_int_equal(kure_cuda_batch_make(&batch, KURE_CUDA_sum, &chunk, 1, 1, "[kurtosis]", &error), KURE_ERROR_MEMORY);
        assert_null(batch);
        size_t left = 0;
        int end = 0;
        assert_int_equal(sscanf(error.text, "[kurtosis]: GPU 0 is out of memory: 768 bytes wanted for its tables, %zu of 1073741824 free%n", &left, &end), 1);
        assert_true(left > 0 && left <= 1073741824 && end > 0 && error.text[end] == 0);
    }
    assert_int_equal(kure_cuda_batch_make(&batch, KURE_CUDA_range, &chunk, 1, 1, "[kurtosis]", &error), KURE_OK);
    device_fail_launch(1);
    assert_int_equal(kure_cuda_batch_run(batch, KURE_CUDA_SEND, NULL, &error), KURE_ERROR_INPUT);
    assert_string_equal(error.text, "[kurtosis]: GPU 0: kernel range: CUDA: unspecified launch failure");
    kure_cuda_batch_free(batch);
    kure_cuda_batch_free(NULL);
}

int main(void)
{
    const struct CMUnitTest cuda[] = {
        cmocka_unit_test(twins),      cmocka_unit_test(twins_reversed), cmocka_unit_test(not_finite),
        cmocka_unit_test(pivot_of_a_sum), cmocka_unit_test(share_of_sums), cmocka_unit_test(counts),
        cmocka_unit_test(together),   cmocka_unit_test(refusals),
    };
    return check_main(cuda);
}
