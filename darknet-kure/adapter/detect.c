/*
 * detect.c: average precision of a detector, from the boxes that `darknet detector valid`
 * writes: Darknet's own decoding, correction for the grey bars and suppression, at its
 * numbers. Images of a batch are decoded beside each other; what is found stays in order.
 */
#include <math.h>
#include <stdlib.h>

#include "measure.h"

/* validate_detector in Darknet's detector.c: of scores, of overlaps, of the nodes of a tree of classes */
static const float LEAST_SCORE = .005f, MOST_OVERLAP = .45f, TREE = .5f;

struct found {
    struct kure_detected *list;
    size_t count, room;
};

struct detecting {
    const struct kure_images *images;
    const struct kure_measuring *how;
    struct found all;
    struct found *of_image; /* [net->batch] */
};

static void no_memory(void)
{
    kure_stop(&(struct kure_error){"not enough memory for the boxes that are detected"});
}

static void add(struct found *f, const struct kure_detected *d)
{
    if (f->count == f->room) {
        f->room = f->room ? 2 * f->room : 64;
        f->list = realloc(f->list, f->room * sizeof *f->list);
        if (!f->list) no_memory();
    }
    f->list[f->count++] = *d;
}

/* A head as it is for image b of the batch alone. */
static layer head_of(const network *net, int i, int b)
{
    layer l = net->layers[i];
    l.output += (size_t)b * (size_t)l.outputs;
    l.batch = 1; /* of two, Darknet takes the second for the mirrored first */
    return l;
}

static int count_boxes(const network *net, int b)
{
    int n = 0;
    for (int i = 0; i < net->n; ++i) {
        layer l = head_of(net, i, b);
        if (l.type == YOLO) n += yolo_num_detections(l, LEAST_SCORE);
        if (l.type == REGION) n += l.w * l.h * l.n;
    }
    return n;
}

/* What Darknet's get_network_boxes finds, of one image of a batch; to be freed with free_detections. */
static detection *boxes_of(const network *net, int b, const int size[2], int classes, int *count)
{
    int n = *count = count_boxes(net, b);
    detection *boxes = calloc((size_t)n + 1, sizeof *boxes), *to = boxes;
    if (!boxes) no_memory();
    for (int i = 0; i < n; ++i) {
        boxes[i].prob = calloc((size_t)classes, sizeof(float));
        if (!boxes[i].prob) no_memory();
    }
    for (int i = 0; i < net->n; ++i) {
        layer l = head_of(net, i, b);
        if (l.type == YOLO) to += get_yolo_detections(l, size[0], size[1], net->w, net->h, LEAST_SCORE, NULL, 0, to);
        if (l.type != REGION) continue;
        get_region_detections(l, size[0], size[1], net->w, net->h, LEAST_SCORE, NULL, TREE, 0, to);
        to += l.w * l.h * l.n;
    }
    return boxes;
}

/* Inside the image, as print_cocos has it. */
static struct kure_rectangle rectangle_of(box b, const int size[2])
{
    float left = (float)(b.x - b.w / 2.), right = (float)(b.x + b.w / 2.), top = (float)(b.y - b.h / 2.), bottom = (float)(b.y + b.h / 2.);
    if (left < 0) left = 0;
    if (top < 0) top = 0;
    if (right > (float)size[0]) right = (float)size[0];
    if (bottom > (float)size[1]) bottom = (float)size[1];
    return (struct kure_rectangle){left, top, right - left, bottom - top};
}

static void detect_image(const struct detecting *d, const network *net, int b, int image, struct found *out)
{
    const int *size = d->images->sizes[image];
    int n, classes = d->images->class_count;
    detection *boxes = boxes_of(net, b, size, classes, &n);
    do_nms_sort(boxes, n, classes, MOST_OVERLAP);
    out->count = 0;
    for (int i = 0; i < n; ++i) {
        struct kure_detected found = {.image = image, .box = rectangle_of(boxes[i].bbox, size)};
        for (int c = 0; c < classes; ++c) {
            found.category = c;
            found.score = (double)boxes[i].prob[c];
            if (boxes[i].prob[c] != 0) add(out, &found); /* as Darknet writes them */
        }
    }
    free_detections(boxes, n);
}

