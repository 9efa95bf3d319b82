/* cfg.c: reads a Darknet cfg with line numbers; see cfg.h. */
#define _GNU_SOURCE /* getline */
#include "cfg.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "error.h"
#include "output.h"

/* One line of the file, cut into what it means. Pointers into the caller's buffer. */
enum line_kind { LINE_BLANK, LINE_SECTION, LINE_ENTRY };

struct line {
    enum line_kind kind;
    char *name;  /* section type or key */
    char *value; /* entry: after '=', or NULL */
};

/* Cuts a comment: '#' or ';' at the start or after a blank. */
static void cut_comment(char *text)
{
    for (char *p = text; *p; ++p) {
        if ((*p == '#' || *p == ';') && (p == text || isspace((unsigned char)p[-1]))) {
            *p = 0;
            return;
        }
    }
}

/* Darknet drops every blank of a line, inside values as well. */
static void drop_blanks(char *text)
{
    char *to = text;
    for (const char *p = text; *p; ++p) {
        if (!isspace((unsigned char)*p)) *to++ = *p;
    }
    *to = 0;
}

/* What stands behind '=', with its blanks; text is cut. "" where nothing does. */
static char *value_with_blanks(char *text)
{
    cut_comment(text);
    char *value = strchr(text, '=');
    if (!value) return text + strlen(text);
    for (++value; isspace((unsigned char)*value); ++value) continue;
    size_t length = strlen(value);
    while (length && isspace((unsigned char)value[length - 1])) value[--length] = 0;
    return value;
}

static struct line parse_line(char *text)
{
    struct line l = {LINE_BLANK, NULL, NULL};
    cut_comment(text);
    drop_blanks(text);
    if (text[0] == 0) return l;
    if (text[0] == '[') {
        l.kind = LINE_SECTION;
        l.name = text + 1;
        l.name[strcspn(l.name, "]")] = 0;
        return l;
    }
    l.kind = LINE_ENTRY;
    l.name = text;
    char *equals = strchr(text, '=');
    if (equals) {
        *equals = 0;
        l.value = equals + 1;
    }
    return l;
}

static int skip_bom(const char *text)
{
    return strncmp(text, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
}

/* Grows by one; `items` has `count` elements of `size` bytes, zeroed new one at the end. */
static void *grow(void *items, int count, size_t size)
{
    char *grown = realloc(items, ((size_t)count + 1) * size);
    if (grown) memset(grown + (size_t)count * size, 0, size);
    return grown;
}

static enum kure_status add_section(struct kure_cfg *cfg, const char *type, int line, struct kure_error *error)
{
    struct kure_cfg_section *grown = grow(cfg->sections, cfg->count, sizeof *grown);
    if (!grown) return kure_fail_memory(error);
    cfg->sections = grown;
    struct kure_cfg_section *s = &grown[cfg->count];
    s->type = strdup(type);
    if (!s->type) return kure_fail_memory(error);
    s->line = line;
    s->layer = -1;
    if (cfg->count > 0 && !kure_is_our_section(type)) s->layer = cfg->layers++;
    cfg->count++;
    return KURE_OK;
}

static enum kure_status add_entry(struct kure_cfg_section *s, const struct line *l, char *whole, int line, struct kure_error *error)
{
    struct kure_cfg_entry *grown = grow(s->entries, s->count, sizeof *grown);
    if (!grown) return kure_fail_memory(error);
    s->entries = grown;
    struct kure_cfg_entry *e = &grown[s->count++];
    e->line = line;
    e->key = strdup(l->name);
    e->value = l->value ? strdup(l->value) : NULL;
    e->text = strdup(value_with_blanks(whole));
    return e->key && e->text && (e->value || !l->value) ? KURE_OK : kure_fail_memory(error);
}

static enum kure_status add_line(struct kure_cfg *cfg, const struct line *l, char *whole, int line, struct kure_error *error)
{
    if (l->kind == LINE_SECTION) return add_section(cfg, l->name, line, error);
    if (l->kind == LINE_BLANK) return KURE_OK;
    if (cfg->count == 0) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: '%s' stands before the first section", cfg->path, line,
                         l->name);
    }
    return add_entry(&cfg->sections[cfg->count - 1], l, whole, line, error);
}

