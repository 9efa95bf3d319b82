/*
 * options.h: what the user wrote in our sections and keys, range-checked.
 *
 * Parsed by the rows of keys.def. A key that was not given keeps its default;
 * per-layer keys have no default: `given` says whether they were written.
 */
#ifndef KURE_OPTIONS_H
#define KURE_OPTIONS_H

#include "cfg.h"

/* One item of layers=: first..last inclusive, or a single number. */
enum { KURE_LAYER_FIRST = -2, KURE_LAYER_LAST = -1 }; /* the words `first` and `last` */

struct kure_layer_range {
    int first, last; /* layer numbers or the words above */
    int is_range;    /* 0: a single layer, which must have weights */
};

struct kure_layer_list {
    int line;    /* of the key; 0: not given */
    char *text;  /* as written, NULL: not given */
    struct kure_layer_range *ranges;
    int count;
};

struct kure_kurtosis_options {
    int line; /* of [kurtosis]; 0: the cfg has no such section */
    double target, lambda, max_step;
    int64_t mode, granularity, fold, std, connected, start, ramp, every; /* CHOICE: the enum of kure.h */
    struct kure_layer_list layers;
    char *log; /* NULL: no log */
};

enum kure_quantized { KURE_QUANTIZED_BOTH, KURE_QUANTIZED_WEIGHTS, KURE_QUANTIZED_ACTIVATIONS };

/* The keys of one quantizer (quantizer_keys.def); -1 and NaN: not given. */
struct kure_quantizer_keys {
    int line; /* of the first one given; 0: none */
    int64_t bits, rounding, truncation, step, granularity, grid, symmetric;
    double truncation_value, step_ratio;
};

/* What a weights' grid is of. */
enum kure_batchnorm { KURE_BATCHNORM_TRAIN, KURE_BATCHNORM_FOLD, KURE_BATCHNORM_FREEZE };

/* Marks every key as not given. */
void kure_quantizer_keys_clear(struct kure_quantizer_keys *keys);

/* sample= (sample.h) */
enum { KURE_SAMPLE_ITEMS = 10, KURE_SAMPLE_VALUES = 16 };
struct kure_sample_item;
struct kure_sample {
    char *text; /* as written; NULL: not given */
    struct kure_sample_item *items;
    int count;
};

enum { KURE_NO_SECTION = -1 }; /* quantizers that no cfg asks for: none of them has to act */

struct kure_quantization_options {
    int line; /* of [quantization]; 0: the cfg has no such section */
    struct kure_quantizer_keys quantizer[3]; /* by enum kure_quantized: KEY, weight_KEY, activation_KEY */
    struct kure_sample sample;
    double learned_rate, learned_decay;
    int64_t method, profile, first_bits, last_bits, batchnorm, freeze_at, start, every;
};

/* One key of [quantization], as written there. KURE_ERROR_INPUT: no such key, or a value out of range. */
KURE_CHECKED enum kure_status kure_quantization_set(struct kure_quantization_options *options, const char *name, const char *value,
                                                    struct kure_error *error);

struct kure_net_options {
    int64_t seed; /* -1: none */
};

struct kure_layer_options {
    int line;          /* of the first kurtosis key in this layer; 0: none */
    int64_t kurtosis;  /* -1: not given */
    double target, lambda; /* NaN: not given */
    double slope;          /* of leaky; NaN: Darknet's */
    int slope_line;
    int is_quantize; /* the layer [quantize] */
    int is_relu6, is_leaky; /* by the layer's activation= */
    int64_t quantize;      /* -1: not given */
    int quantize_line;     /* of the first key of a quantizer or of quantize; 0: none */
    struct kure_quantizer_keys quantizer[3];
};

struct kure_options {
    char *path; /* of the cfg */
    struct kure_kurtosis_options kurtosis;
    struct kure_quantization_options quantization;
    struct kure_net_options net;
    struct kure_layer_options *layer; /* [layers] */
    int layers;
};

/* cfg [in], options [out]: owned by the caller, to be freed also after an error.
 * KURE_ERROR_INPUT: unknown or misspelt section or key of ours, a value out of
 * range, a key or section twice, a key that would be ignored. */
KURE_CHECKED enum kure_status kure_options_parse(const struct kure_cfg *cfg, struct kure_options *options,
                                                 struct kure_error *error);
void kure_options_free(struct kure_options *options);

/* options_check.c: do the parsed options go together? The last step of kure_options_parse. */
KURE_CHECKED enum kure_status kure_options_check(const struct kure_cfg *cfg, const struct kure_options *options,
                                                 struct kure_error *error);

/* The rows of keys.def, for help and documentation. */
struct kure_key_text {
    const char *section, *key, *kind, *default_text, *choices, *help;
    double minimum, maximum;
};
/* The row of a quantizer's key with its prefix, weight_bits; 0: no such key. */
int kure_quantizer_key_text(const char *name, struct kure_key_text *out);
size_t kure_key_count(void);
void kure_key_text(size_t i, struct kure_key_text *out);

/* "target=1.8 lambda=1 mode=avg ...": what governs the training, so without log and every.
 * size: KURE_KURTOSIS_TEXT holds it unless layers= is very long; truncated otherwise. */
enum { KURE_KURTOSIS_TEXT = 512 };
void kure_kurtosis_text(const struct kure_kurtosis_options *options, char *out, size_t size);

/* "method=ste ... weight_bits=4 weight_rounding=half_even ...": what governs the training, of
 * [quantization] without the layers' own keys. Truncated beyond size. */
void kure_quantization_text(const struct kure_quantization_options *options, char *out, size_t size);

/* Number of single-character edits between two names; upper and lower case are the same. */
int kure_edit_distance(const char *a, const char *b);

#endif
