/*
 * placement.c: where quantizers sit, and which.
 *
 * Weights of convolutional and connected layers; the network input; behind every
 * layer that makes new values (weights, shortcut, average pooling) and behind a
 * route of several layers, whose inputs come with different steps. Behind a linear,
 * relu or relu6 activation there is one; any other activation has one in front, the
 * layer's own output as the device stores it, and one behind, unless a profile fuses it.
 * What only selects values (maxpool, upsample, reorg, a route of one) has none.
 *
 * Tested by tests/test_plan_quantizers.py.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "plan.h"
#include "quantizer_keys.h"
#include "sample.h"

/* "net.cfg:12: [quantization]", or the cfg alone where that has none */
static void write_section(const struct kure_options *o, char *out, size_t size)
{
    if (o->quantization.line > 0) snprintf(out, size, "%s:%d: [quantization]", o->path, o->quantization.line);
    else snprintf(out, size, "%s", o->path);
}

/* "net.cfg:12: layer 3 [convolutional]", or the section where the layer says nothing */
static void write_place(const struct kure_options *o, const struct kure_plan_row *row, char *out, size_t size)
{
    const struct kure_layer_options *own = &o->layer[row->layer];
    if (own->quantize_line) snprintf(out, size, "%s:%d: layer %d [%s]", o->path, own->quantize_line, row->layer, row->type);
    else write_section(o, out, size);
}

static int has_own_bits(const struct kure_layer_options *own, enum kure_quantized which)
{
    return own->quantizer[which].bits >= 0 || own->quantizer[KURE_QUANTIZED_BOTH].bits >= 0;
}

static enum kure_status merge(const struct kure_options *o, const struct kure_plan_row *row, enum kure_quantized which,
                              struct kure_quantizer *out, struct kure_error *error)
{
    char place[4400];
    const struct kure_layer_options *own = &o->layer[row->layer];
    const struct kure_quantization_options *q = &o->quantization;
    write_place(o, row, place, sizeof place);
    const struct kure_profile *profile = kure_profile((int)q->profile - 1);
    enum kure_status status = kure_quantizer_merge(which, own->quantizer, q->quantizer, profile, place, out, error);
    if (status != KURE_OK || out->bits == 0) return status;
    int own_bits = has_own_bits(own, which);
    if (row->reaches_head && !own_bits) out->bits = (int)q->last_bits;
    if (which == KURE_QUANTIZED_WEIGHTS && row->reads_input && !own_bits) out->bits = (int)q->first_bits;
    struct kure_error reason;
    if (out->bits && kure_quantizer_check(out, &reason) != KURE_OK) { /* first_bits or last_bits may not suit the policy */
        return kure_fail(error, KURE_ERROR_INPUT, "%s: layer %d [%s]: %s%s", place, row->layer, row->type,
                         which == KURE_QUANTIZED_WEIGHTS ? "weight_" : "activation_", reason.text);
    }
    return profile && out->bits ? kure_profile_check(profile, which, out, place, error) : status;
}

static const char *why_float(const struct kure_layer_view *v, const struct kure_layer_options *own)
{
    if (own->quantize == 0) return "quantize=0";
    if (v->weights == KURE_WEIGHTS_OTHER) return "layers of this type stay float";
    if (v->is_binary) return "binary weights";
    return NULL;
}

/* A key that nothing at this layer would read is an error. */
static enum kure_status check_ignored(const struct kure_options *o, const struct kure_plan_row *row, int weights, int outputs,
                                      struct kure_error *error)
{
    static const char *const words[] = {"quantizer", "weight_", "activation_"};
    const struct kure_layer_options *own = &o->layer[row->layer];
    for (int w = 0; w < 3; ++w) {
        int read = (w != KURE_QUANTIZED_ACTIVATIONS && weights) || (w != KURE_QUANTIZED_WEIGHTS && outputs);
        int line = own->quantizer[w].line;
        if (line && !read) {
            return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: layer %d [%s] has nothing that its %s keys could act on%s%s", o->path,
                             line, row->layer, row->type, words[w], *row->quantize_reason ? ": " : "", row->quantize_reason);
        }
    }
    if (own->quantize >= 0 && !weights && !outputs && own->quantize != 0) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: layer %d [%s] has nothing to quantize", o->path, own->quantize_line,
                         row->layer, row->type);
    }
    return KURE_OK;
}

