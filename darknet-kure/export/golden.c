/* golden.c: see golden.h. Tested by tests/test_export_bundle.py, with NumPy as the reader. */
#include "golden.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bundle.h"
#include "error.h"

enum { NPY_HEADER = 128 }; /* bytes in front of the data: magic, version, length, text padded with blanks */

void kure_golden_tensor_name(const char *tensor, char out[KURE_GOLDEN_NAME])
{
    snprintf(out, KURE_GOLDEN_NAME, "golden/%s.npy", tensor);
}

void kure_golden_output_name(int output, char out[KURE_GOLDEN_NAME])
{
    snprintf(out, KURE_GOLDEN_NAME, "golden/output_%d.npy", output);
}

/* type: "<f4" or "|i1" */
static void npy_header(char out[NPY_HEADER], const char *type, int images, const struct kure_model_tensor *t)
{
    char text[NPY_HEADER];
    int n = snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': False, 'shape': (%d, %u, %u, %u), }", type, images, t->channels, t->height, t->width);
    memset(out, ' ', NPY_HEADER);
    memcpy(out, "\x93NUMPY\x01\x00", 8);
    out[8] = (char)(NPY_HEADER - 10);
    out[9] = 0;
    memcpy(out + 10, text, (size_t)n);
    out[NPY_HEADER - 1] = '\n';
}

/* Appends one image; the header comes with the first. */
static enum kure_status append(const char *folder, const char *name, const char *type, int image, int images, const struct kure_model_tensor *t,
                               const void *data, size_t bytes, struct kure_error *error)
{
    char header[NPY_HEADER];
    FILE *file;
    enum kure_status status = kure_bundle_open(folder, name, image ? "ab" : "wb", &file, error);
    if (status != KURE_OK) return status;
    npy_header(header, type, images, t);
    size_t written = image ? 0 : fwrite(header, 1, NPY_HEADER, file);
    written += fwrite(data, 1, bytes, file);
    (void)written; /* close looks at ferror */
    return kure_bundle_close(folder, name, file, error);
}

/* ---- runs -------------------------------------------------------------------------- */

/* Calls visit for the values, then for every tensor and output of every image. */
enum what { VALUES, CODES, OUTPUT };
typedef enum kure_status visit_function(void *context, enum what what, int number, int image, const struct kure_model_tensor *tensor, const void *data,
                                        struct kure_error *error);

/* What a run needs. */
struct room {
    void *arena;
    int8_t *input;
    float *values; /* [largest tensor] */
};

static enum kure_status begin_room(struct room *r, const struct kure_model *m, struct kure_error *error)
{
    size_t largest = 1;
    for (uint32_t i = 0; i <= m->layer_count; ++i) {
        struct kure_model_tensor t = kure_runtime_tensor(m, i);
        if (t.elements > largest) largest = t.elements;
    }
    *r = (struct room){malloc(kure_runtime_arena_bytes(m)), malloc(kure_runtime_tensor(m, 0).elements), malloc(largest * sizeof *r->values)};
    return r->arena && r->input && r->values ? KURE_OK : kure_fail_memory(error);
}

static void end_room(struct room *r)
{
    free(r->arena);
    free(r->input);
    free(r->values);
}

static enum kure_status run_image(const struct kure_model *m, struct room *r, const float *values, int image, visit_function *visit, void *context,
                                  struct kure_error *error)
{
    struct kure_model_tensor first = kure_runtime_tensor(m, 0);
    kure_runtime_quantize(m, values, r->input);
    enum kure_status status = visit(context, VALUES, 0, image, &first, values, error);
    if (kure_runtime_start(m, r->arena, kure_runtime_arena_bytes(m), r->input) != KURE_RUNTIME_OK) return kure_fail_memory(error);
    for (uint32_t i = 0; status == KURE_OK && i <= m->layer_count; ++i) {
        struct kure_model_tensor t = kure_runtime_tensor(m, i);
        if (i) kure_runtime_step(m, r->arena, i - 1);
        status = visit(context, CODES, (int)i, image, &t, kure_runtime_codes(m, r->arena, i), error);
    }
    for (uint32_t i = 0; status == KURE_OK && i < m->output_count; ++i) {
        uint32_t tensor = kure_runtime_output(m, i);
        struct kure_model_tensor t = kure_runtime_tensor(m, tensor);
        kure_runtime_dequantize(m, tensor, kure_runtime_codes(m, r->arena, tensor), r->values);
        status = visit(context, OUTPUT, (int)i, image, &t, r->values, error);
    }
    return status;
}

/* ---- writing ---------------------------------------------------------------------------- */

struct writing {
    const struct kure_integer_model *model;
    const char *folder;
    int images;
    struct kure_integer_golden *golden;
};

static enum kure_status write_one(void *context, enum what what, int number, int image, const struct kure_model_tensor *t, const void *data,
                                  struct kure_error *error)
{
    struct writing *w = context;
    char name[KURE_GOLDEN_NAME] = KURE_GOLDEN_VALUES;
    if (what == CODES) kure_golden_tensor_name(t->name, name);
    if (what == OUTPUT) kure_golden_output_name(number, name);
    if (what == CODES && image == 0) {
        w->golden->codes[number] = malloc(t->elements);
        if (!w->golden->codes[number]) return kure_fail_memory(error);
        memcpy(w->golden->codes[number], data, t->elements);
    }
    return append(w->folder, name, what == CODES ? "|i1" : "<f4", image, w->images, t, data, t->elements * (what == CODES ? 1 : sizeof(float)), error);
}

