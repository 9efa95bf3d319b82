/*
 * lapq.c: steps of weights and activations found together, by the cross-entropy of
 * training images: LAPQ put to work on a network; see core/lapq.h.
 */
#include "lapq.h"

#include <stdio.h>
#include <stdlib.h>

#include "ptq.h"

struct kure_lapq_steps {
    struct kure_images *images;
    struct kure_point point; /* that was solved last, without step ratios */
    int solved;
    double p, *ratio; /* what was found; [count_steps] */
};

/* What one solution looks at. */
struct solver {
    struct kure_lapq_steps *steps;
    struct kure_ptq *ptq;
    const struct kure_calibration *calibration;
    void (*done)(void *, int);
    void *context;
    double loss; /* sum */
};

struct kure_lapq_steps *kure_lapq_begin(network *net, struct kure_images *images)
{
    const struct kure_network *k = net->kure;
    if (!kure_has_probabilities(net)) {
        struct kure_error error;
        snprintf(error.text, sizeof error.text, "--lapq-images: LAPQ lowers the cross-entropy of a network that ends in a [softmax] without a tree; "
                 "this one ends in [%s]", k->plan.rows[net->n - 1].type);
        kure_stop(&error);
    }
    struct kure_lapq_steps *steps = calloc(1, sizeof *steps);
    if (!steps) kure_stop(&(struct kure_error){"not enough memory for LAPQ"});
    steps->images = images;
    return steps;
}

void kure_lapq_free(struct kure_lapq_steps *steps)
{
    if (!steps) return;
    free(steps->ratio);
    free(steps);
}

/* ---- the steps that are moved ---------------------------------------------------------- */

/* Weights of layer i: not those of the first and the last layers. */
static int moves_weights(const struct kure_ptq *p, int i)
{
    const struct kure_plan_row *row = &p->own.rows[i];
    return p->layers[i].quantizer.bits && p->layers[i].scales && !row->reads_input && !row->feeds_head;
}

/* The quantizers around the activation of layer i, which move together: those with bits. */
static int moves_activations(const struct kure_ptq *p, int i)
{
    const struct kure_plan_row *row = &p->k->plan.rows[i];
    return p->k->simulation && !row->reaches_head && (row->before.bits || row->after.bits);
}

static int count_steps(const struct kure_ptq *p)
{
    int n = 0;
    for (int i = 0; i < p->net->n; ++i) n += moves_weights(p, i) + moves_activations(p, i);
    return n;
}

static void set_ratio(struct kure_ptq *p, int i, struct kure_activation_quantizer *a, double ratio)
{
    struct kure_error error;
    if (!a->q.bits) return;
    a->q.step_ratio = ratio;
    if (kure_activation_rescale(a, &error) != KURE_OK) kure_simulation_stop(p->k, i, &error);
}

/* Multiplies the steps of the point in force by ratio[count_steps]. */
static void move(struct kure_ptq *p, const double *ratio)
{
    for (int i = 0; i < p->net->n; ++i) {
        const struct kure_plan_row *row = &p->k->plan.rows[i];
        if (moves_weights(p, i) && *ratio != p->layers[i].ratio) {
            p->layers[i].ratio = *ratio;
            kure_ptq_quantize(p, i);
        }
        ratio += moves_weights(p, i);
        if (!moves_activations(p, i)) continue;
        set_ratio(p, i, &p->k->simulation->layers[i].before, row->before.step_ratio * *ratio);
        set_ratio(p, i, &p->k->simulation->layers[i].after, row->after.step_ratio * *ratio);
        ++ratio;
    }
}

/* ---- the loss --------------------------------------------------------------------------- */

static void add_batch(void *context, network *net, float *pixels, int first, int count)
{
    struct solver *s = context;
    const float *output = network_predict(net, pixels);
    s->loss += kure_cross_entropy(net, output, s->steps->images->classes + first, count);
    s->done(s->context, count);
}

static double measure(struct solver *s)
{
    s->loss = 0;
    kure_images_each(s->ptq->net, s->steps->images, add_batch, s);
    return s->loss / s->steps->images->count;
}

static struct kure_point with_exponent(const struct kure_point *point, double p)
{
    struct kure_point at = *point;
    at.weights.truncation = at.activations.truncation = KURE_TRUNCATION_LP;
    at.weights.truncation_value = at.activations.truncation_value = p;
    return at;
}

static double start(void *context, double p)
{
    struct solver *s = context;
    struct kure_point point = with_exponent(&s->steps->point, p);
    kure_ptq_set(s->ptq, &point, s->calibration);
    return measure(s);
}

static double loss_at(void *context, const double *ratio)
{
    struct solver *s = context;
    move(s->ptq, ratio);
    return measure(s);
}

/* ---- a point ------------------------------------------------------------------------------ */

static int same_point(const struct kure_point *a, const struct kure_point *b)
{
    return kure_quantizer_equal(&a->weights, &b->weights) && kure_quantizer_equal(&a->activations, &b->activations) && a->fold == b->fold &&
           a->first_bits == b->first_bits && a->last_bits == b->last_bits;
}

static void solve(struct solver *s)
{
    struct kure_lapq_steps *steps = s->steps;
    struct kure_error error;
    kure_ptq_set(s->ptq, &steps->point, s->calibration);
    struct kure_lapq problem = {.count = count_steps(s->ptq), .start = start, .loss = loss_at, .context = s};
    free(steps->ratio);
    steps->ratio = calloc((size_t)problem.count + 1, sizeof *steps->ratio);
    if (!steps->ratio) kure_stop(&(struct kure_error){"not enough memory for LAPQ"});
    if (kure_lapq(&problem, steps->ratio, &error) != KURE_OK) kure_stop(&error);
    steps->p = problem.p;
    steps->solved = 1;
}

int kure_lapq_passes(const struct kure_ptq *ptq)
{
    int most = 0;
    for (int i = 0; i < ptq->net->n; ++i) most += 1 + (ptq->layers[i].weights != NULL); /* activations and weights */
    return kure_lapq_calls(most);
}

double kure_lapq_set(struct kure_lapq_steps *steps, struct kure_ptq *ptq, const struct kure_point *point, const struct kure_calibration *calibration,
                     void (*done)(void *, int), void *context)
{
    struct kure_point plain = with_exponent(point, 2);
    plain.weights.step_ratio = plain.activations.step_ratio = 1;
    if (!steps->solved || !same_point(&steps->point, &plain)) {
        struct solver solver = {.steps = steps, .ptq = ptq, .calibration = calibration, .done = done, .context = context};
        steps->point = plain;
        solve(&solver);
    }
    struct kure_point found = kure_lapq_found(steps, point);
    kure_ptq_set(ptq, &found, calibration);
    move(ptq, steps->ratio);
    return kure_ptq_quantize_all(ptq);
}

struct kure_point kure_lapq_found(const struct kure_lapq_steps *steps, const struct kure_point *point)
{
    return with_exponent(point, steps->p);
}
