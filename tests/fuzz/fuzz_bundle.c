/*
 * fuzz_bundle.c: any bytes as one file of a bundle; see fuzz.h.
 *
 * The bundle is tests/fuzz/bundle. Byte 0 says which of its files, in the order of their
 * names, has the bytes from 2 on; bit 0 of byte 1 makes manifest.json say the sizes and
 * hashes of the files and SHA256SUMS theirs, so that what is behind these checks is
 * reached, bit 1 takes the file away.
 */
#define _GNU_SOURCE
#include "fuzz.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bundle.h"
#include "error.h"
#include "plan.h"
#include "verify.h"

enum { MOST_FILES = 32, PATH_BYTES = 4400, MOST_STEPS = 1 << 22, SEALED = 1, MISSING = 2 };

static char folder[200]; /* that is verified */
static struct file {
    char name[64];
    unsigned char *data;
    size_t size;
    int changed; /* what lies in the folder is not `data` */
} files[MOST_FILES];
static int file_count;

static void stop(const char *what)
{
    fprintf(stderr, "fuzz_bundle: %s: %s\n", FUZZ_FOLDER "/bundle", what);
    abort();
}

static void write_file(const char *name, const void *data, size_t size)
{
    struct kure_error error;
    if (kure_bundle_write(folder, name, data, size, &error) != KURE_OK) stop(error.text);
}

static void end(void)
{
    struct kure_bundle bundle = {.temporary = folder};
    kure_bundle_abandon(&bundle);
}

static void begin(void)
{
    char **names;
    struct kure_error error;
    const char *place = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/fuzz_bundle-XXXXXX", place ? place : "/tmp");
    if (!mkdtemp(folder)) stop("no temporary folder");
    atexit(end);
    if (kure_bundle_names(FUZZ_FOLDER "/bundle", &names, &file_count, &error) != KURE_OK || file_count > MOST_FILES) stop("cannot be read");
    for (int i = 0; i < file_count; i++) {
        struct file *f = &files[i];
        snprintf(f->name, sizeof f->name, "%s", names[i]);
        if (kure_bundle_read(FUZZ_FOLDER "/bundle", f->name, 1 << 20, &f->data, &f->size, &error) != KURE_OK) stop(error.text);
        write_file(f->name, f->data, f->size);
    }
    kure_bundle_names_free(names, file_count);
}

static struct file *find(const char *name)
{
    for (int i = 0; i < file_count; i++) {
        if (strcmp(files[i].name, name) == 0) return &files[i];
    }
    stop("a file is missing");
    return NULL;
}

/* manifest.json with the sizes and hashes of the files that it names and that are there. */
static void seal_manifest(void)
{
    char path[PATH_BYTES], hash[33], *text;
    const char *name;
    json_t *entry;
    snprintf(path, sizeof path, "%s/manifest.json", folder);
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, NULL), *named = json_object_get(root, "files");
    json_object_foreach(named, name, entry) {
        for (int i = 0; i < file_count; i++) {
            if (strcmp(files[i].name, name)) continue;
            snprintf(path, sizeof path, "%s/%s", folder, name);
            FILE *file = fopen(path, "rb");
            if (!file) continue;
            fseek(file, 0, SEEK_END);
            if (json_is_integer(json_object_get(entry, "bytes"))) json_object_set_new(entry, "bytes", json_integer(ftell(file)));
            fclose(file);
            if (json_is_string(json_object_get(entry, "xxh3_128")) && kure_hash_file(path, hash, NULL) == KURE_OK) {
                json_object_set_new(entry, "xxh3_128", json_string(hash));
            }
        }
    }
    text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    if (text) write_file("manifest.json", text, strlen(text));
    find("manifest.json")->changed |= text != NULL;
    free(text);
    json_decref(root);
}

static void seal_sums(void)
{
    char path[PATH_BYTES], hash[KURE_SHA256_TEXT], text[MOST_FILES * 160] = "";
    for (int i = 0; i < file_count; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i].name);
        if (strcmp(files[i].name, "SHA256SUMS") == 0 || kure_sha256_file(path, hash, NULL) != KURE_OK) continue;
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s  %s\n", hash, files[i].name);
    }
    write_file("SHA256SUMS", text, strlen(text));
    find("SHA256SUMS")->changed = 1;
}

/* Not a model that takes longer than a test may. */
static int is_short(const struct file *f, const uint8_t *data, size_t size)
{
    struct kure_model m;
    uint64_t steps = 0;
    if (strcmp(f->name, "model.kure") || kure_runtime_open(&m, data, size, NULL) != KURE_RUNTIME_OK) return 1;
    for (uint32_t i = 0; i < m.layer_count; i++) {
        struct kure_model_layer l = kure_runtime_layer(&m, i);
        struct kure_model_tensor in = kure_runtime_tensor(&m, kure_runtime_input(&m, &l, 0)), out = kure_runtime_tensor(&m, i + 1);
        steps += (uint64_t)out.elements * (l.row ? l.row : (uint64_t)in.height * in.width) + in.elements;
    }
    return steps <= MOST_STEPS && kure_runtime_arena_bytes(&m) <= MOST_STEPS;
}

void fuzz_bundle(const uint8_t *data, size_t size)
{
    struct kure_manifest_check check;
    struct kure_golden_difference golden;
    struct kure_error error = {""};
    char path[PATH_BYTES];
    if (!file_count) begin();
    if (size < 2) return;
    struct file *f = &files[data[0] % file_count];
    int sealed = data[1] & SEALED, missing = data[1] & MISSING;
    uint8_t *copy = malloc(size); /* of a model the size and the checksum fit as well */
    if (!copy) abort();
    memcpy(copy, data + 2, size - 2);
    if (sealed && strcmp(f->name, "model.kure") == 0) fuzz_seal(copy, size - 2);
    if (is_short(f, copy, size - 2)) {
        snprintf(path, sizeof path, "%s/%s", folder, f->name);
        f->changed = 1;
        if (missing) unlink(path);
        else write_file(f->name, copy, size - 2);
        if (sealed) seal_manifest();
        if (sealed && strcmp(f->name, "SHA256SUMS")) seal_sums();
        enum kure_status status = kure_bundle_verify(folder, &check, &golden, &error);
        fuzz_check_error(status, &error);
        int same = !missing && size - 2 == f->size && memcmp(copy, f->data, f->size) == 0;
        if (status == KURE_OK && !sealed && !same && strcmp(f->name, "SHA256SUMS")) stop("a change was not found");
    }
    for (int i = 0; i < file_count; i++) {
        if (files[i].changed) write_file(files[i].name, files[i].data, files[i].size);
        files[i].changed = 0;
    }
    free(copy);
}
