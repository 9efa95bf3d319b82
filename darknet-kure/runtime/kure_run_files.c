/* kure_run_files.c: see kure_run.h. */
#include "kure_run.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int kure_run_read(const char *path, struct kure_run_bytes *out)
{
    FILE *file = fopen(path, "rb");
    size_t room = 0;
    *out = (struct kure_run_bytes){NULL, 0};
    if (!file) return kure_run_fail("%s: %s", path, strerror(errno));
    for (;;) {
        if (out->size == room) {
            unsigned char *larger = room < KURE_MODEL_MOST_BYTES ? realloc(out->data, room = room ? 2 * room : 1 << 16) : NULL;
            if (!larger) {
                fclose(file);
                free(out->data);
                return kure_run_fail("%s: not enough memory for so large a file", path);
            }
            out->data = larger;
        }
        errno = 0;
        size_t got = fread(out->data + out->size, 1, room - out->size, file);
        out->size += got;
        if (got == 0) break;
    }
    int error = ferror(file) ? errno ? errno : EIO : 0;
    fclose(file);
    if (!error) return 1;
    free(out->data);
    return kure_run_fail("%s: %s", path, strerror(error));
}

/* ---- images -------------------------------------------------------------------- */

static int ends_with(const char *path, const char *end)
{
    size_t n = strlen(path), m = strlen(end);
    return n >= m && strcmp(path + n - m, end) == 0;
}

/* The next number of a PNM header, 0..65535; -1: there is none. at [in, out] */
static long pnm_number(const struct kure_run_bytes *b, size_t *at)
{
    long value = 0;
    size_t digits = 0;
    while (*at < b->size && (isspace(b->data[*at]) || b->data[*at] == '#')) {
        if (b->data[(*at)++] == '#') while (*at < b->size && b->data[*at] != '\n') ++*at;
    }
    for (; *at < b->size && isdigit(b->data[*at]) && value <= 65535; ++*at, ++digits) value = 10 * value + (b->data[*at] - '0');
    return digits && value <= 65535 ? value : -1;
}

/* One PGM or PPM of the model's size; pixels [out]: [channels][height][width] */
static int read_pnm(const char *path, const struct kure_run_bytes *b, const struct kure_model_tensor *t, unsigned char *pixels)
{
    size_t at = 2, plane = (size_t)t->height * t->width;
    if (b->size < 3 || b->data[0] != 'P' || (b->data[1] != '5' && b->data[1] != '6')) {
        return kure_run_fail("%s: this is no binary PGM or PPM image (P5 or P6)", path);
    }
    size_t channels = b->data[1] == '6' ? 3 : 1;
    long width = pnm_number(b, &at), height = pnm_number(b, &at), most = pnm_number(b, &at);
    if (width < 1 || height < 1 || most != 255) return kure_run_fail("%s: its header is not that of a PGM or PPM image of 8 bits", path);
    if ((uint32_t)width != t->width || (uint32_t)height != t->height || (channels != t->channels && channels != 1)) {
        return kure_run_fail("%s: the image is %zux%ldx%ld (channels, height, width), the model wants %ux%ux%u", path, channels, height, width,
                             t->channels, t->height, t->width);
    }
    if (b->size - at != 1 + channels * plane) return kure_run_fail("%s: %zu bytes of pixels, must be %zu", path, b->size - at - 1, channels * plane);
    const unsigned char *in = b->data + at + 1;
    for (size_t c = 0; c < t->channels; c++) {
        for (size_t i = 0; i < plane; i++) pixels[c * plane + i] = in[channels == 1 ? i : i * channels + c];
    }
    return 1;
}

static int to_codes(const struct kure_model *model, const char *path, enum kure_run_format format, const struct kure_run_bytes *b,
                    signed char **codes, size_t *images)
{
    struct kure_model_tensor t = kure_runtime_tensor(model, 0);
    size_t n = t.elements, bytes = format == KURE_RUN_FLOAT32 ? n * sizeof(float) : n;
    if (format != KURE_RUN_PIXELS && (b->size == 0 || b->size % bytes)) {
        return kure_run_fail("%s: %zu bytes, must be a multiple of %zu: %ux%ux%u (channels, height, width) %s", path, b->size, bytes, t.channels,
                             t.height, t.width, format == KURE_RUN_CODES ? "int8 codes" : "float32 values");
    }
    *images = format == KURE_RUN_PIXELS ? 1 : b->size / bytes;
    void *room = malloc(n * sizeof(float));
    *codes = malloc(*images * n);
    int ok = *codes && room ? 1 : kure_run_fail("%s: not enough memory", path);
    if (ok && format == KURE_RUN_CODES) memcpy(*codes, b->data, b->size);
    for (size_t i = 0; ok && format == KURE_RUN_FLOAT32 && i < *images; i++) {
        memcpy(room, b->data + i * bytes, bytes);
        kure_runtime_quantize(model, room, *codes + i * n);
    }
    if (ok && format == KURE_RUN_PIXELS) {
        ok = read_pnm(path, b, &t, room);
        if (ok && kure_runtime_pixels(model, room, *codes) != KURE_RUNTIME_OK) {
            ok = kure_run_fail("%s: %s: give codes or float32 values", path, kure_runtime_status_text(KURE_RUNTIME_NO_PIXELS));
        }
    }
    free(room);
    if (!ok) free(*codes);
    return ok;
}

