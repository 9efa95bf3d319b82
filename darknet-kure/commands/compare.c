/* compare.c: `darknet kure compare CFG WEIGHTS DATA --profiles A,B`: two targets, code by code. */
#define _GNU_SOURCE
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "integer.h"
#include "interrupt.h"
#include "profiles.h"
#include "progress.h"
#ifdef _OPENMP
#include <omp.h>
#endif

static const char help[] =
    "usage: darknet kure compare CFG WEIGHTS DATA --profiles A,B [options]\n\n"
    "Makes the integer models of two targets, with the quantizers of each, runs both over\n"
    "images of DATA's validation list, and says for every layer how many of its values\n"
    "differ, in steps of the first one, and what becomes of top-1 or AP. Ranges are those of the\n"
    "training or of WEIGHTS.kure, else of a calibration with DATA.\n\n"
    "  --profiles A,B         onnx, tflite, tflite-single, cmsis, ncnn, tensorrt, pow2\n"
    "  --images N             the first N images of the validation list only\n"
    "  --calibration-images N of the training list, where ranges are missing (default 256)\n"
    "  --seed N               which ones (default 0)\n"
    "  --quantize KEY=VALUE,...   quantizer keys, for a CFG without [quantization]; or each by\n"
    "                         itself: --weight-bits 4 --weight-truncation mse ...\n"
    "  --threads N            processor threads (default: all)\n"
    "  --csv FILE, --json FILE   write the table\n"
    "  --help                 this text\n\n"
    "different: percent of the codes of layer N that differ, where both have one scale, else of\n"
    "the values that lie more than half a step of A apart; largest: in steps of A.\n";

static const struct kure_column columns[] = {
    {"layer", KURE_CELL_INTEGER, NULL}, {"type", KURE_CELL_TEXT, NULL}, {"part", KURE_CELL_TEXT, NULL}, {"scale_a", KURE_CELL_REAL, "%.6g"},
    {"scale_b", KURE_CELL_REAL, "%.6g"}, {"values", KURE_CELL_INTEGER, NULL}, {"different", KURE_CELL_REAL, "%.4f"}, {"largest", KURE_CELL_REAL, "%.2f"},
};

enum { MODELS = 2 };

struct request {
    struct kure_integer_request integer;
    const char *profiles, *csv, *json;
    char names[MODELS][KURE_INTEGER_NAME];
    int images, threads;
};

/* What a layer of the cfg is in both models. */
struct pair {
    int tensors[MODELS];
    uint64_t values, different;
    double largest;
};

struct comparison {
    struct kure_integer_model models[MODELS];
    struct kure_model opened[MODELS];
    struct pair *pairs; /* [count] */
    int count;
};

/* ---- layers that both have ------------------------------------------------------------- */

static int is_inner(const char *name) /* a raw sum, or an input of a route: of one model alone */
{
    return strstr(name, "_raw") || strstr(name, "_from_");
}

static void find_pairs(struct comparison *c)
{
    const struct kure_integer_model *a = &c->models[0], *b = &c->models[1];
    c->pairs = calloc((size_t)a->layer_count + 1, sizeof *c->pairs);
    if (!c->pairs) kure_stop(&(struct kure_error){"not enough memory"});
    for (int i = 0; i <= a->layer_count; ++i) {
        if (is_inner(a->tensors[i].name)) continue;
        for (int j = 0; j <= b->layer_count; ++j) {
            if (strcmp(a->tensors[i].name, b->tensors[j].name) == 0) c->pairs[c->count++] = (struct pair){.tensors = {i, j}};
        }
    }
}

