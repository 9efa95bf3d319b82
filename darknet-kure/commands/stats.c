/* stats.c: `darknet kure stats CFG WEIGHTS`: the weights of every layer in numbers. */
#define _GNU_SOURCE
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "points.h"

static const char help[] =
    "usage: darknet kure stats CFG WEIGHTS [options]\n\n"
    "One row per convolutional or connected layer: n, mean, standard deviation (n-1),\n"
    "skewness, kurtosis (uniform 1.8, normal 3, Laplace 6), range, and the signal-to-\n"
    "quantization-noise ratio in dB at 8, 6, 4, 3 and 2 bits.\n\n"
    "  --batchnorm train|fold           raw weights (default), or batch norm folded in\n"
    "  --weight-truncation POLICY       how the step is chosen (default minmax; eval --help)\n"
    "  --weight-truncation-value X      what percentile, lp, sigma, fixed need\n"
    "  --weight-rounding, --weight-step, --weight-symmetric   as in eval\n"
    "  --weight-granularity channel|tensor   one step a channel (default) or a layer\n"
    "  --weight-grid narrow|full|midrise     (default narrow)\n"
    "  --quantize KEY=VALUE,...         the same keys in one option\n"
    "  --csv FILE, --json FILE          write the table\n"
    "  --help                           this text\n";

static const int sqnr_bits[] = {8, 6, 4, 3, 2};
enum { SQNR_COUNT = sizeof sqnr_bits / sizeof sqnr_bits[0] };

static const struct kure_column columns[] = {
    {"layer", KURE_CELL_INTEGER, NULL}, {"type", KURE_CELL_TEXT, NULL},     {"n", KURE_CELL_INTEGER, NULL},
    {"mean", KURE_CELL_REAL, "%.4g"},   {"std", KURE_CELL_REAL, "%.4g"},    {"skewness", KURE_CELL_REAL, "%.3f"},
    {"kurtosis", KURE_CELL_REAL, "%.3f"}, {"min", KURE_CELL_REAL, "%.4g"},  {"max", KURE_CELL_REAL, "%.4g"},
    {"sqnr_8", KURE_CELL_REAL, "%.2f"}, {"sqnr_6", KURE_CELL_REAL, "%.2f"}, {"sqnr_4", KURE_CELL_REAL, "%.2f"},
    {"sqnr_3", KURE_CELL_REAL, "%.2f"}, {"sqnr_2", KURE_CELL_REAL, "%.2f"},
};

/* The layer's weights, or gamma/sqrt(variance + 1e-5) * weights, into out. */
static void copy_weights(const struct kure_tensor *t, int fold, float *out)
{
    for (size_t r = 0; r < t->rows; ++r) {
        double s = fold && t->gamma ? t->gamma[r] / sqrt((double)t->variance[r] + 1e-5) : 1;
        for (size_t i = r * t->row_length; i < (r + 1) * t->row_length; ++i) out[i] = (float)(s * t->weights[i]);
    }
}

static void add_layer(struct kure_table *table, const network *net, int i, const struct kure_point *point)
{
    const struct kure_network *k = net->kure;
    const struct kure_plan_row *row = &k->plan.rows[i];
    struct kure_tensor t = kure_tensor_of(&net->layers[i], NULL);
    size_t n = t.rows * t.row_length;
    float *weights = malloc(n * sizeof(float)), *copy = malloc(n * sizeof(float));
    if (!weights || !copy) kure_stop(&(struct kure_error){"not enough memory for a copy of a layer"});
    copy_weights(&t, point->fold, weights);
    struct kure_statistics s;
    kure_statistics_compute(weights, n, &s);
    kure_table_add_row(table);
    kure_table_set_integer(table, "layer", i);
    kure_table_set_text(table, "type", row->type);
    kure_table_set_integer(table, "n", (long long)n);
    kure_table_set_real(table, "mean", s.mean);
    kure_table_set_real(table, "std", kure_statistics_std(&s));
    kure_table_set_real(table, "skewness", kure_statistics_skewness(&s));
    kure_table_set_real(table, "kurtosis", kure_kurtosis(&s, (enum kure_std)k->plan.kurtosis.std));
    kure_table_set_real(table, "min", (double)s.min);
    kure_table_set_real(table, "max", (double)s.max);
    for (int b = 0; b < SQNR_COUNT; ++b) {
        struct kure_quantizer q = point->weights;
        q.bits = sqnr_bits[b];
        struct kure_tensor quantized = {.weights = copy, .rows = t.rows, .row_length = t.row_length};
        struct kure_quantization result;
        struct kure_error error;
        char column[16];
        memcpy(copy, weights, n * sizeof(float));
        if (kure_quantize_tensor(&quantized, &q, 0, NULL, &result, &error) != KURE_OK) kure_stop(&error);
        snprintf(column, sizeof column, "sqnr_%d", sqnr_bits[b]);
        kure_table_set_real(table, column, 10 * log10(result.signal / result.noise));
    }
    free(weights);
    free(copy);
}

