/*
 * chunks.h: how the core cuts a tensor into pieces, and runs them in threads.
 *
 * The cut depends on the number of elements alone and results are combined in
 * the order of the chunks, so the bits do not depend on the number of threads.
 */
#ifndef KURE_CHUNKS_H
#define KURE_CHUNKS_H

#include <stddef.h>

enum {
    KURE_CHUNKS_MAX = 1024, /* results of all chunks fit on the stack */
    KURE_CHUNK_MIN = 16384, /* elements: 64 KiB, the second-nearest cache */
    KURE_PARALLEL_MIN = 65536, /* elements that are worth waking threads for */
};

/* a multiple of 64 elements: chunks start on cache lines if the tensor does */
static inline size_t kure_chunk_size(size_t n)
{
    size_t size = (n / KURE_CHUNKS_MAX + 64) / 64 * 64;
    return size < KURE_CHUNK_MIN ? KURE_CHUNK_MIN : size;
}

static inline size_t kure_chunk_count(size_t n)
{
    size_t size = kure_chunk_size(n);
    return n / size + (n % size != 0);
}

/* elements of chunk `index` */
static inline size_t kure_chunk_length(size_t n, size_t index)
{
    size_t size = kure_chunk_size(n), start = index * size;
    return n - start < size ? n - start : size;
}

/* KURE_PARALLEL(n, for (...) ...); runs a loop over chunks (or rows) that are
 * independent of each other, n elements in all. A loop of few elements, or one
 * inside another, does not go through OpenMP at all: that takes a microsecond,
 * and inside another loop memory. KURE_PARALLEL_FOR(n) in front of a loop does
 * the same where the loop is never inside another.
 * KURE_PARALLEL_ORDERED is KURE_PARALLEL for a loop whose last statement, behind
 * KURE_IN_ORDER, is run turn by turn as by one thread. */
#if defined(_OPENMP)
#include <omp.h>
#define KURE_PRAGMA(text) _Pragma(#text)
#define KURE_PARALLEL_FOR(n) KURE_PRAGMA(omp parallel for if ((n) >= KURE_PARALLEL_MIN))
#define KURE_PARALLEL(n, ...)                                   \
    do {                                                        \
        if ((n) >= KURE_PARALLEL_MIN && !omp_in_parallel()) {   \
            KURE_PRAGMA(omp parallel for) __VA_ARGS__;          \
        } else {                                                \
            __VA_ARGS__;                                        \
        }                                                       \
    } while (0)
#define KURE_PARALLEL_ORDERED(n, ...)                                       \
    do {                                                                    \
        KURE_PRAGMA(omp parallel for ordered schedule(static, 1) if ((n) >= KURE_PARALLEL_MIN && !omp_in_parallel())) __VA_ARGS__; \
    } while (0)
#define KURE_IN_ORDER KURE_PRAGMA(omp ordered)
#else
#define KURE_PARALLEL_FOR(n)
#define KURE_PARALLEL(n, ...) __VA_ARGS__
#define KURE_PARALLEL_ORDERED(n, ...) __VA_ARGS__
#define KURE_IN_ORDER
#endif

#endif
