/* eval.c: `darknet kure eval CFG WEIGHTS DATA`: accuracy, float or quantized. */
#define _GNU_SOURCE
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "command.h"
#include "points.h"
#include "progress.h"

static const char help[] =
    "usage: darknet kure eval CFG WEIGHTS DATA [options]\n\n"
    "Top-1 and top-5 of a classifier on the validation list of a Darknet .data file:\n"
    "float, or quantized after training as soon as a quantizer key is given. Lists such as\n"
    "8,6,4 give one row for every combination. Keys that a layer of CFG has itself stand;\n"
    "[quantization] of CFG is read with --simulate only.\n\n"
    "  --quantize KEY=VALUE,...        quantizer keys in one option; or each by itself:\n"
    "  --weight-bits LIST              2-16, 0 = float (default 8)\n"
    "  --first-bits LIST, --last-bits LIST   layers at the network input and the loss (default 8)\n"
    "  --weight-step-ratio LIST        multiplies the step size (default 1)\n"
    "  --weight-rounding LIST          half_even (default), half_away, half_up, half_down,\n"
    "                                  half_to_zero, floor, ceil, to_zero, stochastic\n"
    "  --weight-truncation LIST        minmax (default), percentile, mse, kl, gauss, laplace,\n"
    "                                  lp, sigma, fixed\n"
    "  --weight-truncation-value LIST  the percentile, lp's exponent, the number of sigmas,\n"
    "                                  or the bound of fixed\n"
    "  --weight-step LIST              free (default), power_of_two\n"
    "  --weight-granularity LIST       channel (default), tensor\n"
    "  --weight-grid LIST              narrow (default), full, midrise\n"
    "  --weight-symmetric LIST         1 (default); 0: a free zero point, on the full grid\n"
    "  --batchnorm LIST                fold (default): the grid of the folded weights;\n"
    "                                  train: raw weights\n"
    "  --activation-bits LIST          2-16, 0 = float (default)\n"
    "  --activation-KEY LIST           step-ratio, rounding, truncation (default ema; the\n"
    "                                  above as well), truncation-value, step, grid\n"
    "                                  (default full), symmetric (default 0)\n"
    "  --bits LIST, --rounding LIST... weights and activations alike: 8,4 are two rows\n"
    "  --calibration-images N          images of the training list that the ranges of\n"
    "                                  activations come from (default 256, or all)\n"
    "  --bn-images N                   estimate batch norm anew in every row, from so many\n"
    "                                  images of the training list (default 0: as trained)\n"
    "  --seed N                        which images of the training list (default 0)\n"
    "  --simulate                      as [quantization] of CFG says, with the ranges of\n"
    "                                  WEIGHTS.kure\n"
    "  --images N                      the first N images of the validation list only\n"
    "  --threads N                     processor threads (default: all)\n"
    "  --csv FILE, --json FILE         write the table\n"
    "  --help                          this text\n";

/* Column names of every evaluation table, activations included. */
static const struct kure_column columns[] = {
    {"weight_bits", KURE_CELL_INTEGER, NULL},       {"activation_bits", KURE_CELL_INTEGER, NULL},
    {"weight_step_ratio", KURE_CELL_REAL, "%g"},    {"weight_rounding", KURE_CELL_TEXT, NULL},
    {"weight_truncation", KURE_CELL_TEXT, NULL},    {"weight_truncation_value", KURE_CELL_REAL, "%g"},
    {"weight_granularity", KURE_CELL_TEXT, NULL},   {"weight_grid", KURE_CELL_TEXT, NULL},
    {"weight_symmetric", KURE_CELL_INTEGER, NULL},  {"weight_step", KURE_CELL_TEXT, NULL},
    {"batchnorm", KURE_CELL_TEXT, NULL},            {"activation_step_ratio", KURE_CELL_REAL, "%g"},
    {"activation_rounding", KURE_CELL_TEXT, NULL},  {"activation_truncation", KURE_CELL_TEXT, NULL},
    {"activation_truncation_value", KURE_CELL_REAL, "%g"}, {"activation_symmetric", KURE_CELL_INTEGER, NULL},
    {"activation_granularity", KURE_CELL_TEXT, NULL}, {"activation_grid", KURE_CELL_TEXT, NULL},
    {"activation_step", KURE_CELL_TEXT, NULL},      {"first_bits", KURE_CELL_INTEGER, NULL},
    {"last_bits", KURE_CELL_INTEGER, NULL},         {"calibration_images", KURE_CELL_INTEGER, NULL},
    {"bn_images", KURE_CELL_INTEGER, NULL},         {"top1", KURE_CELL_REAL, "%.2f"},
    {"top5", KURE_CELL_REAL, "%.2f"},               {"weight_sqnr", KURE_CELL_REAL, "%.2f"},
    {"seconds", KURE_CELL_REAL, "%.2f"},
};

