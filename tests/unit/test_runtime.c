/*
 * test_runtime.c: files of tests/fuzz/corpus/model, whole, cut at every byte and changed in every
 * byte: refused or run, never a crash. What the layers compute: tests/test_runtime_layers.py.
 */
#include "check.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../fuzz/fuzz.h"
#include "kure_runtime.h"

#define CORPUS KURE_GOLDEN "/../fuzz/corpus/model"

struct file {
    char name[300];
    uint8_t bytes[8192];
    size_t size;
} files[64];
static size_t file_count;

static int read_corpus(void **state)
{
    DIR *folder = opendir(CORPUS);
    struct dirent *entry;
    (void)state;
    assert_non_null(folder);
    while ((entry = readdir(folder))) {
        char path[1024];
        size_t n = strlen(entry->d_name);
        if (n < 5 || strcmp(entry->d_name + n - 5, ".kure")) continue;
        assert_true(file_count < COUNT(files));
        struct file *f = &files[file_count++];
        snprintf(f->name, sizeof f->name, "%s", entry->d_name);
        snprintf(path, sizeof path, CORPUS "/%s", entry->d_name);
        FILE *in = fopen(path, "rb");
        assert_non_null(in);
        f->size = fread(f->bytes, 1, sizeof f->bytes, in);
        assert_true(f->size > 0 && f->size < sizeof f->bytes);
        fclose(in);
    }
    closedir(folder);
    assert_true(file_count >= 9);
    return 0;
}

static void test_corpus_is_sound(void **state)
{
    (void)state;
    for (size_t i = 0; i < file_count; i++) {
        int status = fuzz_open(files[i].bytes, files[i].size, 0);
        if (status != KURE_RUNTIME_OK) fail_msg("%s: status %d", files[i].name, status);
    }
}

static void test_cut_at_every_byte(void **state)
{
    (void)state;
    for (size_t i = 0; i < file_count; i++) {
        for (size_t size = 0; size < files[i].size; size++) {
            int status = fuzz_open(files[i].bytes, size, 0), wanted = size < 8 ? KURE_RUNTIME_NOT_A_MODEL : KURE_RUNTIME_CUT;
            if (status != wanted) fail_msg("%s cut to %zu bytes: status %d", files[i].name, size, status);
            fuzz_open(files[i].bytes, size, 1); /* the sizes fit, the arrays do not */
        }
    }
}

/* Without another checksum every change is found. */
static void test_every_byte_changed(void **state)
{
    static const uint8_t changes[] = {0x01, 0x80, 0xff, 0x10};
    (void)state;
    for (size_t i = 0; i < file_count; i++) {
        struct file f = files[i];
        for (size_t at = 0; at < f.size; at++) {
            for (size_t k = 0; k < COUNT(changes); k++) {
                f.bytes[at] ^= changes[k];
                int status = fuzz_open(f.bytes, f.size, 0);
                if (status == KURE_RUNTIME_OK) fail_msg("%s: byte %zu changed by %02x was not found", f.name, at, changes[k]);
                f.bytes[at] ^= changes[k];
            }
        }
    }
}

/* With a checksum that fits, the checks of the fields are reached: some of these are other
 * models, none may do harm. */
static void test_every_byte_changed_and_sealed(void **state)
{
    static const uint8_t values[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
    size_t sound = 0, refused = 0;
    (void)state;
    for (size_t i = 0; i < file_count; i++) {
        struct file f = files[i];
        for (size_t at = 0; at < f.size; at++) {
            uint8_t was = f.bytes[at];
            for (size_t k = 0; k < COUNT(values) + 2; k++) {
                f.bytes[at] = k < COUNT(values) ? values[k] : (uint8_t)(was + (k == COUNT(values) ? 1 : -1));
                int status = fuzz_open(f.bytes, f.size, 1);
                if (status == KURE_RUNTIME_OK) sound++;
                else refused++;
            }
            f.bytes[at] = was;
        }
    }
    print_message("%zu changed files are sound, %zu refused\n", sound, refused);
    assert_true(sound > 1000 && refused > 1000);
}

/* Words changed at random, several at once */
static void test_random_words(void **state)
{
    static const uint32_t words[] = {0, 1, 2, 3, 4, 96, 127, 128, 255, 256, 65535, 65536, 0x3f800000, 0x7f800000, 0x7fffffff, 0x80000000, 0xffffff80, 0xffffffff};
    struct random r = random_start("random_words");
    (void)state;
    for (int trial = 0; trial < 20000; trial++) {
        struct file f = files[(size_t)(random_uniform(&r) * (double)file_count)];
        for (int changes = 1 + (int)(random_uniform(&r) * 3); changes; changes--) {
            size_t at = 8 + 4 * (size_t)(random_uniform(&r) * (double)((f.size - 8) / 4));
            uint32_t word = words[(size_t)(random_uniform(&r) * COUNT(words))];
            for (int k = 0; k < 4 && at + (size_t)k < f.size; k++) f.bytes[at + (size_t)k] = (uint8_t)(word >> 8 * k);
        }
        fuzz_open(f.bytes, f.size, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_corpus_is_sound, read_corpus),
        cmocka_unit_test(test_cut_at_every_byte),
        cmocka_unit_test(test_every_byte_changed),
        cmocka_unit_test(test_every_byte_changed_and_sealed),
        cmocka_unit_test(test_random_words),
    };
    return check_main(tests);
}
