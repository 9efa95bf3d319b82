/*
 * onnx_operators.h: layers that are the same ONNX operators whatever the form of the graph.
 */
#ifndef KURE_EXPORT_ONNX_OPERATORS_H
#define KURE_EXPORT_ONNX_OPERATORS_H

#include "model.h"
#include "onnx_graph.h"

/* 1: the layer (NULL: the input) only brings a tensor to the scale of the CONCATENATE layers that alone read it. It
 * is left out: an ONNX concatenation takes inputs of any scale, and two quantizers in a row would be merged into one. */
int kure_onnx_skips(const struct kure_integer_model *model, const struct kure_integer_layer *layer);

/* Attributes of a (QLinear) Conv; CONNECTED is one over the whole image. in: its input. */
void kure_onnx_convolution_attributes(struct kure_onnx *onnx, Onnx__NodeProto *node, const struct kure_integer_layer *layer,
                                      const struct kure_integer_tensor *in);

/* The activation of float values that a layer applies before its quantizer; returns the name of what it makes. */
char *kure_onnx_activation(struct kure_onnx *onnx, const struct kure_integer_layer *layer, char *value);

/* MAXPOOL, UPSAMPLE, REORG: values or codes called `from` become `to`. */
void kure_onnx_move(struct kure_onnx *onnx, const struct kure_integer_layer *layer, const struct kure_integer_tensor *in,
                    const struct kure_integer_tensor *out, char *from, char *to);

/* codes[i] = table[i + 128], exact for any activation.
 *   type, lift  [in]: of the codes in the graph: INT8 and 0, or UINT8 and 128
 *   name  [in]: begins the names of the constants */
void kure_onnx_table(struct kure_onnx *onnx, const int8_t *table, int type, int lift, const char *name, char *from, char *to);

/* Codes -8..7 two in a byte, the first in the low half; [(count + 1) / 2]. NULL: out of memory. */
void *kure_onnx_nibbles(struct kure_onnx *onnx, const int8_t *codes, size_t count);

/* int4 constants called `from` become int8 ones called `to`, by DequantizeLinear, Round and QuantizeLinear of scale 1. A
 * runtime folds an operator of constants that stands between those two when it loads the model, and then has integer
 * convolutions of 8 bits; onnxruntime does since 1.19, which cannot Cast int4. */
void kure_onnx_widen(struct kure_onnx *onnx, char *from, char *to);

#endif
