/* activations.c: see activations.h. Tested by tests/test_quantization.py. */
#include "activations.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"

static const double MOMENTUM = 0.1; /* of the moving averages, PyTorch's */

void kure_activation_each_piece(const struct kure_activation_quantizer *a, const layer *l, kure_piece_function *function, void *context)
{
    size_t outputs = (size_t)l->outputs, batch = (size_t)l->batch;
    if (!a->head_rows) {
        function(context, 0, 0, outputs * batch);
        return;
    }
    size_t plane = (size_t)l->out_w * (size_t)l->out_h;
    size_t anchor = (size_t)a->head_rows * plane, boxes = (size_t)a->head_boxes * plane;
    for (size_t at = 0; at + anchor <= outputs * batch; at += anchor) {
        function(context, 0, at, boxes);
        function(context, 1, at + boxes, anchor - boxes);
    }
}

/* Does the range that a policy finds depend on the number of levels? */
static int depends_on_bits(const struct kure_activation_quantizer *a, enum kure_truncation policy)
{
    return a->method == KURE_METHOD_LSQ || policy == KURE_TRUNCATION_MSE || policy == KURE_TRUNCATION_KL || policy == KURE_TRUNCATION_LP ||
           policy == KURE_TRUNCATION_GAUSS || policy == KURE_TRUNCATION_LAPLACE;
}

/* What finds the range of one update: ema's average is taken here, over updates. Where a
 * range serves several widths, it is not to be rounded to the levels of one of them. */
static struct kure_quantizer quantizer_of_update(const struct kure_activation_quantizer *a, const struct kure_quantizer *q)
{
    struct kure_quantizer of_update = *q;
    of_update.step = KURE_STEP_FREE;
    of_update.step_ratio = 1;
    if (a->draws_bits && !depends_on_bits(a, q->truncation)) of_update.bits = kure_policy_text((int)q->truncation).most_bits;
    if (q->truncation == KURE_TRUNCATION_EMA) of_update.truncation = KURE_TRUNCATION_MINMAX;
    return of_update;
}

/* Do two quantizers share what is known of the values? */
static int same_slot(const struct kure_activation_quantizer *a, const struct kure_quantizer *x, const struct kure_quantizer *y)
{
    return x->truncation == y->truncation && (x->bits == y->bits || !depends_on_bits(a, x->truncation));
}

static struct kure_activation_slot *find_slot(const struct kure_activation_quantizer *a, const struct kure_quantizer *q)
{
    for (int i = 0; i < a->slot_count; ++i) {
        if (same_slot(a, &a->slots[i].q, q)) return &a->slots[i];
    }
    return NULL;
}

/* The plan's own first, then what else can be drawn. */
static enum kure_status make_slots(struct kure_activation_quantizer *a, const struct kure_activation_plan *plan, struct kure_error *error)
{
    struct kure_quantizer q = a->q;
    int i = 0;
    do {
        a->draws_bits |= q.bits != a->q.bits;
        if (find_slot(a, &q)) continue;
        struct kure_activation_slot *grown = realloc(a->slots, (size_t)(a->slot_count + 1) * sizeof *grown);
        if (!grown) return kure_fail_memory(error);
        a->slots = grown;
        memset(&grown[a->slot_count], 0, sizeof *grown);
        grown[a->slot_count++].q = q;
    } while (plan->sampled && kure_sample_pair(plan->sample, plan->sampled, &a->q, i++, &q));
    a->now = a->slots;
    return KURE_OK;
}

enum kure_status kure_activation_init(struct kure_activation_quantizer *a, const struct kure_activation_plan *plan, struct kure_error *error)
{
    *a = (struct kure_activation_quantizer){.q = *plan->q, .head_rows = plan->head_rows, .head_boxes = plan->head_boxes, .method = plan->method};
    if (!a->q.bits) return KURE_OK;
    if (a->method == KURE_METHOD_PACT || a->method == KURE_METHOD_DOREFA) { /* codes 0 .. 2^b-1, as kure_pact_scale wants them */
        a->q.grid = KURE_GRID_FULL;
        a->q.symmetric = 0;
    }
    enum kure_status status = make_slots(a, plan, error);
    for (int i = 0; status == KURE_OK && i < a->slot_count; ++i) {
        a->slots[i].of_update = quantizer_of_update(a, &a->slots[i].q);
        for (int g = 0; status == KURE_OK && g < kure_activation_groups(a); ++g) {
            status = kure_observer_init(&a->slots[i].group[g].observer, &a->slots[i].of_update, error);
        }
    }
    return status;
}

