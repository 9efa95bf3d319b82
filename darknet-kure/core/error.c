/* error.c: see error.h. */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>

enum kure_status kure_fail(struct kure_error *error, enum kure_status status, const char *format, ...)
{
    if (error) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(error->text, sizeof error->text, format, arguments);
        va_end(arguments);
    }
    return status;
}

enum kure_status kure_fail_memory(struct kure_error *error)
{
    return kure_fail(error, KURE_ERROR_MEMORY, "not enough memory");
}
