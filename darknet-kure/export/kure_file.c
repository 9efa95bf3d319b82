/*
 * kure_file.c: see kure_file.h.
 *
 * Tensors lie first fit in the arena: each takes the lowest bytes that nobody needs while it
 * lives; a LOOKUP and a sum write over their input where that is not read again.
 *
 * Tested by tests/test_export.py: read by the runtime and by tests/read_bundle.py.
 */
#include "kure_file.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "bundle.h"
#include "error.h"
#include "kure_math.h"

/* ---- the arena -------------------------------------------------------------------- */

struct placed {
    uint32_t place, bytes, last_reader;
};

static void find_last_readers(const struct kure_integer_model *m, struct placed *t)
{
    for (int i = 0; i <= m->layer_count; ++i) t[i].last_reader = i ? (uint32_t)i - 1 : 0;
    for (int i = 0; i < m->layer_count; ++i) {
        for (int j = 0; j < m->layers[i].input_count; ++j) t[m->layers[i].inputs[j]].last_reader = (uint32_t)i;
    }
    for (int i = 0; i < m->output_count; ++i) t[m->outputs[i].tensor].last_reader = (uint32_t)m->layer_count;
}

/* The tensor whose place the output of layer i can take; -1: none. */
static int overwritten(const struct kure_integer_model *m, const struct placed *t, int i)
{
    const struct kure_integer_layer *l = &m->layers[i];
    if (l->kind != KURE_KIND_LOOKUP && (l->kind != KURE_KIND_ADD || l->table)) return -1;
    for (int j = 0; j < l->input_count; ++j) {
        const struct placed *in = &t[l->inputs[j]];
        if (in->last_reader == (uint32_t)i && in->bytes == t[i + 1].bytes) return l->inputs[j];
    }
    return -1;
}

/* The lowest place for tensor `number` beside those that live when layer number - 1 runs. */
static uint64_t first_fit(const struct placed *t, int number)
{
    uint64_t at = 0;
    for (int moved = 1; moved;) {
        moved = 0;
        for (int i = 0; i < number; ++i) {
            int lives = number == 0 || t[i].last_reader + 1 >= (uint32_t)number;
            if (!lives || at + t[number].bytes <= t[i].place || at >= (uint64_t)t[i].place + t[i].bytes) continue;
            at = (uint64_t)t[i].place + t[i].bytes;
            moved = 1;
        }
    }
    return at;
}

static uint64_t place_tensors(const struct kure_integer_model *m, struct placed *t)
{
    uint64_t arena = 0;
    find_last_readers(m, t);
    for (int i = 0; i <= m->layer_count; ++i) {
        t[i].bytes = (uint32_t)kure_integer_elements(&m->tensors[i]);
        int over = i ? overwritten(m, t, i - 1) : -1;
        uint64_t place = over >= 0 ? t[over].place : first_fit(t, i);
        if (place + t[i].bytes > arena) arena = place + t[i].bytes;
        if (arena > KURE_MODEL_MOST_BYTES) return arena;
        t[i].place = (uint32_t)place;
    }
    return arena;
}

/* ---- bytes --------------------------------------------------------------------------- */

/* A file that grows: with data = NULL only its size. */
struct bytes {
    unsigned char *data;
    size_t size;
};

static void put_word(struct bytes *b, size_t at, uint32_t word)
{
    if (!b->data) return;
    for (int i = 0; i < 4; ++i) b->data[at + (size_t)i] = (unsigned char)(word >> 8 * i);
}

/* Room for n bytes behind the last ones, aligned to 4; its offset */
static uint32_t reserve(struct bytes *b, size_t n)
{
    size_t at = (b->size + 3) / 4 * 4;
    b->size = at + n;
    return (uint32_t)at;
}

static uint32_t put_codes(struct bytes *b, const int8_t *codes, size_t n)
{
    uint32_t at = reserve(b, n);
    if (b->data) memcpy(b->data + at, codes, n);
    return at;
}

/* Two codes a byte, the first in the low half */
static uint32_t put_nibbles(struct bytes *b, const int8_t *codes, size_t n)
{
    uint32_t at = reserve(b, (n + 1) / 2);
    for (size_t i = 0; b->data && i < n; ++i) b->data[at + i / 2] |= (unsigned char)((codes[i] & 15) << (i % 2 ? 4 : 0));
    return at;
}

static uint32_t put_words(struct bytes *b, const void *words, size_t n)
{
    uint32_t at = reserve(b, 4 * n);
    for (size_t i = 0; b->data && i < n; ++i) {
        uint32_t word;
        memcpy(&word, (const char *)words + 4 * i, 4);
        put_word(b, at + 4 * i, word);
    }
    return at;
}

