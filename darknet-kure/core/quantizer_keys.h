/*
 * quantizer_keys.h: the keys of one quantizer, as written in a section, and how a
 * layer's, the section's and the defaults become a struct kure_quantizer.
 */
#ifndef KURE_QUANTIZER_KEYS_H
#define KURE_QUANTIZER_KEYS_H

#include "keys.h"
#include "profiles.h"

/* Names of the enums of kure.h, blank-separated, in their order. */
extern const char kure_rounding_names[], kure_truncation_names[];

/* NULL: no such key. name [in]: bits, weight_bits, activation_bits; which [out]: what it sets. */
const struct kure_key *kure_quantizer_key_find(const char *name, enum kure_quantized *which);

/* Rows of quantizer_keys.def for documentation; NULL past the end.
 * activation_default [out]: the key's default_text is that of weights. */
const struct kure_key *kure_quantizer_key(int i, const char **activation_default);

/* The nearest name, for messages; its distance in edits. */
int kure_quantizer_key_nearest(const char *name, char nearest[64]);

/* Was this one given? key [in]: a row of quantizer_keys.def */
int kure_quantizer_has(const struct kure_quantizer_keys *keys, const struct kure_key *key);

/* Merge order: layer's own weight_KEY, its KEY, the section's, the profile's, the default.
 *   which   [in]: WEIGHTS or ACTIVATIONS
 *   layer   [in]: [3] by enum kure_quantized; NULL: a layer without keys
 *   section [in]: [3] likewise
 *   profile [in]: NULL: none
 *   at      [in]: file, line and name of what asks for it, for messages
 * KURE_ERROR_INPUT: a combination that no quantizer has, or a key that it would ignore. */
KURE_CHECKED enum kure_status kure_quantizer_merge(enum kure_quantized which, const struct kure_quantizer_keys *layer,
                                                   const struct kure_quantizer_keys *section,
                                                   const struct kure_profile *profile, const char *at,
                                                   struct kure_quantizer *out, struct kure_error *error);

#endif
