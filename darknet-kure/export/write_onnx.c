/*
 * write_onnx.c: model.qdq.onnx and model.qop.onnx: one graph in two forms. See write_onnx.h, README.md.
 *
 * Q/DQ: float operators between DequantizeLinear and QuantizeLinear, which a runtime fuses
 * into integer ones.
 * QLinear: the integer operators themselves, and those of com.microsoft for which ONNX has none.
 *
 * Tensor T is T_quantized, its scale T_scale, its zero point T_zero_point: by these names OpenCV
 * knows which tensors are quantized, and no other may end in "quantized". Codes of activations
 * are uint8, 128 higher than the model's, because onnxruntime fuses only those on x86; int8 for
 * TensorRT, which knows no other. Weights are int8.
 *
 * Limits of codes that are not those of the type (relu with a zero point of its own, relu6) are
 * a Clip of the codes: exact, and nothing that keeps a runtime from fusing what is in front.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>

#include "error.h"
#include "formats.h"
#include "onnx_graph.h"
#include "onnx_operators.h"

enum form { QDQ, QLINEAR };

struct writer {
    struct kure_onnx onnx;
    const struct kure_integer_model *model;
    enum form form;
    int code_type, lift;                      /* of activations: ONNX__TENSOR_PROTO__DATA_TYPE__INT8, 0 or _UINT8, 128 */
    char **quantized, **scale, **zero_point;  /* [tensors] names */
    char **real;                              /* [tensors] name behind DequantizeLinear; NULL: no node yet */
};

typedef enum kure_status emit_function(struct writer *w, const struct kure_integer_layer *layer, int out, struct kure_error *error);

static enum kure_status refuse(const struct writer *w, const struct kure_integer_layer *layer, const char *what, struct kure_error *error)
{
    return kure_fail(error, KURE_ERROR_INPUT, "%s: layer %d [%s]: ONNX has no operator for %s: the formats kure, c and hex have", w->model->cfg,
                     layer->source, layer->type, what);
}

static const struct kure_integer_tensor *tensor(const struct writer *w, int t)
{
    return &w->model->tensors[t];
}

/* ---- tensors ------------------------------------------------------------------- */

static char *scalar(struct writer *w, char *name, int type, const void *value, size_t bytes)
{
    void *own = kure_onnx_take(&w->onnx, bytes);
    if (own) memcpy(own, value, bytes);
    return kure_onnx_constant(&w->onnx, name, type, 0, NULL, own, bytes);
}

static char *code_constant(struct writer *w, char *name, int code)
{
    int8_t byte = (int8_t)(uint8_t)(code + w->lift); /* the same bits as int8 and uint8 */
    return scalar(w, name, w->code_type, &byte, 1);
}

static void name_tensors(struct writer *w)
{
    size_t count = (size_t)w->model->layer_count + 1;
    char ***arrays[] = {&w->quantized, &w->scale, &w->zero_point, &w->real};
    for (int i = 0; i < 4; ++i) *arrays[i] = kure_onnx_take(&w->onnx, count * sizeof(char *));
    for (int t = 0; t <= w->model->layer_count && w->real; ++t) {
        const struct kure_integer_tensor *at = tensor(w, t);
        const struct kure_integer_layer *from = t > 0 ? &w->model->layers[t - 1] : NULL;
        w->quantized[t] = kure_onnx_name(&w->onnx, "%s_quantized", at->name);
        w->scale[t] = kure_onnx_name(&w->onnx, "%s_scale", at->name);
        w->zero_point[t] = kure_onnx_name(&w->onnx, "%s_zero_point", at->name);
        if (kure_onnx_skips(w->model, from)) continue;
        scalar(w, w->scale[t], ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT, &at->scale, sizeof at->scale);
        code_constant(w, w->zero_point[t], at->zero_point);
    }
}

/* node's inputs: codes, scale and zero point of a tensor */
static void read_codes(struct writer *w, Onnx__NodeProto *node, int t)
{
    kure_onnx_input_of(&w->onnx, node, w->quantized[t]);
    kure_onnx_input_of(&w->onnx, node, w->scale[t]);
    kure_onnx_input_of(&w->onnx, node, w->zero_point[t]);
}

static char *real(struct writer *w, int t)
{
    if (!w->real[t]) {
        w->real[t] = kure_onnx_name(&w->onnx, "%s_value", tensor(w, t)->name);
        read_codes(w, kure_onnx_node(&w->onnx, "", "DequantizeLinear", w->real[t]), t);
    }
    return w->real[t];
}

