/* options.c: keys.def applied to a cfg; see options.h. */
#define _GNU_SOURCE
#include "options.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "keys.h"

/* Sections and keys of the quantization layer, which this version does not have:
 * refused by name, so that nobody trains without what the cfg asks for. */
static const char *const reserved_sections[] = {"quantization", "quantize"};
static const char *const reserved_suffixes[] = {
    "bits", "rounding", "truncation", "truncation_value", "step", "step_ratio", "granularity", "grid", "symmetric",
};

static int is_reserved_section(const char *type)
{
    for (size_t i = 0; i < sizeof reserved_sections / sizeof *reserved_sections; ++i) {
        if (strcmp(type, reserved_sections[i]) == 0) return 1;
    }
    return 0;
}

static int is_reserved_key(const char *key)
{
    if (strcmp(key, "quantize") == 0) return 1;
    const char *suffix = NULL;
    if (strncmp(key, "weight_", 7) == 0) suffix = key + 7;
    if (strncmp(key, "activation_", 11) == 0) suffix = key + 11;
    for (size_t i = 0; suffix && i < sizeof reserved_suffixes / sizeof *reserved_suffixes; ++i) {
        if (strcmp(suffix, reserved_suffixes[i]) == 0) return 1;
    }
    return 0;
}

static int is_net(const char *type)
{
    return strcmp(type, "net") == 0 || strcmp(type, "network") == 0;
}

int kure_is_our_section(const char *type)
{
    return strcmp(type, "kurtosis") == 0;
}

static enum kure_key_section section_of(const char *type)
{
    return kure_is_our_section(type) ? kurtosis : is_net(type) ? net : layer;
}

int kure_is_our_key(const char *type, const char *name)
{
    return kure_key_find(section_of(type), name) != NULL;
}

/* Defaults come from the table, through the same parsers. */
static enum kure_status set_defaults(struct kure_options *o, struct kure_error *error)
{
    o->net.seed = -1;
    for (int i = 0; i < kure_keys_count; ++i) {
        if (kure_keys[i].section != kurtosis || !*kure_keys[i].default_text) continue;
        struct kure_cfg_entry entry = {0, (char *)(uintptr_t)kure_keys[i].name, (char *)(uintptr_t)kure_keys[i].default_text};
        struct kure_place at = {o->path, "kurtosis", &entry};
        enum kure_status status = kure_key_parse(&kure_keys[i], &at, &o->kurtosis, error);
        if (status != KURE_OK) return status;
    }
    for (int i = 0; i < o->layers; ++i) {
        o->layer[i].kurtosis = -1;
        o->layer[i].target = o->layer[i].lambda = NAN;
    }
    return KURE_OK;
}

/* ------------------------------------------------------------------------- */
/* Sections                                                                   */

/* In Darknet's own sections only names close to ours are our business. */
static enum kure_status check_foreign_key(const struct kure_place *at, enum kure_key_section section, struct kure_error *error)
{
    const char *name = at->entry->key;
    if (section == layer && is_reserved_key(name)) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [%s] %s: this version does not simulate quantization in training",
                         at->path, at->entry->line, at->section, name);
    }
    int distance = 0;
    const struct kure_key *near = kure_key_nearest(section, name, &distance);
    int limit = near && strlen(near->name) >= 8 ? 2 : 1; /* `step` is two edits from `seed` */
    if (near && distance <= limit) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [%s] unknown key '%s': did you mean '%s'?", at->path,
                         at->entry->line, at->section, name, near->name);
    }
    return KURE_OK;
}

static enum kure_status fail_unknown(const struct kure_place *at, struct kure_error *error)
{
    int distance = 0;
    const struct kure_key *near = kure_key_nearest(kurtosis, at->entry->key, &distance);
    return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [%s] unknown key '%s': did you mean '%s'?", at->path,
                     at->entry->line, at->section, at->entry->key, near->name);
}

