/* cfg_hooks.c: from Darknet's list of sections to a plan; attach and release. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "regularize_cuda.h"

/* Options of the list that this thread passed last, waiting for kure_attach. */
static __thread struct kure_options *pending;

void kure_stop(const struct kure_error *error)
{
    fflush(stdout);
    fprintf(stderr, "%s\n", error->text);
    exit(1);
}

static void unlink_node(list *l, node *n)
{
    if (n->prev) n->prev->next = n->next;
    else l->front = n->next;
    if (n->next) n->next->prev = n->prev;
    else l->back = n->prev;
    --l->size;
    free(n);
}

static void free_option(void *val)
{
    struct host_option *o = val;
    free(o->key);
    free(o);
}

static void free_section_of_ours(struct host_section *s)
{
    for (node *n = s->options->front, *next; n; n = next) {
        next = n->next;
        free_option(n->val);
        free(n);
    }
    free(s->options);
    free(s->type);
    free(s);
}

/* "[convolutional]" -> "convolutional" */
static void bare_type(const char *type, char *out, size_t size)
{
    snprintf(out, size, "%s", type + (type[0] == '['));
    out[strcspn(out, "]")] = 0;
}

/* Takes our per-layer keys out, so that Darknet does not call them unused. The
 * [net] seed stays: Darknet reads it itself. */
static void take_keys(struct host_section *s, const char *type)
{
    for (node *n = s->options->front, *next; n; n = next) {
        next = n->next;
        struct host_option *o = n->val;
        /* Darknet has no relu6: it reads relu, and the layer's wrapper cuts at 6 */
        if (strcmp(o->key, "activation") == 0 && o->val && strcmp(o->val, "relu6") == 0) o->val[4] = 0;
        if (strcmp(type, "net") == 0 || strcmp(type, "network") == 0 || !kure_is_our_key(type, o->key)) continue;
        free_option(o);
        unlink_node(s->options, n);
    }
}

/* [quantize] becomes a route of the layer before: Darknet builds, saves and resizes that. */
static void make_route(struct host_section *s)
{
    static const char text[] = "layers\0-1";
    struct host_option *o = calloc(1, sizeof *o);
    char *pair = malloc(sizeof text), *type = strdup("[route]");
    if (!o || !pair || !type) kure_stop(&(struct kure_error){"not enough memory"});
    memcpy(pair, text, sizeof text);
    o->key = pair;
    o->val = pair + sizeof "layers";
    list_insert(s->options, o);
    free(s->type);
    s->type = type;
}

static void take_sections(list *sections)
{
    for (node *n = sections->front, *next; n; n = next) {
        next = n->next;
        struct host_section *s = n->val;
        char type[64];
        bare_type(s->type, type, sizeof type);
        if (kure_is_our_section(type)) {
            free_section_of_ours(s);
            unlink_node(sections, n);
        } else {
            take_keys(s, type);
            if (strcmp(type, "quantize") == 0) make_route(s);
        }
    }
}

static void free_options(struct kure_options *options)
{
    if (options) kure_options_free(options);
    free(options);
}

void kure_cfg_read(list *sections, const char *file)
{
    struct kure_error error;
    struct kure_cfg cfg;
    free_options(pending);
    pending = calloc(1, sizeof *pending);
    if (!pending) kure_stop(&(struct kure_error){"not enough memory"});
    if (kure_cfg_read_text(file, &cfg, &error) != KURE_OK || kure_options_parse(&cfg, pending, &error) != KURE_OK) {
        kure_stop(&error);
    }
#ifndef KURE_FIXES
    if (pending->net.seed >= 0) {
        snprintf(error.text, sizeof error.text, "%s: [net] seed needs a build with FIXES=1", file);
        kure_stop(&error);
    }
#endif
    kure_cfg_free(&cfg);
    take_sections(sections);
}

void kure_attach(network *net)
{
    struct kure_error error;
    struct kure_network *k = calloc(1, sizeof *k);
    struct kure_layer_view *views = kure_views_of(net);
    if (!k || !views || !pending) kure_stop(&(struct kure_error){"not enough memory"});
    k->net = net;
    k->first = -1;
    k->options = *pending;
    free(pending);
    pending = NULL;
    if (kure_plan_build(&k->options, views, net->n, &k->plan, &error) != KURE_OK) kure_stop(&error);
    kure_views_free(views);
    net->kure = k;
    if (k->plan.regularized) kure_regularize_attach(k);
    kure_simulation_attach(k);
}

void kure_release(network *net)
{
    struct kure_network *k = net->kure;
    if (!k) return;
    kure_simulation_release(k);
#ifdef GPU
    kure_cuda_release(k);
#endif
    for (int i = 0; k->scratch && i < k->plan.count; ++i) free(k->scratch[i]);
    free(k->scratch);
    free(k->measures);
    free(k->reported);
    kure_log_free(k->log);
    kure_plan_free(&k->plan);
    kure_options_free(&k->options);
    free(k);
    net->kure = NULL;
}

/* Weights are averaged by Darknet; kurtosis has no state of its own to average. */
void kure_synced(network **nets, int n)
{
    kure_simulation_average(nets, n);
}
