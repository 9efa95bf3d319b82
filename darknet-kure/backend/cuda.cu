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

/* What batches that were made together share. On either side the parts of a batch lie behind those
 * of the batch before; on the GPU all chunks come first, then all arguments, then all results. */
struct memory {
    const char *owner;
    int device, users; /* batches that are not freed */
    size_t chunk_bytes, argument_bytes, result_bytes;
    char *there; /* on the GPU */
    char *here;  /* pinned; arguments and results */
};

struct kure_cuda_batch {
    enum kure_cuda_op op;
    struct memory *memory;
    size_t chunks;                             /* a turn's */
    size_t chunk_at, argument_at, result_at; /* bytes from the first of their kind */
};

enum { ALIGNMENT = 256 };

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static char *arguments_there(const struct memory *m)
{
    return m->there + m->chunk_bytes;
}

static char *results_there(const struct memory *m)
{
    return arguments_there(m) + m->argument_bytes;
}

static size_t bytes_of(const struct memory *m)
{
    return m->chunk_bytes + m->argument_bytes + m->result_bytes;
}

static enum kure_status fail(const struct kure_cuda_batch *b, cudaError_t status, struct kure_error *error)
{
    if (error)
        snprintf(error->text, sizeof error->text, "%s: GPU %d: kernel %s: CUDA: %s", b->memory->owner, b->memory->device, ops[b->op].name,
                 cudaGetErrorString(status));
    return KURE_ERROR_INPUT;
}

static enum kure_status fail_memory(const struct memory *m, cudaError_t status, struct kure_error *error)
{
    size_t left = 0, all = 0;
    cudaGetLastError(); /* forgotten: it is reported here */
    if (cudaMemGetInfo(&left, &all) != cudaSuccess) left = all = 0;
    if (error && status == cudaErrorMemoryAllocation)
        snprintf(error->text, sizeof error->text, "%s: GPU %d is out of memory: %zu bytes wanted for its tables, %zu of %zu free", m->owner,
                 m->device, bytes_of(m), left, all);
    else if (error)
        snprintf(error->text, sizeof error->text, "%s: GPU %d: CUDA: %s", m->owner, m->device, cudaGetErrorString(status));
    return status == cudaErrorMemoryAllocation ? KURE_ERROR_MEMORY : KURE_ERROR_INPUT;
}

/* Where the parts of a batch lie; made of the one before where it has no chunks of its own. */
static void place(struct kure_cuda_batch *b, const struct kure_cuda_plan *plan, const struct kure_cuda_batch *before)
{
    struct memory *m = b->memory;
    b->op = plan->op;
    b->result_at = m->result_bytes;
    if (plan->chunks) {
        b->chunks = plan->count;
        b->chunk_at = m->chunk_bytes;
        b->argument_at = m->argument_bytes;
        m->chunk_bytes += aligned(plan->count * sizeof *plan->chunks);
        m->argument_bytes += aligned(plan->tensors * sizeof(struct kure_cuda_arguments));
    } else {
        b->chunks = before->chunks;
        b->chunk_at = before->chunk_at;
        b->argument_at = before->argument_at;
    }
    m->result_bytes += aligned(plan->turns * b->chunks * ops[b->op].result_bytes + 1);
}

/* Memory on both sides, arguments all zero. */
static cudaError_t take_memory(struct memory *m, struct kure_cuda_batch *const *batches, const struct kure_cuda_plan *plans, int n)
{
    cudaError_t status = cudaGetDevice(&m->device);
    if (status == cudaSuccess) status = cudaMalloc((void **)&m->there, bytes_of(m));
    if (status == cudaSuccess) status = cudaMallocHost((void **)&m->here, m->argument_bytes + m->result_bytes);
    if (status == cudaSuccess) memset(m->here, 0, m->argument_bytes + m->result_bytes);
    for (int i = 0; status == cudaSuccess && i < n; i++) {
        if (!plans[i].chunks || plans[i].count == 0) continue;
        status = cudaMemcpy(m->there + batches[i]->chunk_at, plans[i].chunks, plans[i].count * sizeof *plans[i].chunks, cudaMemcpyHostToDevice);
    }
    return status;
}

