/* sample.c: see sample.h. Tested by tests/test_sample.py. */
#define _GNU_SOURCE
#include "sample.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "kure_math.h"
#include "quantizer_keys.h"

struct kure_sample_item {
    enum kure_quantized which;
    const struct kure_key *key;   /* row of quantizer_keys.def */
    int is_range;                 /* of reals: values[0] to values[1] */
    int count;
    double values[KURE_SAMPLE_VALUES]; /* choices: the enum */
};

static const char *const drawable[] = {"bits", "step_ratio", "rounding", "truncation", "step"};
enum drawn_key { BITS, STEP_RATIO, ROUNDING, TRUNCATION, STEP, DRAWABLE };

static enum drawn_key drawn_key(const struct kure_sample_item *item)
{
    int i = 0;
    while (strcmp(drawable[i], item->key->name) != 0) ++i;
    return (enum drawn_key)i;
}

/* ------------------------------------------------------------------------- */
/* Parsing                                                                    */

static enum kure_status fail(const struct kure_place *at, const char *item, const char *reason, struct kure_error *error)
{
    return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [%s] sample: '%s' %s", at->path, at->entry->line, at->section, item, reason);
}

static enum kure_status parse_bits(const struct kure_place *at, const char *written, const char *text, double *out, struct kure_error *error)
{
    char *end, reason[96];
    long bits = strtol(text, &end, 10);
    *out = (double)bits;
    if (!*end && bits >= 2 && bits <= 16) return KURE_OK;
    snprintf(reason, sizeof reason, "is no width for %s: an integer from 2 to 16, a list 4,8 or a range 3-8", written);
    return fail(at, text, reason, error);
}

/* One value by the key's own parser, whose sentence names key and range. written [in]: the key with its prefix. */
static enum kure_status parse_value(const struct kure_place *at, const struct kure_key *key, const char *written, char *text, double *out,
                                    struct kure_error *error)
{
    char name[96];
    struct kure_quantizer_keys parsed;
    struct kure_error reason;
    if (!*text) return fail(at, written, "has no value there: values follow the colon without a blank, separated by commas", error);
    if (strchr(text, ';')) return fail(at, text, "holds a ';': items are separated by blanks", error);
    if (strcmp(key->name, "bits") == 0) return parse_bits(at, written, text, out, error);
    snprintf(name, sizeof name, "sample: %s", written);
    struct kure_cfg_entry entry = {.line = at->entry->line, .key = name, .value = text};
    struct kure_place place = {at->path, at->section, &entry};
    kure_quantizer_keys_clear(&parsed);
    if (kure_key_parse(key, &place, &parsed, &reason) != KURE_OK) return kure_fail(error, KURE_ERROR_INPUT, "%s", reason.text);
    const void *field = (const char *)&parsed + key->offset;
    *out = key->kind == REAL ? *(const double *)field : (double)*(const int64_t *)field;
    return KURE_OK;
}

static enum kure_status add_value(const struct kure_place *at, struct kure_sample_item *item, double value, struct kure_error *error)
{
    for (int i = 0; i < item->count; ++i) {
        if (item->values[i] == value) return fail(at, item->key->name, "has the same value twice", error);
    }
    if (item->count == KURE_SAMPLE_VALUES) return fail(at, item->key->name, "has more values than can be drawn from", error);
    item->values[item->count++] = value;
    return KURE_OK;
}

/* "3-8": two values, or for bits all between; "half_even,floor": as many as there are */
static enum kure_status parse_values(const struct kure_place *at, struct kure_sample_item *item, const char *written, char *text,
                                     struct kure_error *error)
{
    char *dash = item->key->kind == CHOICE ? NULL : strchr(text, '-');
    double low, high;
    enum kure_status status = KURE_OK;
    if (dash && !strchr(text, ',')) {
        *dash = 0;
        status = parse_value(at, item->key, written, text, &low, error);
        if (status == KURE_OK) status = parse_value(at, item->key, written, dash + 1, &high, error);
        if (status != KURE_OK) return status;
        if (low > high) return fail(at, text, "starts a range that runs backwards", error);
        item->is_range = item->key->kind == REAL;
        if (item->is_range) {
            item->count = 2;
            item->values[0] = low;
            item->values[1] = high;
            return KURE_OK;
        }
        for (double x = low; status == KURE_OK && x <= high; ++x) status = add_value(at, item, x, error);
        return status;
    }
    for (char *value; status == KURE_OK && (value = strsep(&text, ",")) != NULL;) {
        status = parse_value(at, item->key, written, value, &low, error);
        if (status == KURE_OK) status = add_value(at, item, low, error);
    }
    return status;
}

