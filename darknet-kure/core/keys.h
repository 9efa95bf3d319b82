/*
 * keys.h: the rows of keys.def and the parsers of their values.
 */
#ifndef KURE_KEYS_H
#define KURE_KEYS_H

#include "options.h"

enum kure_key_kind { REAL, INTEGER, CHOICE, LAYERS, PATH, SAMPLE };
enum kure_key_section { kurtosis, net, layer, quantization };

struct kure_key {
    enum kure_key_section section;
    const char *name;
    enum kure_key_kind kind;
    size_t offset; /* of the field in struct kure_<section>_options */
    const char *default_text;
    double minimum, maximum;
    const char *choices, *help;
};

extern const struct kure_key kure_keys[];
extern const int kure_keys_count;

/* "number", "choice" ... */
const char *kure_kind_name(enum kure_key_kind kind);

/* NULL: no such key there. */
const struct kure_key *kure_key_find(enum kure_key_section section, const char *name);

/* The key of that section nearest to a name, and how many edits away it is. */
const struct kure_key *kure_key_nearest(enum kure_key_section section, const char *name, int *distance);

/* A value of an INTEGER or CHOICE as the user writes it. */
void kure_key_value_text(const struct kure_key *key, int64_t value, char *out, size_t size);

/* Where an entry stands, for messages. */
struct kure_place {
    const char *path, *section;
    const struct kure_cfg_entry *entry;
};

/* Parses the entry's value into its field of `options`, a struct
 * kure_<section>_options. KURE_ERROR_INPUT: not of the key's kind or range. */
KURE_CHECKED enum kure_status kure_key_parse(const struct kure_key *key, const struct kure_place *at, void *options,
                                             struct kure_error *error);

#endif