static enum kure_status parse_section(const struct kure_cfg_section *s, struct kure_options *o, struct kure_error *error)
{
    enum kure_key_section section = section_of(s->type);
    void *target = section == kurtosis ? (void *)&o->kurtosis : section == net ? (void *)&o->net : &o->layer[s->layer];
    for (int i = 0; i < s->count; ++i) {
        struct kure_place at = {o->path, s->type, &s->entries[i]};
        const struct kure_key *k = kure_key_find(section, at.entry->key);
        enum kure_status status;
        if (!k) {
            status = section == kurtosis ? fail_unknown(&at, error) : check_foreign_key(&at, section, error);
            if (status != KURE_OK) return status;
            continue;
        }
        for (int j = 0; j < i; ++j) {
            if (strcmp(s->entries[j].key, at.entry->key) == 0) {
                return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [%s] %s is given twice, first in line %d", o->path,
                                 at.entry->line, s->type, at.entry->key, s->entries[j].line);
            }
        }
        status = kure_key_parse(k, &at, target, error);
        if (status != KURE_OK) return status;
        if (section == layer && !o->layer[s->layer].line) o->layer[s->layer].line = at.entry->line;
    }
    return KURE_OK;
}

static enum kure_status check_section_type(const struct kure_cfg_section *s, const struct kure_options *o,
                                           struct kure_error *error)
{
    if (is_reserved_section(s->type)) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [%s]: this version does not simulate quantization in training",
                         o->path, s->line, s->type);
    }
    if (!kure_is_our_section(s->type) && kure_edit_distance(s->type, "kurtosis") <= 2) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: unknown section [%s]: did you mean [kurtosis]?", o->path, s->line,
                         s->type);
    }
    return KURE_OK;
}

/* Line of a key in the first section of that type, 0: not given. */
static int line_of(const struct kure_cfg *cfg, const char *type, const char *key)
{
    for (int i = 0; i < cfg->count; ++i) {
        for (int j = 0; strcmp(cfg->sections[i].type, type) == 0 && j < cfg->sections[i].count; ++j) {
            if (strcmp(cfg->sections[i].entries[j].key, key) == 0) return cfg->sections[i].entries[j].line;
        }
    }
    return 0;
}

/* What can only be said when all is read. */
static enum kure_status check_together(const struct kure_cfg *cfg, const struct kure_options *o, struct kure_error *error)
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
    for (int i = 0; i < o->layers; ++i) {
        const struct kure_layer_options *l = &o->layer[i];
        if (l->line && !k->line) {
            return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: layer %d has kurtosis keys, but the cfg has no [kurtosis] section",
                             o->path, l->line, i);
        }
        if (l->kurtosis == 0 && (!isnan(l->target) || !isnan(l->lambda))) {
            return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: layer %d has kurtosis=0, so its other kurtosis keys would be ignored",
                             o->path, l->line, i);
        }
    }
    return KURE_OK;
}

enum kure_status kure_options_parse(const struct kure_cfg *cfg, struct kure_options *o, struct kure_error *error)
{
    memset(o, 0, sizeof *o);
    o->path = strdup(cfg->path);
    o->layers = cfg->layers;
    o->layer = calloc((size_t)cfg->layers, sizeof *o->layer);
    if (!o->path || !o->layer) return kure_fail_memory(error);
    enum kure_status status = set_defaults(o, error);
    for (int i = 0; status == KURE_OK && i < cfg->count; ++i) {
        const struct kure_cfg_section *s = &cfg->sections[i];
        status = check_section_type(s, o, error);
        if (status != KURE_OK) break;
        if (kure_is_our_section(s->type)) {
            if (i == 0) return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [%s] must stand after [net]", o->path, s->line, s->type);
            if (o->kurtosis.line) {
                return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [%s] is given twice, first in line %d", o->path, s->line,
                                 s->type, o->kurtosis.line);
            }
            o->kurtosis.line = s->line;
        } else if (i > 0 && s->layer < 0) {
            continue;
        } else if (i == 0 && !is_net(s->type)) {
            continue; /* Darknet says so itself */
        }
        status = parse_section(s, o, error);
    }
    return status == KURE_OK ? check_together(cfg, o, error) : status;
}

void kure_options_free(struct kure_options *o)
{
    free(o->kurtosis.layers.text);
    free(o->kurtosis.layers.ranges);
    free(o->kurtosis.log);
    free(o->layer);
    free(o->path);
    memset(o, 0, sizeof *o);
}