static enum kure_status find_key(const struct kure_place *at, const char *name, struct kure_sample_item *item, struct kure_error *error)
{
    char nearest[64], reason[160];
    item->key = kure_quantizer_key_find(name, &item->which);
    if (!item->key) {
        kure_quantizer_key_nearest(name, nearest);
        snprintf(reason, sizeof reason, "is no key of a quantizer: did you mean '%s'?", nearest);
        return fail(at, name, reason, error);
    }
    for (int i = 0; i < DRAWABLE; ++i) {
        if (strcmp(item->key->name, drawable[i]) == 0) return KURE_OK;
    }
    return fail(at, name, "cannot be drawn: bits, step_ratio, rounding, truncation and step can", error);
}

static enum kure_status parse_item(const struct kure_place *at, struct kure_sample *s, char *text, struct kure_error *error)
{
    if (s->count == KURE_SAMPLE_ITEMS) return fail(at, text, "is one item too many", error);
    struct kure_sample_item *item = &s->items[s->count];
    char *colon = strchr(text, ':');
    if (!colon) return fail(at, text, "is not key:values, such as weight_bits:3-8 or rounding:half_even,floor", error);
    *colon = 0;
    enum kure_status status = find_key(at, text, item, error);
    for (int i = 0; status == KURE_OK && i < s->count; ++i) {
        int overlap = s->items[i].which == item->which || s->items[i].which == KURE_QUANTIZED_BOTH || item->which == KURE_QUANTIZED_BOTH;
        if (s->items[i].key == item->key && overlap) return fail(at, text, "is drawn twice", error);
    }
    if (status == KURE_OK) status = parse_values(at, item, text, colon + 1, error);
    s->count += status == KURE_OK;
    return status;
}

enum kure_status kure_sample_parse(const struct kure_place *at, struct kure_sample *s, struct kure_error *error)
{
    s->items = calloc(KURE_SAMPLE_ITEMS, sizeof *s->items);
    s->text = strdup(at->entry->text);
    char *copy = strdup(at->entry->text), *rest = copy;
    enum kure_status status = s->items && s->text && copy ? KURE_OK : kure_fail_memory(error);
    for (char *text; status == KURE_OK && (text = strsep(&rest, " \t")) != NULL;) {
        if (*text) status = parse_item(at, s, text, error);
    }
    free(copy);
    return status;
}

void kure_sample_free(struct kure_sample *s)
{
    free(s->items);
    free(s->text);
    *s = (struct kure_sample){0};
}

/* ------------------------------------------------------------------------- */
/* Drawing                                                                    */

static int is_own(const struct kure_quantizer_keys *own, enum kure_quantized which, const struct kure_key *key)
{
    return own && (kure_quantizer_has(&own[which], key) || kure_quantizer_has(&own[KURE_QUANTIZED_BOTH], key));
}

unsigned kure_sample_mask(const struct kure_sample *s, enum kure_quantized which, const struct kure_quantizer_keys *own, int fixed_bits)
{
    unsigned mask = 0;
    for (int i = 0; i < s->count; ++i) {
        const struct kure_sample_item *item = &s->items[i];
        int acts = item->which == which || item->which == KURE_QUANTIZED_BOTH;
        if (!acts || is_own(own, which, item->key) || (fixed_bits && drawn_key(item) == BITS)) continue;
        mask |= 1u << i;
    }
    return mask;
}

void kure_sample_draw(const struct kure_sample *s, uint64_t seed, uint64_t stream, double *drawn)
{
    for (int i = 0; i < s->count; ++i) {
        const struct kure_sample_item *item = &s->items[i];
        uint64_t word = kure_philox(seed, stream, (uint64_t)i).word[0];
        drawn[i] = item->is_range ? item->values[0] + (item->values[1] - item->values[0]) * ((double)word * 0x1p-32)
                                  : item->values[word * (uint64_t)item->count >> 32];
    }
}