static void count(const struct comparison *c, struct pair *p, const int8_t *x, const int8_t *y)
{
    const struct kure_integer_tensor *a = &c->models[0].tensors[p->tensors[0]], *b = &c->models[1].tensors[p->tensors[1]];
    int one_scale = kure_bits(a->scale) == kure_bits(b->scale) && a->zero_point == b->zero_point;
    size_t n = kure_integer_elements(a);
    for (size_t i = 0; i < n; ++i) {
        double apart = fabs((double)a->scale * (x[i] - a->zero_point) - (double)b->scale * (y[i] - b->zero_point)) / (double)a->scale;
        p->different += one_scale ? x[i] != y[i] : apart > 0.5;
        if (apart > p->largest) p->largest = apart;
    }
    p->values += n;
}

/* One image through both: every pair, right behind the layer that writes it. */
static void compare_image(struct comparison *c, struct pair *pairs, void *const arenas[MODELS], int8_t *const kept[MODELS], int8_t *input, const float *pixels)
{
    for (int m = 0; m < MODELS; ++m) {
        const struct kure_model *model = &c->opened[m];
        size_t at = 0;
        kure_runtime_quantize(model, pixels, input);
        if (kure_runtime_start(model, arenas[m], kure_runtime_arena_bytes(model), input) != KURE_RUNTIME_OK) return;
        for (uint32_t i = 0, p = 0; i <= model->layer_count; ++i) { /* pairs go up in both */
            if (i) kure_runtime_step(model, arenas[m], i - 1);
            for (; p < (uint32_t)c->count && pairs[p].tensors[m] == (int)i; ++p) {
                size_t n = kure_runtime_tensor(model, i).elements;
                memcpy(kept[m] + at, kure_runtime_codes(model, arenas[m], i), n);
                at += n;
            }
        }
    }
    size_t at = 0;
    for (int p = 0; p < c->count; ++p) {
        count(c, &pairs[p], kept[0] + at, kept[1] + at);
        at += kure_integer_elements(&c->models[0].tensors[pairs[p].tensors[0]]);
    }
}

static void merge(struct comparison *c, const struct pair *own)
{
    for (int p = 0; p < c->count; ++p) {
        c->pairs[p].values += own[p].values;
        c->pairs[p].different += own[p].different;
        if (own[p].largest > c->pairs[p].largest) c->pairs[p].largest = own[p].largest;
    }
}

static void compare_batch(void *context, network *net, float *pixels, int first, int count_)
{
    struct comparison *c = context;
    size_t inputs = (size_t)net->inputs, all = 0;
    (void)first;
    for (int p = 0; p < c->count; ++p) all += kure_integer_elements(&c->models[0].tensors[c->pairs[p].tensors[0]]);
#ifdef _OPENMP
#pragma omp parallel
#endif
    {
        void *arenas[MODELS] = {malloc(kure_runtime_arena_bytes(&c->opened[0])), malloc(kure_runtime_arena_bytes(&c->opened[1]))};
        int8_t *kept[MODELS] = {malloc(all), malloc(all)}, *input = malloc(inputs);
        struct pair *own = malloc((size_t)c->count * sizeof *own);
        int ok = arenas[0] && arenas[1] && kept[0] && kept[1] && input && own;
        if (!ok) kure_stop(&(struct kure_error){"not enough memory for the activations of two integer models"});
        for (int p = 0; p < c->count; ++p) own[p] = (struct pair){.tensors = {c->pairs[p].tensors[0], c->pairs[p].tensors[1]}};
#ifdef _OPENMP
#pragma omp for schedule(dynamic)
#endif
        for (int i = 0; i < count_; ++i) compare_image(c, own, arenas, kept, input, pixels + (size_t)i * inputs);
#ifdef _OPENMP
#pragma omp critical
#endif
        merge(c, own);
        for (int m = 0; m < MODELS; ++m) {
            free(arenas[m]);
            free(kept[m]);
        }
        free(input);
        free(own);
    }
}

/* ---- the table ------------------------------------------------------------------------------ */