/* Are the outputs of layer i never negative? marks [in]: of the layers before. */
static int is_rectified(const struct kure_layer_view *v, int i, const char *marks)
{
    if (v[i].activation != KURE_ACTIVATION_LINEAR) return v[i].activation == KURE_ACTIVATION_RELU;
    if (v[i].weights != KURE_WEIGHTS_NONE || v[i].flow == KURE_FLOW_DECODES) return 0;
    for (int j = 0; j < v[i].input_count; ++j) {
        if (v[i].inputs[j] >= 0 && !marks[v[i].inputs[j]]) return 0;
    }
    return 1;
}

/* pact and dorefa act in the middle of the network; its ends go by ste. */
static enum kure_status choose_methods(const struct kure_options *o, struct kure_plan_row *row, int rectified, struct kure_error *error)
{
    enum kure_method method = (enum kure_method)o->quantization.method;
    row->weight_method = row->activation_method = method;
    if (method == KURE_METHOD_PACT || row->reads_input || row->reaches_head) row->weight_method = KURE_METHOD_STE;
    if (method == KURE_METHOD_LSQ) row->weight_method = KURE_METHOD_LSQ;
    if (method != KURE_METHOD_PACT && method != KURE_METHOD_DOREFA) return KURE_OK;
    if (row->reaches_head) row->activation_method = KURE_METHOD_STE;
    if (!row->after.bits || row->activation_method == KURE_METHOD_STE) return KURE_OK;
    if (row->after.step != KURE_STEP_FREE || row->after.step_ratio != 1) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [quantization] method=%s: layer %d [%s]: activation_step and activation_step_ratio have "
                         "no meaning: the method sets the step", o->path, o->quantization.line,
                         method == KURE_METHOD_PACT ? "pact" : "dorefa", row->layer, row->type);
    }
    const struct kure_profile *profile = kure_profile((int)o->quantization.profile - 1);
    struct kure_quantizer codes = row->after; /* of pact: 0 .. 2^b-1 */
    codes.grid = KURE_GRID_FULL;
    codes.symmetric = 0;
    struct kure_error reason;
    if (profile && kure_profile_check(profile, KURE_QUANTIZED_ACTIVATIONS, &codes, "its zero point is not 0", &reason) != KURE_OK) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [quantization] method=pact: %s", o->path, o->quantization.line, reason.text);
    }
    if (rectified) return KURE_OK;
    return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [quantization] method=%s: layer %d [%s] can put out negative values, which it would "
                     "cut: give it activation=relu, or quantize=0", o->path, o->quantization.line,
                     method == KURE_METHOD_PACT ? "pact" : "dorefa", row->layer, row->type);
}

/* Can the profile's target run all that is drawn? */
static enum kure_status check_drawn(const struct kure_options *o, enum kure_quantized which, unsigned mask, const struct kure_quantizer *q,
                                    const char *place, struct kure_error *error)
{
    const struct kure_profile *profile = kure_profile((int)o->quantization.profile - 1);
    struct kure_quantizer drawn;
    enum kure_status status = KURE_OK;
    for (int i = 0; profile && status == KURE_OK && kure_sample_single(&o->quantization.sample, mask, q, i, &drawn); ++i) {
        status = kure_profile_check(profile, which, &drawn, place, error);
    }
    return status;
}

/* What sample= draws for this row. */
static enum kure_status draw_from(const struct kure_options *o, struct kure_plan_row *row, struct kure_error *error)
{
    char place[4400];
    const struct kure_quantizer_keys *own = o->layer[row->layer].quantizer;
    const struct kure_sample *sample = &o->quantization.sample;
    enum kure_method method = (enum kure_method)o->quantization.method;
    enum kure_status status = KURE_OK;
    if (!sample->text) return status;
    write_place(o, row, place, sizeof place);
    if (row->weight.bits) {
        row->sampled_weight = kure_sample_mask(sample, KURE_QUANTIZED_WEIGHTS, own, row->reads_input || row->reaches_head);
        status = kure_sample_check(sample, KURE_QUANTIZED_WEIGHTS, row->sampled_weight, &row->weight, method, place, error);
        if (status == KURE_OK) status = check_drawn(o, KURE_QUANTIZED_WEIGHTS, row->sampled_weight, &row->weight, place, error);
    }
    if (status != KURE_OK || !row->after.bits) return status;
    row->sampled_activation = kure_sample_mask(sample, KURE_QUANTIZED_ACTIVATIONS, own, row->reaches_head);
    status = kure_sample_check(sample, KURE_QUANTIZED_ACTIVATIONS, row->sampled_activation, &row->after, method, place, error);
    return status == KURE_OK ? check_drawn(o, KURE_QUANTIZED_ACTIVATIONS, row->sampled_activation, &row->after, place, error) : status;
}

