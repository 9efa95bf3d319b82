/*
 * write_tflite.c: model.tflite, TensorFlow Lite with int8 input, output and activations.
 *
 * Tensors are [1][height][width][channels]. A connected layer is a convolution over the whole
 * image. Padding that is not SAME as TensorFlow means it (half of it in front, rounded down) is a
 * PAD or PADV2 of its own, which adds the zero point, or -128 in front of a maximum.
 *
 * Numbers of fields, operators and options: schema.fbs of TensorFlow Lite, version 3.
 * Tested by tests/test_clients_litert.py.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bundle.h"
#include "error.h"
#include "flatbuffer.h"
#include "formats.h"
#include "window.h"

enum { INT32 = 2, INT8 = 9, INT4 = 17 };               /* TensorType */
enum { SAME, VALID };                                  /* Padding */
enum { NO_ACTIVATION = 0, RELU = 1, RELU6 = 3 };       /* ActivationFunctionType */
enum operator_number { CONV_2D, DEPTHWISE_CONV_2D, MAX_POOL_2D, AVERAGE_POOL_2D, CONCATENATION, ADD, LEAKY_RELU, QUANTIZE, RESIZE_NEAREST_NEIGHBOR,
                       PAD, PADV2, OPERATORS };

static const struct {
    int code, version, options; /* BuiltinOperator; BuiltinOptions, 0: none */
} operators[OPERATORS] = {
    [CONV_2D] = {3, 3, 1},        [DEPTHWISE_CONV_2D] = {4, 3, 2}, [MAX_POOL_2D] = {17, 2, 5}, [AVERAGE_POOL_2D] = {1, 2, 5},
    [CONCATENATION] = {2, 2, 10}, [ADD] = {0, 2, 11},              [LEAKY_RELU] = {98, 2, 75}, [QUANTIZE] = {114, 2, 0},
    [RESIZE_NEAREST_NEIGHBOR] = {97, 2, 74}, [PAD] = {34, 2, 0},   [PADV2] = {60, 2, 0},
};

struct tensor {
    char name[48];
    int type, dim_count, dims[4], dimension; /* dimension: of the scales */
    const float *scales;
    size_t scale_count;
    int zero_point;
    void *data; /* owned; NULL: an activation */
    size_t bytes;
};

struct operation {
    enum operator_number number;
    int *inputs, input_count, output, option_count;
    struct kure_flat_field options[7];
};

struct writer {
    const struct kure_integer_model *model;
    struct tensor *tensors;
    struct operation *operations;
    int tensor_count, operation_count, out_of_memory;
    float **bias_scales; /* [layers] owned; NULL where a layer has none */
};

static const struct kure_integer_tensor *at(const struct writer *w, int t)
{
    return &w->model->tensors[t];
}

/* Room for every tensor and operation there can be: a layer has at most a pad, its amounts and value, weights and biases. */
enum { TENSORS_A_LAYER = 6, OPERATIONS_A_LAYER = 2 };

static int add_tensor(struct writer *w, const char *name, const char *what, int type, int dim_count, const int *dims, void *data, size_t bytes)
{
    struct tensor *t = &w->tensors[w->tensor_count];
    snprintf(t->name, sizeof t->name, "%s%s", name, what);
    t->type = type;
    t->dim_count = dim_count;
    memcpy(t->dims, dims, (size_t)dim_count * sizeof *dims);
    t->data = data;
    t->bytes = bytes;
    return w->tensor_count++;
}

/* A constant of int32, copied. */
static int integers(struct writer *w, const char *name, const char *what, const int32_t *values, int rows, int columns)
{
    size_t bytes = (size_t)rows * (size_t)columns * sizeof *values;
    void *data = malloc(bytes);
    if (data) memcpy(data, values, bytes);
    else w->out_of_memory = 1;
    return add_tensor(w, name, what, INT32, columns > 1 ? 2 : 1, (int[]){rows, columns}, data, bytes);
}

static struct operation *operation(struct writer *w, enum operator_number number, int input_count, const int *inputs, int output)
{
    struct operation *o = &w->operations[w->operation_count++];
    o->number = number;
    o->inputs = malloc((size_t)input_count * sizeof *inputs);
    if (o->inputs) memcpy(o->inputs, inputs, (size_t)input_count * sizeof *inputs);
    else w->out_of_memory = 1;
    o->input_count = o->inputs ? input_count : 0;
    o->output = output;
    return o;
}

