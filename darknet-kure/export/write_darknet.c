/*
 * write_darknet.c: darknet/model.cfg and darknet/model.weights: the network with batch norm
 * folded and weights on their grid, for stock Darknet, OpenCV and every converter. They
 * compute in float: activations are not quantized there.
 *
 * The file as parser.c, save_weights_upto has it: version 0.2.0 in three int32, images seen in
 * 64 bits, then of each convolutional or connected layer the biases and the weights, float32.
 * Tested by tests/test_clients_darknet.py.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bundle.h"
#include "cfg.h"
#include "error.h"
#include "formats.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "weights go into the file as they lie in memory");

/* What stock Darknet lacks, or would silently take for something else. */
static enum kure_status check(const struct kure_integer_model *m, struct kure_error *error)
{
    for (int i = 0; i < m->layer_count; ++i) {
        const struct kure_integer_layer *l = &m->layers[i];
        const char *lacks = l->activation == KURE_INTEGER_RELU6 ? "activation=relu6" : NULL;
        if (l->activation == KURE_INTEGER_LEAKY && l->slope != .1f) lacks = "a slope other than 0.1";
        if (!lacks) continue;
        return kure_fail(error, KURE_ERROR_INPUT, "%s: layer %d [%s]: stock Darknet has no %s: leave out the format darknet", m->cfg, l->source, l->type, lacks);
    }
    return KURE_OK;
}

/* The cfg without our sections and keys, comments, and batch norm; a [quantize] layer becomes a
 * route, so that the numbers of layers stay. */
static void write_cfg(const struct kure_cfg *cfg, const struct kure_integer_model *m, FILE *file)
{
    fprintf(file, "# Written by darknet-kure, profile %s: batch norm folded, weights on their grid\n", m->profile);
    for (int i = 0; i < cfg->count; ++i) {
        const struct kure_cfg_section *s = &cfg->sections[i];
        if (kure_is_our_section(s->type)) continue;
        if (strcmp(s->type, "quantize") == 0) {
            fputs("\n[route]\nlayers=-1\n", file);
            continue;
        }
        fprintf(file, "\n[%s]\n", s->type);
        for (int k = 0; k < s->count; ++k) {
            const struct kure_cfg_entry *e = &s->entries[k];
            if (!e->value || kure_is_our_key(s->type, e->key) || strcmp(e->key, "batch_normalize") == 0) continue;
            fprintf(file, "%s=%s\n", e->key, e->value);
        }
    }
}

static float bias(const struct kure_integer_model *m, const struct kure_integer_layer *l, int r)
{
    if (!l->bias_codes) return l->biases[r];
    return (float)((double)m->tensors[l->inputs[0]].scale * l->weight_scales[r] * l->bias_codes[r]);
}

/* Where a row of a layer of the cfg is in the model. */
struct source_row {
    const struct kure_integer_layer *layer;
    int row;
};

/* The layers of the model that come from layer `number` of the cfg: one, or two with rows of their own. */
static enum kure_status write_layer(const struct kure_integer_model *m, int number, FILE *file, struct kure_error *error)
{
    int rows = 0, row = 0;
    for (int i = 0; i < m->layer_count; ++i) {
        const struct kure_integer_layer *l = &m->layers[i];
        if (l->source != number || !l->rows) continue;
        rows += l->rows;
        row = l->row;
    }
    if (!rows) return KURE_OK;
    struct source_row *from = malloc((size_t)rows * sizeof *from);
    float *values = malloc((size_t)row * sizeof *values);
    if (!from || !values) {
        free(from);
        free(values);
        return kure_fail_memory(error);
    }
    for (int i = 0; i < m->layer_count; ++i) {
        const struct kure_integer_layer *l = &m->layers[i];
        if (l->source != number) continue;
        for (int r = 0; r < l->rows; ++r) from[l->source_rows ? l->source_rows[r] : r] = (struct source_row){l, r};
    }
    for (int r = 0; r < rows; ++r) {
        float value = bias(m, from[r].layer, from[r].row);
        fwrite(&value, sizeof value, 1, file);
    }
    for (int r = 0; r < rows; ++r) {
        kure_integer_quantized_row(from[r].layer, from[r].row, values);
        fwrite(values, sizeof *values, (size_t)row, file);
    }
    free(from);
    free(values);
    return KURE_OK;
}

static enum kure_status write_weights(const struct kure_integer_model *m, const char *folder, struct kure_error *error)
{
    static const char name[] = "darknet/model.weights";
    const int32_t head[5] = {0, 2, 0, 0, 0}; /* the last two: images seen */
    FILE *file;
    enum kure_status status = kure_bundle_open(folder, name, "wb", &file, error);
    if (status != KURE_OK) return status;
    fwrite(head, sizeof head, 1, file);
    int layers = 0;
    for (int i = 0; i < m->layer_count; ++i) {
        if (m->layers[i].source >= layers) layers = m->layers[i].source + 1;
    }
    for (int number = 0; number < layers && status == KURE_OK; ++number) status = write_layer(m, number, file, error);
    if (status == KURE_OK) return kure_bundle_close(folder, name, file, error);
    fclose(file);
    return status;
}

enum kure_status kure_write_darknet(const struct kure_integer_model *model, const char *folder, struct kure_error *error)
{
    static const char name[] = "darknet/model.cfg";
    struct kure_cfg cfg;
    FILE *file;
    enum kure_status status = check(model, error);
    if (status != KURE_OK) return status;
    status = kure_cfg_read_text(model->cfg, &cfg, error);
    if (status == KURE_OK) status = kure_bundle_open(folder, name, "wb", &file, error);
    if (status == KURE_OK) {
        write_cfg(&cfg, model, file);
        status = kure_bundle_close(folder, name, file, error);
    }
    kure_cfg_free(&cfg);
    return status == KURE_OK ? write_weights(model, folder, error) : status;
}