/* Where an operator puts the codes of a tensor: what it is called itself, or the input of the Clip behind. */
static char *codes_made(struct writer *w, int t)
{
    const struct kure_integer_tensor *at = tensor(w, t);
    if (at->low == -128 && at->high == 127) return w->quantized[t];
    if (w->form == QLINEAR) { /* OpenCV looks for these two */
        scalar(w, kure_onnx_name(&w->onnx, "%s_unlimited_scale", at->name), ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT, &at->scale, sizeof at->scale);
        code_constant(w, kure_onnx_name(&w->onnx, "%s_unlimited_zero_point", at->name), at->zero_point);
    }
    return kure_onnx_name(&w->onnx, "%s_unlimited_quantized", at->name);
}

static void limit_codes(struct writer *w, int t, char *made)
{
    const struct kure_integer_tensor *at = tensor(w, t);
    if (made == w->quantized[t]) return;
    if (w->form == QLINEAR && at->low == at->zero_point && at->high == 127) { /* a relu: OpenCV has no Clip of codes */
        Onnx__NodeProto *relu = kure_onnx_node(&w->onnx, "com.microsoft", "QLinearLeakyRelu", w->quantized[t]);
        kure_onnx_input_of(&w->onnx, relu, made);
        for (int i = 0; i < 2; ++i) { /* the same on both sides */
            kure_onnx_input_of(&w->onnx, relu, w->scale[t]);
            kure_onnx_input_of(&w->onnx, relu, w->zero_point[t]);
        }
        kure_onnx_set_float(&w->onnx, relu, "alpha", 0);
        return;
    }
    Onnx__NodeProto *clip = kure_onnx_node(&w->onnx, "", "Clip", w->quantized[t]);
    kure_onnx_input_of(&w->onnx, clip, made);
    kure_onnx_input_of(&w->onnx, clip, code_constant(w, kure_onnx_name(&w->onnx, "%s_low", at->name), at->low));
    kure_onnx_input_of(&w->onnx, clip, code_constant(w, kure_onnx_name(&w->onnx, "%s_high", at->name), at->high));
}

static void quantize_freely(struct writer *w, int t, char *value, char *codes)
{
    Onnx__NodeProto *node = kure_onnx_node(&w->onnx, "", "QuantizeLinear", codes);
    kure_onnx_input_of(&w->onnx, node, value);
    kure_onnx_input_of(&w->onnx, node, w->scale[t]);
    kure_onnx_input_of(&w->onnx, node, w->zero_point[t]);
}

static void quantize(struct writer *w, int t, char *value)
{
    char *made = codes_made(w, t);
    quantize_freely(w, t, value, made);
    limit_codes(w, t, made);
}

/* A node that makes tensor `out` of others by an operator of float values (Q/DQ), or one of
 * codes whose first inputs are codes, scale and zero point of each of them, then scale and
 * zero point of the output. */
static Onnx__NodeProto *compute(struct writer *w, const char *float_operator, const char *code_operator, int out, const int *inputs, int count,
                                char **made)
{
    if (w->form == QDQ) {
        *made = kure_onnx_name(&w->onnx, "%s", tensor(w, out)->name);
        for (int i = 0; i < count; ++i) real(w, inputs[i]); /* nodes stand in the order in which they run */
        Onnx__NodeProto *node = kure_onnx_node(&w->onnx, "", float_operator, *made);
        for (int i = 0; i < count; ++i) kure_onnx_input_of(&w->onnx, node, real(w, inputs[i]));
        return node;
    }
    *made = codes_made(w, out);
    Onnx__NodeProto *node = kure_onnx_node(&w->onnx, "com.microsoft", code_operator, *made);
    for (int i = 0; i < count; ++i) read_codes(w, node, inputs[i]);
    kure_onnx_input_of(&w->onnx, node, w->scale[out]);
    kure_onnx_input_of(&w->onnx, node, w->zero_point[out]);
    return node;
}

/* What `compute` made becomes the codes of tensor `out`, in float profiles through its activation. */
static void store(struct writer *w, const struct kure_integer_layer *layer, int out, char *made, int float_activation)
{
    if (w->form == QLINEAR) {
        limit_codes(w, out, made);
        return;
    }
    if (float_activation) made = kure_onnx_activation(&w->onnx, layer, made);
    if (float_activation && layer->activation != KURE_INTEGER_LINEAR) quantize_freely(w, out, made, w->quantized[out]); /* its limits are applied */
    else quantize(w, out, made);
}

/* ---- layers -------------------------------------------------------------------- */