static void option(struct operation *o, int id, int bytes, int value)
{
    o->options[o->option_count++] = (struct kure_flat_field){id, bytes, (uint32_t)value};
}

/* ---- layers ----------------------------------------------------------------------- */

static enum kure_status refuse(const struct writer *w, const struct kure_integer_layer *l, const char *what, struct kure_error *error)
{
    return kure_fail(error, KURE_ERROR_INPUT, "%s: layer %d [%s]: TensorFlow Lite has no %s: the formats kure, c and hex have", w->model->cfg, l->source, l->type,
                     what);
}

/* How much a window needs behind the last row, with `before` in front of the first. */
static int behind(int in, int out, int size, int stride, int before)
{
    int needed = (out - 1) * stride + size - in - before;
    return needed > 0 ? needed : 0;
}

static int is_same(int in, int out, int size, int stride, int before)
{
    return out == (in + stride - 1) / stride && behind(in, out, size, stride, 0) / 2 == before;
}

/* The tensor that a window moves over: the input itself, or a padded one. padding [out]: SAME or VALID */
static int padded(struct writer *w, const struct kure_integer_layer *l, int out, int before, int lowest, int *padding)
{
    int in = l->inputs[0], size = l->size, stride = l->stride;
    const struct kure_integer_tensor *a = at(w, in), *o = at(w, out);
    int bottom = behind(a->height, o->height, size, stride, before), right = behind(a->width, o->width, size, stride, before);
    *padding = VALID;
    if (before == 0 && bottom == 0 && right == 0) return in;
    *padding = SAME;
    if (is_same(a->height, o->height, size, stride, before) && is_same(a->width, o->width, size, stride, before)) return in;
    *padding = VALID;
    const int32_t amounts[8] = {0, 0, before, bottom, before, right, 0, 0};
    int inputs[3] = {in, integers(w, o->name, "_padding", amounts, 4, 2), 0}, dims[4] = {1, a->height + before + bottom, a->width + before + right, a->channels};
    if (lowest) {
        int8_t *value = malloc(1);
        if (value) *value = -128;
        else w->out_of_memory = 1;
        inputs[2] = add_tensor(w, o->name, "_padding_value", INT8, 1, (int[]){1}, value, 1);
        w->tensors[inputs[2]].scales = &a->scale;
        w->tensors[inputs[2]].scale_count = 1;
        w->tensors[inputs[2]].zero_point = a->zero_point;
    }
    int made = add_tensor(w, o->name, "_padded", INT8, 4, dims, NULL, 0);
    w->tensors[made].scales = &a->scale;
    w->tensors[made].scale_count = 1;
    w->tensors[made].zero_point = a->zero_point;
    operation(w, lowest ? PADV2 : PAD, lowest ? 3 : 2, inputs, made);
    return made;
}

static int activation_of(const struct kure_integer_layer *l)
{
    return l->activation == KURE_INTEGER_RELU ? RELU : l->activation == KURE_INTEGER_RELU6 ? RELU6 : NO_ACTIVATION;
}

