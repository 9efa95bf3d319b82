/* options.c: keys.def applied to a cfg; see options.h. */
#define _GNU_SOURCE
#include "options.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "host_keys.h"
#include "quantizer_keys.h"
#include "sample.h"

static int is_net(const char *type)
{
    return strcmp(type, "net") == 0 || strcmp(type, "network") == 0;
}

int kure_is_our_section(const char *type)
{
    return strcmp(type, "kurtosis") == 0 || strcmp(type, "quantization") == 0;
}

static enum kure_key_section section_of(const char *type)
{
    return strcmp(type, "kurtosis") == 0 ? kurtosis : strcmp(type, "quantization") == 0 ? quantization : is_net(type) ? net : layer;
}

int kure_is_our_key(const char *type, const char *name)
{
    enum kure_quantized which;
    enum kure_key_section section = section_of(type);
    return kure_key_find(section, name) || ((section == layer || section == quantization) && kure_quantizer_key_find(name, &which));
}

/* Defaults come from the table, through the same parsers. */
static enum kure_status set_defaults(struct kure_options *o, struct kure_error *error)
{
    o->net.seed = -1;
    for (int i = 0; i < kure_keys_count; ++i) {
        const struct kure_key *k = &kure_keys[i];
        if ((k->section != kurtosis && k->section != quantization) || !*k->default_text) continue;
        struct kure_cfg_entry entry = {.key = (char *)(uintptr_t)k->name, .value = (char *)(uintptr_t)k->default_text};
        struct kure_place at = {o->path, "defaults", &entry};
        void *options = k->section == kurtosis ? (void *)&o->kurtosis : (void *)&o->quantization;
        enum kure_status status = kure_key_parse(k, &at, options, error);
        if (status != KURE_OK) return status;
    }
    for (int w = 0; w < 3; ++w) kure_quantizer_keys_clear(&o->quantization.quantizer[w]);
    for (int i = 0; i < o->layers; ++i) {
        o->layer[i].kurtosis = -1;
        o->layer[i].target = o->layer[i].lambda = NAN;
        o->layer[i].quantize = -1;
        o->layer[i].slope = NAN;
        for (int w = 0; w < 3; ++w) kure_quantizer_keys_clear(&o->layer[i].quantizer[w]);
    }
    return KURE_OK;
}

/* ------------------------------------------------------------------------- */
/* Sections                                                                   */

/* The name of ours nearest to one that is not: its distance in edits. */
static int nearest_name(enum kure_key_section section, const char *name, char nearest[64])
{
    int distance = 1000;
    const struct kure_key *k = kure_key_nearest(section, name, &distance);
    char other[64];
    if (section == layer || section == quantization) {
        int d = kure_quantizer_key_nearest(name, other);
        if (!k || d < distance) {
            memcpy(nearest, other, sizeof other);
            return d;
        }
    }
    snprintf(nearest, 64, "%s", k ? k->name : "");
    return distance;
}

/* A key that stands in the wrong section: the nearest one of another section. */
struct elsewhere {
    char name[64];
    const char *section;
    int distance;
};

static void take_nearer(struct elsewhere *e, const char *name, const char *section, int distance)
{
    if (distance >= e->distance) return;
    snprintf(e->name, sizeof e->name, "%s", name);
    e->section = section;
    e->distance = distance;
}

static struct elsewhere find_elsewhere(enum kure_key_section section, const char *name)
{
    static const char *const places[] = {[kurtosis] = "[kurtosis]", [net] = "[net]", [layer] = "a layer such as [convolutional]",
                                         [quantization] = "[quantization]"};
    static const char prefix[] = "kurtosis_"; /* kurtosis_mode in a layer is mode in [kurtosis] */
    struct elsewhere e = {"", "", 1000};
    char quantizer[64];
    for (int s = kurtosis; s <= quantization; ++s) {
        int distance = 1000;
        if (s == (int)section) continue;
        const struct kure_key *k = kure_key_nearest((enum kure_key_section)s, name, &distance);
        if (k) take_nearer(&e, k->name, places[s], distance);
    }
    if (strncasecmp(name, prefix, sizeof prefix - 1) == 0) {
        int distance = 1000;
        const struct kure_key *k = kure_key_nearest(kurtosis, name + sizeof prefix - 1, &distance);
        if (distance == 0) take_nearer(&e, k->name, places[kurtosis], 0);
    }
    if (section == kurtosis || section == net) {
        int distance = kure_quantizer_key_nearest(name, quantizer);
        take_nearer(&e, quantizer, places[quantization], distance);
    }
    return e;
}

