/* test_backend.c: every loop of every instruction set of this machine against
 * one plain loop, at shapes around lanes and blocks, between guard zones. */
#define _POSIX_C_SOURCE 200112L /* setenv */
#include "check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../darknet-kure/backend/backend.h"

static const size_t sizes[] = {0, 1, 2, 7, 8, 9, 15, 16, 17, 63, 255, 256, 257, 512, 1031};
static const char *const names[] = {"baseline", "avx2", "avx512"};

/* The plain loops add in order; the sums of a thousand terms agree to 1e-12 of
 * the sum of their magnitudes. */
static const double SUM = 1e-13;

struct inputs {
    float *x, *w, *y, *out, *want;
    size_t n;
};

static struct inputs inputs_make(struct random *r, size_t n)
{
    struct inputs in = {guard(n), guard(n), guard(n), guard(n), guard(n), n};
    fill(r, in.x, n, LAPLACE, 0.2, 1);
    fill(r, in.w, n, NORMAL, 0, 1);
    fill(r, in.y, n, NORMAL, 0, 1);
    for (size_t i = 0; i < n; i += 5) in.x[i] = i % 2 ? 1e-40f : -1e-39f; /* subnormal */
    return in;
}

static void inputs_free(struct inputs *in)
{
    guard_free(in->x);
    guard_free(in->w);
    guard_free(in->y);
    guard_free(in->out);
    guard_free(in->want);
}

/* ---- one function per row of ops.def ------------------------------------- */

static void try_sum(const struct kure_backend *cpu, const struct inputs *in)
{
    double sum = 0, scale = 0;
    for (size_t i = 0; i < in->n; i++) {
        sum += kure_flush(in->x[i]);
        scale += fabs(in->x[i]);
    }
    check_near("sum", cpu->sum(in->x, in->n), sum, SUM * scale);
}

static void try_power_sums(const struct kure_backend *cpu, const struct inputs *in)
{
    const float pivot = 0.25f;
    double s[7] = {0}, scale[7] = {0};
    float min = INFINITY, max = -INFINITY;
    struct kure_power_sums got;
    if (in->n == 0) return;
    for (size_t i = 0; i < in->n; i++) {
        float x = kure_flush(in->x[i]);
        for (int k = 1; k <= 6; k++) {
            s[k] += pow((double)x - pivot, k);
            scale[k] += fabs(pow((double)x - pivot, k));
        }
        min = fminf(min, x);
        max = fmaxf(max, x);
    }
    cpu->power_sums(in->x, in->n, pivot, &got);
    const double sums[7] = {0, got.s1, got.s2, got.s3, got.s4, got.s5, got.s6};
    for (int k = 1; k <= 6; k++) check_near("power sums", sums[k], s[k], SUM * scale[k]);
    assert_true(kure_unorder(got.min) == min && kure_unorder(got.max) == max);
}

static const struct kure_cubic cubic = {.mean = 0.2, .m3 = -0.1, .slope = 5};

static void try_kurtosis_descend(const struct kure_backend *cpu, const struct inputs *in)
{
    const struct kure_narrow_cubic narrow = {0.2f, 1e-9f, 1.3f, -0.1f, 4};
    memcpy(in->out, in->y, in->n * sizeof *in->out);
    cpu->kurtosis_descend(in->out, in->x, in->n, narrow, 0.01f);
    for (size_t i = 0; i < in->n; i++)
        in->want[i] = kure_subtract(in->y[i], 0.01f * kure_narrow_cubic_at(in->x[i], narrow));
    check_same("kurtosis_descend", in->out, in->want, in->n);
}

static void try_kurtosis_dots(const struct kure_backend *cpu, const struct inputs *in)
{
    struct kure_dots got;
    double tt = 0, tw = 0, ww = 0, scale = 0;
    for (size_t i = 0; i < in->n; i++) {
        double t = kure_cubic_at(in->x[i], cubic), w = kure_flush(in->w[i]);
        tt += t * t;
        tw += t * w;
        ww += w * w;
        scale += fabs(t * w);
    }
    cpu->kurtosis_dots(in->x, in->w, in->n, cubic, &got);
    check_near("kurtosis_dots", got.tt, tt, SUM * tt);
    check_near("kurtosis_dots", got.tw, tw, SUM * scale);
    check_near("kurtosis_dots", got.ww, ww, SUM * ww);
}

