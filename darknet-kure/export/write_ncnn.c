/*
 * write_ncnn.c: ncnn/model.param and ncnn/model.bin with int8 weights and the scales inside, and
 * ncnn/model.table, the scales as ncnn2int8 reads them.
 *
 * A convolution takes codes, or float values that it quantizes itself, and makes codes where only
 * such layers read them (int8_scale_term 101), else float values. Pooling and the like move those, as
 * rounding afterwards gives the same codes. Where the quantized value itself counts (a sum, a mean,
 * another scale, an output), Quantize, Cast and a product with the scale make it. ncnn's scales
 * are factors: 1 / scale. A blob that several layers read goes through a Split.
 *
 * Files: ncnn, modelbin.cpp (tags, 4-byte alignment), layer/{convolution,convolutiondepthwise,
 * innerproduct,quantize,cast,pooling,interp}.cpp (numbers of parameters, order of arrays),
 * tools/quantize (table). Tested by tests/test_clients_ncnn.py.
 */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bundle.h"
#include "error.h"
#include "formats.h"

enum { MOST_PARAMETERS = 160, INT8_TAG = 0x000d4b38 };

/* A layer of ncnn: it writes one blob, whose name is its own. */
struct node {
    char type[24], name[48], parameters[MOST_PARAMETERS];
    int *inputs, input_count; /* numbers of nodes; node 0 is the input */
};

struct writer {
    const struct kure_integer_model *model;
    struct node *nodes;
    int node_count, capacity;
    int *made, *value; /* [tensors] node that makes a tensor: its codes, or values that are still to be quantized;
                        * node that makes its quantized values; -1: none yet */
    FILE *bin, *table;
    int out_of_memory;
};

static const struct kure_integer_tensor *tensor(const struct writer *w, int t)
{
    return &w->model->tensors[t];
}

static float factor(const struct writer *w, int t)
{
    return t == 0 ? w->model->input_factor : 1 / tensor(w, t)->scale;
}

__attribute__((format(printf, 6, 7))) static int node(struct writer *w, const char *type, const char *name, int input_count, const int *inputs,
                                                      const char *parameters, ...)
{
    if (w->node_count == w->capacity) {
        int capacity = w->capacity ? 2 * w->capacity : 64;
        struct node *larger = realloc(w->nodes, (size_t)capacity * sizeof *larger);
        if (!larger) {
            w->out_of_memory = 1;
            return 0;
        }
        w->nodes = larger;
        w->capacity = capacity;
    }
    struct node *n = &w->nodes[w->node_count];
    memset(n, 0, sizeof *n);
    n->inputs = malloc((size_t)(input_count + 1) * sizeof *n->inputs);
    if (!n->inputs) {
        w->out_of_memory = 1;
        return 0;
    }
    va_list arguments;
    va_start(arguments, parameters);
    vsnprintf(n->parameters, sizeof n->parameters, parameters, arguments);
    va_end(arguments);
    snprintf(n->type, sizeof n->type, "%s", type);
    snprintf(n->name, sizeof n->name, "%s", name);
    if (input_count) memcpy(n->inputs, inputs, (size_t)input_count * sizeof *inputs);
    n->input_count = input_count;
    return w->node_count++;
}

static int node_of(struct writer *w, int t, const char *type, const char *suffix, int input, const char *parameters)
{
    char name[48];
    snprintf(name, sizeof name, "%s%s", tensor(w, t)->name, suffix);
    return node(w, type, name, 1, &input, "%s", parameters);
}

static void put_floats(struct writer *w, const float *values, size_t count)
{
    fwrite(values, sizeof *values, count, w->bin);
}

/* The values of a tensor behind its quantizer */
static int value(struct writer *w, int t)
{
    char product[64];
    float scale = factor(w, t);
    if (w->value[t] >= 0) return w->value[t];
    int codes = node_of(w, t, "Quantize", "_codes", w->made[t], "0=1");
    put_floats(w, &scale, 1);
    int integers = node_of(w, t, "Cast", "_integers", codes, "0=3 1=1"); /* int8 to float32 */
    snprintf(product, sizeof product, "0=2 1=1 2=%.9e", (double)tensor(w, t)->scale);
    return w->value[t] = node_of(w, t, "BinaryOp", "_value", integers, product);
}

/* Do only convolutions and connected layers read it? */
static int is_read_as_codes(const struct writer *w, int t)
{
    for (int i = 0; i < w->model->output_count; ++i) {
        if (w->model->outputs[i].tensor == t) return 0;
    }
    for (int i = t; i < w->model->layer_count; ++i) {
        const struct kure_integer_layer *l = &w->model->layers[i];
        for (int k = 0; k < l->input_count; ++k) {
            if (l->inputs[k] == t && !l->rows) return 0;
        }
    }
    return 1;
}

