/* error.h: one sentence and a status, for the core's own files. */
#ifndef KURE_ERROR_H
#define KURE_ERROR_H

#include "kure.h"

/* Formats the sentence into error (may be NULL) and returns status. */
__attribute__((format(printf, 3, 4))) enum kure_status kure_fail(struct kure_error *error, enum kure_status status,
                                                                 const char *format, ...);

/* "not enough memory", KURE_ERROR_MEMORY */
enum kure_status kure_fail_memory(struct kure_error *error);

#endif
