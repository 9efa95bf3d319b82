/* cublas_v2.h, curand.h: enough for Darknet's headers in its .cu files; see cuda_runtime.h. */
#ifndef CURAND_ON_CPU_H
#define CURAND_ON_CPU_H
typedef struct curand_on_cpu *curandGenerator_t;
#endif
