/* export.c: `darknet kure export CFG WEIGHTS -o NAME.edge`: one bundle of integer models. */
#define _GNU_SOURCE
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bundle.h"
#include "command.h"
#include "formats.h"
#include "golden.h"
#include "integer.h"
#include "interrupt.h"
#include "manifest.h"
#ifdef _OPENMP
#include <omp.h>
#endif

static const char help[] =
    "usage: darknet kure export CFG WEIGHTS -o NAME.edge [options]\n\n"
    "Writes the network as integers, for one target, into the folder NAME.edge: model.kure,\n"
    "manifest.json, golden vectors, SHA256SUMS, and the formats below. Quantizers and ranges\n"
    "are those of eval --simulate: [quantization] of CFG and WEIGHTS.kure. A CFG without\n"
    "[quantization] is quantized after training: 8 bits, or as the keys say, with ranges from\n"
    "DATA. What eval refines (--lapq-images, --equalize ...) its --save writes as such files.\n\n"
    "  darknet kure export net.cfg net.weights -o net.edge --data net.data\n"
    "  darknet kure verify net.edge\n\n"
    "  -o, --output FOLDER    the bundle; made whole or not at all\n"
    "  --force                replace a bundle of that name\n"
    "  --profile NAME         target: onnx, tflite, tflite-single, cmsis, ncnn, tensorrt, pow2;\n"
    "                         default: that of [quantization], else onnx\n"
    "  --formats LIST         default: all that serve the profile and can express the network\n"
    "  --data DATA            .data file: images to calibrate with where ranges are missing, and\n"
    "                         the golden ones, from its training list\n"
    "  --images N             that a calibration looks at (default 256, or all)\n"
    "  --seed N               which images (default 0)\n"
    "  --golden N             images of the golden vectors (default 4); random ones without DATA\n"
    "  --quantize KEY=VALUE,...   quantizer keys, for a cfg without [quantization]; or each by\n"
    "                         itself: --weight-bits 4 --weight-truncation mse ...\n"
    "  --threads N            processor threads (default: all)\n"
    "  --csv FILE, --json FILE   write the table\n"
    "  --help                 this text\n\n"
    "The table holds bounds for every input: accumulator: of a sum with its bias, in any order;\n"
    "pair: largest |w0 x0 + w1 x1| with x as uint8: above 32767 it saturates on x86 without\n"
    "VNNI; float32: are all sums exact there (up to 2^24)?\n\nformats:\n";

static const struct kure_column columns[] = {
    {"layer", KURE_CELL_INTEGER, NULL},   {"type", KURE_CELL_TEXT, NULL},      {"kind", KURE_CELL_TEXT, NULL},
    {"rows", KURE_CELL_INTEGER, NULL},    {"row", KURE_CELL_INTEGER, NULL},    {"weight_bits", KURE_CELL_INTEGER, NULL},
    {"accumulator", KURE_CELL_INTEGER, NULL}, {"bits", KURE_CELL_INTEGER, NULL}, {"bias", KURE_CELL_INTEGER, NULL},
    {"pair", KURE_CELL_INTEGER, NULL},    {"int16_pairs", KURE_CELL_TEXT, NULL}, {"float32", KURE_CELL_TEXT, NULL},
};

struct request {
    struct kure_integer_request integer;
    const char *output, *formats, *csv, *json;
    int force, threads, golden;
};

/* ---- golden images ------------------------------------------------------------------ */

struct collecting {
    float *values;
    size_t inputs;
};

static void collect(void *context, network *net, float *pixels, int first, int count)
{
    struct collecting *c = context;
    (void)net;
    memcpy(c->values + (size_t)first * c->inputs, pixels, (size_t)count * c->inputs * sizeof *pixels);
}

/* [golden][inputs] values 0..1: images of the training list, or pixels of the stream of random numbers `seed` */
static float *golden_values(const struct request *r, network *net)
{
    struct collecting c = {malloc((size_t)r->golden * (size_t)net->inputs * sizeof *c.values), (size_t)net->inputs};
    if (!c.values) kure_stop(&(struct kure_error){"not enough memory for the golden images"});
    if (r->integer.data) {
        struct kure_images *images = kure_images_sample(net, r->integer.data, r->golden, r->integer.seed, "--golden");
        kure_images_check(net, images, 0);
        images->once = 1;
        kure_images_each(net, images, collect, &c);
        kure_images_free(images);
        return c.values;
    }
    for (size_t i = 0; i < (size_t)r->golden * c.inputs; ++i) c.values[i] = (float)(kure_philox(r->integer.seed, 1, i).word[0] >> 24) / 255.f;
    return c.values;
}

