/* evaluation.c: see evaluation.h. */
#define _GNU_SOURCE
#include "evaluation.h"

#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "error.h"
#include "progress.h"

const struct kure_column kure_evaluation_columns[] = {
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
    {"bn_images", KURE_CELL_INTEGER, NULL},         {"bias_images", KURE_CELL_INTEGER, NULL},
    {"lapq_images", KURE_CELL_INTEGER, NULL},       {"equalized", KURE_CELL_INTEGER, NULL},         {"threshold", KURE_CELL_REAL, "%g"},
#define KURE_MEASURE(value, column, name, format) {column, KURE_CELL_REAL, format},
#include "measures.def"
#undef KURE_MEASURE
    {"weight_sqnr", KURE_CELL_REAL, "%.2f"},
    {"seconds", KURE_CELL_REAL, "%.2f"},
};
const int kure_evaluation_column_count = sizeof kure_evaluation_columns / sizeof kure_evaluation_columns[0];

#define KURE_MEASURE(value, column, name, format) column " "
const char kure_evaluation_results[] = " point "
#include "measures.def"
                                       "weight_sqnr seconds ";
#undef KURE_MEASURE

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

void kure_evaluation_set(struct kure_table *table, const struct kure_point *p, const struct kure_result *r)
{
    for (int i = 0; i < KURE_MEASURES; ++i) kure_table_set_real(table, kure_measure_text(i).column, r->measure.value[i]);
    if (r->threshold > 0) kure_table_set_real(table, "threshold", r->threshold);
    kure_table_set_real(table, "seconds", r->seconds);
    set_quantizer(table, "weight", &p->weights);
    set_quantizer(table, "activation", &p->activations);
    if (p->weights.bits == 0 && p->activations.bits == 0) return;
    if (p->weights.bits) kure_table_set_text(table, "batchnorm", p->fold ? "fold" : "train");
    kure_table_set_integer(table, "first_bits", p->first_bits);
    kure_table_set_integer(table, "last_bits", p->last_bits);
    if (!isnan(r->sqnr)) kure_table_set_real(table, "weight_sqnr", r->sqnr);
}

static int count_of(const struct kure_images *images)
{
    return images ? images->count : 0;
}

void kure_evaluation_set_images(const struct kure_evaluation *e, const struct kure_point *point, struct kure_table *table)
{
    if (point->activations.bits) kure_table_set_integer(table, "calibration_images", e->calibration_images);
    kure_table_set_integer(table, "bn_images", count_of(e->bn_images));
    kure_table_set_integer(table, "bias_images", count_of(e->bias_images));
    kure_table_set_integer(table, "lapq_images", count_of(e->lapq_images));
    kure_table_set_integer(table, "equalized", e->request->equalize);
    if (!e->lapq) return;
    if (point->weights.bits) kure_table_set_text(table, "weight_truncation", "lapq");
    if (point->activations.bits) kure_table_set_text(table, "activation_truncation", "lapq");
}

void kure_evaluation_say_defaults(const struct kure_evaluation_request *r)
{
    if (!kure_points_has(&r->points, "activation_bits") || kure_points_has(&r->points, "weight_bits")) return;
    fflush(stdout);
    fprintf(stderr, "the weights have 8 bits, since --weight-bits was not given; --weight-bits 0 leaves them float\n");
}

/* ---- the work ------------------------------------------------------------------------ */

static int quantizes_activations(const struct kure_points *points)
{
    for (int i = 0; points->given && i < kure_points_count(points); ++i) {
        if (kure_points_get(points, i).activations.bits) return 1;
    }
    return 0;
}

static void count_images(void *progress, int n)
{
    kure_progress_add(progress, n);
}

static void calibrate(struct kure_evaluation *e)
{
    struct kure_progress progress;
    kure_progress_start(&progress, "calibration images", e->calibration_images);
    e->calibration = kure_calibrate(e->ptq, e->calibrating, count_images, &progress);
    kure_progress_end(&progress);
    kure_images_free(e->calibrating);
    e->calibrating = NULL;
}

