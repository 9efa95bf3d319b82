/* manifest_check.c: a bundle read with suspicion; see manifest.h. */
#define _GNU_SOURCE
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bundle.h"
#include "error.h"
#include "kure_format.h"
#include "kure_math.h"
#include "manifest.h"
#include "plan.h"

enum { MOST_SUMS = 1 << 20, MOST_MANIFEST = 1 << 28, MOST_GOLDEN = 1 << 20 };

static int is_name(char **names, int count, const char *name)
{
    for (int i = 0; i < count; ++i) {
        if (strcmp(names[i], name) == 0) return 1;
    }
    return 0;
}

/* "hash  name" of one line -> does the file have it? */
static enum kure_status check_sum(const char *folder, char *line, int number, char **names, int count, struct kure_error *error)
{
    char path[4400], found[KURE_SHA256_TEXT];
    size_t digits = strspn(line, "0123456789abcdef");
    int is_text = 1;
    for (const char *c = line; *c; ++c) is_text &= (unsigned char)*c >= ' ';
    if (digits != 64 || strncmp(line + 64, "  ", 2) != 0 || !is_text) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s/SHA256SUMS:%d: is not '64 digits, two blanks, name'", folder, number);
    }
    const char *name = line + 66;
    if (!is_name(names, count, name)) return kure_fail(error, KURE_ERROR_INPUT, "%s/%s: is missing: SHA256SUMS:%d names it", folder, name, number);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    enum kure_status status = kure_sha256_file(path, found, error);
    if (status != KURE_OK || memcmp(found, line, 64) == 0) return status;
    return kure_fail(error, KURE_ERROR_INPUT, "%s: was changed: its SHA-256 is %.16s..., SHA256SUMS says %.16s...", path, found, line);
}

static enum kure_status check_sums(const char *folder, char **names, int count, struct kure_error *error)
{
    unsigned char *text;
    size_t bytes;
    int lines = 0;
    enum kure_status status = kure_bundle_read(folder, "SHA256SUMS", MOST_SUMS, &text, &bytes, error);
    if (status != KURE_OK) return status;
    char *rest = (char *)text, *line;
    int *seen = calloc((size_t)count, sizeof *seen);
    if (!seen) status = kure_fail_memory(error);
    else if (bytes == 0 || text[bytes - 1] != '\n') status = kure_fail(error, KURE_ERROR_INPUT, "%s/SHA256SUMS: is cut: its last line does not end", folder);
    else if (memchr(text, 0, bytes)) status = kure_fail(error, KURE_ERROR_INPUT, "%s/SHA256SUMS: holds a NUL byte: this is no text", folder);
    while (status == KURE_OK && (line = strsep(&rest, "\n")) != NULL && (*line || rest)) {
        status = check_sum(folder, line, ++lines, names, count, error);
        for (int i = 0; status == KURE_OK && i < count; ++i) seen[i] |= strcmp(names[i], line + 66) == 0;
    }
    for (int i = 0; status == KURE_OK && i < count; ++i) {
        if (!seen[i] && strcmp(names[i], "SHA256SUMS") != 0) {
            status = kure_fail(error, KURE_ERROR_INPUT, "%s/%s: SHA256SUMS does not name it: it is no part of the bundle, or the sums are cut", folder,
                               names[i]);
        }
    }
    free(seen);
    free(text);
    return status;
}

static enum kure_status read_manifest(const char *folder, json_t **root, struct kure_error *error)
{
    unsigned char *text;
    size_t bytes;
    json_error_t what;
    *root = NULL;
    enum kure_status status = kure_bundle_read(folder, "manifest.json", MOST_MANIFEST, &text, &bytes, error);
    if (status != KURE_OK) return status;
    *root = json_loadb((const char *)text, bytes, JSON_REJECT_DUPLICATES, &what);
    free(text);
    if (!*root) return kure_fail(error, KURE_ERROR_INPUT, "%s/manifest.json:%d: no JSON: %s", folder, what.line, what.text);
    const char *format = json_string_value(json_object_get(*root, "format"));
    if (!format) return kure_fail(error, KURE_ERROR_INPUT, "%s/manifest.json: does not say 'format'", folder);
    if (strcmp(format, KURE_BUNDLE_FORMAT) == 0) return KURE_OK;
    return kure_fail(error, KURE_ERROR_INPUT, "%s/manifest.json: is of format '%.40s'; this version reads %s", folder, format, KURE_BUNDLE_FORMAT);
}

static enum kure_status check_file(const char *folder, const char *name, const json_t *entry, uint64_t *all, struct kure_error *error)
{
    char path[4400], hash[33];
    struct stat info;
    const char *xxh3 = json_string_value(json_object_get(entry, "xxh3_128"));
    const json_t *bytes = json_object_get(entry, "bytes");
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (!xxh3 || !json_is_integer(bytes)) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s/manifest.json: files: '%.60s' has no 'bytes' and 'xxh3_128'", folder, name);
    }
    if (stat(path, &info) != 0) return kure_fail(error, KURE_ERROR_FILE, "%s: is missing: manifest.json names it", path);
    if (info.st_size != json_integer_value(bytes)) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s: has %lld bytes, manifest.json says %lld", path, (long long)info.st_size,
                         (long long)json_integer_value(bytes));
    }
    enum kure_status status = kure_hash_file(path, hash, error);
    *all += (uint64_t)info.st_size;
    if (status != KURE_OK || strcmp(hash, xxh3) == 0) return status;
    return kure_fail(error, KURE_ERROR_INPUT, "%s: was changed: its XXH3-128 is %s, manifest.json says %.32s", path, hash, xxh3);
}

