/* theory.c: `darknet kure theory [CFG WEIGHTS]`: sections 3.1 to 3.3 of the paper as a table. */
#define _GNU_SOURCE
#include "theory.h"

#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "evaluate.h"
#include "progress.h"

static const char help[] =
    "usage: darknet kure theory [options]\n"
    "       darknet kure theory CFG WEIGHTS [options]\n\n"
    "What it costs to quantize X with another step size than the best one (section 3 of the\n"
    "paper), for distributions of variance 1, or for the weights of each layer as they are.\n\n"
    "  --distribution LIST        of uniform,normal,laplace (default all; not with CFG WEIGHTS)\n"
    "  --layer LIST               layer numbers (default: every layer with weights)\n"
    "  --bits LIST                2 to 8 (default 2,3,4,5,6,7,8)\n"
    "  --grid LIST                of midrise,narrow,full (default midrise: the paper's)\n"
    "  --step-ratio LIST          0.01 to 100, times the best step (default 0.8,1,1.2)\n"
    "  --csv FILE, --json FILE    write the table\n"
    "  --help                     this text\n\n"
    "Columns. Steps are in standard deviations of X, errors in variances; std is a layer's own.\n"
    "  ratio        step / best step\n"
    "  step, mse    MSE(X, step) = E[(X - Q(X))^2]: exact, with all levels and both tails of the grid\n"
    "  gamma        sensitivity |MSE(X, step) - MSE(X, best step)|, epsilon = |step - best step|\n"
    "  paper_step   the same by the paper's approximations: noise D^2/12 wherever nothing is\n"
    "  paper_mse    clipped, 2^bits intervals; its own best step times ratio, and the MSE there\n"
    "  paper_gamma  lemma 1: second derivative of MSE at the best step times epsilon^2/2\n"
    "The paper treats uniform and normal; laplace is ACIQ's formula. Of weights there is none.\n\n"
    "Where the approximation holds: from 5 bits up its MSE is at most 6 % below the exact one on\n"
    "the midrise grid and 12 % on the others; at 2 bits, 25 to 65 %.\n\n"
    "Where uniform X is better than normal X, exactly, on the midrise grid, in times the best step:\n"
    "  bits                     2     3     4     5     6     7     8\n"
    "  lower mse above       0.33  0.69  0.81  0.88  0.92  0.95  0.97\n"
    "  lower gamma above     1.91  1.30  1.14  1.08  1.05  1.04  1.03\n"
    "Below the best step uniform X loses more: so many of its values lie at the ends, where they\n"
    "get clipped. Theorem 4 says that its gamma is lower everywhere, because it takes the second\n"
    "derivative at D = 2a/2^bits, where that is 1/2; at the exact minimum of the same formula,\n"
    "2a/(2^bits + 1), it is 2^(bits-1). So where a step is uncertain, rather take it too large.\n\n"
    "Uniform X or uniform Q(X)? X: the float weights before any quantizer. KURE pulls their\n"
    "kurtosis to 1.8 and knows no grid, so that every quantizer finds the same easy X. Then the\n"
    "codes Q(X) are used about equally often as well, but that is a consequence: a single\n"
    "quantizer with fitted levels (quantiles) gives uniform Q(X) for any X, and loses it when\n"
    "step or bits change. A 'uniform quantizer', as all here are, is a third thing: equal steps.\n";

static const struct kure_column columns[] = {
    {"values", KURE_CELL_TEXT, NULL},      {"layer", KURE_CELL_INTEGER, NULL},     {"n", KURE_CELL_INTEGER, NULL},
    {"std", KURE_CELL_REAL, "%.4g"},       {"kurtosis", KURE_CELL_REAL, "%.3f"},   {"bits", KURE_CELL_INTEGER, NULL},
    {"grid", KURE_CELL_TEXT, NULL},        {"ratio", KURE_CELL_REAL, "%g"},        {"step", KURE_CELL_REAL, "%.4g"},
    {"mse", KURE_CELL_REAL, "%.4g"},       {"gamma", KURE_CELL_REAL, "%.4g"},      {"paper_step", KURE_CELL_REAL, "%.4g"},
    {"paper_mse", KURE_CELL_REAL, "%.4g"}, {"paper_gamma", KURE_CELL_REAL, "%.4g"},
};