/* ---- layers ---------------------------------------------------------------------- */

/* Activation of a convolution: what its parameters 9 and 10 say */
static void activation_text(const struct kure_integer_layer *l, char out[64])
{
    out[0] = 0;
    if (l->activation == KURE_INTEGER_RELU) snprintf(out, 64, " 9=1");
    if (l->activation == KURE_INTEGER_LEAKY) snprintf(out, 64, " 9=2 -23310=1,%e", (double)l->slope);
    if (l->activation == KURE_INTEGER_RELU6) snprintf(out, 64, " 9=3 -23310=2,0.0,%e", (double)l->slope);
}

static int group_rows(const struct kure_integer_layer *l)
{
    return l->kind == KURE_KIND_CONVOLUTION && l->groups > 1 ? l->rows / l->groups : 1;
}

/* Scales of rows as factors; ncnn has one for each group. */
static enum kure_status put_weights(struct writer *w, const struct kure_integer_layer *l, int out, int makes_codes, struct kure_error *error)
{
    const uint32_t tag = INT8_TAG, padding = 0;
    size_t count = (size_t)l->rows * (size_t)l->row;
    int step = group_rows(l);
    float in = factor(w, l->inputs[0]), after = factor(w, out);
    for (int r = 0; r < l->rows; ++r) {
        if (l->weight_scales[r] == l->weight_scales[r / step * step]) continue;
        return kure_fail(error, KURE_ERROR_INPUT, "%s: layer %d [%s]: ncnn has one weight scale for each of the %d groups, rows %d and %d differ: the formats kure, c "
                         "and hex have one for each row", w->model->cfg, l->source, l->type, l->groups, r / step * step, r);
    }
    fwrite(&tag, sizeof tag, 1, w->bin);
    fwrite(l->codes, 1, count, w->bin);
    fwrite(&padding, 1, (4 - count % 4) % 4, w->bin);
    put_floats(w, l->biases, (size_t)l->rows);
    fprintf(w->table, "%s_param_0", tensor(w, out)->name);
    for (int r = 0; r < l->rows; r += step) {
        float scale = 1 / l->weight_scales[r];
        put_floats(w, &scale, 1);
        fprintf(w->table, " %.9g", (double)scale);
    }
    fprintf(w->table, "\n%s %.9g\n", tensor(w, out)->name, (double)in);
    put_floats(w, &in, 1);
    if (makes_codes) put_floats(w, &after, 1);
    return KURE_OK;
}

static enum kure_status emit_weighted(struct writer *w, const struct kure_integer_layer *l, int out, struct kure_error *error)
{
    char activation[64], parameters[MOST_PARAMETERS];
    int connected = l->kind == KURE_KIND_CONNECTED, makes_codes = !connected && is_read_as_codes(w, out);
    size_t count = (size_t)l->rows * (size_t)l->row;
    activation_text(l, activation);
    if (connected) snprintf(parameters, sizeof parameters, "0=%d 1=1 2=%zu 8=1%s", l->rows, count, activation);
    else {
        snprintf(parameters, sizeof parameters, "0=%d 1=%d 3=%d 4=%d 5=1 6=%zu 8=%d%s", l->rows, l->size, l->stride, l->padding, count,
                 makes_codes ? 101 : 1, activation);
        if (l->groups > 1) snprintf(parameters + strlen(parameters), sizeof parameters - strlen(parameters), " 7=%d", l->groups);
    }
    const char *type = connected ? "InnerProduct" : l->groups > 1 ? "ConvolutionDepthWise" : "Convolution";
    w->made[out] = node_of(w, out, type, "", w->made[l->inputs[0]], parameters);
    return put_weights(w, l, out, makes_codes, error);
}

static enum kure_status refuse(const struct writer *w, const struct kure_integer_layer *l, const char *what, struct kure_error *error)
{
    return kure_fail(error, KURE_ERROR_INPUT, "%s: layer %d [%s]: ncnn has no %s: the formats kure, c and hex have", w->model->cfg, l->source, l->type, what);
}

static int behind(int in, int out, const struct kure_integer_layer *l)
{
    int needed = (out - 1) * l->stride + l->size - in - l->padding / 2;
    return needed > 0 ? needed : 0;
}