/* Every file but these two stands in the manifest. */
static enum kure_status check_files(const char *folder, char **names, int count, json_t *root, struct kure_manifest_check *check, struct kure_error *error)
{
    json_t *files = json_object_get(root, "files");
    const char *name;
    json_t *entry;
    enum kure_status status = KURE_OK;
    if (!json_is_object(files)) return kure_fail(error, KURE_ERROR_INPUT, "%s/manifest.json: does not say 'files'", folder);
    json_object_foreach(files, name, entry) {
        if (!is_name(names, count, name)) status = kure_fail(error, KURE_ERROR_INPUT, "%s/%.60s: is missing: manifest.json names it", folder, name);
        if (status == KURE_OK) status = check_file(folder, name, entry, &check->bytes, error);
        if (status != KURE_OK) return status;
    }
    check->files = count;
    for (int i = 0; i < count; ++i) {
        int own = strcmp(names[i], "manifest.json") == 0 || strcmp(names[i], "SHA256SUMS") == 0;
        if (!own && !json_object_get(files, names[i])) return kure_fail(error, KURE_ERROR_INPUT, "%s/%s: manifest.json does not name it", folder, names[i]);
    }
    return KURE_OK;
}

enum kure_status kure_manifest_check(const char *folder, struct kure_manifest_check *check, struct kure_error *error)
{
    char **names;
    int count;
    json_t *root = NULL;
    *check = (struct kure_manifest_check){.files = 0};
    enum kure_status status = kure_bundle_names(folder, &names, &count, error);
    if (status != KURE_OK) return status;
    if (!is_name(names, count, "manifest.json")) status = kure_fail(error, KURE_ERROR_INPUT, "%s: is no bundle: it holds no manifest.json", folder);
    if (status == KURE_OK) status = check_sums(folder, names, count, error);
    if (status == KURE_OK) status = read_manifest(folder, &root, error);
    if (status == KURE_OK) status = check_files(folder, names, count, root, check, error);
    if (status == KURE_OK) {
        const json_t *images = json_object_get(root, "golden_images");
        const char *profile = json_string_value(json_object_get(json_object_get(root, "profile"), "name"));
        json_int_t n = json_integer_value(images);
        if (!json_is_integer(images) || n < 1 || n > MOST_GOLDEN) {
            status = kure_fail(error, KURE_ERROR_INPUT, "%s/manifest.json: golden_images must be an integer from 1 to %d", folder, MOST_GOLDEN);
        }
        check->golden_images = (int)n;
        snprintf(check->profile, sizeof check->profile, "%s", profile ? profile : "");
    }
    json_decref(root);
    kure_bundle_names_free(names, count);
    return status;
}

static enum kure_status compare_tensor(const char *folder, const json_t *t, const struct kure_model *model, uint32_t i, struct kure_error *error)
{
    struct kure_model_tensor own = kure_runtime_tensor(model, i);
    const char *name = json_string_value(json_object_get(t, "name"));
    double scale = json_number_value(json_object_get(t, "scale"));
    if (!own.name[0] || own.name[strspn(own.name, "abcdefghijklmnopqrstuvwxyz0123456789_")]) { /* its golden file bears it */
        return kure_fail(error, KURE_ERROR_INPUT, "%s/model.kure: tensor %u: its name is not of the characters a-z, 0-9 and _", folder, i);
    }
    int same = name && strcmp(name, own.name) == 0 && kure_bits((float)scale) == own.scale_bits &&
               json_integer_value(json_object_get(t, "zero_point")) == own.zero_point && json_integer_value(json_object_get(t, "low")) == own.low &&
               json_integer_value(json_object_get(t, "high")) == own.high && json_integer_value(json_object_get(t, "bits")) == own.bits;
    const uint32_t shape[3] = {own.channels, own.height, own.width};
    for (size_t k = 0; k < 3; ++k) same &= json_integer_value(json_array_get(json_object_get(t, "shape"), k)) == shape[k];
    return same ? KURE_OK : kure_fail(error, KURE_ERROR_INPUT, "%s: tensor %u (%s) differs between manifest.json and model.kure", folder, i, own.name);
}

enum kure_status kure_manifest_compare(const char *folder, const struct kure_model *model, struct kure_error *error)
{
    json_t *root;
    enum kure_status status = read_manifest(folder, &root, error);
    if (status == KURE_OK) {
        const json_t *tensors = json_object_get(root, "tensors");
        const char *profile = json_string_value(json_object_get(json_object_get(root, "profile"), "name"));
        if (!profile || strcmp(profile, kure_runtime_profile(model)) != 0) {
            status = kure_fail(error, KURE_ERROR_INPUT, "%s: manifest.json says profile '%.24s', model.kure '%s'", folder, profile ? profile : "",
                               kure_runtime_profile(model));
        } else if (json_array_size(tensors) != model->layer_count + 1) {
            status = kure_fail(error, KURE_ERROR_INPUT, "%s: manifest.json has %zu tensors, model.kure %u", folder, json_array_size(tensors),
                               model->layer_count + 1);
        }
        for (uint32_t i = 0; status == KURE_OK && i <= model->layer_count; ++i) {
            status = compare_tensor(folder, json_array_get(tensors, i), model, i, error);
        }
    }
    json_decref(root);
    return status;
}
