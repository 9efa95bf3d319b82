/* onnx_operators.c: see onnx_operators.h. Tested by tests/test_clients_onnx.py. */
#include "onnx_operators.h"

#include <string.h>

int kure_onnx_skips(const struct kure_integer_model *model, const struct kure_integer_layer *layer)
{
    if (!layer || layer->lookup != KURE_LOOKUP_REQUANTIZE) return 0;
    int made = (int)(layer - model->layers) + 1, readers = 0;
    for (int i = 0; i < model->output_count; ++i) {
        if (model->outputs[i].tensor == made) return 0;
    }
    for (int i = made; i < model->layer_count; ++i) {
        const struct kure_integer_layer *reader = &model->layers[i];
        for (int k = 0; k < reader->input_count; ++k) {
            if (reader->inputs[k] != made) continue;
            if (reader->kind != KURE_KIND_CONCATENATE) return 0;
            ++readers;
        }
    }
    return readers > 0;
}

void kure_onnx_convolution_attributes(struct kure_onnx *onnx, Onnx__NodeProto *node, const struct kure_integer_layer *layer,
                                      const struct kure_integer_tensor *in)
{
    int connected = layer->kind == KURE_KIND_CONNECTED, padding = connected ? 0 : layer->padding, stride = connected ? 1 : layer->stride;
    int64_t size[2] = {connected ? in->height : layer->size, connected ? in->width : layer->size};
    kure_onnx_set_ints(onnx, node, "kernel_shape", 2, size);
    kure_onnx_set_ints(onnx, node, "strides", 2, (int64_t[]){stride, stride});
    kure_onnx_set_ints(onnx, node, "pads", 4, (int64_t[]){padding, padding, padding, padding});
    kure_onnx_set_ints(onnx, node, "dilations", 2, (int64_t[]){1, 1});
    kure_onnx_set_int(onnx, node, "group", connected ? 1 : layer->groups);
}

static char *float_constant(struct kure_onnx *onnx, char *name, float value)
{
    float *own = kure_onnx_take(onnx, sizeof *own);
    if (own) *own = value;
    return kure_onnx_constant(onnx, name, ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT, 0, NULL, own, sizeof *own);
}

char *kure_onnx_activation(struct kure_onnx *onnx, const struct kure_integer_layer *layer, char *value)
{
    static const char *const operators[] = {
        [KURE_INTEGER_RELU] = "Relu", [KURE_INTEGER_RELU6] = "Clip", [KURE_INTEGER_LEAKY] = "LeakyRelu", [KURE_INTEGER_OTHER] = NULL};
    const char *operator = operators[layer->activation];
    if (!operator) return value;
    char *out = kure_onnx_name(onnx, "%s_activated", value);
    Onnx__NodeProto *node = kure_onnx_node(onnx, "", operator, out);
    kure_onnx_input_of(onnx, node, value);
    if (layer->activation == KURE_INTEGER_LEAKY) kure_onnx_set_float(onnx, node, "alpha", layer->slope);
    if (layer->activation == KURE_INTEGER_RELU6) {
        kure_onnx_input_of(onnx, node, float_constant(onnx, kure_onnx_name(onnx, "%s_least", out), 0));
        kure_onnx_input_of(onnx, node, float_constant(onnx, kure_onnx_name(onnx, "%s_most", out), layer->slope));
    }
    return out;
}

static char *dims_constant(struct kure_onnx *onnx, char *name, int64_t count, const int64_t *dims)
{
    int64_t *own = kure_onnx_take(onnx, (size_t)count * sizeof *own);
    if (own) memcpy(own, dims, (size_t)count * sizeof *own);
    return kure_onnx_constant(onnx, name, ONNX__TENSOR_PROTO__DATA_TYPE__INT64, 1, &count, own, (size_t)count * sizeof *own);
}

/* Padding behind the last row: what the last window still needs. */
static int behind(int in, int out, const struct kure_integer_layer *layer)
{
    int needed = (out - 1) * layer->stride + layer->size - in - layer->padding / 2;
    return needed > 0 ? needed : 0;
}