static enum kure_status emit_weighted(struct writer *w, const struct kure_integer_layer *l, int out, struct kure_error *error)
{
    const struct kure_integer_tensor *in = at(w, l->inputs[0]), *o = at(w, out);
    struct kure_window v = kure_window(l, in);
    size_t bytes, rows = (size_t)l->rows;
    int connected = l->kind == KURE_KIND_CONNECTED, padding = VALID;
    int from = connected ? l->inputs[0] : padded(w, l, out, l->padding, 0, &padding);
    void *codes = kure_window_weights(&v, l, &bytes);
    float *scales = malloc(rows * sizeof *scales);
    w->bias_scales[out - 1] = scales;
    if (!codes || !scales) {
        free(codes);
        return kure_fail_memory(error);
    }
    for (size_t r = 0; r < rows; ++r) scales[r] = in->scale * l->weight_scales[r];
    int dims[4] = {v.depthwise ? 1 : l->rows, v.height, v.width, v.depthwise ? l->rows : v.channels};
    int weights = add_tensor(w, o->name, "_weights", l->stored_bits == 4 ? INT4 : INT8, 4, dims, codes, bytes);
    w->tensors[weights].scales = l->weight_scales;
    w->tensors[weights].dimension = v.depthwise ? 3 : 0;
    int biases = integers(w, o->name, "_biases", l->bias_codes, l->rows, 1);
    w->tensors[biases].scales = scales;
    w->tensors[weights].scale_count = w->tensors[biases].scale_count = l->one_scale ? 1 : rows;
    struct operation *c = operation(w, v.depthwise ? DEPTHWISE_CONV_2D : CONV_2D, 3, (int[]){from, weights, biases}, out);
    option(c, 0, 1, padding);
    option(c, 1, 4, connected ? 1 : l->stride);
    option(c, 2, 4, connected ? 1 : l->stride);
    if (v.depthwise) option(c, 3, 4, l->rows / in->channels);
    option(c, v.depthwise ? 4 : 3, 1, activation_of(l));
    option(c, v.depthwise ? 5 : 4, 4, 1);
    option(c, v.depthwise ? 6 : 5, 4, 1);
    return KURE_OK;
}

static enum kure_status emit_pool(struct writer *w, const struct kure_integer_layer *l, int out, struct kure_error *error)
{
    const struct kure_integer_tensor *a = at(w, l->inputs[0]);
    int max = l->kind == KURE_KIND_MAXPOOL, padding = VALID, from = max ? padded(w, l, out, l->padding / 2, 1, &padding) : l->inputs[0];
    (void)error;
    struct operation *p = operation(w, max ? MAX_POOL_2D : AVERAGE_POOL_2D, 1, &from, out);
    option(p, 0, 1, padding);
    option(p, 1, 4, max ? l->stride : 1);
    option(p, 2, 4, max ? l->stride : 1);
    option(p, 3, 4, max ? l->size : a->width);
    option(p, 4, 4, max ? l->size : a->height);
    return KURE_OK;
}

static enum kure_status emit_upsample(struct writer *w, const struct kure_integer_layer *l, int out, struct kure_error *error)
{
    const struct kure_integer_tensor *o = at(w, out);
    (void)error;
    int size = integers(w, o->name, "_size", (int32_t[]){o->height, o->width}, 2, 1);
    option(operation(w, RESIZE_NEAREST_NEIGHBOR, 2, (int[]){l->inputs[0], size}, out), 0, 1, 0);
    return KURE_OK;
}

static enum kure_status emit_reorg(struct writer *w, const struct kure_integer_layer *l, int out, struct kure_error *error)
{
    (void)out;
    return refuse(w, l, "reorg in Darknet's order of elements", error);
}

static enum kure_status emit_concatenate(struct writer *w, const struct kure_integer_layer *l, int out, struct kure_error *error)
{
    for (int i = 0; i < l->input_count; ++i) {
        if (at(w, l->inputs[i])->height != at(w, out)->height || at(w, l->inputs[i])->width != at(w, out)->width) {
            return refuse(w, l, "route of inputs of different sizes", error);
        }
    }
    option(operation(w, CONCATENATION, l->input_count, l->inputs, out), 0, 4, 3);
    return KURE_OK;
}

static enum kure_status emit_lookup(struct writer *w, const struct kure_integer_layer *l, int out, struct kure_error *error)
{
    int bits;
    if (l->lookup == KURE_LOOKUP_REQUANTIZE) {
        operation(w, QUANTIZE, 1, l->inputs, out);
        return KURE_OK;
    }
    if (l->activation != KURE_INTEGER_LEAKY) return refuse(w, l, l->activation_name, error);
    memcpy(&bits, &l->slope, sizeof bits);
    option(operation(w, LEAKY_RELU, 1, l->inputs, out), 0, 4, bits);
    return KURE_OK;
}