/* ---- lists of the command line ---------------------------------------------- */

enum { MOST_VALUES = 1000 };

/* One row per option that takes a list. */
struct value_list {
    const char *option, *start; /* the default */
    const char *const *names;   /* [name_count]; NULL: numbers */
    int name_count, whole;      /* whole: integers */
    double from, to;
    int given, count;
    double values[MOST_VALUES]; /* numbers, or indices of names */
};

static int parse_name(const struct value_list *l, const char *text, size_t length, double *value)
{
    for (int i = 0; i < l->name_count; ++i) {
        if (strlen(l->names[i]) != length || strncmp(l->names[i], text, length) != 0) continue;
        *value = i;
        return 1;
    }
    return 0;
}

static int parse_number(const struct value_list *l, const char *text, size_t length, double *value)
{
    char *end;
    *value = strtod(text, &end);
    return length > 0 && end == text + length && *value >= l->from && *value <= l->to && (!l->whole || *value == floor(*value));
}

static int refuse_value(const struct value_list *l, const char *text, size_t length)
{
    char wanted[128] = "one of:";
    for (int i = 0; i < l->name_count; ++i) {
        size_t used = strlen(wanted);
        snprintf(wanted + used, sizeof wanted - used, " %s", l->names[i]);
    }
    if (!l->names) snprintf(wanted, sizeof wanted, "%s from %g to %g", l->whole ? "an integer" : "a number", l->from, l->to);
    return kure_usage_error("theory", "--%s %.*s: must be %s", l->option, (int)length, text, wanted);
}

/* 0, or 2 after a sentence. */
static int parse_list(struct value_list *l, const char *text)
{
    l->count = 0;
    for (;; ++text) {
        size_t length = strcspn(text, ",");
        double value;
        if (!(l->names ? parse_name : parse_number)(l, text, length, &value)) return refuse_value(l, text, length);
        for (int i = 0; i < l->count; ++i) {
            if (l->values[i] == value) return kure_usage_error("theory", "--%s names %.*s twice", l->option, (int)length, text);
        }
        if (l->count == MOST_VALUES) return kure_usage_error("theory", "--%s names more than %d values", l->option, MOST_VALUES);
        l->values[l->count++] = value;
        text += length;
        if (!*text) return 0;
    }
}

enum { DISTRIBUTION, LAYER, BITS, GRID, STEP_RATIO, LISTS };

static const char *const distribution_names[] = {"uniform", "normal", "laplace"}; /* enum kure_density */
static const char *const grid_names[] = {"narrow", "full", "midrise"};            /* enum kure_grid */

static const struct value_list all_lists[LISTS] = {
    [DISTRIBUTION] = {.option = "distribution", .start = "uniform,normal,laplace", .names = distribution_names, .name_count = KURE_DENSITIES},
    [LAYER] = {.option = "layer", .whole = 1, .to = 9999},
    [BITS] = {.option = "bits", .start = "2,3,4,5,6,7,8", .whole = 1, .from = 2, .to = 8},
    [GRID] = {.option = "grid", .start = "midrise", .names = grid_names, .name_count = 3},
    [STEP_RATIO] = {.option = "step-ratio", .start = "0.8,1,1.2", .from = 0.01, .to = 100},
};

/* ---- rows ---------------------------------------------------------------------- */

/* X of a row: a density, or a layer's weights */
struct subject {
    struct kure_source source;
    int layer; /* -1: a density */
    size_t n;
    double std, kurtosis;
    double best, least; /* of the quantizer at hand: step, MSE there */
};