enum { MOST_THREADS = 1024 }; /* OpenMP ends the process where it cannot start as many as it is told */

struct request {
    const char *csv, *json, *cfg, *weights, *data;
    struct kure_points points;
    int images, threads, simulate;
    int calibration_images, bn_images; /* 0: not given */
    uint64_t seed;
    int seed_given;
};

static void count_images(void *progress, int n)
{
    kure_progress_add(progress, n);
}

/* The columns of one quantizer; prefix: weight or activation. */
static void set_quantizer(struct kure_table *table, const char *prefix, const struct kure_quantizer *q)
{
    char name[64];
#define COLUMN(key) (snprintf(name, sizeof name, "%s_" key, prefix), name)
    kure_table_set_integer(table, COLUMN("bits"), q->bits);
    if (q->bits == 0) return;
    kure_table_set_real(table, COLUMN("step_ratio"), q->step_ratio);
    kure_table_set_text(table, COLUMN("rounding"), kure_rounding_text((int)q->rounding).name);
    kure_table_set_text(table, COLUMN("truncation"), kure_policy_text((int)q->truncation).name);
    if (q->truncation_value != 0) kure_table_set_real(table, COLUMN("truncation_value"), q->truncation_value);
    kure_table_set_text(table, COLUMN("granularity"), kure_granularity_name(q->granularity));
    kure_table_set_text(table, COLUMN("grid"), kure_grid_name(q->grid));
    kure_table_set_integer(table, COLUMN("symmetric"), q->symmetric);
    kure_table_set_text(table, COLUMN("step"), kure_step_name(q->step));
#undef COLUMN
}

static void add_row(struct kure_table *table, const struct kure_point *p, struct kure_accuracy a, double sqnr, double seconds)
{
    kure_table_add_row(table);
    kure_table_set_real(table, "top1", a.top1);
    kure_table_set_real(table, "top5", a.top5);
    kure_table_set_real(table, "seconds", seconds);
    set_quantizer(table, "weight", &p->weights);
    set_quantizer(table, "activation", &p->activations);
    if (p->weights.bits == 0 && p->activations.bits == 0) return;
    if (p->weights.bits) kure_table_set_text(table, "batchnorm", p->fold ? "fold" : "train");
    kure_table_set_integer(table, "first_bits", p->first_bits);
    kure_table_set_integer(table, "last_bits", p->last_bits);
    if (!isnan(sqnr)) kure_table_set_real(table, "weight_sqnr", sqnr);
}

/* The quantizers of the layers in the middle, which carry the section's own bits. */
static const struct kure_plan_row *inner_row(const struct kure_plan *plan)
{
    const struct kure_plan_row *any = &plan->rows[0];
    for (int i = 0; i < plan->count; ++i) {
        const struct kure_plan_row *row = &plan->rows[i];
        if (!row->weight.bits && !row->after.bits) continue;
        if (!row->reads_input && !row->reaches_head) return row;
        any = row;
    }
    return any;
}

/* As [quantization] of the cfg says. */
static void evaluate_simulated(network *net, struct kure_images *images, struct kure_table *table)
{
    const struct kure_plan *plan = &((const struct kure_network *)net->kure)->plan;
    const struct kure_plan_row *row = inner_row(plan);
    const struct kure_quantization_options *o = &plan->quantization;
    struct kure_point point = {.weights = row->weight, .activations = row->after, .fold = o->batchnorm != KURE_BATCHNORM_TRAIN, .first_bits = (int)o->first_bits,
                               .last_bits = (int)o->last_bits};
    struct kure_progress progress;
    double start = kure_seconds();
    kure_progress_start(&progress, "images", images->count);
    struct kure_accuracy accuracy = kure_classify(net, images, count_images, &progress);
    add_row(table, &point, accuracy, NAN, kure_seconds() - start);
    kure_progress_end(&progress);
}