void kure_activation_free(struct kure_activation_quantizer *a)
{
    for (int i = 0; i < a->slot_count; ++i) {
        for (int g = 0; g < KURE_MOST_GROUPS; ++g) kure_observer_free(&a->slots[i].group[g].observer);
    }
    free(a->slots);
    *a = (struct kure_activation_quantizer){.slots = NULL};
}

struct pass {
    struct kure_activation_quantizer *a;
    const float *x;
    float *y;
    struct kure_noise noise;
    uint64_t nonfinite;
    size_t features[KURE_MOST_GROUPS]; /* of one image */
};

static void observe_piece(void *context, int group, size_t offset, size_t count)
{
    struct pass *p = context;
    p->nonfinite += kure_observer_add(&p->a->now->group[group].observer, p->x + offset, count);
}

enum kure_status kure_activation_observe(struct kure_activation_quantizer *a, const layer *l, const float *x, struct kure_error *error)
{
    struct pass p = {.a = a, .x = x};
    kure_activation_each_piece(a, l, observe_piece, &p);
    if (!p.nonfinite) return KURE_OK;
    return kure_fail(error, KURE_ERROR_INPUT, "%llu of %zu outputs are not finite", (unsigned long long)p.nonfinite,
                     (size_t)l->outputs * (size_t)l->batch);
}

/* ------------------------------------------------------------------------- */
/* Scales                                                                     */

/* The range that a scale covers, from the outermost levels. */
static void range_of(const struct kure_scale *s, const struct kure_quantizer *q, double *low, double *high)
{
    int half = 1 << (q->bits - 1);
    *low = (double)s->step * ((q->grid == KURE_GRID_NARROW ? 1 - half : -half) - s->zero_point);
    *high = (double)s->step * (half - 1 - s->zero_point);
}

static struct kure_learned_parameter *learned_of(struct kure_activation_quantizer *a, int group)
{
    return (struct kure_learned_parameter *)(void *)(a->now->state + 1 + 2 * KURE_MOST_GROUPS) + group;
}

/* pact learns the clip, its value; dorefa's is 1. */
static struct kure_scale scale_of(struct kure_activation_quantizer *a, int group)
{
    if (a->method == KURE_METHOD_DOREFA) return kure_pact_scale(1, a->q.bits);
    if (a->method == KURE_METHOD_PACT) return kure_pact_scale(learned_of(a, group)->value, a->q.bits);
    return kure_learned_scale(learned_of(a, group), &a->q);
}

static int is_learned(const struct kure_activation_quantizer *a)
{
    return a->method == KURE_METHOD_LSQ || a->method == KURE_METHOD_PACT;
}

static void begin_learning(struct kure_activation_quantizer *a, int group)
{
    struct kure_scale scale = a->now->group[group].scale;
    struct kure_learned_parameter *p = learned_of(a, group);
    kure_learned_begin(p, scale, &a->q);
    if (a->method == KURE_METHOD_PACT) { /* the largest value that the policy keeps */
        double low, high;
        range_of(&scale, &a->q, &low, &high);
        p->value = high > 0 ? (float)high : 1;
        p->least = p->value / 1024;
    }
    a->now->group[group].scale = scale_of(a, group);
}

static void descend(struct kure_activation_quantizer *a, const struct kure_learned_rate *rate)
{
    for (int i = 0; i < kure_activation_groups(a); ++i) {
        kure_learned_descend(learned_of(a, i), a->now->group[i].descent, rate, &a->q);
        a->now->group[i].descent = 0;
        a->now->group[i].scale = scale_of(a, i);
    }
    a->has_gradient = 0;
}