static void add_row(struct kure_table *table, const struct subject *x, const struct kure_quantizer *q, double ratio)
{
    double mse = ratio == 1 ? x->least : kure_source_mse(&x->source, q, ratio * x->best), variance = x->std * x->std;
    kure_table_add_row(table);
    if (x->layer >= 0) {
        kure_table_set_integer(table, "layer", x->layer);
        kure_table_set_integer(table, "n", (long long)x->n);
        kure_table_set_real(table, "std", x->std);
        kure_table_set_real(table, "kurtosis", x->kurtosis);
    } else {
        enum kure_density density = x->source.density;
        double step = kure_paper_step(density, q->bits);
        kure_table_set_text(table, "values", kure_density_name(density));
        kure_table_set_real(table, "paper_step", ratio * step);
        kure_table_set_real(table, "paper_mse", kure_paper_mse(density, q->bits, ratio * step));
        kure_table_set_real(table, "paper_gamma", kure_paper_gamma(density, q->bits, fabs(ratio - 1) * step));
    }
    kure_table_set_integer(table, "bits", q->bits);
    kure_table_set_text(table, "grid", kure_grid_name(q->grid));
    kure_table_set_real(table, "ratio", ratio);
    kure_table_set_real(table, "step", ratio * x->best / x->std);
    kure_table_set_real(table, "mse", mse / variance);
    kure_table_set_real(table, "gamma", fabs(mse - x->least) / variance);
}

/* Subjects vary fastest, so that they stand below each other. */
static void add_rows(struct kure_table *table, const struct value_list *lists, struct subject *subjects, int count)
{
    for (int g = 0; g < lists[GRID].count; ++g) {
        for (int b = 0; b < lists[BITS].count; ++b) {
            struct kure_quantizer q = {.bits = (int)lists[BITS].values[b], .grid = (enum kure_grid)lists[GRID].values[g]};
            for (int i = 0; i < count; ++i) {
                subjects[i].best = kure_source_best_step(&subjects[i].source, &q);
                subjects[i].least = kure_source_mse(&subjects[i].source, &q, subjects[i].best);
            }
            for (int r = 0; r < lists[STEP_RATIO].count; ++r) {
                for (int i = 0; i < count; ++i) add_row(table, &subjects[i], &q, lists[STEP_RATIO].values[r]);
            }
        }
    }
}

static void add_distributions(struct kure_table *table, const struct value_list *lists)
{
    struct subject subjects[KURE_DENSITIES];
    for (int i = 0; i < lists[DISTRIBUTION].count; ++i) {
        enum kure_density density = (enum kure_density)lists[DISTRIBUTION].values[i];
        subjects[i] = (struct subject){.source = kure_source_of_density(density), .layer = -1, .std = 1};
    }
    add_rows(table, lists, subjects, lists[DISTRIBUTION].count);
}

/* 0: all weights are equal, which is said */
static int add_layer(struct kure_table *table, const struct value_list *lists, const network *net, int i)
{
    const struct kure_network *k = net->kure;
    struct kure_tensor t = kure_tensor_of(&net->layers[i], NULL);
    struct kure_statistics s;
    struct kure_error error;
    size_t n = t.rows * t.row_length;
    kure_statistics_compute(t.weights, n, &s);
    if (!(s.m2 > 0)) {
        fprintf(stderr, "layer %d: all %zu weights are equal: left out\n", i, n);
        return 0;
    }
    struct subject x = {.layer = i, .n = n, .std = kure_statistics_std(&s), .kurtosis = kure_kurtosis(&s, (enum kure_std)k->plan.kurtosis.std)};
    if (kure_source_of_values(t.weights, n, &x.source, &error) != KURE_OK) kure_stop(&error);
    add_rows(table, lists, &x, 1);
    kure_source_free(&x.source);
    return 1;
}

/* --layer names layers that are there and have weights; 0, or 1 after a sentence. */
static int check_layers(const struct value_list *l, const struct kure_plan *plan, const char *cfg)
{
    for (int i = 0; i < l->count; ++i) {
        int layer = (int)l->values[i];
        if (layer < plan->count && plan->rows[layer].rows) continue;
        if (layer >= plan->count) fprintf(stderr, "--layer %d: %s has the layers 0 to %d\n", layer, cfg, plan->count - 1);
        else fprintf(stderr, "--layer %d: this layer of %s (%s) has no weights that a quantizer takes\n", layer, cfg, plan->rows[layer].type);
        return 1;
    }
    return 0;
}

static int is_wanted(const struct value_list *l, int layer)
{
    for (int i = 0; i < l->count; ++i) {
        if ((int)l->values[i] == layer) return 1;
    }
    return !l->given;
}