static enum kure_status read_lines(FILE *file, struct kure_cfg *cfg, struct kure_error *error)
{
    char *text = NULL;
    size_t capacity = 0;
    ssize_t length;
    int line = 0;
    enum kure_status status = KURE_OK;
    while (status == KURE_OK && (length = getline(&text, &capacity, file)) >= 0) {
        ++line;
        if (strlen(text) != (size_t)length) {
            status = kure_fail(error, KURE_ERROR_INPUT, "%s:%d: a NUL byte: this is not a text file", cfg->path, line);
            break;
        }
        char *whole = strdup(text);
        struct line l = parse_line(text + (line == 1 ? skip_bom(text) : 0));
        status = whole ? add_line(cfg, &l, whole, line, error) : kure_fail_memory(error);
        free(whole);
    }
    free(text);
    if (status == KURE_OK && ferror(file)) {
        status = kure_fail(error, KURE_ERROR_FILE, "%s: cannot be read: %s", cfg->path, strerror(errno));
    }
    return status;
}

enum kure_status kure_cfg_read_text(const char *path, struct kure_cfg *cfg, struct kure_error *error)
{
    memset(cfg, 0, sizeof *cfg);
    cfg->path = strdup(path);
    if (!cfg->path) return kure_fail_memory(error);
    struct stat info;
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) {
        return kure_fail(error, KURE_ERROR_FILE, "%s: must be a regular file: it is read twice, by Darknet and by this plugin", path);
    }
    FILE *file = fopen(path, "r");
    if (!file) return kure_fail(error, KURE_ERROR_FILE, "%s: cannot be opened: %s", path, strerror(errno));
    enum kure_status status = read_lines(file, cfg, error);
    fclose(file);
    if (status != KURE_OK) return status;
    if (cfg->count == 0) return kure_fail(error, KURE_ERROR_INPUT, "%s: no section, so no network: the file is empty or no cfg", path);
    if (cfg->layers == 0) return kure_fail(error, KURE_ERROR_INPUT, "%s: no layers: only [%s] and sections that are no layers", path, cfg->sections[0].type);
    return KURE_OK;
}

void kure_cfg_free(struct kure_cfg *cfg)
{
    for (int i = 0; i < cfg->count; ++i) {
        for (int j = 0; j < cfg->sections[i].count; ++j) {
            free(cfg->sections[i].entries[j].key);
            free(cfg->sections[i].entries[j].value);
            free(cfg->sections[i].entries[j].text);
        }
        free(cfg->sections[i].entries);
        free(cfg->sections[i].type);
    }
    free(cfg->sections);
    free(cfg->path);
    memset(cfg, 0, sizeof *cfg);
}

/* Copies what stays. Inside a section of ours, blank and comment lines after the
 * last entry lead in the next section, so they are held back and kept. */
static int copy_clean(FILE *in, FILE *out)
{
    char *text = NULL, *copy = NULL, *held = NULL, *type = strdup("");
    size_t capacity = 0, held_bytes = 0;
    ssize_t length;
    int ours = 0, ok = type != NULL, line = 0;
    while (ok && (length = getline(&text, &capacity, in)) >= 0) {
        int bom = line++ == 0 ? skip_bom(text) : 0;
        free(copy);
        copy = strdup(text + bom);
        ok = copy != NULL;
        if (!ok) break;
        struct line l = parse_line(copy);
        if (l.kind == LINE_SECTION) {
            free(type);
            type = strdup(l.name);
            ok = type != NULL;
            if (!ok) break;
            ours = kure_is_our_section(type);
            if (held_bytes) fwrite(held, 1, held_bytes, out);
            held_bytes = 0;
            if (ours) continue;
            if (strcmp(type, "quantize") == 0) { /* a layer that passes everything through keeps the numbers of the others */
                fputs("[route]\nlayers=-1\n", out);
                continue;
            }
        } else if (ours) {
            if (l.kind == LINE_ENTRY) {
                held_bytes = 0;
                continue;
            }
            char *grown = realloc(held, held_bytes + (size_t)length);
            ok = grown != NULL;
            if (!ok) break;
            held = grown;
            memcpy(held + held_bytes, text, (size_t)length);
            held_bytes += (size_t)length;
            continue;
        } else if (l.kind == LINE_ENTRY && kure_is_our_key(type, l.name)) {
            continue;
        }
        fwrite(text, 1, (size_t)length, out);
    }
    if (ok && held_bytes) fwrite(held, 1, held_bytes, out);
    ok = ok && !ferror(in) && fflush(out) == 0 && !ferror(out);
    free(text);
    free(copy);
    free(held);
    free(type);
    return ok;
}

enum kure_status kure_cfg_write_clean(const char *path, const char *out_path, struct kure_error *error)
{
    struct kure_output out;
    FILE *in = fopen(path, "r");
    if (!in) return kure_fail(error, KURE_ERROR_FILE, "%s: cannot be opened: %s", path, strerror(errno));
    enum kure_status status = kure_output_open(out_path, &out, error);
    if (status == KURE_OK) status = kure_output_close(&out, copy_clean(in, out.file), error);
    fclose(in);
    return status;
}
