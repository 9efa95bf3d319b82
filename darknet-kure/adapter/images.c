/*
 * images.c: the images of a .data file: found, matched to labels, passed batch by batch.
 *
 * The label of a classifier's image is that of `darknet classifier valid`: the first one
 * that occurs in the path; of a detector's, boxes.c finds the boxes.
 */
#define _GNU_SOURCE
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "evaluate.h"

enum { DRAWN = 256 }; /* of a sample, unless the user says another number */

static void stop_input(const char *format, const char *a, const char *b)
{
    struct kure_error error;
    snprintf(error.text, sizeof error.text, format, a, b);
    kure_stop(&error);
}

/* The value of a key of the .data file, which must name a readable file. */
static char *data_file(list *options, const char *data, const char *key, const char *other)
{
    char *path = option_find_str(options, (char *)(uintptr_t)key, 0);
    if (!path && other) path = option_find_str(options, (char *)(uintptr_t)other, 0);
    if (!path) stop_input("%s: no '%s='", data, key);
    if (access(path, R_OK) != 0) {
        struct kure_error error;
        snprintf(error.text, sizeof error.text, "%s: %s=%s: no such file, or it cannot be read", data, key, path);
        kure_stop(&error);
    }
    return path;
}

/* The layer that makes a detector of it; -1: none. */
int kure_detector_layer(const network *net)
{
    for (int i = 0; i < net->n; ++i) {
        LAYER_TYPE type = net->layers[i].type;
        if (type == YOLO || type == REGION || type == DETECTION) return i;
    }
    return -1;
}

static void check_input(const network *net, const char *data)
{
    if (net->inputs != net->w * net->h * net->c || net->c != 3) {
        stop_input("%s: evaluation needs a network with width, height and channels=3%s", data, "");
    }
}

/* A path without a label is an error before hours of evaluation, not after. */
static void match_labels(struct kure_images *images, char **labels, const char *list_file)
{
    int line = 0, several = 0;
    for (int i = 0; i < images->count; ++i) {
        const char *path = images->paths[i];
        struct kure_error error;
        ++line;
        int found = -1, matches = 0;
        for (int j = images->class_count - 1; j >= 0; --j) {
            if (!strstr(path, labels[j])) continue;
            found = j;
            ++matches;
        }
        if (found < 0) {
            snprintf(error.text, sizeof error.text, "%s:%d: no label occurs in the path %s", list_file, line, path);
            kure_stop(&error);
        }
        several += matches > 1;
        images->classes[i] = found;
    }
    if (several) {
        fprintf(stderr, "%s: %d paths match several labels; the first label counts, as in 'darknet classifier valid'\n", list_file,
                several);
    }
}

static int count_lines(const char *path)
{
    list *lines = get_paths((char *)(uintptr_t)path);
    return lines->size;
}

/* All paths of a list file; labels are the caller's business. */
static struct kure_images *read_list(char *list_file)
{
    struct kure_images *images = calloc(1, sizeof *images);
    list *paths = get_paths(list_file);
    if (!images || paths->size == 0) stop_input("%s: no image in it%s", list_file, "");
    images->paths = (char **)list_to_array(paths);
    images->count = paths->size;
    images->file = list_file;
    images->lines = malloc((size_t)images->count * sizeof(int));
    if (!images->lines) stop_input("not enough memory%s%s", "", "");
    for (int i = 0; i < images->count; ++i) images->lines[i] = i + 1;
    return images;
}

static void check_count(const char *option, int wanted, const char *list_file, int count)
{
    struct kure_error error;
    if (wanted <= count) return;
    snprintf(error.text, sizeof error.text, "%s %d: %s has only %d", option, wanted, list_file, count);
    kure_stop(&error);
}

/* The labels of the .data file; classes [out]: that count. */
static char **labels_of(list *options, const network *net, const char *data, int *classes)
{
    struct kure_error error;
    if (!option_find_str(options, (char *)(uintptr_t)"labels", 0) && option_find_str(options, (char *)(uintptr_t)"names", 0)) {
        stop_input("%s: has 'names=' and no 'labels=', as for a detector, but the network has no [yolo] and no [region]%s", data, "");
    }
    char *label_file = data_file(options, data, "labels", NULL);
    *classes = option_find_int_quiet(options, "classes", 0);
    if (*classes < 1 || *classes > net->outputs) {
        snprintf(error.text, sizeof error.text, "%s: classes=%d: must be from 1 to the network's %d outputs", data, *classes, net->outputs);
        kure_stop(&error);
    }
    int label_count = count_lines(label_file);
    if (label_count < *classes) {
        snprintf(error.text, sizeof error.text, "%s: %d labels, but %s says classes=%d", label_file, label_count, data, *classes);
        kure_stop(&error);
    }
    return get_labels(label_file);
}

static void label(struct kure_images *images, list *options, const network *net, const char *data, const char *list_file)
{
    if (kure_detector_layer(net) >= 0) {
        kure_boxes_load(images, net, options, data);
        return;
    }
    char **labels = labels_of(options, net, data, &images->class_count);
    images->classes = calloc((size_t)images->count, sizeof(int));
    if (!images->classes) stop_input("not enough memory%s%s", "", "");
    match_labels(images, labels, list_file);
}

