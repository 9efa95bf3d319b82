/*
 * bench_cuda.cu: what the loops of ops.def reach of this GPU's copy bandwidth, and the time of
 * one KURE step on the weights of whole networks. make bench-gpu
 *
 *     bench_cuda               tables; status 1 where a mark is missed
 *     bench_cuda --step NAME   one number: median seconds of a KURE step on NAME's layers
 *     bench_cuda --sizes NAME  their sizes (bench_cuda_torch.py reads both)
 */
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "cuda.h"
#include "chunks.h"

static const double MARK = 0.85; /* of the copy bandwidth */
enum { ELEMENTS = 1 << 26, REPETITIONS = 31 };

static void check(cudaError_t status)
{
    if (status == cudaSuccess) return;
    fprintf(stderr, "CUDA: %s\n", cudaGetErrorString(status));
    exit(1);
}

static void check(enum kure_status status, const struct kure_error &error)
{
    if (status == KURE_OK) return;
    fprintf(stderr, "%s\n", error.text);
    exit(1);
}

static double median(std::vector<double> times)
{
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
}

/* median seconds of a call, on the GPU's clock */
template <class FUNCTION> static double seconds_of(FUNCTION function)
{
    cudaEvent_t start, stop;
    std::vector<double> times;
    check(cudaEventCreate(&start));
    check(cudaEventCreate(&stop));
    for (int i = -3; i < REPETITIONS; i++) { /* three to warm up */
        float ms;
        check(cudaEventRecord(start));
        function();
        check(cudaEventRecord(stop));
        check(cudaEventSynchronize(stop));
        check(cudaEventElapsedTime(&ms, start, stop));
        if (i >= 0) times.push_back(ms * 1e-3);
    }
    check(cudaEventDestroy(start));
    check(cudaEventDestroy(stop));
    return median(times);
}

static float *device_floats(size_t n, double scale)
{
    std::vector<float> x(n);
    unsigned long long state = 1;
    for (float &v : x) {
        float sum = 0;
        for (int k = 0; k < 4; k++) {
            state = state * 6364136223846793005ull + 1442695040888963407ull;
            sum += (float)(state >> 40) / 16777216.0f - 0.5f;
        }
        v = (float)scale * sum;
    }
    float *there;
    check(cudaMalloc(&there, n * sizeof *there));
    check(cudaMemcpy(there, x.data(), n * sizeof *there, cudaMemcpyHostToDevice));
    return there;
}

static std::vector<kure_cuda_chunk> chunks_of(const std::vector<size_t> &tensors)
{
    std::vector<kure_cuda_chunk> chunks;
    for (size_t t = 0; t < tensors.size(); t++)
        for (size_t c = 0; c < kure_chunk_count(tensors[t]); c++)
            chunks.push_back({(uint32_t)t, c * kure_chunk_size(tensors[t]), kure_chunk_length(tensors[t], c)});
    return chunks;
}

struct batch {
    struct kure_cuda_batch *b;
    batch(enum kure_cuda_op op, const std::vector<kure_cuda_chunk> &chunks, size_t tensors)
    {
        struct kure_error error;
        check(kure_cuda_batch_make(&b, op, chunks.data(), chunks.size(), tensors, "bench", &error), error);
    }
    ~batch() { kure_cuda_batch_free(b); }
    kure_cuda_arguments *arguments() { return kure_cuda_batch_arguments(b); }
    void run(int what)
    {
        struct kure_error error;
        check(kure_cuda_batch_run(b, what, NULL, &error), error);
    }
};

/* ---- each op alone ----------------------------------------------------------- */

