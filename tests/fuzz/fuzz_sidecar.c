/* fuzz_sidecar.c: any bytes as <weights>.kure; see fuzz.h. */
#define _GNU_SOURCE
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "kure_format.h"

/* The hash of the tensors, where the header says one: 32 digits behind "data": */
static void seal(uint8_t *data, size_t size)
{
    static const char key[] = "\"data\":\"";
    uint64_t header = 0;
    char digits[33];
    for (int i = 0; i < 8 && size >= 8; i++) header |= (uint64_t)data[i] << 8 * i;
    if (size < 8 || header > size - 8) return;
    uint8_t *at = memmem(data + 8, header, key, sizeof key - 1);
    if (!at || (size_t)(at - data) + sizeof key - 1 + 32 > 8 + header) return;
    XXH128_hash_t hash = XXH3_128bits(data + 8 + header, size - 8 - header);
    snprintf(digits, sizeof digits, "%016llx%016llx", (unsigned long long)hash.high64, (unsigned long long)hash.low64);
    memcpy(at + sizeof key - 1, digits, 32);
}

/* What was read is written and read as the same: the hash, which is the writer's, is left out. */
static void write_again(struct kure_file *file)
{
    struct kure_file again;
    struct kure_error error;
    for (int i = 0; i < file->text_count; i++) {
        if (strcmp(file->texts[i].name, "data") == 0) file->texts[i] = file->texts[--file->text_count];
    }
    const char *path = fuzz_file(1, (const uint8_t *)"", 0);
    if (kure_file_write(file, path, &error) != KURE_OK || kure_file_read(path, &again, &error) != KURE_OK) abort();
    if (again.text_count != file->text_count + 1 || again.tensor_count != file->tensor_count) abort();
    for (int i = 0; i < file->tensor_count; i++) {
        const struct kure_file_tensor *t = &file->tensors[i], *u = kure_file_tensor(&again, t->name);
        if (!u || u->count != t->count || (t->count && memcmp(u->data, t->data, t->count * sizeof *t->data))) abort();
    }
    kure_file_free(&again);
}

void fuzz_sidecar(const uint8_t *data, size_t size)
{
    struct kure_file file;
    struct kure_error error = {""};
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy) abort();
    memcpy(copy, data, size);
    seal(copy, size);
    enum kure_status status = kure_file_read(fuzz_file(0, copy, size), &file, &error);
    fuzz_check_error(status, &error);
    if (status == KURE_OK) write_again(&file);
    kure_file_free(&file);
    free(copy);
}