static void add_pair(struct kure_table *table, const struct comparison *c, const struct kure_plan *plan, const struct pair *p)
{
    const struct kure_integer_tensor *a = &c->models[0].tensors[p->tensors[0]], *b = &c->models[1].tensors[p->tensors[1]];
    kure_table_add_row(table);
    if (a->source >= 0) kure_table_set_integer(table, "layer", a->source);
    kure_table_set_text(table, "type", a->source < 0 ? "input" : plan->rows[a->source].type);
    kure_table_set_text(table, "part", strstr(a->name, "_boxes") ? "boxes" : strstr(a->name, "_scores") ? "scores" : "");
    kure_table_set_real(table, "scale_a", (double)a->scale);
    kure_table_set_real(table, "scale_b", (double)b->scale);
    kure_table_set_integer(table, "values", (long long)p->values);
    kure_table_set_real(table, "different", 100. * (double)p->different / (double)p->values);
    kure_table_set_real(table, "largest", p->largest);
}

static void count_images(void *progress, int n)
{
    kure_progress_add(progress, n);
}

static int run(const struct request *r, struct kure_integer_source *source)
{
    struct comparison c = {.count = 0};
    struct kure_network_view views[MODELS];
    struct kure_measure measures[MODELS];
    char said[256];
    struct kure_table table;
    struct kure_error error;
    struct kure_progress progress;
    struct kure_images *images = kure_images_load(source->net, r->integer.data, r->images);
    kure_images_check(source->net, images, 0);
    const struct kure_plan *plan = &((const struct kure_network *)source->net->kure)->plan;
    kure_progress_start(&progress, "images", (MODELS + 1) * images->count);
    for (int m = 0; m < MODELS; ++m) {
        kure_integer_make(source, r->names[m], 1, &views[m], &c.models[m]);
        if (kure_runtime_open(&c.opened[m], c.models[m].file, c.models[m].file_bytes, NULL) != KURE_RUNTIME_OK) {
            kure_stop(&(struct kure_error){"the model is damaged"});
        }
        struct kure_measuring how = {.threshold = KURE_DEFAULT_THRESHOLD, .done = count_images, .context = &progress};
        measures[m] = kure_integer_measure(&c.models[m], source->net, images, &how);
    }
    find_pairs(&c);
    kure_images_each(source->net, images, compare_batch, &c);
    kure_progress_end(&progress);
    kure_table_init(&table, "kure.compare/1", columns, sizeof columns / sizeof columns[0]);
    memcpy(table.plan, plan->hash, sizeof table.plan);
    if (kure_hash_file(r->integer.weights, table.model, &error) != KURE_OK) kure_stop(&error);
    for (int p = 0; p < c.count; ++p) add_pair(&table, &c, plan, &c.pairs[p]);
    kure_interrupt_hold(1);
    kure_table_print(&table, stdout);
    for (int m = 0; m < MODELS; ++m) {
        kure_measure_describe(&measures[m], said, sizeof said);
        printf("%s: %s\n", r->names[m], said);
    }
    int main = kure_main_measure(source->net);
    printf("%s less %s: %+.2f points of %s on %d images\n", r->names[0], r->names[1], measures[0].value[main] - measures[1].value[main],
           kure_measure_text(main).name, images->count);
    int status = kure_write_tables(&table, r->csv, r->json);
    kure_table_free(&table);
    for (int m = 0; m < MODELS; ++m) {
        kure_integer_free(&c.models[m]);
        kure_export_view_free(&views[m]);
    }
    free(c.pairs);
    kure_images_free(images);
    return status;
}

/* ---- the command line --------------------------------------------------------------------- */

