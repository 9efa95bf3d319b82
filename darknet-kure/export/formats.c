/* formats.c: see formats.h. */
#include "formats.h"

#include <string.h>

#include "kure_file.h"

#define KURE_FORMAT(name, profiles, writer, help, note) kure_format_writer writer;
#include "formats.def"

static const struct kure_format formats[] = {
#define KURE_FORMAT(name, profiles, writer, help, note) {name, profiles, writer, help, note},
#include "formats.def"
};
enum { FORMATS = sizeof formats / sizeof formats[0] };

const struct kure_format *kure_format(int i)
{
    return i >= 0 && i < FORMATS ? &formats[i] : NULL;
}

int kure_has_word(const char *words, const char *word)
{
    size_t length = strlen(word);
    for (const char *p = words; (p = strstr(p, word)) != NULL; p += length) {
        if ((p == words || p[-1] == ' ') && (p[length] == ' ' || !p[length])) return 1;
    }
    return 0;
}

int kure_format_serves(const struct kure_format *format, const char *profile)
{
    return !*format->profiles || kure_has_word(format->profiles, profile);
}
