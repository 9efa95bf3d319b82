/*
 * kure_run.c: the program kure-run: an integer model on raw codes, values or images.
 *
 * Tested by tests/test_kure_run.py.
 */
#include "kure_run.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char usage[] =
    "Usage: kure-run [OPTION]... MODEL [INPUT]...\n"
    "\n"
    "Runs an integer model, model.kure, and prints the largest values of its outputs.\n"
    "Without INPUT: prints the model's tensors and layers.\n"
    "\n"
    "INPUT is an image as PGM or PPM (.pgm, .ppm) of the model's size, or raw images one\n"
    "after another, [channels][height][width]: float32 values (.f32), else int8 codes.\n"
    "\n"
    "  --input=FORMAT   what every INPUT is, whatever its name: codes, float32, pixels\n"
    "  --top=K          values to print for each output, 0..1000 (default 5)\n"
    "  --output=FILE    write the codes of all outputs, image after image\n"
    "  --dump=FOLDER    write the codes of every tensor: FOLDER/NUMBER-NAME.bin, images one\n"
    "                   after another; the folder must not exist\n"
    "  --time           print the time of an image to stderr\n"
    "  --help           print this\n";

struct options {
    const char *model, *output, *dump;
    enum kure_run_format format;
    long top; /* -1: not given */
    int time;
};

