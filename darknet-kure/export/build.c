/*
 * build.c: a network becomes an integer model, layer by layer; see network.h and builder.h.
 *
 * Tested by tests/test_export.py.
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "builder.h"
#include "error.h"
#include "kure_file.h"
#include "kure_math.h"
#include "levels.h"
#include "proof.h"

static kure_layer_builder *const builders[KURE_NETWORK_KINDS] = {
    [KURE_NETWORK_CONVOLUTIONAL] = kure_build_weighted, [KURE_NETWORK_CONNECTED] = kure_build_weighted,
    [KURE_NETWORK_MAXPOOL] = kure_build_maxpool,        [KURE_NETWORK_AVGPOOL] = kure_build_avgpool,
    [KURE_NETWORK_UPSAMPLE] = kure_build_upsample,      [KURE_NETWORK_REORG] = kure_build_reorg,
    [KURE_NETWORK_SHORTCUT] = kure_build_shortcut,      [KURE_NETWORK_ROUTE] = kure_build_route,
    [KURE_NETWORK_PASSES] = kure_build_nothing,         /* decoders and others: below */
};

void kure_builder_place(const struct kure_builder *b, char *out, size_t size)
{
    if (b->layer < 0) snprintf(out, size, "%s: network input", b->net->cfg);
    else snprintf(out, size, "%s: layer %d [%s]", b->net->cfg, b->layer, kure_builder_layer(b)->type);
}

enum kure_status kure_builder_fail(const struct kure_builder *b, const char *format, ...)
{
    char text[800], place[4200];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    kure_builder_place(b, place, sizeof place);
    return kure_fail(b->error, KURE_ERROR_INPUT, "%s: %s", place, text);
}

enum kure_status kure_builder_note(const struct kure_builder *b, const char *format, ...)
{
    struct kure_integer_model *m = b->model;
    struct kure_integer_note *grown = realloc(m->notes, (size_t)(m->note_count + 1) * sizeof *grown);
    if (!grown) return kure_fail_memory(b->error);
    m->notes = grown;
    struct kure_integer_note *note = &grown[m->note_count++];
    va_list arguments;
    va_start(arguments, format);
    note->source = b->layer;
    vsnprintf(note->text, sizeof note->text, format, arguments);
    va_end(arguments);
    return KURE_OK;
}

/* ---- tensors -------------------------------------------------------------------- */

/* Could a step as the quantizer has it be that of codes in a model file? */
static enum kure_status check_scale(const struct kure_builder *b, const struct kure_integer_tensor *t)
{
    int exponent;
    if (t->scale < 0x1p-80f || t->scale > 0x1p80f) {
        return kure_builder_fail(b, "its activations have step %.9g: an integer model needs one from 2^-80 to 2^80", (double)t->scale);
    }
    if (b->rules->powers_of_two && frexpf(t->scale, &exponent) != 0.5f) {
        return kure_builder_fail(b, "its activations have step %.9g, no power of two, which profile=%s needs: set activation_step=power_of_two",
                                 (double)t->scale, b->profile->name);
    }
    return KURE_OK;
}

static enum kure_status set_quantizer(const struct kure_builder *b, const struct kure_network_quantizer *q, int part, struct kure_integer_tensor *t)
{
    char place[4200];
    struct kure_scale scale = q->scales[part == KURE_PART_SCORES];
    kure_builder_place(b, place, sizeof place);
    enum kure_status status = kure_profile_check(b->profile, KURE_QUANTIZED_ACTIVATIONS, &q->q, place, b->error);
    if (status != KURE_OK) return status;
    t->bits = q->q.bits;
    t->low = kure_lowest_code(&q->q);
    t->high = kure_highest_code(&q->q);
    t->zero_point = scale.zero_point;
    t->scale = scale.step;
    t->source = b->layer;
    if (scale.step == 0) { /* of nothing but zeros */
        t->scale = 1;
        t->low = t->high = t->zero_point;
    }
    return check_scale(b, t);
}

