/*
 * sensitivity.c: `darknet kure sensitivity CFG WEIGHTS DATA`: what each layer costs when it
 * alone is quantized, and what is won when it alone is left float; bits for every layer.
 */
#define _GNU_SOURCE
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bit_budget.h"
#include "estimate.h"
#include "evaluation.h"
#include "interrupt.h"
#include "progress.h"
#include "ptq.h"

static const char *const help[] = {
    "usage: darknet kure sensitivity CFG WEIGHTS DATA --weight-bits LIST [options]\n\n"
    "For every width: top-1, or AP of a detector, with one layer quantized and all others float\n"
    "(alone), and with all quantized but that one (others). Layers at the network input and the\n"
    "loss have the same width here. With --activation-bits a layer's activations go along.\n\n"
    "  --weight-bits LIST        widths, such as 8,4,2\n"
    "  --suggest BITS            weight_bits for every layer, of those widths, that have this\n"
    "                            average over all weights: where alone loses least for each bit\n"
    "                            saved; and what becomes of the network with them\n"
    "  --quantize KEY=VALUE,... and the other keys of 'darknet kure eval --help', one value each\n"
    "  --images N, --calibration-images N, --bn-images N, --bias-images N, --equalize, --seed N,\n"
    "  --threshold T, --skip-bad, --long, --threads N   as in eval\n"
    "  --csv FILE, --json FILE   write the table, for scripts/report.py too; JSON with what\n"
    "                            --suggest has chosen\n"
    "  --help                    this text\n\n"
    "loss: points that the float network has more; gain: points more than with all quantized.\n",
    NULL,
};

static const struct kure_column columns[] = {
    {"weight_bits", KURE_CELL_INTEGER, NULL}, {"activation_bits", KURE_CELL_INTEGER, NULL}, {"layer", KURE_CELL_INTEGER, NULL},
    {"type", KURE_CELL_TEXT, NULL},           {"weights", KURE_CELL_INTEGER, NULL},         {"weight_sqnr", KURE_CELL_REAL, "%.2f"},
    {"alone", KURE_CELL_REAL, "%.2f"},        {"alone_loss", KURE_CELL_REAL, "%.2f"},       {"others", KURE_CELL_REAL, "%.2f"},
    {"others_gain", KURE_CELL_REAL, "%.2f"},  {"measure", KURE_CELL_TEXT, NULL},            {"float", KURE_CELL_REAL, "%.2f"},
    {"all", KURE_CELL_REAL, "%.2f"},
};
static const struct kure_column suggestion_columns[] = {
    {"layer", KURE_CELL_INTEGER, NULL}, {"type", KURE_CELL_TEXT, NULL}, {"weights", KURE_CELL_INTEGER, NULL}, {"weight_bits", KURE_CELL_INTEGER, NULL},
};

struct sensitivity {
    struct kure_evaluation evaluation;
    struct kure_evaluation_request request;
    struct kure_progress progress;
    int main;               /* measure */
    int *layers, count;     /* [count] those that have a quantizer */
    int widths;
    unsigned char *of_layer; /* [net->n] for a point */
    double plain;           /* of the float network */
    double *loss, *noise;   /* [count][widths] alone */
};

static const struct kure_plan_row *row_of(const struct sensitivity *s, int i)
{
    return &s->evaluation.ptq->own.rows[s->layers[i]];
}

static size_t weights_of(const struct sensitivity *s, int i)
{
    return row_of(s, i)->rows * row_of(s, i)->row_length;
}

static void count_images(void *progress, int n)
{
    kure_progress_add(progress, n);
}

/* All layers at the width of point w, the first and the last ones too. */
static struct kure_point point_of(const struct sensitivity *s, int w)
{
    struct kure_point point = kure_points_get(&s->request.points, w);
    point.first_bits = point.last_bits = point.weights.bits ? point.weights.bits : point.activations.bits;
    point.everywhere = 1;
    point.layers = s->of_layer;
    return point;
}

static void set_all(struct sensitivity *s, int what)
{
    memset(s->of_layer, what, (size_t)s->evaluation.net->n);
}

static struct kure_result run(struct sensitivity *s, int w)
{
    struct kure_point point = w < 0 ? (struct kure_point){.fold = 0} : point_of(s, w);
    return kure_evaluation_run(&s->evaluation, &point, NULL, count_images, &s->progress);
}

