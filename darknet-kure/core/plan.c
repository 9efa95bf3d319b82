/* plan.c: options and layers become one row per layer; see plan.h. */
#include "plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "error.h"

/* ------------------------------------------------------------------------- */
/* The graph: which weighted layers are first and last                        */

/* Sets mark[i] for every layer without weights through which the network input
 * passes unchanged by any weight, and reads_input for the weighted ones behind. */
static void find_first(const struct kure_layer_view *v, struct kure_plan *plan, char *mark)
{
    for (int i = 0; i < plan->count; ++i) {
        int open = 0;
        for (int j = 0; j < v[i].input_count; ++j) {
            int from = v[i].inputs[j];
            open |= from < 0 || (mark[from] && v[from].weights == KURE_WEIGHTS_NONE);
        }
        mark[i] = (char)open;
        plan->rows[i].reads_input = open && v[i].weights != KURE_WEIGHTS_NONE;
    }
}

static void find_last(const struct kure_layer_view *v, struct kure_plan *plan, char *mark)
{
    memset(mark, 0, (size_t)plan->count);
    for (int i = plan->count - 1; i >= 0; --i) {
        if (v[i].is_head) mark[i] = 1;
        plan->rows[i].reaches_head = mark[i];
        plan->rows[i].feeds_head = mark[i] && v[i].weights != KURE_WEIGHTS_NONE;
        if (!mark[i] || v[i].weights != KURE_WEIGHTS_NONE) continue;
        for (int j = 0; j < v[i].input_count; ++j) {
            if (v[i].inputs[j] >= 0) mark[v[i].inputs[j]] = 1;
        }
    }
}

/* ------------------------------------------------------------------------- */
/* layers=                                                                    */

static int weighted_end(const struct kure_plan *plan, int word)
{
    int found = -1;
    for (int i = 0; i < plan->count; ++i) {
        if (plan->rows[i].weights == KURE_WEIGHTS_NONE) continue;
        if (word == KURE_LAYER_FIRST) return i;
        found = i;
    }
    return found;
}

/* wanted[i]: 1 inside a range, 2 named by number. */
static enum kure_status select_layers(const struct kure_options *o, const struct kure_plan *plan, char *wanted,
                                      struct kure_error *error)
{
    const struct kure_layer_list *list = &o->kurtosis.layers;
    for (int r = 0; r < list->count; ++r) {
        int first = list->ranges[r].first, last = list->ranges[r].last, found = 0;
        if (first < 0) first = weighted_end(plan, first);
        if (last < 0) last = weighted_end(plan, last);
        int beyond = first >= plan->count ? first : last;
        if (beyond >= plan->count) {
            return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [kurtosis] layers=%s: there is no layer %d: the last one is %d",
                             o->path, list->line, list->text, beyond, plan->count - 1);
        }
        if (last < first && list->ranges[r].first >= 0 && list->ranges[r].last == KURE_LAYER_LAST) {
            return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [kurtosis] layers=%s: no layer from %d on has weights: the last one that has is %d",
                             o->path, list->line, list->text, first, last);
        }
        if (last < first) {
            return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [kurtosis] layers=%s: the range %d-%d runs backwards", o->path,
                             list->line, list->text, first, last);
        }
        for (int i = first; i >= 0 && i <= last; ++i) {
            if (plan->rows[i].weights == KURE_WEIGHTS_NONE) continue;
            wanted[i] = list->ranges[r].is_range ? 1 : 2;
            found = 1;
        }
        if (!found) {
            return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [kurtosis] layers=%s: layer %d is [%s], which has no weights",
                             o->path, list->line, list->text, first < 0 ? 0 : first, first < 0 ? "" : plan->rows[first].type);
        }
    }
    return KURE_OK;
}

/* ------------------------------------------------------------------------- */
/* Rows                                                                       */

static const char *why_impossible(const struct kure_layer_view *v, const struct kure_kurtosis_options *k)
{
    static const char few[] = "fewer than 16 weights";
    if (v->left_out) return v->left_out;
    if (v->weights == KURE_WEIGHTS_OTHER) return "layers of this type are not regularized";
    if (v->rows * v->row_length < KURE_MIN_WEIGHTS) return few;
    if (k->granularity == KURE_GRANULARITY_CHANNEL && v->row_length < KURE_MIN_WEIGHTS) return "fewer than 16 weights a channel";
    return NULL;
}

