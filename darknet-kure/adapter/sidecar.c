/*
 * sidecar.c: `<weights>.kure`, the part of a training that .weights files lack.
 *
 * Two files cannot be replaced in one step, so the new sidecar waits under the name
 * `<weights>.kure.new` while the weights get their final name, and only then takes
 * its own. Each names the weights that it belongs to by their hash. Whatever instant
 * the process is killed at, one of the two matches the weights that are there.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kure_format.h"
#include "output.h"
#include "sidecar_plan.h"

int kure_has_sidecar(const struct kure_network *k)
{
    return k->options.kurtosis.line || k->plan.quantizers || k->options.net.seed >= 0;
}

static void stop_on(enum kure_status status, const struct kure_error *error)
{
    if (status != KURE_OK) kure_stop(error);
}

/* Beside the weights themselves, not beside a link to them. */
static char *name_of(const char *weights, const char *suffix)
{
    char *name = NULL, *target = kure_follow_links(weights);
    if (!target || asprintf(&name, "%s%s", target, suffix) < 0) kure_stop(&(struct kure_error){"not enough memory"});
    free(target);
    return name;
}

/* ------------------------------------------------------------------------- */
/* The state: momentum of every layer that Darknet updates                    */

static size_t weight_count(const layer *l)
{
    switch (l->type) {
    case CONVOLUTIONAL:
    case DECONVOLUTIONAL: return (size_t)l->nweights;
    case CONNECTED: return (size_t)l->inputs * (size_t)l->outputs;
    case LOCAL: return (size_t)(l->size * l->size * l->c) * (size_t)(l->n * l->out_w * l->out_h);
    default: return 0;
    }
}

static size_t bias_count(const layer *l)
{
    return l->type == CONNECTED || l->type == LOCAL ? (size_t)l->outputs : (size_t)l->n;
}

static void each_tensor(const network *net, kure_tensor_function *function, void *context)
{
    for (int i = 0; i < net->n; ++i) {
        const layer *l = &net->layers[i];
        if (weight_count(l) == 0 || !l->update) continue;
        char name[64];
        snprintf(name, sizeof name, "layers.%d.weights", i);
        function(context, name, l->weight_updates, weight_count(l));
        snprintf(name, sizeof name, "layers.%d.biases", i);
        function(context, name, l->bias_updates, bias_count(l));
        snprintf(name, sizeof name, "layers.%d.scales", i);
        if (l->scales && l->scale_updates) function(context, name, l->scale_updates, bias_count(l));
    }
}

/* Training on the GPU keeps the momentum there. */
enum direction { FROM_GPU, TO_GPU };

#ifdef GPU
static void move_array(enum direction direction, float *there, float *here, size_t n)
{
    if (!there || !here) return;
    if (direction == TO_GPU) cuda_push_array(there, here, n);
    else cuda_pull_array(there, here, n);
}

static void move_momentum(const network *net, enum direction direction)
{
    if (net->gpu_index < 0) return;
    cuda_set_device(net->gpu_index);
    for (int i = 0; i < net->n; ++i) {
        const layer *l = &net->layers[i];
        if (weight_count(l) == 0 || !l->update) continue;
        move_array(direction, l->weight_updates_gpu, l->weight_updates, weight_count(l));
        move_array(direction, l->bias_updates_gpu, l->bias_updates, bias_count(l));
        move_array(direction, l->scale_updates_gpu, l->scale_updates, bias_count(l));
    }
}
#else
static void move_momentum(const network *net, enum direction direction)
{
    (void)net, (void)direction;
}
#endif

/* ------------------------------------------------------------------------- */
/* Writing                                                                    */

static void add_tensor(void *context, const char *name, float *data, size_t count)
{
    struct kure_error error;
    stop_on(kure_file_add_tensor(context, name, data, count, &error), &error);
}

static void add_text(struct kure_file *file, const char *name, const char *value)
{
    struct kure_error error;
    stop_on(kure_file_add_text(file, name, value, &error), &error);
}

/* A process that was killed between its two renames left the sidecar of `weights`
 * under the waiting name, which is about to be written over: finishes its work. */
static void finish_rename(const char *weights)
{
    struct kure_file file;
    char hash[33];
    char *waiting = name_of(weights, ".kure.new"), *name = name_of(weights, ".kure");
    if (access(waiting, F_OK) == 0) {
        const char *belongs = kure_file_read(waiting, &file, NULL) == KURE_OK ? kure_file_text(&file, "weights") : NULL;
        if (belongs && kure_hash_file(weights, hash, NULL) == KURE_OK && strcmp(belongs, hash) == 0) rename(waiting, name);
        kure_file_free(&file);
    }
    free(waiting);
    free(name);
}