int kure_run_images(const struct kure_model *model, const char *path, enum kure_run_format format, signed char **codes, size_t *images)
{
    struct kure_run_bytes b;
    if (format == KURE_RUN_BY_NAME) {
        format = ends_with(path, ".pgm") || ends_with(path, ".ppm") ? KURE_RUN_PIXELS : ends_with(path, ".f32") ? KURE_RUN_FLOAT32 : KURE_RUN_CODES;
    }
    if (!kure_run_read(path, &b)) return 0;
    int ok = to_codes(model, path, format, &b, codes, images);
    free(b.data);
    return ok;
}

/* ---- output ---------------------------------------------------------------------- */

static int name_part(struct kure_run_output *o, const char *path)
{
    int n = snprintf(o->part, sizeof o->part, "%s.part", path);
    return n > 0 && (size_t)n < sizeof o->part - 64 ? 1 : kure_run_fail("%s: the name is too long", path);
}

int kure_run_output_open(struct kure_run_output *o, const char *path)
{
    *o = (struct kure_run_output){0};
    if (!path) return 1;
    if (!name_part(o, path)) return 0;
    o->file = fopen(o->part, "wb");
    if (!o->file) return kure_run_fail("%s: %s", o->part, strerror(errno));
    o->path = path;
    return 1;
}

int kure_run_output_write(struct kure_run_output *o, const signed char *codes, size_t n)
{
    return !o->file || fwrite(codes, 1, n, o->file) == n ? 1 : kure_run_fail("%s: %s", o->path, strerror(errno));
}

int kure_run_output_close(struct kure_run_output *o, int keep)
{
    int ok = 1;
    if (!o->file) return 1;
    if (fclose(o->file) && keep) ok = kure_run_fail("%s: %s", o->path, strerror(errno));
    if (ok && keep && rename(o->part, o->path)) ok = kure_run_fail("%s: %s", o->path, strerror(errno));
    if (!ok || !keep) remove(o->part);
    return ok;
}

/* "PART/003-name.bin": of the name only letters and digits count */
static void tensor_path(const struct kure_run_output *o, uint32_t tensor, char *out, size_t size)
{
    int n = snprintf(out, size, "%s/%04u-%s", o->part, tensor, kure_runtime_tensor(o->model, tensor).name);
    for (char *p = out + strlen(o->part) + 6; n > 0 && *p; p++) {
        if (!isalnum((unsigned char)*p)) *p = '_';
    }
    strcat(out, ".bin");
}

int kure_run_dump_open(struct kure_run_output *o, const char *path, const struct kure_model *model)
{
    struct stat status;
    *o = (struct kure_run_output){.model = model};
    if (!path) return 1;
    if (lstat(path, &status) == 0) return kure_run_fail("%s: exists already; --dump makes a new folder", path);
    if (!name_part(o, path)) return 0;
    if (mkdir(o->part, 0777)) return kure_run_fail("%s: %s", o->part, strerror(errno));
    o->path = path;
    return 1;
}

int kure_run_dump_write(struct kure_run_output *o, uint32_t tensor, const signed char *codes, size_t n)
{
    char path[4200];
    if (!o->path) return 1;
    tensor_path(o, tensor, path, sizeof path);
    FILE *file = fopen(path, "ab");
    int ok = file && fwrite(codes, 1, n, file) == n;
    int error = errno;
    if (file && fclose(file) && ok) {
        error = errno;
        ok = 0;
    }
    return ok ? 1 : kure_run_fail("%s: %s", path, strerror(error));
}

int kure_run_dump_close(struct kure_run_output *o, int keep)
{
    if (!o->path) return 1;
    if (keep && rename(o->part, o->path) == 0) return 1;
    if (keep) kure_run_fail("%s: %s", o->path, strerror(errno));
    for (uint32_t i = 0; i <= o->model->layer_count; i++) {
        char path[4200];
        tensor_path(o, i, path, sizeof path);
        remove(path);
    }
    rmdir(o->part);
    return !keep;
}

/* ---- the model as text --------------------------------------------------------------- */

static void print_tensor(const struct kure_model *model, uint32_t i)
{
    struct kure_model_tensor t = kure_runtime_tensor(model, i);
    printf("%4u  %-23s %5u x%5u x%5u  %-13.9g %5d  %4d..%-4d %u\n", i, t.name, t.channels, t.height, t.width, t.scale, t.zero_point, t.low, t.high,
           t.bits);
}

void kure_run_describe(const struct kure_model *model)
{
    printf("profile %s, %u bytes, arena %zu bytes\n\n", kure_runtime_profile(model), model->file_bytes, kure_runtime_arena_bytes(model));
    printf("tensor name                    channels height width  scale          zero  low..high bits\n");
    for (uint32_t i = 0; i <= model->layer_count; i++) print_tensor(model, i);
    printf("\n layer  kind          of  arithmetic          size stride padding groups  weights         inputs\n");
    for (uint32_t i = 0; i < model->layer_count; i++) {
        struct kure_model_layer l = kure_runtime_layer(model, i);
        printf("%6u  %-12s %4u  %-18s %5u %6u %7u %6u  %5u x%6u %u", i, kure_model_kind_name(l.kind), l.source, kure_arithmetic_name(l.arithmetic),
               l.size, l.stride, l.padding, l.groups, l.rows, l.row, l.weight_bits);
        for (uint32_t k = 0; k < l.input_count; k++) printf(" %u", kure_runtime_input(model, &l, k));
        printf("\n");
    }
    printf("\noutputs");
    for (uint32_t i = 0; i < model->output_count; i++) printf(" %u", kure_runtime_output(model, i));
    printf("\n");
}
