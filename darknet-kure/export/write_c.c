/*
 * write_c.c: the model as C99 source: c/model.c, c/model.h, c/golden.c, and the two headers that they need.
 *
 * model.c holds constants and a list of calls; the layers are c_layers.h, the arithmetic is
 * kure_intmath.h, both as they stand in this project. Weights lie as CMSIS-NN wants them: s8, or
 * s4 with the first code of a byte in its low half and filters without padding between them.
 *
 * Tested by tests/test_clients_c.py.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bundle.h"
#include "error.h"
#include "formats.h"
#include "window.h"
#include <c_files.h>

/* The bodies of model_requantize, model_add and model_mean, by arithmetic; S(x): a signed word, F(x): a float32 one. */
#define FLOAT_STEP(words) "const struct kure_float_step f = {" words ", F(p[2]), F(p[3])}; "
#define FIXED_ADD "const struct kure_fixed_add f = {S(p[0]), S(p[2]), S(p[4]), S(p[1]), S(p[3]), S(p[5]), S(p[6])}; "
static const struct {
    const char *requantize, *add, *mean;
} bodies[KURE_ARITHMETICS] = {
    [KURE_ARITHMETIC_NONE] = {"return x;", "return a + b;", "return x;"}, /* no layer calls them */
    [KURE_ARITHMETIC_FLOAT32] = {"return kure_requantize_float32(x, F(m[0]));", "return kure_add_float32(a, b, F(p[0]), F(p[1]), F(p[2]), z);",
                                 "return kure_requantize_float32(x, F(p[0]));"},
    [KURE_ARITHMETIC_FLOAT32_MULTIPLIED] = {FLOAT_STEP("F(m[0]), F(m[1])") "return kure_requantize_multiplied(x, &f);",
                                            FLOAT_STEP("F(p[0]), F(p[1])") "return kure_add_multiplied(a - za, b - zb, &f);",
                                            FLOAT_STEP("F(p[0]), F(p[1])") "return kure_requantize_multiplied(x, &f);"},
    [KURE_ARITHMETIC_FLOAT32_DIVIDED] = {FLOAT_STEP("F(m[0]), F(m[1])") "return kure_requantize_divided(x, &f);",
                                         FLOAT_STEP("F(p[0]), F(p[1])") "return kure_add_divided(a - za, b - zb, &f);",
                                         FLOAT_STEP("F(p[0]), F(p[1])") "return kure_requantize_divided(x, &f);"},
    [KURE_ARITHMETIC_DOUBLE_ROUNDING] = {"return kure_requantize_double_rounding(x, S(m[0]), S(m[1]));",
                                         FIXED_ADD "return kure_add_double_rounding(a - za, b - zb, &f);", "return kure_mean_codes(codes, n) - z;"},
    [KURE_ARITHMETIC_SINGLE_ROUNDING] = {"return kure_requantize_single_rounding(x, S(m[0]), S(m[1]));",
                                         FIXED_ADD "return kure_add_single_rounding(a - za, b - zb, &f);", "return kure_mean_codes(codes, n) - z;"},
    [KURE_ARITHMETIC_SHIFT_HALF_UP] = {"return kure_requantize_shift(x, S(m[1]), KURE_TIES_UP);",
                                       "return kure_add_shift(a - za, b - zb, S(p[0]), S(p[1]), S(p[2]), KURE_TIES_UP);",
                                       "return kure_mean_shift(x, n, S(p[1]), KURE_TIES_UP);"},
    [KURE_ARITHMETIC_SHIFT_HALF_AWAY] = {"return kure_requantize_shift(x, S(m[1]), KURE_TIES_AWAY);",
                                         "return kure_add_shift(a - za, b - zb, S(p[0]), S(p[1]), S(p[2]), KURE_TIES_AWAY);",
                                         "return kure_mean_shift(x, n, S(p[1]), KURE_TIES_AWAY);"},
};

struct writer {
    const struct kure_integer_model *model;
    struct kure_model placed; /* model.kure: where tensors lie */
    FILE *file;
};

