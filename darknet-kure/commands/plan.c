/* plan.c: `darknet kure plan CFG`: the plan as a table. */
#define _GNU_SOURCE
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "evaluate.h"
#include "export_view.h"
#include "profiles.h"

static const char help[] =
    "usage: darknet kure plan CFG [options]\n\n"
    "One row a layer: whether [kurtosis] acts there, with which target and lambda, and\n"
    "if not, why. role: 'first' layers read the network input, 'last' ones feed the loss;\n"
    "quantization treats both apart. With [quantization]: which quantizers sit on a layer's\n"
    "weights and behind it; two of them around an activation that no runtime fuses. Of a\n"
    "quantizer, width, granularity and policy, and what differs from the defaults. Layers that\n"
    "integer models cannot have, or not with that activation, are named at the end: for the\n"
    "profile of [quantization], else for every target.\n\n"
    "  --clean FILE   write the cfg without our sections and keys, for other tools\n"
    "  --csv FILE     write the table as CSV\n"
    "  --json FILE    write the table as JSON\n"
    "  --help         this text\n";

static const struct kure_column columns[] = {
    {"layer", KURE_CELL_INTEGER, NULL}, {"type", KURE_CELL_TEXT, NULL},     {"n", KURE_CELL_INTEGER, NULL},
    {"rows", KURE_CELL_INTEGER, NULL},  {"groups", KURE_CELL_INTEGER, NULL}, {"role", KURE_CELL_TEXT, NULL},
    {"kurtosis", KURE_CELL_TEXT, NULL}, {"target", KURE_CELL_REAL, "%g"},   {"lambda", KURE_CELL_REAL, "%g"},
    {"reason", KURE_CELL_TEXT, NULL},       {"weights", KURE_CELL_TEXT, NULL},      {"output", KURE_CELL_TEXT, NULL},
    {"no_integer_form", KURE_CELL_TEXT, NULL}, /* targets that have none for the layer with its activation */
};

/* What is not as it is without a word in the cfg: " floor full x0.8". grid, symmetric [in]: the defaults. */
static void unusual_text(const struct kure_quantizer *q, enum kure_grid grid, int symmetric, char *out, size_t size)
{
    char value[32] = "", ratio[32] = "";
    if (q->truncation_value != 0) snprintf(value, sizeof value, " %g", q->truncation_value);
    if (q->step_ratio != 1) snprintf(ratio, sizeof ratio, " x%g", q->step_ratio);
    snprintf(out, size, "%s%s%s%s%s%s%s%s%s", value, q->rounding ? " " : "", q->rounding ? kure_rounding_text((int)q->rounding).name : "",
             q->grid != grid ? " " : "", q->grid != grid ? kure_grid_name(q->grid) : "", q->step ? " " : "", q->step ? kure_step_name(q->step) : "",
             q->symmetric == symmetric ? "" : q->symmetric ? " symmetric" : " asymmetric", ratio);
}

/* "4 bits channel minmax" */
static void quantizer_text(const struct kure_quantizer *q, enum kure_method method, unsigned sampled, int activations, char *out, size_t size)
{
    char unusual[128];
    static const char *const methods[] = {"", " lsq", " pact", " dorefa"};
    if (method == KURE_METHOD_DOREFA) {
        snprintf(out, size, "%d bits dorefa", q->bits);
        return;
    }
    unusual_text(q, activations ? KURE_GRID_FULL : KURE_GRID_NARROW, !activations, unusual, sizeof unusual);
    snprintf(out, size, "%d bits %s %s%s%s%s", q->bits, kure_granularity_name(q->granularity), kure_policy_text((int)q->truncation).name, unusual,
             methods[method], sampled ? ", drawn" : "");
}

static void add_quantizers(struct kure_table *table, const struct kure_plan_row *row)
{
    char text[320] = "", after[192];
    if (row->weight.bits) quantizer_text(&row->weight, row->weight_method, row->sampled_weight, 0, text, sizeof text);
    kure_table_set_text(table, "weights", text);
    text[0] = 0;
    if (row->after.bits) {
        quantizer_text(&row->after, row->activation_method, row->sampled_activation, 1, after, sizeof after);
        const char *where = row->before.bits ? ", before and after the activation" : row->head_rows ? ", boxes and scores apart" : "";
        snprintf(text, sizeof text, "%s%s", after, where);
        if (row->shares >= 0 && row->shares != row->layer) snprintf(text, sizeof text, "%s%s, range shared with layer %d", after, where, row->shares);
    } else if (*row->quantize_reason) {
        snprintf(text, sizeof text, "float: %s", row->quantize_reason);
    }
    kure_table_set_text(table, "output", text);
}

