/* device.cu: see device.h. */
#include "device.h"

#include <cuda_runtime.h>
#include <stdio.h>
#include <stdlib.h>

static void check(cudaError_t status)
{
    if (status == cudaSuccess) return;
    fprintf(stderr, "CUDA: %s\n", cudaGetErrorString(status));
    exit(3);
}

void *device_make(const void *from, size_t bytes)
{
    void *there = NULL;
    check(cudaMalloc(&there, bytes ? bytes : 1));
    check(cudaMemcpy(there, from, bytes, cudaMemcpyHostToDevice));
    return there;
}

void device_read(void *to, const void *from, size_t bytes)
{
    check(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost));
}

void device_free(void *there)
{
    check(cudaFree(there));
}

#if defined(CUDA_ON_CPU_H)
const char *device_name(void)
{
    return "the CPU in place of a GPU";
}

int device_is_cpu(void)
{
    return 1;
}

struct device_counts device_counts(void)
{
    const cuda_on_cpu::state &s = cuda_on_cpu::now;
    return {s.launches, s.copies_up, s.copies_down, s.waits};
}

void device_fail_allocation(int number)
{
    cuda_on_cpu::now.fail_allocation = number;
}

void device_fail_launch(int number)
{
    cuda_on_cpu::now.fail_launch = number;
}

void device_reverse(int on)
{
    if (on) setenv("KURE_CUDA_ORDER", "reverse", 1);
    else unsetenv("KURE_CUDA_ORDER");
}
#else
const char *device_name(void)
{
    static cudaDeviceProp properties;
    return cudaGetDeviceProperties(&properties, 0) == cudaSuccess ? properties.name : NULL;
}

int device_is_cpu(void)
{
    return 0;
}

struct device_counts device_counts(void)
{
    return {0, 0, 0, 0};
}

void device_fail_allocation(int number)
{
    (void)number;
}

void device_fail_launch(int number)
{
    (void)number;
}

void device_reverse(int on)
{
    (void)on;
}
#endif
