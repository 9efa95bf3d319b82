/* manifest.c: see manifest.h. Tested by tests/test_export_bundle.py and by tests/read_bundle.py, which knows the model from it alone. */
#define _GNU_SOURCE
#include "manifest.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "arithmetic.h"
#include "bundle.h"
#include "error.h"
#include "formats.h"
#include "golden.h"
#include "kure_format.h"
#include "kure_math.h"
#include "plan.h"
#include "profiles.h"

/* ---- words of the arithmetic, by name ------------------------------------------- */

enum word_type { NOTHING, FLOAT, INTEGER };

struct word {
    const char *name;
    enum word_type type;
};

static const struct words {
    struct word row[2], add[7], average[4], last[4]; /* last: parameter[] of weighted layers */
} words[KURE_ARITHMETICS] = {
#define LAST {{0}, {0}, {"slope", FLOAT}, {"last", FLOAT}}
#define FIXED_ADD {{"multiplier_a", INTEGER}, {"shift_a", INTEGER}, {"multiplier_b", INTEGER}, {"shift_b", INTEGER}, \
                   {"multiplier", INTEGER}, {"shift", INTEGER}, {"left", INTEGER}}
    [KURE_ARITHMETIC_FLOAT32] = {{{"scales", FLOAT}}, {{"ratio_a", FLOAT}, {"ratio_b", FLOAT}, {"fixed", FLOAT}}, {{"scale", FLOAT}}, {{0}}},
    [KURE_ARITHMETIC_FLOAT32_MULTIPLIED] = {{{"scales", FLOAT}, {"biases", FLOAT}},
                                            {{"step_a", FLOAT}, {"step_b", FLOAT}, {"slope", FLOAT}, {"last", FLOAT}},
                                            {{"scale", FLOAT}, {0}, {"slope", FLOAT}, {"last", FLOAT}}, LAST},
    [KURE_ARITHMETIC_FLOAT32_DIVIDED] = {{{"scales", FLOAT}, {"biases", FLOAT}},
                                         {{"step_a", FLOAT}, {"step_b", FLOAT}, {"slope", FLOAT}, {"last", FLOAT}},
                                         {{"scale", FLOAT}, {0}, {"slope", FLOAT}, {"last", FLOAT}}, LAST},
    [KURE_ARITHMETIC_DOUBLE_ROUNDING] = {{{"multipliers", INTEGER}, {"shifts", INTEGER}}, FIXED_ADD, {{0}}, {{0}}},
    [KURE_ARITHMETIC_SINGLE_ROUNDING] = {{{"multipliers", INTEGER}, {"shifts", INTEGER}}, FIXED_ADD, {{0}}, {{0}}},
#define SHIFTS {{{0}, {"shifts", INTEGER}}, {{"left_a", INTEGER}, {"left_b", INTEGER}, {"shift", INTEGER}}, {{0}, {"shift", INTEGER}}, {{0}}}
    [KURE_ARITHMETIC_SHIFT_HALF_UP] = SHIFTS,
    [KURE_ARITHMETIC_SHIFT_HALF_AWAY] = SHIFTS,
};

static json_t *json_word(enum word_type type, uint32_t word)
{
    return type == FLOAT ? json_real((double)kure_float(word)) : json_integer((int32_t)word);
}

static void set_words(json_t *object, const struct word *names, const uint32_t *values, int count)
{
    for (int i = 0; i < count; ++i) {
        if (names[i].type) json_object_set_new(object, names[i].name, json_word(names[i].type, values[i]));
    }
}

/* ---- pieces -------------------------------------------------------------------------- */

static json_t *json_floats(const float *x, int n)
{
    json_t *array = json_array();
    for (int i = 0; i < n; ++i) json_array_append_new(array, json_real((double)x[i]));
    return array;
}

static json_t *json_codes(const int8_t *x, int n)
{
    json_t *array = json_array();
    for (int i = 0; i < n; ++i) json_array_append_new(array, json_integer(x[i]));
    return array;
}

static json_t *json_ints(const int32_t *x, int n)
{
    json_t *array = json_array();
    for (int i = 0; i < n; ++i) json_array_append_new(array, json_integer(x[i]));
    return array;
}

static json_t *json_tensor(const struct kure_integer_tensor *t)
{
    char golden[KURE_GOLDEN_NAME];
    kure_golden_tensor_name(t->name, golden);
    return json_pack("{s:s, s:i, s:[iii], s:f, s:i, s:i, s:i, s:i, s:s}", "name", t->name, "source", t->source, "shape", t->channels, t->height,
                     t->width, "scale", (double)t->scale, "zero_point", t->zero_point, "low", t->low, "high", t->high, "bits", t->bits, "golden", golden);
}

