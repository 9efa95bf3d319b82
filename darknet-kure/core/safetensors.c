/* safetensors.c: reads and writes the layout of kure_format.h; JSON by jansson. */
#define _GNU_SOURCE
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "error.h"
#include "kure_format.h"

_Static_assert(sizeof(float) == 4, "tensors are float32");

enum { LENGTH_BYTES = 8, HEADER_LIMIT = 64 << 20 };

enum kure_status kure_file_add_text(struct kure_file *file, const char *name, const char *value, struct kure_error *error)
{
    enum { LIMIT = sizeof file->texts / sizeof *file->texts };
    if (file->text_count == LIMIT || strlen(name) >= sizeof file->texts->name || strlen(value) >= sizeof file->texts->value) {
        return kure_fail(error, KURE_ERROR_INPUT, "metadata '%.64s' does not fit the file format", name);
    }
    struct kure_file_text *text = &file->texts[file->text_count++];
    strcpy(text->name, name);
    strcpy(text->value, value);
    return KURE_OK;
}

enum kure_status kure_file_add_tensor(struct kure_file *file, const char *name, float *data, size_t count,
                                      struct kure_error *error)
{
    struct kure_file_tensor *grown = realloc(file->tensors, ((size_t)file->tensor_count + 1) * sizeof *grown);
    if (!grown) return kure_fail_memory(error);
    file->tensors = grown;
    struct kure_file_tensor *t = &grown[file->tensor_count];
    if (strlen(name) >= sizeof t->name) return kure_fail(error, KURE_ERROR_INPUT, "tensor name '%.80s' is too long", name);
    strcpy(t->name, name);
    t->data = data;
    t->count = count;
    file->tensor_count++;
    return KURE_OK;
}

/* The metadata that this file adds and checks by itself: XXH3-128 of all bytes of tensors. */
static const char DATA_HASH[] = "data";
enum { HASH_CHARS = 33 };

static void hash_text(XXH128_hash_t h, char out[HASH_CHARS])
{
    snprintf(out, HASH_CHARS, "%016llx%016llx", (unsigned long long)h.high64, (unsigned long long)h.low64);
}

static enum kure_status hash_tensors(const struct kure_file *file, char out[HASH_CHARS], struct kure_error *error)
{
    XXH3_state_t *state = XXH3_createState();
    if (!state) return kure_fail_memory(error);
    XXH3_128bits_reset(state);
    for (int i = 0; i < file->tensor_count; ++i) {
        XXH3_128bits_update(state, file->tensors[i].data, file->tensors[i].count * sizeof(float));
    }
    hash_text(XXH3_128bits_digest(state), out);
    XXH3_freeState(state);
    return KURE_OK;
}

/* ------------------------------------------------------------------------- */
/* Writing                                                                    */

static char *header_text(const struct kure_file *file)
{
    json_t *root = json_object(), *metadata = json_object();
    int failed = !root || !metadata;
    for (int i = 0; !failed && i < file->text_count; ++i) {
        failed |= json_object_set_new(metadata, file->texts[i].name, json_string(file->texts[i].value));
    }
    failed |= json_object_set_new(root, "__metadata__", metadata);
    json_int_t offset = 0;
    for (int i = 0; !failed && i < file->tensor_count; ++i) {
        const struct kure_file_tensor *t = &file->tensors[i];
        json_int_t end = offset + (json_int_t)(t->count * sizeof(float));
        failed |= json_object_set_new(root, t->name, json_pack("{s:s, s:[I], s:[I, I]}", "dtype", "F32", "shape",
                                                               (json_int_t)t->count, "data_offsets", offset, end));
        offset = end;
    }
    char *text = failed ? NULL : json_dumps(root, JSON_COMPACT);
    json_decref(root);
    return text;
}

