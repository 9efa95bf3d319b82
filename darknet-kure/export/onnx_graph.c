/* onnx_graph.c: see onnx_graph.h. Tested by tests/test_clients_onnx.py. */
#define _GNU_SOURCE
#include "onnx_graph.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bundle.h"
#include "error.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "constants go into the file as they lie in memory");

struct kure_onnx_block {
    struct kure_onnx_block *next;
    max_align_t bytes[];
};

void *kure_onnx_take(struct kure_onnx *onnx, size_t bytes)
{
    struct kure_onnx_block *block = onnx->out_of_memory ? NULL : calloc(1, sizeof *block + bytes);
    if (!block) {
        onnx->out_of_memory = 1;
        return NULL;
    }
    block->next = onnx->blocks;
    onnx->blocks = block;
    return block->bytes;
}

char *kure_onnx_name(struct kure_onnx *onnx, const char *format, ...)
{
    static char empty[1]; /* when out of memory: nothing is written then */
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, again);
    va_end(again);
    char *out = length < 0 ? NULL : kure_onnx_take(onnx, (size_t)length + 1);
    if (out) vsnprintf(out, (size_t)length + 1, format, arguments);
    va_end(arguments);
    return out ? out : empty;
}

static char *copy(struct kure_onnx *onnx, const char *text)
{
    return kure_onnx_name(onnx, "%s", text);
}

/* One more pointer at the end of a repeated field. The array doubles: it is full whenever count is a power of two. */
static void append(struct kure_onnx *onnx, size_t *count, void *array, void *item)
{
    void **items;
    memcpy(&items, array, sizeof items); /* any pointer to pointers */
    if ((*count & (*count - 1)) == 0) {
        void **larger = kure_onnx_take(onnx, (*count ? 2 * *count : 1) * sizeof *larger);
        if (!larger) return;
        if (*count) memcpy(larger, items, *count * sizeof *larger);
        memcpy(array, &larger, sizeof larger);
        items = larger;
    }
    items[(*count)++] = item;
}

static void add_opset(struct kure_onnx *onnx, const char *domain, int version)
{
    Onnx__OperatorSetIdProto *opset = kure_onnx_take(onnx, sizeof *opset);
    if (!opset) return;
    onnx__operator_set_id_proto__init(opset);
    opset->domain = copy(onnx, domain);
    opset->has_version = 1;
    opset->version = version;
    append(onnx, &onnx->model.n_opset_import, &onnx->model.opset_import, opset);
}

void kure_onnx_init(struct kure_onnx *onnx, int ir, int opset, int microsoft)
{
    memset(onnx, 0, sizeof *onnx);
    onnx__model_proto__init(&onnx->model);
    onnx__graph_proto__init(&onnx->graph);
    onnx->model.graph = &onnx->graph;
    onnx->model.has_ir_version = 1;
    onnx->model.ir_version = ir;
    onnx->model.producer_name = copy(onnx, "darknet-kure");
    onnx->graph.name = copy(onnx, "darknet");
    add_opset(onnx, "", opset);
    if (microsoft) add_opset(onnx, "com.microsoft", 1);
}

Onnx__NodeProto *kure_onnx_node(struct kure_onnx *onnx, const char *domain, const char *operator, char *output)
{
    Onnx__NodeProto *node = kure_onnx_take(onnx, sizeof *node);
    if (!node) return NULL;
    onnx__node_proto__init(node);
    node->op_type = copy(onnx, operator);
    if (*domain) node->domain = copy(onnx, domain);
    node->name = kure_onnx_name(onnx, "%s_%s", output, operator);
    append(onnx, &node->n_output, &node->output, output);
    append(onnx, &onnx->graph.n_node, &onnx->graph.node, node);
    return node;
}

void kure_onnx_input_of(struct kure_onnx *onnx, Onnx__NodeProto *node, char *input)
{
    if (node) append(onnx, &node->n_input, &node->input, input);
}

static Onnx__AttributeProto *attribute(struct kure_onnx *onnx, Onnx__NodeProto *node, const char *name, Onnx__AttributeProto__AttributeType type)
{
    Onnx__AttributeProto *a = node ? kure_onnx_take(onnx, sizeof *a) : NULL;
    if (!a) return NULL;
    onnx__attribute_proto__init(a);
    a->name = copy(onnx, name);
    a->has_type = 1;
    a->type = type;
    append(onnx, &node->n_attribute, &node->attribute, a);
    return a;
}

void kure_onnx_set_int(struct kure_onnx *onnx, Onnx__NodeProto *node, const char *name, int64_t value)
{
    Onnx__AttributeProto *a = attribute(onnx, node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT);
    if (!a) return;
    a->has_i = 1;
    a->i = value;
}

void kure_onnx_set_ints(struct kure_onnx *onnx, Onnx__NodeProto *node, const char *name, size_t count, const int64_t *values)
{
    Onnx__AttributeProto *a = attribute(onnx, node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS);
    int64_t *own = a ? kure_onnx_take(onnx, count * sizeof *own) : NULL;
    if (!own) return;
    memcpy(own, values, count * sizeof *own);
    a->n_ints = count;
    a->ints = own;
}