static enum kure_status place_one(const struct kure_options *o, const struct kure_layer_view *v, struct kure_plan_row *row,
                                  struct kure_error *error)
{
    const struct kure_layer_options *own = &o->layer[row->layer];
    const char *reason = why_float(v, own);
    int weights = !reason && (v->weights == KURE_WEIGHTS_CONVOLUTIONAL || v->weights == KURE_WEIGHTS_CONNECTED);
    int outputs = !reason && (weights || own->is_quantize || v->flow == KURE_FLOW_MAKES || v->flow == KURE_FLOW_JOINS);
    if (reason) snprintf(row->quantize_reason, sizeof row->quantize_reason, "%s", reason);
    enum kure_status status = check_ignored(o, row, weights, outputs, error);
    if (status == KURE_OK && weights) status = merge(o, row, KURE_QUANTIZED_WEIGHTS, &row->weight, error);
    if (status != KURE_OK || !outputs) return status;
    status = merge(o, row, KURE_QUANTIZED_ACTIVATIONS, &row->after, error);
    const struct kure_profile *profile = kure_profile((int)o->quantization.profile - 1);
    if (v->activation == KURE_ACTIVATION_OTHER && !(profile && profile->fuses)) row->before = row->after;
    return status;
}

/* The network input, 0..1, goes with the section's activations: the whole grid where the
 * zero point is free, else its upper half. */
static enum kure_status place_input(const struct kure_options *o, struct kure_plan *plan, struct kure_error *error)
{
    const struct kure_quantization_options *q = &o->quantization;
    char place[4400];
    write_section(o, place, sizeof place);
    enum kure_status status = kure_quantizer_merge(KURE_QUANTIZED_ACTIVATIONS, NULL, q->quantizer, kure_profile((int)q->profile - 1), place,
                                                   &plan->input, error);
    if (!q->line || plan->input.bits == 0 || status != KURE_OK) {
        plan->input.bits = 0;
        return status;
    }
    plan->input = (struct kure_quantizer){.bits = (int)q->first_bits, .grid = plan->input.grid, .step_ratio = 1, .rounding = plan->input.rounding,
                                          .symmetric = plan->input.symmetric, .step = plan->input.step};
    const struct kure_profile *profile = kure_profile((int)q->profile - 1);
    if (plan->input.bits == 0) return status;
    if (profile && (status = kure_profile_check(profile, KURE_QUANTIZED_ACTIVATIONS, &plan->input, place, error)) != KURE_OK) return status;
    double half = 1 << (plan->input.bits - 1);
    int power = plan->input.step == KURE_STEP_POWER_OF_TWO;
    plan->input_scale = plan->input.symmetric ? (struct kure_scale){(float)(1 / (power ? half : half - 1)), 0}
                                              : (struct kure_scale){(float)(1 / (power ? 2 * half : 2 * half - 1)), -(int)half};
    return status;
}

/* ------------------------------------------------------------------------- */
/* One range for all inputs of a route                                        */

static int leader_of(const struct kure_plan *plan, int i)
{
    while (plan->rows[i].shares >= 0 && plan->rows[i].shares != i) i = plan->rows[i].shares;
    return i;
}

/* Can what layer i puts out have the range that route `to` wants? Passes through layers
 * that only select values. unite [in]: 1: gives it that range, with that of `leader`. */
static int follow(const struct kure_layer_view *v, struct kure_plan *plan, int i, int to, int unite, int *leader)
{
    if (i < 0) return 0;
    struct kure_plan_row *row = &plan->rows[i];
    if (row->after.bits) {
        if (row->head_rows || row->sampled_activation != plan->rows[to].sampled_activation ||
            !kure_quantizer_equal(&row->after, &plan->rows[to].after)) return 0;
        if (!unite) return 1;
        int own = leader_of(plan, i), first = *leader < 0 || own < *leader ? own : *leader;
        if (*leader >= 0) plan->rows[*leader].shares = first;
        plan->rows[own].shares = row->shares = *leader = first;
        return 1;
    }
    if (v[i].flow != KURE_FLOW_SELECTS && v[i].flow != KURE_FLOW_JOINS) return 0;
    for (int j = 0; j < v[i].input_count; ++j) {
        if (!follow(v, plan, v[i].inputs[j], to, unite, leader)) return 0;
    }
    return 1;
}