enum kure_status kure_cuda_batches_make(struct kure_cuda_batch **batches, const struct kure_cuda_plan *plans, int n, const char *owner,
                                        struct kure_error *error)
{
    struct memory *m = (struct memory *)calloc(1, sizeof *m);
    int made = 0;
    memset(batches, 0, (size_t)n * sizeof *batches);
    while (m && made < n) {
        struct kure_cuda_batch *b = (struct kure_cuda_batch *)calloc(1, sizeof *b);
        if (!b) break;
        m->owner = owner;
        m->users = made + 1;
        b->memory = m;
        place(b, plans + made, made ? batches[made - 1] : NULL);
        batches[made++] = b;
    }
    const cudaError_t status = made == n && m ? take_memory(m, batches, plans, n) : cudaSuccess;
    if (made == n && m && status == cudaSuccess) return KURE_OK;
    enum kure_status failed = KURE_ERROR_MEMORY;
    if (status != cudaSuccess) failed = fail_memory(m, status, error);
    else if (error) snprintf(error->text, sizeof error->text, "%s: not enough memory", owner);
    if (!made) free(m);
    kure_cuda_batches_free(batches, n);
    return failed;
}

enum kure_status kure_cuda_batch_make(struct kure_cuda_batch **batch, enum kure_cuda_op op, const struct kure_cuda_chunk *chunks,
                                      size_t count, size_t tensors, const char *owner, struct kure_error *error)
{
    const struct kure_cuda_plan plan = {op, chunks, count, tensors, 1};
    return kure_cuda_batches_make(batch, &plan, 1, owner, error);
}

void kure_cuda_batch_free(struct kure_cuda_batch *b)
{
    if (!b) return;
    struct memory *m = b->memory;
    free(b);
    if (--m->users > 0) return;
    if (m->there) cudaFree(m->there);
    if (m->here) cudaFreeHost(m->here);
    free(m);
}

void kure_cuda_batches_free(struct kure_cuda_batch **batches, int n)
{
    for (int i = 0; i < n; i++) {
        kure_cuda_batch_free(batches[i]);
        batches[i] = NULL;
    }
}

struct kure_cuda_arguments *kure_cuda_batch_arguments(struct kure_cuda_batch *b)
{
    return (struct kure_cuda_arguments *)(void *)(b->memory->here + b->argument_at);
}

void *kure_cuda_batch_results(const struct kure_cuda_batch *b)
{
    return b->memory->here + b->memory->argument_bytes + b->result_at;
}

const void *kure_cuda_batch_results_there(const struct kure_cuda_batch *b)
{
    return results_there(b->memory) + b->result_at;
}

enum kure_status kure_cuda_batch_send(struct kure_cuda_batch *b, void *stream, struct kure_error *error)
{
    const struct memory *m = b->memory;
    if (m->argument_bytes == 0) return KURE_OK;
    const cudaError_t status = cudaMemcpyAsync(arguments_there(m), m->here, m->argument_bytes, cudaMemcpyHostToDevice, (cudaStream_t)stream);
    return status == cudaSuccess ? KURE_OK : fail(b, status, error);
}

enum kure_status kure_cuda_batch_launch(struct kure_cuda_batch *b, size_t first, size_t count, size_t turn, void *stream,
                                        struct kure_error *error)
{
    const struct memory *m = b->memory;
    if (count == 0) return KURE_OK;
    ops[b->op].launch((unsigned)count, (cudaStream_t)stream, (const struct kure_cuda_chunk *)(void *)(m->there + b->chunk_at) + first,
                      (const struct kure_cuda_arguments *)(void *)(arguments_there(m) + b->argument_at),
                      results_there(m) + b->result_at + (turn * b->chunks + first) * ops[b->op].result_bytes);
    const cudaError_t status = cudaGetLastError();
    return status == cudaSuccess ? KURE_OK : fail(b, status, error);
}

enum kure_status kure_cuda_batch_fetch(struct kure_cuda_batch *b, void *stream, struct kure_error *error)
{
    const struct memory *m = b->memory;
    if (m->chunk_bytes == 0) return KURE_OK;
    cudaError_t status = cudaMemcpyAsync(m->here + m->argument_bytes, results_there(m), m->result_bytes, cudaMemcpyDeviceToHost, (cudaStream_t)stream);
    if (status == cudaSuccess) status = cudaStreamSynchronize((cudaStream_t)stream);
    return status == cudaSuccess ? KURE_OK : fail(b, status, error);
}

enum kure_status kure_cuda_batch_run(struct kure_cuda_batch *b, int what, void *stream, struct kure_error *error)
{
    if (b->chunks == 0) return KURE_OK;
    enum kure_status status = what & KURE_CUDA_SEND ? kure_cuda_batch_send(b, stream, error) : KURE_OK;
    if (status == KURE_OK) status = kure_cuda_batch_launch(b, 0, b->chunks, 0, stream, error);
    if (status == KURE_OK && what & KURE_CUDA_FETCH) status = kure_cuda_batch_fetch(b, stream, error);
    return status;
}