/* bytes: read and written for an element */
static const struct {
    enum kure_cuda_op op;
    const char *name;
    int bytes;
    enum kure_rounding rounding;
} rows[] = {
    {KURE_CUDA_sum, "sum", 4, KURE_ROUNDING_HALF_EVEN},
    {KURE_CUDA_power_sums, "power_sums", 4, KURE_ROUNDING_HALF_EVEN},
    {KURE_CUDA_kurtosis_descend, "kurtosis_descend", 12, KURE_ROUNDING_HALF_EVEN},
    {KURE_CUDA_kurtosis_descend_across, "kurtosis_descend_across", 16, KURE_ROUNDING_HALF_EVEN},
    {KURE_CUDA_kurtosis_dots, "kurtosis_dots", 8, KURE_ROUNDING_HALF_EVEN},
    {KURE_CUDA_multiply, "multiply", 8, KURE_ROUNDING_HALF_EVEN},
    {KURE_CUDA_divide, "divide", 8, KURE_ROUNDING_HALF_EVEN},
    {KURE_CUDA_range, "range", 4, KURE_ROUNDING_HALF_EVEN},
    {KURE_CUDA_spread_sums, "spread_sums", 4, KURE_ROUNDING_HALF_EVEN},
    {KURE_CUDA_count_nan, "count_nan", 4, KURE_ROUNDING_HALF_EVEN},
    {KURE_CUDA_fake_quantize, "fake_quantize", 8, KURE_ROUNDING_HALF_EVEN},
    {KURE_CUDA_fake_quantize, "fake_quantize, floor", 8, KURE_ROUNDING_FLOOR},
    {KURE_CUDA_fake_quantize, "fake_quantize, stochastic", 8, KURE_ROUNDING_STOCHASTIC},
    {KURE_CUDA_range_quantize, "range_quantize", 8, KURE_ROUNDING_HALF_EVEN},
    {KURE_CUDA_quantization_sums, "quantization_sums", 4, KURE_ROUNDING_HALF_EVEN},
    {KURE_CUDA_ste_backward, "ste_backward", 12, KURE_ROUNDING_HALF_EVEN},
    {KURE_CUDA_lsq_backward, "lsq_backward", 12, KURE_ROUNDING_HALF_EVEN},
    {KURE_CUDA_pact_backward, "pact_backward", 12, KURE_ROUNDING_HALF_EVEN},
    {KURE_CUDA_fold_quantize, "fold_quantize", 8, KURE_ROUNDING_HALF_EVEN},
    {KURE_CUDA_fold_backward, "fold_backward", 16, KURE_ROUNDING_HALF_EVEN},
    {KURE_CUDA_fold_backward_sums, "fold_backward_sums", 16, KURE_ROUNDING_HALF_EVEN},
    {KURE_CUDA_rectify, "rectify", 8, KURE_ROUNDING_HALF_EVEN},
    {KURE_CUDA_rectify_backward, "rectify_backward", 12, KURE_ROUNDING_HALF_EVEN},
};

static void set(kure_cuda_arguments *a, enum kure_cuda_op op, enum kure_rounding rounding)
{
    switch (op) {
    case KURE_CUDA_power_sums:
    case KURE_CUDA_spread_sums: a->pivot.pivot = 0.001f; break;
    case KURE_CUDA_kurtosis_descend: a->descend = {{0, 0, 30, 0, 3}, 1e-6f}; break;
    case KURE_CUDA_kurtosis_descend_across:
    case KURE_CUDA_kurtosis_dots: a->across = {{0, 0, 0.003}, 1e-6, 0.1}; break;
    case KURE_CUDA_fake_quantize:
    case KURE_CUDA_quantization_sums:
    case KURE_CUDA_range_quantize:
    case KURE_CUDA_ste_backward:
    case KURE_CUDA_lsq_backward:
    case KURE_CUDA_fold_quantize:
    case KURE_CUDA_fold_backward:
    case KURE_CUDA_fold_backward_sums:
        a->fold = {{{0.01f, -7, 7, 0}, rounding, {1, 2, 0}}, 1.2f, 1.2f, 1};
        break;
    default: a->factor = a->cap = 0.5f;
    }
}

static int bench_ops(void)
{
    float *x = device_floats(ELEMENTS, 0.05), *y = device_floats(ELEMENTS, 0.05), *dy = device_floats(ELEMENTS, 0.05);
    const double copied = 2. * ELEMENTS * sizeof *x;
    const double copy = copied / seconds_of([&] { check(cudaMemcpyAsync(y, x, ELEMENTS * sizeof *x, cudaMemcpyDeviceToDevice)); });
    const std::vector<kure_cuda_chunk> chunks = chunks_of({ELEMENTS});
    int missed = 0;
    printf("%-28s %6.0f GB/s\n", "copy on the device", copy * 1e-9);
    for (const auto &row : rows) {
        batch b(row.op, chunks, 1);
        set(b.arguments(), row.op, row.rounding);
        b.arguments()->x = b.arguments()->w = x;
        b.arguments()->dy = dy;
        b.arguments()->y = b.arguments()->dx = y;
        b.run(KURE_CUDA_SEND);
        const double rate = (double)row.bytes * ELEMENTS / seconds_of([&] { b.run(0); });
        const int misses = rate < MARK * copy;
        printf("%-28s %6.0f GB/s, %2d bytes an element, %3.0f %% of the copy: %s\n", row.name, rate * 1e-9, row.bytes, 100 * rate / copy,
               misses ? "MISSED" : "OK");
        missed |= misses;
    }
    cudaFree(x);
    cudaFree(y);
    cudaFree(dy);
    return missed;
}

/* ---- a KURE step on all layers --------------------------------------------------- */

