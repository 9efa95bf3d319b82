/* test_same_bits.c: results do not depend on the instruction set, the number of
 * threads, or FTZ and DAZ. */
#include "check.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#if defined(_OPENMP)
#include <omp.h>
#endif

#include "../../darknet-kure/backend/backend.h"

enum { ROWS = 70, LENGTH = 951, N = ROWS * LENGTH }; /* beyond KURE_PARALLEL_MIN, odd rows */

static uint64_t hash(uint64_t h, const void *data, size_t bytes)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < bytes; i++) h = (h ^ p[i]) * 0x100000001b3u; /* FNV-1a */
    return h;
}

/* The bits of the fields, without the padding between them. */
static uint64_t hash_statistics(uint64_t h, const struct kure_statistics *s)
{
    const double moments[] = {s->mean, s->m2, s->m3, s->m4, s->m6, s->min, s->max};
    h = hash(h, &s->nonfinite, sizeof s->nonfinite);
    return hash(h, moments, sizeof moments);
}

/* kinds of tensors, the last few on the edge of float's range */
enum kind { PLAIN, SHIFTED, OUTLIER, SYMMETRIC, TINY, HUGE_VALUES, SUBNORMAL, NEAR_FLT_MIN, KINDS };

static void make(struct random *r, enum kind kind, float *w)
{
    fill(r, w, N, LAPLACE, 0, 0.03);
    for (int i = 0; i < N; i++) switch (kind) {
        case SHIFTED: w[i] += 100; break;
        case OUTLIER: w[i] = i == 7 ? 1e6f : w[i]; break;
        case SYMMETRIC: /* mean and skewness exactly 0; next to them even subnormals could show */
            w[i] = i % 2 ? -w[i - 1] : i % 10 ? 1e-9f * w[i] : 1e-39f;
            break;
        case TINY: w[i] *= 1e-15f; break;
        case HUGE_VALUES: w[i] *= 1e17f; break;
        case SUBNORMAL: w[i] *= i % 3 ? 1e-38f : 1; break; /* most below FLT_MIN */
        case NEAR_FLT_MIN: w[i] *= 1e-36f; break;
        default: break;
        }
}

/* Every policy, with roundings, grids and kinds of steps in turn; forward and backward. */
static uint64_t hash_quantizers(uint64_t h, const struct kure_tensor *t, const float *dy)
{
    static const double values[KURE_TRUNCATIONS] = {[KURE_TRUNCATION_PERCENTILE] = 99, [KURE_TRUNCATION_LP] = 3,
                                                    [KURE_TRUNCATION_SIGMA] = 3, [KURE_TRUNCATION_FIXED] = 0.1};
    const struct kure_noise noise = {1, 2, 3};
    float *x = guard(N), *y = guard(N);
    for (int i = 0; i < KURE_TRUNCATIONS; i++) {
        struct kure_quantizer q = {.bits = 4, .rounding = (enum kure_rounding)((i + 4) % KURE_ROUNDINGS),
                                   .truncation = (enum kure_truncation)i, .truncation_value = values[i], .step = i % 3 == 0,
                                   .step_ratio = 0.9, .granularity = i % 4 == 1 ? KURE_GRANULARITY_CHANNEL : KURE_GRANULARITY_TENSOR,
                                   .symmetric = i % 2, .grid = i % 2 ? (enum kure_grid)(i % 3) : KURE_GRID_FULL};
        struct kure_tensor copy = *t;
        struct kure_quantization out = {0, 0};
        struct kure_observer o;
        struct kure_scale scale;
        memcpy(x, t->weights, N * sizeof *x);
        copy.weights = x;
        int status = kure_quantize_tensor(&copy, &q, i / 2 % 2, &noise, &out, NULL);
        h = hash(h, &status, sizeof status);
        if (status == KURE_OK) h = hash(h, &out, sizeof out);
        h = hash(h, x, N * sizeof *x);
        assert_int_equal(kure_observer_init(&o, &q, NULL), KURE_OK);
        for (int batch = 0; batch < 3; batch++) kure_observer_add(&o, t->weights + batch, N - 2);
        status = kure_observer_scale(&o, &q, &scale, NULL);
        kure_observer_free(&o);
        h = hash(h, &status, sizeof status);
        if (status != KURE_OK) continue;
        h = hash(h, &scale, sizeof scale);
        kure_fake_quantize(t->weights, y, N, scale, &q, &noise);
        h = hash(h, y, N * sizeof *y);
        kure_ste_backward(t->weights, dy, y, N, scale, &q, &noise);
        h = hash(h, y, N * sizeof *y);
        double gradient = kure_learned_step_backward(t->weights, dy, y, N, N, scale, &q, &noise);
        h = hash(h, y, N * sizeof *y);
        h = hash(h, &gradient, sizeof gradient);
        struct kure_learned_step learned = kure_learned_step_start(t->weights, N, scale.zero_point, &q);
        h = hash(h, &learned, sizeof learned);
        kure_dorefa_quantize(t->weights, y, N, &q, &noise);
        h = hash(h, y, N * sizeof *y);
        kure_dorefa_backward(t->weights, dy, y, N);
        h = hash(h, y, N * sizeof *y);
        gradient = kure_pact_backward(t->weights, dy, y, N, 0.02f);
        h = hash(h, y, N * sizeof *y);
        h = hash(h, &gradient, sizeof gradient);
    }
    const struct kure_quantizer midrise = {.bits = 8, .grid = KURE_GRID_MIDRISE, .symmetric = 1};
    kure_fake_quantize(t->weights, y, N, (struct kure_scale){2.5f * FLT_MIN, 0}, &midrise, NULL);
    h = hash(h, y, N * sizeof *y);
    guard_free(x);
    guard_free(y);
    return h;
}

