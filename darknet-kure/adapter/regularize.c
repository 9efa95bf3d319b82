/*
 * regularize.c: adds the KURE term to Darknet's weight updates.
 *
 * Darknet's delta is truth - prediction, so weight_updates accumulates the negative
 * gradient summed over images, and update_network does W += (rate/B) * updates. The
 * term of equations 14 and 15 is therefore updates -= lambda * B * (1/L) dL_K/dW,
 * once an update, before Darknet's own step, with the B that the update receives.
 *
 * Updates run in ascending order of layers. So wrapping the first regularized layer
 * is enough: when it is called, no layer has moved yet, and the term of all layers
 * can be added at once.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "regularize_cuda.h"

static const char *skip_text(enum kure_skip skip)
{
    switch (skip) {
    case KURE_SKIP_NONFINITE: return "a weight is not finite";
    case KURE_SKIP_CONSTANT: return "all weights are equal";
    case KURE_SKIP_SMALL: return "fewer than 16 weights";
    case KURE_SKIP_NO: break;
    }
    return "";
}

static void report_skip(struct kure_network *k, int i)
{
    enum kure_skip skip = k->measures[i].skip;
    if (skip == KURE_SKIP_NO || k->reported[i]) return;
    k->reported[i] = 1;
    fprintf(stderr, "[kurtosis] skips layer %d [%s]: %s\n", i, k->plan.rows[i].type, skip_text(skip));
}

static struct kure_kurtosis_rule rule_of(const struct kure_plan *plan, int i)
{
    return (struct kure_kurtosis_rule){
        .target = plan->rows[i].target,
        .granularity = (enum kure_granularity)plan->kurtosis.granularity,
        .std = (enum kure_std)plan->kurtosis.std,
        .fold = (int)plan->kurtosis.fold,
    };
}

/* mode=max chooses among these: layers whose own lambda is 0 are only logged. */
static int is_candidate(const struct kure_plan *plan, int i)
{
    return plan->rows[i].lambda > 0 || plan->kurtosis.lambda == 0;
}

static void measure(struct kure_network *k, int i)
{
    struct kure_kurtosis_rule rule = rule_of(&k->plan, i);
#ifdef GPU
    if (k->cuda) {
        kure_cuda_finish(k, i, &rule);
        return;
    }
#endif
    struct kure_tensor t = kure_tensor_of(&k->net->layers[i], k->scratch[i]);
    kure_kurtosis_measure(&t, &rule, &k->measures[i]);
}

/* Measures every layer of the plan and returns the candidate with the largest loss, -1: none. */
static int measure_all(struct kure_network *k)
{
    int worst = -1;
    double sum = 0;
#ifdef GPU
    if (k->cuda) kure_cuda_measure(k);
#endif
    for (int i = 0; i < k->plan.count; ++i) {
        if (!k->plan.rows[i].regularized) continue;
        measure(k, i);
        report_skip(k, i);
        if (k->measures[i].skip != KURE_SKIP_NO) continue;
        sum += k->measures[i].loss;
        if (!is_candidate(&k->plan, i)) continue;
        if (worst < 0 || k->measures[i].loss > k->measures[worst].loss) worst = i;
    }
    k->loss = sum;
    if (k->plan.kurtosis.mode == KURE_MODE_AVG) k->loss = sum / k->plan.regularized;
    if (k->plan.kurtosis.mode == KURE_MODE_MAX) k->loss = worst < 0 ? 0 : k->measures[worst].loss;
    return worst;
}

/* Share of lambda in force at an update (0-based). */
static double schedule(const struct kure_kurtosis_options *o, long long update)
{
    if (update < o->start) return 0;
    if (o->ramp == 0) return 1;
    return fmin(1, (double)(update - o->start + 1) / (double)o->ramp);
}

static int apply(struct kure_network *k, int i, double factor, double rate)
{
    struct kure_kurtosis_rule rule = rule_of(&k->plan, i);
    double max_step = k->plan.kurtosis.max_step;
#ifdef GPU
    if (k->cuda) return kure_cuda_apply(k, i, &rule, factor, rate, max_step);
#endif
    struct kure_tensor t = kure_tensor_of(&k->net->layers[i], k->scratch[i]);
    return kure_kurtosis_apply(&t, &rule, &k->measures[i], factor, rate, max_step);
}

static void apply_all(struct kure_network *k, update_args a, double share, int worst)
{
    const struct kure_kurtosis_options *o = &k->plan.kurtosis;
    double weight = o->mode == KURE_MODE_AVG ? 1. / k->plan.regularized : 1;
    for (int i = 0; i < k->plan.count; ++i) {
        const struct kure_plan_row *row = &k->plan.rows[i];
        if (!row->regularized || row->lambda == 0 || (o->mode == KURE_MODE_MAX && i != worst)) continue;
        double factor = share * row->lambda * weight * a.batch;
        double rate = (double)a.learning_rate * k->net->layers[i].learning_rate_scale / a.batch;
        k->capped += apply(k, i, factor, rate);
    }
#ifdef GPU
    if (k->cuda) kure_cuda_descend(k);
#endif
}

/* Is anything of this update's measures used? */
static int is_wanted(const struct kure_network *k, long long update, double share)
{
    const struct kure_kurtosis_options *o = &k->plan.kurtosis;
    return (o->lambda > 0 && share > 0) || (o->log && (update + 1) % o->every == 0);
}

static void check_training_loop(struct kure_network *k)
{
    if (!k->plan.kurtosis.log || k->unseen++ == 0) return;
    struct kure_error error;
    snprintf(error.text, sizeof error.text, "%s:%d: [kurtosis] log= works with 'classifier train' and 'detector train' only",
             k->options.path, k->plan.kurtosis.line);
    kure_stop(&error);
}

static void update_with_kurtosis(layer l, update_args a)
{
    struct kure_network *k = l.kure;
    long long update = kure_updates_done(k->net) - 1; /* `seen` already counts this update's images */
    double share = schedule(&k->plan.kurtosis, update);
    check_training_loop(k);
    k->capped = 0;
    k->measured = is_wanted(k, update, share);
    if (k->measured) {
        int worst = measure_all(k);
        if (share > 0) apply_all(k, a, share, worst);
    }
    k->rate = (double)a.learning_rate;
    k->trained = 1;
    k->update(l, a);
}

/* Darknet has another function for updates on the GPU. */
static void wrap_update(struct kure_network *k, layer *l)
{
    void (**update)(layer, update_args) = &l->update;
#ifdef GPU
    if (gpu_index >= 0) {
        kure_cuda_attach(k);
        update = &l->update_gpu;
    }
#endif
    l->kure = k;
    k->update = *update;
    *update = update_with_kurtosis;
}

void kure_regularize_attach(struct kure_network *k)
{
    size_t n = (size_t)k->plan.count;
    k->measures = calloc(n, sizeof *k->measures);
    k->scratch = calloc(n, sizeof *k->scratch);
    k->reported = calloc(n, 1);
    int ok = k->measures && k->scratch && k->reported;
    for (int i = 0; ok && i < k->plan.count; ++i) {
        const struct kure_plan_row *row = &k->plan.rows[i];
        if (!row->regularized) continue;
        if (k->first < 0) k->first = i;
        if (k->plan.kurtosis.fold && row->batch_normalize && gpu_index < 0) {
            k->scratch[i] = calloc(row->rows * row->row_length, sizeof(float));
            ok = k->scratch[i] != NULL;
        }
    }
    if (!ok) kure_stop(&(struct kure_error){"not enough memory for [kurtosis]"});
    wrap_update(k, &k->net->layers[k->first]);
}