static void try_kurtosis_descend_across(const struct kure_backend *cpu, const struct inputs *in)
{
    memcpy(in->out, in->y, in->n * sizeof *in->out);
    cpu->kurtosis_descend_across(in->out, in->x, in->w, in->n, cubic, 0.01, 0.3);
    for (size_t i = 0; i < in->n; i++) {
        double term = 0.01 * (kure_cubic_at(in->x[i], cubic) - 0.3 * (double)kure_flush(in->w[i]));
        in->want[i] = kure_subtract(in->y[i], (float)term);
    }
    check_same("kurtosis_descend_across", in->out, in->want, in->n);
}

static void try_multiply(const struct kure_backend *cpu, const struct inputs *in)
{
    cpu->multiply(in->x, in->out, in->n, -0.7f);
    for (size_t i = 0; i < in->n; i++)
        in->want[i] = fabsf(in->x[i]) < 0x1p-126f ? 0 : in->x[i] * -0.7f;
    check_same("multiply", in->out, in->want, in->n);
}

static void try_divide(const struct kure_backend *cpu, const struct inputs *in)
{
    cpu->divide(in->x, in->out, in->n, -0.7f);
    for (size_t i = 0; i < in->n; i++)
        in->want[i] = fabsf(in->x[i]) < 0x1p-126f ? 0 : in->x[i] / -0.7f;
    check_same("divide", in->out, in->want, in->n);
}

#include "backend_quantize.h"
#include "backend_fold.h"

/* ---- all of them --------------------------------------------------------- */

/* A row of ops.def without a function above does not compile. */
static const struct {
    const char *name;
    void (*try)(const struct kure_backend *, const struct inputs *);
} ops[] = {
#define KURE_OP(name, agreement, help) {#name, try_##name},
#include "../../darknet-kure/backend/ops.def"
#undef KURE_OP
};

static void try_all(const char *name)
{
    const struct kure_backend *cpu = kure_cpu_named(name);
    if (!cpu) {
        print_message("this machine has no %s\n", name);
        skip();
    }
    assert_string_equal(cpu->name, name);
    for (size_t k = 0; k < COUNT(ops); k++)
        for (size_t s = 0; s < COUNT(sizes); s++) {
            struct random r = random_start(ops[k].name);
            struct inputs in = inputs_make(&r, sizes[s]);
            ops[k].try(cpu, &in);
            inputs_free(&in);
        }
}

static void baseline(void **state)
{
    (void)state;
    try_all(names[0]);
}

static void avx2(void **state)
{
    (void)state;
    try_all(names[1]);
}

static void avx512(void **state)
{
    (void)state;
    try_all(names[2]);
}

static void choice(void **state)
{
    (void)state;
    assert_null(kure_cpu_named("avx3"));
    assert_null(kure_cpu_named(""));
    for (size_t i = 0; i < COUNT(names); i++) {
        const struct kure_backend *cpu = kure_cpu_named(names[i]);
        if (!cpu) continue;
        kure_cpu_use(cpu);
        assert_string_equal(kure_instruction_set(), names[i]);
    }
    const char *before = getenv("KURE_ISA");
    kure_cpu_use(NULL);
    setenv("KURE_ISA", "baseline", 1);
    assert_string_equal(kure_instruction_set(), "baseline");
    kure_cpu_use(NULL);
    setenv("KURE_ISA", "avx3", 1); /* there is no such: the widest */
    const char *widest = kure_cpu_named("avx512") ? "avx512" : kure_cpu_named("avx2") ? "avx2" : "baseline";
    assert_string_equal(kure_instruction_set(), widest);
    kure_cpu_use(NULL);
    if (before) setenv("KURE_ISA", before, 1);
    else unsetenv("KURE_ISA");
}

int main(void)
{
    const struct CMUnitTest backend[] = {
        cmocka_unit_test(baseline),
        cmocka_unit_test(avx2),
        cmocka_unit_test(avx512),
        cmocka_unit_test(choice),
    };
    return check_main(backend);
}