static void combine(struct kure_activation_quantizer *a, float *range, double low, double high)
{
    if (!kure_activation_ready(a)) {
        range[0] = (float)low;
        range[1] = (float)high;
    } else if (a->q.truncation == KURE_TRUNCATION_MINMAX) {
        range[0] = fminf(range[0], (float)low);
        range[1] = fmaxf(range[1], (float)high);
    } else {
        range[0] += (float)(MOMENTUM * (low - range[0]));
        range[1] += (float)(MOMENTUM * (high - range[1]));
    }
}

/* The quantizer that covers a whole range. */
static struct kure_quantizer covering(const struct kure_activation_quantizer *a)
{
    struct kure_quantizer q = a->q;
    q.truncation = KURE_TRUNCATION_MINMAX;
    q.truncation_value = 0;
    return q;
}

void kure_activation_widen(const struct kure_activation_quantizer *a, float *low, float *high)
{
    if (!kure_activation_ready(a)) return;
    *low = fminf(*low, a->now->state[1]);
    *high = fmaxf(*high, a->now->state[2]);
}

enum kure_status kure_activation_cover(struct kure_activation_quantizer *a, float low, float high, struct kure_error *error)
{
    const struct kure_quantizer q = covering(a);
    const float range[2] = {low, high};
    return kure_activation_ready(a) ? kure_scale_find(range, 2, &q, &a->now->group[0].scale, error) : KURE_OK;
}

enum kure_status kure_activation_rescale(struct kure_activation_quantizer *a, struct kure_error *error)
{
    const struct kure_quantizer whole = covering(a);
    for (int i = 0; i < kure_activation_groups(a); ++i) {
        struct kure_activation_group *g = &a->now->group[i];
        if (a->method == KURE_METHOD_DOREFA || (is_learned(a) && learned_of(a, i)->least > 0)) {
            g->scale = scale_of(a, i);
            continue;
        }
        enum kure_status status = kure_scale_find(a->now->state + 1 + 2 * i, 2, &whole, &g->scale, error);
        if (status != KURE_OK) return status;
        if (is_learned(a)) begin_learning(a, i);
    }
    return KURE_OK;
}

enum kure_status kure_activation_select(struct kure_activation_quantizer *a, const struct kure_quantizer *q, struct kure_error *error)
{
    a->q = *q;
    a->now = find_slot(a, q);
    return kure_activation_ready(a) ? kure_activation_rescale(a, error) : KURE_OK;
}

void kure_activation_slot_name(const struct kure_activation_quantizer *a, int slot, char *out, size_t size)
{
    const struct kure_quantizer *q = &a->slots[slot].q;
    const char *name = a->method == KURE_METHOD_LSQ    ? kure_learned_name(q)
                       : a->method == KURE_METHOD_PACT ? "pact"
                                                       : kure_policy_text((int)q->truncation).name;
    if (depends_on_bits(a, q->truncation)) snprintf(out, size, "%s.%d", name, q->bits);
    else snprintf(out, size, "%s", name);
}

enum kure_status kure_activation_refresh(struct kure_activation_quantizer *a, const struct kure_learned_rate *rate,
                                         struct kure_error *error)
{
    if (a->has_gradient) descend(a, rate);
    if (a->now->group[0].observer.n == 0) return KURE_OK;
    for (int i = 0; i < kure_activation_groups(a); ++i) {
        struct kure_activation_group *g = &a->now->group[i];
        struct kure_scale scale;
        double low, high;
        enum kure_status status = kure_observer_scale(&g->observer, &a->now->of_update, &scale, error);
        if (status != KURE_OK) return status;
        range_of(&scale, &a->now->of_update, &low, &high);
        combine(a, a->now->state + 1 + 2 * i, low, high);
        kure_observer_reset(&g->observer);
    }
    a->now->state[0] += a->now->state[0] < 0x1p20f;
    return kure_activation_rescale(a, error);
}

