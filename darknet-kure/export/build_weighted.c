/* build_weighted.c: convolutional and connected layers, head or not. */
#include <stdio.h>
#include <stdlib.h>

#include "builder.h"
#include "error.h"
#include "weights.h"

/* Which rows of the layer are the boxes' or the scores'. */
static enum kure_status choose_rows(const struct kure_builder *b, struct kure_integer_layer *layer)
{
    const struct kure_network_layer *l = kure_builder_layer(b);
    int rows = (int)l->weights.rows, scores = layer->part == KURE_PART_SCORES;
    layer->rows = rows;
    if (layer->part == KURE_PART_ALL) return KURE_OK;
    layer->rows = rows / l->head_rows * (scores ? l->head_rows - l->head_boxes : l->head_boxes);
    layer->source_rows = malloc((size_t)layer->rows * sizeof *layer->source_rows);
    if (!layer->source_rows) return kure_fail_memory(b->error);
    for (int r = 0, at = 0; r < rows; ++r) {
        if ((r % l->head_rows >= l->head_boxes) == scores) layer->source_rows[at++] = r;
    }
    return KURE_OK;
}

static const double COARSE = 0.25; /* codes of the output: a bias that rounding moves farther is worth a sentence */

static enum kure_status report_rows(const struct kure_builder *b, const struct kure_integer_layer *layer, const struct kure_weights_report *report)
{
    enum kure_status status = KURE_OK;
    if (report->zero_rows) {
        status = kure_builder_note(b, "%d of %d rows have no weights beside the largest: zero codes, their bias is left", report->zero_rows, layer->rows);
    }
    if (status == KURE_OK && report->larger_rows) {
        status = kure_builder_note(b, "%d rows have biases beyond 2^30 of their steps: larger steps, row %d has %g times its own", report->larger_rows,
                                   layer->source_rows ? layer->source_rows[report->larger_row] : report->larger_row, report->largest);
    }
    if (status == KURE_OK && report->bias_error > COARSE) {
        status = kure_builder_note(b, "int32 biases are rounded by up to %.2g codes of the output: steps of sums are coarse: more weight_bits, or "
                                   "profile=ncnn or tensorrt, whose biases are float32", report->bias_error);
    }
    return status;
}

static const char *suffix(int part, int is_raw)
{
    static const char *const names[3][2] = {{"", "_raw"}, {"_boxes", "_boxes_raw"}, {"_scores", "_scores_raw"}};
    return names[part][is_raw];
}

static void free_rows(struct kure_integer_layer *layer)
{
    struct kure_integer_model alone = {.layers = NULL};
    alone.layers = malloc(sizeof *alone.layers);
    if (!alone.layers) return;
    *alone.layers = *layer;
    alone.layer_count = 1;
    kure_integer_free(&alone);
}

/* One part: the layer, and a LOOKUP behind it where its activation is one. */
static enum kure_status build_part(struct kure_builder *b, int part, int from)
{
    const struct kure_network_layer *l = kure_builder_layer(b);
    int connected = l->kind == KURE_NETWORK_CONNECTED, has_lookup;
    struct kure_integer_layer layer = {.kind = connected ? KURE_KIND_CONNECTED : KURE_KIND_CONVOLUTION, .arithmetic = b->profile->arithmetic,
                                       .part = (enum kure_integer_part)part, .input_count = 1};
    struct kure_integer_tensor out;
    struct kure_weights_report report;
    char place[4200];
    float slope;
    kure_builder_place(b, place, sizeof place);
    if (!connected) {
        layer.size = l->size;
        layer.stride = l->stride;
        layer.padding = l->padding;
        layer.groups = l->groups;
    }
    enum kure_status status = choose_rows(b, &layer);
    if (status == KURE_OK) status = kure_builder_begin_activation(b, part, &out, &layer, &slope, &has_lookup);
    if (status == KURE_OK) {
        out.channels = layer.rows;
        struct kure_weights_target target = {.in = &b->model->tensors[from], .out = &out, .arithmetic = layer.arithmetic, .place = place};
        if (b->rules->last) b->rules->last(slope, out.scale, layer.parameter);
        status = kure_integer_weights(l, &target, &layer, &report, b->error);
    }
    if (status == KURE_OK) status = report_rows(b, &layer, &report);
    if (status == KURE_OK) status = kure_builder_add(b, &layer, &from, &out, suffix(part, has_lookup));
    if (status != KURE_OK) {
        free_rows(&layer);
        return status;
    }
    return has_lookup ? kure_builder_add_activation(b, part, suffix(part, 0)) : KURE_OK;
}

enum kure_status kure_build_weighted(struct kure_builder *b)
{
    const struct kure_network_layer *l = kure_builder_layer(b);
    char place[4200];
    int from;
    kure_builder_place(b, place, sizeof place);
    if (!l->weight.bits || !l->after.q.bits) {
        return kure_builder_fail(b, "its %s float (quantize=0, or 0 bits, or [quantization] leaves it out): an integer model needs codes: quantize it",
                                 l->weight.bits ? "activations are" : "weights are");
    }
    enum kure_status status = kure_profile_check(b->profile, KURE_QUANTIZED_WEIGHTS, &l->weight, place, b->error);
    if (status == KURE_OK) status = kure_builder_input(b, l->inputs[0], &from);
    if (status != KURE_OK) return status;
    int parts = l->head_rows && l->head_boxes < l->head_rows ? 2 : 1;
    if (parts == 2 && l->groups > 1) return kure_builder_fail(b, "groups=%d: boxes and scores of a head become two layers, which need groups=1", l->groups);
    for (int i = 0; status == KURE_OK && i < parts; ++i) {
        status = build_part(b, parts == 1 ? KURE_PART_ALL : KURE_PART_BOXES + i, from);
        b->tensors[b->layer][i] = kure_builder_last(b);
    }
    return status;
}