/* Multipliers, biases and scales of the rows; where their codes lie. */
static void set_rows(json_t *object, const struct kure_integer_layer *l, const struct kure_model_layer *placed)
{
    const struct words *w = &words[l->arithmetic];
    size_t weights = (size_t)l->rows * (size_t)l->row;
    json_object_set_new(object, "weights", json_pack("{s:s, s:I, s:I, s:i, s:i, s:i, s:i}", "file", "model.kure", "offset", (json_int_t)placed->weights, "bytes",
                                                     (json_int_t)(l->stored_bits == 4 ? (weights + 1) / 2 : weights), "stored_bits", l->stored_bits, "bits",
                                                     l->weight_bits, "rows", l->rows, "row", l->row));
    json_object_set_new(object, "granularity", json_string(l->one_scale ? "tensor" : "channel"));
    json_object_set_new(object, "weight_scales", json_floats(l->weight_scales, l->rows));
    if (l->bias_codes) json_object_set_new(object, "biases", json_ints(l->bias_codes, l->rows));
    if (l->source_rows) json_object_set_new(object, "source_rows", json_ints(l->source_rows, l->rows));
    for (int i = 0; i < 2; ++i) {
        json_t *array = json_array();
        for (int r = 0; r < l->rows; ++r) json_array_append_new(array, json_word(w->row[i].type, l->multipliers[r][i]));
        if (w->row[i].type) json_object_set(object, w->row[i].name, array);
        json_decref(array);
    }
    set_words(object, w->last, l->parameter, 4);
}

static void set_geometry(json_t *object, const struct kure_integer_layer *l)
{
    static const char *const reorgs[KURE_REORGS] = {"forward", "reverse", "flatten", "unflatten"};
    if (l->size) json_object_set_new(object, "size", json_integer(l->size));
    if (l->stride) json_object_set_new(object, "stride", json_integer(l->stride));
    if (l->size) json_object_set_new(object, "padding", json_integer(l->padding));
    if (l->groups) json_object_set_new(object, "groups", json_integer(l->groups));
    if (l->kind == KURE_KIND_REORG) json_object_set_new(object, "order", json_string(reorgs[l->parameter[0]]));
    if (l->kind == KURE_KIND_ADD) {
        json_object_set_new(object, "alpha", json_real((double)l->alpha));
        json_object_set_new(object, "beta", json_real((double)l->beta));
        set_words(object, words[l->arithmetic].add, l->parameter, 7);
    }
    if (l->kind == KURE_KIND_AVERAGE_POOL) set_words(object, words[l->arithmetic].average, l->parameter, 4);
}

static json_t *json_layer(const struct kure_integer_model *m, int i, const struct kure_model *opened)
{
    static const char *const parts[] = {"all", "boxes", "scores"}, *const lookups[] = {"", "activation", "requantize"};
    const struct kure_integer_layer *l = &m->layers[i];
    const struct kure_model_layer placed = kure_runtime_layer(opened, (uint32_t)i);
    json_t *object = json_pack("{s:s, s:i, s:s, s:o, s:i}", "kind", kure_model_kind_name(l->kind), "source", l->source, "type", l->type, "inputs",
                               json_ints((const int32_t *)l->inputs, l->input_count), "output", i + 1);
    if (l->arithmetic) json_object_set_new(object, "arithmetic", json_string(kure_arithmetic_name(l->arithmetic)));
    if (l->part) json_object_set_new(object, "part", json_string(parts[l->part]));
    if (l->activation_name) json_object_set_new(object, "activation", json_string(l->activation_name));
    if (l->activation == KURE_INTEGER_LEAKY) json_object_set_new(object, "activation_slope", json_real((double)l->slope));
    if (l->lookup) json_object_set_new(object, "lookup", json_string(lookups[l->lookup]));
    set_geometry(object, l);
    if (l->rows) set_rows(object, l, &placed);
    if (l->table) json_object_set_new(object, "table", json_codes(l->table, 256));
    return object;
}

/* Anchors of [yolo] are pixels of the network's input, those of [region] places of its output. */
static json_t *json_decoder(const struct kure_integer_output *o)
{
    json_t *object = json_pack("{s:i, s:s}", "layer", o->decoder, "type", o->decoder_type), *anchors = json_array();
    if (!o->boxes.anchors) return object;
    for (int i = 0; i < o->boxes.anchor_count; ++i) {
        json_array_append_new(anchors, json_pack("[f, f]", (double)o->boxes.anchors[2 * i], (double)o->boxes.anchors[2 * i + 1]));
    }
    json_object_set_new(object, "anchors", anchors);
    json_object_set_new(object, "classes", json_integer(o->boxes.classes));
    json_object_set_new(object, "class_scores", json_string(o->boxes.class_scores));
    return object;
}

