/* test_fuzz.c: every file of tests/fuzz/corpus, and copies of them with bytes changed, cut and put in, by the targets of tests/fuzz. */
#include "check.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../fuzz/fuzz.h"

#define CORPUS KURE_GOLDEN "/../fuzz/corpus"

enum { MOST_BYTES = 1 << 16 };

static uint8_t *read_file(const char *target, const char *name, size_t *size)
{
    char path[1024];
    uint8_t *data = malloc(MOST_BYTES);
    snprintf(path, sizeof path, CORPUS "/%s/%s", target, name);
    FILE *in = fopen(path, "rb");
    assert_non_null(in);
    assert_non_null(data);
    *size = fread(data, 1, MOST_BYTES, in);
    assert_true(*size < MOST_BYTES);
    fclose(in);
    return data;
}

/* One byte replaced, put in or taken out, or the end cut off. */
static void change(struct random *r, uint8_t *data, size_t *size)
{
    static const uint8_t bytes[] = {0, 1, 9, '\n', '\r', ' ', '"', '#', ',', '-', '.', '0', '9', ';', '=', '[', ']', '{', '}', 0x7f, 0x80, 0xff};
    size_t at = (size_t)(random_uniform(r) * (double)*size), kind = (size_t)(random_uniform(r) * 8);
    uint8_t byte = bytes[(size_t)(random_uniform(r) * COUNT(bytes))];
    if (!*size) return;
    if (kind == 0) *size = at;
    else if (kind == 1) memmove(data + at, data + at + 1, --*size - at);
    else if (kind < 4 && *size < MOST_BYTES - 1) {
        memmove(data + at + 1, data + at, (*size)++ - at);
        data[at] = byte;
    } else data[at] = byte;
}

static void replay(const char *name, fuzz_target *target, int copies)
{
    struct dirent *entry;
    int count = 0;
    char path[1024];
    snprintf(path, sizeof path, CORPUS "/%s", name);
    DIR *folder = opendir(path);
    assert_non_null(folder);
    while ((entry = readdir(folder))) {
        size_t size;
        if (entry->d_name[0] == '.') continue;
        uint8_t *data = read_file(name, entry->d_name, &size);
        struct random r = random_start(entry->d_name);
        target(data, size);
        for (int i = 0; i < copies; i++) {
            size_t bytes = size;
            uint8_t *copy = malloc(MOST_BYTES);
            assert_non_null(copy);
            memcpy(copy, data, size);
            for (int changes = 1 + (int)(random_uniform(&r) * 3); changes; changes--) change(&r, copy, &bytes);
            target(copy, bytes);
            free(copy);
        }
        free(data);
        count++;
    }
    closedir(folder);
    print_message("%s: %d files, %d changed copies of each\n", name, count, copies);
    assert_true(count >= 3);
}

static void test_model(void **state)
{
    (void)state;
    replay("model", fuzz_model, 5);
}

static void test_bundle(void **state)
{
    (void)state;
    replay("bundle", fuzz_bundle, 2);
}

static void test_sidecar(void **state)
{
    (void)state;
    replay("sidecar", fuzz_sidecar, 50);
}

static void test_cfg(void **state)
{
    (void)state;
    replay("cfg", fuzz_cfg, 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model), cmocka_unit_test(test_bundle), cmocka_unit_test(test_sidecar), cmocka_unit_test(test_cfg),
    };
    return check_main(tests);
}