static void max_pool(struct kure_onnx *onnx, const struct kure_integer_layer *layer, const struct kure_integer_tensor *in,
                     const struct kure_integer_tensor *out, char *from, char *to)
{
    int before = layer->padding / 2;
    Onnx__NodeProto *node = kure_onnx_node(onnx, "", "MaxPool", to);
    kure_onnx_input_of(onnx, node, from);
    kure_onnx_set_ints(onnx, node, "kernel_shape", 2, (int64_t[]){layer->size, layer->size});
    kure_onnx_set_ints(onnx, node, "strides", 2, (int64_t[]){layer->stride, layer->stride});
    kure_onnx_set_ints(onnx, node, "pads", 4,
                       (int64_t[]){before, before, behind(in->height, out->height, layer), behind(in->width, out->width, layer)});
}

static void upsample(struct kure_onnx *onnx, const struct kure_integer_layer *layer, const struct kure_integer_tensor *out, char *from, char *to)
{
    float *scales = kure_onnx_take(onnx, 4 * sizeof *scales);
    char *name = kure_onnx_name(onnx, "%s_factors", out->name);
    if (!scales) return;
    scales[0] = scales[1] = 1;
    scales[2] = scales[3] = (float)layer->stride;
    Onnx__NodeProto *node = kure_onnx_node(onnx, "", "Resize", to);
    kure_onnx_input_of(onnx, node, from);
    kure_onnx_input_of(onnx, node, kure_onnx_name(onnx, "%s", "")); /* roi: of other modes */
    kure_onnx_input_of(onnx, node, kure_onnx_constant(onnx, name, ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT, 1, (int64_t[]){4}, scales, 4 * sizeof *scales));
    kure_onnx_set_text(onnx, node, "mode", "nearest");
    kure_onnx_set_text(onnx, node, "coordinate_transformation_mode", "asymmetric");
    kure_onnx_set_text(onnx, node, "nearest_mode", "floor");
}

/* Every mode is a change of the order of five axes (two for the flat ones). With s = stride, FORWARD sees the input as
 * [c/(s*s)][h][s][w][s] and the output as [s][s][c/(s*s)][h][w]; h, w and c of the input. REVERSE goes back. */
static void reorg(struct kure_onnx *onnx, const struct kure_integer_layer *layer, const struct kure_integer_tensor *in,
                  const struct kure_integer_tensor *out, char *from, char *to)
{
    int64_t c = in->channels, h = in->height, w = in->width, s = layer->stride, inner = c / (s * s);
    const struct {
        int count;
        int64_t dims[5], order[5];
    } ways[KURE_REORGS] = {
        [KURE_REORG_FORWARD] = {5, {inner, h, s, w, s}, {2, 4, 0, 1, 3}},
        [KURE_REORG_REVERSE] = {5, {s, s, inner, h, w}, {2, 3, 0, 4, 1}},
        [KURE_REORG_FLATTEN] = {2, {c, h * w}, {1, 0}},
        [KURE_REORG_UNFLATTEN] = {2, {h * w, c}, {1, 0}},
    };
    const char *name = out->name;
    uint32_t mode = layer->parameter[0];
    char *seen = kure_onnx_name(onnx, "%s_seen", to), *turned = kure_onnx_name(onnx, "%s_turned", to);
    Onnx__NodeProto *node = kure_onnx_node(onnx, "", "Reshape", seen);
    kure_onnx_input_of(onnx, node, from);
    kure_onnx_input_of(onnx, node, dims_constant(onnx, kure_onnx_name(onnx, "%s_axes", name), ways[mode].count, ways[mode].dims));
    node = kure_onnx_node(onnx, "", "Transpose", turned);
    kure_onnx_input_of(onnx, node, seen);
    kure_onnx_set_ints(onnx, node, "perm", (size_t)ways[mode].count, ways[mode].order);
    node = kure_onnx_node(onnx, "", "Reshape", to);
    kure_onnx_input_of(onnx, node, turned);
    kure_onnx_input_of(onnx, node, dims_constant(onnx, kure_onnx_name(onnx, "%s_shape", name), 4, (int64_t[]){1, out->channels, out->height, out->width}));
}