enum kure_status kure_golden_write(const struct kure_integer_model *model, const char *folder, const float *values, int images,
                                   struct kure_integer_golden *golden, struct kure_error *error)
{
    struct kure_model opened;
    struct writing w = {model, folder, images, golden};
    golden->codes = calloc((size_t)model->layer_count + 1, sizeof *golden->codes);
    if (!golden->codes) return kure_fail_memory(error);
    if (kure_runtime_open(&opened, model->file, model->file_bytes, NULL) != KURE_RUNTIME_OK) return kure_fail(error, KURE_ERROR_INPUT, "the model is damaged");
    struct room room;
    enum kure_status status = begin_room(&room, &opened, error);
    size_t n = kure_runtime_tensor(&opened, 0).elements;
    for (int i = 0; status == KURE_OK && i < images; ++i) status = run_image(&opened, &room, values + (size_t)i * n, i, write_one, &w, error);
    end_room(&room);
    return status;
}

void kure_golden_free(const struct kure_integer_model *model, struct kure_integer_golden *golden)
{
    for (int i = 0; golden->codes && i <= model->layer_count; ++i) free(golden->codes[i]);
    free(golden->codes);
    golden->codes = NULL;
}

/* ---- checking --------------------------------------------------------------------------- */

/* The data of a file of `images` tensors of this shape, at image `image`. */
static enum kure_status read_image(const char *folder, const char *name, const char *type, int image, int images, const struct kure_model_tensor *t,
                                   void *data, size_t bytes, struct kure_error *error)
{
    char path[4400], header[NPY_HEADER], found[NPY_HEADER];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    if (!file) return kure_fail(error, KURE_ERROR_FILE, "%s: no such file, or it cannot be read", path);
    npy_header(header, type, images, t);
    int ok = fread(found, 1, NPY_HEADER, file) == NPY_HEADER && memcmp(found, header, NPY_HEADER) == 0;
    ok = ok && fseek(file, (long)(NPY_HEADER + (size_t)image * bytes), SEEK_SET) == 0 && fread(data, 1, bytes, file) == bytes;
    if (ok && image == images - 1) ok = fgetc(file) == EOF;
    fclose(file);
    if (ok) return KURE_OK;
    return kure_fail(error, KURE_ERROR_INPUT, "%s: is not the array of shape (%d, %u, %u, %u) and type %s that model.kure asks for", path, images, t->channels,
                     t->height, t->width, type);
}

struct checking {
    const char *folder;
    int images;
    void *room; /* the largest tensor as float32 */
    struct kure_golden_difference *difference;
};

static void count_codes(struct kure_golden_difference *d, const struct kure_model_tensor *t, int image, const int8_t *a, const int8_t *b)
{
    d->codes += t->elements;
    for (uint32_t i = 0; i < t->elements; ++i) {
        int apart = abs(a[i] - b[i]);
        if (!apart) continue;
        if (!d->first[0]) {
            snprintf(d->first, sizeof d->first, "%s", t->name);
            d->first_image = image;
        }
        ++d->different;
        if (apart > d->most) d->most = apart;
    }
}

static enum kure_status check_one(void *context, enum what what, int number, int image, const struct kure_model_tensor *t, const void *data,
                                  struct kure_error *error)
{
    struct checking *c = context;
    char name[KURE_GOLDEN_NAME];
    if (what == VALUES) return KURE_OK; /* where they come from */
    if (what == CODES) {
        kure_golden_tensor_name(t->name, name);
        enum kure_status status = read_image(c->folder, name, "|i1", image, c->images, t, c->room, t->elements, error);
        if (status == KURE_OK) count_codes(c->difference, t, image, data, c->room);
        return status;
    }
    kure_golden_output_name(number, name);
    enum kure_status status = read_image(c->folder, name, "<f4", image, c->images, t, c->room, t->elements * sizeof(float), error);
    if (status == KURE_OK && memcmp(data, c->room, t->elements * sizeof(float)) != 0) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s/%s: image %d: is not what its codes stand for", c->folder, name, image);
    }
    return status;
}

enum kure_status kure_golden_check(const struct kure_model *m, const char *folder, int images, struct kure_golden_difference *difference,
                                   struct kure_error *error)
{
    struct kure_model_tensor first = kure_runtime_tensor(m, 0);
    struct room room, found; /* found.values: what a file holds */
    *difference = (struct kure_golden_difference){.tensors = (int)m->layer_count + 1, .images = images};
    enum kure_status status = begin_room(&room, m, error), other = begin_room(&found, m, error);
    struct checking c = {folder, images, found.values, difference};
    float *values = malloc(first.elements * sizeof *values);
    if (status == KURE_OK) status = values ? other : kure_fail_memory(error);
    for (int i = 0; status == KURE_OK && i < images; ++i) {
        status = read_image(folder, KURE_GOLDEN_VALUES, "<f4", i, images, &first, values, first.elements * sizeof(float), error);
        if (status == KURE_OK) status = run_image(m, &room, values, i, check_one, &c, error);
    }
    free(values);
    end_room(&room);
    end_room(&found);
    return status;
}