/* 0, or the exit status after a sentence. */
static int add_layers(struct kure_table *table, const struct value_list *lists, const char *cfg, const char *weights)
{
    struct kure_error error;
    network *net = kure_network_load(cfg, weights);
    const struct kure_plan *plan = &((struct kure_network *)net->kure)->plan;
    int status = check_layers(&lists[LAYER], plan, cfg), wanted = 0, added = 0;
    memcpy(table->plan, plan->hash, sizeof table->plan);
    if (!status && kure_hash_file(weights, table->model, &error) != KURE_OK) kure_stop(&error);
    long long total = 0;
    for (int i = 0; i < plan->count; ++i) total += is_wanted(&lists[LAYER], i) ? (long long)(plan->rows[i].rows * plan->rows[i].row_length) : 0;
    struct kure_progress progress;
    kure_progress_start(&progress, "weights", total);
    for (int i = 0; !status && i < plan->count; ++i) {
        if (!plan->rows[i].rows || !is_wanted(&lists[LAYER], i)) continue;
        ++wanted;
        added += add_layer(table, lists, net, i);
        kure_progress_add(&progress, (long long)(plan->rows[i].rows * plan->rows[i].row_length));
    }
    kure_progress_end(&progress);
    if (!status && !wanted) fprintf(stderr, "%s: no layer has weights that a quantizer takes\n", cfg);
    if (!added) status = 1;
    if (!status && !lists[LAYER].given) kure_report_float_layers(net);
    free_network(net);
    return status;
}

/* ---- the command ------------------------------------------------------------------ */

static int parse_options(struct value_list *lists, int argc, char **argv, const char **csv, const char **json, int *helped)
{
    static const struct option options[] = {
        {"distribution", required_argument, NULL, DISTRIBUTION}, {"layer", required_argument, NULL, LAYER},
        {"bits", required_argument, NULL, BITS}, {"grid", required_argument, NULL, GRID},
        {"step-ratio", required_argument, NULL, STEP_RATIO}, {"csv", required_argument, NULL, 'v'},
        {"json", required_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    int c, status = 0;
    for (int i = 0; i < LISTS; ++i) {
        if (lists[i].start && parse_list(&lists[i], lists[i].start) != 0) return 1; /* does not happen */
    }
    while (!status && !*helped && (c = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
        if (c == 'v') *csv = optarg;
        else if (c == 'j') *json = optarg;
        else if (c == 'h') *helped = 1;
        else if (c == '?' || c == ':') status = kure_wrong_option("theory", c, argv, options);
        else if (lists[c].given++) status = kure_usage_error("theory", "--%s is given twice", lists[c].option);
        else status = parse_list(&lists[c], optarg);
    }
    return status;
}

int kure_command_theory(int argc, char **argv)
{
    struct value_list lists[LISTS];
    const char *csv = NULL, *json = NULL;
    memcpy(lists, all_lists, sizeof lists);
    int helped = 0, status = parse_options(lists, argc, argv, &csv, &json, &helped);
    if (helped) return fputs(help, stdout), 0;
    int left = argc - optind, of_layers = left > 0;
    if (!status) status = kure_check_arguments("theory", left, "CFG WEIGHTS, or none", of_layers ? 2 : 0);
    if (!status && of_layers && lists[DISTRIBUTION].given) status = kure_usage_error("theory", "--distribution goes without CFG WEIGHTS: both give the same units");
    if (!status && !of_layers && lists[LAYER].given) status = kure_usage_error("theory", "--layer needs CFG WEIGHTS");
    const struct kure_output_option outputs[] = {{"--csv", csv}, {"--json", json}};
    const char *const inputs[] = {of_layers ? argv[optind] : NULL, of_layers ? argv[optind + 1] : NULL, NULL};
    if (!status) status = kure_check_outputs("theory", outputs, 2, inputs);
    if (status) return status;

    struct kure_table table;
    kure_table_init(&table, "kure.theory/1", columns, sizeof columns / sizeof columns[0]);
    if (of_layers) status = add_layers(&table, lists, argv[optind], argv[optind + 1]);
    else add_distributions(&table, lists);
    if (!status) kure_table_print(&table, stdout);
    if (!status) status = kure_write_tables(&table, csv, json);
    kure_table_free(&table);
    return status;
}