static int write_all(const struct kure_file *file, const char *header, FILE *out)
{
    size_t bytes = strlen(header), padded = (bytes + 7) / 8 * 8;
    unsigned char length[LENGTH_BYTES];
    for (int i = 0; i < LENGTH_BYTES; ++i) length[i] = (unsigned char)((uint64_t)padded >> (8 * i));
    int ok = fwrite(length, 1, LENGTH_BYTES, out) == LENGTH_BYTES && fwrite(header, 1, bytes, out) == bytes;
    for (; bytes < padded; ++bytes) ok = ok && fputc(' ', out) != EOF;
    for (int i = 0; ok && i < file->tensor_count; ++i) {
        ok = fwrite(file->tensors[i].data, sizeof(float), file->tensors[i].count, out) == file->tensors[i].count;
    }
    return ok && fflush(out) == 0 && fsync(fileno(out)) == 0;
}

enum kure_status kure_file_write(const struct kure_file *file, const char *path, struct kure_error *error)
{
    struct kure_file named = *file;
    char hash[HASH_CHARS];
    enum kure_status status = hash_tensors(file, hash, error);
    if (status == KURE_OK) status = kure_file_add_text(&named, DATA_HASH, hash, error);
    if (status != KURE_OK) return status;
    char *header = header_text(&named);
    if (!header) return kure_fail_memory(error);
    FILE *out = fopen(path, "wb");
    int ok = out != NULL && write_all(file, header, out);
    int cause = errno;
    free(header);
    if (out && fclose(out) != 0 && ok) {
        cause = errno;
        ok = 0;
    }
    if (ok) return KURE_OK;
    if (out) unlink(path);
    return kure_fail(error, KURE_ERROR_FILE, "%s: cannot be written: %s", path, strerror(cause));
}

/* ------------------------------------------------------------------------- */
/* Reading                                                                    */

static enum kure_status damaged(const char *path, const char *what, struct kure_error *error)
{
    return kure_fail(error, KURE_ERROR_INPUT, "%s: damaged: %s", path, what);
}

/* The whole file into file->buffer. */
static enum kure_status read_bytes(const char *path, struct kure_file *file, size_t *bytes, struct kure_error *error)
{
    struct stat info;
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode)) return kure_fail(error, KURE_ERROR_INPUT, "%s: is no regular file", path);
    FILE *in = fopen(path, "rb");
    if (!in) return kure_fail(error, KURE_ERROR_FILE, "%s: cannot be opened: %s", path, strerror(errno));
    long size = fseek(in, 0, SEEK_END) == 0 ? ftell(in) : -1;
    enum kure_status status = KURE_OK;
    if (size < LENGTH_BYTES || fseek(in, 0, SEEK_SET) != 0) {
        status = damaged(path, "shorter than its own length field", error);
    } else {
        *bytes = (size_t)size;
        file->buffer = malloc(*bytes);
        if (!file->buffer) status = kure_fail_memory(error);
        else if (fread(file->buffer, 1, *bytes, in) != *bytes) {
            status = kure_fail(error, KURE_ERROR_FILE, "%s: cannot be read", path);
        }
    }
    fclose(in);
    return status;
}

static enum kure_status read_metadata(const char *path, const json_t *metadata, struct kure_file *file, struct kure_error *error)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)metadata, name, value) {
        if (!json_is_string(value)) return damaged(path, "metadata that is no text", error);
        struct kure_error reason;
        if (kure_file_add_text(file, name, json_string_value(value), &reason) != KURE_OK) return damaged(path, reason.text, error);
    }
    return KURE_OK;
}

static enum kure_status read_tensor(const char *path, const char *name, json_t *entry, unsigned char *data, size_t data_bytes,
                                    struct kure_file *file, struct kure_error *error)
{
    const char *dtype = NULL;
    json_int_t count, begin, end;
    if (json_unpack(entry, "{s:s, s:[I!], s:[I, I!]}", "dtype", &dtype, "shape", &count, "data_offsets", &begin, &end) != 0) {
        return damaged(path, "a tensor without dtype, shape and offsets", error);
    }
    if (strcmp(dtype, "F32") != 0) return damaged(path, "a tensor that is not F32", error);
    if (count < 0 || begin < 0 || end < begin || (uint64_t)end > data_bytes || begin % 4 != 0 ||
        (uint64_t)(end - begin) / sizeof(float) != (uint64_t)count || (end - begin) % (json_int_t)sizeof(float) != 0) {
        return damaged(path, "a tensor outside of the file or of another size than its shape", error);
    }
    return kure_file_add_tensor(file, name, (float *)(void *)(data + begin), (size_t)count, error);
}

