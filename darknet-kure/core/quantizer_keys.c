/* quantizer_keys.c: see quantizer_keys.h. Tested by tests/test_bad_cfg.py, tests/test_plan_quantizers.py. */
#define _GNU_SOURCE
#include "quantizer_keys.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "error.h"

const char kure_rounding_names[] =
#define KURE_ROUNDING(ENUM, name, ...) #name " "
#include "../math/rounding.def"
#undef KURE_ROUNDING
    "";

const char kure_truncation_names[] =
#define KURE_POLICY(ENUM, name, ...) #name " "
#include "policies.def"
#undef KURE_POLICY
    "";

struct row {
    struct kure_key key;
    const char *activation_default;
};

static const struct row rows[] = {
#define KURE_QUANTIZER_KEY(name, kind, field, weight_default, activation_default, minimum, maximum, choices, help)  \
    {{quantization, name, kind, offsetof(struct kure_quantizer_keys, field), weight_default, minimum, maximum, choices, help}, \
     activation_default},
#include "quantizer_keys.def"
};
enum { ROW_COUNT = sizeof rows / sizeof rows[0] };

static const char *const prefixes[] = {"", "weight_", "activation_"};

const struct kure_key *kure_quantizer_key_find(const char *name, enum kure_quantized *which)
{
    int w = strncmp(name, prefixes[1], strlen(prefixes[1])) == 0   ? KURE_QUANTIZED_WEIGHTS
            : strncmp(name, prefixes[2], strlen(prefixes[2])) == 0 ? KURE_QUANTIZED_ACTIVATIONS
                                                                   : KURE_QUANTIZED_BOTH;
    for (int i = 0; i < ROW_COUNT; ++i) {
        if (strcmp(rows[i].key.name, name + strlen(prefixes[w])) != 0) continue;
        *which = (enum kure_quantized)w;
        return &rows[i].key;
    }
    return NULL;
}

const struct kure_key *kure_quantizer_key(int i, const char **activation_default)
{
    if (i >= ROW_COUNT) return NULL;
    *activation_default = rows[i].activation_default;
    return &rows[i].key;
}

int kure_quantizer_key_text(const char *name, struct kure_key_text *out)
{
    enum kure_quantized which;
    const struct kure_key *k = kure_quantizer_key_find(name, &which);
    if (!k) return 0;
    const struct row *row = &rows[0];
    while (&row->key != k) ++row;
    *out = (struct kure_key_text){"quantization", k->name, kure_kind_name(k->kind), which == KURE_QUANTIZED_ACTIVATIONS ? row->activation_default : k->default_text,
                                  k->choices, k->help, k->minimum, k->maximum};
    return 1;
}

int kure_quantizer_key_nearest(const char *name, char nearest[64])
{
    int best = 1000;
    for (int i = 0; i < 3 * ROW_COUNT; ++i) {
        char candidate[64];
        snprintf(candidate, sizeof candidate, "%s%s", prefixes[i / ROW_COUNT], rows[i % ROW_COUNT].key.name);
        int distance = kure_edit_distance(name, candidate);
        if (distance >= best) continue;
        best = distance;
        memcpy(nearest, candidate, sizeof candidate);
    }
    return best;
}

void kure_quantizer_keys_clear(struct kure_quantizer_keys *k)
{
    *k = (struct kure_quantizer_keys){.bits = -1, .rounding = -1, .truncation = -1, .step = -1, .granularity = -1, .grid = -1,
                                      .symmetric = -1, .truncation_value = NAN, .step_ratio = NAN};
}

static void *field_of(const struct kure_quantizer_keys *keys, const struct kure_key *key)
{
    return (char *)(uintptr_t)keys + key->offset;
}

int kure_quantizer_has(const struct kure_quantizer_keys *keys, const struct kure_key *key)
{
    return key->kind == REAL ? !isnan(*(double *)field_of(keys, key)) : *(int64_t *)field_of(keys, key) >= 0;
}

