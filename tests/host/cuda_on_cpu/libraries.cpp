/*
 * libraries.cpp: what Darknet calls of cuBLAS and cuRAND, on the CPU. Its C files are
 * compiled with CUDA's own headers, so that these are the real names and types' sizes.
 */
#include <cstddef>
#include <cstdint>

extern "C" {

int cublasCreate_v2(void **handle)
{
    *handle = nullptr;
    return 0;
}

/* Column-major C[m][n] = alpha op(A) op(B) + beta C; beta = 0: C is not read */
int cublasSgemm_v2(void *, int transpose_a, int transpose_b, int m, int n, int k, const float *alpha, const float *a, int lda,
                   const float *b, int ldb, const float *beta, float *c, int ldc)
{
    for (int j = 0; j < n; j++)
        for (int i = 0; i < m; i++) {
            double sum = 0;
            for (int p = 0; p < k; p++) {
                const float x = transpose_a ? a[(size_t)i * lda + p] : a[(size_t)p * lda + i];
                const float y = transpose_b ? b[(size_t)p * ldb + j] : b[(size_t)j * ldb + p];
                sum += (double)x * y;
            }
            float &out = c[(size_t)j * ldc + i];
            out = (float)(*alpha * sum + (*beta == 0 ? 0. : (double)*beta * out));
        }
    return 0;
}

static uint64_t state;

int curandCreateGenerator(void **generator, int)
{
    *generator = nullptr;
    return 0;
}

int curandSetPseudoRandomGeneratorSeed(void *, unsigned long long seed)
{
    state = seed;
    return 0;
}

/* (0, 1], as cuRAND's */
int curandGenerateUniform(void *, float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t z = state += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        x[i] = (float)((z >> 40) + 1) * 0x1p-24f;
    }
    return 0;
}
}
