/*
 * activation.c: what an activation becomes: limits of codes, a table, or a step of the
 * arithmetic.
 *
 * Linear, relu and relu6 rise, so that limits of the output's codes do what they do before the
 * quantizer. Any other activation lies between two quantizers, a function of 256 codes, unless
 * the profile's arithmetic is in float32 and applies a leaky one itself.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "builder.h"
#include "error.h"
#include "kure_math.h"

static int clamp(int x, int low, int high)
{
    return x < low ? low : x > high ? high : x;
}

/* As the simulation quantizes; values that are 0 within step/2 have the zero point. */
static int code_of(float value, const struct kure_network_quantizer *q, const struct kure_integer_tensor *out)
{
    struct kure_scale scale = {out->scale, out->zero_point};
    float y;
    kure_fake_quantize(&value, &y, 1, scale, &q->q, NULL);
    return clamp((int)rintf(y / out->scale) + out->zero_point, out->low, out->high);
}

void kure_builder_limit(const struct kure_builder *b, const struct kure_network_quantizer *q, struct kure_integer_tensor *t)
{
    const struct kure_network_layer *l = kure_builder_layer(b);
    int cap = l->activation == KURE_INTEGER_RELU6 ? code_of(l->slope, q, t) : t->high;
    if (l->activation != KURE_INTEGER_RELU && l->activation != KURE_INTEGER_RELU6) return;
    if (t->low < t->zero_point) t->low = t->zero_point;
    if (t->high > cap) t->high = cap;
}

int kure_builder_activated_code(const struct kure_builder *b, float value, const struct kure_network_quantizer *q,
                                const struct kure_integer_tensor *out)
{
    const struct kure_network_layer *l = kure_builder_layer(b);
    if (l->activation != KURE_INTEGER_LINEAR) l->activate(l, &value, 1);
    return code_of(kure_flush(value), q, out);
}

static int is_limit(enum kure_integer_activation activation)
{
    return activation == KURE_INTEGER_LINEAR || activation == KURE_INTEGER_RELU || activation == KURE_INTEGER_RELU6;
}

enum kure_status kure_builder_begin_activation(const struct kure_builder *b, int part, struct kure_integer_tensor *tensor,
                                               struct kure_integer_layer *layer, float *slope, int *has_lookup)
{
    const struct kure_network_layer *l = kure_builder_layer(b);
    int fused = !is_limit(l->activation) && !l->before.q.bits;
    *slope = 1;
    *has_lookup = !is_limit(l->activation) && !fused;
    layer->activation = *has_lookup ? KURE_INTEGER_LINEAR : l->activation;
    layer->activation_name = *has_lookup ? "linear" : l->activation_name;
    layer->slope = *has_lookup ? 0 : l->slope;
    if (fused && (!b->rules->float_bias || l->activation != KURE_INTEGER_LEAKY)) {
        return kure_builder_fail(b, b->rules->float_bias ? "activation=%s: profile=%s applies linear, relu, relu6 and leaky ones only: take one of these, or a "
                                                           "profile with tables (onnx, tflite, cmsis, pow2)"
                                                         : "activation=%s has no quantizer in front of it, which profile=%s needs: train or calibrate with "
                                                           "that profile in [quantization]", l->activation_name, b->profile->name);
    }
    if (l->before.q.bits && b->profile->fuses) {
        return kure_builder_fail(b, "activation=%s has a quantizer in front of it, profile=%s applies it in float: train or calibrate with that profile in "
                                 "[quantization]", l->activation_name, b->profile->name);
    }
    if (fused) *slope = l->slope;
    enum kure_status status = kure_builder_tensor(b, *has_lookup ? &l->before : &l->after, part, tensor);
    if (status == KURE_OK && !*has_lookup) kure_builder_limit(b, &l->after, tensor);
    return status;
}

/* table[code + 128] = function of the code within those that the input can have, clamped to the output's */
static void fill_table(const struct kure_builder *b, const struct kure_integer_layer *layer, const struct kure_integer_tensor *in,
                       const struct kure_integer_tensor *out)
{
    const struct kure_network_layer *l = kure_builder_layer(b);
    int by_rules = layer->lookup == KURE_LOOKUP_REQUANTIZE || layer->activation == KURE_INTEGER_LEAKY;
    struct kure_code_scales s = {.in = in, .out = out, .slope = layer->activation == KURE_INTEGER_LEAKY ? layer->slope : 1,
                                 .is_leaky = layer->activation == KURE_INTEGER_LEAKY};
    for (int i = 0; i < 256; ++i) {
        int code = clamp(i - 128, in->low, in->high);
        float value = in->scale * (float)(code - in->zero_point);
        int y = by_rules ? b->rules->code(&s, code) : kure_builder_activated_code(b, value, &l->after, out);
        layer->table[i] = (int8_t)clamp(y, out->low, out->high);
    }
}

static enum kure_status add_lookup(struct kure_builder *b, int from, struct kure_integer_layer *layer, struct kure_integer_tensor *out,
                                   const char *name)
{
    layer->kind = KURE_KIND_LOOKUP;
    layer->input_count = 1;
    layer->table = malloc(256);
    if (!layer->table) return kure_fail_memory(b->error);
    fill_table(b, layer, &b->model->tensors[from], out);
    enum kure_status status = kure_builder_add(b, layer, &from, out, name);
    if (status != KURE_OK) free(layer->table);
    return status;
}

enum kure_status kure_builder_add_activation(struct kure_builder *b, int part, const char *name)
{
    const struct kure_network_layer *l = kure_builder_layer(b);
    int from = kure_builder_last(b);
    const struct kure_integer_tensor *in = &b->model->tensors[from];
    struct kure_integer_layer layer = {.part = (enum kure_integer_part)part, .lookup = KURE_LOOKUP_ACTIVATION, .activation = l->activation,
                                       .activation_name = l->activation_name, .slope = l->slope};
    struct kure_integer_tensor out;
    enum kure_status status = kure_builder_tensor(b, &l->after, part, &out);
    if (status != KURE_OK) return status;
    out.channels = in->channels;
    out.height = in->height;
    out.width = in->width;
    return add_lookup(b, from, &layer, &out, name);
}

enum kure_status kure_builder_add_requantization(struct kure_builder *b, int from, const struct kure_integer_tensor *to, const char *name)
{
    const struct kure_integer_tensor *in = &b->model->tensors[from];
    struct kure_integer_layer layer = {.lookup = KURE_LOOKUP_REQUANTIZE, .activation_name = "linear"};
    struct kure_integer_tensor out = *to;
    out.channels = in->channels;
    out.height = in->height;
    out.width = in->width;
    return add_lookup(b, from, &layer, &out, name);
}