int kure_command_stats(int argc, char **argv)
{
    static const struct option options[] = {
        {"csv", required_argument, NULL, 'v'}, {"json", required_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'},
        {"quantize", required_argument, NULL, 'q'}, {"batchnorm", required_argument, NULL, 1}, {"weight-truncation", required_argument, NULL, 1},
        {"weight-granularity", required_argument, NULL, 1}, {"weight-grid", required_argument, NULL, 1},
        {"weight-symmetric", required_argument, NULL, 1}, {"weight-truncation-value", required_argument, NULL, 1},
        {"weight-rounding", required_argument, NULL, 1}, {"weight-step", required_argument, NULL, 1}, {NULL, 0, NULL, 0}};
    const char *csv = NULL, *json = NULL;
    struct kure_points points = {.given = 0};
    struct kure_error error;
    int c, which = 0;
    while ((c = getopt_long(argc, argv, ":h", options, &which)) != -1) {
        enum kure_status status = KURE_OK;
        if (c == 'v') csv = optarg;
        else if (c == 'j') json = optarg;
        else if (c == 'q') status = kure_points_parse(&points, optarg, &error);
        else if (c == 1) status = kure_points_set_option(&points, options[which].name, optarg, &error);
        else if (c == 'h') return fputs(help, stdout), 0;
        else return kure_wrong_option("stats", c, argv, options);
        if (status != KURE_OK) return kure_usage_error("stats", "%s", error.text);
    }
    int status = kure_check_arguments("stats", argc - optind, "CFG WEIGHTS", 2);
    if (status) return status;
    if (!kure_points_has(&points, "batchnorm") && kure_points_set(&points, "batchnorm", "train", &error) != KURE_OK) kure_stop(&error);
    if (kure_points_has(&points, "activation_bits") && !kure_points_has(&points, "weight_bits")) {
        return kure_usage_error("stats", "activation_bits: it looks at weights only");
    }
    if (kure_points_has(&points, "weight_bits") || kure_points_count(&points) > 1) {
        return kure_usage_error("stats", "it takes one quantizer and shows 8, 6, 4, 3 and 2 bits");
    }
    if (kure_points_check(&points, &error) != KURE_OK) return kure_usage_error("stats", "%s", error.text);
    struct kure_point point = kure_points_get(&points, 0);
    const struct kure_output_option outputs[] = {{"--csv", csv}, {"--json", json}};
    status = kure_check_outputs("stats", outputs, 2, (const char *const[]){argv[optind], argv[optind + 1], NULL});
    if (status) return status;
    network *net = kure_network_load(argv[optind], argv[optind + 1]);
    const struct kure_plan *plan = &((struct kure_network *)net->kure)->plan;
    struct kure_table table;
    kure_table_init(&table, "kure.stats/1", columns, sizeof columns / sizeof columns[0]);
    memcpy(table.plan, plan->hash, sizeof table.plan);
    if (kure_hash_file(argv[optind + 1], table.model, &error) != KURE_OK) kure_stop(&error);
    for (int i = 0; i < plan->count; ++i) {
        if (plan->rows[i].rows) add_layer(&table, net, i, &point);
    }
    kure_report_float_layers(net);
    kure_table_print(&table, stdout);
    status = kure_write_tables(&table, csv, json);
    kure_table_free(&table);
    kure_points_free(&points);
    free_network(net);
    return status;
}
