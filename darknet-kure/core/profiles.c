/* profiles.c: see profiles.h. Tested by tests/test_profiles.py. */
#define _GNU_SOURCE
#include "profiles.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "quantizer_keys.h"

static const struct kure_profile profiles[] = {
#define KURE_PROFILE(name, weights, activations, fuses, shares, arithmetic, input, help, source) \
    {name, {"", weights, activations}, fuses, shares, arithmetic, input, help, source},
#include "profiles.def"
};
const char kure_profile_names[] = "none"
#define KURE_PROFILE(name, ...) " " name
#include "profiles.def"
    ;
enum { PROFILES = sizeof profiles / sizeof profiles[0] };

const struct kure_profile *kure_profile(int i)
{
    return i >= 0 && i < PROFILES ? &profiles[i] : NULL;
}

int kure_profile_find(const char *name)
{
    for (int i = 0; i < PROFILES; ++i) {
        if (strcmp(profiles[i].name, name) == 0) return i;
    }
    return -1;
}

enum kure_activation_form kure_profile_form(const struct kure_profile *profile, const char *activation)
{
    static const char *const own[] = {"linear", "relu", "relu6", "leaky"};
    for (size_t i = 0; i < sizeof own / sizeof *own; ++i) {
        if (strcmp(activation, own[i]) == 0) return KURE_FORM_OWN;
    }
    return profile->fuses ? KURE_FORM_NONE : KURE_FORM_TABLE;
}

/* Calls take(context, key, value, first) for every value of every key of a profile's text; stops at an error. */
typedef enum kure_status value_function(void *context, const struct kure_key *key, const char *value, int first, struct kure_error *error);

static enum kure_status each_value(const char *text, value_function *take, void *context, struct kure_error *error)
{
    char *copy = strdup(text), *rest = copy;
    enum kure_status status = copy ? KURE_OK : kure_fail_memory(error);
    for (char *item; status == KURE_OK && (item = strsep(&rest, " ")) != NULL;) {
        enum kure_quantized which;
        char *values = strchr(item, '=');
        assert(values);
        *values++ = 0;
        const struct kure_key *key = kure_quantizer_key_find(item, &which);
        assert(key && key->kind != REAL);
        int first = 1;
        for (char *value; status == KURE_OK && (value = strsep(&values, ",")) != NULL; first = 0) {
            status = take(context, key, value, first, error);
        }
    }
    free(copy);
    return status;
}

static int64_t *field(struct kure_quantizer_keys *keys, const struct kure_key *key)
{
    return (int64_t *)(void *)((char *)keys + key->offset); /* none of these keys is a real number */
}

static enum kure_status parse(const struct kure_key *key, const char *value, struct kure_quantizer_keys *out, struct kure_error *error)
{
    struct kure_cfg_entry entry = {.key = (char *)(uintptr_t)key->name, .value = (char *)(uintptr_t)value};
    struct kure_place at = {"profiles.def", "profile", &entry};
    return kure_key_parse(key, &at, out, error);
}

static enum kure_status take_default(void *context, const struct kure_key *key, const char *value, int first, struct kure_error *error)
{
    struct kure_quantizer_keys *keys = context;
    return first && !kure_quantizer_has(keys, key) ? parse(key, value, keys, error) : KURE_OK;
}

enum kure_status kure_profile_defaults(const struct kure_profile *p, enum kure_quantized which, struct kure_quantizer_keys *keys,
                                       struct kure_error *error)
{
    return each_value(p->keys[which], take_default, keys, error);
}

/* What a quantizer has, and which of its keys the values seen so far allow. */
struct check {
    struct kure_quantizer_keys have;
    const struct kure_key *key; /* whose values are being compared */
    int allowed;
    char values[128];           /* of that key, for the sentence */
    const struct kure_key *refused;
    char refused_values[128];
};

static void close_key(struct check *c)
{
    if (!c->key || c->allowed || c->refused) return;
    c->refused = c->key;
    memcpy(c->refused_values, c->values, sizeof c->values);
}

static enum kure_status compare(void *context, const struct kure_key *key, const char *value, int first, struct kure_error *error)
{
    struct check *c = context;
    struct kure_quantizer_keys one;
    kure_quantizer_keys_clear(&one);
    enum kure_status status = parse(key, value, &one, error);
    if (first) {
        close_key(c);
        c->key = key;
        c->allowed = 0;
        c->values[0] = 0;
    }
    size_t used = strlen(c->values);
    snprintf(c->values + used, sizeof c->values - used, "%s%s", first ? "" : ", ", value);
    c->allowed |= *field(&one, key) == *field(&c->have, key);
    return status;
}

enum kure_status kure_profile_check(const struct kure_profile *p, enum kure_quantized which, const struct kure_quantizer *q, const char *at,
                                    struct kure_error *error)
{
    static const char *const prefixes[] = {"", "weight_", "activation_"};
    struct check c = {.have = {.bits = q->bits, .rounding = q->rounding, .truncation = q->truncation, .step = q->step,
                               .granularity = q->granularity, .grid = q->grid, .symmetric = q->symmetric}};
    char value[64];
    enum kure_status status = each_value(p->keys[which], compare, &c, error);
    close_key(&c);
    if (status != KURE_OK || !c.refused) return status;
    kure_key_value_text(c.refused, *field(&c.have, c.refused), value, sizeof value);
    return kure_fail(error, KURE_ERROR_INPUT, "%s: profile=%s cannot do %s%s=%s: it takes %s", at, p->name, prefixes[which], c.refused->name, value,
                     c.refused_values);
}
