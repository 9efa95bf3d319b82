/*
 * cuda.cu: batches of cuda.h: their memory, their copies, one kernel for each row of ops.def.
 *
 * Tested by tests/unit/test_cuda.c, on a GPU and, as C++, on the CPU.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda.h"
#include "cuda_launch.h"
#include "cuda_quantize.cuh"

/* ---- kernels ------------------------------------------------------------- */

template <class RESULT> struct size_of {
    static const size_t bytes = sizeof(RESULT);
};
template <> struct size_of<void> {
    static const size_t bytes = 0;
};

#define KURE_OP(name, agreement, help)                                                                                \
    static __global__ void __launch_bounds__(THREADS)                                                                 \
        name##_kernel(const struct kure_cuda_chunk *chunks, const struct kure_cuda_arguments *arguments, char *results) \
    {                                                                                                                 \
        const struct kure_cuda_chunk c = chunks[blockIdx.x];                                                          \
        const struct work w = {arguments + c.tensor, (size_t)c.start, (size_t)c.n};                                   \
        if (!w.a->x) return;                                                                                          \
        name##_cuda(w, (name##_result *)(void *)(results + blockIdx.x * size_of<name##_result>::bytes));              \
    }                                                                                                                 \
    static void name##_launch(unsigned blocks, cudaStream_t stream, const struct kure_cuda_chunk *chunks,             \
                              const struct kure_cuda_arguments *arguments, char *results)                             \
    {                                                                                                                 \
        KURE_LAUNCH(name##_kernel, blocks, THREADS, stream, chunks, arguments, results);                              \
    }
#include "ops.def"
#undef KURE_OP

static const struct {
    const char *name;
    void (*launch)(unsigned blocks, cudaStream_t stream, const struct kure_cuda_chunk *chunks,
                   const struct kure_cuda_arguments *arguments, char *results);
    size_t result_bytes;
} ops[KURE_CUDA_OPS] = {
#define KURE_OP(name, agreement, help) {#name, name##_launch, size_of<name##_result>::bytes},
#include "ops.def"
#undef KURE_OP
};

/* ---- batches ------------------------------------------------------------- */

/* Memory of either side: chunks, arguments, results, one behind the other. */
struct kure_cuda_batch {
    enum kure_cuda_op op;
    const char *owner;
    int device;
    size_t chunks, argument_bytes, result_bytes;
    char *there; /* on the GPU */
    char *here;  /* pinned; arguments and results */
};

enum { ALIGNMENT = 256 };

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static size_t chunk_bytes(const struct kure_cuda_batch *b)
{
    return b->chunks * sizeof(struct kure_cuda_chunk);
}

static struct kure_cuda_chunk *chunks_there(const struct kure_cuda_batch *b)
{
    return (struct kure_cuda_chunk *)(void *)b->there;
}

static char *arguments_there(const struct kure_cuda_batch *b)
{
    return b->there + aligned(chunk_bytes(b));
}

static char *results_there(const struct kure_cuda_batch *b)
{
    return arguments_there(b) + aligned(b->argument_bytes);
}

static enum kure_status fail(const struct kure_cuda_batch *b, cudaError_t status, struct kure_error *error)
{
    if (error)
        snprintf(error->text, sizeof error->text, "%s: GPU %d: kernel %s: CUDA: %s", b->owner, b->device, ops[b->op].name,
                 cudaGetErrorString(status));
    return KURE_ERROR_INPUT;
}

static enum kure_status fail_memory(const struct kure_cuda_batch *b, size_t bytes, struct kure_error *error)
{
    size_t left = 0, all = 0;
    cudaGetLastError(); /* forgotten: it is reported here */
    if (cudaMemGetInfo(&left, &all) != cudaSuccess) left = all = 0;
    if (error)
        snprintf(error->text, sizeof error->text, "%s: GPU %d is out of memory: %zu bytes wanted for %s, %zu of %zu free", b->owner,
                 b->device, bytes, ops[b->op].name, left, all);
    return KURE_ERROR_MEMORY;
}

/* Memory on both sides, arguments all zero. */
static cudaError_t take_memory(struct kure_cuda_batch *b, const struct kure_cuda_chunk *chunks, size_t bytes)
{
    cudaError_t status = cudaGetDevice(&b->device);
    if (status == cudaSuccess) status = cudaMalloc((void **)&b->there, bytes);
    if (status == cudaSuccess) status = cudaMallocHost((void **)&b->here, aligned(b->argument_bytes) + b->result_bytes + 1);
    if (status != cudaSuccess) return status;
    memset(b->here, 0, aligned(b->argument_bytes) + b->result_bytes + 1);
    if (b->chunks == 0) return status;
    return cudaMemcpy(b->there, chunks, chunk_bytes(b), cudaMemcpyHostToDevice);
}

enum kure_status kure_cuda_batch_make(struct kure_cuda_batch **batch, enum kure_cuda_op op, const struct kure_cuda_chunk *chunks,
                                      size_t count, size_t tensors, const char *owner, struct kure_error *error)
{
    return kure_cuda_batch_make_turns(batch, op, chunks, count, tensors, 1, owner, error);
}

enum kure_status kure_cuda_batch_make_turns(struct kure_cuda_batch **batch, enum kure_cuda_op op, const struct kure_cuda_chunk *chunks,
                                            size_t count, size_t tensors, size_t turns, const char *owner, struct kure_error *error)
{
    struct kure_cuda_batch *b = (struct kure_cuda_batch *)calloc(1, sizeof *b);
    *batch = NULL;
    if (!b) {
        if (error) snprintf(error->text, sizeof error->text, "%s: not enough memory", owner);
        return KURE_ERROR_MEMORY;
    }
    b->op = op;
    b->owner = owner;
    b->chunks = count;
    b->argument_bytes = tensors * sizeof(struct kure_cuda_arguments);
    b->result_bytes = turns * count * ops[op].result_bytes;
    const size_t bytes = aligned(chunk_bytes(b)) + aligned(b->argument_bytes) + aligned(b->result_bytes + 1);
    const cudaError_t status = take_memory(b, chunks, bytes);
    if (status == cudaSuccess) {
        *batch = b;
        return KURE_OK;
    }
    const enum kure_status failed = status == cudaErrorMemoryAllocation ? fail_memory(b, bytes, error) : fail(b, status, error);
    kure_cuda_batch_free(b);
    return failed;
}

void kure_cuda_batch_free(struct kure_cuda_batch *b)
{
    if (!b) return;
    if (b->there) cudaFree(b->there);
    if (b->here) cudaFreeHost(b->here);
    free(b);
}

struct kure_cuda_arguments *kure_cuda_batch_arguments(struct kure_cuda_batch *b)
{
    return (struct kure_cuda_arguments *)(void *)b->here;
}

void *kure_cuda_batch_results(const struct kure_cuda_batch *b)
{
    return b->here + aligned(b->argument_bytes);
}

const void *kure_cuda_batch_results_there(const struct kure_cuda_batch *b)
{
    return results_there(b);
}

enum kure_status kure_cuda_batch_send(struct kure_cuda_batch *b, void *stream, struct kure_error *error)
{
    if (b->chunks == 0) return KURE_OK;
    const cudaError_t status =
        cudaMemcpyAsync(arguments_there(b), b->here, b->argument_bytes, cudaMemcpyHostToDevice, (cudaStream_t)stream);
    return status == cudaSuccess ? KURE_OK : fail(b, status, error);
}

enum kure_status kure_cuda_batch_launch(struct kure_cuda_batch *b, size_t first, size_t count, size_t turn, void *stream,
                                        struct kure_error *error)
{
    if (count == 0) return KURE_OK;
    ops[b->op].launch((unsigned)count, (cudaStream_t)stream, chunks_there(b) + first,
                      (const struct kure_cuda_arguments *)(void *)arguments_there(b),
                      results_there(b) + (turn * b->chunks + first) * ops[b->op].result_bytes);
    const cudaError_t status = cudaGetLastError();
    return status == cudaSuccess ? KURE_OK : fail(b, status, error);
}

enum kure_status kure_cuda_batch_fetch(struct kure_cuda_batch *b, void *stream, struct kure_error *error)
{
    if (b->chunks == 0) return KURE_OK;
    cudaError_t status = cudaMemcpyAsync(b->here + aligned(b->argument_bytes), results_there(b), b->result_bytes,
                                         cudaMemcpyDeviceToHost, (cudaStream_t)stream);
    if (status == cudaSuccess) status = cudaStreamSynchronize((cudaStream_t)stream);
    return status == cudaSuccess ? KURE_OK : fail(b, status, error);
}

enum kure_status kure_cuda_batch_run(struct kure_cuda_batch *b, int what, void *stream, struct kure_error *error)
{
    enum kure_status status = what & KURE_CUDA_SEND ? kure_cuda_batch_send(b, stream, error) : KURE_OK;
    if (status == KURE_OK) status = kure_cuda_batch_launch(b, 0, b->chunks, 0, stream, error);
    if (status == KURE_OK && what & KURE_CUDA_FETCH) status = kure_cuda_batch_fetch(b, stream, error);
    return status;
}
