/* calibrate.c: `darknet kure calibrate CFG WEIGHTS DATA`: ranges of activations, from images. */
#define _GNU_SOURCE
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "command.h"
#include "interrupt.h"
#include "points.h"
#include "progress.h"

static const char help[] =
    "usage: darknet kure calibrate CFG WEIGHTS DATA [options]\n\n"
    "Runs the float network over images of DATA's training list and reports, wherever a\n"
    "quantizer sits, what it sees and what a truncation policy makes of it. Memory does not\n"
    "grow with the images. Where CFG has [quantization], its ranges are written to\n"
    "WEIGHTS.kure, for eval --simulate; without it there is only the report, at 8 bits.\n\n"
    "  --images N                     images drawn from the list (default 256, or all)\n"
    "  --seed N                       which ones (default 0)\n"
    "  --activation-truncation LIST   policies to report: minmax, ema, percentile, mse, kl,\n"
    "                                 gauss, laplace, lp, sigma, fixed; default: as in CFG\n"
    "  --activation-truncation-value X   the percentile, p, k or bound that they need\n"
    "  --activation-bits N, --activation-step, --activation-grid, --activation-symmetric,\n"
    "  --activation-step-ratio, --activation-rounding   for the report; default: as in CFG\n"
    "  --quantize KEY=VALUE,...       the same keys in one option\n"
    "  --report                       only report, write nothing to WEIGHTS.kure\n"
    "  --skip-bad                     leave out images that cannot be read, and say how many\n"
    "  --replace                      write over ranges that a training has left there\n"
    "  --threads N                    processor threads (default: all)\n"
    "  --csv FILE, --json FILE        write the table\n"
    "  --help                         this text\n\n"
    "outlier: the largest magnitude over that which 99.99 % of the values keep below;\n"
    "clipped: percent of the values beyond the range; sqnr: signal to quantization noise, dB.\n";

static const struct kure_column columns[] = {
    {"layer", KURE_CELL_INTEGER, NULL},   {"type", KURE_CELL_TEXT, NULL},       {"place", KURE_CELL_TEXT, NULL},
    {"n", KURE_CELL_INTEGER, NULL},       {"zeros", KURE_CELL_REAL, "%.1f"},    {"mean", KURE_CELL_REAL, "%.4g"},
    {"std", KURE_CELL_REAL, "%.4g"},      {"min", KURE_CELL_REAL, "%.4g"},      {"max", KURE_CELL_REAL, "%.4g"},
    {"outlier", KURE_CELL_REAL, "%.2f"},  {"bits", KURE_CELL_INTEGER, NULL},    {"truncation", KURE_CELL_TEXT, NULL},
    {"low", KURE_CELL_REAL, "%.4g"},      {"high", KURE_CELL_REAL, "%.4g"},     {"step", KURE_CELL_REAL, "%.6g"},
    {"zero_point", KURE_CELL_INTEGER, NULL}, {"clipped", KURE_CELL_REAL, "%.4f"}, {"sqnr", KURE_CELL_REAL, "%.2f"},
};

static const double FAR = 4; /* outliers worth a sentence of their own */

struct request {
    const char *csv, *json, *cfg, *weights, *data;
    struct kure_points points;
    int images, threads, report, replace, skip_bad;
    uint64_t seed;
};

static void count_images(void *progress, int n)
{
    kure_progress_add(progress, n);
}

/* ---- the report ------------------------------------------------------------------ */

static void stop_at(const struct kure_plan_row *row, const struct kure_error *reason)
{
    struct kure_error error;
    snprintf(error.text, sizeof error.text, "layer %d [%s]: %.900s", row->layer, row->type, reason->text);
    kure_stop(&error);
}

/* The largest magnitude over the 99.99th percentile of the magnitudes; 1 where all are 0. */
static double outlier_of(const struct kure_observer *o)
{
    const struct kure_quantizer q = {.bits = 8, .truncation = KURE_TRUNCATION_PERCENTILE, .truncation_value = 99.99, .step_ratio = 1,
                                     .grid = KURE_GRID_NARROW, .symmetric = 1};
    struct kure_scale scale;
    double most = fmax((double)o->max, -(double)o->min);
    if (kure_observer_scale(o, &q, &scale, NULL) != KURE_OK || scale.step == 0) return 1;
    return most / (127 * (double)scale.step);
}

