/* device.h: memory of the GPU for test_cuda.c, which is C, and what the CPU-run counts. */
#ifndef DEVICE_H
#define DEVICE_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

void *device_make(const void *from, size_t bytes); /* NULL: CUDA refused */
void device_read(void *to, const void *from, size_t bytes);
void device_free(void *there);
const char *device_name(void); /* NULL: no GPU */

int device_is_cpu(void); /* cuda_on_cpu: the functions below mean something */
struct device_counts {
    unsigned launches, copies_up, copies_down, waits;
};
struct device_counts device_counts(void);
void device_fail_allocation(int number); /* the number-th from now on */
void device_fail_launch(int number);
void device_reverse(int on); /* threads and blocks run from the last to the first */

#ifdef __cplusplus
}
#endif
#endif