/* Constants of a layer's weights; names of codes, scales and zero points into out[3]. */
static void weight_constants(struct writer *w, const struct kure_integer_layer *layer, int out, char *names[3])
{
    const struct kure_integer_tensor *in = tensor(w, layer->inputs[0]);
    const char *name = tensor(w, out)->name;
    int packed = w->form == QDQ && layer->stored_bits == 4, type = packed ? KURE_ONNX_INT4 : ONNX__TENSOR_PROTO__DATA_TYPE__INT8;
    size_t rows = (size_t)layer->rows, count = rows * (size_t)layer->row, scales = layer->one_scale ? 1 : rows, dim_count = layer->one_scale ? 0 : 1;
    int connected = layer->kind == KURE_KIND_CONNECTED; /* a convolution over the whole image */
    int64_t dims[4] = {layer->rows, connected ? in->channels : in->channels / layer->groups, connected ? in->height : layer->size,
                       connected ? in->width : layer->size};
    int64_t row_dims[1] = {layer->rows};
    const void *codes = packed ? kure_onnx_nibbles(&w->onnx, layer->codes, count) : layer->codes;
    char *stored = kure_onnx_name(&w->onnx, "%s_weights_%s", name, packed ? "stored" : "quantized");
    kure_onnx_constant(&w->onnx, stored, type, 4, dims, codes, packed ? (count + 1) / 2 : count);
    names[0] = packed ? kure_onnx_name(&w->onnx, "%s_weights_quantized", name) : stored;
    if (packed) kure_onnx_widen(&w->onnx, stored, names[0]);
    names[1] = kure_onnx_constant(&w->onnx, kure_onnx_name(&w->onnx, "%s_weights_scale", name), ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT, dim_count,
                                  row_dims, layer->weight_scales, scales * sizeof(float));
    names[2] = kure_onnx_constant(&w->onnx, kure_onnx_name(&w->onnx, "%s_weights_zero_point", name), ONNX__TENSOR_PROTO__DATA_TYPE__INT8, dim_count,
                                  row_dims, kure_onnx_take(&w->onnx, scales), scales);
}

static char *dequantized(struct writer *w, char *const *names, int count, const char *name, const char *what, int one_scale)
{
    char *value = kure_onnx_name(&w->onnx, "%s_%s_value", name, what);
    Onnx__NodeProto *node = kure_onnx_node(&w->onnx, "", "DequantizeLinear", value);
    for (int i = 0; i < count; ++i) kure_onnx_input_of(&w->onnx, node, names[i]);
    if (!one_scale) kure_onnx_set_int(&w->onnx, node, "axis", 0);
    return value;
}

/* The bias as float32: from codes whose scale is that of input times weights, or as it is. */
static char *real_bias(struct writer *w, const struct kure_integer_layer *layer, int out)
{
    const char *name = tensor(w, out)->name;
    int64_t dims[1] = {layer->rows};
    size_t rows = (size_t)layer->rows;
    char *bias = kure_onnx_name(&w->onnx, "%s_bias%s", name, layer->bias_codes ? "_quantized" : "");
    if (!layer->bias_codes) return kure_onnx_constant(&w->onnx, bias, ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT, 1, dims, layer->biases, rows * sizeof(float));
    float *scales = kure_onnx_take(&w->onnx, rows * sizeof *scales), in = tensor(w, layer->inputs[0])->scale;
    for (int r = 0; scales && r < layer->rows; ++r) scales[r] = in * layer->weight_scales[r];
    char *names[2] = {bias, kure_onnx_name(&w->onnx, "%s_bias_scale", name)};
    kure_onnx_constant(&w->onnx, bias, ONNX__TENSOR_PROTO__DATA_TYPE__INT32, 1, dims, layer->bias_codes, rows * sizeof(int32_t));
    kure_onnx_constant(&w->onnx, names[1], ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT, layer->one_scale ? 0 : 1, dims, scales,
                       (layer->one_scale ? 1 : rows) * sizeof(float));
    return dequantized(w, names, 2, name, "bias", layer->one_scale);
}