/* Convolutions of size 3 after one of size 1 or 3, as [outputs][inputs * size^2]. */
static std::vector<size_t> layers_of(const char *name)
{
    std::vector<size_t> sizes;
    auto conv = [&](size_t from, size_t to, size_t size) { sizes.push_back(from * to * size * size); };
    if (strcmp(name, "yolov3-tiny") == 0) {
        for (size_t c = 16; c <= 512; c *= 2) conv(c, 2 * c, 3);
        conv(1024, 256, 1), conv(256, 512, 3), conv(512, 255, 1), conv(256, 128, 1), conv(384, 256, 3), conv(256, 255, 1);
    } else if (strcmp(name, "yolov3") == 0) {
        static const int repeats[] = {1, 2, 8, 8, 4};
        size_t c = 32;
        for (int n : repeats) {
            conv(c, 2 * c, 3);
            for (c *= 2; n > 0; n--) conv(c, c / 2, 1), conv(c / 2, c, 3);
        }
        for (c = 512; c >= 128; c /= 2) { /* the three heads */
            conv(c == 512 ? 1024 : 3 * c, c, 1), conv(c, 2 * c, 3), conv(2 * c, c, 1), conv(c, 2 * c, 3), conv(2 * c, c, 1), conv(c, 2 * c, 3);
            conv(2 * c, 255, 1);
            if (c > 128) conv(c, c / 2, 1);
        }
    } else if (strcmp(name, "resnet50") == 0) {
        static const int repeats[] = {3, 4, 6, 3};
        size_t in = 64, c = 64;
        for (int n : repeats) {
            conv(in, 4 * c, 1);
            for (; n > 0; n--) conv(in, c, 1), conv(c, c, 3), conv(c, 4 * c, 1), in = 4 * c;
            c *= 2;
        }
    }
    return sizes;
}

static double step_of(const char *name, size_t *weights)
{
    const std::vector<size_t> sizes = layers_of(name);
    const std::vector<kure_cuda_chunk> chunks = chunks_of(sizes);
    std::vector<kure_cuda_chunk> firsts;
    *weights = 0;
    for (size_t t = 0; t < sizes.size(); t++) {
        *weights += sizes[t];
        firsts.push_back({(uint32_t)t, 0, kure_chunk_length(sizes[t], 0)});
    }
    float *w = device_floats(*weights, 0.05), *u = device_floats(*weights, 0.01);
    batch sums(KURE_CUDA_sum, firsts, sizes.size()), powers(KURE_CUDA_power_sums, chunks, sizes.size());
    batch descent(KURE_CUDA_kurtosis_descend, chunks, sizes.size());
    size_t at = 0;
    for (size_t t = 0; t < sizes.size(); at += sizes[t++]) {
        kure_cuda_arguments *a[] = {sums.arguments() + t, powers.arguments() + t, descent.arguments() + t};
        a[0]->x = a[1]->x = a[2]->x = w + at;
        a[1]->pivot.first = firsts[t].n;
        a[1]->pivot.sum = (const double *)kure_cuda_batch_results_there(sums.b) + t;
        a[2]->dx = u + at;
        set(a[2], KURE_CUDA_kurtosis_descend, KURE_ROUNDING_HALF_EVEN);
    }
    sums.run(KURE_CUDA_SEND);
    powers.run(KURE_CUDA_SEND);
    const double seconds = seconds_of([&] {
        sums.run(0);
        powers.run(KURE_CUDA_FETCH);
        descent.run(KURE_CUDA_SEND);
    });
    cudaFree(w);
    cudaFree(u);
    return seconds;
}

int main(int argc, char **argv)
{
    static const char *const networks[] = {"yolov3-tiny", "resnet50", "yolov3"};
    cudaDeviceProp properties;
    size_t weights;
    if (argc == 3 && layers_of(argv[2]).empty()) {
        fprintf(stderr, "bench_cuda: no network '%s'\n", argv[2]);
        return 2;
    }
    if (argc == 3 && strcmp(argv[1], "--sizes") == 0) {
        for (size_t n : layers_of(argv[2])) printf("%zu\n", n);
        return 0;
    }
    check(cudaGetDeviceProperties(&properties, 0));
    if (argc == 3 && strcmp(argv[1], "--step") == 0) {
        printf("%.9f\n", step_of(argv[2], &weights));
        return 0;
    }
    printf("%s, %d elements, medians of %d\n", properties.name, (int)ELEMENTS, (int)REPETITIONS);
    const int missed = bench_ops();
    for (const char *name : networks) {
        const double seconds = step_of(name, &weights);
        printf("%-12s %9zu weights in %3zu layers: loops and copies of a KURE step %.3f ms\n", name, weights, layers_of(name).size(), seconds * 1e3);
    }
    return missed;
}