static void add_row(struct kure_table *table, const struct kure_plan_row *row, int has_kurtosis)
{
    kure_table_add_row(table);
    kure_table_set_integer(table, "layer", row->layer);
    kure_table_set_text(table, "type", row->type);
    add_quantizers(table, row);
    if (row->weights == KURE_WEIGHTS_NONE) return;
    if (row->rows) {
        kure_table_set_integer(table, "n", (long long)(row->rows * row->row_length));
        kure_table_set_integer(table, "rows", (long long)row->rows);
        kure_table_set_integer(table, "groups", row->groups);
    }
    kure_table_set_text(table, "role", row->reads_input && row->feeds_head ? "first, last"
                                       : row->reads_input                ? "first"
                                       : row->feeds_head                 ? "last"
                                                                         : "");
    if (!has_kurtosis) return;
    kure_table_set_text(table, "kurtosis", row->regularized ? "yes" : "no");
    kure_table_set_text(table, "reason", row->reason);
    if (!row->regularized) return;
    kure_table_set_real(table, "target", row->target);
    kure_table_set_real(table, "lambda", row->lambda);
}

/* ---- integer forms ------------------------------------------------------------------------ */

/* NULL: a layer without activation=. */
static const char *activation_of(const network *net, int i)
{
    const layer *l = &net->layers[i];
    if (l->type != CONVOLUTIONAL && l->type != CONNECTED && l->type != SHORTCUT) return NULL;
    if (((const struct kure_network *)net->kure)->options.layer[i].is_relu6) return "relu6";
    return get_activation_string(l->activation);
}

/* The targets, of all or of the chosen one, that have this form of an activation: "ncnn, tensorrt" */
static void targets_text(const struct kure_plan *plan, const char *activation, enum kure_activation_form form, char *out, size_t size)
{
    int chosen = plan->quantization.line ? (int)plan->quantization.profile - 1 : -1;
    *out = 0;
    for (int i = 0; kure_profile(i); ++i) {
        if ((chosen >= 0 && i != chosen) || kure_profile_form(kure_profile(i), activation) != form) continue;
        snprintf(out + strlen(out), size - strlen(out), "%s%s", *out ? ", " : "", kure_profile(i)->name);
    }
}

static void forms_text(const network *net, const struct kure_plan *plan, int i, char *out, size_t size)
{
    const char *activation = activation_of(net, i);
    *out = 0;
    if (kure_export_why_not(&net->layers[i])) snprintf(out, size, "all");
    else if (activation) targets_text(plan, activation, KURE_FORM_NONE, out, size);
}

static int has_activation(const network *net, int i, const char *activation)
{
    return activation_of(net, i) && strcmp(activation_of(net, i), activation) == 0;
}

/* All layers with one activation, at the first of them. */
static void print_layers_like(const network *net, const struct kure_plan *plan, int first)
{
    const char *activation = activation_of(net, first);
    char none[160], table[160];
    int more = 0;
    for (int i = 0; i < net->n; ++i) {
        if (i < first && has_activation(net, i, activation)) return;
        more |= i > first && has_activation(net, i, activation);
    }
    targets_text(plan, activation, KURE_FORM_NONE, none, sizeof none);
    targets_text(plan, activation, KURE_FORM_TABLE, table, sizeof table);
    if (!*none) return;
    printf("activation=%s has no integer form for %s%s%s: layer%s %d", activation, none, *table ? ", a table of 256 codes for " : "", table, more ? "s" : "", first);
    for (int i = first + 1; i < net->n; ++i) {
        if (has_activation(net, i, activation)) printf(", %d", i);
    }
    printf("\n");
}

static void print_integer_forms(const network *net, const struct kure_plan *plan)
{
    for (int i = 0; i < net->n; ++i) {
        const char *why_not = kure_export_why_not(&net->layers[i]);
        if (why_not) printf("layer %d [%s] has no integer form: %s\n", i, plan->rows[i].type, why_not);
        else if (activation_of(net, i)) print_layers_like(net, plan, i);
    }
}

/* ---- options ------------------------------------------------------------------------------ */

