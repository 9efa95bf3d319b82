/*
 * bundle.h: the folder NAME.edge: its files written, hashed, checked. It gets its name when
 * all of it is written and on the disk.
 */
#ifndef KURE_EXPORT_BUNDLE_H
#define KURE_EXPORT_BUNDLE_H

#include <stddef.h>
#include <stdio.h>

#include "kure.h"

struct kure_bundle {
    const char *path; /* as the user gave it; borrowed */
    char *temporary;  /* owned: the folder while it is written, beside `path`; NULL: none */
    int replace;      /* an earlier bundle of that name */
};

/* Makes the temporary folder. KURE_ERROR_FILE: something is there already (without replace), or nothing can be made there.
 * replace [in]: 1: an earlier bundle of that name is replaced when this one is complete; nothing else is */
KURE_CHECKED enum kure_status kure_bundle_begin(const char *path, int replace, struct kure_bundle *bundle, struct kure_error *error);

/* Syncs all files and gives the folder its name: at every instant that names the earlier bundle or this one, whole. After an error
 * the temporary folder is still there. */
KURE_CHECKED enum kure_status kure_bundle_finish(struct kure_bundle *bundle, struct kure_error *error);

/* Gives up: deletes the temporary folder. After finish it does nothing. May be called in a signal handler, and any number of times. */
void kure_bundle_abandon(const struct kure_bundle *bundle);

/* Writes a whole file of a folder; `name` may begin with one folder, which is made: "golden/input.npy". */
KURE_CHECKED enum kure_status kure_bundle_write(const char *folder, const char *name, const void *data, size_t bytes, struct kure_error *error);
/* The same piece by piece: open, any number of fwrite, close; close says whether all of it is written. mode [in]: "wb", "ab" */
KURE_CHECKED enum kure_status kure_bundle_open(const char *folder, const char *name, const char *mode, FILE **file, struct kure_error *error);
KURE_CHECKED enum kure_status kure_bundle_close(const char *folder, const char *name, FILE *file, struct kure_error *error);

/* Names of all files, "golden/input.npy", in the order of the alphabet; in folders one deep.
 * names [out]: [count] and each one to be freed: kure_bundle_names_free. KURE_ERROR_INPUT: something that is neither. */
KURE_CHECKED enum kure_status kure_bundle_names(const char *folder, char ***names, int *count, struct kure_error *error);
void kure_bundle_names_free(char **names, int count);

/* A whole file in memory, to be freed; at most `most` bytes. */
KURE_CHECKED enum kure_status kure_bundle_read(const char *folder, const char *name, size_t most, unsigned char **data, size_t *bytes,
                                               struct kure_error *error);

enum { KURE_SHA256_TEXT = 65 };
/* SHA-256 of a file as 64 hexadecimal digits; XXH3-128 is kure_hash_file. */
KURE_CHECKED enum kure_status kure_sha256_file(const char *path, char hash[KURE_SHA256_TEXT], struct kure_error *error);

#endif
