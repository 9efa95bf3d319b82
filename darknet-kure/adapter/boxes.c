/*
 * boxes.c: the boxes of a detector's images, from Darknet's label files: one box a line,
 * "class x y width height", the centre and the size as shares of the image.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "evaluate.h"

/* Each at its first place in the path, one after the other: fill_truth_detection in Darknet's data.c. */
static const char *const replacements[][2] = {{"images", "labels"}, {"JPEGImages", "labels"}, {"raw", "labels"}, {".jpg", ".txt"},
                                              {".png", ".txt"},     {".JPG", ".txt"},        {".JPEG", ".txt"}};
enum { MOST_PATH = 4096, SHOWN = 60 };

/* line 0: the file as a whole */
__attribute__((format(printf, 3, 4))) static void stop_at(const char *path, int line, const char *format, ...)
{
    struct kure_error error;
    va_list arguments;
    int used = snprintf(error.text, sizeof error.text, line ? "%.600s:%d: " : "%.600s: ", path, line);
    va_start(arguments, format);
    vsnprintf(error.text + used, sizeof error.text - (size_t)used, format, arguments);
    va_end(arguments);
    kure_stop(&error);
}

/* out [out]: [MOST_PATH] */
static void find_label_path(const char *image, char *out)
{
    find_replace((char *)(uintptr_t)image, (char *)(uintptr_t)replacements[0][0], (char *)(uintptr_t)replacements[0][1], out);
    for (size_t i = 1; i < sizeof replacements / sizeof *replacements; ++i) {
        find_replace(out, (char *)(uintptr_t)replacements[i][0], (char *)(uintptr_t)replacements[i][1], out);
    }
}

/* 1: a box; 0: an empty line */
static int parse_line(const char *path, int line, char *text, int classes, struct kure_label *box)
{
    int used = 0;
    text[strcspn(text, "\r\n")] = 0;
    if (text[strspn(text, " \t")] == 0) return 0;
    int found = sscanf(text, "%d %lf %lf %lf %lf %n", &box->category, &box->x, &box->y, &box->width, &box->height, &used);
    if (found != 5 || text[used]) stop_at(path, line, "'%.*s' is no box: class x y width height", SHOWN, text);
    if (box->category < 0 || box->category >= classes) stop_at(path, line, "'%.*s': the class must be from 0 to %d", SHOWN, text, classes - 1);
    if (!(box->x >= 0 && box->x <= 1 && box->y >= 0 && box->y <= 1)) {
        stop_at(path, line, "'%.*s': the centre lies outside the image: x and y are shares of it, from 0 to 1", SHOWN, text);
    }
    if (!(box->width > 0 && box->width <= 1 && box->height > 0 && box->height <= 1)) {
        stop_at(path, line, "'%.*s': width and height are shares of the image, above 0 and up to 1", SHOWN, text);
    }
    return 1;
}

/* Returns 0 where there is no file. */
static int read_labels(struct kure_images *images, int i, const char *path)
{
    FILE *file = fopen(path, "r");
    char *text = NULL;
    size_t capacity = 0;
    struct kure_label box;
    if (!file && errno == ENOENT) return 0;
    if (!file) stop_at(path, 0, "boxes of an image, which cannot be read: %s", strerror(errno));
    for (int line = 1; getline(&text, &capacity, file) > 0; ++line) {
        if (!parse_line(path, line, text, images->class_count, &box)) continue;
        struct kure_label *grown = realloc(images->boxes[i], (size_t)(images->box_counts[i] + 1) * sizeof *grown);
        if (!grown) kure_stop(&(struct kure_error){"not enough memory for the boxes of the images"});
        images->boxes[i] = grown;
        grown[images->box_counts[i]++] = box;
    }
    free(text);
    fclose(file);
    return 1;
}

/* The heads are of kinds and classes that can be measured together; returns their classes. */
static int check_heads(const network *net, list *options, const char *data)
{
    const struct kure_plan_row *rows = ((const struct kure_network *)net->kure)->plan.rows;
    int first = kure_detector_layer(net), classes = net->layers[first].classes;
    int said = option_find_int_quiet(options, (char *)(uintptr_t)"classes", classes);
    for (int i = first; i < net->n; ++i) {
        const layer *l = &net->layers[i];
        if (l->type == DETECTION) stop_at(data, 0, "layer %d is [%s]: this version measures [yolo] and [region]", i, rows[i].type);
        if ((l->type == YOLO || l->type == REGION) && l->classes != classes) {
            stop_at(data, 0, "layer %d [%s] has classes=%d, but layer %d has classes=%d", i, rows[i].type, l->classes, first, classes);
        }
    }
    if (said != classes) stop_at(data, 0, "classes=%d, but layer %d [%s] of the network has classes=%d", said, first, rows[first].type, classes);
    if (option_find_str(options, (char *)(uintptr_t)"map", 0)) stop_at(data, 0, "map=: boxes are measured by the network's own classes");
    return classes;
}

void kure_boxes_load(struct kure_images *images, const network *net, list *options, const char *data)
{
    char path[MOST_PATH], missing[MOST_PATH] = "";
    int files = 0, boxes = 0;
    images->class_count = check_heads(net, options, data);
    images->boxes = calloc((size_t)images->count, sizeof *images->boxes);
    images->box_counts = calloc((size_t)images->count, sizeof *images->box_counts);
    if (!images->boxes || !images->box_counts) kure_stop(&(struct kure_error){"not enough memory for the boxes of the images"});
    for (int i = 0; i < images->count; ++i) {
        find_label_path(images->paths[i], path);
        int found = read_labels(images, i, path);
        if (!found && !*missing) snprintf(missing, sizeof missing, "%s", path);
        files += found;
        boxes += images->box_counts[i];
    }
    if (boxes == 0) {
        stop_at(images->file, 0, "none of its %d images has a box%s%.300s", images->count, files ? "" : ": there is no file such as ", files ? "" : missing);
    }
    if (files < images->count) {
        fprintf(stderr, "%s: %d of %d images have no file of boxes, the first %s: they count as images without boxes\n", images->file,
                images->count - files, images->count, missing);
    }
}
