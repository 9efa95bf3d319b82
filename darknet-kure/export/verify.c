/* verify.c: see verify.h. Tested by tests/test_export_bundle.py and tests/unit/test_fuzz.c. */
#include "verify.h"

#include <stdio.h>
#include <stdlib.h>

#include "bundle.h"
#include "kure_file.h"

enum kure_status kure_bundle_verify(const char *folder, struct kure_manifest_check *files, struct kure_golden_difference *golden, struct kure_error *error)
{
    unsigned char *data = NULL;
    size_t bytes;
    struct kure_model model;
    struct kure_runtime_error what;
    enum kure_status status = kure_manifest_check(folder, files, error);
    if (status == KURE_OK) status = kure_bundle_read(folder, "model.kure", KURE_MODEL_MOST_BYTES, &data, &bytes, error);
    if (status == KURE_OK && kure_runtime_open(&model, data, bytes, &what) != KURE_RUNTIME_OK) {
        char path[4400];
        snprintf(path, sizeof path, "%s/model.kure", folder);
        status = kure_model_file_fail(path, &what, error);
    }
    if (status == KURE_OK) status = kure_manifest_compare(folder, &model, error);
    if (status == KURE_OK) status = kure_golden_check(&model, folder, files->golden_images, golden, error);
    free(data);
    return status;
}
