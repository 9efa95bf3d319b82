/*
 * sample.h: [quantization] sample=: a quantizer drawn anew in each update from a family.
 *
 *     sample=weight_bits:3-8 step_ratio:0.8-1.2 rounding:half_even,floor
 *
 * Every item draws by itself, uniformly: from a range a-b (whole numbers for bits) or a
 * list; a bare key draws one value for weights and activations. What a layer says itself
 * stands, as do first_bits and last_bits.
 */
#ifndef KURE_SAMPLE_H
#define KURE_SAMPLE_H

#include "options.h"

struct kure_place; /* keys.h */

/* at [in]: what stands behind sample=, with its blanks.
 * KURE_ERROR_INPUT: not such a list, a key that cannot be drawn, one drawn twice. */
KURE_CHECKED enum kure_status kure_sample_parse(const struct kure_place *at, struct kure_sample *sample, struct kure_error *error);
void kure_sample_free(struct kure_sample *sample);

/* Which items act on a quantizer: a bit for each. own [in]: the layer's keys, [3], or NULL;
 * fixed_bits [in]: 1: its width is first_bits or last_bits. */
unsigned kure_sample_mask(const struct kure_sample *sample, enum kure_quantized which, const struct kure_quantizer_keys *own,
                          int fixed_bits);

/* Every quantizer that can be drawn must be one, and q itself, which evaluation uses, among
 * them. KURE_ERROR_INPUT with the reason. place [in]: "net.cfg:12: layer 3 [convolutional]" */
KURE_CHECKED enum kure_status kure_sample_check(const struct kure_sample *sample, enum kure_quantized which, unsigned mask,
                                                const struct kure_quantizer *q, enum kure_method method, const char *place,
                                                struct kure_error *error);

/* Draws for one update; the same everywhere for a seed and stream. drawn [out]: [KURE_SAMPLE_ITEMS] */
void kure_sample_draw(const struct kure_sample *sample, uint64_t seed, uint64_t stream, double *drawn);

/* q with what was drawn for it. */
struct kure_quantizer kure_sample_apply(const struct kure_sample *sample, const double *drawn, unsigned mask, const struct kure_quantizer *q);

/* The i-th pair of width and policy that can be drawn for q, written into a copy of it; mask 0: q alone.
 * Returns 0 past the end. */
int kure_sample_pair(const struct kure_sample *sample, unsigned mask, const struct kure_quantizer *q, int i, struct kure_quantizer *out);

/* q with the n-th of all values of all items, one at a time. Returns 0 past the end. */
int kure_sample_single(const struct kure_sample *sample, unsigned mask, const struct kure_quantizer *q, int n, struct kure_quantizer *out);

#endif
