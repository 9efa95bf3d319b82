/*
 * kure_file.h: model.kure from an integer model; kure_runtime.h defines the file.
 */
#ifndef KURE_EXPORT_KURE_FILE_H
#define KURE_EXPORT_KURE_FILE_H

#include "formats.h"

/* Fills model->file and checks it with kure_runtime_open. KURE_ERROR_INPUT: the file cannot hold the model. */
KURE_CHECKED enum kure_status kure_model_file_make(struct kure_integer_model *model, struct kure_error *error);

/* What kure_runtime_open says, as a sentence about `path`. */
enum kure_status kure_model_file_fail(const char *path, const struct kure_runtime_error *e, struct kure_error *error);

kure_format_writer kure_write_model_file;

#endif
