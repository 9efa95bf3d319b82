/* cublas_v2.h, curand.h: enough for Darknet's headers in its .cu files; see cuda_runtime.h. */
#ifndef CUBLAS_ON_CPU_H
#define CUBLAS_ON_CPU_H
typedef struct cublas_on_cpu *cublasHandle_t;
#endif
