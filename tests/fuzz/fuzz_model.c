/* fuzz_model.c: any bytes as model.kure; see fuzz.h. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "kure_runtime.h"

enum { MOST_ARENA = 1 << 20, MOST_STEPS = 1 << 22 };

static void put(uint8_t *p, uint32_t word)
{
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(word >> 8 * i);
}

void fuzz_seal(uint8_t *data, size_t size)
{
    if (size < KURE_MODEL_HEADER_BYTES) return;
    uint32_t crc = UINT32_MAX;
    put(data + 8 + 4 * KURE_HEADER_FILE_BYTES, (uint32_t)size);
    for (size_t i = 16; i < size; i++) {
        crc ^= data[i];
        for (int k = 0; k < 8; k++) crc = crc >> 1 ^ (0xedb88320u & (0 - (crc & 1)));
    }
    put(data + 8 + 4 * KURE_HEADER_CHECKSUM, ~crc);
}

/* Not more steps than a test may take: a file may ask for any number of them. */
static int is_short(const struct kure_model *m)
{
    uint64_t steps = 0;
    for (uint32_t i = 0; i < m->layer_count; i++) {
        struct kure_model_layer l = kure_runtime_layer(m, i);
        struct kure_model_tensor in = kure_runtime_tensor(m, kure_runtime_input(m, &l, 0)), out = kure_runtime_tensor(m, i + 1);
        uint64_t each = l.row ? l.row : l.kind == KURE_KIND_MAXPOOL ? (uint64_t)in.height * in.width : 1;
        steps += out.elements * each + in.elements;
    }
    return steps <= MOST_STEPS;
}

static void run(const struct kure_model *m)
{
    size_t arena_bytes = kure_runtime_arena_bytes(m), n = kure_runtime_tensor(m, 0).elements;
    if (arena_bytes > MOST_ARENA || !is_short(m)) return;
    uint8_t *arena = malloc(arena_bytes), *pixels = malloc(n);
    int8_t *codes = malloc(n);
    float *values = malloc(arena_bytes * sizeof *values);
    if (!arena || !pixels || !codes || !values) abort();
    for (size_t i = 0; i < n; i++) pixels[i] = (uint8_t)(37 * i);
    for (size_t i = 0; i < n; i++) values[i] = (float)((int)(91 * i % 255) - 127) / 128;
    kure_runtime_quantize(m, values, codes);
    if (kure_runtime_pixels(m, pixels, codes) == KURE_RUNTIME_NO_PIXELS) memcpy(codes, pixels, n);
    if (kure_runtime_run(m, arena, arena_bytes, codes) != KURE_RUNTIME_OK) abort();
    for (uint32_t t = 0; t <= m->layer_count; t++) {
        struct kure_model_tensor tensor = kure_runtime_tensor(m, t);
        const int8_t *out = kure_runtime_codes(m, arena, t);
        kure_runtime_dequantize(m, t, out, values);
        for (uint32_t i = 0; tensor.last_reader == m->layer_count && i < tensor.elements; i++) {
            if (out[i] < tensor.low || out[i] > tensor.high) abort(); /* no layer leaves the limits */
        }
    }
    free(values);
    free(codes);
    free(pixels);
    free(arena);
}

int fuzz_open(const uint8_t *data, size_t size, int sealed)
{
    struct kure_model model;
    struct kure_runtime_error error;
    uint8_t *copy = malloc(size ? size : 1); /* as long as the file: what lies behind it is guarded */
    if (!copy) abort();
    memcpy(copy, data, size);
    if (sealed) fuzz_seal(copy, size);
    enum kure_runtime_status status = kure_runtime_open(&model, copy, size, &error);
    if (status != error.status || !kure_runtime_status_text(status) || (status != KURE_RUNTIME_OK && !error.place)) abort();
    if (status == KURE_RUNTIME_OK) run(&model);
    free(copy);
    return (int)status;
}

void fuzz_model(const uint8_t *data, size_t size)
{
    fuzz_open(data, size, 1);
}