void kure_onnx_move(struct kure_onnx *onnx, const struct kure_integer_layer *layer, const struct kure_integer_tensor *in,
                    const struct kure_integer_tensor *out, char *from, char *to)
{
    if (layer->kind == KURE_KIND_MAXPOOL) max_pool(onnx, layer, in, out, from, to);
    else if (layer->kind == KURE_KIND_UPSAMPLE) upsample(onnx, layer, out, from, to);
    else reorg(onnx, layer, in, out, from, to);
}

void kure_onnx_table(struct kure_onnx *onnx, const int8_t *table, int type, int lift, const char *name, char *from, char *to)
{
    int8_t *own = kure_onnx_take(onnx, 256);
    int32_t *offset = kure_onnx_take(onnx, sizeof *offset);
    if (!offset) return;
    for (int i = 0; i < 256; ++i) own[i] = (int8_t)(uint8_t)(table[i] + lift);
    *offset = 128 - lift; /* code + 128 is the place in the table */
    char *wide = kure_onnx_name(onnx, "%s_wide", name), *place = kure_onnx_name(onnx, "%s_place", name);
    Onnx__NodeProto *node = kure_onnx_node(onnx, "", "Cast", wide);
    kure_onnx_input_of(onnx, node, from);
    kure_onnx_set_int(onnx, node, "to", ONNX__TENSOR_PROTO__DATA_TYPE__INT32);
    node = kure_onnx_node(onnx, "", "Add", place);
    kure_onnx_input_of(onnx, node, wide);
    kure_onnx_input_of(onnx, node, kure_onnx_constant(onnx, kure_onnx_name(onnx, "%s_offset", name), ONNX__TENSOR_PROTO__DATA_TYPE__INT32, 0, NULL, offset, sizeof *offset));
    node = kure_onnx_node(onnx, "", "Gather", to);
    kure_onnx_input_of(onnx, node, kure_onnx_constant(onnx, kure_onnx_name(onnx, "%s_table", name), type, 1, (int64_t[]){256}, own, 256));
    kure_onnx_input_of(onnx, node, place);
    kure_onnx_set_int(onnx, node, "axis", 0);
}

void *kure_onnx_nibbles(struct kure_onnx *onnx, const int8_t *codes, size_t count)
{
    uint8_t *out = kure_onnx_take(onnx, (count + 1) / 2);
    for (size_t i = 0; out && i < count; ++i) out[i / 2] |= (uint8_t)((codes[i] & 15) << 4 * (i % 2));
    return out;
}

void kure_onnx_widen(struct kure_onnx *onnx, char *from, char *to)
{
    static const int8_t zero = 0;
    char *scale = float_constant(onnx, kure_onnx_name(onnx, "%s_scale", from), 1), *value = kure_onnx_name(onnx, "%s_value", from);
    char *whole = kure_onnx_name(onnx, "%s_whole", from), *zero_point = kure_onnx_name(onnx, "%s_zero_point", from);
    kure_onnx_constant(onnx, zero_point, ONNX__TENSOR_PROTO__DATA_TYPE__INT8, 0, NULL, &zero, 1);
    Onnx__NodeProto *node = kure_onnx_node(onnx, "", "DequantizeLinear", value);
    kure_onnx_input_of(onnx, node, from);
    kure_onnx_input_of(onnx, node, scale);
    kure_onnx_input_of(onnx, kure_onnx_node(onnx, "", "Round", whole), value);
    node = kure_onnx_node(onnx, "", "QuantizeLinear", to);
    kure_onnx_input_of(onnx, node, whole);
    kure_onnx_input_of(onnx, node, scale);
    kure_onnx_input_of(onnx, node, zero_point);
}
