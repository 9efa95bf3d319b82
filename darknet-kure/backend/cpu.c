/*
 * cpu.c: which instruction set the loops run on.
 *
 * cpu_kernels.c is compiled once for each; all of them give the same bits, so
 * the choice is one of speed alone.
 */
#include <stdlib.h>
#include <string.h>

#include "kure.h"
#include "backend.h"

extern const struct kure_backend kure_cpu_baseline, kure_cpu_avx2, kure_cpu_avx512;

const struct kure_backend *kure_cpu_named(const char *name)
{
    if (strcmp(name, "baseline") == 0) return &kure_cpu_baseline;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (strcmp(name, "avx2") == 0 && __builtin_cpu_supports("avx2")) return &kure_cpu_avx2;
    if (strcmp(name, "avx512") == 0 && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return &kure_cpu_avx512;
#endif
    return NULL;
}

static const struct kure_backend *choose(void)
{
    static const char *const names[] = {"avx512", "avx2", "baseline"}; /* widest first */
    const char *wish = getenv("KURE_ISA");
    const struct kure_backend *cpu = wish ? kure_cpu_named(wish) : NULL;
    for (size_t i = 0; !cpu; i++) cpu = kure_cpu_named(names[i]);
    return cpu;
}

/* Threads that race for the first choice make the same one. */
static const struct kure_backend *in_use;

const struct kure_backend *kure_cpu(void)
{
    const struct kure_backend *cpu = __atomic_load_n(&in_use, __ATOMIC_RELAXED);
    if (!cpu) {
        cpu = choose();
        __atomic_store_n(&in_use, cpu, __ATOMIC_RELAXED);
    }
    return cpu;
}

void kure_cpu_use(const struct kure_backend *cpu)
{
    __atomic_store_n(&in_use, cpu, __ATOMIC_RELAXED);
}

const char *kure_instruction_set(void)
{
    return kure_cpu()->name;
}
