/* runtime.cpp: the CUDA runtime on the CPU; see cuda_runtime.h. */
#include "cuda_runtime.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <malloc.h>
#include <mutex>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

dim3 threadIdx, blockIdx, blockDim, gridDim;
static thread_local cudaError_t last;

/* ---- threads of a block ------------------------------------------------------- */

namespace cuda_on_cpu {

state now;

enum { STACK = 256 << 10, MOST_THREADS = 1024 };

/* A stack, and where it stands: the registers that a call keeps lie on top of it. */
struct fiber {
    char *stack;
    void *top;
    bool is_done;
};

static fiber fibers[MOST_THREADS];
static void *scheduler;
static int running = -1; /* fiber; -1: threads are plain calls */
static std::function<void()> kernel;

[[noreturn]] static void stop(const char *what)
{
    fprintf(stderr, "cuda_on_cpu: block %u, %u: %s\n", blockIdx.x, blockIdx.y, what);
    abort();
}

/* Goes on where `to` stands, and keeps in *from where this one does. swapcontext() would ask
 * the system for the signal mask at each of the millions of switches. */
extern "C" void cuda_on_cpu_switch(void **from, void *to);

#if defined(__x86_64__)
enum { KEPT = 6, RETURN = 6 };
asm(R"(
    .text
    .globl cuda_on_cpu_switch
    .type cuda_on_cpu_switch, @function
cuda_on_cpu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size cuda_on_cpu_switch, . - cuda_on_cpu_switch
)");
#elif defined(__aarch64__)
enum { KEPT = 20, RETURN = 11 };
asm(R"(
    .text
    .globl cuda_on_cpu_switch
    .type cuda_on_cpu_switch, %function
cuda_on_cpu_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
    .size cuda_on_cpu_switch, . - cuda_on_cpu_switch
)");
#endif

/* The sanitizer follows the change of stacks. */
static void about_to_switch(void **saved, const void *stack, size_t size)
{
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(saved, stack, size);
#else
    (void)saved, (void)stack, (void)size;
#endif
}

static const void *scheduler_stack;
static size_t scheduler_size;

static void have_switched(void *saved, const void **from, size_t *size)
{
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(saved, from, size);
#else
    (void)saved, (void)from, (void)size;
#endif
}

static void fiber_main()
{
    have_switched(nullptr, &scheduler_stack, &scheduler_size);
    kernel();
    fibers[running].is_done = true;
    about_to_switch(nullptr, scheduler_stack, scheduler_size);
    cuda_on_cpu_switch(&fibers[running].top, scheduler);
    stop("a thread went on behind its end");
}

static dim3 place_of(int i)
{
    const unsigned t = (unsigned)i, row = t / blockDim.x;
    return dim3(t % blockDim.x, row % blockDim.y, row / blockDim.y);
}

static void resume(int i)
{
    void *saved = nullptr;
    running = i;
    threadIdx = place_of(i);
    about_to_switch(&saved, fibers[i].stack, STACK);
    cuda_on_cpu_switch(&scheduler, fibers[i].top);
    have_switched(saved, nullptr, nullptr);
    running = -1;
}

static void barrier()
{
    if (running < 0) stop("__syncthreads() that the first thread does not come to");
    const int own = running;
    void *saved = nullptr;
    about_to_switch(&saved, scheduler_stack, scheduler_size);
    cuda_on_cpu_switch(&fibers[own].top, scheduler);
    have_switched(saved, &scheduler_stack, &scheduler_size);
}

static void begin_fiber(int i)
{
    fiber &f = fibers[i];
    if (!f.stack) f.stack = (char *)malloc(STACK);
    if (!f.stack) stop("no memory for a thread");
    f.is_done = false;
    void **top = (void **)(void *)(f.stack + STACK) - KEPT - 4; /* 16 bytes aligned, as behind a call */
    std::fill(top, (void **)(void *)(f.stack + STACK), nullptr);
    top[RETURN] = (void *)fiber_main;
    f.top = top;
}

/* All threads up to their next barrier, or to their end. Returns whether they ended. */
static bool run_to_barrier(int threads, bool reverse)
{
    int ended = 0;
    for (int k = 0; k < threads; k++) {
        const int i = reverse ? threads - 1 - k : k;
        resume(i);
        ended += fibers[i].is_done;
    }
    if (ended != 0 && ended != threads) stop("__syncthreads() that not all threads come to");
    return ended != 0;
}

static void run_block(int threads, bool reverse)
{
    begin_fiber(0);
    resume(0);
    if (fibers[0].is_done) { /* no barriers: plain calls */
        for (int i = 1; i < threads; i++) {
            threadIdx = place_of(i);
            kernel();
        }
        return;
    }
    /* The first thread has come to its first barrier ahead of the others. */
    for (int i = 1; i < threads; i++) begin_fiber(i);
    for (int k = 1; k < threads; k++) {
        const int i = reverse ? threads - k : k;
        resume(i);
        if (fibers[i].is_done) stop("__syncthreads() that not all threads come to");
    }
    while (!run_to_barrier(threads, reverse)) continue;
}

/* KURE_CUDA_COUNTS=FILE: what the process did, when it ends. */
static struct counter {
    ~counter()
    {
        const char *path = getenv("KURE_CUDA_COUNTS");
        FILE *out = path ? fopen(path, "w") : nullptr;
        if (!out) return;
        fprintf(out, "%u %u %u %u %zu\n", now.launches, now.copies_up, now.copies_down, now.waits, now.most_taken);
        fclose(out);
    }
} count_at_exit;

static bool is_refused(dim3 blocks, dim3 threads)
{
    const unsigned long long count = 1ull * threads.x * threads.y * threads.z;
    return count == 0 || count > MOST_THREADS || blocks.x == 0 || blocks.y == 0 || blocks.z == 0 || blocks.x > 0x7fffffffu ||
           blocks.y > 65535 || blocks.z > 65535;
}

void launch(dim3 blocks, dim3 threads, cudaStream_t, const std::function<void()> &function)
{
    static std::mutex one_at_a_time;
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    const char *order = getenv("KURE_CUDA_ORDER");
    const bool reverse = order && strcmp(order, "reverse") == 0;
    now.launches++;
    if (now.fail_launch > 0 && --now.fail_launch == 0) {
        last = cudaErrorLaunchFailure;
        return;
    }
    if (is_refused(blocks, threads)) {
        last = cudaErrorInvalidConfiguration;
        return;
    }
    kernel = function;
    gridDim = blocks;
    blockDim = threads;
    const size_t count = (size_t)blocks.x * blocks.y * blocks.z;
    for (size_t k = 0; k < count; k++) {
        const size_t b = reverse ? count - 1 - k : k;
        blockIdx = dim3((unsigned)(b % blocks.x), (unsigned)(b / blocks.x % blocks.y), (unsigned)(b / blocks.x / blocks.y));
        run_block((int)(threads.x * threads.y * threads.z), reverse);
    }
}

} // namespace cuda_on_cpu