static const struct kure_integer_tensor *tensor(const struct writer *w, int t)
{
    return &w->model->tensors[t];
}

static uint32_t place(const struct writer *w, int t)
{
    return kure_runtime_tensor(&w->placed, (uint32_t)t).place;
}

/* ---- arrays --------------------------------------------------------------------- */

static void begin(struct writer *w, const char *qualifier, const char *type, const char *name, const char *what, size_t count)
{
    fprintf(w->file, "%sconst %s %s%s[%zu] = {", qualifier, type, name, what, count);
}

static void element(struct writer *w, size_t i, int64_t value)
{
    fprintf(w->file, "%s%" PRId64 ",", i % 24 ? " " : "\n    ", value);
}

static void end(struct writer *w)
{
    fprintf(w->file, "\n};\n");
}

static void codes_array(struct writer *w, const char *qualifier, const char *name, const char *what, const int8_t *codes, size_t count)
{
    begin(w, qualifier, "int8_t", name, what, count);
    for (size_t i = 0; i < count; ++i) element(w, i, codes[i]);
    end(w);
}

static void words_array(struct writer *w, const char *name, const char *what, const uint32_t *words, size_t count)
{
    begin(w, "static ", "uint32_t", name, what, count);
    for (size_t i = 0; i < count; ++i) fprintf(w->file, "%s0x%" PRIx32 ",", i % 10 ? " " : "\n    ", words[i]);
    end(w);
}

/* The codes of a tensor [channels][height][width], in the order [height][width][channels] */
static void image_array(struct writer *w, const char *qualifier, const char *name, const struct kure_integer_tensor *t, const int8_t *codes)
{
    size_t channels = (size_t)t->channels, plane = (size_t)t->height * (size_t)t->width;
    begin(w, qualifier, "int8_t", name, "", channels * plane);
    for (size_t i = 0; i < channels * plane; ++i) element(w, i, codes[i % channels * plane + i / channels]);
    end(w);
}

/* ---- weights --------------------------------------------------------------------- */

static enum kure_status weights_array(struct writer *w, const struct kure_integer_layer *layer, const struct kure_window *v, const char *name,
                                      struct kure_error *error)
{
    size_t bytes;
    uint8_t *ordered = kure_window_weights(v, layer, &bytes);
    if (!ordered) return kure_fail_memory(error);
    begin(w, "static ", "uint8_t", name, "_weights", bytes);
    for (size_t i = 0; i < bytes; ++i) element(w, i, ordered[i]);
    end(w);
    free(ordered);
    return KURE_OK;
}

/* ---- one constant for each layer that needs it -------------------------------------- */

static void shape_text(const struct kure_integer_tensor *t, char out[96])
{
    snprintf(out, 96, "{%d, %d, %d, %d, %d, %d}", t->height, t->width, t->channels, t->zero_point, t->low, t->high);
}

static enum kure_status layer_constants(struct writer *w, const struct kure_integer_layer *layer, int out, struct kure_error *error)
{
    const struct kure_integer_tensor *in = tensor(w, layer->inputs[0]), *to = tensor(w, out);
    const char *name = to->name;
    enum kure_status status = KURE_OK;
    if (layer->table) codes_array(w, "static ", name, "_table", layer->table, 256);
    if (layer->arithmetic != KURE_ARITHMETIC_NONE) words_array(w, name, "_parameter", layer->parameter, 10);
    if (layer->rows == 0) return status;
    struct kure_window v = kure_window(layer, in);
    char from_shape[96], to_shape[96];
    status = weights_array(w, layer, &v, name, error);
    if (layer->bias_codes) {
        begin(w, "static ", "int32_t", name, "_biases", (size_t)layer->rows);
        for (int r = 0; r < layer->rows; ++r) element(w, (size_t)r, layer->bias_codes[r]);
        end(w);
    }
    words_array(w, name, "_multipliers", layer->multipliers[0], 2 * (size_t)layer->rows);
    shape_text(in, from_shape);
    shape_text(to, to_shape);
    int convolution = layer->kind == KURE_KIND_CONVOLUTION;
    fprintf(w->file, "static const struct kure_convolution %s = {\n    %s, %s,\n    %d, %d, %d, %d, %d, %d, %d, %d, %d, %d,\n    %s_weights, %s%s, %s_multipliers, %s_parameter,\n};\n",
            name, from_shape, to_shape, v.height, v.width, convolution ? layer->stride : 1, convolution ? layer->padding : 0,
            convolution ? layer->groups : 1, v.row_step, v.y_step, v.x_step, v.channel_step, layer->stored_bits == 4, name,
            layer->bias_codes ? name : "0", layer->bias_codes ? "_biases" : "", name, name);
    return status;
}

