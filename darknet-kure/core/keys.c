/* keys.c: the table of keys.def and its parsers; see keys.h. */
#define _GNU_SOURCE
#include "keys.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "profiles.h"
#include "quantizer_keys.h"
#include "sample.h"

static const char *const kind_names[] = {"number", "integer", "choice", "layers", "path", "list"};
static const char *const section_names[] = {"kurtosis", "net", "layer", "quantization"};

const struct kure_key kure_keys[] = {
#define KURE_KEY(section, name, kind, field, default_text, minimum, maximum, choices, help) \
    {section, name, kind, offsetof(struct kure_##section##_options, field), default_text, minimum, maximum, choices, help},
#include "keys.def"
};
const int kure_keys_count = sizeof kure_keys / sizeof kure_keys[0];

const char *kure_kind_name(enum kure_key_kind kind)
{
    return kind_names[kind];
}

const struct kure_key *kure_key_find(enum kure_key_section section, const char *name)
{
    for (int i = 0; i < kure_keys_count; ++i) {
        if (kure_keys[i].section == section && strcmp(kure_keys[i].name, name) == 0) return &kure_keys[i];
    }
    return NULL;
}

int kure_edit_distance(const char *a, const char *b)
{
    enum { LONGEST = 63 }; /* longer names share nothing with ours */
    int row[LONGEST + 1];
    int m = (int)strlen(a), n = (int)strlen(b);
    if (m > LONGEST || n > LONGEST) return LONGEST;
    for (int j = 0; j <= n; ++j) row[j] = j;
    for (int i = 1; i <= m; ++i) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n; ++j) {
            int best = diagonal + (tolower((unsigned char)a[i - 1]) != tolower((unsigned char)b[j - 1]));
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[n];
}

/* The key of ours nearest to a name, and how far it is. */
const struct kure_key *kure_key_nearest(enum kure_key_section section, const char *name, int *distance)
{
    const struct kure_key *nearest = NULL;
    for (int i = 0; i < kure_keys_count; ++i) {
        if (kure_keys[i].section != section) continue;
        int d = kure_edit_distance(name, kure_keys[i].name);
        if (!nearest || d < *distance) {
            nearest = &kure_keys[i];
            *distance = d;
        }
    }
    return nearest;
}

static enum kure_status fail_value(const struct kure_place *at, const char *limit, struct kure_error *error)
{
    return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: [%s] %s=%s: must be %s", at->path, at->entry->line, at->section,
                     at->entry->key, at->entry->value ? at->entry->value : "", limit);
}

static enum kure_status fail_range(const struct kure_key *k, const struct kure_place *at, struct kure_error *error)
{
    char limit[96];
    const char *what = k->kind == INTEGER ? "an integer" : "a number";
    if (k->kind == INTEGER && k->maximum == 1) {
        snprintf(limit, sizeof limit, "0 or 1");
    } else if (k->maximum >= 0x1p63) {
        snprintf(limit, sizeof limit, "%s from %.0f to %lld", what, k->minimum, LLONG_MAX);
    } else {
        snprintf(limit, sizeof limit, "%s from %g to %.19g", what, k->minimum, k->maximum);
    }
    return fail_value(at, limit, error);
}

static enum kure_status parse_real(const struct kure_key *k, const struct kure_place *at, double *out, struct kure_error *error)
{
    char *end;
    double x = strtod(at->entry->value, &end);
    if (end == at->entry->value || *end || !isfinite(x) || x < k->minimum || x > k->maximum) {
        return fail_range(k, at, error);
    }
    *out = x;
    return KURE_OK;
}

/* Digits are read exactly; 1e3 is read too. */
static enum kure_status parse_integer(const struct kure_key *k, const struct kure_place *at, int64_t *out, struct kure_error *error)
{
    const char *text = at->entry->value;
    char *end;
    errno = 0;
    long long x = strtoll(text, &end, 10);
    if (end == text || *end || errno) {
        double real = strtod(text, &end);
        if (end == text || *end || !(fabs(real) < 9e15) || real != floor(real)) return fail_range(k, at, error);
        x = (long long)real;
    }
    if ((double)x < k->minimum || (double)x > k->maximum) return fail_range(k, at, error);
    *out = x;
    return KURE_OK;
}

static enum kure_status parse_choice(const struct kure_key *k, const struct kure_place *at, int64_t *out, struct kure_error *error)
{
    char limit[128] = "one of: ";
    int64_t index = 0;
    const char *p = k->choices;
    while (*p) {
        size_t length = strcspn(p, " ");
        if (strlen(at->entry->value) == length && strncmp(p, at->entry->value, length) == 0) {
            *out = index;
            return KURE_OK;
        }
        p += length + (p[length] == ' ');
        ++index;
    }
    strncat(limit, k->choices, sizeof limit - strlen(limit) - 1);
    return fail_value(at, limit, error);
}

/* `first`, `last` or a number; moves *text behind it. -3: none of them. */
static int parse_layer_number(const char **text)
{
    if (strncmp(*text, "first", 5) == 0) return *text += 5, KURE_LAYER_FIRST;
    if (strncmp(*text, "last", 4) == 0) return *text += 4, KURE_LAYER_LAST;
    if (!isdigit((unsigned char)**text)) return -3;
    char *end;
    long x = strtol(*text, &end, 10);
    *text = end;
    return x > 1000000 ? 1000000 : (int)x;
}

static enum kure_status parse_layers(const struct kure_place *at, struct kure_layer_list *list, struct kure_error *error)
{
    static const char limit[] = "a list such as 2,5-12,20- with first and last allowed";
    const char *p = at->entry->value;
    list->line = at->entry->line;
    list->text = strdup(p);
    if (!list->text) return kure_fail_memory(error);
    do {
        struct kure_layer_range r = {0, 0, 0};
        r.first = r.last = parse_layer_number(&p);
        if (r.first == -3) return fail_value(at, limit, error);
        if (*p == '-') {
            ++p;
            r.is_range = 1;
            r.last = *p && *p != ',' ? parse_layer_number(&p) : KURE_LAYER_LAST;
            if (r.last == -3) return fail_value(at, limit, error);
        }
        if (r.is_range && r.first >= 0 && r.last >= 0 && r.last < r.first) {
            return fail_value(at, "ranges from the smaller to the larger layer number", error);
        }
        struct kure_layer_range *grown = realloc(list->ranges, ((size_t)list->count + 1) * sizeof *grown);
        if (!grown) return kure_fail_memory(error);
        list->ranges = grown;
        grown[list->count++] = r;
    } while (*p == ',' && *++p);
    return *p || p[-1] == ',' ? fail_value(at, limit, error) : KURE_OK;
}

enum kure_status kure_key_parse(const struct kure_key *k, const struct kure_place *at, void *options, struct kure_error *error)
{
    void *field = (char *)options + k->offset;
    if (!at->entry->value || !*at->entry->value) return fail_value(at, "given a value", error);
    switch (k->kind) {
    case REAL: return parse_real(k, at, field, error);
    case INTEGER: return parse_integer(k, at, field, error);
    case CHOICE: return parse_choice(k, at, field, error);
    case LAYERS: return parse_layers(at, field, error);
    case SAMPLE: return kure_sample_parse(at, field, error);
    case PATH: {
        char *copy = strdup(at->entry->value);
        if (!copy) return kure_fail_memory(error);
        *(char **)field = copy;
        return KURE_OK;
    }
    }
    return KURE_OK;
}

/* "a b c", 1 -> "b" */
static const char *choice_name(const char *choices, int64_t index, int *length)
{
    for (; index > 0; --index) choices = strchr(choices, ' ') + 1;
    *length = (int)strcspn(choices, " ");
    return choices;
}

void kure_key_value_text(const struct kure_key *k, int64_t value, char *out, size_t size)
{
    int length;
    const char *text = k->kind == CHOICE ? choice_name(k->choices, value, &length) : NULL;
    if (text) snprintf(out, size, "%.*s", length, text);
    else snprintf(out, size, "%lld", (long long)value);
}

/* " name=value" of one field, behind what `out` has already. */
static void add_field(const struct kure_key *k, const char *prefix, const void *field, char *out, size_t size)
{
    size_t used = strlen(out);
    char value[96];
    if (k->kind == REAL) snprintf(value, sizeof value, "%g", *(const double *)field);
    else if (k->kind == LAYERS) snprintf(value, sizeof value, "%s", ((const struct kure_layer_list *)field)->text ? ((const struct kure_layer_list *)field)->text : "default");
    else if (k->kind == SAMPLE) snprintf(value, sizeof value, "%s", ((const struct kure_sample *)field)->text ? ((const struct kure_sample *)field)->text : "none");
    else kure_key_value_text(k, *(const int64_t *)field, value, sizeof value);
    for (char *p = value; *p; ++p) *p = *p == ' ' ? '+' : *p; /* one word */
    snprintf(out + used, size - used, "%s%s%s=%s", used ? " " : "", prefix, k->name, value);
}

void kure_kurtosis_text(const struct kure_kurtosis_options *options, char *out, size_t size)
{
    out[0] = 0;
    for (int i = 0; i < kure_keys_count; ++i) {
        const struct kure_key *k = &kure_keys[i];
        if (k->section != kurtosis) continue;
        if (k->kind == PATH) break; /* the last rows are about the log */
        add_field(k, "", (const char *)options + k->offset, out, size);
    }
}

void kure_quantization_text(const struct kure_quantization_options *options, char *out, size_t size)
{
    static const char *const prefixes[] = {"", "weight_", "activation_"};
    const char *ignored;
    const struct kure_key *q;
    out[0] = 0;
    for (int i = 0; i < kure_keys_count; ++i) {
        const struct kure_key *k = &kure_keys[i];
        if (k->section == quantization) add_field(k, "", (const char *)options + k->offset, out, size);
    }
    for (int w = 0; w < 3; ++w) {
        for (int i = 0; (q = kure_quantizer_key(i, &ignored)) != NULL; ++i) {
            if (kure_quantizer_has(&options->quantizer[w], q)) add_field(q, prefixes[w], (const char *)&options->quantizer[w] + q->offset, out, size);
        }
    }
}

size_t kure_key_count(void)
{
    return kure_keys_count;
}

void kure_key_text(size_t i, struct kure_key_text *out)
{
    const struct kure_key *k = &kure_keys[i];
    *out = (struct kure_key_text){section_names[k->section], k->name, kind_names[k->kind], k->default_text,
                                  k->choices, k->help, k->minimum, k->maximum};
}