void kure_onnx_set_float(struct kure_onnx *onnx, Onnx__NodeProto *node, const char *name, float value)
{
    Onnx__AttributeProto *a = attribute(onnx, node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT);
    if (!a) return;
    a->has_f = 1;
    a->f = value;
}

void kure_onnx_set_text(struct kure_onnx *onnx, Onnx__NodeProto *node, const char *name, const char *value)
{
    Onnx__AttributeProto *a = attribute(onnx, node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING);
    if (!a) return;
    a->has_s = 1;
    a->s.len = strlen(value);
    a->s.data = (uint8_t *)copy(onnx, value);
}

char *kure_onnx_constant(struct kure_onnx *onnx, char *name, int type, size_t dim_count, const int64_t *dims, const void *data, size_t bytes)
{
    Onnx__TensorProto *t = kure_onnx_take(onnx, sizeof *t);
    int64_t *own = kure_onnx_take(onnx, dim_count * sizeof *own);
    if (!own) return name;
    onnx__tensor_proto__init(t);
    if (dim_count) memcpy(own, dims, dim_count * sizeof *own);
    t->name = name;
    t->has_data_type = 1;
    t->data_type = type;
    t->n_dims = dim_count;
    t->dims = own;
    t->has_raw_data = 1;
    t->raw_data.len = bytes;
    t->raw_data.data = (uint8_t *)(uintptr_t)data;
    append(onnx, &onnx->graph.n_initializer, &onnx->graph.initializer, t);
    return name;
}

static Onnx__ValueInfoProto *image(struct kure_onnx *onnx, char *name, int channels, int height, int width)
{
    const int64_t dims[4] = {1, channels, height, width};
    Onnx__ValueInfoProto *info = kure_onnx_take(onnx, sizeof *info);
    Onnx__TypeProto *type = kure_onnx_take(onnx, sizeof *type);
    Onnx__TypeProto__Tensor *tensor = kure_onnx_take(onnx, sizeof *tensor);
    Onnx__TensorShapeProto *shape = kure_onnx_take(onnx, sizeof *shape);
    Onnx__TensorShapeProto__Dimension *dimension = kure_onnx_take(onnx, 4 * sizeof *dimension);
    if (!dimension) return NULL;
    onnx__value_info_proto__init(info);
    onnx__type_proto__init(type);
    onnx__type_proto__tensor__init(tensor);
    onnx__tensor_shape_proto__init(shape);
    for (int i = 0; i < 4; ++i) {
        onnx__tensor_shape_proto__dimension__init(&dimension[i]);
        dimension[i].value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
        dimension[i].dim_value = dims[i];
        append(onnx, &shape->n_dim, &shape->dim, &dimension[i]);
    }
    tensor->has_elem_type = 1;
    tensor->elem_type = ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT;
    tensor->shape = shape;
    type->value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
    type->tensor_type = tensor;
    info->name = name;
    info->type = type;
    return info;
}

void kure_onnx_graph_input(struct kure_onnx *onnx, char *name, int channels, int height, int width)
{
    Onnx__ValueInfoProto *info = image(onnx, name, channels, height, width);
    if (info) append(onnx, &onnx->graph.n_input, &onnx->graph.input, info);
}

void kure_onnx_graph_output(struct kure_onnx *onnx, char *name, int channels, int height, int width)
{
    Onnx__ValueInfoProto *info = image(onnx, name, channels, height, width);
    if (info) append(onnx, &onnx->graph.n_output, &onnx->graph.output, info);
}

void kure_onnx_note(struct kure_onnx *onnx, const char *key, const char *value)
{
    Onnx__StringStringEntryProto *entry = kure_onnx_take(onnx, sizeof *entry);
    if (!entry) return;
    onnx__string_string_entry_proto__init(entry);
    entry->key = copy(onnx, key);
    entry->value = copy(onnx, value);
    append(onnx, &onnx->model.n_metadata_props, &onnx->model.metadata_props, entry);
}

/* protobuf-c's way out of memory and into a file */
struct file_buffer {
    ProtobufCBuffer base;
    FILE *file;
};

static void write_bytes(ProtobufCBuffer *buffer, size_t count, const uint8_t *bytes)
{
    fwrite(bytes, 1, count, ((struct file_buffer *)(void *)buffer)->file); /* failures stay in ferror */
}

enum kure_status kure_onnx_write(struct kure_onnx *onnx, const char *folder, const char *name, struct kure_error *error)
{
    struct file_buffer buffer = {{write_bytes}, NULL};
    if (onnx->out_of_memory) return kure_fail_memory(error);
    enum kure_status status = kure_bundle_open(folder, name, "wb", &buffer.file, error);
    if (status != KURE_OK) return status;
    protobuf_c_message_pack_to_buffer(&onnx->model.base, &buffer.base);
    return kure_bundle_close(folder, name, buffer.file, error);
}

void kure_onnx_free(struct kure_onnx *onnx)
{
    for (struct kure_onnx_block *block = onnx->blocks; block;) {
        struct kure_onnx_block *next = block->next;
        free(block);
        block = next;
    }
    memset(onnx, 0, sizeof *onnx);
}