static enum kure_status emit_add(struct writer *w, const struct kure_integer_layer *l, int out, struct kure_error *error)
{
    const struct kure_integer_tensor *a = at(w, l->inputs[0]), *b = at(w, l->inputs[1]);
    if (a->channels != b->channels || a->height != b->height || a->width != b->width) return refuse(w, l, "sum of tensors of different shapes", error);
    if (l->alpha != 1 || l->beta != 1) return refuse(w, l, "sum with alpha or beta", error);
    option(operation(w, ADD, 2, l->inputs, out), 0, 1, activation_of(l));
    return KURE_OK;
}

typedef enum kure_status emit_function(struct writer *w, const struct kure_integer_layer *l, int out, struct kure_error *error);
static emit_function *const emitters[KURE_KINDS] = {
    [KURE_KIND_CONVOLUTION] = emit_weighted,    [KURE_KIND_CONNECTED] = emit_weighted, [KURE_KIND_MAXPOOL] = emit_pool,
    [KURE_KIND_AVERAGE_POOL] = emit_pool,       [KURE_KIND_UPSAMPLE] = emit_upsample,  [KURE_KIND_REORG] = emit_reorg,
    [KURE_KIND_CONCATENATE] = emit_concatenate, [KURE_KIND_LOOKUP] = emit_lookup,      [KURE_KIND_ADD] = emit_add,
};

/* ---- the file ------------------------------------------------------------------------ */

static void flat_tensor(struct kure_flatbuffer *f, size_t slot, const struct tensor *t, int buffer)
{
    const struct kure_flat_field fields[] = {{0, 0, 0}, {1, 1, (uint32_t)t->type}, {2, 4, (uint32_t)buffer}, {3, 0, 0}, {4, 0, 0}};
    const struct kure_flat_field scaled[] = {{2, 0, 0}, {3, 0, 0}, {6, 4, (uint32_t)t->dimension}};
    size_t slots[5], inner[3];
    kure_flat_table(f, slot, fields, t->scale_count ? 5 : 4, slots);
    kure_flat_vector(f, slots[0], t->dims, (size_t)t->dim_count, 4, 4);
    kure_flat_text(f, slots[3], t->name);
    if (!t->scale_count) return;
    kure_flat_table(f, slots[4], scaled, 3, inner);
    kure_flat_vector(f, inner[0], t->scales, t->scale_count, 4, 4);
    int64_t *zeros = calloc(t->scale_count, sizeof *zeros);
    if (!zeros) {
        f->failed = 1;
        return;
    }
    zeros[0] = t->zero_point; /* of activations; weights have 0 in every row */
    kure_flat_vector(f, inner[1], zeros, t->scale_count, 8, 8);
    free(zeros);
}

static void flat_operation(struct kure_flatbuffer *f, size_t slot, const struct operation *o)
{
    const struct kure_flat_field fields[] = {{0, 4, o->number}, {1, 0, 0}, {2, 0, 0}, {3, 1, (uint32_t)operators[o->number].options}, {4, 0, 0}};
    size_t slots[5];
    kure_flat_table(f, slot, fields, operators[o->number].options ? 5 : 3, slots);
    kure_flat_vector(f, slots[1], o->inputs, (size_t)o->input_count, 4, 4);
    kure_flat_vector(f, slots[2], &o->output, 1, 4, 4);
    if (operators[o->number].options) kure_flat_table(f, slots[4], o->options, o->option_count, NULL);
}

static void flat_graph(struct kure_flatbuffer *f, size_t slot, const struct writer *w)
{
    static const struct kure_flat_field fields[] = {{0, 0, 0}, {1, 0, 0}, {2, 0, 0}, {3, 0, 0}, {4, 0, 0}};
    size_t slots[5], list = kure_flat_offsets(f, slot, 1), item;
    int32_t input = 0;
    kure_flat_table(f, list, fields, 5, slots);
    item = kure_flat_offsets(f, slots[0], (size_t)w->tensor_count);
    for (int i = 0, buffer = 1; i < w->tensor_count; ++i) { /* buffer 0 is the empty one of activations */
        flat_tensor(f, item + 4 * (size_t)i, &w->tensors[i], w->tensors[i].data ? buffer++ : 0);
    }
    kure_flat_vector(f, slots[1], &input, 1, 4, 4);
    int32_t *outputs = malloc((size_t)w->model->output_count * sizeof *outputs);
    if (!outputs) f->failed = 1;
    for (int i = 0; outputs && i < w->model->output_count; ++i) outputs[i] = w->model->outputs[i].tensor;
    if (outputs) kure_flat_vector(f, slots[2], outputs, (size_t)w->model->output_count, 4, 4);
    free(outputs);
    item = kure_flat_offsets(f, slots[3], (size_t)w->operation_count);
    for (int i = 0; i < w->operation_count; ++i) flat_operation(f, item + 4 * (size_t)i, &w->operations[i]);
    kure_flat_text(f, slots[4], "darknet");
}

