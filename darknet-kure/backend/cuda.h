/*
 * cuda.h: the loops of ops.def on a GPU.
 *
 * A batch is one launch of one op over the chunks of many tensors: a table of chunks says
 * which block works on what, and a table of arguments what is done to each tensor. There is
 * no limit on either. A chunk gives the bits that the CPU's loop gives for the same
 * elements (lanes.h); where a tensor is cut is up to the caller.
 *
 * All memory is taken when batches are made. They belong to the GPU that was current
 * then, and are used by one thread at a time. Without GPU=1 (cuda_absent.c) make fails.
 */
#ifndef KURE_CUDA_H
#define KURE_CUDA_H

#include "backend.h"

#ifdef __cplusplus
extern "C" {
#endif

enum kure_cuda_op {
#define KURE_OP(name, agreement, help) KURE_CUDA_##name,
#include "ops.def"
#undef KURE_OP
    KURE_CUDA_OPS
};

struct kure_cuda_chunk {
    uint32_t tensor;   /* number of its arguments */
    uint64_t start, n; /* elements start .. start + n - 1 of the tensor */
};

/* What an op does to a tensor: the parameters of its function in backend.h. Pointers are to
 * the first element of the tensor in the GPU's memory; x NULL: the tensor is left out, its
 * results stay what they were. */
struct kure_cuda_arguments {
    const float *x, *w, *dy;
    float *y, *dx;     /* dx: or updates */
    float factor, cap; /* multiply; divide: the divisor; pact_backward: the clip; rectify*: the slope, and cap */
    union {
        struct {              /* power_sums, spread_sums */
            float pivot;      /* where sum is NULL */
            uint64_t first;
            const double *sum; /* a result of the op sum, over the first elements: the pivot is sum/first */
        } pivot;
        struct {
            struct kure_narrow_cubic cubic;
            float gain;
        } descend; /* kurtosis_descend */
        struct {
            struct kure_cubic cubic;
            double gain, along;
        } across;                /* kurtosis_descend_across, kurtosis_dots */
        struct kure_fold_codec fold;       /* fold_*; the others that quantize, or did: its codec */
        struct kure_folded_norm batchnorm; /* fold_biases, batchnorm_backward; x: anything but NULL */
        struct {
            struct kure_dorefa constants;
            enum kure_rounding rounding;
            struct kure_noise noise;
            const struct kure_dorefa_sums *sums; /* dorefa_backward: [chunks] results of dorefa_sums that give the share; NULL: the constant */
            size_t chunks;
        } dorefa; /* dorefa_* */
        struct {
            const double *total, *count; /* x: the values */
            struct kure_levels levels;
            double p;
        } points; /* level_sums, error_power */
    };
};

struct kure_cuda_batch;

/* A batch that is to be made. */
struct kure_cuda_plan {
    enum kure_cuda_op op;
    const struct kure_cuda_chunk *chunks; /* [count], copied; no two that write have elements in common.
                                           * NULL: chunks and arguments are those of the batch before */
    size_t count;
    size_t tensors; /* number of arguments, which are zero until they are set */
    size_t turns;   /* room for the results of so many launches of each chunk; 0: there are none */
};

/* Batches whose arguments go to the GPU in one copy, and whose results come from it in one.
 * batches [out]: [n]; all NULL where it fails
 * owner   [in]:  what sentences call it, such as "[kurtosis]"; kept, not copied
 * KURE_ERROR_MEMORY: says how much was wanted. KURE_ERROR_INPUT: no GPU. */
KURE_CHECKED enum kure_status kure_cuda_batches_make(struct kure_cuda_batch **batches, const struct kure_cuda_plan *plans, int n,
                                                     const char *owner, struct kure_error *error);
void kure_cuda_batches_free(struct kure_cuda_batch **batches, int n); /* all that were made together; each may be NULL */

/* One alone, of one turn. */
KURE_CHECKED enum kure_status kure_cuda_batch_make(struct kure_cuda_batch **batch, enum kure_cuda_op op,
                                                   const struct kure_cuda_chunk *chunks, size_t count, size_t tensors,
                                                   const char *owner, struct kure_error *error);
void kure_cuda_batch_free(struct kure_cuda_batch *batch); /* may be NULL */

/* [tensors] in the CPU's memory: what launches after the next send use */
struct kure_cuda_arguments *kure_cuda_batch_arguments(struct kure_cuda_batch *batch);

/* Results of ops that have one, [turns][count] of the struct that the op's function gives: in the
 * CPU's memory after a fetch, in the GPU's after a launch. */
void *kure_cuda_batch_results(const struct kure_cuda_batch *batch);
const void *kure_cuda_batch_results_there(const struct kure_cuda_batch *batch);

/* Sends the arguments of all batches that were made together; fetches the results of all, and
 * waits; works on chunks first .. first + count - 1 of this batch, with results of the turn.
 * stream: a cudaStream_t; NULL is the default one.
 * KURE_ERROR_INPUT: names the op, the owner, and what CUDA says. */
KURE_CHECKED enum kure_status kure_cuda_batch_send(struct kure_cuda_batch *batch, void *stream, struct kure_error *error);
KURE_CHECKED enum kure_status kure_cuda_batch_fetch(struct kure_cuda_batch *batch, void *stream, struct kure_error *error);
KURE_CHECKED enum kure_status kure_cuda_batch_launch(struct kure_cuda_batch *batch, size_t first, size_t count, size_t turn,
                                                     void *stream, struct kure_error *error);

/* Sends, launches all chunks of turn 0, fetches, as `what` says. */
enum { KURE_CUDA_SEND = 1, KURE_CUDA_FETCH = 2 };
KURE_CHECKED enum kure_status kure_cuda_batch_run(struct kure_cuda_batch *batch, int what, void *stream, struct kure_error *error);

#ifdef __cplusplus
}
#endif
#endif