/* ---- formats -------------------------------------------------------------------------- */

/* Is name among the comma-separated ones? */
static int is_listed(const char *list, const char *name)
{
    size_t length = strlen(name);
    for (const char *p = list; *p; p += strcspn(p, ","), p += *p == ',') {
        if (strcspn(p, ",") == length && strncmp(p, name, length) == 0) return 1;
    }
    return 0;
}

static int is_wanted(const struct request *r, const struct kure_format *f, const char *profile)
{
    if (strcmp(f->name, "kure") == 0) return 1;
    return r->formats ? is_listed(r->formats, f->name) : kure_format_serves(f, profile);
}

/* Calls for every name of --formats; f = NULL: there is no such format. Returns the first answer that is not -1. */
static int each_format(const struct request *r, int (*check)(const char *name, const struct kure_format *f, const char *context), const char *context)
{
    char name[64];
    int status = -1;
    for (const char *p = r->formats; status < 0 && p && *p; p += strcspn(p, ","), p += *p == ',') {
        const struct kure_format *f = NULL;
        snprintf(name, sizeof name, "%.*s", (int)strcspn(p, ","), p);
        for (int i = 0; kure_format(i) && !f; ++i) f = strcmp(kure_format(i)->name, name) == 0 ? kure_format(i) : NULL;
        status = check(name, f, context);
    }
    return status;
}

static int check_name(const char *name, const struct kure_format *f, const char *list)
{
    char names[200] = "";
    for (int i = 0; kure_format(i); ++i) snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", i ? ", " : "", kure_format(i)->name);
    return f ? -1 : kure_usage_error("export", "--formats %s: there is no format '%s', only %s", list, name, names);
}

static int check_profile(const char *name, const struct kure_format *f, const char *profile)
{
    if (kure_format_serves(f, profile)) return -1;
    fprintf(stderr, "--formats %s: cannot express profile=%s: it takes %s\n", name, profile, f->profiles);
    return 1;
}

static enum kure_status write_bundle(const struct request *r, const struct kure_integer_model *model, const char *folder, const float *values,
                                     const char *ranges, struct kure_error *error)
{
    struct kure_integer_golden golden = {NULL};
    struct kure_integer_model complete = *model;
    char names[512] = "";
    enum kure_status status = kure_golden_write(model, folder, values, r->golden, &golden, error);
    complete.golden = &golden;
    for (int i = 0; status == KURE_OK && kure_format(i); ++i) {
        const struct kure_format *f = kure_format(i);
        if (!is_wanted(r, f, model->profile)) continue;
        status = f->write(&complete, folder, error);
        if (status == KURE_ERROR_INPUT && !r->formats) { /* nobody asked for it by name */
            fprintf(stderr, "%s is left out: %s\n", f->name, error->text);
            status = KURE_OK;
            continue;
        }
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", *names ? " " : "", f->name);
    }
    struct kure_manifest_facts facts = {.golden_images = r->golden, .formats = names, .calibration = ranges};
    if (status == KURE_OK) status = kure_manifest_write(model, folder, &facts, error);
    for (int i = 0; status == KURE_OK && kure_format(i); ++i) {
        const struct kure_format *f = kure_format(i);
        if (*f->note && kure_has_word(names, f->name)) fprintf(stderr, "%s: %s\n", f->name, f->note);
    }
    kure_golden_free(model, &golden);
    return status;
}

/* ---- what is said ------------------------------------------------------------------------- */

