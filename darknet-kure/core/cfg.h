/*
 * cfg.h: the text of a Darknet cfg with line numbers, for our own sections and keys.
 *
 * Darknet reads the same file itself; this reader exists because Darknet keeps
 * no line numbers. Rules: a line that starts with '[' opens a section, `key=value`
 * is an entry, '#' or ';' starts a comment (inside a line after a blank), blanks
 * around key and value do not count; CRLF and a UTF-8 byte order mark are read.
 */
#ifndef KURE_CFG_H
#define KURE_CFG_H

#include "kure.h"

struct kure_cfg_entry {
    int line;    /* 1-based */
    char *key;   /* without blanks */
    char *value; /* without blanks, as Darknet reads it; "" where nothing follows '='; NULL without '=' */
    char *text;  /* the same with the blanks inside it */
};

struct kure_cfg_section {
    int line;
    char *type; /* without brackets: "convolutional" */
    int layer;  /* Darknet's layer number; -1: [net], or a section of ours that is no layer */
    struct kure_cfg_entry *entries;
    int count;
};

struct kure_cfg {
    char *path;
    struct kure_cfg_section *sections;
    int count;
    int layers; /* sections that are layers */
};

/* path [in], cfg [out]: owned by the caller, to be freed also after an error.
 * KURE_ERROR_FILE: cannot be read, a directory; KURE_ERROR_INPUT: no section, no
 * layer, an entry before the first section, a NUL byte. */
KURE_CHECKED enum kure_status kure_cfg_read_text(const char *path, struct kure_cfg *cfg, struct kure_error *error);
void kure_cfg_free(struct kure_cfg *cfg);

/* The file's text without our sections and keys, everything else byte for byte,
 * to `out` [in: path], another file, which is replaced only when all is written. */
KURE_CHECKED enum kure_status kure_cfg_write_clean(const char *path, const char *out, struct kure_error *error);

/* The file's text with another [quantization] and with keys of layers set, everything else byte for byte, to `out`.
 *   section  [in]: its lines, KEY=VALUE each; it takes the place of the one that is there
 *   layers   [in]: [layers of the cfg] such lines, in the place of the layer's own keys of these names; NULL: none */
KURE_CHECKED enum kure_status kure_cfg_write_quantized(const char *path, const char *out, const char *section, const char *const *layers,
                                                       struct kure_error *error);

/* For these and for options.c: is this type a section of ours, and is
 * this key, in a section of that type, one of ours? (keys.def) */
int kure_is_our_section(const char *type);
int kure_is_our_key(const char *section_type, const char *key);

#endif
