/*
 * cuda.h: the loops of ops.def on a GPU.
 *
 * A batch is one launch of one op over the chunks of many tensors: a table of chunks says
 * which block works on what, and a table of arguments what is done to each tensor. There is
 * no limit on either. A chunk gives the bits that the CPU's loop gives for the same
 * elements (lanes.h); where a tensor is cut is up to the caller.
 *
 * All memory is taken by kure_cuda_batch_make. A batch belongs to the GPU that was current
 * then, and is used by one thread at a time. Without GPU=1 (cuda_absent.c) make fails.
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
    float *y; /* y, dx or updates */
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
        float factor;            /* multiply; divide: the divisor; pact_*: the clip */
        struct kure_codec codec; /* fake_quantize, quantization_sums, ste_backward, step_gradient */
        struct {
            struct kure_dorefa constants;
            enum kure_rounding rounding;
            struct kure_noise noise;
        } dorefa; /* dorefa_* */
        struct {
            const double *total, *count; /* x: the values */
            struct kure_levels levels;
            double p;
        } points; /* level_sums, error_power */
    };
};

struct kure_cuda_batch;

/* chunks  [in]:  [count], copied; no two that write have elements in common
 * tensors [in]:  number of arguments, which are zero until they are set
 * owner   [in]:  what sentences call it, such as "[kurtosis]"; kept, not copied
 * KURE_ERROR_MEMORY: says how much was wanted. KURE_ERROR_INPUT: no GPU. */
KURE_CHECKED enum kure_status kure_cuda_batch_make(struct kure_cuda_batch **batch, enum kure_cuda_op op,
                                                   const struct kure_cuda_chunk *chunks, size_t count, size_t tensors,
                                                   const char *owner, struct kure_error *error);
/* The same with room for the results of several launches of each chunk: turn 0, 1 ... */
KURE_CHECKED enum kure_status kure_cuda_batch_make_turns(struct kure_cuda_batch **batch, enum kure_cuda_op op,
                                                         const struct kure_cuda_chunk *chunks, size_t count, size_t tensors,
                                                         size_t turns, const char *owner, struct kure_error *error);
void kure_cuda_batch_free(struct kure_cuda_batch *batch); /* may be NULL */

/* [tensors] in the CPU's memory: what the next run with KURE_CUDA_SEND uses */
struct kure_cuda_arguments *kure_cuda_batch_arguments(struct kure_cuda_batch *batch);

/* Results of ops that have one, [turns][count] of the struct that the op's function gives: in the
 * CPU's memory after a run with KURE_CUDA_FETCH, in the GPU's after any run. */
void *kure_cuda_batch_results(const struct kure_cuda_batch *batch);
const void *kure_cuda_batch_results_there(const struct kure_cuda_batch *batch);

enum { KURE_CUDA_SEND = 1, KURE_CUDA_FETCH = 2 };

/* Sends the arguments, launches, fetches the results, as `what` says; waits for the GPU only
 * in order to fetch. stream: a cudaStream_t; NULL is the default one.
 * KURE_ERROR_INPUT: names the op, the owner, and what CUDA says. */
KURE_CHECKED enum kure_status kure_cuda_batch_run(struct kure_cuda_batch *batch, int what, void *stream, struct kure_error *error);

/* The parts of a run, each as above: sends the arguments; works on chunks first .. first + count - 1
 * alone, with results of the turn; fetches the results of all turns, and waits. */
KURE_CHECKED enum kure_status kure_cuda_batch_send(struct kure_cuda_batch *batch, void *stream, struct kure_error *error);
KURE_CHECKED enum kure_status kure_cuda_batch_launch(struct kure_cuda_batch *batch, size_t first, size_t count, size_t turn,
                                                     void *stream, struct kure_error *error);
KURE_CHECKED enum kure_status kure_cuda_batch_fetch(struct kure_cuda_batch *batch, void *stream, struct kure_error *error);

#ifdef __cplusplus
}
#endif
#endif
