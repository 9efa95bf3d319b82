/* fuzz_file.c: see fuzz.h. */
#define _GNU_SOURCE
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kure.h"

const char *fuzz_file(int number, const uint8_t *data, size_t size)
{
    static int files[2];
    static char paths[2][64];
    int *file = &files[number];
    if (*file == 0) *file = memfd_create("fuzz", MFD_CLOEXEC);
    if (*file <= 0 || ftruncate(*file, 0) != 0 || pwrite(*file, data, size, 0) != (ssize_t)size) abort();
    snprintf(paths[number], sizeof paths[number], "/proc/self/fd/%d", *file);
    return paths[number];
}

void fuzz_check_error(int status, const struct kure_error *error)
{
    if (status != KURE_OK && (!error->text[0] || strchr(error->text, '\n'))) abort();
}