static void flat_model(struct kure_flatbuffer *f, const struct writer *w)
{
    static const struct kure_flat_field fields[] = {{0, 4, 3}, {1, 0, 0}, {2, 0, 0}, {3, 0, 0}, {4, 0, 0}}, data[] = {{0, 0, 0}};
    size_t slots[5], item, slot, buffers = 1;
    kure_flat_table(f, kure_flat_begin(f, "TFL3"), fields, 5, slots);
    item = kure_flat_offsets(f, slots[1], OPERATORS);
    for (int i = 0; i < OPERATORS; ++i) {
        const struct kure_flat_field code[] = {{0, 1, (uint32_t)operators[i].code}, {2, 4, (uint32_t)operators[i].version}, {3, 4, (uint32_t)operators[i].code}};
        kure_flat_table(f, item + 4 * (size_t)i, code, 3, NULL);
    }
    flat_graph(f, slots[2], w);
    kure_flat_text(f, slots[3], "darknet-kure");
    for (int i = 0; i < w->tensor_count; ++i) buffers += w->tensors[i].data != NULL;
    item = kure_flat_offsets(f, slots[4], buffers);
    kure_flat_table(f, item, NULL, 0, NULL);
    for (int i = 0; i < w->tensor_count; ++i) {
        if (!w->tensors[i].data) continue;
        kure_flat_table(f, item += 4, data, 1, &slot);
        kure_flat_vector(f, slot, w->tensors[i].data, w->tensors[i].bytes, 1, 16);
    }
}

static enum kure_status emit_all(struct writer *w, struct kure_error *error)
{
    const struct kure_integer_model *m = w->model;
    enum kure_status status = KURE_OK;
    for (int t = 0; t <= m->layer_count; ++t) { /* with the numbers that they have in the model */
        const struct kure_integer_tensor *a = at(w, t);
        add_tensor(w, a->name, "", INT8, 4, (int[]){1, a->height, a->width, a->channels}, NULL, 0);
        w->tensors[t].scales = &a->scale;
        w->tensors[t].scale_count = 1;
        w->tensors[t].zero_point = a->zero_point;
    }
    for (int i = 0; i < m->layer_count && status == KURE_OK && !w->out_of_memory; ++i) status = emitters[m->layers[i].kind](w, &m->layers[i], i + 1, error);
    return status != KURE_OK ? status : w->out_of_memory ? kure_fail_memory(error) : KURE_OK;
}

enum kure_status kure_write_tflite(const struct kure_integer_model *model, const char *folder, struct kure_error *error)
{
    size_t layers = (size_t)model->layer_count;
    struct kure_flatbuffer f = {0};
    struct writer w = {.model = model, .tensors = calloc(TENSORS_A_LAYER * layers + 1, sizeof *w.tensors),
                       .operations = calloc(OPERATIONS_A_LAYER * layers, sizeof *w.operations), .bias_scales = calloc(layers, sizeof *w.bias_scales)};
    enum kure_status status = w.tensors && w.operations && w.bias_scales ? emit_all(&w, error) : kure_fail_memory(error);
    if (status == KURE_OK) {
        flat_model(&f, &w);
        status = f.failed ? kure_fail_memory(error) : kure_bundle_write(folder, "model.tflite", f.bytes, f.size, error);
    }
    for (int i = 0; i < w.tensor_count; ++i) free(w.tensors[i].data);
    for (int i = 0; i < w.operation_count; ++i) free(w.operations[i].inputs);
    for (size_t i = 0; w.bias_scales && i < layers; ++i) free(w.bias_scales[i]);
    free(w.bias_scales);
    free(w.operations);
    free(w.tensors);
    kure_flat_free(&f);
    return status;
}
