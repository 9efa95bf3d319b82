/*
 * verify.h: a bundle read with suspicion, and run: for `darknet kure verify`.
 */
#ifndef KURE_EXPORT_VERIFY_H
#define KURE_EXPORT_VERIFY_H

#include "golden.h"
#include "manifest.h"

/* Files against SHA256SUMS and manifest.json, model.kure against manifest.json, then every golden image through the runtime.
 *   files, golden  [out]: what was found; golden codes that differ are no error
 * KURE_ERROR_INPUT, KURE_ERROR_FILE: a file is missing, changed, cut, of a newer version, or not what another one says. */
KURE_CHECKED enum kure_status kure_bundle_verify(const char *folder, struct kure_manifest_check *files, struct kure_golden_difference *golden,
                                                 struct kure_error *error);

#endif
