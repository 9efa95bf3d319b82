/* build_join.c: layers that bring values of different scales together: shortcut, route, avgpool. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "builder.h"
#include "error.h"
#include "kure_math.h"

static enum kure_status fail_float(const struct kure_builder *b)
{
    return kure_builder_fail(b, "its output is float (quantize=0, or [quantization] leaves it out): an integer model needs codes: quantize it");
}

/* ---- shortcut ---------------------------------------------------------------------- */

/* Elements of a that have no partner in b: the activation of a alone. */
static enum kure_status fill_rest(const struct kure_builder *b, struct kure_integer_layer *layer, const int *inputs, const struct kure_integer_tensor *out,
                                  int has_lookup)
{
    const struct kure_integer_tensor *x = &b->model->tensors[inputs[0]], *y = &b->model->tensors[inputs[1]];
    const struct kure_network_layer *l = kure_builder_layer(b);
    if (y->channels >= x->channels && y->height >= x->height && y->width >= x->width) return KURE_OK;
    layer->table = malloc(256);
    if (!layer->table) return kure_fail_memory(b->error);
    int fused_leaky = !has_lookup && l->activation == KURE_INTEGER_LEAKY;
    struct kure_code_scales s = {.in = x, .out = out, .slope = fused_leaky ? l->slope : 1};
    for (int i = 0; i < 256; ++i) {
        int code = b->rules->code(&s, i - 128);
        layer->table[i] = (int8_t)(code < out->low ? out->low : code > out->high ? out->high : code);
    }
    return KURE_OK;
}

static enum kure_status check_sum(const struct kure_builder *b, const struct kure_sum_scales *s)
{
    const struct kure_network_layer *l = kure_builder_layer(b);
    int exponent;
    if (l->alpha == 0 || l->beta == 0) {
        return kure_builder_fail(b, "alpha=%g and beta=%g: an input that counts for nothing has no integer form", (double)l->alpha, (double)l->beta);
    }
    if (!b->rules->signed_sum && (s->a < 0 || s->b < 0)) {
        return kure_builder_fail(b, "alpha=%g and beta=%g: profile=%s adds, it does not subtract: take profile=onnx, tensorrt or ncnn", (double)l->alpha,
                                 (double)l->beta, b->profile->name);
    }
    if (!b->rules->powers_of_two) return KURE_OK;
    if (frexpf(s->a, &exponent) != 0.5f || frexpf(s->b, &exponent) != 0.5f) {
        return kure_builder_fail(b, "alpha=%g and beta=%g: profile=%s takes powers of two", (double)l->alpha, (double)l->beta, b->profile->name);
    }
    int apart = abs(ilogbf(s->a) - ilogbf(s->b));
    return apart <= 22 ? KURE_OK : kure_builder_fail(b, "its inputs have steps %g and %g, 2^%d apart: shifts of up to 22 bits fit into the sum", (double)s->a,
                                                     (double)s->b, apart);
}

enum kure_status kure_build_shortcut(struct kure_builder *b)
{
    const struct kure_network_layer *l = kure_builder_layer(b);
    struct kure_integer_layer layer = {.kind = KURE_KIND_ADD, .arithmetic = b->profile->arithmetic, .input_count = 2, .alpha = l->alpha, .beta = l->beta};
    struct kure_integer_tensor out;
    int inputs[2], has_lookup = 0;
    float slope = 1;
    if (!l->after.q.bits) return fail_float(b);
    enum kure_status status = kure_builder_input(b, l->inputs[0], &inputs[0]);
    if (status == KURE_OK) status = kure_builder_input(b, l->inputs[1], &inputs[1]);
    if (status == KURE_OK) status = kure_builder_begin_activation(b, KURE_PART_ALL, &out, &layer, &slope, &has_lookup);
    if (status != KURE_OK) return status;
    const struct kure_integer_tensor *x = &b->model->tensors[inputs[0]], *y = &b->model->tensors[inputs[1]];
    struct kure_sum_scales s = {.a = l->alpha * x->scale, .b = l->beta * y->scale, .out = out.scale, .zero_a = x->zero_point, .zero_b = y->zero_point,
                                .zero_out = out.zero_point, .slope = slope};
    status = check_sum(b, &s);
    if (status == KURE_OK) b->rules->add(&s, layer.parameter);
    if (status == KURE_OK) status = fill_rest(b, &layer, inputs, &out, has_lookup);
    if (status == KURE_OK) status = kure_builder_add(b, &layer, inputs, &out, has_lookup ? "_raw" : "");
    if (status != KURE_OK) {
        free(layer.table);
        return status;
    }
    if (has_lookup) status = kure_builder_add_activation(b, KURE_PART_ALL, "");
    b->tensors[b->layer][0] = kure_builder_last(b);
    return status;
}

/* ---- route -------------------------------------------------------------------------- */

static int same_scale(const struct kure_integer_tensor *a, const struct kure_integer_tensor *b)
{
    return kure_bits(a->scale) == kure_bits(b->scale) && a->zero_point == b->zero_point;
}

/* Codes of an input are those of the output where scale and zero point are and none lies beyond its limits. */
static int needs_requantization(const struct kure_integer_tensor *in, const struct kure_integer_tensor *out)
{
    return !same_scale(in, out) || in->low < out->low || in->high > out->high;
}