static void set(const struct kure_sample_item *item, double value, struct kure_quantizer *q)
{
    switch (drawn_key(item)) {
    case BITS: q->bits = (int)value; break;
    case STEP_RATIO: q->step_ratio = value; break;
    case ROUNDING: q->rounding = (enum kure_rounding)value; break;
    case TRUNCATION:
        q->truncation = (enum kure_truncation)value;
        if (!*kure_policy_text((int)value).value) q->truncation_value = 0; /* the others have the section's */
        break;
    case STEP: q->step = (enum kure_step)value; break;
    case DRAWABLE: break;
    }
}

struct kure_quantizer kure_sample_apply(const struct kure_sample *s, const double *drawn, unsigned mask, const struct kure_quantizer *q)
{
    struct kure_quantizer out = *q;
    for (int i = 0; i < s->count; ++i) {
        if (mask >> i & 1) set(&s->items[i], drawn[i], &out);
    }
    return out;
}

static const struct kure_sample_item *item_of(const struct kure_sample *s, unsigned mask, enum drawn_key key)
{
    for (int i = 0; i < s->count; ++i) {
        if ((mask >> i & 1) && drawn_key(&s->items[i]) == key) return &s->items[i];
    }
    return NULL;
}

int kure_sample_pair(const struct kure_sample *s, unsigned mask, const struct kure_quantizer *q, int i, struct kure_quantizer *out)
{
    const struct kure_sample_item *bits = item_of(s, mask, BITS), *truncation = item_of(s, mask, TRUNCATION);
    int widths = bits ? bits->count : 1, policies = truncation ? truncation->count : 1;
    if (i >= widths * policies) return 0;
    *out = *q;
    if (bits) set(bits, bits->values[i % widths], out);
    if (truncation) set(truncation, truncation->values[i / widths], out);
    return 1;
}

int kure_sample_single(const struct kure_sample *s, unsigned mask, const struct kure_quantizer *q, int n, struct kure_quantizer *out)
{
    for (int i = 0; i < s->count; ++i) {
        if (!(mask >> i & 1)) continue;
        if (n < s->items[i].count) {
            *out = *q;
            set(&s->items[i], s->items[i].values[n], out);
            return 1;
        }
        n -= s->items[i].count;
    }
    return 0;
}

/* Is the value that q has among those that can be drawn? */
static int holds(const struct kure_sample_item *item, double value)
{
    int found = !item;
    for (int i = 0; item && i < item->count; ++i) found |= item->values[i] == value;
    return found;
}

enum kure_status kure_sample_check(const struct kure_sample *s, enum kure_quantized which, unsigned mask, const struct kure_quantizer *q,
                                   enum kure_method method, const char *place, struct kure_error *error)
{
    struct kure_quantizer drawn;
    struct kure_error reason;
    const char *prefix = which == KURE_QUANTIZED_WEIGHTS ? "weight_" : "activation_";
    for (int i = 0; i < s->count; ++i) {
        enum drawn_key key = drawn_key(&s->items[i]);
        if (method == KURE_METHOD_LSQ && key != BITS && key != ROUNDING) {
            return kure_fail(error, KURE_ERROR_INPUT, "%s: sample=%s: method=lsq learns the step: only bits and rounding can be drawn with it",
                             place, s->text);
        }
    }
    if (!holds(item_of(s, mask, BITS), q->bits)) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s: sample=%s: does not hold %sbits=%d, which the network is evaluated with", place, s->text,
                         prefix, q->bits);
    }
    if (!holds(item_of(s, mask, TRUNCATION), q->truncation)) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s: sample=%s: does not hold %struncation=%s, which the network is evaluated with", place, s->text,
                         prefix, kure_policy_text((int)q->truncation).name);
    }
    for (int i = 0; kure_sample_pair(s, mask, q, i, &drawn); ++i) {
        if (which == KURE_QUANTIZED_WEIGHTS && drawn.truncation == KURE_TRUNCATION_EMA) {
            return kure_fail(error, KURE_ERROR_INPUT, "%s: sample=%s: weight_truncation=ema: a moving average is for activations", place, s->text);
        }
        if (kure_quantizer_check(&drawn, &reason) == KURE_OK) continue;
        return kure_fail(error, KURE_ERROR_INPUT, "%s: sample=%s: %s", place, s->text, reason.text);
    }
    return KURE_OK;
}