static enum kure_status emit_convolution(struct writer *w, const struct kure_integer_layer *layer, int out, struct kure_error *error)
{
    (void)error;
    int in = layer->inputs[0];
    char *weights[3], *made;
    Onnx__NodeProto *node;
    weight_constants(w, layer, out, weights);
    if (w->form == QDQ) {
        char *x = real(w, in), *values = dequantized(w, weights, 3, tensor(w, out)->name, "weights", layer->one_scale), *bias = real_bias(w, layer, out);
        made = kure_onnx_name(&w->onnx, "%s", tensor(w, out)->name);
        node = kure_onnx_node(&w->onnx, "", "Conv", made);
        kure_onnx_input_of(&w->onnx, node, x);
        kure_onnx_input_of(&w->onnx, node, values);
        kure_onnx_input_of(&w->onnx, node, bias);
    } else {
        int64_t dims[1] = {layer->rows};
        made = codes_made(w, out);
        node = kure_onnx_node(&w->onnx, "", "QLinearConv", made);
        read_codes(w, node, in);
        for (int i = 0; i < 3; ++i) kure_onnx_input_of(&w->onnx, node, weights[i]);
        kure_onnx_input_of(&w->onnx, node, w->scale[out]);
        kure_onnx_input_of(&w->onnx, node, w->zero_point[out]);
        kure_onnx_input_of(&w->onnx, node, kure_onnx_constant(&w->onnx, kure_onnx_name(&w->onnx, "%s_bias_quantized", tensor(w, out)->name),
                                                              ONNX__TENSOR_PROTO__DATA_TYPE__INT32, 1, dims, layer->bias_codes,
                                                              (size_t)layer->rows * sizeof(int32_t)));
    }
    kure_onnx_convolution_attributes(&w->onnx, node, layer, tensor(w, in));
    store(w, layer, out, made, !layer->bias_codes);
    return KURE_OK;
}

/* UPSAMPLE and REORG move float values in both forms, as OpenCV 4.6 wants it: every code comes back. */
static enum kure_status emit_move(struct writer *w, const struct kure_integer_layer *layer, int out, struct kure_error *error)
{
    (void)error;
    int in = layer->inputs[0], on_codes = w->form == QLINEAR && layer->kind == KURE_KIND_MAXPOOL;
    char *from = on_codes ? w->quantized[in] : real(w, in);
    char *to = on_codes ? w->quantized[out] : kure_onnx_name(&w->onnx, "%s", tensor(w, out)->name);
    kure_onnx_move(&w->onnx, layer, tensor(w, in), tensor(w, out), from, to);
    if (!on_codes) quantize_freely(w, out, to, w->quantized[out]); /* within the limits: they hold those of the input */
    return KURE_OK;
}

static enum kure_status emit_average_pool(struct writer *w, const struct kure_integer_layer *layer, int out, struct kure_error *error)
{
    (void)error;
    char *made;
    compute(w, "GlobalAveragePool", "QLinearGlobalAveragePool", out, layer->inputs, 1, &made);
    store(w, layer, out, made, 0);
    return KURE_OK;
}

static enum kure_status emit_concatenate(struct writer *w, const struct kure_integer_layer *layer, int out, struct kure_error *error)
{
    const struct kure_integer_tensor *to = tensor(w, out);
    int *inputs = kure_onnx_take(&w->onnx, (size_t)layer->input_count * sizeof *inputs), channels = 0;
    if (!inputs) return KURE_OK;
    for (int i = 0; i < layer->input_count; ++i) {
        const struct kure_integer_layer *from = layer->inputs[i] > 0 ? &w->model->layers[layer->inputs[i] - 1] : NULL;
        const struct kure_integer_tensor *in = tensor(w, layer->inputs[i]);
        if (in->height != to->height || in->width != to->width) return refuse(w, layer, "inputs of different sizes", error);
        channels += in->channels;
        inputs[i] = kure_onnx_skips(w->model, from) ? from->inputs[0] : layer->inputs[i];
    }
    if (channels != to->channels) return refuse(w, layer, "an output of another shape than its inputs'", error);
    char *made;
    Onnx__NodeProto *node;
    if (w->form == QDQ) node = compute(w, "Concat", NULL, out, inputs, layer->input_count, &made);
    else {
        made = codes_made(w, out);
        node = kure_onnx_node(&w->onnx, "com.microsoft", "QLinearConcat", made);
        kure_onnx_input_of(&w->onnx, node, w->scale[out]);
        kure_onnx_input_of(&w->onnx, node, w->zero_point[out]);
        for (int i = 0; i < layer->input_count; ++i) read_codes(w, node, inputs[i]);
    }
    kure_onnx_set_int(&w->onnx, node, "axis", 1);
    store(w, layer, out, made, 0);
    return KURE_OK;
}

static enum kure_status emit_lookup(struct writer *w, const struct kure_integer_layer *layer, int out, struct kure_error *error)
{
    (void)error;
    int in = layer->inputs[0];
    if (kure_onnx_skips(w->model, layer)) return KURE_OK;
    if (layer->lookup == KURE_LOOKUP_REQUANTIZE) {
        quantize(w, out, real(w, in));
    } else if (layer->activation == KURE_INTEGER_LEAKY) {
        char *made;
        Onnx__NodeProto *node = compute(w, "LeakyRelu", "QLinearLeakyRelu", out, layer->inputs, 1, &made);
        kure_onnx_set_float(&w->onnx, node, "alpha", layer->slope);
        store(w, layer, out, made, 0);
    } else {
        kure_onnx_table(&w->onnx, layer->table, w->code_type, w->lift, tensor(w, out)->name, w->quantized[in], w->quantized[out]);
    }
    return KURE_OK;
}