enum kure_status kure_builder_tensor(const struct kure_builder *b, const struct kure_network_quantizer *q, int part, struct kure_integer_tensor *t)
{
    const struct kure_network_layer *l = kure_builder_layer(b);
    *t = (struct kure_integer_tensor){.channels = l->channels, .height = l->height, .width = l->width};
    if (l->channels == 0) *t = (struct kure_integer_tensor){.channels = l->outputs, .height = 1, .width = 1};
    if (t->channels > KURE_MODEL_MOST_EDGE || t->height > KURE_MODEL_MOST_EDGE || t->width > KURE_MODEL_MOST_EDGE) {
        return kure_builder_fail(b, "an output of %d x %d x %d: an edge of a tensor may be up to %d", t->channels, t->height, t->width,
                                 (int)KURE_MODEL_MOST_EDGE);
    }
    return set_quantizer(b, q, part, t);
}

enum kure_status kure_builder_input(const struct kure_builder *b, int from, int *tensor)
{
    static const int input[KURE_MOST_PARTS] = {0, -1};
    const int *holds = from < 0 ? input : b->tensors[from];
    *tensor = holds[0];
    if (holds[0] < 0) {
        return kure_builder_fail(b, "it reads layer %d [%s], which is decoded in float: an integer layer needs integer inputs", from,
                                 b->net->layers[from].type);
    }
    if (holds[1] < 0) return KURE_OK;
    return kure_builder_fail(b, "it reads layer %d [%s], whose boxes and scores have scales of their own: only [%s] can read it", from,
                             b->net->layers[from].type, "yolo] or [region");
}

enum kure_status kure_builder_add(struct kure_builder *b, const struct kure_integer_layer *layer, const int *inputs,
                                  const struct kure_integer_tensor *tensor, const char *name)
{
    struct kure_integer_model *m = b->model;
    size_t n = (size_t)m->layer_count;
    if (n == KURE_MODEL_MOST_LAYERS) return kure_builder_fail(b, "an integer model has up to %d layers", (int)KURE_MODEL_MOST_LAYERS);
    struct kure_integer_layer *layers = realloc(m->layers, (n + 1) * sizeof *layers);
    if (layers) m->layers = layers;
    struct kure_integer_tensor *tensors = realloc(m->tensors, (n + 2) * sizeof *tensors);
    if (tensors) m->tensors = tensors;
    int *own = malloc((size_t)layer->input_count * sizeof *own);
    if (!layers || !tensors || !own) {
        free(own);
        return kure_fail_memory(b->error);
    }
    memcpy(own, inputs, (size_t)layer->input_count * sizeof *own);
    layers[n] = *layer;
    layers[n].inputs = own;
    layers[n].source = b->layer;
    layers[n].type = kure_builder_layer(b)->type;
    tensors[n + 1] = *tensor;
    tensors[n + 1].source = b->layer;
    snprintf(tensors[n + 1].name, sizeof tensors[n + 1].name, "layer_%d%s", b->layer, name);
    m->layer_count++;
    return KURE_OK;
}

/* ---- the network's ends ------------------------------------------------------------ */

static enum kure_status begin_input(struct kure_builder *b)
{
    struct kure_integer_model *m = b->model;
    const struct kure_network_view *net = b->net;
    b->layer = -1;
    m->tensors = calloc(1, sizeof *m->tensors);
    if (!m->tensors) return kure_fail_memory(b->error);
    if (!net->input.q.bits) {
        return kure_builder_fail(b, "it stays float (first_bits=0, or its first layer is not quantized): an integer model needs codes: set first_bits=8");
    }
    m->tensors[0] = (struct kure_integer_tensor){.channels = net->channels, .height = net->height, .width = net->width};
    enum kure_status status = set_quantizer(b, &net->input, KURE_PART_ALL, &m->tensors[0]);
    snprintf(m->tensors[0].name, sizeof m->tensors[0].name, "input");
    m->tensors[0].source = -1;
    m->input_rounding = b->profile->input;
    m->input_factor = b->profile->input == KURE_INPUT_MULTIPLIED_HALF_AWAY ? 1.f / m->tensors[0].scale : m->tensors[0].scale;
    for (int p = 0; p < 256; ++p) m->pixels[p] = kure_integer_input_code(m, (float)p / 255.f);
    return status;
}

