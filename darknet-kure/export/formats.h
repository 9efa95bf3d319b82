/*
 * formats.h: the files that a bundle can hold; one row of formats.def each.
 */
#ifndef KURE_EXPORT_FORMATS_H
#define KURE_EXPORT_FORMATS_H

#include "model.h"

/* Writes its file or files into `folder`, the bundle before it gets its name.
 *   model   [in]: complete, with golden codes
 *   folder  [in]: exists; of this writer's files none is there yet
 * Returns KURE_ERROR_INPUT where the format cannot express the model (layer, key, reason, the format that can), and then
 * has written nothing,
 * KURE_ERROR_FILE where a file cannot be written. What is then left in the folder is deleted by the caller. */
typedef enum kure_status kure_format_writer(const struct kure_integer_model *model, const char *folder, struct kure_error *error);

struct kure_format {
    const char *name;     /* of --formats */
    const char *profiles; /* that it can express, names between blanks; "": all */
    kure_format_writer *write;
    const char *help, *note;
};

/* NULL past the end. */
const struct kure_format *kure_format(int i);

/* Can it express models of that profile? */
int kure_format_serves(const struct kure_format *format, const char *profile);

/* Is `word` one of `words`, which have blanks between them? */
int kure_has_word(const char *words, const char *word);

#endif