/* Weights that went into a pipe or a device cannot be read again, so none belongs to them. */
static int has_state_for(const network *net, const char *file, int cutoff)
{
    const struct kure_network *k = net->kure;
    return k->trained && kure_has_sidecar(k) && cutoff >= net->n && !kure_is_special(file);
}

/* Writes `file`.kure.new, for weights that are in `written` now. */
static enum kure_status write_waiting(struct kure_network *k, const char *written, const char *file, struct kure_error *error)
{
    struct kure_file out = {0};
    char hash[33], number[32], plan[KURE_KURTOSIS_TEXT];
    float *layers = kure_plan_layers(k);
    enum kure_status status = kure_hash_file(written, hash, error);
    if (status == KURE_OK) {
        snprintf(number, sizeof number, "%lld", kure_updates_done(k->net));
        kure_plan_text(k, plan);
        add_text(&out, "format", KURE_SIDECAR_FORMAT);
        add_text(&out, "weights", hash);
        add_text(&out, "state", k->plan.state_hash);
        add_text(&out, "update", number);
        add_text(&out, "plan", plan);
        kure_plan_quantization_text(k, plan);
        if (k->options.quantization.line) add_text(&out, "quantization", plan);
        if (k->trained) move_momentum(k->net, FROM_GPU);
        if (k->trained) each_tensor(k->net, add_tensor, &out);
        if (layers) add_tensor(&out, KURE_PLAN_LAYERS, layers, KURE_PLAN_LAYER_FLOATS * (size_t)k->plan.count);
        kure_simulation_each_tensor(k, add_tensor, &out);
        char *name = name_of(file, ".kure.new");
        status = kure_file_write(&out, name, error);
        free(name);
    }
    kure_file_free(&out);
    free(layers);
    return status;
}

static void rename_waiting(const char *file)
{
    struct kure_error error;
    char *waiting = name_of(file, ".kure.new"), *name = name_of(file, ".kure");
    if (rename(waiting, name) != 0) {
        snprintf(error.text, sizeof error.text, "%s: cannot be renamed to %s: %s", waiting, name, strerror(errno));
        kure_stop(&error);
    }
    free(waiting);
    free(name);
}

void kure_sidecar_save(struct kure_network *k, const char *weights)
{
    struct kure_error error;
    stop_on(write_waiting(k, weights, weights, &error), &error);
    rename_waiting(weights);
}

void kure_weights_written(network *net, const char *written, const char *file, int cutoff)
{
    struct kure_network *k = net->kure;
    struct kure_error error;
    if (!has_state_for(net, file, cutoff)) return;
    if (strcmp(written, file) != 0) finish_rename(file);
    kure_simulation_settle(k);
    if (write_waiting(k, written, file, &error) == KURE_OK) return;
    if (strcmp(written, file) != 0) unlink(written);
    kure_stop(&error);
}

void kure_weights_saved(network *net, const char *file, int cutoff)
{
    if (has_state_for(net, file, cutoff)) {
        rename_waiting(file);
        return;
    }
    /* whatever lay there belonged to the weights that are now replaced */
    char *waiting = name_of(file, ".kure.new"), *name = name_of(file, ".kure");
    unlink(waiting);
    unlink(name);
    free(waiting);
    free(name);
}

/* ------------------------------------------------------------------------- */
/* Loading                                                                    */

struct loading {
    const struct kure_file *file;
    const char *path;
};

static void check_tensor(void *context, const char *name, float *data, size_t count)
{
    const struct loading *in = context;
    const struct kure_file_tensor *t = kure_file_tensor(in->file, name);
    struct kure_error error;
    (void)data;
    if (t && t->count == count) return;
    snprintf(error.text, sizeof error.text, "%s: damaged: tensor %s %s", in->path, name, t ? "has another size than the layer" : "is missing");
    kure_stop(&error);
}

static void copy_tensor(void *context, const char *name, float *data, size_t count)
{
    const struct loading *in = context;
    memcpy(data, kure_file_tensor(in->file, name)->data, count * sizeof(float));
}

/* A training that had no such quantizer before starts it anew. */
static void check_if_there(void *context, const char *name, float *data, size_t count)
{
    const struct loading *in = context;
    if (kure_file_tensor(in->file, name)) check_tensor(context, name, data, count);
}

static void copy_if_there(void *context, const char *name, float *data, size_t count)
{
    const struct loading *in = context;
    if (kure_file_tensor(in->file, name)) copy_tensor(context, name, data, count);
}

static const char *text_or_stop(const struct kure_file *file, const char *path, const char *name)
{
    const char *text = kure_file_text(file, name);
    if (text) return text;
    struct kure_error error;
    snprintf(error.text, sizeof error.text, "%s: damaged: it does not say '%s'", path, name);
    kure_stop(&error);
}