void __syncthreads()
{
    cuda_on_cpu::barrier();
}

/* ---- the runtime -------------------------------------------------------------- */

using cuda_on_cpu::now;

static thread_local int current;

static int devices()
{
    const char *text = getenv("KURE_CUDA_DEVICES");
    return text ? atoi(text) : 1;
}

cudaError_t cudaSetDevice(int device)
{
    if (devices() == 0) return last = cudaErrorNoDevice;
    if (device < 0 || device >= devices()) return last = cudaErrorInvalidDevice;
    current = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device)
{
    *device = current;
    return devices() ? cudaSuccess : last = cudaErrorNoDevice;
}

/* KURE_CUDA_MEMORY=BYTES of all GPUs together (default: 1 GiB) */
static size_t memory()
{
    const char *text = getenv("KURE_CUDA_MEMORY");
    return text ? (size_t)atoll(text) : (size_t)1 << 30;
}

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    const bool fails = (now.fail_allocation > 0 && --now.fail_allocation == 0) || now.taken + bytes > memory();
    if (devices() == 0) return last = cudaErrorNoDevice;
    *p = fails ? nullptr : malloc(bytes ? bytes : 1);
    if (!*p) return last = cudaErrorMemoryAllocation;
    memset(*p, 0xff, bytes); /* NaN */
    now.taken += malloc_usable_size(*p);
    now.most_taken = std::max(now.most_taken, now.taken);
    return cudaSuccess;
}

/* KURE_CUDA_FAIL_PINNED=1, KURE_CUDA_FAIL_DOWN=1: what our code alone does, and Darknet's does not */
static bool is_to_fail(const char *name)
{
    return getenv(name) != nullptr;
}

cudaError_t cudaMallocHost(void **p, size_t bytes)
{
    if (is_to_fail("KURE_CUDA_FAIL_PINNED")) return last = cudaErrorMemoryAllocation;
    return cudaMalloc(p, bytes);
}

cudaError_t cudaFree(void *p)
{
    now.taken -= p ? malloc_usable_size(p) : 0;
    free(p);
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *p)
{
    return cudaFree(p);
}

static cudaError_t copy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    if (kind == cudaMemcpyHostToDevice) now.copies_up++;
    else now.copies_down++;
    memcpy(to, from, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    return copy(to, from, bytes, kind);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t)
{
    if (kind == cudaMemcpyDeviceToHost && is_to_fail("KURE_CUDA_FAIL_DOWN")) return cudaErrorLaunchFailure;
    return copy(to, from, bytes, kind);
}

cudaError_t cudaStreamSynchronize(cudaStream_t)
{
    now.waits++;
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize()
{
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *left, size_t *all)
{
    *all = memory();
    *left = *all - std::min(*all, now.taken);
    return cudaSuccess;
}

cudaError_t cudaPeekAtLastError()
{
    return last;
}

cudaError_t cudaGetLastError()
{
    const cudaError_t error = last;
    last = cudaSuccess;
    return error;
}

const char *cudaGetErrorString(cudaError_t error)
{
    switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorLaunchFailure: return "unspecified launch failure";
    }
    return "unknown error";
}