static void add_row(struct kure_table *table, const struct kure_plan_row *row, const char *place, const struct kure_observer *o,
                    const struct kure_quantizer *q)
{
    struct kure_scale scale;
    struct kure_observed_error e;
    struct kure_error error;
    if (kure_observer_scale(o, q, &scale, &error) != KURE_OK) stop_at(row, &error);
    kure_observer_error(o, scale, q, &e);
    int half = 1 << (q->bits - 1), lowest = q->grid == KURE_GRID_NARROW ? 1 - half : -half;
    double offset = q->grid == KURE_GRID_MIDRISE ? 0.5 : 0;
    kure_table_add_row(table);
    kure_table_set_integer(table, "layer", row->layer);
    kure_table_set_text(table, "type", row->type);
    kure_table_set_text(table, "place", place);
    kure_table_set_integer(table, "n", (long long)o->n);
    kure_table_set_real(table, "zeros", 100 * (double)o->zeros / (double)o->n);
    kure_table_set_real(table, "mean", o->mean);
    kure_table_set_real(table, "std", sqrt(fmax(o->m2, 0)));
    kure_table_set_real(table, "min", (double)o->min);
    kure_table_set_real(table, "max", (double)o->max);
    kure_table_set_real(table, "outlier", outlier_of(o));
    kure_table_set_integer(table, "bits", q->bits);
    kure_table_set_text(table, "truncation", kure_policy_text((int)q->truncation).name);
    kure_table_set_real(table, "low", (double)scale.step * (lowest - scale.zero_point + offset));
    kure_table_set_real(table, "high", (double)scale.step * (half - 1 - scale.zero_point + offset));
    kure_table_set_real(table, "step", (double)scale.step);
    kure_table_set_integer(table, "zero_point", scale.zero_point);
    kure_table_set_real(table, "clipped", 100 * (e.below + e.above));
    kure_table_set_real(table, "sqnr", 10 * log10(e.signal / e.noise));
}

/* The quantizers to report at one place: the plan's, or those of the command line. */
static void add_place(struct kure_table *table, const struct request *r, const struct kure_plan_row *row, const char *place,
                      const struct kure_observer *o, const struct kure_quantizer *own)
{
    if (o->n == 0) return;
    if (!r->points.given) {
        add_row(table, row, place, o, own);
        return;
    }
    for (int i = 0; i < kure_points_count(&r->points); ++i) {
        struct kure_quantizer q = kure_points_activations(&r->points, i, own);
        if (row->reaches_head || !kure_points_has(&r->points, "activation_bits")) q.bits = own->bits;
        add_row(table, row, place, o, &q);
    }
}

static void say_outlier(const struct kure_plan_row *row, const char *place, const struct kure_observer *o)
{
    double times = outlier_of(o);
    if (o->n == 0 || times < FAR) return;
    fprintf(stderr, "layer %d [%s], %s: outliers: 99.99 %% of its values lie within %.3g, the farthest is %.1f times that: "
            "minmax and ema spend their codes on the rest; see percentile, mse and kl\n", row->layer, row->type, place,
            fmax((double)o->max, -(double)o->min) / times, times);
}

static int has_activations(const struct kure_plan *plan)
{
    for (int i = 0; i < plan->count; ++i) {
        if (plan->rows[i].after.bits) return 1;
    }
    return 0;
}

static void add_rows(struct kure_table *table, const struct request *r, const struct kure_calibration *c, const struct kure_plan *plan)
{
    static const struct kure_quantizer plain = {.bits = 8, .truncation = KURE_TRUNCATION_EMA, .step_ratio = 1, .grid = KURE_GRID_FULL};
    int quantizes = has_activations(plan);
    for (int i = 0; i < plan->count; ++i) {
        const struct kure_plan_row *row = &plan->rows[i];
        for (int spot = 0; spot < 3; ++spot) { /* before, after or boxes, scores */
            const struct kure_observer *o = kure_calibration_observer(c, i, spot > 0, spot == 2);
            const struct kure_quantizer *own = quantizes ? (spot ? &row->after : &row->before) : &plain;
            const char *place = spot == 0 ? "before" : spot == 2 ? "scores" : row->head_rows ? "boxes" : "after";
            if (!o || own->bits == 0) continue;
            add_place(table, r, row, place, o, own);
            say_outlier(row, place, o);
        }
    }
}

/* ---- the command line -------------------------------------------------------------- */

/* The keys among themselves, at 8 bits where the width is left to the cfg. */
static int check_points(const struct request *r)
{
    struct kure_error error;
    if (!r->points.given) return 0;
    if (kure_points_has(&r->points, "weight_bits")) return kure_usage_error("calibrate", "weight_bits: it looks at activations only");
    if (kure_points_count(&r->points) > KURE_MOST_POINTS) return kure_usage_error("calibrate", "more than %d combinations", KURE_MOST_POINTS);
    for (int i = 0; i < kure_points_count(&r->points); ++i) {
        struct kure_quantizer q = kure_points_get(&r->points, i).activations;
        if (!kure_points_has(&r->points, "activation_bits")) q.bits = 8;
        if (q.bits == 0) return kure_usage_error("calibrate", "activation_bits=0: must be from 2 to 16");
        if (kure_quantizer_check(&q, &error) != KURE_OK) return kure_usage_error("calibrate", "%s", error.text);
    }
    return 0;
}