static void print_kurtosis(const struct kure_plan *plan)
{
    const struct kure_kurtosis_options *o = &plan->kurtosis;
    char text[KURE_KURTOSIS_TEXT];
    if (!o->line) return;
    kure_kurtosis_text(o, text, sizeof text);
    printf("[kurtosis] %s", text);
    if (o->log) printf(" log=%s every=%lld", o->log, (long long)o->every);
    printf("\n%d layers are regularized%s\n", plan->regularized, o->lambda == 0 ? " with lambda=0: only logged" : "");
}

static void print_quantization(const struct kure_plan *plan)
{
    const struct kure_quantization_options *o = &plan->quantization;
    if (!o->line) return;
    static const char *const batchnorms[] = {"train", "fold", "freeze"};
    static const char *const methods[] = {"ste", "lsq", "pact", "dorefa"};
    printf("[quantization] method=%s batchnorm=%s ", methods[o->method], batchnorms[o->batchnorm]);
    if (o->batchnorm == KURE_BATCHNORM_FREEZE) printf("freeze_at=%lld ", (long long)o->freeze_at);
    if (o->profile) printf("profile=%s ", kure_profile((int)o->profile - 1)->name);
    if (o->sample.text) printf("sample=\"%s\" ", o->sample.text);
    printf("start=%lld every=%lld; ", (long long)o->start, (long long)o->every);
    if (plan->input.bits) printf("network input: %d bits with step 1/%.0f\n", plan->input.bits, 1 / (double)plan->input_scale.step);
    else printf("network input: float\n");
}

static void print_options(const struct kure_plan *plan)
{
    if (!plan->kurtosis.line && !plan->quantizers) {
        printf("no [kurtosis] and no [quantization] section: Darknet trains as always\n");
        return;
    }
    print_kurtosis(plan);
    print_quantization(plan);
    printf("plan %s\n", plan->hash);
}

/* The clean cfg is for programs that know neither relu6 nor slope. */
static void warn_of_activations(const struct kure_network *k, const char *clean)
{
    for (int i = 0; i < k->options.layers; ++i) {
        const struct kure_layer_options *l = &k->options.layer[i];
        if (l->is_relu6) fprintf(stderr, "%s: layer %d keeps activation=relu6, which stock Darknet takes for another one\n", clean, i);
        if (l->slope_line) fprintf(stderr, "%s: layer %d is a leaky one with slope 0.1 there, not %g\n", clean, i, l->slope);
    }
}

int kure_command_plan(int argc, char **argv)
{
    static const struct option options[] = {{"clean", required_argument, NULL, 'c'}, {"csv", required_argument, NULL, 'v'},
                                            {"json", required_argument, NULL, 'j'},  {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    const char *clean = NULL, *csv = NULL, *json = NULL;
    int c;
    while ((c = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
        if (c == 'c') clean = optarg;
        else if (c == 'v') csv = optarg;
        else if (c == 'j') json = optarg;
        else if (c == 'h') return fputs(help, stdout), 0;
        else return kure_wrong_option("plan", c, argv, options);
    }
    int status = kure_check_arguments("plan", argc - optind, "CFG", 1);
    if (status) return status;
    const char *cfg = argv[optind];
    const struct kure_output_option outputs[] = {{"--csv", csv}, {"--json", json}, {"--clean", clean}};
    status = kure_check_outputs("plan", outputs, 3, (const char *const[]){cfg, NULL});
    if (status) return status;
    network *net = kure_network_load(cfg, NULL);
    const struct kure_plan *plan = &((struct kure_network *)net->kure)->plan;
    struct kure_table table;
    kure_table_init(&table, "kure.plan/1", columns, sizeof columns / sizeof columns[0]);
    memcpy(table.plan, plan->hash, sizeof table.plan);
    for (int i = 0; i < plan->count; ++i) {
        char forms[160];
        add_row(&table, &plan->rows[i], plan->kurtosis.line);
        forms_text(net, plan, i, forms, sizeof forms);
        kure_table_set_text(&table, "no_integer_form", forms);
    }
    kure_table_print(&table, stdout);
    print_options(plan);
    print_integer_forms(net, plan);
    status = kure_write_tables(&table, csv, json);
    struct kure_error error;
    if (status == 0 && clean && kure_cfg_write_clean(cfg, clean, &error) != KURE_OK) {
        fprintf(stderr, "%s\n", error.text);
        status = 1;
    }
    if (status == 0 && clean) warn_of_activations(net->kure, clean);
    kure_table_free(&table);
    free_network(net);
    return status;
}