static enum kure_status emit_add(struct writer *w, const struct kure_integer_layer *layer, int out, struct kure_error *error)
{
    const struct kure_integer_tensor *a = tensor(w, layer->inputs[0]), *b = tensor(w, layer->inputs[1]);
    char *made;
    if (a->channels != b->channels || a->height != b->height || a->width != b->width) return refuse(w, layer, "the sum of tensors of different shapes", error);
    if (layer->alpha != 1 || layer->beta != 1) return refuse(w, layer, "a sum with alpha or beta", error);
    compute(w, "Add", "QLinearAdd", out, layer->inputs, 2, &made);
    store(w, layer, out, made, layer->arithmetic != KURE_ARITHMETIC_FLOAT32);
    return KURE_OK;
}

static emit_function *const emitters[KURE_KINDS] = {
    [KURE_KIND_CONVOLUTION] = emit_convolution, [KURE_KIND_CONNECTED] = emit_convolution,     [KURE_KIND_MAXPOOL] = emit_move,
    [KURE_KIND_AVERAGE_POOL] = emit_average_pool, [KURE_KIND_UPSAMPLE] = emit_move,           [KURE_KIND_REORG] = emit_move,
    [KURE_KIND_CONCATENATE] = emit_concatenate, [KURE_KIND_LOOKUP] = emit_lookup,             [KURE_KIND_ADD] = emit_add,
};

/* ---- the whole ------------------------------------------------------------------ */

static void emit_outputs(struct writer *w)
{
    for (int i = 0; i < w->model->output_count; ++i) {
        const struct kure_integer_output *output = &w->model->outputs[i];
        const struct kure_integer_tensor *t = tensor(w, output->tensor);
        kure_onnx_graph_output(&w->onnx, real(w, output->tensor), t->channels, t->height, t->width);
        if (output->decoder < 0) continue;
        kure_onnx_note(&w->onnx, kure_onnx_name(&w->onnx, "%s_value", t->name),
                       kure_onnx_name(&w->onnx, "read by layer %d [%s]", output->decoder, output->decoder_type));
    }
}

static enum kure_status write_onnx(const struct kure_integer_model *model, enum form form, const char *folder, const char *name, struct kure_error *error)
{
    int packed = 0, float_bias = 0;
    for (int i = 0; i < model->layer_count; ++i) {
        const struct kure_integer_layer *layer = &model->layers[i];
        packed |= form == QDQ && layer->rows > 0 && layer->stored_bits == 4;
        float_bias |= layer->rows > 0 && !layer->bias_codes;
    }
    struct writer w = {.model = model, .form = form, .lift = float_bias ? 0 : 128,
                       .code_type = float_bias ? ONNX__TENSOR_PROTO__DATA_TYPE__INT8 : ONNX__TENSOR_PROTO__DATA_TYPE__UINT8};
    kure_onnx_init(&w.onnx, packed ? 10 : 7, packed ? 21 : 13, form == QLINEAR); /* int4 came with opset 21 */
    name_tensors(&w);
    char *input = kure_onnx_name(&w.onnx, "%s", tensor(&w, 0)->name);
    enum kure_status status = KURE_OK;
    if (!w.onnx.out_of_memory) {
        kure_onnx_graph_input(&w.onnx, input, tensor(&w, 0)->channels, tensor(&w, 0)->height, tensor(&w, 0)->width);
        kure_onnx_note(&w.onnx, "profile", model->profile);
        quantize(&w, 0, input);
    }
    for (int i = 0; i < model->layer_count && status == KURE_OK && !w.onnx.out_of_memory; ++i) {
        status = emitters[model->layers[i].kind](&w, &model->layers[i], i + 1, error);
    }
    if (status == KURE_OK && !w.onnx.out_of_memory) emit_outputs(&w);
    if (status == KURE_OK) status = kure_onnx_write(&w.onnx, folder, name, error);
    kure_onnx_free(&w.onnx);
    return status;
}

enum kure_status kure_write_onnx_qdq(const struct kure_integer_model *model, const char *folder, struct kure_error *error)
{
    return write_onnx(model, QDQ, folder, "model.qdq.onnx", error);
}

enum kure_status kure_write_onnx_qlinear(const struct kure_integer_model *model, const char *folder, struct kure_error *error)
{
    return write_onnx(model, QLINEAR, folder, "model.qop.onnx", error);
}