/* Average pooling of such a profile leaves the scale as it is, so that its quantizer has the range of what it reads. */
static void share_average(const struct kure_layer_view *v, struct kure_plan *plan, int i)
{
    struct kure_plan_row *row = &plan->rows[i];
    int leader = -1;
    if (v[i].flow != KURE_FLOW_MAKES || v[i].weights != KURE_WEIGHTS_NONE || v[i].input_count != 1 || !row->after.bits) return;
    if (!follow(v, plan, v[i].inputs[0], i, 0, &leader)) return;
    follow(v, plan, v[i].inputs[0], i, 1, &leader);
    row->shares = leader;
    row->averages_codes = 1;
}

/* Where all inputs of a route can have one range, the route needs no quantizer. */
static void share_ranges(const struct kure_options *o, const struct kure_layer_view *v, struct kure_plan *plan)
{
    const struct kure_profile *profile = kure_profile((int)o->quantization.profile - 1);
    for (int i = 0; profile && profile->shares && o->quantization.method == KURE_METHOD_STE && i < plan->count; ++i) {
        struct kure_plan_row *row = &plan->rows[i];
        int possible = v[i].flow == KURE_FLOW_JOINS && row->after.bits && !o->layer[i].quantize_line, leader = -1;
        share_average(v, plan, i);
        for (int j = 0; possible && j < v[i].input_count; ++j) possible = follow(v, plan, v[i].inputs[j], i, 0, &leader);
        if (!possible) continue;
        for (int j = 0; j < v[i].input_count; ++j) follow(v, plan, v[i].inputs[j], i, 1, &leader);
        row->after.bits = 0;
        row->sampled_activation = 0;
        snprintf(row->quantize_reason, sizeof row->quantize_reason, "its inputs have one range");
    }
    for (int i = 0; i < plan->count; ++i) {
        if (plan->rows[i].shares >= 0) plan->rows[i].shares = leader_of(plan, i);
    }
}

/* Keys of the section that no layer reads. */
static enum kure_status check_used(const struct kure_options *o, const struct kure_plan *plan, struct kure_error *error)
{
    const struct kure_quantization_options *q = &o->quantization;
    unsigned drawn = 0;
    int folds = 0;
    for (int i = 0; i < plan->count; ++i) {
        const struct kure_plan_row *row = &plan->rows[i];
        drawn |= row->sampled_weight | row->sampled_activation;
        folds |= row->weight.bits && row->batch_normalize;
    }
    for (int i = 0; i < q->sample.count; ++i) {
        if (drawn >> i & 1) continue;
        return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [quantization] sample=%s: item %d acts on nothing in this network", o->path, q->line,
                         q->sample.text, i + 1);
    }
    if (q->batchnorm == KURE_BATCHNORM_FREEZE && !folds) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [quantization] batchnorm=freeze: no layer has both batch norm and quantized weights",
                         o->path, q->line);
    }
    return KURE_OK;
}

enum kure_status kure_place_quantizers(const struct kure_options *o, const struct kure_layer_view *views, struct kure_plan *plan,
                                       struct kure_error *error)
{
    char *rectified = calloc((size_t)plan->count, 1);
    int reads_input = 0;
    if (!rectified) return kure_fail_memory(error);
    for (int i = 0; i < plan->count; ++i) {
        struct kure_plan_row *row = &plan->rows[i];
        rectified[i] = (char)is_rectified(views, i, rectified);
        if (o->layer[i].is_quantize) row->type = "quantize";
        if (!o->quantization.line && !o->layer[i].is_quantize) continue;
        enum kure_status status = place_one(o, &views[i], row, error);
        if (status == KURE_OK) status = choose_methods(o, row, rectified[i], error);
        if (status == KURE_OK) status = draw_from(o, row, error);
        if (status != KURE_OK) {
            free(rectified);
            return status;
        }
        reads_input |= row->reads_input && !*row->quantize_reason;
        plan->quantizers += row->weight.bits || row->after.bits;
    }
    free(rectified);
    if (reads_input && place_input(o, plan, error) != KURE_OK) return KURE_ERROR_INPUT;
    share_ranges(o, views, plan);
    if (o->quantization.line <= 0) return KURE_OK;
    if (plan->quantizers) return check_used(o, plan, error);
    return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [quantization] quantizes nothing in this network", o->path, o->quantization.line);
}