static enum kure_status emit_pool(struct writer *w, const struct kure_integer_layer *l, int out, struct kure_error *error)
{
    const struct kure_integer_tensor *a = tensor(w, l->inputs[0]), *o = tensor(w, out);
    char parameters[MOST_PARAMETERS] = "0=1 4=1";
    (void)error;
    if (l->kind == KURE_KIND_MAXPOOL) {
        snprintf(parameters, sizeof parameters, "0=0 1=%d 2=%d 3=%d 13=%d 14=%d 15=%d 5=1", l->size, l->stride, l->padding / 2, l->padding / 2,
                 behind(a->width, o->width, l), behind(a->height, o->height, l));
    }
    int from = l->kind == KURE_KIND_MAXPOOL ? w->made[l->inputs[0]] : value(w, l->inputs[0]);
    w->made[out] = node_of(w, out, "Pooling", "", from, parameters);
    return KURE_OK;
}

static enum kure_status emit_upsample(struct writer *w, const struct kure_integer_layer *l, int out, struct kure_error *error)
{
    char parameters[MOST_PARAMETERS];
    (void)error;
    snprintf(parameters, sizeof parameters, "0=1 1=%d.0 2=%d.0", l->stride, l->stride);
    w->made[out] = node_of(w, out, "Interp", "", w->made[l->inputs[0]], parameters);
    return KURE_OK;
}

static enum kure_status emit_reorg(struct writer *w, const struct kure_integer_layer *l, int out, struct kure_error *error)
{
    (void)out;
    return refuse(w, l, "reorg in Darknet's order of elements", error);
}

static enum kure_status emit_concatenate(struct writer *w, const struct kure_integer_layer *l, int out, struct kure_error *error)
{
    const struct kure_integer_tensor *o = tensor(w, out);
    int channels = 0, *inputs = malloc((size_t)l->input_count * sizeof *inputs);
    if (!inputs) return kure_fail_memory(error);
    for (int i = 0; i < l->input_count; ++i) {
        const struct kure_integer_tensor *a = tensor(w, l->inputs[i]);
        channels += a->height == o->height && a->width == o->width ? a->channels : o->channels + 1;
        inputs[i] = w->made[l->inputs[i]];
    }
    w->made[out] = node(w, "Concat", o->name, l->input_count, inputs, "0=0");
    free(inputs);
    if (channels != o->channels) return refuse(w, l, "route of inputs of different sizes", error);
    return KURE_OK;
}

static enum kure_status emit_lookup(struct writer *w, const struct kure_integer_layer *l, int out, struct kure_error *error)
{
    static const char *const types[][2] = {{"logistic", "Sigmoid"}, {"tanh", "TanH"}};
    w->made[out] = value(w, l->inputs[0]);
    if (l->lookup == KURE_LOOKUP_ACTIVATION) {
        const char *type = NULL;
        for (size_t i = 0; i < sizeof types / sizeof types[0]; ++i) type = strcmp(l->activation_name, types[i][0]) == 0 ? types[i][1] : type;
        if (!type) return refuse(w, l, l->activation_name, error);
        w->made[out] = node_of(w, out, type, "", w->made[out], "");
    }
    return KURE_OK;
}

static enum kure_status emit_add(struct writer *w, const struct kure_integer_layer *l, int out, struct kure_error *error)
{
    const struct kure_integer_tensor *a = tensor(w, l->inputs[0]), *b = tensor(w, l->inputs[1]);
    char name[48], slope[32];
    if (a->channels != b->channels || a->height != b->height || a->width != b->width) return refuse(w, l, "sum of tensors of different shapes", error);
    if (l->activation == KURE_INTEGER_RELU6) return refuse(w, l, "sum with relu6", error);
    int inputs[2] = {value(w, l->inputs[0]), value(w, l->inputs[1])};
    snprintf(name, sizeof name, "%s", tensor(w, out)->name);
    w->made[out] = node(w, "Eltwise", name, 2, inputs, "0=1 -23301=2,%e,%e", (double)l->alpha, (double)l->beta);
    if (l->activation != KURE_INTEGER_LINEAR) {
        snprintf(slope, sizeof slope, "0=%e", (double)(l->activation == KURE_INTEGER_LEAKY ? l->slope : 0));
        w->made[out] = node_of(w, out, "ReLU", "_relu", w->made[out], slope);
    }
    return KURE_OK;
}

typedef enum kure_status emit_function(struct writer *w, const struct kure_integer_layer *l, int out, struct kure_error *error);
static emit_function *const emitters[KURE_KINDS] = {
    [KURE_KIND_CONVOLUTION] = emit_weighted, [KURE_KIND_CONNECTED] = emit_weighted, [KURE_KIND_MAXPOOL] = emit_pool,
    [KURE_KIND_AVERAGE_POOL] = emit_pool,    [KURE_KIND_UPSAMPLE] = emit_upsample,  [KURE_KIND_REORG] = emit_reorg,
    [KURE_KIND_CONCATENATE] = emit_concatenate, [KURE_KIND_LOOKUP] = emit_lookup,   [KURE_KIND_ADD] = emit_add,
};