enum kure_status kure_activation_observe_all(struct kure_activation_quantizer *a, struct kure_error *error)
{
    for (int i = 0; i < kure_activation_groups(a); ++i) {
        kure_observer_free(&a->now->group[i].observer);
        enum kure_status status = kure_observer_init_all(&a->now->group[i].observer, error);
        if (status != KURE_OK) return status;
    }
    return KURE_OK;
}

enum kure_status kure_activation_calibrate(struct kure_activation_quantizer *a, const struct kure_activation_quantizer *observed,
                                           struct kure_error *error)
{
    struct kure_quantizer range = a->q; /* as one update finds it, but ema over the batches */
    range.step = KURE_STEP_FREE;
    range.step_ratio = 1;
    for (int i = 0; i < kure_activation_groups(a); ++i) {
        const struct kure_observer *o = &observed->now->group[i].observer;
        struct kure_scale scale;
        double low, high;
        enum kure_status status = kure_observer_scale(o, &range, &scale, error);
        if (status == KURE_OK) status = kure_observer_scale(o, &a->q, &a->now->group[i].scale, error);
        if (status != KURE_OK) return status;
        range_of(&scale, &a->q, &low, &high);
        a->now->state[1 + 2 * i] = (float)low;
        a->now->state[2 + 2 * i] = (float)high;
        memset(learned_of(a, i), 0, sizeof(struct kure_learned_parameter));
    }
    a->now->state[0] = 1;
    return KURE_OK;
}

/* ------------------------------------------------------------------------- */
/* Passes                                                                     */

static void quantize_piece(void *context, int group, size_t offset, size_t count)
{
    struct pass *p = context;
    struct kure_noise noise = p->noise;
    noise.first += offset;
    kure_fake_quantize(p->x + offset, p->y + offset, count, p->a->now->group[group].scale, &p->a->q, &noise);
}

void kure_activation_quantize(const struct kure_activation_quantizer *a, const layer *l, const float *x, float *y,
                              const struct kure_noise *noise)
{
    struct pass p = {.a = (struct kure_activation_quantizer *)(uintptr_t)a, .x = x, .y = y, .noise = *noise};
    kure_activation_each_piece(a, l, quantize_piece, &p);
}

float kure_activation_clip(const struct kure_activation_quantizer *a, int group)
{
    if (a->method == KURE_METHOD_DOREFA) return 1;
    return a->method == KURE_METHOD_PACT ? learned_of((struct kure_activation_quantizer *)(uintptr_t)a, group)->value : 0;
}

void kure_activation_features(const struct kure_activation_quantizer *a, const layer *l, size_t features[KURE_MOST_GROUPS])
{
    size_t outputs = (size_t)l->outputs;
    features[0] = a->head_rows ? outputs / (size_t)a->head_rows * (size_t)a->head_boxes : outputs;
    features[1] = a->head_rows ? outputs - features[0] : outputs;
}

static void mask_piece(void *context, int group, size_t offset, size_t count)
{
    struct pass *p = context;
    struct kure_activation_group *g = &p->a->now->group[group];
    struct kure_noise noise = p->noise;
    noise.first += offset;
    if (p->a->method == KURE_METHOD_PACT || p->a->method == KURE_METHOD_DOREFA) {
        g->descent += kure_pact_backward(p->x + offset, p->y + offset, p->y + offset, count, kure_activation_clip(p->a, group));
        return;
    }
    if (is_learned(p->a)) {
        g->descent += kure_learned_step_backward(p->x + offset, p->y + offset, p->y + offset, count, p->features[group], g->scale, &p->a->q, &noise);
        return;
    }
    kure_ste_backward(p->x + offset, p->y + offset, p->y + offset, count, g->scale, &p->a->q, &noise);
}

void kure_activation_mask(struct kure_activation_quantizer *a, const layer *l, const float *x, float *delta,
                          const struct kure_noise *noise)
{
    struct pass p = {.a = a, .x = x, .y = delta, .noise = *noise};
    kure_activation_features(a, l, p.features);
    kure_activation_each_piece(a, l, mask_piece, &p);
    a->has_gradient = is_learned(a);
}