/* ---- records --------------------------------------------------------------------------- */

static void put_tensor(struct bytes *b, size_t at, const struct kure_integer_tensor *t, const struct placed *placed)
{
    const uint32_t words[KURE_TENSOR_WORDS] = {
        [KURE_TENSOR_CHANNELS] = (uint32_t)t->channels, [KURE_TENSOR_HEIGHT] = (uint32_t)t->height, [KURE_TENSOR_WIDTH] = (uint32_t)t->width,
        [KURE_TENSOR_PLACE] = placed->place, [KURE_TENSOR_SCALE] = kure_bits(t->scale), [KURE_TENSOR_ZERO_POINT] = (uint32_t)t->zero_point,
        [KURE_TENSOR_LOW] = (uint32_t)t->low, [KURE_TENSOR_HIGH] = (uint32_t)t->high, [KURE_TENSOR_BITS] = (uint32_t)t->bits,
        [KURE_TENSOR_LAST_READER] = placed->last_reader};
    for (size_t i = 0; i < KURE_TENSOR_WORDS; ++i) put_word(b, at + 4 * i, words[i]);
    if (b->data) memcpy(b->data + at + 4 * KURE_TENSOR_WORDS, t->name, KURE_INTEGER_NAME);
}

static void put_layer(struct bytes *b, size_t at, const struct kure_integer_layer *l)
{
    size_t weights = (size_t)l->rows * (size_t)l->row;
    uint32_t words[KURE_LAYER_WORDS] = {
        [KURE_LAYER_KIND] = (uint32_t)l->kind, [KURE_LAYER_SOURCE] = (uint32_t)l->source, [KURE_LAYER_ARITHMETIC] = (uint32_t)l->arithmetic,
        [KURE_LAYER_INPUT_COUNT] = (uint32_t)l->input_count, [KURE_LAYER_SIZE] = (uint32_t)l->size, [KURE_LAYER_STRIDE] = (uint32_t)l->stride,
        [KURE_LAYER_PADDING] = (uint32_t)l->padding, [KURE_LAYER_GROUPS] = (uint32_t)l->groups, [KURE_LAYER_WEIGHT_BITS] = (uint32_t)l->stored_bits};
    words[KURE_LAYER_INPUTS] = put_words(b, l->inputs, (size_t)l->input_count);
    if (l->rows) {
        words[KURE_LAYER_WEIGHTS] = l->stored_bits == 4 ? put_nibbles(b, l->codes, weights) : put_codes(b, l->codes, weights);
        words[KURE_LAYER_MULTIPLIERS] = put_words(b, l->multipliers, 2 * (size_t)l->rows);
        if (l->bias_codes) words[KURE_LAYER_BIASES] = put_words(b, l->bias_codes, (size_t)l->rows);
    }
    if (l->table) words[KURE_LAYER_TABLE] = put_codes(b, l->table, 256);
    for (size_t i = 0; i < 10; ++i) words[KURE_LAYER_PARAMETER + i] = l->parameter[i];
    for (size_t i = 0; i < KURE_LAYER_WORDS; ++i) put_word(b, at + 4 * i, words[i]);
}

/* The whole file, twice: for its size, then for its bytes. */
static void put_model(struct bytes *b, const struct kure_integer_model *m, const struct placed *placed, uint64_t arena)
{
    size_t n = (size_t)m->layer_count, tensors = KURE_MODEL_HEADER_BYTES, layers = tensors + (n + 1) * KURE_MODEL_TENSOR_BYTES;
    size_t outputs = layers + n * KURE_MODEL_LAYER_BYTES;
    b->size = outputs + 4 * (size_t)m->output_count;
    for (size_t i = 0; i <= n; ++i) put_tensor(b, tensors + i * KURE_MODEL_TENSOR_BYTES, &m->tensors[i], &placed[i]);
    for (size_t i = 0; i < n; ++i) put_layer(b, layers + i * KURE_MODEL_LAYER_BYTES, &m->layers[i]);
    for (size_t i = 0; i < (size_t)m->output_count; ++i) put_word(b, outputs + 4 * i, (uint32_t)m->outputs[i].tensor);
    uint32_t pixels = put_codes(b, m->pixels, 256);
    const uint32_t words[KURE_HEADER_WORDS] = {
        [KURE_HEADER_VERSION] = KURE_MODEL_VERSION, [KURE_HEADER_FILE_BYTES] = (uint32_t)b->size, [KURE_HEADER_LAYER_COUNT] = (uint32_t)n,
        [KURE_HEADER_TENSORS] = (uint32_t)tensors, [KURE_HEADER_LAYERS] = (uint32_t)layers, [KURE_HEADER_OUTPUTS] = (uint32_t)outputs,
        [KURE_HEADER_OUTPUT_COUNT] = (uint32_t)m->output_count, [KURE_HEADER_ARENA_BYTES] = (uint32_t)arena,
        [KURE_HEADER_INPUT_ROUNDING] = (uint32_t)m->input_rounding, [KURE_HEADER_INPUT_FACTOR] = kure_bits(m->input_factor),
        [KURE_HEADER_PIXEL_TABLE] = pixels};
    for (size_t i = 0; i < KURE_HEADER_WORDS; ++i) put_word(b, 8 + 4 * i, words[i]);
    if (!b->data) return;
    memcpy(b->data, KURE_MODEL_MAGIC, 8);
    memcpy(b->data + 8 + 4 * KURE_HEADER_WORDS, m->profile, KURE_INTEGER_NAME);
    put_word(b, 8 + 4 * KURE_HEADER_CHECKSUM, (uint32_t)crc32(0, b->data + 16, (uInt)(b->size - 16)));
}