static json_t *json_output(const struct kure_integer_output *o, int i)
{
    char golden[KURE_GOLDEN_NAME];
    kure_golden_output_name(i, golden);
    json_t *object = json_pack("{s:i, s:i, s:s}", "tensor", o->tensor, "source", o->source, "golden", golden);
    if (o->part) {
        json_object_set_new(object, "part", json_string(o->part == KURE_PART_BOXES ? "boxes" : "scores"));
        json_object_set_new(object, "head_rows", json_integer(o->head_rows));
        json_object_set_new(object, "head_boxes", json_integer(o->head_boxes));
    }
    if (o->decoder >= 0) json_object_set_new(object, "decoder", json_decoder(o));
    return object;
}

static json_t *json_proof(const struct kure_integer_model *m, const struct kure_integer_proof *p)
{
    return json_pack("{s:i, s:i, s:I, s:I, s:I, s:i, s:I, s:b, s:I, s:b}", "layer", p->layer, "source", m->layers[p->layer].source, "accumulator_low",
                     (json_int_t)p->accumulator_low, "accumulator_high", (json_int_t)p->accumulator_high, "accumulator_partial",
                     (json_int_t)p->accumulator_partial, "accumulator_bits", p->accumulator_bits, "pair_high", (json_int_t)p->pair_high, "fits_int16_pairs",
                     p->fits_pair, "bias_high", (json_int_t)p->bias_high, "fits_float32", p->fits_float);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static json_t *json_input(const struct kure_integer_model *m)
{
    static const char *const roundings[] = {"divided_half_even", "divided_half_away", "divided_half_up", "multiplied_half_away"};
    return json_pack("{s:i, s:s, s:f, s:s, s:o, s:s}", "tensor", 0, "rounding", roundings[m->input_rounding], "factor", (double)m->input_factor, "pixel_value",
                     "pixel / 255", "pixels", json_codes(m->pixels, 256), "golden", KURE_GOLDEN_VALUES);
}

static json_t *json_profile(const struct kure_integer_model *m)
{
    const struct kure_profile *p = kure_profile(kure_profile_find(m->profile));
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "name", p->name, "arithmetic", kure_arithmetic_name(p->arithmetic), "weights",
                     p->keys[KURE_QUANTIZED_WEIGHTS], "activations", p->keys[KURE_QUANTIZED_ACTIVATIONS], "biases",
                     kure_arithmetic_rules(p->arithmetic)->float_bias ? "float32" : "int32 of scale input * weight", "source", p->source);
}

/* {name: note} of the formats among `names` that have one */
static json_t *json_format_notes(const char *names)
{
    json_t *object = json_object();
    for (int i = 0; kure_format(i); ++i) {
        const struct kure_format *f = kure_format(i);
        if (*f->note && kure_has_word(names, f->name)) json_object_set_new(object, f->name, json_string(f->note));
    }
    return object;
}

/* ---- the whole -------------------------------------------------------------------------- */

static enum kure_status hash_files(const char *folder, json_t *files, struct kure_error *error)
{
    char **names, path[4400], xxh3[33], sha256[KURE_SHA256_TEXT];
    int count;
    enum kure_status status = kure_bundle_names(folder, &names, &count, error);
    for (int i = 0; status == KURE_OK && i < count; ++i) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        FILE *file = fopen(path, "rb");
        long long bytes = file && fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
        if (file) fclose(file);
        status = bytes < 0 ? kure_fail(error, KURE_ERROR_FILE, "%s: cannot be read", path) : kure_hash_file(path, xxh3, error);
        if (status == KURE_OK) status = kure_sha256_file(path, sha256, error);
        if (status != KURE_OK) break;
        json_object_set_new(files, names[i], json_pack("{s:I, s:s, s:s}", "bytes", (json_int_t)bytes, "xxh3_128", xxh3, "sha256", sha256));
    }
    kure_bundle_names_free(names, count);
    return status;
}

/* One line for each entry, and for each element of an array: readable, and easy to compare. */
static int dump(const json_t *root, FILE *out)
{
    enum { FLAGS = JSON_ENCODE_ANY | JSON_REAL_PRECISION(9) }; /* digits that give a float32 back */
    const char *key, *before = "{";
    json_t *value;
    int ok = 1;
    json_object_foreach((json_t *)(uintptr_t)root, key, value) {
        fprintf(out, "%s\n \"%s\": ", before, key);
        before = ",";
        if (!json_is_array(value) || json_array_size(value) == 0) {
            ok &= json_dumpf(value, out, FLAGS) == 0;
            continue;
        }
        for (size_t i = 0; i < json_array_size(value); ++i) {
            fprintf(out, "%s\n  ", i ? "," : "[");
            ok &= json_dumpf(json_array_get(value, i), out, FLAGS) == 0;
        }
        fprintf(out, "\n ]");
    }
    fprintf(out, "\n}\n");
    return ok;
}