struct kure_images *kure_images_load(const network *net, const char *data, int wanted)
{
    if (access(data, R_OK) != 0) stop_input("%s: no such file, or it cannot be read%s", data, "");
    check_input(net, data);
    list *options = read_data_cfg((char *)(uintptr_t)data);
    char *valid = data_file(options, data, "valid", NULL);
    struct kure_images *images = read_list(valid);
    check_count("--images", wanted, valid, images->count);
    if (wanted > 0) images->count = wanted;
    label(images, options, net, data, valid);
    return images;
}

void kure_images_label(struct kure_images *images, const network *net, const char *data)
{
    list *options = read_data_cfg((char *)(uintptr_t)data);
    label(images, options, net, data, data_file(options, data, "train", NULL));
}

struct kure_images *kure_images_sample(const network *net, const char *data, int count, uint64_t seed, const char *option)
{
    if (access(data, R_OK) != 0) stop_input("%s: no such file, or it cannot be read%s", data, "");
    check_input(net, data);
    char *train = data_file(read_data_cfg((char *)(uintptr_t)data), data, "train", NULL);
    struct kure_images *images = read_list(train);
    check_count(option, count, train, images->count);
    if (count == 0) count = images->count < DRAWN ? images->count : DRAWN;
    for (int i = 0; i < count; ++i) { /* the first steps of a Fisher-Yates shuffle */
        uint32_t random = kure_philox(seed, 0, (uint64_t)i).word[0];
        int other = i + (int)(((uint64_t)random * (uint64_t)(images->count - i)) >> 32);
        char *path = images->paths[other];
        int line = images->lines[other];
        images->paths[other] = images->paths[i];
        images->lines[other] = images->lines[i];
        images->paths[i] = path;
        images->lines[i] = line;
    }
    images->count = count;
    return images;
}

void kure_images_describe(const struct kure_images *images, FILE *out)
{
    for (int i = 0; i < images->count; ++i) {
        const char *folder = strrchr(images->paths[i], '/');
        fprintf(out, "%s %d/%d\n", folder ? folder + 1 : images->paths[i], images->classes ? images->classes[i] : -1, images->class_count);
        for (int j = 0; images->boxes && j < images->box_counts[i]; ++j) {
            const struct kure_label *box = &images->boxes[i][j];
            fprintf(out, "%d %.9g %.9g %.9g %.9g\n", box->category, box->x, box->y, box->width, box->height);
        }
    }
}

char **kure_class_names(const char *data, int *count)
{
    list *options = access(data, R_OK) == 0 ? read_data_cfg((char *)(uintptr_t)data) : NULL;
    char *path = options ? option_find_str(options, (char *)(uintptr_t)"names", 0) : NULL;
    if (options && !path) path = option_find_str(options, (char *)(uintptr_t)"labels", 0);
    *count = options ? option_find_int_quiet(options, "classes", 0) : 0;
    if (path && access(path, R_OK) == 0 && *count > 0 && count_lines(path) >= *count) return get_labels(path);
    *count = 0;
    return NULL;
}

void kure_images_free(struct kure_images *images)
{
    free(images->paths);
    free(images->lines);
    free(images->classes);
    for (int i = 0; images->boxes && i < images->count; ++i) free(images->boxes[i]);
    free(images->boxes);
    free(images->box_counts);
    free(images->sizes);
    free(images->pixels);
    free(images);
}

void kure_images_each(network *net, struct kure_images *images, kure_batch_function *visit, void *context)
{
    int batch = net->batch;
    size_t inputs = (size_t)net->inputs;
    float *room = images->decoded ? NULL : malloc((size_t)batch * inputs * sizeof(float));
    if (!images->decoded && !room) kure_stop(&(struct kure_error){"not enough memory for a batch of images"});
    for (int first = 0; first < images->count; first += batch) {
        int n = images->count - first < batch ? images->count - first : batch;
        float *pixels = images->decoded ? images->pixels + (size_t)first * inputs : room;
        if (!images->decoded) kure_images_decode_batch(net, images, first, n, pixels);
        if (n != net->batch) set_batch_network(net, n);
        visit(context, net, pixels, first, n);
    }
    free(room);
    set_batch_network(net, batch);
}

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct prediction {
    void (*done)(void *, int);
    void *context;
};

static void predict(void *context, network *net, float *pixels, int first, int count)
{
    const struct prediction *p = context;
    (void)first;
    network_predict(net, pixels);
    p->done(p->context, count);
}

double kure_images_seconds(network *net, struct kure_images *images, int n)
{
    enum { LEAST_PASSES = 5 }; /* one of which, at least, another process has not held up */
    static const double enough = 0.1, too_long = 2;
    int batch = net->batch;
    if (n > batch) n = batch;
    if (n > images->count) n = images->count;
    float *room = images->decoded ? NULL : malloc((size_t)n * (size_t)net->inputs * sizeof(float));
    if (!images->decoded && !room) kure_stop(&(struct kure_error){"not enough memory for a batch of images"});
    if (n != batch) set_batch_network(net, n);
    double all = 0, best = INFINITY;
    for (int passes = 0; all < too_long && (passes < LEAST_PASSES || all < enough); ++passes) {
        double start = seconds_now();
        if (!images->decoded) kure_images_decode_batch(net, images, 0, n, room);
        network_predict(net, images->decoded ? images->pixels : room);
        double pass = seconds_now() - start;
        all += pass;
        best = fmin(best, pass);
    }
    set_batch_network(net, batch);
    free(room);
    return best / n;
}

void kure_images_predict(network *net, struct kure_images *images, void (*done)(void *, int), void *context)
{
    struct prediction prediction = {done, context};
    kure_images_each(net, images, predict, &prediction);
}
