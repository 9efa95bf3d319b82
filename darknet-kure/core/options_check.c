/*
 * options_check.c: what can only be said of a cfg's options when all of them are read:
 * keys that others make meaningless, sections that are missing.
 *
 * Tested by tests/test_bad_cfg.py.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "options.h"

/* The first entry of that key in a section, NULL: not given. */
static const struct kure_cfg_entry *entry_of(const struct kure_cfg_section *s, const char *key)
{
    for (int i = 0; i < s->count; ++i) {
        if (strcmp(s->entries[i].key, key) == 0) return &s->entries[i];
    }
    return NULL;
}

/* Line of a key in the first section of that type that has it, 0: not given. */
static int line_of(const struct kure_cfg *cfg, const char *type, const char *key)
{
    for (int i = 0; i < cfg->count; ++i) {
        const struct kure_cfg_entry *e = strcmp(cfg->sections[i].type, type) == 0 ? entry_of(&cfg->sections[i], key) : NULL;
        if (e) return e->line;
    }
    return 0;
}

/* Darknet would leave the rest of a batch out of every update. Read as Darknet reads it,
 * which itself refuses what is no batch at all. */
static enum kure_status check_subdivisions(const struct kure_cfg *cfg, struct kure_error *error)
{
    const struct kure_cfg_section *s = &cfg->sections[0];
    if (strcmp(s->type, "net") != 0 && strcmp(s->type, "network") != 0) return KURE_OK;
    const struct kure_cfg_entry *b = entry_of(s, "batch"), *d = entry_of(s, "subdivisions");
    int batch = b && b->value ? atoi(b->value) : 1, subdivisions = d && d->value ? atoi(d->value) : 1;
    if (subdivisions < 1 || batch % subdivisions == 0) return KURE_OK;
    return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [%s] subdivisions=%d: must divide batch=%d", cfg->path, d->line, s->type,
                     subdivisions, batch);
}

static enum kure_status check_kurtosis(const struct kure_cfg *cfg, const struct kure_options *o, struct kure_error *error)
{
    const struct kure_kurtosis_options *k = &o->kurtosis;
    int every = line_of(cfg, "kurtosis", "every");
    if (every && !k->log) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [kurtosis] every needs log=FILE, else it changes nothing", o->path, every);
    }
    if (k->line && k->fold && k->granularity == KURE_GRANULARITY_CHANNEL) {
        return kure_fail(error, KURE_ERROR_INPUT,
                         "%s:%d: [kurtosis] fold=1 changes nothing with granularity=channel: a row's kurtosis does not "
                         "depend on its scale; leave one of them out", o->path, k->line);
    }
    return KURE_OK;
}

static enum kure_status check_batchnorm(const struct kure_cfg *cfg, const struct kure_options *o, struct kure_error *error)
{
    const struct kure_quantization_options *q = &o->quantization;
    int batchnorm = line_of(cfg, "quantization", "batchnorm");
    if (batchnorm && q->batchnorm && q->method == KURE_METHOD_DOREFA) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [quantization] batchnorm=%s: method=dorefa scales the raw weights: say train, or leave "
                         "it out", o->path, batchnorm, q->batchnorm == KURE_BATCHNORM_FOLD ? "fold" : "freeze");
    }
    int profile = line_of(cfg, "quantization", "profile");
    if (profile && q->profile && q->method == KURE_METHOD_DOREFA) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [quantization] profile: method=dorefa has a grid of its own for weights: use another "
                         "method", o->path, profile);
    }
    int freeze_at = line_of(cfg, "quantization", "freeze_at");
    if (freeze_at && q->batchnorm != KURE_BATCHNORM_FREEZE) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [quantization] freeze_at is read with batchnorm=freeze only", o->path, freeze_at);
    }
    if (q->batchnorm == KURE_BATCHNORM_FREEZE && q->freeze_at < (q->start > 1 ? q->start : 1)) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [quantization] batchnorm=freeze needs freeze_at=UPDATE, at least %lld%s", o->path,
                         freeze_at ? freeze_at : batchnorm, (long long)(q->start > 1 ? q->start : 1), q->start > 1 ? ", where simulation starts" : "");
    }
    return KURE_OK;
}

static enum kure_status check_quantization(const struct kure_cfg *cfg, const struct kure_options *o, struct kure_error *error)
{
    const struct kure_quantization_options *q = &o->quantization;
    if (q->first_bits == 1 || q->last_bits == 1) {
        const char *key = q->first_bits == 1 ? "first_bits" : "last_bits";
        return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [quantization] %s=1: must be from 2 to 16, or 0 for float", o->path,
                         line_of(cfg, "quantization", key), key);
    }
    int learned = line_of(cfg, "quantization", "learned_rate"), decay = line_of(cfg, "quantization", "learned_decay");
    if ((learned || decay) && q->method != KURE_METHOD_LSQ && q->method != KURE_METHOD_PACT) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [quantization] %s is read with method=lsq and method=pact only", o->path,
                         learned ? learned : decay, learned ? "learned_rate" : "learned_decay");
    }
    int sample = line_of(cfg, "quantization", "sample"), every = line_of(cfg, "quantization", "every");
    if (sample && (q->method == KURE_METHOD_PACT || q->method == KURE_METHOD_DOREFA)) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [quantization] sample is for method=ste and method=lsq", o->path, sample);
    }
    if (every && q->method != KURE_METHOD_STE && q->method != KURE_METHOD_PACT) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [quantization] every is read with method=ste and method=pact only: the others do not "
                         "search for steps again", o->path, every);
    }
    if (sample && every) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [quantization] every has no meaning with sample: the weights' steps are found in each update",
                         o->path, every);
    }
    return check_batchnorm(cfg, o, error);
}

static enum kure_status check_layers(const struct kure_options *o, struct kure_error *error)
{
    const struct kure_kurtosis_options *k = &o->kurtosis;
    for (int i = 0; i < o->layers; ++i) {
        const struct kure_layer_options *l = &o->layer[i];
        if (l->line && !k->line) {
            return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: layer %d has kurtosis keys, but the cfg has no [kurtosis] section",
                             o->path, l->line, i);
        }
        if (l->slope_line && !l->is_leaky) {
            return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: layer %d has slope, which is for activation=leaky", o->path, l->slope_line, i);
        }
        if (l->quantize_line && !l->is_quantize && !o->quantization.line) {
            return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: layer %d has quantizer keys, but the cfg has no [quantization] section",
                             o->path, l->quantize_line, i);
        }
        if (l->kurtosis == 0 && (!isnan(l->target) || !isnan(l->lambda))) {
            return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: layer %d has kurtosis=0, so its other kurtosis keys would be ignored",
                             o->path, l->line, i);
        }
    }
    return KURE_OK;
}

enum kure_status kure_options_check(const struct kure_cfg *cfg, const struct kure_options *o, struct kure_error *error)
{
    enum kure_status status = check_subdivisions(cfg, error);
    if (status == KURE_OK) status = check_kurtosis(cfg, o, error);
    if (status == KURE_OK) status = check_quantization(cfg, o, error);
    return status == KURE_OK ? check_layers(o, error) : status;
}