static int has_activations(const struct kure_points *points)
{
    for (int i = 0; i < kure_points_count(points); ++i) {
        if (kure_points_get(points, i).activations.bits) return 1;
    }
    return 0;
}

/* drawn [out]: how many images there were */
static struct kure_calibration *calibrate(network *net, struct kure_ptq *ptq, const struct request *r, int *drawn)
{
    struct kure_images *images = kure_images_sample(net, r->data, r->calibration_images, r->seed, "--calibration-images");
    struct kure_progress progress;
    *drawn = images->count;
    kure_progress_start(&progress, "calibration images", images->count);
    struct kure_calibration *calibration = kure_calibrate(ptq, images, count_images, &progress);
    kure_progress_end(&progress);
    kure_images_free(images);
    return calibration;
}

static void evaluate_points(network *net, struct kure_images *images, const struct request *r, struct kure_table *table)
{
    int count = r->points.given ? kure_points_count(&r->points) : 1, calibration_images = 0;
    struct kure_ptq *ptq = kure_ptq_begin(net);
    for (int i = 0; r->points.given && i < count; ++i) {
        struct kure_point point = kure_points_get(&r->points, i);
        kure_ptq_check(ptq, &point); /* before hours of work, not after */
    }
    struct kure_calibration *calibration = r->points.given && has_activations(&r->points) ? calibrate(net, ptq, r, &calibration_images) : NULL;
    struct kure_images *bn_images = r->bn_images ? kure_images_sample(net, r->data, r->bn_images, r->seed, "--bn-images") : NULL;
    if (r->points.given) kure_report_float_layers(net);
    struct kure_progress progress;
    kure_progress_start(&progress, "images", (long long)count * (images->count + r->bn_images));
    for (int i = 0; i < count; ++i) {
        double start = kure_seconds();
        struct kure_point point = {0};
        if (r->points.given) point = kure_points_get(&r->points, i);
        double sqnr = kure_ptq_set(ptq, &point, calibration);
        if (bn_images) sqnr = kure_ptq_reestimate(ptq, bn_images, count_images, &progress);
        struct kure_accuracy accuracy = kure_classify(net, images, count_images, &progress);
        add_row(table, &point, accuracy, sqnr, kure_seconds() - start);
        if (point.activations.bits) kure_table_set_integer(table, "calibration_images", calibration_images);
        kure_table_set_integer(table, "bn_images", r->bn_images);
    }
    kure_progress_end(&progress);
    if (bn_images) kure_images_free(bn_images);
    kure_calibration_free(calibration);
    kure_ptq_free(ptq);
}

static int check_request(const struct request *r)
{
    if (kure_points_count(&r->points) > KURE_MOST_POINTS) return kure_usage_error("eval", "more than %d combinations", KURE_MOST_POINTS);
    struct kure_error error;
    if (kure_points_check(&r->points, &error) != KURE_OK) return kure_usage_error("eval", "%s", error.text);
    if (r->simulate && (r->points.given || r->calibration_images || r->bn_images)) {
        return kure_usage_error("eval", "--simulate takes quantizers, ranges and batch norm as they were trained: leave other options of them out");
    }
    if (r->calibration_images && !(r->points.given && has_activations(&r->points))) {
        return kure_usage_error("eval", "--calibration-images %d: no activations are quantized: say --activation-bits", r->calibration_images);
    }
    if (r->seed_given && !r->bn_images && !(r->points.given && has_activations(&r->points))) {
        return kure_usage_error("eval", "--seed: nothing is drawn: no activations are quantized, and no --bn-images");
    }
    const struct kure_output_option outputs[] = {{"--csv", r->csv}, {"--json", r->json}};
    return kure_check_outputs("eval", outputs, 2, (const char *const[]){r->cfg, r->weights, r->data, NULL});
}