static int by_place(const void *a, const void *b)
{
    const struct kure_file_tensor *x = a, *y = b;
    if (x->data != y->data) return x->data < y->data ? -1 : 1;
    return (x->count > y->count) - (x->count < y->count);
}

/* The tensors fill the data one behind the other. */
static enum kure_status check_places(const char *path, unsigned char *data, size_t data_bytes, struct kure_file *file, struct kure_error *error)
{
    const float *end = (const float *)(void *)data;
    if (file->tensor_count) qsort(file->tensors, (size_t)file->tensor_count, sizeof *file->tensors, by_place);
    for (int i = 0; i < file->tensor_count; ++i) {
        if (file->tensors[i].data != end) return damaged(path, "tensors overlap or leave a hole", error);
        end += file->tensors[i].count;
    }
    if ((const unsigned char *)end != data + data_bytes) return damaged(path, "tensors overlap or leave a hole", error);
    return KURE_OK;
}

static enum kure_status read_header(const char *path, json_t *root, unsigned char *data, size_t data_bytes,
                                    struct kure_file *file, struct kure_error *error)
{
    const char *name;
    json_t *entry;
    if (!json_is_object(root)) return damaged(path, "the header is no JSON object", error);
    json_object_foreach(root, name, entry) {
        enum kure_status status = strcmp(name, "__metadata__") == 0
                                      ? read_metadata(path, entry, file, error)
                                      : read_tensor(path, name, entry, data, data_bytes, file, error);
        if (status != KURE_OK) return status;
    }
    return check_places(path, data, data_bytes, file, error);
}

enum kure_status kure_file_read(const char *path, struct kure_file *file, struct kure_error *error)
{
    memset(file, 0, sizeof *file);
    size_t bytes = 0;
    enum kure_status status = read_bytes(path, file, &bytes, error);
    if (status != KURE_OK) return status;
    uint64_t header = 0;
    for (int i = 0; i < LENGTH_BYTES; ++i) header |= (uint64_t)file->buffer[i] << (8 * i);
    if (header > HEADER_LIMIT || header > bytes - LENGTH_BYTES || header % 8 != 0) {
        return damaged(path, "the header's length", error);
    }
    unsigned char *data = file->buffer + LENGTH_BYTES + header;
    json_t *root = json_loadb((const char *)file->buffer + LENGTH_BYTES, header, JSON_REJECT_DUPLICATES, NULL);
    status = read_header(path, root, data, bytes - LENGTH_BYTES - header, file, error);
    json_decref(root);
    if (status != KURE_OK) return status;
    char hash[HASH_CHARS];
    const char *said = kure_file_text(file, DATA_HASH);
    hash_text(XXH3_128bits(data, bytes - LENGTH_BYTES - header), hash);
    if (!said || strcmp(said, hash) != 0) return damaged(path, "the tensors are not the ones that were written", error);
    return KURE_OK;
}

const char *kure_file_text(const struct kure_file *file, const char *name)
{
    for (int i = 0; i < file->text_count; ++i) {
        if (strcmp(file->texts[i].name, name) == 0) return file->texts[i].value;
    }
    return NULL;
}

const struct kure_file_tensor *kure_file_tensor(const struct kure_file *file, const char *name)
{
    for (int i = 0; i < file->tensor_count; ++i) {
        if (strcmp(file->tensors[i].name, name) == 0) return &file->tensors[i];
    }
    return NULL;
}

void kure_file_free(struct kure_file *file)
{
    free(file->tensors);
    free(file->buffer);
    memset(file, 0, sizeof *file);
}