/* Layers that point 0 quantizes. */
static void find_layers(struct sensitivity *s)
{
    network *net = s->evaluation.net;
    s->of_layer = calloc((size_t)net->n, 1);
    s->layers = calloc((size_t)net->n, sizeof *s->layers);
    if (!s->of_layer || !s->layers) kure_stop(&(struct kure_error){"not enough memory for the layers of a network"});
    set_all(s, KURE_LAYER_AS_POINT);
    struct kure_point point = point_of(s, 0);
    struct kure_plan plan = kure_ptq_plan(s->evaluation.ptq, &point);
    for (int i = 0; i < plan.count; ++i) {
        if (plan.rows[i].weight.bits || plan.rows[i].before.bits || plan.rows[i].after.bits) s->layers[s->count++] = i;
    }
    kure_plan_free(&plan);
    if (s->count == 0) kure_stop(&(struct kure_error){"no layer has weights or activations to quantize"});
    s->loss = malloc((size_t)(s->count * s->widths) * sizeof *s->loss);
    s->noise = malloc((size_t)(s->count * s->widths) * sizeof *s->noise);
    if (!s->loss || !s->noise) kure_stop(&(struct kure_error){"not enough memory for the layers of a network"});
}

static void measure_layer(struct sensitivity *s, int w, int i, double all, struct kure_table *table)
{
    const struct kure_point point = point_of(s, w);
    set_all(s, KURE_LAYER_FLOAT);
    s->of_layer[s->layers[i]] = KURE_LAYER_AS_POINT;
    struct kure_result alone = run(s, w);
    set_all(s, KURE_LAYER_AS_POINT);
    s->of_layer[s->layers[i]] = KURE_LAYER_FLOAT;
    double others = run(s, w).measure.value[s->main], only = alone.measure.value[s->main];
    s->loss[i * s->widths + w] = s->plain - only;
    s->noise[i * s->widths + w] = isnan(alone.sqnr) ? 0 : pow(10, -alone.sqnr / 10);
    kure_table_add_row(table);
    kure_table_set_integer(table, "weight_bits", point.weights.bits);
    kure_table_set_integer(table, "activation_bits", point.activations.bits);
    kure_table_set_integer(table, "layer", s->layers[i]);
    kure_table_set_text(table, "type", row_of(s, i)->type);
    kure_table_set_integer(table, "weights", (long long)weights_of(s, i));
    kure_table_set_real(table, "weight_sqnr", alone.sqnr);
    kure_table_set_real(table, "alone", only);
    kure_table_set_real(table, "alone_loss", s->plain - only);
    kure_table_set_real(table, "others", others);
    kure_table_set_real(table, "others_gain", others - all);
    kure_table_set_text(table, "measure", kure_measure_text(s->main).column);
    kure_table_set_real(table, "float", s->plain);
    kure_table_set_real(table, "all", all);
}

static void measure_all(struct sensitivity *s, struct kure_table *table)
{
    s->plain = run(s, -1).measure.value[s->main];
    for (int w = 0; w < s->widths; ++w) {
        set_all(s, KURE_LAYER_AS_POINT);
        double all = run(s, w).measure.value[s->main];
        for (int i = 0; i < s->count; ++i) measure_layer(s, w, i, all, table);
    }
}

/* ---- bits for every layer ---------------------------------------------------------------- */

/* What becomes of the network; bits: [count]. On the activations of the points, which are alike. */
static double try_bits(struct sensitivity *s, const int *bits)
{
    set_all(s, KURE_LAYER_AS_POINT); /* layers without weights */
    for (int i = 0; i < s->count; ++i) {
        if (bits[i]) s->of_layer[s->layers[i]] = (unsigned char)bits[i];
    }
    return run(s, 0).measure.value[s->main];
}

static void suggest(struct sensitivity *s, const struct kure_table *all, struct kure_table *table)
{
    int *bits = calloc((size_t)s->count, sizeof *bits), *widths = malloc((size_t)s->widths * sizeof *widths), n = 0;
    size_t *weights = malloc((size_t)s->count * sizeof *weights);
    int *chosen = malloc((size_t)s->count * sizeof *chosen);
    if (!bits || !widths || !weights || !chosen) kure_stop(&(struct kure_error){"not enough memory for the layers of a network"});
    for (int w = 0; w < s->widths; ++w) widths[w] = kure_points_get(&s->request.points, w).weights.bits;
    for (int i = 0; i < s->count; ++i) { /* those with weights move to the front */
        if (!weights_of(s, i)) continue;
        memmove(s->loss + n * s->widths, s->loss + i * s->widths, (size_t)s->widths * sizeof *s->loss);
        memmove(s->noise + n * s->widths, s->noise + i * s->widths, (size_t)s->widths * sizeof *s->noise);
        weights[n++] = weights_of(s, i);
    }
    const struct kure_bit_budget budget = {n, s->widths, widths, weights, s->loss, s->noise, s->request.suggest};
    double average = kure_bit_budget(&budget, chosen);
    for (int i = 0, at = 0; i < s->count; ++i) {
        if (weights_of(s, i)) bits[i] = chosen[at++];
    }
    double measured = try_bits(s, bits);
    for (int i = 0; i < s->count; ++i) {
        if (!bits[i]) continue;
        kure_table_add_row(table);
        kure_table_set_integer(table, "layer", s->layers[i]);
        kure_table_set_text(table, "type", row_of(s, i)->type);
        kure_table_set_integer(table, "weights", (long long)weights_of(s, i));
        kure_table_set_integer(table, "weight_bits", bits[i]);
    }
    kure_progress_end(&s->progress);
    kure_table_print(all, stdout);
    printf("\nweight_bits for an average of %g bits: %.2f bits, %s %.2f %% (float %.2f %%)\n", s->request.suggest, average, kure_measure_text(s->main).name,
           measured, s->plain);
    kure_table_print(table, stdout);
    free(bits);
    free(widths);
    free(weights);
    free(chosen);
}

