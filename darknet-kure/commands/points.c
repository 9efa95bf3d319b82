/* points.c: see points.h. */
#define _GNU_SOURCE
#include "points.h"

#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"

enum { MOST_SHOWN = 60 }; /* characters of what was given, in messages */

/* In the order in which they vary, the first one slowest. */
static const char *const names[] = {
    "batchnorm", "weight_granularity", "weight_grid", "weight_symmetric", "weight_truncation", "weight_truncation_value", "weight_rounding",
    "weight_step", "activation_granularity", "activation_grid", "activation_symmetric", "activation_truncation", "activation_truncation_value",
    "activation_rounding", "activation_step", "first_bits", "last_bits", "weight_bits", "activation_bits", "weight_step_ratio",
    "activation_step_ratio",
};
enum { KEY_COUNT = sizeof names / sizeof names[0] };
_Static_assert((int)KEY_COUNT <= (int)KURE_POINT_KEYS, "room in struct kure_points");

/* Where a key's value goes; the rest of what is known of it stands in quantizer_keys.def. */
static const struct place {
    const char *name; /* of a quantizer's key without its prefix, or of another one */
    size_t offset;    /* in struct kure_quantizer, or in struct kure_point */
    int is_real;
} places[] = {
    {"bits", offsetof(struct kure_quantizer, bits), 0},
    {"rounding", offsetof(struct kure_quantizer, rounding), 0},
    {"truncation", offsetof(struct kure_quantizer, truncation), 0},
    {"truncation_value", offsetof(struct kure_quantizer, truncation_value), 1},
    {"step", offsetof(struct kure_quantizer, step), 0},
    {"step_ratio", offsetof(struct kure_quantizer, step_ratio), 1},
    {"granularity", offsetof(struct kure_quantizer, granularity), 0},
    {"grid", offsetof(struct kure_quantizer, grid), 0},
    {"symmetric", offsetof(struct kure_quantizer, symmetric), 0},
    {"first_bits", offsetof(struct kure_point, first_bits), 0},
    {"last_bits", offsetof(struct kure_point, last_bits), 0},
    {"batchnorm", offsetof(struct kure_point, fold), 0},
};
_Static_assert(sizeof(enum kure_grid) == sizeof(int), "choices are stored as int");

static const struct place *place_of(const char *name, size_t *offset)
{
    size_t prefix = strncmp(name, "weight_", 7) == 0 ? 7 : strncmp(name, "activation_", 11) == 0 ? 11 : 0;
    const struct place *p = places;
    while (strcmp(p->name, name + prefix) != 0) ++p;
    *offset = p->offset + (prefix == 7 ? offsetof(struct kure_point, weights) : prefix ? offsetof(struct kure_point, activations) : 0);
    return p;
}

/* What may stand for a key, and stands for it where it is not given. Activations are float
 * unless their bits are given; folded and frozen batch norm predict alike. */
static struct kure_key_text text_of(const char *name)
{
    struct kure_key_text t = {.key = name, .kind = "integer", .default_text = "8", .maximum = 16};
    if (strcmp(name, "batchnorm") == 0) return (struct kure_key_text){.key = name, .kind = "choice", .default_text = "fold", .choices = "train fold"};
    if (!kure_quantizer_key_text(name, &t)) return t; /* first_bits, last_bits */
    t.key = name;
    if (strcmp(name, "activation_bits") == 0) t.default_text = "0";
    if (strcmp(name, "activation_granularity") == 0) t.choices = "tensor";
    if (!*t.default_text) t.default_text = "0"; /* truncation_value */
    return t;
}

/* Keys of a cfg that say how a network is trained. */
static const char *const training_keys[] = {"method", "every", "sample", "freeze_at", "start", "learned_rate", "learned_decay", "profile"};

/* Weights and activations alike. */
static const char *const bare_keys[] = {"bits", "step_ratio", "rounding", "truncation", "truncation_value", "step", "grid", "symmetric"};
enum { BARE_COUNT = sizeof bare_keys / sizeof bare_keys[0] };
_Static_assert((int)KEY_COUNT + (int)BARE_COUNT <= (int)KURE_POINT_NAMES, "room for options");