static enum kure_status fail_unknown(const struct kure_place *at, const char *nearest, const char *section, struct kure_error *error)
{
    return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [%s] unknown key '%s': did you mean '%s'%s%s?", at->path, at->entry->line,
                     at->section, at->entry->key, nearest, section ? ", which belongs into " : "", section ? section : "");
}

static enum kure_status fail_place(const struct kure_place *at, const struct elsewhere *e, struct kure_error *error)
{
    int same = strcmp(at->entry->key, e->name) == 0;
    return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [%s] %s: belongs into %s%s%s", at->path, at->entry->line, at->section,
                     at->entry->key, e->section, same ? "" : " as ", same ? "" : e->name);
}

/* How many edits still mean a key of another section: few, where a name is short. */
static int tolerance(const char *name)
{
    size_t length = strlen(name);
    return length >= 6 ? 2 : length == 5 ? 1 : 0;
}

/* In Darknet's own sections only names close to ours are our business, and none that
 * Darknet has itself or that is nearer to one of its own. */
static enum kure_status check_name(const struct kure_place *at, enum kure_key_section section, struct kure_error *error)
{
    const char *name = at->entry->key;
    int in_ours = section == kurtosis || section == quantization;
    if (!in_ours && kure_is_host_key(name)) return KURE_OK;
    char nearest[64];
    int distance = nearest_name(section, name, nearest);
    struct elsewhere e = find_elsewhere(section, name);
    if (distance > 0 && e.distance == 0) return fail_place(at, &e, error);
    if (in_ours || distance == 0) return fail_unknown(at, nearest, NULL, error);
    int host = kure_host_key_distance(section == net, name);
    if (distance <= 2 && distance <= host) return fail_unknown(at, nearest, NULL, error);
    if (e.distance <= tolerance(e.name) && e.distance < host) return fail_unknown(at, e.name, e.section, error);
    return KURE_OK;
}

/* A key of a quantizer, in [quantization] or a layer. */
static enum kure_status parse_quantizer_key(const struct kure_key *k, enum kure_quantized which, const struct kure_place *at,
                                            struct kure_quantizer_keys *quantizer, struct kure_error *error)
{
    struct kure_quantizer_keys *keys = &quantizer[which];
    if (!keys->line) keys->line = at->entry->line;
    enum kure_status status = kure_key_parse(k, at, keys, error);
    if (status == KURE_OK && keys->bits == 1) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [%s] %s=1: must be from 2 to 16, or 0 for float", at->path,
                         at->entry->line, at->section, at->entry->key);
    }
    if (status == KURE_OK && keys->grid == KURE_GRID_MIDRISE) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [%s] %s=midrise: for evaluation only; training takes narrow or full", at->path,
                         at->entry->line, at->section, at->entry->key);
    }
    return status;
}

