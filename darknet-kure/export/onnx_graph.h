/*
 * onnx_graph.h: an ONNX model while it is being made: nodes, constants, inputs, outputs.
 *
 * Over the code that protoc-c makes of the ONNX schema (onnx.proto of Debian's libonnx-dev).
 * What a graph points to is its own, but for the bytes of constants: those are borrowed and
 * go from where they lie into the file. Memory that runs out is remembered; every function
 * then does nothing more, and kure_onnx_write says so.
 */
#ifndef KURE_EXPORT_ONNX_GRAPH_H
#define KURE_EXPORT_ONNX_GRAPH_H

#include <stddef.h>
#include <stdint.h>

#include "kure.h"
#include <onnx.pb-c.h>

/* TensorProto.DataType of later schemas than Debian's */
enum { KURE_ONNX_INT4 = 22 };

struct kure_onnx {
    Onnx__ModelProto model;
    Onnx__GraphProto graph;
    struct kure_onnx_block *blocks; /* owned memory, the last one first */
    int out_of_memory;
};

/* An empty graph.
 *   opset  [in]: version of the operators of ONNX itself; ir: version of the file format that goes with it.
 *   microsoft  [in]: 1: with the operators of the domain com.microsoft too */
void kure_onnx_init(struct kure_onnx *onnx, int ir, int opset, int microsoft);

/* bytes zeroed, aligned for any type, freed with the graph; NULL: out of memory. */
void *kure_onnx_take(struct kure_onnx *onnx, size_t bytes);

/* A name by printf's rules, owned by the graph; "" when out of memory. */
__attribute__((format(printf, 2, 3))) char *kure_onnx_name(struct kure_onnx *onnx, const char *format, ...);

/* A node with one output; further inputs by kure_onnx_input_of. "" as an input is an optional one that is not given.
 *   name  [in]: of the node; domain: "" or "com.microsoft"
 * NULL when out of memory: the functions below accept that. */
Onnx__NodeProto *kure_onnx_node(struct kure_onnx *onnx, const char *domain, const char *operator, char *output);
void kure_onnx_input_of(struct kure_onnx *onnx, Onnx__NodeProto *node, char *input);

/* Attributes of a node. */
void kure_onnx_set_int(struct kure_onnx *onnx, Onnx__NodeProto *node, const char *name, int64_t value);
void kure_onnx_set_ints(struct kure_onnx *onnx, Onnx__NodeProto *node, const char *name, size_t count, const int64_t *values);
void kure_onnx_set_float(struct kure_onnx *onnx, Onnx__NodeProto *node, const char *name, float value);
void kure_onnx_set_text(struct kure_onnx *onnx, Onnx__NodeProto *node, const char *name, const char *value);

/* A constant.
 *   type  [in]: ONNX__TENSOR_PROTO__DATA_TYPE__*, or KURE_ONNX_INT4
 *   dims  [in]: [dim_count]; 0 of them: a scalar
 *   data  [in]: [bytes], little-endian; borrowed until the file is written
 * Returns name. */
char *kure_onnx_constant(struct kure_onnx *onnx, char *name, int type, size_t dim_count, const int64_t *dims, const void *data, size_t bytes);

/* An input or output of the whole graph: float32 [1][channels][height][width]. */
void kure_onnx_graph_input(struct kure_onnx *onnx, char *name, int channels, int height, int width);
void kure_onnx_graph_output(struct kure_onnx *onnx, char *name, int channels, int height, int width);

/* A line of metadata. */
void kure_onnx_note(struct kure_onnx *onnx, const char *key, const char *value);

/* Writes folder/name. KURE_ERROR_FILE, KURE_ERROR_MEMORY. */
KURE_CHECKED enum kure_status kure_onnx_write(struct kure_onnx *onnx, const char *folder, const char *name, struct kure_error *error);

void kure_onnx_free(struct kure_onnx *onnx);

#endif