static void layer_call(struct writer *w, const struct kure_integer_layer *layer, int out)
{
    int in = layer->inputs[0], elements = (int)kure_integer_elements(tensor(w, out));
    const char *name = tensor(w, out)->name;
    uint32_t from = place(w, in), to = place(w, out);
    FILE *f = w->file;
    if (layer->rows) {
        fprintf(f, "    kure_convolution(&%s, arena + %" PRIu32 ", arena + %" PRIu32 ");\n", name, from, to);
        return;
    }
    switch (layer->kind) {
    case KURE_KIND_MAXPOOL:
        fprintf(f, "    kure_maxpool(&shapes[%d], &shapes[%d], %d, %d, %d,", in, out, layer->size, layer->stride, layer->padding);
        break;
    case KURE_KIND_AVERAGE_POOL: fprintf(f, "    kure_average_pool(&shapes[%d], &shapes[%d], %s_parameter,", in, out, name); break;
    case KURE_KIND_UPSAMPLE: fprintf(f, "    kure_upsample(&shapes[%d], &shapes[%d], %d,", in, out, layer->stride); break;
    case KURE_KIND_REORG:
        fprintf(f, "    kure_reorg(&shapes[%d], &shapes[%d], %d, %" PRIu32 ",", in, out, layer->stride, layer->parameter[0]);
        break;
    case KURE_KIND_LOOKUP: fprintf(f, "    kure_lookup(%s_table, %d,", name, elements); break;
    case KURE_KIND_ADD:
        fprintf(f, "    kure_add(&shapes[%d], &shapes[%d], &shapes[%d], %s_parameter, %s%s,", in, layer->inputs[1], out, name, layer->table ? name : "0",
                layer->table ? "_table" : "");
        fprintf(f, " arena + %" PRIu32 ", arena + %" PRIu32 ", arena + %" PRIu32 ");\n", from, place(w, layer->inputs[1]), to);
        return;
    default: /* CONCATENATE */
        for (int i = 0, first = 0; i < layer->input_count; ++i) {
            int one = layer->inputs[i];
            fprintf(f, "    kure_concatenate(&shapes[%d], &shapes[%d], %d, arena + %" PRIu32 ", arena + %" PRIu32 ");\n", one, out, first, place(w, one), to);
            first += (int)kure_integer_elements(tensor(w, one));
        }
        return;
    }
    fprintf(f, " arena + %" PRIu32 ", arena + %" PRIu32 ");\n", from, to);
}

/* ---- files ------------------------------------------------------------------------ */

static void head(struct writer *w, const char *name, const char *what)
{
    fprintf(w->file, "/* %s: %s. Written by darknet-kure, profile %s. */\n", name, what, w->model->profile);
}