static void add_proof(struct kure_table *table, const struct kure_integer_model *m, const struct kure_integer_proof *p)
{
    const struct kure_integer_layer *l = &m->layers[p->layer];
    static const char *const parts[] = {"", " boxes", " scores"};
    char kind[64];
    snprintf(kind, sizeof kind, "%s%s", kure_model_kind_name(l->kind), parts[l->part]);
    kure_table_add_row(table);
    kure_table_set_integer(table, "layer", l->source);
    kure_table_set_text(table, "type", l->type);
    kure_table_set_text(table, "kind", kind);
    kure_table_set_integer(table, "rows", l->rows);
    kure_table_set_integer(table, "row", l->row);
    kure_table_set_integer(table, "weight_bits", l->weight_bits);
    kure_table_set_integer(table, "accumulator", p->accumulator_partial);
    kure_table_set_integer(table, "bits", p->accumulator_bits);
    if (l->bias_codes) kure_table_set_integer(table, "bias", p->bias_high);
    kure_table_set_integer(table, "pair", p->pair_high);
    kure_table_set_text(table, "int16_pairs", p->fits_pair ? "fit" : "may saturate");
    kure_table_set_text(table, "float32", p->fits_float ? "exact" : "rounds");
}

static int say_proofs(const struct request *r, const struct kure_integer_model *m, const char *plan)
{
    struct kure_table table;
    struct kure_error error;
    kure_table_init(&table, "kure.export/1", columns, sizeof columns / sizeof columns[0]);
    snprintf(table.plan, sizeof table.plan, "%s", plan);
    if (kure_hash_file(r->integer.weights, table.model, &error) != KURE_OK) kure_stop(&error);
    for (int i = 0; i < m->proof_count; ++i) add_proof(&table, m, &m->proofs[i]);
    kure_table_print(&table, stdout);
    int status = kure_write_tables(&table, r->csv, r->json);
    kure_table_free(&table);
    fflush(stdout);
    for (int i = 0; i < m->note_count; ++i) fprintf(stderr, "layer %d: %s\n", m->notes[i].source, m->notes[i].text);
    return status;
}

/* ---- the command line ------------------------------------------------------------------- */

static int print_help(void)
{
    fputs(help, stdout);
    for (int i = 0; kure_format(i); ++i) {
        const struct kure_format *f = kure_format(i);
        printf("  %-10s %s%s%s\n", f->name, f->help, *f->profiles ? "; profiles " : "", f->profiles);
    }
    return 0;
}

enum { MOST_GOLDEN = 1000 };

static const struct option others[] = {
    {"output", required_argument, NULL, 'o'}, {"force", no_argument, NULL, 'f'},         {"profile", required_argument, NULL, 'p'},
    {"formats", required_argument, NULL, 'm'}, {"data", required_argument, NULL, 'd'},   {"images", required_argument, NULL, 'i'},
    {"seed", required_argument, NULL, 'e'},   {"golden", required_argument, NULL, 'g'},  {"quantize", required_argument, NULL, 'q'},
    {"threads", required_argument, NULL, 't'}, {"csv", required_argument, NULL, 'v'},    {"json", required_argument, NULL, 'j'},
    {"help", no_argument, NULL, 'h'},         {"lapq-images", required_argument, NULL, 'r'}, {"bn-images", required_argument, NULL, 'r'},
    {"bias-images", required_argument, NULL, 'r'}, {"equalize", no_argument, NULL, 'r'}, {NULL, 0, NULL, 0}};

static int check_request(struct request *r)
{
    if (!r->output) return kure_usage_error("export", "-o NAME.edge is missing: the folder to write");
    if (!r->output[strspn(r->output, "/")]) return kure_usage_error("export", "-o '%s': must be the name of a folder to write, such as net.edge", r->output);
    int wrong = each_format(r, check_name, r->formats);
    if (wrong >= 0) return wrong;
    if (!r->integer.data && r->integer.images) return kure_usage_error("export", "--images %d: there is no --data to take them from", r->integer.images);
    if (!r->golden) r->golden = 4;
#ifdef _OPENMP
    if (r->threads) omp_set_num_threads(r->threads);
#else
    if (r->threads > 1) return kure_usage_error("export", "--threads %d: this build has OPENMP=0", r->threads);
#endif
    const struct kure_output_option outputs[] = {{"--csv", r->csv}, {"--json", r->json}};
    const char *const inputs[] = {r->integer.cfg, r->integer.weights, r->integer.data, NULL};
    int status = kure_check_outputs("export", outputs, 2, inputs);
    return status ? status : -1;
}