const char *kure_point_key(int i)
{
    return i < KEY_COUNT ? names[i] : i < KEY_COUNT + BARE_COUNT ? bare_keys[i - KEY_COUNT] : NULL;
}

int kure_point_options(struct option *options, char names_of[][32])
{
    int n = 0;
    for (; kure_point_key(n); ++n) {
        snprintf(names_of[n], sizeof names_of[n], "%s", kure_point_key(n));
        for (char *p = names_of[n]; *p; ++p) *p = *p == '_' ? '-' : *p;
        options[n] = (struct option){names_of[n], required_argument, NULL, 1};
    }
    return n;
}

/* Index of a word in a blank-separated list, -1: not there. */
static int word_index(const char *words, const char *word, size_t length)
{
    int index = 0;
    while (*words) {
        size_t n = strcspn(words, " ");
        if (n == length && strncmp(words, word, n) == 0) return index;
        words += n + (words[n] == ' ');
        ++index;
    }
    return -1;
}

/* A number from a key's limits; 1 is no width. Returns NAN: it is none. */
static double number_of(const struct kure_key_text *k, const char *value, size_t length)
{
    char *end;
    double x = strtod(value, &end);
    int whole = length > 0 && end == value + length && isfinite(x), integer = strcmp(k->kind, "integer") == 0;
    if (!whole || x < k->minimum || x > k->maximum || (integer && x != floor(x))) return NAN;
    return integer && k->maximum > 1 && x == 1 ? NAN : x;
}

/* What a value becomes in its field; an error says what it may be. */
static enum kure_status parse_one(const char *name, const char *value, size_t length, double *number, struct kure_error *error)
{
    const struct kure_key_text k = text_of(name);
    double x = strcmp(k.kind, "choice") == 0 ? word_index(k.choices, value, length) : number_of(&k, value, length);
    int shown = length < MOST_SHOWN ? (int)length : MOST_SHOWN;
    *number = x;
    if (k.choices && x < 0) return kure_fail(error, KURE_ERROR_INPUT, "%s=%.*s: must be one of: %s", name, shown, value, k.choices);
    if (isnan(x) && k.maximum == 1) return kure_fail(error, KURE_ERROR_INPUT, "%s=%.*s: must be 0 or 1", name, shown, value);
    if (isnan(x) && k.maximum == 16) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s=%.*s: must be an integer from 2 to 16, or 0 for float", name, shown, value);
    }
    if (isnan(x) && k.minimum == 0) return kure_fail(error, KURE_ERROR_INPUT, "%s=%.*s: must be a positive number", name, shown, value);
    if (isnan(x)) return kure_fail(error, KURE_ERROR_INPUT, "%s=%.*s: must be a number from %g to %g", name, shown, value, k.minimum, k.maximum);
    return KURE_OK;
}

static void set_field(struct kure_point *point, const char *name, double x)
{
    size_t offset;
    const struct place *place = place_of(name, &offset);
    void *field = (char *)point + offset;
    if (place->is_real) *(double *)field = x;
    else *(int *)field = (int)x;
}

static int list_length(const char *list)
{
    int n = 1;
    for (; *list; ++list) n += *list == ',';
    return n;
}

static int find_key(const char *name)
{
    for (int i = 0; i < KEY_COUNT; ++i) {
        if (strcmp(names[i], name) == 0) return i;
    }
    return -1;
}

/* The weights' key that a paired one of activations goes with. */
static int partner_of(int key)
{
    char name[64];
    snprintf(name, sizeof name, "weight_%s", names[key] + strlen("activation_"));
    return find_key(name);
}

static enum kure_status fail_unknown(const char *name, struct kure_error *error)
{
    for (size_t i = 0; i < sizeof training_keys / sizeof *training_keys; ++i) {
        if (strcmp(name, training_keys[i]) == 0) {
            return kure_fail(error, KURE_ERROR_INPUT, "quantizer key '%s': acts from [quantization] of the cfg, in training and with eval --simulate", name);
        }
    }
    int best = 0;
    for (int i = 1; kure_point_key(i); ++i) {
        if (kure_edit_distance(name, kure_point_key(i)) < kure_edit_distance(name, kure_point_key(best))) best = i;
    }
    return kure_fail(error, KURE_ERROR_INPUT, "unknown quantizer key '%s': did you mean '%s'?", name, kure_point_key(best));
}

