/*
 * cuda_runtime.h: what .cu files use of CUDA, on the CPU, so that g++ compiles them as C++
 * and the tests run them without a GPU: ours as they are (backend/cuda_launch.h), Darknet's
 * through the script nvcc beside this file.
 *
 * Blocks run one after another. The threads of a block are fibers that change at
 * __syncthreads() and nowhere else, in turn from the first or from the last thread
 * (KURE_CUDA_ORDER=reverse): code that lacks a barrier gives other results in one of them.
 * A barrier that some threads of a block miss ends the process, as does a launch that a GPU
 * would refuse. Memory of the GPU is memory of the CPU: sanitizers see what lies outside.
 * There are KURE_CUDA_DEVICES of them (default: 1), and one launch at a time.
 */
#ifndef CUDA_ON_CPU_H
#define CUDA_ON_CPU_H

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(...)
#define __forceinline__ inline

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

struct float3 {
    float x, y, z;
};

inline float3 make_float3(float x, float y, float z)
{
    return {x, y, z};
}

using std::max;
using std::min;

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

void __syncthreads();

template <class T> inline T atomicAdd(T *to, T value)
{
    const T before = *to;
    *to += value;
    return before;
}

typedef enum {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorLaunchFailure = 719
} cudaError_t;
typedef enum { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 } cudaMemcpyKind;
typedef struct cuda_on_cpu_stream *cudaStream_t;

extern "C" {
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDevice(int *device);
cudaError_t cudaMalloc(void **p, size_t bytes);
cudaError_t cudaMallocHost(void **p, size_t bytes);
cudaError_t cudaFree(void *p);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaDeviceSynchronize(void);
cudaError_t cudaMemGetInfo(size_t *left, size_t *all);
cudaError_t cudaGetLastError(void);
cudaError_t cudaPeekAtLastError(void);
const char *cudaGetErrorString(cudaError_t error);
}

namespace cuda_on_cpu {

/* What the tests count, and make fail: the n-th allocation or launch from now on. */
struct state {
    unsigned launches, copies_up, copies_down, waits;
    int fail_allocation, fail_launch;
    size_t taken, most_taken; /* bytes of memory */
};
extern state now;

void launch(dim3 blocks, dim3 threads, cudaStream_t stream, const std::function<void()> &kernel);

} // namespace cuda_on_cpu

#endif