static enum kure_status fill(const struct kure_integer_model *m, const struct kure_manifest_facts *facts, json_t *root, struct kure_error *error)
{
    struct kure_model opened;
    char hash[33];
    json_t *tensors = json_array(), *layers = json_array(), *outputs = json_array(), *proofs = json_array(), *notes = json_array(), *classes = json_array();
    enum kure_status status = kure_hash_file(m->weights, hash, error);
    if (status == KURE_OK && kure_runtime_open(&opened, m->file, m->file_bytes, NULL) != KURE_RUNTIME_OK) {
        status = kure_fail(error, KURE_ERROR_INPUT, "%s: the integer model is damaged", m->cfg);
    }
    for (int i = 0; status == KURE_OK && i <= m->layer_count; ++i) json_array_append_new(tensors, json_tensor(&m->tensors[i]));
    for (int i = 0; status == KURE_OK && i < m->layer_count; ++i) json_array_append_new(layers, json_layer(m, i, &opened));
    for (int i = 0; i < m->output_count; ++i) json_array_append_new(outputs, json_output(&m->outputs[i], i));
    for (int i = 0; i < m->proof_count; ++i) json_array_append_new(proofs, json_proof(m, &m->proofs[i]));
    for (int i = 0; i < m->note_count; ++i) json_array_append_new(notes, json_pack("{s:i, s:s}", "source", m->notes[i].source, "text", m->notes[i].text));
    for (int i = 0; i < m->class_count; ++i) json_array_append_new(classes, json_string(m->classes[i]));
    json_object_set_new(root, "format", json_string(KURE_BUNDLE_FORMAT));
    json_object_set_new(root, "tool", json_pack("{s:s, s:s}", "name", "darknet-kure", "version", KURE_VERSION));
    json_object_set_new(root, "made_from", json_pack("{s:s, s:s, s:s, s:s}", "cfg", base_name(m->cfg), "weights", base_name(m->weights),
                                                     "weights_xxh3_128", hash, "ranges", facts->calibration));
    json_object_set_new(root, "profile", json_profile(m));
    json_object_set_new(root, "batchnorm_epsilon", json_real((double)m->batchnorm_epsilon));
    json_object_set_new(root, "input", json_input(m));
    json_object_set_new(root, "tensors", tensors);
    json_object_set_new(root, "layers", layers);
    json_object_set_new(root, "outputs", outputs);
    json_object_set_new(root, "classes", classes);
    json_object_set_new(root, "proofs", proofs);
    json_object_set_new(root, "notes", notes);
    json_object_set_new(root, "formats", json_string(facts->formats));
    json_object_set_new(root, "format_notes", json_format_notes(facts->formats));
    json_object_set_new(root, "golden_images", json_integer(facts->golden_images));
    return status;
}

static enum kure_status write_sums(const char *folder, struct kure_error *error)
{
    char **names, path[4400], sha256[KURE_SHA256_TEXT];
    int count;
    FILE *out;
    enum kure_status status = kure_bundle_names(folder, &names, &count, error);
    if (status != KURE_OK) return status;
    status = kure_bundle_open(folder, "SHA256SUMS", "wb", &out, error);
    if (status == KURE_OK) {
        for (int i = 0; status == KURE_OK && i < count; ++i) {
            snprintf(path, sizeof path, "%s/%s", folder, names[i]);
            status = kure_sha256_file(path, sha256, error);
            if (status == KURE_OK) fprintf(out, "%s  %s\n", sha256, names[i]);
        }
        struct kure_error closing;
        enum kure_status closed = kure_bundle_close(folder, "SHA256SUMS", out, &closing);
        if (status == KURE_OK && closed != KURE_OK) status = kure_fail(error, closed, "%s", closing.text);
    }
    kure_bundle_names_free(names, count);
    return status;
}

enum kure_status kure_manifest_write(const struct kure_integer_model *model, const char *folder, const struct kure_manifest_facts *facts,
                                     struct kure_error *error)
{
    json_t *root = json_object(), *files = json_object();
    FILE *out;
    enum kure_status status = root && files ? fill(model, facts, root, error) : kure_fail_memory(error);
    if (status == KURE_OK) status = hash_files(folder, files, error);
    if (status == KURE_OK) json_object_set(root, "files", files);
    if (status == KURE_OK) status = kure_bundle_open(folder, "manifest.json", "wb", &out, error);
    if (status == KURE_OK) {
        int ok = dump(root, out);
        status = kure_bundle_close(folder, "manifest.json", out, error);
        if (status == KURE_OK && !ok) status = kure_fail(error, KURE_ERROR_FILE, "%s/manifest.json: a name in it is no UTF-8 text", folder);
    }
    json_decref(files);
    json_decref(root);
    return status == KURE_OK ? write_sums(folder, error) : status;
}
