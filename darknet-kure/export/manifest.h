/*
 * manifest.h: manifest.json and SHA256SUMS: written, read, checked. README.md here documents every field.
 */
#ifndef KURE_EXPORT_MANIFEST_H
#define KURE_EXPORT_MANIFEST_H

#include "model.h"

struct kure_manifest_facts {
    int golden_images;
    const char *formats;   /* names between blanks, that were written */
    const char *calibration; /* where the ranges of activations come from, in words */
};

/* Hashes every file in the folder and writes manifest.json, then SHA256SUMS; the last step before the bundle gets its name. */
KURE_CHECKED enum kure_status kure_manifest_write(const struct kure_integer_model *model, const char *folder, const struct kure_manifest_facts *facts,
                                                  struct kure_error *error);

/* What verify found. */
struct kure_manifest_check {
    int files;
    uint64_t bytes;
    int golden_images;
    char profile[KURE_INTEGER_NAME];
};

/* SHA256SUMS names exactly the files that are there, each has its hashes and size, manifest.json is of a version that
 * this tool knows. KURE_ERROR_INPUT or _FILE: one of these is not so. */
KURE_CHECKED enum kure_status kure_manifest_check(const char *folder, struct kure_manifest_check *check, struct kure_error *error);

/* Does model.kure say what manifest.json says: profile, layers, and every tensor's shape, scale and zero point? */
KURE_CHECKED enum kure_status kure_manifest_compare(const char *folder, const struct kure_model *model, struct kure_error *error);

#endif