/* Without a quantizer of its own the route has the scale of its inputs. */
static enum kure_status share_scale(const struct kure_builder *b, const int *inputs, struct kure_integer_tensor *out)
{
    const struct kure_network_layer *l = kure_builder_layer(b);
    const struct kure_integer_tensor *first = &b->model->tensors[inputs[0]];
    struct kure_integer_tensor shaped = *first;
    for (int i = 0; i < l->input_count; ++i) {
        const struct kure_integer_tensor *t = &b->model->tensors[inputs[i]];
        if (!same_scale(first, t)) {
            return kure_builder_fail(b, "its output is float and its inputs, layers %d and %d, have different scales (%g and %g): let [quantization] "
                                     "quantize it", l->inputs[0], l->inputs[i], (double)first->scale, (double)t->scale);
        }
        if (t->low < shaped.low) shaped.low = t->low;
        if (t->high > shaped.high) shaped.high = t->high;
    }
    shaped.channels = l->channels ? l->channels : l->outputs;
    shaped.height = l->channels ? l->height : 1;
    shaped.width = l->channels ? l->width : 1;
    *out = shaped;
    return shaped.channels <= KURE_MODEL_MOST_EDGE ? KURE_OK : kure_builder_fail(b, "a row of %d values: an edge of a tensor may be up to %d", shaped.channels,
                                                                                 (int)KURE_MODEL_MOST_EDGE);
}

static enum kure_status requantize_inputs(struct kure_builder *b, int *inputs, const struct kure_integer_tensor *out)
{
    const struct kure_network_layer *l = kure_builder_layer(b);
    enum kure_status status = KURE_OK;
    for (int i = 0; status == KURE_OK && i < l->input_count; ++i) {
        char name[KURE_INTEGER_NAME];
        int same = 0;
        while (same < i && l->inputs[same] != l->inputs[i]) ++same;
        if (same < i) { /* the same layer twice */
            inputs[i] = inputs[same];
            continue;
        }
        if (!needs_requantization(&b->model->tensors[inputs[i]], out)) continue;
        if (l->inputs[i] < 0) snprintf(name, sizeof name, "_from_input");
        else snprintf(name, sizeof name, "_from_%d", l->inputs[i]);
        status = kure_builder_add_requantization(b, inputs[i], out, name);
        inputs[i] = kure_builder_last(b);
    }
    return status;
}

/* Of several layers. */
static enum kure_status join(struct kure_builder *b, int *inputs)
{
    const struct kure_network_layer *l = kure_builder_layer(b);
    struct kure_integer_layer layer = {.kind = KURE_KIND_CONCATENATE, .input_count = l->input_count};
    struct kure_integer_tensor out;
    enum kure_status status = KURE_OK;
    for (int i = 0; status == KURE_OK && i < l->input_count; ++i) status = kure_builder_input(b, l->inputs[i], &inputs[i]);
    if (status == KURE_OK) status = l->after.q.bits ? kure_builder_tensor(b, &l->after, KURE_PART_ALL, &out) : share_scale(b, inputs, &out);
    if (status == KURE_OK && l->after.q.bits) status = requantize_inputs(b, inputs, &out);
    return status == KURE_OK ? kure_builder_add(b, &layer, inputs, &out, "") : status;
}

/* [quantize] between two layers: another scale, if it is one. */
static enum kure_status requantize(struct kure_builder *b)
{
    struct kure_integer_tensor out;
    int from;
    enum kure_status status = kure_builder_input(b, kure_builder_layer(b)->inputs[0], &from);
    if (status == KURE_OK) status = kure_builder_tensor(b, &kure_builder_layer(b)->after, KURE_PART_ALL, &out);
    return status == KURE_OK ? kure_builder_add_requantization(b, from, &out, "") : status;
}

enum kure_status kure_build_route(struct kure_builder *b)
{
    const struct kure_network_layer *l = kure_builder_layer(b);
    enum kure_status status;
    if (l->input_count == 1 && !l->after.q.bits) return kure_build_nothing(b);
    if (l->input_count == 1) {
        status = requantize(b);
    } else {
        int *inputs = malloc((size_t)l->input_count * sizeof *inputs);
        status = inputs ? join(b, inputs) : kure_fail_memory(b->error);
        free(inputs);
    }
    b->tensors[b->layer][0] = kure_builder_last(b);
    return status;
}

/* ---- avgpool ---------------------------------------------------------------------------- */

enum kure_status kure_build_avgpool(struct kure_builder *b)
{
    const struct kure_network_layer *l = kure_builder_layer(b);
    struct kure_integer_layer layer = {.kind = KURE_KIND_AVERAGE_POOL, .arithmetic = b->profile->arithmetic, .input_count = 1};
    struct kure_integer_tensor out, pooled;
    int from;
    if (!l->after.q.bits) return fail_float(b);
    enum kure_status status = kure_builder_input(b, l->inputs[0], &from);
    if (status == KURE_OK) status = kure_builder_tensor(b, &l->after, KURE_PART_ALL, &out);
    if (status != KURE_OK) return status;
    const struct kure_integer_tensor in = b->model->tensors[from];
    if ((int64_t)in.height * in.width > 1 << 23) return kure_builder_fail(b, "the mean of %d x %d values: up to 2^23 fit into the sum", in.height, in.width);
    pooled = out;
    if (b->rules->keeps_scale) {
        pooled = in;
        pooled.channels = out.channels;
        pooled.height = out.height;
        pooled.width = out.width;
    }
    struct kure_row_scales s = {.in = in.scale, .weight = 1, .out = out.scale};
    b->rules->average(&s, in.height * in.width, layer.parameter);
    int has_lookup = b->rules->keeps_scale && needs_requantization(&in, &out);
    status = kure_builder_add(b, &layer, &from, &pooled, has_lookup ? "_raw" : "");
    if (status == KURE_OK && has_lookup) {
        status = kure_builder_note(b, "profile=%s averages codes without a change of scale: a second rounding to the scale of the quantizer", b->profile->name);
        if (status == KURE_OK) status = kure_builder_add_requantization(b, kure_builder_last(b), &out, "");
    }
    b->tensors[b->layer][0] = kure_builder_last(b);
    return status;
}