/* Everything that the core computes, of one tensor; flush: with FTZ and DAZ,
 * which the inputs are drawn without. */
static uint64_t run(const struct random *start, enum kind kind, int threads, int flush, int quantizers)
{
    struct random r = *start;
    uint64_t h = 0xcbf29ce484222325u;
    float *w = guard(N), *u = guard(N), *scratch = guard(N), *gamma = guard(ROWS), *variance = guard(ROWS);
    float *gamma_updates = guard(ROWS), *updates = guard(N);
    struct kure_tensor t = {.weights = w, .updates = u, .rows = ROWS, .row_length = LENGTH, .gamma = gamma,
                            .variance = variance, .gamma_updates = gamma_updates, .scratch = scratch};
#if defined(_OPENMP)
    omp_set_num_threads(threads);
#else
    (void)threads;
#endif
    make(&r, kind, w);
    for (int c = 0; c < ROWS; c++) {
        gamma[c] = (float)(random_uniform(&r) - 0.3) * (c % 9 ? 1.0f : 1e-38f);
        variance[c] = (float)random_uniform(&r);
    }
    for (int i = 0; i < N; i += 3) updates[i] = i % 2 ? 1e-39f : 0.01f * w[i];
    set_flush_to_zero(flush);
    for (int granularity = 0; granularity <= 1; granularity++)
        for (int fold = 0; fold <= 1; fold++)
            for (int limit = 0; limit <= 1; limit++) {
                const struct kure_kurtosis_rule rule = {.target = 1.8, .granularity = granularity, .fold = fold};
                struct kure_kurtosis_measure m;
                const double scalars[2] = {0};
                memcpy(u, updates, N * sizeof *u);
                memset(gamma_updates, 0, ROWS * sizeof *gamma_updates);
                kure_kurtosis_measure(&t, &rule, &m);
                int limited = kure_kurtosis_apply(&t, &rule, &m, 64, 0.1, limit ? 1e-3 : 0);
                h = hash_statistics(h, &m.statistics);
                h = hash(h, &m.skip, sizeof m.skip);
                h = hash(h, m.skip ? scalars : &m.kurtosis, sizeof m.kurtosis);
                h = hash(h, m.skip ? scalars : &m.loss, sizeof m.loss);
                h = hash(h, &limited, sizeof limited);
                h = hash(h, u, N * sizeof *u);
                h = hash(h, gamma_updates, ROWS * sizeof *gamma_updates);
            }
    if (quantizers) h = hash_quantizers(h, &t, updates);
    h = hash(h, u, N * sizeof *u);
    set_flush_to_zero(0);
    guard_free(updates);
    guard_free(w);
    guard_free(u);
    guard_free(scratch);
    guard_free(gamma);
    guard_free(variance);
    guard_free(gamma_updates);
    return h;
}

static void instruction_sets(void **state)
{
    (void)state;
    static const char *const names[] = {"avx2", "avx512"};
    int missing = 0;
    struct random r = random_start(__func__);
    for (int kind = 0; kind < KINDS; kind++) {
        kure_cpu_use(kure_cpu_named("baseline"));
        uint64_t want = run(&r, (enum kind)kind, 1, 0, 1);
        for (size_t i = 0; i < COUNT(names); i++) {
            const struct kure_backend *cpu = kure_cpu_named(names[i]);
            if (!cpu) {
                missing |= 1 << i;
                continue;
            }
            kure_cpu_use(cpu);
            if (run(&r, (enum kind)kind, 1, 0, 1) != want) fail_msg("%s differs, tensor kind %d", names[i], kind);
        }
    }
    kure_cpu_use(NULL);
    for (size_t i = 0; i < COUNT(names); i++)
        if (missing & (1 << i)) print_message("NOT COMPARED: this machine has no %s\n", names[i]);
    if (missing == 3) skip();
}

static void threads(void **state)
{
    (void)state;
#if defined(_OPENMP)
    struct random r = random_start(__func__);
    for (int kind = 0; kind < KINDS; kind++) {
        int quantizers = kind == PLAIN || kind == OUTLIER; /* more threads than cores take long */
        uint64_t want = run(&r, (enum kind)kind, 1, 0, quantizers);
        for (int k = 2; k <= 3; k++)
            if (run(&r, (enum kind)kind, k, 0, quantizers) != want) fail_msg("%d threads differ, tensor kind %d", k, kind);
    }
#else
    print_message("built without -fopenmp\n");
    skip();
#endif
}

static void flush_to_zero(void **state)
{
    (void)state;
    struct random r = random_start(__func__);
    if (!set_flush_to_zero(0)) skip();
    for (int kind = 0; kind < KINDS; kind++) {
        if (run(&r, (enum kind)kind, 1, 1, 1) != run(&r, (enum kind)kind, 1, 0, 1)) fail_msg("FTZ and DAZ show, tensor kind %d", kind);
    }
}

/* The hash itself must be able to differ. */
static void hash_sees_one_bit(void **state)
{
    (void)state;
    float a[3] = {1, 2, 3};
    uint64_t before = hash(1, a, sizeof a);
    a[1] = nextafterf(2, 3);
    assert_true(hash(1, a, sizeof a) != before);
}

int main(void)
{
    const struct CMUnitTest same_bits[] = {
        cmocka_unit_test(instruction_sets),
        cmocka_unit_test(threads),
        cmocka_unit_test(flush_to_zero),
        cmocka_unit_test(hash_sees_one_bit),
    };
    return check_main(same_bits);
}
