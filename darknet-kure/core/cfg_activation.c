/* cfg_activation.c: see cfg_activation.h. Tested by tests/test_swap_activation.py. */
#define _GNU_SOURCE /* getline */
#include "cfg_activation.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "output.h"

enum change { STAYS, SWAPPED, DROPPED };

/* Layers that Darknet gives the logistic function where a cfg says nothing. */
static const char *default_of(const char *type)
{
    static const char *const logistic[] = {"convolutional", "conv", "connected", "conn", "deconvolutional", "deconv", "local", "rnn", "crnn"};
    for (size_t i = 0; i < sizeof logistic / sizeof logistic[0]; ++i) {
        if (strcmp(type, logistic[i]) == 0) return "logistic";
    }
    return NULL;
}

const char *kure_cfg_activation(const struct kure_cfg_section *section)
{
    const char *value = default_of(section->type);
    for (int i = 0; i < section->count; ++i) {
        if (strcmp(section->entries[i].key, "activation") == 0) value = section->entries[i].value;
    }
    return value;
}

/* What becomes of line n of the file, from 1. */
static enum change change_of(const struct kure_cfg *cfg, int line)
{
    for (int i = 0; i < cfg->count; ++i) {
        const struct kure_cfg_section *s = &cfg->sections[i];
        const char *activation = kure_cfg_activation(s);
        if (s->layer < 0 || !activation || strcmp(activation, "leaky") != 0) continue;
        for (int j = 0; j < s->count; ++j) {
            if (s->entries[j].line != line) continue;
            return strcmp(s->entries[j].key, "activation") == 0 ? SWAPPED : strcmp(s->entries[j].key, "slope") == 0 ? DROPPED : STAYS;
        }
    }
    return STAYS;
}

/* "activation = leaky  # note": the value alone changes; a slope gets a line of its own, that ends as this one does. */
static void write_swapped(const char *text, const struct kure_activation_swap *swap, FILE *out)
{
    const char *value = strchr(text, '=') + 1, *end = text + strcspn(text, "\r\n");
    value += strspn(value, " \t");
    fprintf(out, "%.*s%s%s", (int)(value - text), text, swap->activation, value + strcspn(value, " \t\r\n"));
    if (strcmp(swap->activation, "leaky") == 0) fprintf(out, "%sslope=%.10g%s", *end ? "" : "\n", swap->slope, end);
}

static int copy_swapped(const struct kure_cfg *cfg, const struct kure_activation_swap *swap, FILE *in, FILE *out)
{
    char *text = NULL;
    size_t capacity = 0;
    for (int line = 1; getline(&text, &capacity, in) >= 0; ++line) {
        enum change change = change_of(cfg, line);
        if (change == STAYS) fputs(text, out);
        if (change == SWAPPED) write_swapped(text, swap, out);
    }
    free(text);
    return !ferror(in) && fflush(out) == 0 && !ferror(out);
}

enum kure_status kure_cfg_swap_activation(const struct kure_cfg *cfg, const struct kure_activation_swap *swap, const char *out_path, struct kure_error *error)
{
    struct kure_output out;
    FILE *in = fopen(cfg->path, "r");
    if (!in) return kure_fail(error, KURE_ERROR_FILE, "%s: cannot be opened: %s", cfg->path, strerror(errno));
    enum kure_status status = kure_output_open(out_path, &out, error);
    if (status == KURE_OK) status = kure_output_close(&out, copy_swapped(cfg, swap, in, out.file), error);
    fclose(in);
    return status;
}