static long long update_of(const struct kure_file *file, const char *path)
{
    const char *text = text_or_stop(file, path, "update");
    size_t length = strlen(text);
    if (length > 0 && length <= 18 && strspn(text, "0123456789") == length) return atoll(text);
    struct kure_error error;
    snprintf(error.text, sizeof error.text, "%s: damaged: update '%s' is no number of updates", path, text);
    kure_stop(&error);
}

/* layers.N.weights, .biases or .scales */
static int is_momentum(const char *name)
{
    const char *kind = strrchr(name, '.');
    return kind && (strcmp(kind, ".weights") == 0 || strcmp(kind, ".biases") == 0 || strcmp(kind, ".scales") == 0);
}

/* Takes over the state of a file that is known to belong to the weights. */
static void take_state(struct kure_network *k, const struct kure_file *file, const char *path)
{
    struct kure_error error;
    char plan[KURE_KURTOSIS_TEXT];
    if (strcmp(text_or_stop(file, path, "state"), k->plan.state_hash) != 0) {
        snprintf(error.text, sizeof error.text, "%s: holds the training state of another network: layers or shapes differ from %s; "
                 "delete it to start from the weights alone", path, k->options.path);
        kure_stop(&error);
    }
    long long update = update_of(file, path);
    if (update != kure_updates_done(k->net)) {
        fprintf(stderr, "%s: %lld updates there, %lld by this cfg's batch: the schedule follows the cfg\n", path, update,
                kure_updates_done(k->net));
    }
    struct loading in = {file, path};
    int trained = 0; /* a calibration leaves ranges and no momentum */
    for (int i = 0; i < file->tensor_count; ++i) trained |= is_momentum(file->tensors[i].name);
    if (trained) {
        each_tensor(k->net, check_tensor, &in);
        each_tensor(k->net, copy_tensor, &in);
        move_momentum(k->net, TO_GPU);
    }
    kure_simulation_each_tensor(k, check_if_there, &in);
    kure_simulation_each_tensor(k, copy_if_there, &in);
    kure_simulation_restore(k);
    k->trained = trained;
    kure_plan_text(k, plan);
    kure_plan_report(path, text_or_stop(file, path, "plan"), plan);
    kure_plan_report_layers(k, path, file);
    const char *then = kure_file_text(file, "quantization");
    kure_plan_quantization_text(k, plan);
    if (trained && then && k->options.quantization.line) kure_plan_report(path, then, plan);
}

/* 1: `path` exists, is sound and belongs to weights of that hash. A waiting one may
 * be cut short: its writer was killed before it touched the weights. */
static int try_sidecar(struct kure_network *k, const char *path, const char *hash, int waiting)
{
    if (access(path, F_OK) != 0) return 0;
    struct kure_error error;
    struct kure_file file;
    enum kure_status status = kure_file_read(path, &file, &error);
    if (status == KURE_ERROR_INPUT && waiting) {
        kure_file_free(&file);
        return 0;
    }
    stop_on(status, &error);
    if (strcmp(text_or_stop(&file, path, "format"), KURE_SIDECAR_FORMAT) != 0) {
        snprintf(error.text, sizeof error.text, "%s: is of format '%s'; this version reads %s", path,
                 kure_file_text(&file, "format"), KURE_SIDECAR_FORMAT);
        kure_stop(&error);
    }
    int matches = strcmp(text_or_stop(&file, path, "weights"), hash) == 0;
    if (matches) take_state(k, &file, path);
    kure_file_free(&file);
    return matches;
}

void kure_sidecar_load(struct kure_network *k, const char *weights)
{
    struct kure_error error;
    char hash[33];
    char *waiting = name_of(weights, ".kure.new"), *name = name_of(weights, ".kure");
    if (access(waiting, F_OK) == 0 || access(name, F_OK) == 0) {
        stop_on(kure_hash_file(weights, hash, &error), &error);
        if (!try_sidecar(k, waiting, hash, 1) && !try_sidecar(k, name, hash, 0) && access(name, F_OK) == 0) {
            snprintf(error.text, sizeof error.text, "%s: does not belong to %s, which was written by something else since; "
                     "delete it to start from the weights alone", name, weights);
            kure_stop(&error);
        }
    }
    free(waiting);
    free(name);
}

static void clear_tensor(void *context, const char *name, float *data, size_t count)
{
    (void)context;
    (void)name;
    memset(data, 0, count * sizeof(float));
}

/* -clear starts a training anew: no momentum of the last one. */
void kure_cleared(network *net)
{
    struct kure_network *k = net->kure;
    if (k->trained) each_tensor(net, clear_tensor, NULL);
    if (k->trained) move_momentum(net, TO_GPU);
    k->trained = 0;
}