static enum kure_status write_model(struct writer *w, struct kure_error *error)
{
    const struct kure_integer_model *m = w->model;
    enum kure_arithmetic arithmetic = KURE_ARITHMETIC_NONE;
    enum kure_status status = KURE_OK;
    for (int i = 0; i < m->layer_count; ++i) {
        if (m->layers[i].arithmetic != KURE_ARITHMETIC_NONE) arithmetic = m->layers[i].arithmetic; /* one for each profile */
    }
    head(w, "model.c", "constants and layers of the model; see model.h");
    fprintf(w->file, "#include \"model.h\"\n\n#include \"kure_intmath.h\"\n\n"
                     "#define F(word) kure_soft_float(word)\n"
                     "#define S(word) ((word) < 0x80000000u ? (int32_t)(word) : -(int32_t)~(word) - 1)\n\n");
    fprintf(w->file, "static inline int32_t model_requantize(int32_t x, const uint32_t *m, const uint32_t *p)\n{\n    (void)m;\n    (void)p;\n    %s\n}\n\n",
            bodies[arithmetic].requantize);
    fprintf(w->file, "static inline int32_t model_add(int32_t a, int32_t b, int32_t za, int32_t zb, int32_t z, const uint32_t *p)\n{\n    (void)za;\n    (void)zb;\n"
                     "    (void)z;\n    (void)p;\n    %s\n}\n\n", bodies[arithmetic].add);
    fprintf(w->file, "static inline int32_t model_mean(int32_t x, int32_t codes, int32_t n, int32_t z, const uint32_t *p)\n{\n    (void)x;\n    (void)codes;\n"
                     "    (void)n;\n    (void)z;\n    (void)p;\n    %s\n}\n\n#include \"kure_layers.h\"\n\n", bodies[arithmetic].mean);
    codes_array(w, "", "model_pixels", "", m->pixels, 256);
    for (int i = 0; i < m->layer_count && status == KURE_OK; ++i) status = layer_constants(w, &m->layers[i], i + 1, error);
    fprintf(w->file, "\nstatic const struct kure_shape shapes[%d] = {\n", m->layer_count + 1);
    for (int t = 0; t <= m->layer_count; ++t) {
        char shape[96];
        shape_text(tensor(w, t), shape);
        fprintf(w->file, "    %s, /* %s */\n", shape, tensor(w, t)->name);
    }
    fprintf(w->file, "};\n\nvoid model_run(const int8_t *input, int8_t *arena)\n{\n"
                     "    for (int32_t i = 0; i < MODEL_INPUT_BYTES; i++) arena[i + %" PRIu32 "] = (int8_t)kure_limit(input[i], shapes[0].low, shapes[0].high);\n", place(w, 0));
    for (int i = 0; i < m->layer_count; ++i) layer_call(w, &m->layers[i], i + 1);
    fprintf(w->file, "}\n");
    return status;
}

static enum kure_status write_header(struct writer *w, struct kure_error *error)
{
    const struct kure_integer_tensor *in = tensor(w, 0);
    (void)error;
    head(w, "model.h", "a quantized network in C99, without heap, library or floating-point arithmetic");
    fprintf(w->file, "#ifndef MODEL_H\n#define MODEL_H\n\n#include <stdint.h>\n\n"
                     "/* Codes of the input, [height][width][channels]: that of a pixel 0..255 is model_pixels[pixel]. */\n"
                     "#define MODEL_INPUT_HEIGHT %d\n#define MODEL_INPUT_WIDTH %d\n#define MODEL_INPUT_CHANNELS %d\n#define MODEL_INPUT_BYTES %zu\n"
                     "extern const int8_t model_pixels[256];\n\n", in->height, in->width, in->channels, kure_integer_elements(in));
    fprintf(w->file, "/* Runs all layers.\n *   input  [in]: [MODEL_INPUT_BYTES]\n *   arena  [out]: [MODEL_ARENA_BYTES], holds the outputs afterwards */\n"
                     "#define MODEL_ARENA_BYTES %" PRIu32 "\nvoid model_run(const int8_t *input, int8_t *arena);\n", w->placed.activation_bytes);
    for (int i = 0; i < w->model->output_count; ++i) {
        int number = w->model->outputs[i].tensor;
        const struct kure_integer_tensor *t = tensor(w, number);
        fprintf(w->file, "\n/* Output %d, %s: int8 codes [height][width][channels] at this place of the arena;\n * value = scale * (code - zero point) */\n"
                         "#define MODEL_OUTPUT_%d_PLACE %" PRIu32 "\n#define MODEL_OUTPUT_%d_HEIGHT %d\n#define MODEL_OUTPUT_%d_WIDTH %d\n"
                         "#define MODEL_OUTPUT_%d_CHANNELS %d\n#define MODEL_OUTPUT_%d_SCALE %.9gf\n#define MODEL_OUTPUT_%d_ZERO_POINT %d\n",
                i, t->name, i, place(w, number), i, t->height, i, t->width, i, t->channels, i, (double)t->scale, i, t->zero_point);
    }
    fprintf(w->file, "\n#endif\n");
    return KURE_OK;
}

