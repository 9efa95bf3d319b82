/*
 * classify.c: top-1 and top-5 of a classifier, ranked as by `darknet classifier valid`:
 * Darknet's top_k.
 */
#include <float.h>
#include <math.h>

#include "measure.h"

int kure_has_probabilities(const network *net)
{
    return get_network_output_layer((network *)(uintptr_t)net).type == SOFTMAX && !net->hierarchy;
}

double kure_cross_entropy(const network *net, const float *output, const int *classes, int count)
{
    double sum = 0;
    for (int i = 0; i < count; ++i) sum -= log(fmax(output[(size_t)i * (size_t)net->outputs + (size_t)classes[i]], FLT_MIN));
    return sum;
}

/* Counts a hit among the first and the first five classes. */
static void rank(const network *net, float *output, int class_count, int truth, int *top1, int *top5)
{
    int best[5], k = class_count < 5 ? class_count : 5;
    if (net->hierarchy) hierarchy_predictions(output, net->outputs, net->hierarchy, 1, 1);
    top_k(output, class_count, k, best);
    *top1 += best[0] == truth;
    for (int i = 0; i < k; ++i) *top5 += best[i] == truth;
}

struct ranking {
    const struct kure_images *images;
    const struct kure_measuring *how;
    int top1, top5;
    double cross_entropy; /* sum */
};

static void rank_batch(void *context, network *net, float *pixels, int first, int count)
{
    struct ranking *r = context;
    float *output = kure_predict(r->how, net, pixels, count);
    if (kure_has_probabilities(net)) r->cross_entropy += kure_cross_entropy(net, output, r->images->classes + first, count);
    for (int i = 0; i < count; ++i) {
        rank(net, output + (size_t)i * (size_t)net->outputs, r->images->class_count, r->images->classes[first + i], &r->top1, &r->top5);
    }
    r->how->done(r->how->context, count);
}

struct kure_measure kure_classify(network *net, struct kure_images *images, const struct kure_measuring *how)
{
    struct ranking r = {.images = images, .how = how};
    struct kure_measure m;
    kure_images_each(net, images, rank_batch, &r);
    for (int i = 0; i < KURE_MEASURES; ++i) m.value[i] = NAN;
    m.value[KURE_MEASURE_TOP1] = 100. * r.top1 / images->count;
    m.value[KURE_MEASURE_TOP5] = 100. * r.top5 / images->count;
    if (kure_has_probabilities(net)) m.value[KURE_MEASURE_CROSS_ENTROPY] = r.cross_entropy / images->count;
    return m;
}
