/* sidecar_plan.c: what a sidecar says of the plan it was trained by; see sidecar_plan.h. */
#define _GNU_SOURCE
#include "sidecar_plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void kure_plan_text(const struct kure_network *k, char out[KURE_KURTOSIS_TEXT])
{
    const struct kure_kurtosis_options *o = &k->plan.kurtosis;
    if (o->line) kure_kurtosis_text(o, out, KURE_KURTOSIS_TEXT);
    else snprintf(out, KURE_KURTOSIS_TEXT, "no [kurtosis]");
}

void kure_plan_quantization_text(const struct kure_network *k, char out[KURE_KURTOSIS_TEXT])
{
    kure_quantization_text(&k->options.quantization, out, KURE_KURTOSIS_TEXT);
}

static int has_word(const char *text, const char *word)
{
    size_t length = strlen(word);
    for (const char *p = text; (p = strstr(p, word)); p += length) {
        if ((p == text || p[-1] == ' ') && (!p[length] || p[length] == ' ')) return 1;
    }
    return 0;
}

/* Names what `then` said and `now` does not; both are plan texts. */
void kure_plan_report(const char *path, const char *then, const char *now)
{
    char *words = strdup(then), *rest = NULL;
    if (words && strcmp(then, now) != 0) {
        fprintf(stderr, "%s: trained so far with", path);
        for (char *word = strtok_r(words, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
            if (!has_word(now, word)) fprintf(stderr, " %s", word);
        }
        fprintf(stderr, ", unlike this cfg\n");
    }
    free(words);
}

float *kure_plan_layers(const struct kure_network *k)
{
    if (!k->plan.kurtosis.line) return NULL;
    float *rows = calloc((size_t)k->plan.count, KURE_PLAN_LAYER_FLOATS * sizeof *rows);
    if (!rows) kure_stop(&(struct kure_error){"not enough memory"});
    for (int i = 0; i < k->plan.count; ++i) {
        const struct kure_layer_options *own = &k->options.layer[i];
        rows[KURE_PLAN_LAYER_FLOATS * i] = (float)k->plan.rows[i].regularized;
        rows[KURE_PLAN_LAYER_FLOATS * i + 1] = isnan(own->target) ? 0 : (float)own->target;
        rows[KURE_PLAN_LAYER_FLOATS * i + 2] = isnan(own->lambda) ? 1 : (float)own->lambda;
    }
    return rows;
}

/* One line for each layer whose own part of the plan has changed. */
void kure_plan_report_layers(const struct kure_network *k, const char *path, const struct kure_file *file)
{
    const struct kure_file_tensor *t = kure_file_tensor(file, KURE_PLAN_LAYERS);
    float *rows = kure_plan_layers(k);
    for (int i = 0; rows && t && t->count == KURE_PLAN_LAYER_FLOATS * (size_t)k->plan.count && i < k->plan.count; ++i) {
        const float *now = rows + KURE_PLAN_LAYER_FLOATS * i, *then = t->data + KURE_PLAN_LAYER_FLOATS * i;
        if (memcmp(now, then, KURE_PLAN_LAYER_FLOATS * sizeof *now) == 0 || (now[0] == 0 && then[0] == 0)) continue;
        fprintf(stderr, "%s: layer %d [%s] trained so far ", path, i, k->plan.rows[i].type);
        if (then[0] == 0) fprintf(stderr, "without kurtosis");
        else if (then[1] == 0) fprintf(stderr, "with the target of [kurtosis], lambda times %g", (double)then[2]);
        else fprintf(stderr, "with kurtosis_target=%g, lambda times %g", (double)then[1], (double)then[2]);
        fprintf(stderr, ", unlike this cfg\n");
    }
    free(rows);
}