static enum kure_status decide(const struct kure_options *o, const struct kure_layer_view *v, char wanted,
                               struct kure_plan_row *row, struct kure_error *error)
{
    const struct kure_kurtosis_options *k = &o->kurtosis;
    const struct kure_layer_options *own = &o->layer[row->layer];
    const char *impossible = why_impossible(v, k);
    const char *reason = NULL;
    if (own->kurtosis == 0) {
        reason = "kurtosis=0";
    } else if (impossible) {
        if (own->line || wanted == 2) {
            return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: layer %d [%s] cannot be regularized: %s", o->path,
                             own->line ? own->line : k->layers.line, row->layer, row->type, impossible);
        }
        reason = impossible;
    } else if (own->kurtosis == 1) {
        reason = NULL;
    } else if (v->weights == KURE_WEIGHTS_CONNECTED && !k->connected && wanted != 2) {
        reason = "connected=0";
    } else if (k->layers.text && !wanted) {
        reason = "not in layers=";
    } else if (!k->layers.text && row->reads_input) {
        reason = "reads the network input";
    }
    if (reason && own->line && own->kurtosis != 0) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: layer %d [%s] is left out (%s), so its kurtosis keys would be ignored: "
                         "add kurtosis=1", o->path, own->line, row->layer, row->type, reason);
    }
    row->regularized = !reason;
    row->target = isnan(own->target) ? k->target : own->target;
    row->lambda = k->lambda * (isnan(own->lambda) ? 1 : own->lambda);
    if (reason) snprintf(row->reason, sizeof row->reason, "%s", reason);
    return KURE_OK;
}

static enum kure_status check_weightless(const struct kure_options *o, const struct kure_plan_row *row, struct kure_error *error)
{
    if (!o->layer[row->layer].line) return KURE_OK;
    return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: layer %d [%s] has no weights, so its kurtosis keys would be ignored",
                     o->path, o->layer[row->layer].line, row->layer, row->type);
}

static enum kure_status fill_rows(const struct kure_options *o, const struct kure_layer_view *v, struct kure_plan *plan,
                                  char *scratch, struct kure_error *error)
{
    for (int i = 0; i < plan->count; ++i) {
        plan->rows[i] = (struct kure_plan_row){.layer = i, .type = v[i].type, .weights = v[i].weights, .rows = v[i].rows,
                                               .row_length = v[i].row_length, .groups = v[i].groups,
                                               .batch_normalize = v[i].batch_normalize,
                                               .head_rows = v[i].head_rows, .head_boxes = v[i].head_boxes, .shares = -1};
    }
    find_first(v, plan, scratch);
    find_last(v, plan, scratch);
    if (!o->kurtosis.line) return KURE_OK;
    memset(scratch, 0, (size_t)plan->count);
    enum kure_status status = select_layers(o, plan, scratch, error);
    for (int i = 0; status == KURE_OK && i < plan->count; ++i) {
        struct kure_plan_row *row = &plan->rows[i];
        status = row->weights == KURE_WEIGHTS_NONE ? check_weightless(o, row, error)
                                                   : decide(o, &v[i], scratch[i], row, error);
        plan->regularized += row->regularized;
    }
    if (status == KURE_OK && plan->regularized == 0) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [kurtosis] regularizes no layer of this network", o->path, o->kurtosis.line);
    }
    return status;
}

/* ------------------------------------------------------------------------- */
/* Hashes: XXH3-128 of a text that says everything                            */

static void write_hash(XXH3_state_t *state, char hash[33])
{
    XXH128_hash_t h = XXH3_128bits_digest(state);
    snprintf(hash, 33, "%016llx%016llx", (unsigned long long)h.high64, (unsigned long long)h.low64);
}

static void add_text(XXH3_state_t *state, const char *text)
{
    XXH3_128bits_update(state, text, strlen(text));
}

static void add_quantizer(XXH3_state_t *all, const struct kure_quantizer *q)
{
    char text[160];
    snprintf(text, sizeof text, "%d %d %d %.17g %d %.17g %d %d %d\n", q->bits, (int)q->rounding, (int)q->truncation,
             q->bits ? q->truncation_value : 0, (int)q->step, q->step_ratio, (int)q->granularity, (int)q->grid, q->symmetric);
    if (q->bits) add_text(all, text);
}