static int parse_profiles(struct request *r)
{
    const char *comma = r->profiles ? strchr(r->profiles, ',') : NULL;
    if (!r->profiles) return kure_usage_error("compare", "--profiles A,B is missing");
    if (!comma || strchr(comma + 1, ',')) return kure_usage_error("compare", "--profiles %s: must be two names with a comma between them", r->profiles);
    snprintf(r->names[0], KURE_INTEGER_NAME, "%.*s", (int)(comma - r->profiles), r->profiles);
    snprintf(r->names[1], KURE_INTEGER_NAME, "%s", comma + 1);
    for (int m = 0; m < MODELS; ++m) {
        if (kure_profile_find(r->names[m]) >= 0) continue;
        return kure_usage_error("compare", "--profiles %s: there is no profile '%s', only onnx, tflite, tflite-single, cmsis, ncnn, tensorrt and pow2", r->profiles,
                                r->names[m]);
    }
    return -1;
}

static const struct option others[] = {
    {"profiles", required_argument, NULL, 'p'}, {"images", required_argument, NULL, 'i'}, {"calibration-images", required_argument, NULL, 'c'},
    {"seed", required_argument, NULL, 'e'},     {"quantize", required_argument, NULL, 'q'}, {"threads", required_argument, NULL, 't'},
    {"csv", required_argument, NULL, 'v'},      {"json", required_argument, NULL, 'j'},   {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};

static int parse_options(int argc, char **argv, struct request *r)
{
    struct option options[KURE_POINT_NAMES + sizeof others / sizeof others[0]];
    char names[KURE_POINT_NAMES][32];
    struct kure_error error;
    int c, which = 0, n = kure_point_options(options, names);
    memcpy(options + n, others, sizeof others);
    while ((c = getopt_long(argc, argv, ":h", options, &which)) != -1) {
        int *counts[] = {['i'] = &r->images, ['t'] = &r->threads, ['c'] = &r->integer.images};
        switch (c) {
        case 'h': return fputs(help, stdout), 0;
        case 'p': r->profiles = optarg; break;
        case 'v': r->csv = optarg; break;
        case 'j': r->json = optarg; break;
        case 'q':
            if (kure_points_parse(&r->integer.points, optarg, &error) != KURE_OK) return kure_usage_error("compare", "%s", error.text);
            break;
        case 1:
            if (kure_points_set_option(&r->integer.points, options[which].name, optarg, &error) != KURE_OK) return kure_usage_error("compare", "%s", error.text);
            break;
        case 'e':
            if (!kure_parse_seed(optarg, &r->integer.seed)) return kure_usage_error("compare", "--seed %s: must be an integer from 0 on", optarg);
            break;
        case 'i':
        case 't':
        case 'c':
            if (!(*counts[c] = kure_take_count("compare", options[which].name, optarg, c == 't' ? KURE_MOST_THREADS : KURE_MOST_COUNT))) return 2;
            break;
        default: return kure_wrong_option("compare", c, argv, options);
        }
    }
    int status = kure_check_arguments("compare", argc - optind, "CFG WEIGHTS DATA", 3);
    if (status) return status;
    r->integer.cfg = argv[optind];
    r->integer.weights = argv[optind + 1];
    r->integer.data = argv[optind + 2];
    status = parse_profiles(r);
    if (status >= 0) return status;
    const struct kure_output_option outputs[] = {{"--csv", r->csv}, {"--json", r->json}};
    status = kure_check_outputs("compare", outputs, 2, (const char *const[]){r->integer.cfg, r->integer.weights, r->integer.data, NULL});
    return status ? status : -1;
}

int kure_command_compare(int argc, char **argv)
{
    struct request r = {.integer = {.command = "compare"}};
    struct kure_integer_source source;
    int status = parse_options(argc, argv, &r);
#ifdef _OPENMP
    if (r.threads) omp_set_num_threads(r.threads);
#else
    if (r.threads > 1) return kure_usage_error("compare", "--threads %d: this build has OPENMP=0", r.threads);
#endif
    if (status >= 0) return status;
    kure_interrupt_say("stopped: no table is written");
    status = kure_integer_load(&source, &r.integer);
    if (status >= 0) return status;
    status = run(&r, &source);
    kure_integer_end(&source);
    kure_points_free(&r.integer.points);
    return status;
}