static enum kure_status parse_entry(const struct kure_cfg_section *s, const struct kure_place *at, struct kure_options *o,
                                    struct kure_error *error)
{
    enum kure_key_section section = section_of(s->type);
    struct kure_layer_options *own = section == layer ? &o->layer[s->layer] : NULL;
    void *targets[] = {[kurtosis] = &o->kurtosis, [net] = &o->net, [layer] = own, [quantization] = &o->quantization};
    enum kure_quantized which;
    const struct kure_key *k = kure_key_find(section, at->entry->key), *q = NULL;
    if (own && at->entry->value && strcmp(at->entry->key, "activation") == 0) {
        own->is_relu6 = strcmp(at->entry->value, "relu6") == 0;
        own->is_leaky = strcmp(at->entry->value, "leaky") == 0;
        return KURE_OK;
    }
    if (!k && (own || section == quantization)) q = kure_quantizer_key_find(at->entry->key, &which);
    if (q) {
        if (own && !own->quantize_line) own->quantize_line = at->entry->line;
        return parse_quantizer_key(q, which, at, own ? own->quantizer : o->quantization.quantizer, error);
    }
    if (!k) return check_name(at, section, error);
    int *line = !own ? NULL : strncmp(k->name, "kurtosis", 8) == 0 ? &own->line
                : strcmp(k->name, "slope") == 0 ? &own->slope_line : &own->quantize_line;
    if (line && !*line) *line = at->entry->line;
    return kure_key_parse(k, at, targets[section], error);
}

/* [quantize] is our layer: Darknet reads a route of one in its place. */
static enum kure_status check_quantize_key(const struct kure_cfg_section *s, const struct kure_place *at, struct kure_error *error)
{
    enum kure_quantized which;
    char nearest[64];
    if (strcmp(s->type, "quantize") != 0 || kure_quantizer_key_find(at->entry->key, &which)) return KURE_OK;
    kure_quantizer_key_nearest(at->entry->key, nearest);
    return fail_unknown(at, nearest, NULL, error);
}

static enum kure_status parse_section(const struct kure_cfg_section *s, struct kure_options *o, struct kure_error *error)
{
    if (s->layer >= 0 && strcmp(s->type, "quantize") == 0) {
        o->layer[s->layer].is_quantize = 1;
        o->layer[s->layer].quantize_line = s->line;
    }
    for (int i = 0; i < s->count; ++i) {
        struct kure_place at = {o->path, s->type, &s->entries[i]};
        for (int j = 0; j < i && kure_is_our_key(s->type, at.entry->key); ++j) {
            if (strcmp(s->entries[j].key, at.entry->key) == 0) {
                return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [%s] %s is given twice, first in line %d", o->path,
                                 at.entry->line, s->type, at.entry->key, s->entries[j].line);
            }
        }
        enum kure_status status = check_quantize_key(s, &at, error);
        if (status == KURE_OK) status = parse_entry(s, &at, o, error);
        if (status != KURE_OK) return status;
    }
    return KURE_OK;
}

static enum kure_status check_section_type(const struct kure_cfg_section *s, const struct kure_options *o,
                                           struct kure_error *error)
{
    static const char *const ours[] = {"kurtosis", "quantization"};
    if (strcmp(s->type, "quantize") == 0) {
        if (s->layer != 0) return KURE_OK;
        return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [quantize] stands first: there is no layer before it that it could quantize",
                         o->path, s->line);
    }
    for (size_t i = 0; i < sizeof ours / sizeof *ours && !kure_is_our_section(s->type); ++i) {
        if (kure_edit_distance(s->type, ours[i]) > 2) continue;
        return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: unknown section [%s]: did you mean [%s]?", o->path, s->line, s->type,
                         ours[i]);
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
            int *line = section_of(s->type) == kurtosis ? &o->kurtosis.line : &o->quantization.line;
            if (*line) {
                return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [%s] is given twice, first in line %d", o->path, s->line,
                                 s->type, *line);
            }
            *line = s->line;
        } else if (i > 0 && s->layer < 0) {
            continue;
        } else if (i == 0 && !is_net(s->type)) {
            continue; /* Darknet says so itself */
        }
        status = parse_section(s, o, error);
    }
    return status == KURE_OK ? kure_options_check(cfg, o, error) : status;
}

void kure_options_free(struct kure_options *o)
{
    free(o->kurtosis.layers.text);
    free(o->kurtosis.layers.ranges);
    free(o->kurtosis.log);
    kure_sample_free(&o->quantization.sample);
    free(o->layer);
    free(o->path);
    memset(o, 0, sizeof *o);
}