static int compare_numbers(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Two spellings of a number are one value. */
static enum kure_status check_distinct(const char *name, const char *list, const double *numbers, int count, struct kure_error *error)
{
    double *sorted = malloc((size_t)count * sizeof *sorted);
    enum kure_status status = sorted ? KURE_OK : kure_fail_memory(error);
    if (sorted) {
        memcpy(sorted, numbers, (size_t)count * sizeof *sorted);
        qsort(sorted, (size_t)count, sizeof *sorted, compare_numbers);
    }
    for (int i = 1; status == KURE_OK && i < count; ++i) {
        const char *value = list;
        if (sorted[i] != sorted[i - 1]) continue;
        for (int j = 0; numbers[j] != sorted[i]; ++j) value += strcspn(value, ",") + 1;
        status = kure_fail(error, KURE_ERROR_INPUT, "%s=%.*s%s: the value %.*s is given twice", name, MOST_SHOWN, list,
                           strlen(list) > MOST_SHOWN ? "..." : "", (int)strcspn(value, ","), value);
    }
    free(sorted);
    return status;
}

/* A copy without blanks: "8, 6" is 8,6. */
static char *copy_list(const char *list)
{
    char *copy = strdup(list), *to = copy;
    for (; copy && *list; ++list) {
        if (*list != ' ') *to++ = *list;
    }
    if (copy) *to = 0;
    return copy;
}

static enum kure_status set_one(struct kure_points *points, int key, const char *given, struct kure_error *error)
{
    int count = list_length(given);
    const char *name = names[key];
    if (points->values[key]) return kure_fail(error, KURE_ERROR_INPUT, "quantizer key '%s' is given twice", name);
    const char *list = points->values[key] = copy_list(given), *value = list;
    points->numbers[key] = malloc((size_t)count * sizeof(double));
    if (!list || !points->numbers[key]) return kure_fail_memory(error);
    for (int i = 0; i < count; ++i) {
        size_t length = strcspn(value, ",");
        if (length == 0) {
            return kure_fail(error, KURE_ERROR_INPUT, "%s=%.*s: an empty value: a list is written without blanks, as 8,6,4", name, MOST_SHOWN, list);
        }
        enum kure_status status = parse_one(name, value, length, &points->numbers[key][i], error);
        if (status != KURE_OK) return status;
        if (strstr(name, "truncation_value") && points->numbers[key][i] == 0) {
            return kure_fail(error, KURE_ERROR_INPUT, "%s=%.*s: must be a positive number", name, (int)length, value);
        }
        value += length + 1;
    }
    points->counts[key] = count;
    points->given = 1;
    return check_distinct(name, list, points->numbers[key], count, error);
}

enum kure_status kure_points_set(struct kure_points *points, const char *name, const char *list, struct kure_error *error)
{
    char other[64];
    int key = find_key(name);
    if (key >= 0) return set_one(points, key, list, error);
    snprintf(other, sizeof other, "weight_%s", name);
    key = find_key(other);
    if (key < 0) return fail_unknown(name, error);
    enum kure_status status = set_one(points, key, list, error);
    if (status != KURE_OK || strcmp(name, "granularity") == 0) return status; /* activations have one */
    snprintf(other, sizeof other, "activation_%s", name);
    key = find_key(other);
    points->bare[partner_of(key)] = points->bare[key] = points->paired[key] = 1;
    return set_one(points, key, list, error);
}

enum kure_status kure_points_set_option(struct kure_points *points, const char *option, const char *list, struct kure_error *error)
{
    char key[64];
    snprintf(key, sizeof key, "%s", option);
    for (char *p = key; *p; ++p) *p = *p == '-' ? '_' : *p;
    return kure_points_set(points, key, list, error);
}

int kure_points_has(const struct kure_points *points, const char *key)
{
    int i = find_key(key);
    return i >= 0 && points->values[i];
}

const char *kure_points_given(const struct kure_points *points, int i)
{
    return i < KEY_COUNT ? points->values[i] : NULL;
}

enum kure_status kure_points_parse(struct kure_points *points, const char *text, struct kure_error *error)
{
    char *copy = strdup(text), *rest = copy;
    enum kure_status status = copy ? KURE_OK : kure_fail_memory(error);
    for (char *item; status == KURE_OK && (item = strsep(&rest, ",")) != NULL;) {
        char *equals = strchr(item, '=');
        if (!equals) {
            status = kure_fail(error, KURE_ERROR_INPUT, "--quantize %s: '%s' is not key=value", text, item);
            break;
        }
        *equals = 0;
        status = kure_points_set(points, item, equals + 1, error);
    }
    free(copy);
    return status;
}

static const char *list_of(const struct kure_points *points, int key)
{
    return points->values[key] ? points->values[key] : text_of(names[key]).default_text;
}

const char *kure_points_list(const struct kure_points *points, const char *key)
{
    return list_of(points, find_key(key));
}

static int count_of(const struct kure_points *points, int key)
{
    return points->counts[key] ? points->counts[key] : 1;
}

int kure_points_count(const struct kure_points *points)
{
    long long count = 1;
    for (int i = 0; i < KEY_COUNT && count <= KURE_MOST_POINTS; ++i) {
        if (!points->paired[i]) count *= count_of(points, i);
    }
    return count <= KURE_MOST_POINTS ? (int)count : KURE_MOST_POINTS + 1;
}

static double default_of(int key)
{
    static double numbers[KEY_COUNT];
    static char known[KEY_COUNT];
    if (!known[key]) {
        const char *text = text_of(names[key]).default_text;
        if (parse_one(names[key], text, strlen(text), &numbers[key], NULL) != KURE_OK) numbers[key] = 0; /* truncation_value: none */
        known[key] = 1;
    }
    return numbers[key];
}

static struct kure_point point_at(const struct kure_points *points, int index)
{
    struct kure_point point;
    int chosen[KEY_COUNT] = {0};
    memset(&point, 0, sizeof point);
    for (int i = KEY_COUNT - 1; i >= 0; --i) {
        if (points->paired[i]) continue;
        chosen[i] = index % count_of(points, i);
        index /= count_of(points, i);
    }
    for (int i = 0; i < KEY_COUNT; ++i) {
        int which = chosen[points->paired[i] ? partner_of(i) : i];
        set_field(&point, names[i], points->counts[i] ? points->numbers[i][which] : default_of(i));
    }
    return point;
}

int kure_point_takes_value(const struct kure_quantizer *q)
{
    return *kure_policy_text((int)q->truncation).value != 0;
}

struct kure_point kure_points_get(const struct kure_points *points, int index)
{
    struct kure_point point = point_at(points, index);
    if (!kure_point_takes_value(&point.weights)) point.weights.truncation_value = 0;
    if (!kure_point_takes_value(&point.activations)) point.activations.truncation_value = 0;
    return point;
}

struct kure_quantizer kure_points_activations(const struct kure_points *points, int index, const struct kure_quantizer *own)
{
    struct kure_point point = point_at(points, index), out = {.activations = *own};
    for (int i = 0; i < KEY_COUNT; ++i) {
        size_t offset;
        const struct place *place = place_of(names[i], &offset);
        if (!points->values[i] || strncmp(names[i], "activation_", 11) != 0) continue;
        memcpy((char *)&out + offset, (char *)&point + offset, place->is_real ? sizeof(double) : sizeof(int));
    }
    if (!kure_point_takes_value(&out.activations)) out.activations.truncation_value = 0;
    return out.activations;
}

char *kure_points_text(const struct kure_points *points)
{
    char *text = strdup("");
    for (int i = 0; text && i < KEY_COUNT; ++i) {
        char *longer = NULL;
        if (asprintf(&longer, "%s%s=%s%s ", text, names[i], list_of(points, i), points->paired[i] ? " paired" : "") < 0) longer = NULL;
        free(text);
        text = longer;
    }
    return text;
}

void kure_points_free(struct kure_points *points)
{
    for (int i = 0; i < KEY_COUNT; ++i) {
        free(points->values[i]);
        free(points->numbers[i]);
    }
    memset(points, 0, sizeof *points);
}