int kure_run_fail(const char *format, ...)
{
    va_list arguments;
    fputs("kure-run: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    return 0;
}

/* ---- the model ------------------------------------------------------------------ */

/* One sentence: file, place, field, value and limit */
static int fail_model(const char *path, const struct kure_runtime_error *e)
{
    char place[64] = "";
    const char *text = kure_runtime_status_text(e->status), *field = e->field ? e->field : "";
    int numbered = e->status >= KURE_RUNTIME_RANGE && strcmp(e->place, "header");
    if (numbered) snprintf(place, sizeof place, "%s %u: ", e->place, e->index);
    if (e->status >= KURE_RUNTIME_RANGE && !numbered) snprintf(place, sizeof place, "%s: ", e->place);
    long long value = e->value, least = e->least, most = e->most;
    if (e->status == KURE_RUNTIME_CUT) return kure_run_fail("%s: %s: %lld bytes, must be %lld", path, text, value, least);
    if (e->status == KURE_RUNTIME_NEWER) return kure_run_fail("%s: %s: %lld, it knows %lld", path, text, value, most);
    if (e->status < KURE_RUNTIME_RANGE) return kure_run_fail("%s: %s", path, text);
    if (e->status == KURE_RUNTIME_ORDER) return kure_run_fail("%s: %s%s: %s %lld", path, place, text, field, value);
    if (e->status == KURE_RUNTIME_OVERFLOW) return kure_run_fail("%s: %s%s: %s %lld", path, place, text, field, value);
    if (least > most) return kure_run_fail("%s: %s%s is 0x%08llx, no float32 number that it may be", path, place, field, value);
    if (least == most) return kure_run_fail("%s: %s%s is %lld, must be %lld", path, place, field, value, least);
    return kure_run_fail("%s: %s%s is %lld, must be %lld..%lld", path, place, field, value, least, most);
}

/* ---- running ---------------------------------------------------------------------- */

/* The K largest values of a tensor, the first of equals first */
static void print_top(const struct kure_model *model, const char *path, size_t image, size_t images, uint32_t tensor, const signed char *codes,
                      long top)
{
    struct kure_model_tensor t = kure_runtime_tensor(model, tensor);
    signed char last_code = 127;
    uint32_t last = UINT32_MAX; /* the last one printed */
    printf("%s", path);
    if (images > 1) printf(" %zu", image);
    printf("  %s:", t.name);
    for (long k = 0; k < top && (uint32_t)k < t.elements; k++) {
        uint32_t best = UINT32_MAX;
        for (uint32_t i = 0; i < t.elements; i++) {
            int after = codes[i] < last_code || (codes[i] == last_code && (last == UINT32_MAX || i > last));
            if (after && (best == UINT32_MAX || codes[i] > codes[best])) best = i;
        }
        printf("  %u %.6g", best, (double)t.scale * (codes[best] - t.zero_point));
        last_code = codes[best];
        last = best;
    }
    printf("\n");
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* One image through all layers, to what is wanted */
static int run_image(const struct kure_model *model, void *arena, const signed char *input, struct kure_run_output *output,
                     struct kure_run_output *dump, double *time)
{
    double start = seconds();
    int ok = kure_runtime_start(model, arena, kure_runtime_arena_bytes(model), input) == KURE_RUNTIME_OK;
    if (ok && dump->path) ok = kure_run_dump_write(dump, 0, kure_runtime_codes(model, arena, 0), kure_runtime_tensor(model, 0).elements);
    for (uint32_t i = 0; ok && i < model->layer_count; i++) {
        kure_runtime_step(model, arena, i);
        if (dump->path) ok = kure_run_dump_write(dump, i + 1, kure_runtime_codes(model, arena, i + 1), kure_runtime_tensor(model, i + 1).elements);
    }
    *time += seconds() - start;
    for (uint32_t i = 0; ok && i < model->output_count; i++) {
        uint32_t tensor = kure_runtime_output(model, i);
        ok = kure_run_output_write(output, kure_runtime_codes(model, arena, tensor), kure_runtime_tensor(model, tensor).elements);
    }
    return ok;
}

static int run_file(const struct options *o, const struct kure_model *model, void *arena, const char *path, struct kure_run_output *output,
                    struct kure_run_output *dump, double *time, size_t *count)
{
    signed char *codes;
    size_t images, n = kure_runtime_tensor(model, 0).elements;
    if (!kure_run_images(model, path, o->format, &codes, &images)) return 0;
    int ok = 1;
    for (size_t i = 0; ok && i < images; i++) {
        ok = run_image(model, arena, codes + i * n, output, dump, time);
        for (uint32_t k = 0; ok && o->top && k < model->output_count; k++) {
            uint32_t tensor = kure_runtime_output(model, k);
            print_top(model, path, i, images, tensor, kure_runtime_codes(model, arena, tensor), o->top);
        }
    }
    *count += images;
    free(codes);
    return ok;
}

static int run_files(const struct options *o, const struct kure_model *model, char **inputs, int count)
{
    struct kure_run_output output, dump;
    double time = 0;
    size_t images = 0;
    if (!kure_run_output_open(&output, o->output)) return 0;
    if (!kure_run_dump_open(&dump, o->dump, model)) {
        kure_run_output_close(&output, 0);
        return 0;
    }
    void *arena = malloc(kure_runtime_arena_bytes(model));
    int ok = arena ? 1 : kure_run_fail("%s: not enough memory for its arena of %zu bytes", o->model, kure_runtime_arena_bytes(model));
    for (int i = 0; ok && i < count; i++) ok = run_file(o, model, arena, inputs[i], &output, &dump, &time, &images);
    free(arena);
    if (ok && (fflush(stdout) || ferror(stdout))) ok = kure_run_fail("standard output: %s", strerror(errno));
    ok = kure_run_output_close(&output, ok) && ok;
    ok = kure_run_dump_close(&dump, ok) && ok;
    if (ok && o->time) fprintf(stderr, "%zu images, %.4g ms each\n", images, 1e3 * time / (double)images);
    return ok;
}

/* ---- options ------------------------------------------------------------------------ */

static int parse_format(const char *text, enum kure_run_format *format)
{
    static const char *const names[] = {[KURE_RUN_CODES] = "codes", [KURE_RUN_FLOAT32] = "float32", [KURE_RUN_PIXELS] = "pixels"};
    for (int i = KURE_RUN_CODES; i <= KURE_RUN_PIXELS; i++) {
        if (strcmp(text, names[i])) continue;
        *format = (enum kure_run_format)i;
        return 1;
    }
    return kure_run_fail("--input=%s: must be codes, float32 or pixels", text);
}

static int parse_top(const char *text, long *top)
{
    char *end;
    errno = 0;
    *top = strtol(text, &end, 10);
    return !errno && end != text && !*end && *top >= 0 && *top <= 1000 ? 1 : kure_run_fail("--top=%s: must be a number, 0..1000", text);
}

int main(int argc, char **argv)
{
    enum { INPUT = 1000, TOP, OUTPUT, DUMP, TIME, HELP };
    static const struct option long_options[] = {{"input", required_argument, NULL, INPUT}, {"top", required_argument, NULL, TOP},
                                                 {"output", required_argument, NULL, OUTPUT}, {"dump", required_argument, NULL, DUMP},
                                                 {"time", no_argument, NULL, TIME}, {"help", no_argument, NULL, HELP}, {NULL, 0, NULL, 0}};
    struct options o = {.top = -1};
    struct kure_run_bytes file;
    struct kure_model model;
    struct kure_runtime_error error;
    int c, ok = 1;
    opterr = 0;
    while (ok && (c = getopt_long(argc, argv, ":", long_options, NULL)) != -1) {
        switch (c) {
        case INPUT: ok = parse_format(optarg, &o.format); break;
        case TOP: ok = parse_top(optarg, &o.top); break;
        case OUTPUT: o.output = optarg; break;
        case DUMP: o.dump = optarg; break;
        case TIME: o.time = 1; break;
        case HELP: return fputs(usage, stdout) < 0 || fflush(stdout);
        case ':': ok = kure_run_fail("%s: the value is missing", argv[optind - 1]); break;
        default: ok = kure_run_fail("%s: unknown option; kure-run --help lists them", argv[optind - 1]); break;
        }
    }
    if (ok && optind == argc) ok = kure_run_fail("the model is missing; kure-run --help says more");
    int inputs = ok ? argc - optind - 1 : 0;
    if (ok && !inputs && (o.output || o.dump || o.time || o.format || o.top >= 0)) ok = kure_run_fail("there is no INPUT for these options");
    if (!ok) return 2;
    o.model = argv[optind];
    if (o.top < 0) o.top = 5;
    if (!kure_run_read(o.model, &file)) return 1;
    if (kure_runtime_open(&model, file.data, file.size, &error) != KURE_RUNTIME_OK) ok = fail_model(o.model, &error);
    else if (inputs) ok = run_files(&o, &model, argv + optind + 1, inputs);
    else kure_run_describe(&model);
    if (ok && (fflush(stdout) || ferror(stdout))) ok = kure_run_fail("standard output: %s", strerror(errno));
    free(file.data);
    return !ok;
}
