/*
 * images.c: the images of a .data file: found, checked, decoded batch by batch.
 *
 * Prepared and matched to labels as by `darknet classifier valid`: the centre square
 * resized to the network's input, the first label that occurs in the path. For a detector
 * prepared as by `darknet detector test`: the whole image with grey bars.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "evaluate.h"

enum {
    KEEP_BYTES = 1 << 30, /* decoded images are kept up to this size */
    DRAWN = 256,          /* of a sample, unless the user says another number */
};

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
static int detector_layer(const network *net)
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

static void check_classifier(const network *net, const char *data)
{
    int i = detector_layer(net);
    if (i >= 0) {
        stop_input("%s: the network is a detector ([%s]); this version evaluates classifiers", data,
                   ((const struct kure_network *)net->kure)->plan.rows[i].type);
    }
    check_input(net, data);
}

/* An empty or unknown path is an error before hours of evaluation, not after. */
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
        if (access(path, R_OK) != 0) {
            snprintf(error.text, sizeof error.text, "%s:%d: image %s: no such file, or it cannot be read", list_file, line, path);
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
    char *label_file = data_file(options, data, "labels", NULL);
    struct kure_error error;
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
    char **labels = labels_of(options, net, data, &images->class_count);
    images->classes = calloc((size_t)images->count, sizeof(int));
    if (!images->classes) stop_input("not enough memory%s%s", "", "");
    match_labels(images, labels, list_file);
}

struct kure_images *kure_images_load(const network *net, const char *data, int wanted)
{
    if (access(data, R_OK) != 0) stop_input("%s: no such file, or it cannot be read%s", data, "");
    check_classifier(net, data);
    list *options = read_data_cfg((char *)(uintptr_t)data);
    char *valid = data_file(options, data, "valid", NULL);
    data_file(options, data, "labels", NULL);
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
        images->paths[other] = images->paths[i];
        images->paths[i] = path;
        if (access(path, R_OK) != 0) stop_input("%s: image %s: no such file, or it cannot be read", train, path);
    }
    images->count = count;
    return images;
}

void kure_images_describe(const struct kure_images *images, FILE *out)
{
    for (int i = 0; i < images->count; ++i) {
        const char *folder = strrchr(images->paths[i], '/');
        fprintf(out, "%s %d/%d\n", folder ? folder + 1 : images->paths[i], images->classes ? images->classes[i] : -1, images->class_count);
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
    free(images->classes);
    free(images->pixels);
    free(images);
}

static void decode(const network *net, const char *path, float *out)
{
    image im = load_image_color((char *)(uintptr_t)path, 0, 0);
    image crop = detector_layer(net) >= 0 ? letterbox_image(im, net->w, net->h) : center_crop_image(im, net->w, net->h);
    memcpy(out, crop.data, (size_t)net->inputs * sizeof(float));
    free_image(im);
    free_image(crop);
}

static void decode_batch(const network *net, char **paths, int n, float *out)
{
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic)
#endif
    for (int i = 0; i < n; ++i) decode(net, paths[i], out + (size_t)i * (size_t)net->inputs);
}


void kure_images_decode(const network *net, struct kure_images *images)
{
    size_t bytes = (size_t)images->count * (size_t)net->inputs * sizeof(float);
    if (images->decoded || bytes > KEEP_BYTES) return;
    if (!images->pixels) images->pixels = malloc(bytes);
    if (!images->pixels) return; /* then batch by batch */
    decode_batch(net, images->paths, images->count, images->pixels);
    images->decoded = 1;
}

void kure_images_each(network *net, struct kure_images *images, kure_batch_function *visit, void *context)
{
    int batch = net->batch;
    size_t inputs = (size_t)net->inputs, bytes = (size_t)images->count * inputs * sizeof(float);
    if (!images->pixels && bytes <= KEEP_BYTES && !images->once) images->pixels = malloc(bytes);
    float *room = images->pixels ? NULL : malloc((size_t)batch * inputs * sizeof(float));
    if (!images->pixels && !room) kure_stop(&(struct kure_error){"not enough memory for a batch of images"});
    for (int first = 0; first < images->count; first += batch) {
        int n = images->count - first < batch ? images->count - first : batch;
        float *pixels = images->pixels ? images->pixels + (size_t)first * inputs : room;
        if (!images->decoded) decode_batch(net, images->paths + first, n, pixels);
        if (n != net->batch) set_batch_network(net, n);
        visit(context, net, pixels, first, n);
    }
    images->decoded = images->pixels != NULL;
    free(room);
    set_batch_network(net, batch);
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

void kure_images_predict(network *net, struct kure_images *images, void (*done)(void *, int), void *context)
{
    struct prediction prediction = {done, context};
    kure_images_each(net, images, predict, &prediction);
}
