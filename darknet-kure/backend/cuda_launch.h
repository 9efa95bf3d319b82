/*
 * cuda_launch.h: how a kernel is launched: by nvcc's <<<>>>, or, where the tests compile the
 * .cu files as C++, by the cuda_runtime.h of tests/host/cuda_on_cpu.
 */
#ifndef KURE_CUDA_LAUNCH_H
#define KURE_CUDA_LAUNCH_H

#include <cuda_runtime.h>

#if defined(__CUDACC__)
#define KURE_LAUNCH(kernel, blocks, threads, stream, ...) kernel<<<(blocks), (threads), 0, (stream)>>>(__VA_ARGS__)
#else
#define KURE_LAUNCH(kernel, blocks, threads, stream, ...) \
    cuda_on_cpu::launch((blocks), (threads), (stream), [=] { kernel(__VA_ARGS__); })
#endif

#endif
