/* cfg_quantized.c: the text of a cfg with other quantizers; see cfg.h. Tested by tests/test_save.py. */
#define _GNU_SOURCE /* getline */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cfg.h"
#include "error.h"
#include "output.h"

/* What becomes of each line, by its number from 1 on. */
struct changes {
    char *drop;         /* [lines + 1] */
    const char **after; /* [lines + 1] text that follows the line, NULL: none */
};

static int last_line(const struct kure_cfg_section *s)
{
    return s->count ? s->entries[s->count - 1].line : s->line;
}

/* Does one of the lines KEY=VALUE set this key? */
static int sets_key(const char *lines, const char *key)
{
    size_t length = strlen(key);
    for (const char *p = lines; *p; p += strcspn(p, "\n"), p += *p == '\n') {
        if (strncmp(p, key, length) == 0 && p[length] == '=') return 1;
    }
    return 0;
}

static void plan_changes(const struct kure_cfg *cfg, const char *section, const char *const *layers, struct changes *c)
{
    int at = last_line(&cfg->sections[0]);
    for (int i = 0; i < cfg->count; ++i) {
        const struct kure_cfg_section *s = &cfg->sections[i];
        if (strcmp(s->type, "quantization") == 0) memset(c->drop + s->line, 1, (size_t)(last_line(s) - s->line + 1));
        if (s->layer < 0 || !layers[s->layer]) continue;
        c->after[s->line] = layers[s->layer];
        for (int j = 0; j < s->count; ++j) c->drop[s->entries[j].line] |= (char)sets_key(layers[s->layer], s->entries[j].key);
    }
    c->after[at] = section;
}

static int copy(FILE *in, FILE *out, const struct changes *c)
{
    char *text = NULL;
    size_t capacity = 0;
    ssize_t length;
    for (int line = 1; (length = getline(&text, &capacity, in)) >= 0; ++line) {
        if (!c->drop[line]) fwrite(text, 1, (size_t)length, out);
        if (!c->after[line]) continue;
        if (text[length - 1] != '\n') fputc('\n', out);
        fputs(c->after[line], out);
    }
    free(text);
    return !ferror(in) && fflush(out) == 0 && !ferror(out);
}

static int count_lines(FILE *in)
{
    int lines = 1;
    for (int c; (c = getc(in)) != EOF;) lines += c == '\n';
    rewind(in);
    return lines;
}

enum kure_status kure_cfg_write_quantized(const char *path, const char *out_path, const char *section, const char *const *layers, struct kure_error *error)
{
    struct kure_cfg cfg;
    struct kure_output out;
    struct changes c = {NULL, NULL};
    char *whole = NULL;
    enum kure_status status = kure_cfg_read_text(path, &cfg, error);
    FILE *in = status == KURE_OK ? fopen(path, "r") : NULL;
    if (status == KURE_OK && !in) status = kure_fail(error, KURE_ERROR_FILE, "%s: cannot be opened: %s", path, strerror(errno));
    if (status == KURE_OK) {
        size_t lines = (size_t)count_lines(in);
        c.drop = calloc(lines + 1, sizeof *c.drop);
        c.after = calloc(lines + 1, sizeof *c.after);
        if (!c.drop || !c.after || asprintf(&whole, "\n[quantization]\n%s", section) < 0) {
            whole = NULL;
            status = kure_fail_memory(error);
        } else plan_changes(&cfg, whole, layers, &c);
    }
    if (status == KURE_OK) status = kure_output_open(out_path, &out, error);
    if (status == KURE_OK) status = kure_output_close(&out, copy(in, out.file, &c), error);
    if (in) fclose(in);
    free(whole);
    free(c.drop);
    free(c.after);
    kure_cfg_free(&cfg);
    return status;
}
