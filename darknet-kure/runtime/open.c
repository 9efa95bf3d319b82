/*
 * open.c: reads a model file with suspicion: header, tensors, layers, and who lies where
 * in the arena when.
 *
 * Tested by tests/test_runtime_files.py; fuzzed by tests/fuzz/fuzz_model.c.
 */
#include "kinds.h"

#include <string.h>

static void set_place(struct kure_check *c, const char *place, uint32_t index)
{
    c->error->place = place;
    c->error->index = index;
}

/* CRC-32 as zlib computes it, half a byte at a time */
static uint32_t crc32_of(const uint8_t *bytes, size_t n)
{
    uint32_t table[16], crc = UINT32_MAX;
    for (uint32_t i = 0; i < 16; i++) {
        uint32_t x = i;
        for (int k = 0; k < 4; k++) x = x >> 1 ^ (0xedb88320u & (0 - (x & 1)));
        table[i] = x;
    }
    for (size_t i = 0; i < n; i++) {
        crc ^= bytes[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

static int has_magic(const uint8_t *bytes)
{
    static const char magic[] = KURE_MODEL_MAGIC;
    for (int i = 0; i < 8; i++) {
        if (bytes[i] != (uint8_t)magic[i]) return 0;
    }
    return 1;
}

/* 1 where text[n] ends with a 0 */
static int is_text(const uint8_t *text, size_t n)
{
    return text[n - 1] == 0;
}

static enum kure_runtime_status check_float(struct kure_check *c, const char *field, enum kure_word_type type, uint32_t word)
{
    int64_t least, most;
    return kure_word_fits(type, word, &least, &most) ? KURE_RUNTIME_OK : kure_check_fail(c, KURE_RUNTIME_RANGE, field, word, least, most);
}

/* ---- header ------------------------------------------------------------------ */

static enum kure_runtime_status check_header(struct kure_check *c, size_t size)
{
    struct kure_model *m = c->model;
    set_place(c, "header", 0);
    if (size < 8 || !has_magic(m->bytes)) return kure_check_fail(c, KURE_RUNTIME_NOT_A_MODEL, NULL, 0, 0, 0);
    if (size < 16 + 4) return kure_check_fail(c, KURE_RUNTIME_CUT, "file_bytes", (int64_t)size, KURE_MODEL_HEADER_BYTES, KURE_MODEL_MOST_BYTES);
    uint32_t version = kure_header_word(m, KURE_HEADER_VERSION);
    if (version > KURE_MODEL_VERSION) return kure_check_fail(c, KURE_RUNTIME_NEWER, "version", version, 1, KURE_MODEL_VERSION);
    KURE_TRY(kure_check_range(c, "version", version, 1, KURE_MODEL_VERSION));
    m->file_bytes = kure_header_word(m, KURE_HEADER_FILE_BYTES);
    if (m->file_bytes != size || size < KURE_MODEL_HEADER_BYTES || size > KURE_MODEL_MOST_BYTES) {
        return kure_check_fail(c, KURE_RUNTIME_CUT, "file_bytes", (int64_t)size, m->file_bytes, m->file_bytes);
    }
    uint32_t crc = crc32_of(m->bytes + 16, size - 16), stored = kure_header_word(m, KURE_HEADER_CHECKSUM);
    if (crc != stored) return kure_check_fail(c, KURE_RUNTIME_CHECKSUM, "checksum", crc, stored, stored);

    m->layer_count = kure_header_word(m, KURE_HEADER_LAYER_COUNT);
    m->tensors = kure_header_word(m, KURE_HEADER_TENSORS);
    m->layers = kure_header_word(m, KURE_HEADER_LAYERS);
    m->outputs = kure_header_word(m, KURE_HEADER_OUTPUTS);
    m->output_count = kure_header_word(m, KURE_HEADER_OUTPUT_COUNT);
    m->activation_bytes = kure_header_word(m, KURE_HEADER_ARENA_BYTES);
    KURE_TRY(kure_check_range(c, "layer_count", m->layer_count, 1, KURE_MODEL_MOST_LAYERS));
    KURE_TRY(kure_check_range(c, "output_count", m->output_count, 1, m->layer_count));
    KURE_TRY(kure_check_array(c, "tensors", m->tensors, (m->layer_count + 1) * (uint64_t)KURE_MODEL_TENSOR_BYTES));
    KURE_TRY(kure_check_array(c, "layers", m->layers, m->layer_count * (uint64_t)KURE_MODEL_LAYER_BYTES));
    KURE_TRY(kure_check_array(c, "outputs", m->outputs, m->output_count * (uint64_t)4));
    KURE_TRY(kure_check_range(c, "arena_bytes", m->activation_bytes, 1, KURE_MODEL_MOST_BYTES));
    KURE_TRY(kure_check_range(c, "input_rounding", kure_header_word(m, KURE_HEADER_INPUT_ROUNDING), 0, KURE_INPUT_ROUNDINGS - 1));
    KURE_TRY(check_float(c, "input_factor", KURE_WORD_FACTOR, kure_header_word(m, KURE_HEADER_INPUT_FACTOR)));
    uint32_t pixels = kure_header_word(m, KURE_HEADER_PIXEL_TABLE);
    if (pixels) KURE_TRY(kure_check_array(c, "pixel_table", pixels, 256));
    for (int i = KURE_HEADER_UNUSED_12; i < KURE_HEADER_WORDS; i++) {
        KURE_TRY(kure_check_range(c, "unused word", kure_header_word(m, (enum kure_header_word)i), 0, 0));
    }
    return kure_check_range(c, "end of the profile's name", is_text(m->bytes + 72, 24), 1, 1);
}

/* ---- tensors ------------------------------------------------------------------ */

static enum kure_runtime_status check_tensor(struct kure_check *c, uint32_t i)
{
    const struct kure_model *m = c->model;
    set_place(c, "tensor", i);
    struct kure_model_tensor t = kure_runtime_tensor(m, i);
    KURE_TRY(kure_check_range(c, "channels", t.channels, 1, KURE_MODEL_MOST_EDGE));
    KURE_TRY(kure_check_range(c, "height", t.height, 1, KURE_MODEL_MOST_EDGE));
    KURE_TRY(kure_check_range(c, "width", t.width, 1, KURE_MODEL_MOST_EDGE));
    KURE_TRY(kure_check_range(c, "elements", (int64_t)t.channels * t.height * t.width, 1, KURE_MODEL_MOST_ELEMENTS));
    if (t.place > m->activation_bytes || t.elements > m->activation_bytes - t.place) {
        return kure_check_fail(c, KURE_RUNTIME_OUTSIDE, "place", t.place, 0, (int64_t)m->activation_bytes - t.elements);
    }
    KURE_TRY(check_float(c, "scale", KURE_WORD_FACTOR, t.scale_bits));
    KURE_TRY(kure_check_range(c, "bits", t.bits, 2, 8));
    int32_t half = 1 << (t.bits - 1);
    KURE_TRY(kure_check_range(c, "low", t.low, -half, half - 1));
    KURE_TRY(kure_check_range(c, "high", t.high, t.low, half - 1));
    KURE_TRY(kure_check_range(c, "zero_point", t.zero_point, -half, half - 1));
    KURE_TRY(kure_check_range(c, "last_reader", t.last_reader, i ? i - 1 : 0, m->layer_count));
    return kure_check_range(c, "end of the name", is_text((const uint8_t *)t.name, 24), 1, 1);
}

/* Every pixel's code is one of the input. */
static enum kure_runtime_status check_pixels(struct kure_check *c)
{
    uint32_t table = kure_header_word(c->model, KURE_HEADER_PIXEL_TABLE);
    struct kure_model_tensor input = kure_runtime_tensor(c->model, 0);
    set_place(c, "header", 0);
    for (int i = 0; table && i < 256; i++) {
        KURE_TRY(kure_check_range(c, "code of pixel_table", kure_array_codes(c->model, table)[i], input.low, input.high));
    }
    return KURE_RUNTIME_OK;
}

/* May the output of layer i take the place of input a, which it reads last? */
static int may_replace(const struct kure_placed_layer *v)
{
    int same = v->a.channels == v->b.channels && v->a.height == v->b.height && v->a.width == v->b.width;
    return v->a.place == v->out.place && (v->l.kind == KURE_KIND_LOOKUP || (v->l.kind == KURE_KIND_ADD && same));
}

/* No tensor that is still to be read lies on the bytes that layer i writes. */
static enum kure_runtime_status check_places(struct kure_check *c, const struct kure_placed_layer *v)
{
    uint32_t layer = v->l.number;
    for (uint32_t t = 0; t <= layer; t++) {
        struct kure_model_tensor other = kure_runtime_tensor(c->model, t);
        int apart = other.place >= v->out.place + v->out.elements || v->out.place >= other.place + other.elements;
        if (apart || other.last_reader < layer) continue;
        int replaces = other.last_reader == layer && other.place == v->out.place && other.elements == v->out.elements && may_replace(v);
        if (!replaces) return kure_check_fail(c, KURE_RUNTIME_ORDER, "tensor that the output overwrites", t, 0, 0);
    }
    return KURE_RUNTIME_OK;
}

/* ---- layers -------------------------------------------------------------------- */

static enum kure_runtime_status check_inputs(struct kure_check *c, const struct kure_model_layer *l)
{
    const struct kure_kind_row *kind = &kure_kind_rows[l->kind];
    KURE_TRY(kure_check_range(c, "input_count", l->input_count, kind->least_inputs, kind->most_inputs));
    KURE_TRY(kure_check_array(c, "inputs", l->inputs, 4 * (uint64_t)l->input_count));
    for (uint32_t i = 0; i < l->input_count; i++) {
        uint32_t input = kure_runtime_input(c->model, l, i);
        if (input > l->number) return kure_check_fail(c, KURE_RUNTIME_ORDER, "input", input, 0, l->number);
        uint32_t last = kure_runtime_tensor(c->model, input).last_reader;
        if (last < l->number) return kure_check_fail(c, KURE_RUNTIME_ORDER, "input whose last_reader is earlier", input, 0, 0);
    }
    return KURE_RUNTIME_OK;
}

static enum kure_runtime_status check_moved(struct kure_check *c, const struct kure_placed_layer *v)
{
    for (uint32_t i = 0; i < v->l.input_count; i++) {
        struct kure_model_tensor in = kure_runtime_tensor(c->model, kure_runtime_input(c->model, &v->l, i));
        KURE_TRY(kure_check_shape(c, "scale of the output, as bits", v->out.scale_bits, in.scale_bits));
        KURE_TRY(kure_check_shape(c, "zero point of the output", v->out.zero_point, in.zero_point));
        KURE_TRY(kure_check_range(c, "low of the output", v->out.low, -128, in.low));
        KURE_TRY(kure_check_range(c, "high of the output", v->out.high, in.high, 127));
    }
    return KURE_RUNTIME_OK;
}

static enum kure_runtime_status check_layer(struct kure_check *c, uint32_t i)
{
    struct kure_model *m = c->model;
    struct kure_placed_layer v;
    uint32_t at = m->layers + i * (uint32_t)KURE_MODEL_LAYER_BYTES;
    set_place(c, "layer", i);
    KURE_TRY(kure_check_range(c, "kind", kure_array_word(m, at, KURE_LAYER_KIND), 1, KURE_KINDS - 1));
    const struct kure_kind_row *kind = &kure_kind_rows[kure_array_word(m, at, KURE_LAYER_KIND)];
    for (uint32_t w = 0; w < KURE_LAYER_WORDS; w++) {
        if (!(kind->used >> w & 1)) KURE_TRY(kure_check_range(c, "word that this kind does not use", kure_array_word(m, at, w), 0, 0));
    }
    uint32_t arithmetic = kure_array_word(m, at, KURE_LAYER_ARITHMETIC);
    if (kind->computes) KURE_TRY(kure_check_range(c, "arithmetic", arithmetic, 1, KURE_ARITHMETICS - 1));
    struct kure_model_layer l = kure_layer_words(m, i);
    KURE_TRY(check_inputs(c, &l));
    kure_layer_see(m, i, &v);
    if (kind->moves) KURE_TRY(check_moved(c, &v));
    KURE_TRY(kind->check(c, &v));
    KURE_TRY(check_places(c, &v));
    uint64_t work = kind->work ? kind->work(&v) : 0;
    KURE_TRY(kure_check_range(c, "working space", (int64_t)work, 0, KURE_MODEL_MOST_BYTES - 3));
    if (work > m->work_bytes) m->work_bytes = (uint32_t)work;
    return KURE_RUNTIME_OK;
}

static enum kure_runtime_status check_outputs(struct kure_check *c)
{
    for (uint32_t i = 0; i < c->model->output_count; i++) {
        set_place(c, "output", i);
        KURE_TRY(kure_check_range(c, "tensor", kure_runtime_output(c->model, i), 1, c->model->layer_count));
        uint32_t last = kure_runtime_tensor(c->model, kure_runtime_output(c->model, i)).last_reader;
        KURE_TRY(kure_check_range(c, "last_reader of its tensor", last, c->model->layer_count, c->model->layer_count));
    }
    return KURE_RUNTIME_OK;
}

enum kure_runtime_status kure_runtime_open(struct kure_model *model, const void *bytes, size_t size, struct kure_runtime_error *error)
{
    struct kure_runtime_error own;
    struct kure_check c = {model, error ? error : &own};
    memset(model, 0, sizeof *model);
    memset(c.error, 0, sizeof *c.error);
    model->bytes = bytes;
    KURE_TRY(check_header(&c, size));
    for (uint32_t i = 0; i <= model->layer_count; i++) KURE_TRY(check_tensor(&c, i));
    KURE_TRY(check_pixels(&c));
    for (uint32_t i = 0; i < model->layer_count; i++) KURE_TRY(check_layer(&c, i));
    return check_outputs(&c);
}