static enum kure_status write_golden(struct writer *w, struct kure_error *error)
{
    const struct kure_integer_model *m = w->model;
    (void)error;
    head(w, "golden.c", "runs the model on a golden input and prints the codes of its outputs, one a line");
    fprintf(w->file, "/* gcc -std=c99 golden.c model.c && ./a.out; status 1: a code is not the golden one */\n#include <stdio.h>\n\n#include \"model.h\"\n\n");
    image_array(w, "static ", "input", tensor(w, 0), m->golden->codes[0]);
    for (int i = 0; i < m->output_count; ++i) {
        char name[32];
        snprintf(name, sizeof name, "output_%d", i);
        image_array(w, "static ", name, tensor(w, m->outputs[i].tensor), m->golden->codes[m->outputs[i].tensor]);
    }
    fprintf(w->file, "static int8_t arena[MODEL_ARENA_BYTES];\n\nstatic int differing(const int8_t *codes, const int8_t *golden, int count)\n{\n"
                     "    int wrong = 0;\n    for (int i = 0; i < count; i++) {\n        printf(\"%%d\\n\", codes[i]);\n        wrong += codes[i] != golden[i];\n    }\n"
                     "    return wrong;\n}\n\nint main(void)\n{\n    int wrong = 0;\n    model_run(input, arena);\n");
    for (int i = 0; i < m->output_count; ++i) {
        fprintf(w->file, "    wrong += differing(arena + MODEL_OUTPUT_%d_PLACE, output_%d, (int)sizeof output_%d);\n", i, i, i);
    }
    fprintf(w->file, "    return wrong != 0;\n}\n");
    return KURE_OK;
}

static enum kure_status write_file(struct writer *w, const char *folder, const char *name, enum kure_status (*write)(struct writer *, struct kure_error *),
                                   struct kure_error *error)
{
    enum kure_status status = kure_bundle_open(folder, name, "wb", &w->file, error);
    if (status != KURE_OK) return status;
    struct kure_error closing;
    status = write(w, error);
    enum kure_status closed = kure_bundle_close(folder, name, w->file, &closing);
    if (status != KURE_OK || closed == KURE_OK) return status;
    if (error) *error = closing;
    return closed;
}

enum kure_status kure_write_c(const struct kure_integer_model *model, const char *folder, struct kure_error *error)
{
    struct writer w = {.model = model};
    struct kure_runtime_error wrong;
    if (kure_runtime_open(&w.placed, model->file, model->file_bytes, &wrong) != KURE_RUNTIME_OK) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s: model.kure in memory: %s", model->cfg, kure_runtime_status_text(wrong.status));
    }
    enum kure_status status = write_file(&w, folder, "c/model.c", write_model, error);
    if (status == KURE_OK) status = write_file(&w, folder, "c/model.h", write_header, error);
    if (status == KURE_OK && model->golden) status = write_file(&w, folder, "c/golden.c", write_golden, error);
    if (status == KURE_OK) status = kure_bundle_write(folder, "c/kure_layers.h", c_layers, sizeof c_layers, error);
    if (status == KURE_OK) status = kure_bundle_write(folder, "c/kure_intmath.h", kure_intmath, sizeof kure_intmath, error);
    return status;
}