static void look_at_float(struct kure_evaluation *e)
{
    struct kure_progress progress;
    kure_progress_start(&progress, "images of the float network", e->bias_images->count);
    e->correction = kure_correction_begin(e->ptq, e->bias_images, count_images, &progress);
    kure_progress_end(&progress);
}

long long kure_evaluation_images(const struct kure_evaluation *e)
{
    return e->images->count + count_of(e->bn_images) + (long long)kure_correction_passes(e->ptq) * count_of(e->bias_images) +
           (e->lapq ? (long long)kure_lapq_passes(e->ptq) * count_of(e->lapq_images) : 0);
}

void kure_evaluation_describe(const struct kure_evaluation *e, FILE *out)
{
    const struct kure_images *const lists[] = {e->images, e->calibrating, e->bn_images, e->bias_images, e->lapq_images};
    for (int i = 0; i < 5; ++i) {
        if (lists[i]) kure_images_describe(lists[i], out);
    }
}

/* Of the training list, for the option that asks for them. */
static struct kure_images *draw(const struct kure_evaluation *e, int count, const char *option, int once, int labelled)
{
    const struct kure_evaluation_request *r = e->request;
    struct kure_images *images = kure_images_sample(e->net, r->data, count, r->seed, option);
    images->once = once;
    if (labelled) kure_images_label(images, e->net, r->data);
    kure_images_check(e->net, images, r->skip_bad);
    return images;
}

void kure_evaluation_load(struct kure_evaluation *e, const struct kure_evaluation_request *r, network *net)
{
    *e = (struct kure_evaluation){.request = r, .net = net, .images = kure_images_load(net, r->data, r->images)};
    kure_images_check(net, e->images, r->skip_bad);
    if (r->bn_images) e->bn_images = draw(e, r->bn_images, "--bn-images", 0, 0);
    if (r->bias_images) e->bias_images = draw(e, r->bias_images, "--bias-images", 0, 0);
    if (r->lapq_images) e->lapq_images = draw(e, r->lapq_images, "--lapq-images", 0, 1);
    if (!quantizes_activations(&r->points)) return;
    e->calibrating = draw(e, r->calibration_images, "--calibration-images", 1, 0);
    e->calibration_images = e->calibrating->count;
}

void kure_evaluation_begin(struct kure_evaluation *e)
{
    const struct kure_evaluation_request *r = e->request;
    network *net = e->net;
    if (r->equalize) kure_equalize(net, r->cfg);
    e->ptq = kure_ptq_begin(net);
    for (int i = 0; r->points.given && i < kure_points_count(&r->points); ++i) {
        struct kure_point point = kure_points_get(&r->points, i);
        kure_ptq_check(e->ptq, &point);
    }
    if (e->bias_images) look_at_float(e);
    if (e->lapq_images) e->lapq = kure_lapq_begin(net, e->lapq_images);
    if (e->calibrating) calibrate(e);
    if (r->points.given) kure_report_float_layers(net);
}

void kure_evaluation_end(struct kure_evaluation *e)
{
    kure_images_free(e->images);
    if (e->bn_images) kure_images_free(e->bn_images);
    if (e->bias_images) kure_images_free(e->bias_images);
    if (e->lapq_images) kure_images_free(e->lapq_images);
    kure_lapq_free(e->lapq);
    if (e->calibrating) kure_images_free(e->calibrating);
    kure_correction_free(e->correction, e->ptq);
    kure_calibration_free(e->calibration);
    if (e->ptq) kure_ptq_free(e->ptq);
    free_network(e->net);
}