static void detect_batch(void *context, network *net, float *pixels, int first, int count)
{
    struct detecting *d = context;
    kure_predict(d->how, net, pixels, count);
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic)
#endif
    for (int i = 0; i < count; ++i) detect_image(d, net, i, first + i, &d->of_image[i]);
    for (int i = 0; i < count; ++i) {
        for (size_t j = 0; j < d->of_image[i].count; ++j) add(&d->all, &d->of_image[i].list[j]);
    }
    d->how->done(d->how->context, count);
}

/* ---- truth ---------------------------------------------------------------------------------- */

/* In pixels. To be freed; count [out] */
static struct kure_truth *truths_of(const struct kure_images *images, size_t *count)
{
    *count = 0;
    for (int i = 0; i < images->count; ++i) *count += (size_t)images->box_counts[i];
    struct kure_truth *truths = malloc((*count + 1) * sizeof *truths), *to = truths;
    if (!truths) no_memory();
    for (int i = 0; i < images->count; ++i) {
        double w = images->sizes[i][0], h = images->sizes[i][1];
        for (int j = 0; j < images->box_counts[i]; ++j) {
            const struct kure_label *b = &images->boxes[i][j];
            *to++ = (struct kure_truth){i, b->category, {(b->x - b->width / 2) * w, (b->y - b->height / 2) * h, b->width * w, b->height * h}};
        }
    }
    return truths;
}

/* image_id: the line in the list of images; category_id: Darknet's class, from 0 */
static void write_detections(const struct kure_images *images, const struct found *all, FILE *out)
{
    fprintf(out, "[");
    for (size_t i = 0; i < all->count; ++i) {
        const struct kure_detected *d = &all->list[i];
        fprintf(out, "%s\n{\"image_id\": %d, \"category_id\": %d, ", i ? "," : "", images->lines[d->image], d->category);
        fprintf(out, "\"bbox\": [%.9g, %.9g, %.9g, %.9g], \"score\": %.9g}", d->box.x, d->box.y, d->box.width, d->box.height, d->score);
    }
    fprintf(out, "\n]\n");
}

struct kure_measure kure_detect(network *net, struct kure_images *images, const struct kure_measuring *how)
{
    struct detecting d = {.images = images, .how = how};
    struct kure_average_precision all, *categories = how->categories;
    struct kure_measure m;
    struct kure_error error;
    int batch = net->batch;
    d.of_image = calloc((size_t)batch, sizeof *d.of_image);
    if (!categories) categories = malloc((size_t)images->class_count * sizeof *categories);
    if (!d.of_image || !categories) no_memory();
    kure_images_each(net, images, detect_batch, &d);
    struct kure_detection_set set = {.detected = d.all.list, .detected_count = d.all.count, .categories = images->class_count,
                                     .threshold = how->threshold};
    struct kure_truth *truths = truths_of(images, &set.truth_count);
    set.truths = truths;
    if (kure_average_precision(&set, categories, &all, &error) != KURE_OK) kure_stop(&error);
    if (how->detections) write_detections(images, &d.all, how->detections);
    for (int i = 0; i < KURE_MEASURES; ++i) m.value[i] = NAN;
    kure_measure_set_precision(&m, &all);
    for (int i = 0; i < batch; ++i) free(d.of_image[i].list);
    if (categories != how->categories) free(categories);
    free(d.of_image);
    free(d.all.list);
    free(truths);
    return m;
}

void kure_measure_set_precision(struct kure_measure *m, const struct kure_average_precision *a)
{
    m->value[KURE_MEASURE_AP] = 100 * a->ap[KURE_BOX_ANY];
    m->value[KURE_MEASURE_AP50] = 100 * a->ap50;
    m->value[KURE_MEASURE_AP75] = 100 * a->ap75;
    m->value[KURE_MEASURE_AP_SMALL] = 100 * a->ap[KURE_BOX_SMALL];
    m->value[KURE_MEASURE_AP_MEDIUM] = 100 * a->ap[KURE_BOX_MEDIUM];
    m->value[KURE_MEASURE_AP_LARGE] = 100 * a->ap[KURE_BOX_LARGE];
    m->value[KURE_MEASURE_PRECISION] = 100 * a->precision;
    m->value[KURE_MEASURE_RECALL] = 100 * a->recall;
    m->value[KURE_MEASURE_F1] = 100 * a->f1;
}