static enum kure_status hash_plan(struct kure_plan *plan, struct kure_error *error)
{
    XXH3_state_t *all = XXH3_createState(), *kept = XXH3_createState();
    if (!all || !kept) {
        XXH3_freeState(all);
        XXH3_freeState(kept);
        return kure_fail_memory(error);
    }
    XXH3_128bits_reset(all);
    XXH3_128bits_reset(kept);
    const struct kure_kurtosis_options *k = &plan->kurtosis;
    char text[320];
    snprintf(text, sizeof text, "kurtosis %d mode %d granularity %d fold %d std %d max_step %.17g start %lld ramp %lld\n",
             k->line != 0, (int)k->mode, (int)k->granularity, (int)k->fold, (int)k->std, k->max_step, (long long)k->start,
             (long long)k->ramp);
    add_text(all, text);
    for (int i = 0; i < plan->count; ++i) {
        const struct kure_plan_row *r = &plan->rows[i];
        snprintf(text, sizeof text, "%d %s %zu %zu %d %d\n", i, r->type, r->rows, r->row_length, r->groups, r->batch_normalize);
        add_text(all, text);
        add_text(kept, text);
        snprintf(text, sizeof text, "%d %.17g %.17g\n", r->regularized, r->target, r->lambda);
        add_text(all, text);
        snprintf(text, sizeof text, "%d %d %d\n", (int)r->weight_method, (int)r->activation_method, r->shares);
        if (plan->quantizers) add_text(all, text);
        add_quantizer(all, &r->weight);
        add_quantizer(all, &r->before);
        add_quantizer(all, &r->after);
    }
    const struct kure_quantization_options *q = &plan->quantization;
    snprintf(text, sizeof text, "quantization %d method %d %.17g %.17g batchnorm %d %lld start %lld every %lld input %d %.9g %d profile %d\n",
             q->line != 0, (int)q->method, q->learned_rate, q->learned_decay, (int)q->batchnorm, (long long)q->freeze_at, (long long)q->start, (long long)q->every, plan->input.bits, (double)plan->input_scale.step,
             plan->input_scale.zero_point, (int)q->profile);
    if (q->line || plan->quantizers) add_text(all, text);
    if (q->sample.text) add_text(all, q->sample.text);
    write_hash(all, plan->hash);
    write_hash(kept, plan->state_hash);
    XXH3_freeState(all);
    XXH3_freeState(kept);
    return KURE_OK;
}

void kure_hash_text(const char *text, char hash[33])
{
    XXH128_hash_t h = XXH3_128bits(text, strlen(text));
    snprintf(hash, 33, "%016llx%016llx", (unsigned long long)h.high64, (unsigned long long)h.low64);
}

enum kure_status kure_hash_file(const char *path, char hash[33], struct kure_error *error)
{
    static const char message[] = "%s: cannot be read";
    FILE *file = fopen(path, "rb");
    if (!file) return kure_fail(error, KURE_ERROR_FILE, message, path);
    XXH3_state_t *state = XXH3_createState();
    enum { BLOCK = 1 << 16 };
    unsigned char *block = malloc(BLOCK);
    enum kure_status status = KURE_OK;
    if (state && block) {
        XXH3_128bits_reset(state);
        size_t bytes;
        while ((bytes = fread(block, 1, BLOCK, file)) > 0) XXH3_128bits_update(state, block, bytes);
        if (ferror(file)) status = kure_fail(error, KURE_ERROR_FILE, message, path);
        else write_hash(state, hash);
    } else {
        status = kure_fail_memory(error);
    }
    free(block);
    XXH3_freeState(state);
    fclose(file);
    return status;
}

/* ------------------------------------------------------------------------- */

enum kure_status kure_plan_build(const struct kure_options *options, const struct kure_layer_view *views, int count,
                                 struct kure_plan *plan, struct kure_error *error)
{
    memset(plan, 0, sizeof *plan);
    plan->count = count;
    plan->kurtosis = options->kurtosis;
    plan->quantization = options->quantization;
    plan->rows = calloc((size_t)count, sizeof *plan->rows);
    char *scratch = calloc((size_t)count, 1);
    enum kure_status status = plan->rows && scratch ? KURE_OK : kure_fail_memory(error);
    if (status == KURE_OK) status = fill_rows(options, views, plan, scratch, error);
    if (status == KURE_OK) status = kure_place_quantizers(options, views, plan, error);
    if (status == KURE_OK) status = hash_plan(plan, error);
    free(scratch);
    return status;
}

void kure_plan_free(struct kure_plan *plan)
{
    free(plan->rows);
    memset(plan, 0, sizeof *plan);
}