double kure_evaluation_threshold(const struct kure_evaluation_request *r, const network *net)
{
    if (kure_detector_layer(net) < 0 && r->threshold > 0) kure_stop(&(struct kure_error){"--threshold: of a detector's scores, but the network is none"});
    if (kure_detector_layer(net) < 0) return 0;
    return r->threshold > 0 ? r->threshold : KURE_DEFAULT_THRESHOLD;
}

struct kure_result kure_evaluation_run(struct kure_evaluation *e, const struct kure_point *point, struct kure_measuring *detail, void (*done)(void *, int),
                                       void *context)
{
    double start = kure_seconds();
    struct kure_measuring how = detail ? *detail : (struct kure_measuring){0};
    struct kure_result result = {.threshold = kure_evaluation_threshold(e->request, e->net)};
    int quantized = point->weights.bits || point->activations.bits;
    if (e->lapq && quantized) result.sqnr = kure_lapq_set(e->lapq, e->ptq, point, e->calibration, done, context);
    else result.sqnr = kure_ptq_set(e->ptq, point, e->calibration);
    if (e->bn_images) result.sqnr = kure_ptq_reestimate(e->ptq, e->bn_images, done, context);
    if (e->correction) kure_correction_apply(e->correction, e->ptq, e->bias_images, done, context);
    how.threshold = result.threshold;
    how.done = done;
    how.context = context;
    result.measure = kure_measure(e->net, e->images, &how);
    result.seconds = kure_seconds() - start;
    return result;
}

/* ---- the command line ---------------------------------------------------------------- */

/* LAPQ takes the place of the truncation policies, and moves steps of up to 8 bits freely. */
static enum kure_status check_lapq(const struct kure_points *points, struct kure_error *error)
{
    static const char *const keys[] = {"weight_truncation", "weight_truncation_value", "activation_truncation", "activation_truncation_value"};
    if (!points->given) return kure_fail(error, KURE_ERROR_INPUT, "--lapq-images: nothing is quantized");
    for (int i = 0; i < 4; ++i) {
        if (kure_points_has(points, keys[i])) return kure_fail(error, KURE_ERROR_INPUT, "--lapq-images: LAPQ finds the steps itself: leave %s out", keys[i]);
    }
    for (int i = 0; i < kure_points_count(points); ++i) {
        const struct kure_point p = kure_points_get(points, i);
        const struct kure_quantizer *const quantizers[] = {&p.weights, &p.activations};
        for (int j = 0; j < 2; ++j) {
            if (!quantizers[j]->bits) continue;
            if (quantizers[j]->step != KURE_STEP_FREE) {
                return kure_fail(error, KURE_ERROR_INPUT, "--lapq-images: LAPQ moves steps freely: step=power_of_two does not go with it");
            }
            if (quantizers[j]->bits > 8 || p.first_bits > 8 || p.last_bits > 8) {
                return kure_fail(error, KURE_ERROR_INPUT, "--lapq-images: LAPQ serves 2 to 8 bits");
            }
        }
    }
    return KURE_OK;
}

static int check_outputs(const char *command, const struct kure_evaluation_request *r)
{
#ifndef _OPENMP
    if (r->threads > 1) return kure_usage_error(command, "--threads %d: this build has OPENMP=0", r->threads);
#endif
    char cfg[4400], weights[4400];
    snprintf(cfg, sizeof cfg, "%s.cfg", r->save ? r->save : "");
    snprintf(weights, sizeof weights, "%s.weights", r->save ? r->save : "");
    const struct kure_output_option outputs[] = {{"--csv", r->csv}, {"--json", r->json}, {"--detections", r->detections},
                                                 {"--save", r->save ? cfg : NULL}, {"--save", r->save ? weights : NULL}};
    int rows = r->points.given ? kure_points_count(&r->points) : 1;
    if (r->detections && rows > 1) return kure_usage_error(command, "--detections %s: takes one row, not %d", r->detections, rows);
    return kure_check_outputs(command, outputs, 5, (const char *const[]){r->cfg, r->weights, r->data, NULL});
}