/* -1: go on; else the exit status. */
static int parse_options(int argc, char **argv, struct request *r)
{
    enum { OTHERS = sizeof others / sizeof others[0] };
    struct option options[KURE_POINT_NAMES + OTHERS];
    char names[KURE_POINT_NAMES][32];
    int n = kure_point_options(options, names), c, which = 0;
    memcpy(options + n, others, sizeof others);
    while ((c = getopt_long(argc, argv, ":ho:", options, &which)) != -1) {
        struct kure_error error;
        enum kure_status status = KURE_OK;
        int *counts[] = {['i'] = &r->integer.images, ['t'] = &r->threads, ['g'] = &r->golden};
        switch (c) {
        case 'h': return print_help();
        case 'o': r->output = optarg; break;
        case 'f': r->force = 1; break;
        case 'p': r->integer.profile = optarg; break;
        case 'm': r->formats = optarg; break;
        case 'd': r->integer.data = optarg; break;
        case 'v': r->csv = optarg; break;
        case 'j': r->json = optarg; break;
        case 'q': status = kure_points_parse(&r->integer.points, optarg, &error); break;
        case 'e':
            if (!kure_parse_seed(optarg, &r->integer.seed)) return kure_usage_error("export", "--seed %s: must be an integer from 0 on", optarg);
            break;
        case 'i':
        case 't':
        case 'g':
            *counts[c] = kure_take_count("export", options[which].name, optarg, c == 't' ? KURE_MOST_THREADS : c == 'g' ? MOST_GOLDEN : KURE_MOST_COUNT);
            if (!*counts[c]) return 2;
            break;
        case 'r':
            return kure_usage_error("export", "--%s: 'darknet kure eval CFG WEIGHTS DATA --%s ... --save NAME' refines the network; export NAME.cfg NAME.weights",
                                    options[which].name, options[which].name);
        case 1: status = kure_points_set_option(&r->integer.points, options[which].name, optarg, &error); break;
        default: return kure_wrong_option("export", c, argv, options);
        }
        if (status != KURE_OK) return kure_usage_error("export", "%s", error.text);
    }
    int status = kure_check_arguments("export", argc - optind, "CFG WEIGHTS", 2);
    if (status) return status;
    r->integer.cfg = argv[optind];
    r->integer.weights = argv[optind + 1];
    return check_request(r);
}

static struct kure_bundle unfinished; /* deleted if the process ends before the bundle is complete */

static void abandon(void)
{
    kure_bundle_abandon(&unfinished);
}

static void begin_bundle(const struct request *r)
{
    struct kure_error error;
    atexit(abandon);
    kure_interrupt_hold(1);
    if (kure_bundle_begin(r->output, r->force, &unfinished, &error) != KURE_OK) kure_stop(&error);
    kure_interrupt_undo(abandon);
    kure_interrupt_hold(0);
}

int kure_command_export(int argc, char **argv)
{
    struct request r = {.integer = {.command = "export"}};
    struct kure_integer_source source;
    struct kure_network_view view;
    struct kure_integer_model model;
    struct kure_error error;
    int status = parse_options(argc, argv, &r);
    if (status < 0) {
        kure_interrupt_say("stopped: %s is %s", r.output, access(r.output, F_OK) == 0 ? "as it was" : "not written");
        status = kure_integer_load(&source, &r.integer);
    }
    if (status >= 0) return status;
    const char *profile = kure_integer_profile(&source);
    status = each_format(&r, check_profile, profile);
    if (status >= 0) return status;
    begin_bundle(&r);
    kure_integer_make(&source, profile, 0, &view, &model);
    float *values = golden_values(&r, source.net);
    if (write_bundle(&r, &model, unfinished.temporary, values, source.ranges, &error) != KURE_OK) kure_stop(&error);
    kure_interrupt_hold(1); /* from here on it is written */
    if (kure_bundle_finish(&unfinished, &error) != KURE_OK) kure_stop(&error);
    status = say_proofs(&r, &model, ((const struct kure_network *)source.net->kure)->plan.hash);
    fprintf(stderr, "wrote %s: profile %s, %d layers, model.kure %zu bytes, ranges: %s\n", r.output, profile, model.layer_count,
            model.file_bytes, source.ranges);
    free(values);
    kure_integer_free(&model);
    kure_export_view_free(&view);
    kure_integer_end(&source);
    kure_points_free(&r.integer.points);
    return status;
}
