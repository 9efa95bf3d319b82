/* formats.c: see formats.h. */
#include "formats.h"

#include <string.h>

#include "kure_file.h"

#define KURE_FORMAT(name, profiles, writer, help) kure_format_writer writer;
#include "formats.def"

static const struct kure_format formats[] = {
#define KURE_FORMAT(name, profiles, writer, help) {name, profiles, writer, help},
#include "formats.def"
};
enum { FORMATS = sizeof formats / sizeof formats[0] };

const struct kure_format *kure_format(int i)
{
    return i >= 0 && i < FORMATS ? &formats[i] : NULL;
}

int kure_format_serves(const struct kure_format *format, const char *profile)
{
    size_t length = strlen(profile);
    if (!*format->profiles) return 1;
    for (const char *p = format->profiles; (p = strstr(p, profile)) != NULL; p += length) {
        if ((p == format->profiles || p[-1] == ' ') && (p[length] == ' ' || !p[length])) return 1;
    }
    return 0;
}
