/*
 * count_allocations.c: preloaded into a program, writes how often it asked for memory to the file that
 * COUNT_ALLOCATIONS names, when it ends. What libgomp takes for its teams of threads is left out: it does so for
 * every parallel loop, Darknet's as well. glibc only. test_memory.py compiles it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

static unsigned long calls;
static const char *gomp_from, *gomp_to;

static int find_gomp(struct dl_phdr_info *info, size_t size, void *context)
{
    (void)size;
    (void)context;
    if (!info->dlpi_name || !strstr(info->dlpi_name, "libgomp")) return 0;
    for (int i = 0; i < info->dlpi_phnum; ++i) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (part->p_type != PT_LOAD || !(part->p_flags & PF_X)) continue;
        gomp_from = (const char *)info->dlpi_addr + part->p_vaddr;
        gomp_to = gomp_from + part->p_memsz;
    }
    return 1;
}

__attribute__((constructor)) static void begin(void)
{
    dl_iterate_phdr(find_gomp, NULL);
}

/* caller: where the call came from */
static void count(const void *caller)
{
    if ((const char *)caller >= gomp_from && (const char *)caller < gomp_to) return;
    __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
}
#define COUNT() count(__builtin_return_address(0))

void *malloc(size_t size)
{
    COUNT();
    return __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    COUNT();
    return __libc_calloc(n, size);
}

void *realloc(void *old, size_t size)
{
    COUNT();
    return __libc_realloc(old, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    COUNT();
    return __libc_memalign(alignment, size);
}

void *memalign(size_t alignment, size_t size)
{
    COUNT();
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **out, size_t alignment, size_t size)
{
    COUNT();
    *out = __libc_memalign(alignment, size);
    return *out ? 0 : ENOMEM;
}

__attribute__((destructor)) static void end(void)
{
    const char *path = getenv("COUNT_ALLOCATIONS");
    unsigned long seen = calls; /* opening the file allocates as well */
    FILE *out = path ? fopen(path, "w") : NULL;
    if (!out) return;
    fprintf(out, "%lu\n", seen);
    fclose(out);
}