static enum kure_status add_output(struct kure_builder *b, int from, int part, int decoder)
{
    struct kure_integer_model *m = b->model;
    struct kure_integer_output *grown = realloc(m->outputs, (size_t)(m->output_count + 1) * sizeof *grown);
    const struct kure_network_layer *l = &b->net->layers[from];
    int two = b->tensors[from][1] >= 0;
    if (!grown) return kure_fail_memory(b->error);
    m->outputs = grown;
    grown[m->output_count++] = (struct kure_integer_output){
        .tensor = b->tensors[from][part], .source = from, .part = !two ? KURE_PART_ALL : part ? KURE_PART_SCORES : KURE_PART_BOXES,
        .head_rows = two ? l->head_rows : 0, .head_boxes = two ? l->head_boxes : 0, .decoder = decoder,
        .decoder_type = decoder < 0 ? "" : b->net->layers[decoder].type,
        .boxes = decoder < 0 ? (struct kure_decoder){0} : b->net->layers[decoder].boxes};
    return KURE_OK;
}

/* The tensors of a layer become outputs, in front of a decoder or at the end of the network. */
static enum kure_status add_outputs(struct kure_builder *b, int from, int decoder)
{
    enum kure_status status = KURE_OK;
    for (int part = 0; status == KURE_OK && part < KURE_MOST_PARTS; ++part) {
        int known = 0;
        for (int i = 0; i < b->model->output_count; ++i) known |= b->model->outputs[i].tensor == b->tensors[from][part];
        if (b->tensors[from][part] > 0 && !known) status = add_output(b, from, part, decoder);
    }
    return status;
}

static enum kure_status build_layer(struct kure_builder *b)
{
    const struct kure_network_layer *l = kure_builder_layer(b);
    b->tensors[b->layer][0] = b->tensors[b->layer][1] = -1;
    if (l->kind == KURE_NETWORK_OTHER || l->why_not) return kure_builder_fail(b, "has no integer form: %s", l->why_not);
    if (l->kind != KURE_NETWORK_DECODES) return builders[l->kind](b);
    return l->inputs[0] >= 0 ? add_outputs(b, l->inputs[0], b->layer) : kure_builder_fail(b, "it decodes the network input: there is nothing to export");
}

enum kure_status kure_integer_build(const struct kure_network_view *net, const char *profile, struct kure_integer_model *model,
                                    struct kure_error *error)
{
    struct kure_builder b = {.net = net, .profile = kure_profile(kure_profile_find(profile)), .model = model, .error = error};
    *model = (struct kure_integer_model){.cfg = net->cfg, .weights = net->weights_path, .classes = net->classes, .class_count = net->class_count,
                                         .batchnorm_epsilon = 1e-5f};
    snprintf(model->profile, sizeof model->profile, "%s", profile);
    b.rules = kure_arithmetic_rules(b.profile->arithmetic);
    b.tensors = calloc((size_t)net->count, sizeof *b.tensors);
    enum kure_status status = b.tensors ? begin_input(&b) : kure_fail_memory(error);
    for (b.layer = 0; status == KURE_OK && b.layer < net->count; ++b.layer) status = build_layer(&b);
    b.layer = net->count - 1;
    if (status == KURE_OK && net->layers[b.layer].kind != KURE_NETWORK_DECODES) status = add_outputs(&b, b.layer, -1);
    if (status == KURE_OK && model->output_count == 0) status = kure_builder_fail(&b, "the network has no output that an integer model could have");
    if (status == KURE_OK) status = kure_integer_prove(&b);
    if (status == KURE_OK) status = kure_model_file_make(model, error);
    free(b.tensors);
    return status;
}