/* ---- the command line ------------------------------------------------------------------------ */

static int check_request(struct sensitivity *s)
{
    const struct kure_evaluation_request *r = &s->request;
    const struct kure_points *points = &r->points;
    int given = kure_points_has(points, "weight_bits");
    if (!given) return kure_usage_error("sensitivity", "--weight-bits LIST is needed: the widths to try");
    if (r->lapq_images) return kure_usage_error("sensitivity", "--lapq-images: steps are found for layers together: leave it out");
    if (kure_points_has(points, "first_bits") || kure_points_has(points, "last_bits")) {
        return kure_usage_error("sensitivity", "--first-bits, --last-bits: every layer is tried at --weight-bits: leave them out");
    }
    s->widths = 1;
    for (const char *p = kure_points_list(points, "weight_bits"); *p; ++p) s->widths += *p == ',';
    if (kure_points_count(points) != s->widths) return kure_usage_error("sensitivity", "keys but --weight-bits take one value here");
    for (int w = 0; w < s->widths; ++w) {
        struct kure_point p = kure_points_get(points, w), first = kure_points_get(points, 0);
        if (!r->suggest) continue;
        if (w && p.weights.bits >= kure_points_get(points, w - 1).weights.bits) {
            return kure_usage_error("sensitivity", "--suggest: --weight-bits must go down, as 8,4,2");
        }
        if (p.activations.bits != first.activations.bits) return kure_usage_error("sensitivity", "--suggest: is for weights: say one --activation-bits");
    }
    struct kure_point last = kure_points_get(points, s->widths - 1), first = kure_points_get(points, 0);
    if (!r->suggest || (last.weights.bits && r->suggest >= last.weights.bits && r->suggest <= first.weights.bits)) return 0;
    return kure_usage_error("sensitivity", "--suggest %g: must lie between the smallest and the largest of --weight-bits %s", r->suggest,
                            kure_points_list(points, "weight_bits"));
}

static void free_all(struct sensitivity *s)
{
    kure_points_free(&s->request.points);
    free(s->layers);
    free(s->of_layer);
    free(s->loss);
    free(s->noise);
}

int kure_command_sensitivity(int argc, char **argv)
{
    struct sensitivity s = {.main = 0};
    struct kure_table table, suggestion;
    struct kure_error error;
    int status = kure_evaluation_parse(argc, argv, help, KURE_SENSITIVITY, &s.request);
    if (status >= 0) return status;
    status = check_request(&s);
    if (status) return status;
    kure_interrupt_say("stopped: a table is written at the end only, so that nothing is kept");
    network *net = kure_network_load(s.request.cfg, s.request.weights);
    s.main = kure_main_measure(net);
    kure_table_init(&table, "kure.sensitivity/1", columns, sizeof columns / sizeof columns[0]);
    kure_table_init(&suggestion, "kure.bits/1", suggestion_columns, sizeof suggestion_columns / sizeof suggestion_columns[0]);
    table.results = " layer type weights weight_sqnr alone alone_loss others others_gain ";
    memcpy(table.plan, ((const struct kure_network *)net->kure)->plan.hash, sizeof table.plan);
    if (kure_hash_file(s.request.weights, table.model, &error) != KURE_OK) kure_stop(&error);
    kure_evaluation_load(&s.evaluation, &s.request, net);
    kure_evaluation_begin(&s.evaluation);
    find_layers(&s);
    int points = 1 + s.widths * (1 + 2 * s.count) + (s.request.suggest > 0);
    struct kure_point last = point_of(&s, s.widths - 1);
    if (!kure_estimate_allows(&s.evaluation, &last, points, 1)) return 1;
    kure_progress_start(&s.progress, "images", points * kure_evaluation_images(&s.evaluation));
    measure_all(&s, &table);
    if (s.request.suggest) {
        suggest(&s, &table, &suggestion);
        table.detail = &suggestion;
        table.detail_name = "suggestion";
    } else {
        kure_progress_end(&s.progress);
        kure_table_print(&table, stdout);
    }
    kure_interrupt_hold(1);
    status = kure_write_tables(&table, s.request.csv, s.request.json);
    kure_evaluation_end(&s.evaluation);
    kure_table_free(&table);
    kure_table_free(&suggestion);
    free_all(&s);
    return status;
}