/* An integer model is made as export makes it. */
static int check_integer(const char *command, const struct kure_evaluation_request *r)
{
    if (r->simulate) return kure_usage_error(command, "--integer and --simulate contradict each other: say one");
    if (r->bn_images || r->bias_images || r->lapq_images || r->equalize) {
        return kure_usage_error(command, "--integer takes a network as export does: --bn-images, --bias-images, --lapq-images and --equalize refine it before: save "
                                         "that with --save NAME instead of --integer, then evaluate NAME.cfg NAME.weights");
    }
    return check_outputs(command, r);
}

static int check_request(const char *command, const struct kure_evaluation_request *r)
{
    struct kure_error error;
    int status = kure_evaluation_check_save(command, r);
    if (status >= 0) return status;
    if (r->integer) return check_integer(command, r);
    if (r->profile) return kure_usage_error(command, "--profile %s: is the target of --integer: say that too, or leave it out", r->profile);
    if (kure_points_count(&r->points) > KURE_MOST_POINTS) return kure_usage_error(command, "more than %d combinations", KURE_MOST_POINTS);
    if (kure_points_check(&r->points, &error) != KURE_OK) return kure_usage_error(command, "%s", error.text);
    int activations = quantizes_activations(&r->points);
    if (r->simulate && (r->points.given || r->calibration_images || r->bn_images || r->bias_images || r->lapq_images || r->equalize)) {
        return kure_usage_error(command, "--simulate takes quantizers, ranges and batch norm as they were trained: leave other options of them out");
    }
    if (r->calibration_images && !activations) {
        return kure_usage_error(command, "--calibration-images %d: no activations are quantized: say --activation-bits", r->calibration_images);
    }
    if (r->seed_given && !r->bn_images && !r->bias_images && !r->lapq_images && !activations) {
        return kure_usage_error(command, "--seed: nothing is drawn: no activations are quantized, and no --bn-images, --bias-images or --lapq-images");
    }
    if (r->bias_images && !r->points.given) return kure_usage_error(command, "--bias-images %d: nothing is quantized", r->bias_images);
    if (r->lapq_images && check_lapq(&r->points, &error) != KURE_OK) return kure_usage_error(command, "%s", error.text);
    return check_outputs(command, r);
}

/* "2/5": the second of five parts */
static int parse_shard(const char *text, struct kure_evaluation_request *r)
{
    char rest;
    return sscanf(text, "%d/%d%c", &r->shard, &r->shards, &rest) == 2 && r->shard >= 1 && r->shard <= r->shards && r->shards <= KURE_MOST_POINTS;
}

/* Above `from`, below `to`. */
static int parse_real(const char *text, double from, double to, double *x)
{
    char *end;
    *x = strtod(text, &end);
    return end != text && !*end && *x > from && *x < to;
}

static const struct option eval_options[] = {{"simulate", no_argument, NULL, 's'}, {"integer", no_argument, NULL, 'n'},
                                             {"profile", required_argument, NULL, 'f'}, {"detections", required_argument, NULL, 'x'},
                                             {"save", required_argument, NULL, 'o'}, {NULL, 0, NULL, 0}};
static const struct option sweep_options[] = {{"shard", required_argument, NULL, 'd'}, {"jobs", required_argument, NULL, 'w'}, {NULL, 0, NULL, 0}};
static const struct option sensitivity_options[] = {{"suggest", required_argument, NULL, 'g'}, {NULL, 0, NULL, 0}};
static const struct option *const own_options[] = {eval_options, sweep_options, sensitivity_options};
static const struct option common_options[] = {
    {"quantize", required_argument, NULL, 'q'},  {"images", required_argument, NULL, 'i'}, {"threads", required_argument, NULL, 't'},
    {"calibration-images", required_argument, NULL, 'c'}, {"bn-images", required_argument, NULL, 'b'}, {"bias-images", required_argument, NULL, 'a'},
    {"lapq-images", required_argument, NULL, 'p'}, {"seed", required_argument, NULL, 'e'}, {"equalize", no_argument, NULL, 'z'},
    {"skip-bad", no_argument, NULL, 'k'},        {"long", no_argument, NULL, 'l'},            {"csv", required_argument, NULL, 'v'},
    {"json", required_argument, NULL, 'j'},      {"threshold", required_argument, NULL, 'r'}, {"help", no_argument, NULL, 'h'},            {NULL, 0, NULL, 0}};
