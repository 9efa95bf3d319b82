/* model.c: a file that was checked, as structs; names of statuses. */
#include "kinds.h"

#include <string.h>

const char *kure_runtime_status_text(enum kure_runtime_status status)
{
    static const char *const texts[KURE_RUNTIME_STATUSES] = {
        [KURE_RUNTIME_OK] = "the model is sound",
        [KURE_RUNTIME_NOT_A_MODEL] = "this is no integer model: its first bytes are others",
        [KURE_RUNTIME_NEWER] = "the file's version is newer than this program",
        [KURE_RUNTIME_CUT] = "the file is cut off or has bytes behind its end",
        [KURE_RUNTIME_CHECKSUM] = "the file is damaged: its checksum does not fit",
        [KURE_RUNTIME_RANGE] = "a value is out of its range",
        [KURE_RUNTIME_OUTSIDE] = "an array lies outside of the file, or a tensor outside of the arena",
        [KURE_RUNTIME_SHAPE] = "a shape does not follow from the others",
        [KURE_RUNTIME_ORDER] = "a tensor is read before it is written, or after it was overwritten",
        [KURE_RUNTIME_OVERFLOW] = "sums of these weights may leave 32 bits",
        [KURE_RUNTIME_ARENA] = "the arena is too small, or not aligned to 4 bytes",
        [KURE_RUNTIME_NO_PIXELS] = "the model has no table of pixels",
    };
    return (unsigned)status < KURE_RUNTIME_STATUSES ? texts[status] : "?";
}

size_t kure_runtime_arena_bytes(const struct kure_model *model)
{
    return ((size_t)model->activation_bytes + 3) / 4 * 4 + model->work_bytes;
}

struct kure_model_tensor kure_runtime_tensor(const struct kure_model *model, uint32_t tensor)
{
    uint32_t at = model->tensors + tensor * (uint32_t)KURE_MODEL_TENSOR_BYTES;
    struct kure_model_tensor t = {
        .name = (const char *)model->bytes + at + 40,
        .channels = kure_array_word(model, at, KURE_TENSOR_CHANNELS),
        .height = kure_array_word(model, at, KURE_TENSOR_HEIGHT),
        .width = kure_array_word(model, at, KURE_TENSOR_WIDTH),
        .place = kure_array_word(model, at, KURE_TENSOR_PLACE),
        .last_reader = kure_array_word(model, at, KURE_TENSOR_LAST_READER),
        .scale_bits = kure_array_word(model, at, KURE_TENSOR_SCALE),
        .zero_point = kure_signed(kure_array_word(model, at, KURE_TENSOR_ZERO_POINT)),
        .low = kure_signed(kure_array_word(model, at, KURE_TENSOR_LOW)),
        .high = kure_signed(kure_array_word(model, at, KURE_TENSOR_HIGH)),
        .bits = kure_signed(kure_array_word(model, at, KURE_TENSOR_BITS)),
    };
    memcpy(&t.scale, &t.scale_bits, sizeof t.scale);
    t.elements = t.channels * t.height * t.width;
    return t;
}

struct kure_model_layer kure_layer_words(const struct kure_model *model, uint32_t layer)
{
    uint32_t at = model->layers + layer * (uint32_t)KURE_MODEL_LAYER_BYTES;
    struct kure_model_layer l = {
        .kind = (enum kure_model_kind)kure_array_word(model, at, KURE_LAYER_KIND),
        .arithmetic = (enum kure_arithmetic)kure_array_word(model, at, KURE_LAYER_ARITHMETIC),
        .number = layer,
        .source = kure_array_word(model, at, KURE_LAYER_SOURCE),
        .input_count = kure_array_word(model, at, KURE_LAYER_INPUT_COUNT),
        .size = kure_array_word(model, at, KURE_LAYER_SIZE),
        .stride = kure_array_word(model, at, KURE_LAYER_STRIDE),
        .padding = kure_array_word(model, at, KURE_LAYER_PADDING),
        .groups = kure_array_word(model, at, KURE_LAYER_GROUPS),
        .weight_bits = kure_array_word(model, at, KURE_LAYER_WEIGHT_BITS),
        .inputs = kure_array_word(model, at, KURE_LAYER_INPUTS),
        .weights = kure_array_word(model, at, KURE_LAYER_WEIGHTS),
        .biases = kure_array_word(model, at, KURE_LAYER_BIASES),
        .multipliers = kure_array_word(model, at, KURE_LAYER_MULTIPLIERS),
        .table = kure_array_word(model, at, KURE_LAYER_TABLE),
    };
    for (uint32_t i = 0; i < 10; i++) l.parameter[i] = kure_array_word(model, at, KURE_LAYER_PARAMETER + i);
    return l;
}

uint32_t kure_runtime_input(const struct kure_model *model, const struct kure_model_layer *layer, uint32_t i)
{
    return kure_array_word(model, layer->inputs, i);
}

uint32_t kure_runtime_output(const struct kure_model *model, uint32_t i)
{
    return kure_array_word(model, model->outputs, i);
}

const char *kure_runtime_profile(const struct kure_model *model)
{
    return (const char *)model->bytes + 72;
}

void kure_layer_see(const struct kure_model *m, uint32_t layer, struct kure_placed_layer *v)
{
    v->l = kure_layer_words(m, layer);
    v->a = kure_runtime_tensor(m, kure_runtime_input(m, &v->l, 0));
    v->b = v->l.input_count > 1 ? kure_runtime_tensor(m, kure_runtime_input(m, &v->l, 1)) : v->a;
    v->out = kure_runtime_tensor(m, layer + 1);
    if (v->l.kind == KURE_KIND_CONVOLUTION && v->l.groups) v->l.row = v->a.channels / v->l.groups * v->l.size * v->l.size;
    if (v->l.kind == KURE_KIND_CONNECTED) v->l.row = v->a.elements;
    if (v->l.row) v->l.rows = v->out.channels;
}

struct kure_model_layer kure_runtime_layer(const struct kure_model *model, uint32_t layer)
{
    struct kure_placed_layer v;
    kure_layer_see(model, layer, &v);
    return v.l;
}
