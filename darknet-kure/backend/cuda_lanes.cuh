/*
 * cuda_lanes.cuh: sums over a chunk by the threads of one block, in the order of lanes.h.
 *
 * A thread takes one lane of one block of BLOCK elements, so that the eight threads of a
 * block read whole sectors of memory; then one thread a lane adds the blocks in order.
 */
#ifndef KURE_CUDA_LANES_CUH
#define KURE_CUDA_LANES_CUH

#include <cuda_runtime.h>

#include "lanes.h"

enum {
    THREADS = 256,                   /* of every launch */
    TILE = THREADS / LANES * BLOCK,  /* elements that they take at a time */
};

template <int SUMS> struct terms {
    double of[SUMS];
};

/* For every element i of n, in any order: function(i). */
template <class FUNCTION> static __device__ void each(size_t n, const FUNCTION &function)
{
#pragma unroll 4
    for (size_t i = threadIdx.x; i < n; i += THREADS) function(i);
}

static __device__ double lanes_sum(const double *lanes)
{
    return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

/* The sums of function(i).of[0 .. SUMS-1] over n elements; all threads get them. */
template <int SUMS, class FUNCTION> static __device__ terms<SUMS> lane_sums(size_t n, const FUNCTION &function)
{
    static_assert(SUMS * LANES <= THREADS, "a thread for every lane");
    __shared__ double part[SUMS][THREADS];
    __shared__ double lanes[SUMS * LANES];
    const unsigned t = threadIdx.x, block = t / LANES, lane = t % LANES;
    double carried = 0; /* in the first SUMS * LANES threads: lane `lane` of sum number `block` */

    for (size_t start = 0; start < n; start += TILE) {
        terms<SUMS> sum = {};
        const size_t at = start + block * BLOCK, end = at + BLOCK < n ? at + BLOCK : n;
#pragma unroll 8
        for (size_t i = at + lane; i < end; i += LANES) {
            const terms<SUMS> term = function(i);
            for (int s = 0; s < SUMS; s++) sum.of[s] += term.of[s];
        }
        for (int s = 0; s < SUMS; s++) part[s][t] = sum.of[s];
        __syncthreads();
        if (t < SUMS * LANES) {
            const size_t left = (n - start + BLOCK - 1) / BLOCK;
            const unsigned blocks = left < TILE / BLOCK ? (unsigned)left : TILE / BLOCK;
            for (unsigned b = 0; b < blocks; b++) carried += part[block][b * LANES + lane];
        }
        __syncthreads();
    }
    if (t < SUMS * LANES) lanes[t] = carried;
    __syncthreads();
    terms<SUMS> total;
    for (int s = 0; s < SUMS; s++) total.of[s] = lanes_sum(lanes + s * LANES);
    __syncthreads(); /* before another call writes there */
    return total;
}

struct plus {
    template <class T> __device__ T operator()(T a, T b) const { return a + b; }
};
struct least {
    __device__ int32_t operator()(int32_t a, int32_t b) const { return a < b ? a : b; }
};
struct most {
    __device__ int32_t operator()(int32_t a, int32_t b) const { return a > b ? a : b; }
};

/* Integers of all threads combined, for thread 0: their order does not matter. */
template <class T, class COMBINE> static __device__ T over_threads(T value, COMBINE combine)
{
    __shared__ T values[THREADS];
    const unsigned t = threadIdx.x;
    values[t] = value;
    for (unsigned half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) values[t] = combine(values[t], values[t + half]);
    }
    const T all = values[0];
    __syncthreads();
    return all;
}

#endif