/* -1: go on; else the exit status. */
static int parse_options(int argc, char **argv, struct request *r)
{
    static const char *const keys[] = {"truncation", "truncation-value", "bits", "step", "grid", "symmetric", "step-ratio", "rounding"};
    enum { KEYS = sizeof keys / sizeof keys[0] };
    struct option options[KEYS + 11];
    char names[KEYS][40];
    for (int i = 0; i < KEYS; ++i) {
        snprintf(names[i], sizeof names[i], "activation-%s", keys[i]);
        options[i] = (struct option){names[i], required_argument, NULL, 1};
    }
    static const struct option others[] = {{"quantize", required_argument, NULL, 'q'}, {"images", required_argument, NULL, 'i'},
                                           {"seed", required_argument, NULL, 'e'},     {"threads", required_argument, NULL, 't'},
                                           {"report", no_argument, NULL, 'r'},         {"replace", no_argument, NULL, 'p'},
                                           {"skip-bad", no_argument, NULL, 'k'},       {"csv", required_argument, NULL, 'v'},
                                           {"json", required_argument, NULL, 'j'},     {"help", no_argument, NULL, 'h'},
                                           {NULL, 0, NULL, 0}};
    memcpy(options + KEYS, others, sizeof others);
    int c, which = 0;
    while ((c = getopt_long(argc, argv, ":h", options, &which)) != -1) {
        struct kure_error error;
        enum kure_status status = KURE_OK;
        if (c == 'h') return fputs(help, stdout), 0;
        else if (c == 'v') r->csv = optarg;
        else if (c == 'j') r->json = optarg;
        else if (c == 'r') r->report = 1;
        else if (c == 'p') r->replace = 1;
        else if (c == 'k') r->skip_bad = 1;
        else if (c == 'q') status = kure_points_parse(&r->points, optarg, &error);
        else if (c == 1) status = kure_points_set_option(&r->points, options[which].name, optarg, &error);
        else if (c == 'i' && !(r->images = kure_take_count("calibrate", "images", optarg, KURE_MOST_COUNT))) return 2;
        else if (c == 't' && !(r->threads = kure_take_count("calibrate", "threads", optarg, KURE_MOST_THREADS))) return 2;
        else if (c == 'e' && !kure_parse_seed(optarg, &r->seed)) return kure_usage_error("calibrate", "--seed %s: must be an integer from 0 on", optarg);
        else if (c == '?' || c == ':') return kure_wrong_option("calibrate", c, argv, options);
        if (status != KURE_OK) return kure_usage_error("calibrate", "%s", error.text);
    }
    int status = kure_check_arguments("calibrate", argc - optind, "CFG WEIGHTS DATA", 3);
    if (!status) status = check_points(r);
    if (status) return status;
    r->cfg = argv[optind];
    r->weights = argv[optind + 1];
    r->data = argv[optind + 2];
    const struct kure_output_option outputs[] = {{"--csv", r->csv}, {"--json", r->json}};
    status = kure_check_outputs("calibrate", outputs, 2, (const char *const[]){r->cfg, r->weights, r->data, NULL});
    return status ? status : -1;
}

int kure_command_calibrate(int argc, char **argv)
{
    struct request r = {.csv = NULL};
    int status = parse_options(argc, argv, &r);
    if (status >= 0) return status;
#ifdef _OPENMP
    if (r.threads) omp_set_num_threads(r.threads);
#else
    if (r.threads > 1) return kure_usage_error("calibrate", "--threads %d: this build has OPENMP=0", r.threads);
#endif
    kure_interrupt_say("stopped: no ranges and no table are written");
    network *net = kure_network_load(r.cfg, r.weights);
    struct kure_network *k = net->kure;
    struct kure_plan plan = k->plan; /* the cfg's own; owned by k */
    int writes = has_activations(&plan) && !r.report;
    if (writes && !r.replace && k->trained && kure_simulation_is_ready(k)) {
        fprintf(stderr, "%s.kure holds the ranges of a training, which calibrated ones would change: add --report, or --replace\n", r.weights);
        return 1;
    }
    struct kure_images *images = kure_images_sample(net, r.data, r.images, r.seed, "--images");
    images->once = 1;
    kure_images_check(net, images, r.skip_bad);
    struct kure_ptq *ptq = kure_ptq_begin(net);
    struct kure_progress progress;
    kure_progress_start(&progress, "images", images->count);
    struct kure_calibration *calibration = kure_calibrate(ptq, images, count_images, &progress);
    kure_progress_end(&progress);
    struct kure_table table;
    struct kure_error error;
    kure_table_init(&table, "kure.calibrate/1", columns, sizeof columns / sizeof columns[0]);
    memcpy(table.plan, plan.hash, sizeof table.plan);
    if (kure_hash_file(r.weights, table.model, &error) != KURE_OK) kure_stop(&error);
    add_rows(&table, &r, calibration, &plan);
    kure_interrupt_hold(1); /* from here on it is written */
    kure_table_print(&table, stdout);
    fflush(stdout); /* before what stderr says of it */
    status = kure_write_tables(&table, r.csv, r.json);
    if (status == 0 && writes) {
        kure_calibration_save(ptq, calibration, r.weights);
        fprintf(stderr, "wrote the ranges of %d images, by the policies of %s, to %s.kure\n", images->count, r.cfg, r.weights);
    } else if (!has_activations(&plan)) {
        fprintf(stderr, "%s quantizes no activations: %s.kure is not written\n", r.cfg, r.weights);
    }
    kure_table_free(&table);
    kure_calibration_free(calibration);
    kure_ptq_free(ptq);
    kure_images_free(images);
    kure_points_free(&r.points);
    free_network(net);
    return status;
}