enum { COMMON = sizeof common_options / sizeof common_options[0] };

static int print_help(const char *const *help)
{
    for (; *help; ++help) fputs(*help, stdout);
    return 0;
}

int kure_evaluation_parse(int argc, char **argv, const char *const *help, enum kure_evaluation_kind kind, struct kure_evaluation_request *r)
{
    struct option options[KURE_POINT_NAMES + COMMON + 5];
    char names[KURE_POINT_NAMES][32];
    const char *command = argv[0];
    int n = kure_point_options(options, names), c, which = 0;
    for (const struct option *o = own_options[kind]; o->name; ++o) options[n++] = *o;
    memcpy(options + n, common_options, sizeof common_options);
    while ((c = getopt_long(argc, argv, ":h", options, &which)) != -1) {
        struct kure_error error;
        enum kure_status status = KURE_OK;
        const char *name = c == '?' || c == ':' ? "" : options[which].name;
        int *counts[] = {['i'] = &r->images, ['t'] = &r->threads, ['c'] = &r->calibration_images, ['b'] = &r->bn_images, ['a'] = &r->bias_images, ['p'] = &r->lapq_images, ['w'] = &r->jobs};
        switch (c) {
        case 'h': return print_help(help);
        case 'v': r->csv = optarg; break;
        case 'j': r->json = optarg; break;
        case 's': r->simulate = 1; break;
        case 'n': r->integer = 1; break;
        case 'f': r->profile = optarg; break;
        case 'o': r->save = optarg; break;
        case 'x': r->detections = optarg; break;
        case 'r':
            if (!parse_real(optarg, 0, 1, &r->threshold)) return kure_usage_error(command, "--threshold %s: must be a number above 0 and below 1", optarg);
            break;
        case 'z': r->equalize = 1; break;
        case 'k': r->skip_bad = 1; break;
        case 'l': r->lasting = 1; break;
        case 'q': status = kure_points_parse(&r->points, optarg, &error); break;
        case 1: status = kure_points_set_option(&r->points, name, optarg, &error); break;
        case 'e':
            r->seed_given = 1;
            if (!kure_parse_seed(optarg, &r->seed)) return kure_usage_error(command, "--seed %s: must be an integer from 0 on", optarg);
            break;
        case 'd':
            if (!parse_shard(optarg, r)) return kure_usage_error(command, "--shard %s: must be i/n with i from 1 to n", optarg);
            break;
        case 'g':
            if (!parse_real(optarg, 1, 17, &r->suggest)) return kure_usage_error(command, "--suggest %s: must be a number of bits from 2 to 16", optarg);
            break;
        case '?':
        case ':': return kure_wrong_option(command, c, argv, options);
        default:
            if (!(*counts[c] = kure_take_count(command, name, optarg, c == 't' || c == 'w' ? KURE_MOST_THREADS : KURE_MOST_COUNT))) return 2;
        }
        if (status != KURE_OK) return kure_usage_error(command, "%s", error.text);
    }
    int status = kure_check_arguments(command, argc - optind, "CFG WEIGHTS DATA", 3);
    if (status) return status;
    r->cfg = argv[optind];
    r->weights = argv[optind + 1];
    r->data = argv[optind + 2];
    status = check_request(command, r);
    if (status) return status;
#ifdef _OPENMP
    if (r->threads) omp_set_num_threads(r->threads);
#endif
    return -1;
}