/* -1: go on; else the exit status. */
static int parse_options(int argc, char **argv, struct request *r)
{
    struct option options[KURE_POINT_NAMES + 12];
    char names[KURE_POINT_NAMES][32];
    int n = 0;
    for (; kure_point_key(n); ++n) {
        snprintf(names[n], sizeof names[n], "%s", kure_point_key(n));
        for (char *p = names[n]; *p; ++p) *p = *p == '_' ? '-' : *p;
        options[n] = (struct option){names[n], required_argument, NULL, 1};
    }
    static const struct option others[] = {{"quantize", required_argument, NULL, 'q'}, {"images", required_argument, NULL, 'i'},
                                           {"threads", required_argument, NULL, 't'},  {"simulate", no_argument, NULL, 's'},
                                           {"calibration-images", required_argument, NULL, 'c'}, {"bn-images", required_argument, NULL, 'b'},
                                           {"seed", required_argument, NULL, 'e'},     {"csv", required_argument, NULL, 'v'},
                                           {"json", required_argument, NULL, 'j'},     {"help", no_argument, NULL, 'h'},
                                           {NULL, 0, NULL, 0}};
    memcpy(options + n, others, sizeof others);
    int c, which = 0;
    while ((c = getopt_long(argc, argv, "h", options, &which)) != -1) {
        struct kure_error error;
        enum kure_status status = KURE_OK;
        if (c == 'h') return fputs(help, stdout), 0;
        else if (c == 'v') r->csv = optarg;
        else if (c == 'j') r->json = optarg;
        else if (c == 's') r->simulate = 1;
        else if (c == 'q') status = kure_points_parse(&r->points, optarg, &error);
        else if (c == 1) status = kure_points_set_option(&r->points, options[which].name, optarg, &error);
        else if (c == 'i' && !(r->images = kure_parse_count(optarg, 999999999))) return kure_usage_error("eval", "--images %s: must be a positive integer", optarg);
        else if (c == 'c' && !(r->calibration_images = kure_parse_count(optarg, 999999999))) return kure_usage_error("eval", "--calibration-images %s: must be a positive integer", optarg);
        else if (c == 'b' && !(r->bn_images = kure_parse_count(optarg, 999999999))) return kure_usage_error("eval", "--bn-images %s: must be a positive integer", optarg);
        else if (c == 'e' && (r->seed_given = 1) && !kure_parse_seed(optarg, &r->seed)) return kure_usage_error("eval", "--seed %s: must be an integer from 0 on", optarg);
        else if (c == 't' && !(r->threads = kure_parse_count(optarg, MOST_THREADS))) return kure_usage_error("eval", "--threads %s: must be an integer from 1 to %d", optarg, MOST_THREADS);
        else if (c == '?') return kure_usage_error("eval", "wrong option");
        if (status != KURE_OK) return kure_usage_error("eval", "%s", error.text);
    }
    int status = kure_check_arguments("eval", argc - optind, "CFG WEIGHTS DATA", 3);
    if (status) return status;
    r->cfg = argv[optind];
    r->weights = argv[optind + 1];
    r->data = argv[optind + 2];
    status = check_request(r);
    return status ? status : -1;
}

int kure_command_eval(int argc, char **argv)
{
    struct request r = {0};
    int status = parse_options(argc, argv, &r);
    if (status >= 0) return status;
#ifdef _OPENMP
    if (r.threads) omp_set_num_threads(r.threads);
#else
    if (r.threads > 1) return kure_usage_error("eval", "--threads %d: this build has OPENMP=0", r.threads);
#endif
    network *net = kure_network_load(r.cfg, r.weights);
    struct kure_network *k = net->kure;
    if (r.simulate && !k->plan.quantizers) {
        fprintf(stderr, "%s: has no [quantization] and no [quantize] to simulate\n", r.cfg);
        return 1;
    }
    struct kure_images *images = kure_images_load(net, r.data, r.images);
    struct kure_table table;
    struct kure_error error;
    kure_table_init(&table, "kure.eval/1", columns, sizeof columns / sizeof columns[0]);
    memcpy(table.plan, ((struct kure_network *)net->kure)->plan.hash, sizeof table.plan);
    if (kure_hash_file(r.weights, table.model, &error) != KURE_OK) kure_stop(&error);
    if (r.simulate) evaluate_simulated(net, images, &table);
    else evaluate_points(net, images, &r, &table);
    kure_table_print(&table, stdout);
    status = kure_write_tables(&table, r.csv, r.json);
    kure_table_free(&table);
    kure_images_free(images);
    kure_points_free(&r.points);
    free_network(net);
    return status;
}
