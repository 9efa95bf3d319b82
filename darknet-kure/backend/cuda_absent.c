/* cuda_absent.c: cuda.h in a build without GPU=1. */
#include <stdio.h>

#include "cuda.h"

enum kure_status kure_cuda_batch_make(struct kure_cuda_batch **batch, enum kure_cuda_op op, const struct kure_cuda_chunk *chunks,
                                      size_t count, size_t tensors, const char *owner, struct kure_error *error)
{
    (void)op, (void)chunks, (void)count, (void)tensors;
    *batch = NULL;
    if (error) snprintf(error->text, sizeof error->text, "%s: this program was built without GPU=1", owner);
    return KURE_ERROR_INPUT;
}

enum kure_status kure_cuda_batches_make(struct kure_cuda_batch **batches, const struct kure_cuda_plan *plans, int n, const char *owner,
                                        struct kure_error *error)
{
    (void)plans;
    for (int i = 0; i < n; ++i) batches[i] = NULL;
    return kure_cuda_batch_make(batches, KURE_CUDA_sum, NULL, 0, 0, owner, error);
}

void kure_cuda_batches_free(struct kure_cuda_batch **batches, int n)
{
    (void)batches, (void)n;
}

void kure_cuda_batch_free(struct kure_cuda_batch *batch)
{
    (void)batch;
}

struct kure_cuda_arguments *kure_cuda_batch_arguments(struct kure_cuda_batch *batch)
{
    (void)batch;
    return NULL;
}

void *kure_cuda_batch_results(const struct kure_cuda_batch *batch)
{
    (void)batch;
    return NULL;
}

const void *kure_cuda_batch_results_there(const struct kure_cuda_batch *batch)
{
    (void)batch;
    return NULL;
}

static enum kure_status fail(struct kure_error *error)
{
    if (error) snprintf(error->text, sizeof error->text, "this program was built without GPU=1");
    return KURE_ERROR_INPUT;
}

enum kure_status kure_cuda_batch_run(struct kure_cuda_batch *batch, int what, void *stream, struct kure_error *error)
{
    (void)batch, (void)what, (void)stream;
    return fail(error);
}

enum kure_status kure_cuda_batch_send(struct kure_cuda_batch *batch, void *stream, struct kure_error *error)
{
    (void)batch, (void)stream;
    return fail(error);
}

enum kure_status kure_cuda_batch_launch(struct kure_cuda_batch *batch, size_t first, size_t count, size_t turn, void *stream,
                                        struct kure_error *error)
{
    (void)batch, (void)first, (void)count, (void)turn, (void)stream;
    return fail(error);
}

enum kure_status kure_cuda_batch_fetch(struct kure_cuda_batch *batch, void *stream, struct kure_error *error)
{
    (void)batch, (void)stream;
    return fail(error);
}
