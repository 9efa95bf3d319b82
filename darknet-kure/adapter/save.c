/*
 * save.c: a point of post-training quantization as files that training, eval --simulate and
 * export take like any network; see evaluate.h. Tested by tests/test_save.py.
 *
 * The weights are the float ones: what quantizes them is in the cfg, and finds the same
 * scales again, since batch norm, which is folded in, is written as it is now.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cfg.h"
#include "ptq.h"

enum { SECTION_BYTES = 2048, LAYER_BYTES = 128, NUMBER_BYTES = 32 };

static void stop_on(enum kure_status status, const struct kure_error *error)
{
    if (status != KURE_OK) kure_stop(error);
}

/* As many digits as give the number back. */
static const char *number(double x, char out[NUMBER_BYTES])
{
    for (int digits = 6; digits <= 17; ++digits) {
        snprintf(out, NUMBER_BYTES, "%.*g", digits, x);
        if (strtod(out, NULL) == x) break;
    }
    return out;
}

static void add_quantizer(const char *prefix, const struct kure_quantizer *q, char out[SECTION_BYTES])
{
    char value[NUMBER_BYTES];
    size_t used = strlen(out);
    used += (size_t)snprintf(out + used, SECTION_BYTES - used, "%sbits=%d\n%srounding=%s\n%struncation=%s\n", prefix, q->bits, prefix,
                             kure_rounding_text((int)q->rounding).name, prefix, kure_policy_text((int)q->truncation).name);
    if (q->truncation_value != 0) used += (size_t)snprintf(out + used, SECTION_BYTES - used, "%struncation_value=%s\n", prefix, number(q->truncation_value, value));
    snprintf(out + used, SECTION_BYTES - used, "%sstep=%s\n%sstep_ratio=%s\n%sgranularity=%s\n%sgrid=%s\n%ssymmetric=%d\n", prefix, kure_step_name(q->step),
             prefix, number(q->step_ratio, value), prefix, kure_granularity_name(q->granularity), prefix, kure_grid_name(q->grid), prefix, q->symmetric);
}

static void write_section(const struct kure_point *point, char out[SECTION_BYTES])
{
    snprintf(out, SECTION_BYTES, "batchnorm=%s\nfirst_bits=%d\nlast_bits=%d\n", point->fold ? "fold" : "train", point->first_bits, point->last_bits);
    add_quantizer("weight_", &point->weights, out);
    add_quantizer("activation_", &point->activations, out);
}

/* A step ratio that the cfg has to say of layer i; 0: the section's or the layer's own holds. */
static double moved_weights(const struct kure_ptq *p, int i)
{
    const struct kept_layer *kept = &p->layers[i];
    return kept->quantizer.bits && kept->ratio != 1 ? kept->quantizer.step_ratio * kept->ratio : 0;
}

static double moved_activations(const struct kure_ptq *p, int i)
{
    const struct kure_simulation *s = p->k->simulation;
    const struct kure_plan_row *row = &p->k->plan.rows[i];
    if (!s || !row->after.bits || s->layers[i].after.q.step_ratio == row->after.step_ratio) return 0;
    return s->layers[i].after.q.step_ratio;
}

/* Lines of layer i, NULL: none. */
static const char *layer_lines(const struct kure_ptq *p, int i, char out[LAYER_BYTES])
{
    char value[NUMBER_BYTES];
    double weights = moved_weights(p, i), activations = moved_activations(p, i);
    out[0] = 0;
    if (weights != 0) snprintf(out, LAYER_BYTES, "weight_step_ratio=%s\n", number(weights, value));
    if (activations != 0) snprintf(out + strlen(out), LAYER_BYTES - strlen(out), "activation_step_ratio=%s\n", number(activations, value));
    return *out ? out : NULL;
}

static void write_cfg(const struct kure_ptq *p, const struct kure_point *point, const char *cfg, const char *out)
{
    struct kure_error error;
    char section[SECTION_BYTES];
    char (*lines)[LAYER_BYTES] = malloc((size_t)p->net->n * sizeof *lines);
    const char **layers = calloc((size_t)p->net->n, sizeof *layers);
    if (!lines || !layers) kure_stop(&(struct kure_error){"not enough memory"});
    write_section(point, section);
    for (int i = 0; i < p->net->n; ++i) layers[i] = layer_lines(p, i, lines[i]);
    stop_on(kure_cfg_write_quantized(cfg, out, section, layers, &error), &error);
    free(layers);
    free(lines);
}

void kure_ptq_save(struct kure_ptq *p, const struct kure_point *point, const struct kure_calibration *calibration, const char *cfg, const char *name)
{
    char *out = NULL, *weights = NULL;
    if (asprintf(&out, "%s.cfg", name) < 0 || asprintf(&weights, "%s.weights", name) < 0) kure_stop(&(struct kure_error){"not enough memory"});
    write_cfg(p, point, cfg, out);
    kure_ptq_restore_weights(p);
    p->k->trained = 0; /* momentum belongs to the weights as they were */
    save_weights(p->net, weights);
    network *saved = kure_network_load(out, weights);
    if (calibration) kure_calibration_apply(calibration, saved->kure);
    kure_sidecar_save(saved->kure, weights);
    free_network(saved);
    free(out);
    free(weights);
}