/* ---- the graph --------------------------------------------------------------------- */

static int readers_of(const struct writer *w, int made)
{
    int readers = 0;
    for (int i = 0; i < w->node_count; ++i) {
        for (int k = 0; k < w->nodes[i].input_count; ++k) readers += w->nodes[i].inputs[k] == made;
    }
    return readers;
}

static void write_graph(const struct writer *w, FILE *file, int *taken)
{
    int splits = 0, blobs = w->node_count;
    for (int i = 0; i < w->node_count; ++i) {
        int readers = readers_of(w, i);
        taken[i] = readers > 1 ? 0 : -1; /* how many outputs of its Split are taken; -1: none is needed */
        splits += readers > 1;
        blobs += readers > 1 ? readers : 0;
    }
    fprintf(file, "7767517\n%d %d\n", w->node_count + splits, blobs);
    for (int i = 0; i < w->node_count; ++i) {
        const struct node *n = &w->nodes[i];
        fprintf(file, "%-24s %-24s %d 1", n->type, n->name, n->input_count);
        for (int k = 0; k < n->input_count; ++k) {
            int from = n->inputs[k];
            if (taken[from] < 0) fprintf(file, " %s", w->nodes[from].name);
            else fprintf(file, " %s_split_%d", w->nodes[from].name, taken[from]++);
        }
        fprintf(file, " %s%s%s\n", n->name, *n->parameters ? " " : "", n->parameters);
        if (taken[i] < 0) continue;
        int readers = readers_of(w, i);
        fprintf(file, "%-24s %s_split %*s 1 %d %s", "Split", n->name, 1, "", readers, n->name);
        for (int k = 0; k < readers; ++k) fprintf(file, " %s_split_%d", n->name, k);
        fprintf(file, "\n");
    }
}

static enum kure_status emit_all(struct writer *w, struct kure_error *error)
{
    const struct kure_integer_model *m = w->model;
    enum kure_status status = KURE_OK;
    for (int t = 0; t <= m->layer_count; ++t) w->made[t] = w->value[t] = -1;
    const struct kure_integer_tensor *in = tensor(w, 0);
    w->made[0] = node(w, "Input", "values", 0, NULL, "0=%d 1=%d 2=%d", in->width, in->height, in->channels);
    for (int i = 0; i < m->layer_count && status == KURE_OK && !w->out_of_memory; ++i) status = emitters[m->layers[i].kind](w, &m->layers[i], i + 1, error);
    for (int i = 0; i < m->output_count && status == KURE_OK && !w->out_of_memory; ++i) value(w, m->outputs[i].tensor);
    return status != KURE_OK ? status : w->out_of_memory ? kure_fail_memory(error) : KURE_OK;
}

static enum kure_status write_files(struct writer *w, const char *folder, const char *bin, size_t bin_bytes, const char *table, size_t table_bytes,
                                    struct kure_error *error)
{
    FILE *param;
    int *taken = malloc((size_t)w->node_count * sizeof *taken);
    if (!taken) return kure_fail_memory(error);
    enum kure_status status = kure_bundle_open(folder, "ncnn/model.param", "wb", &param, error);
    if (status == KURE_OK) {
        write_graph(w, param, taken);
        status = kure_bundle_close(folder, "ncnn/model.param", param, error);
    }
    if (status == KURE_OK) status = kure_bundle_write(folder, "ncnn/model.bin", bin, bin_bytes, error);
    if (status == KURE_OK) status = kure_bundle_write(folder, "ncnn/model.table", table, table_bytes, error);
    free(taken);
    return status;
}

enum kure_status kure_write_ncnn(const struct kure_integer_model *model, const char *folder, struct kure_error *error)
{
    size_t count = (size_t)model->layer_count + 1, bin_bytes = 0, table_bytes = 0;
    char *bin = NULL, *table = NULL;
    struct writer w = {.model = model, .made = malloc(count * sizeof *w.made), .value = malloc(count * sizeof *w.value),
                       .bin = open_memstream(&bin, &bin_bytes), .table = open_memstream(&table, &table_bytes)};
    enum kure_status status = w.made && w.value && w.bin && w.table ? emit_all(&w, error) : kure_fail_memory(error);
    if (w.bin && fclose(w.bin) != 0 && status == KURE_OK) status = kure_fail_memory(error);
    if (w.table && fclose(w.table) != 0 && status == KURE_OK) status = kure_fail_memory(error);
    if (status == KURE_OK) status = write_files(&w, folder, bin, bin_bytes, table, table_bytes, error);
    for (int i = 0; i < w.node_count; ++i) free(w.nodes[i].inputs);
    free(w.nodes);
    free(w.made);
    free(w.value);
    free(bin);
    free(table);
    return status;
}