enum kure_status kure_model_file_make(struct kure_integer_model *m, struct kure_error *error)
{
    struct placed *placed = calloc((size_t)m->layer_count + 1, sizeof *placed);
    struct bytes b = {NULL, 0};
    if (!placed) return kure_fail_memory(error);
    uint64_t arena = place_tensors(m, placed);
    put_model(&b, m, placed, arena);
    if (arena <= KURE_MODEL_MOST_BYTES && b.size <= KURE_MODEL_MOST_BYTES) b.data = calloc(b.size, 1);
    if (b.data) put_model(&b, m, placed, arena);
    free(placed);
    if (arena > KURE_MODEL_MOST_BYTES || b.size > KURE_MODEL_MOST_BYTES) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s: the integer model takes %zu bytes and its activations %llu: model.kure holds up to %d of each", m->cfg,
                         b.size, (unsigned long long)arena, (int)KURE_MODEL_MOST_BYTES);
    }
    if (!b.data) return kure_fail_memory(error);
    struct kure_model opened;
    struct kure_runtime_error what;
    m->file = b.data;
    m->file_bytes = b.size;
    if (kure_runtime_open(&opened, m->file, m->file_bytes, &what) == KURE_RUNTIME_OK) return KURE_OK;
    int source = strcmp(what.place, "layer") == 0 ? m->layers[what.index].source : -1;
    char path[4200];
    snprintf(path, sizeof path, source >= 0 ? "%s: layer %d as integers" : "%s: as integers", m->cfg, source);
    return kure_model_file_fail(path, &what, error);
}

enum kure_status kure_model_file_fail(const char *path, const struct kure_runtime_error *e, struct kure_error *error)
{
    char place[64] = "";
    const char *text = kure_runtime_status_text(e->status), *field = e->field ? e->field : "";
    int numbered = e->status >= KURE_RUNTIME_RANGE && strcmp(e->place, "header") != 0;
    if (numbered) snprintf(place, sizeof place, "%s %u: ", e->place, e->index);
    else if (e->status >= KURE_RUNTIME_RANGE) snprintf(place, sizeof place, "%s: ", e->place);
    long long value = e->value, least = e->least, most = e->most;
    if (e->status == KURE_RUNTIME_CUT) return kure_fail(error, KURE_ERROR_INPUT, "%s: %s: %lld bytes, must be %lld", path, text, value, least);
    if (e->status == KURE_RUNTIME_NEWER) return kure_fail(error, KURE_ERROR_INPUT, "%s: %s: %lld, it knows %lld", path, text, value, most);
    if (e->status < KURE_RUNTIME_RANGE) return kure_fail(error, KURE_ERROR_INPUT, "%s: %s", path, text);
    if (e->status == KURE_RUNTIME_ORDER || e->status == KURE_RUNTIME_OVERFLOW) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s: %s%s: %s %lld", path, place, text, field, value);
    }
    if (least > most) return kure_fail(error, KURE_ERROR_INPUT, "%s: %s%s is 0x%08llx, no float32 number that it may be", path, place, field, value);
    return kure_fail(error, KURE_ERROR_INPUT, "%s: %s%s is %lld, must be %lld..%lld", path, place, field, value, least, most);
}

enum kure_status kure_write_model_file(const struct kure_integer_model *model, const char *folder, struct kure_error *error)
{
    return kure_bundle_write(folder, "model.kure", model->file, model->file_bytes, error);
}
