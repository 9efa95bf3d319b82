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

/* in front of a loop over chunks (or rows) that are independent of each other */
#if defined(_OPENMP)
#define KURE_PRAGMA(text) _Pragma(#text)
#define KURE_PARALLEL_FOR(n) KURE_PRAGMA(omp parallel for if ((n) >= KURE_PARALLEL_MIN))
#else
#define KURE_PARALLEL_FOR(n)
#endif

#endif