static void take(struct kure_quantizer_keys *to, const struct kure_quantizer_keys *from)
{
    for (int i = 0; i < ROW_COUNT; ++i) {
        const struct kure_key *key = &rows[i].key;
        if (kure_quantizer_has(to, key) || !kure_quantizer_has(from, key)) continue;
        if (key->kind == REAL) *(double *)field_of(to, key) = *(double *)field_of(from, key);
        else *(int64_t *)field_of(to, key) = *(int64_t *)field_of(from, key);
    }
}

static enum kure_status take_defaults(struct kure_quantizer_keys *to, enum kure_quantized which, struct kure_error *error)
{
    struct kure_quantizer_keys defaults;
    kure_quantizer_keys_clear(&defaults);
    for (int i = 0; i < ROW_COUNT; ++i) {
        const char *text = which == KURE_QUANTIZED_WEIGHTS ? rows[i].key.default_text : rows[i].activation_default;
        struct kure_cfg_entry entry = {.key = (char *)(uintptr_t)rows[i].key.name, .value = (char *)(uintptr_t)text};
        struct kure_place at = {"defaults", "quantization", &entry};
        if (!*text) continue;
        enum kure_status status = kure_key_parse(&rows[i].key, &at, &defaults, error);
        if (status != KURE_OK) return status;
    }
    take(to, &defaults);
    return KURE_OK;
}

enum kure_status kure_quantizer_merge(enum kure_quantized which, const struct kure_quantizer_keys *layer,
                                      const struct kure_quantizer_keys *section, const struct kure_profile *profile, const char *at,
                                      struct kure_quantizer *out, struct kure_error *error)
{
    struct kure_quantizer_keys k;
    struct kure_error detail;
    kure_quantizer_keys_clear(&k);
    if (layer) {
        take(&k, &layer[which]);
        take(&k, &layer[KURE_QUANTIZED_BOTH]);
    }
    take(&k, &section[which]);
    take(&k, &section[KURE_QUANTIZED_BOTH]);
    enum kure_status status = profile ? kure_profile_defaults(profile, which, &k, error) : KURE_OK;
    if (status == KURE_OK) status = take_defaults(&k, which, error);
    if (status != KURE_OK) return status;
    /* what the bare key sets for both has no meaning for a tensor of activations */
    if (which == KURE_QUANTIZED_ACTIVATIONS && section[which].granularity < 0 && (!layer || layer[which].granularity < 0)) {
        k.granularity = KURE_GRANULARITY_TENSOR;
    }
    *out = (struct kure_quantizer){
        .bits = (int)k.bits, .rounding = (enum kure_rounding)k.rounding, .truncation = (enum kure_truncation)k.truncation,
        .truncation_value = isnan(k.truncation_value) ? 0 : k.truncation_value, .step = (enum kure_step)k.step, .step_ratio = k.step_ratio,
        .granularity = (enum kure_granularity)k.granularity, .grid = (enum kure_grid)k.grid, .symmetric = (int)k.symmetric,
    };
    const char *prefix = prefixes[which];
    if (which == KURE_QUANTIZED_ACTIVATIONS && out->granularity == KURE_GRANULARITY_CHANNEL) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s: activation_granularity=channel: activations have one step a tensor", at);
    }
    if (which == KURE_QUANTIZED_WEIGHTS && out->truncation == KURE_TRUNCATION_EMA) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s: weight_truncation=ema: a moving average is for activations", at);
    }
    if (out->bits && kure_quantizer_check(out, &detail) != KURE_OK) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s: %s%s", at, prefix, detail.text);
    }
    return KURE_OK;
}

enum kure_status kure_quantization_set(struct kure_quantization_options *q, const char *name, const char *value, struct kure_error *error)
{
    enum kure_quantized which = KURE_QUANTIZED_BOTH;
    const struct kure_key *own = kure_quantizer_key_find(name, &which), *key = own ? own : kure_key_find(quantization, name);
    struct kure_cfg_entry entry = {.key = (char *)(uintptr_t)name, .value = (char *)(uintptr_t)value};
    struct kure_place at = {"command line", "quantization", &entry};
    if (!key) return kure_fail(error, KURE_ERROR_INPUT, "[quantization] has no key '%s'", name);
    return kure_key_parse(key, &at, own ? (void *)&q->quantizer[which] : q, error);
}
