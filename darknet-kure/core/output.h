/*
 * output.h: a file that a command writes: replaced in one step, or left as it was.
 *
 * Links are followed, so that what they point to is replaced and they stay. A target
 * that is no regular file (a pipe, a device) is written into. Tested by
 * tests/test_outputs.py.
 */
#ifndef KURE_OUTPUT_H
#define KURE_OUTPUT_H

#include <stdio.h>

#include "kure.h"

struct kure_output {
    FILE *file;
    const char *path; /* as the user gave it, for messages; borrowed */
    char *target;     /* owned: behind all links */
    char *temporary;  /* owned: renamed to target when all is written; NULL: written in place */
};

/* path [in], out [out]: to be closed. KURE_ERROR_FILE: it cannot be written. */
KURE_CHECKED enum kure_status kure_output_open(const char *path, struct kure_output *out, struct kure_error *error);

/* written [in]: 0 gives up and leaves the old file. Frees `out` in any case. */
KURE_CHECKED enum kure_status kure_output_close(struct kure_output *out, int written, struct kure_error *error);

/* Whether `path` could be opened and replaced now, before hours of work; writes nothing. */
KURE_CHECKED enum kure_status kure_output_check(const char *path, struct kure_error *error);

/* The name behind symbolic links, also where nothing lies there yet. To be freed;
 * NULL: a circle of links or no memory, with errno. */
char *kure_follow_links(const char *path);

/* 1: both paths name one file, or would when it is written. */
int kure_is_same_file(const char *a, const char *b);

/* 1: something lies there that is no regular file. */
int kure_is_special(const char *path);

#endif
