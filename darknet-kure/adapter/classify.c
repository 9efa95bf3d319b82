/*
 * classify.c: top-1 and top-5 of a classifier, ranked as by `darknet classifier valid`:
 * Darknet's top_k.
 */
#include <float.h>
#include <math.h>

#include "evaluate.h"

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
    kure_predictor *predict;
    void *predictor;
    int top1, top5;
    double cross_entropy; /* sum */
    void (*done)(void *, int);
    void *context;
};

static void rank_batch(void *context, network *net, float *pixels, int first, int count)
{
    struct ranking *r = context;
    float *output = r->predict(r->predictor, net, pixels, count);
    if (kure_has_probabilities(net)) r->cross_entropy += kure_cross_entropy(net, output, r->images->classes + first, count);
    for (int i = 0; i < count; ++i) {
        rank(net, output + (size_t)i * (size_t)net->outputs, r->images->class_count, r->images->classes[first + i], &r->top1, &r->top5);
    }
    r->done(r->context, count);
}

static float *predict_float(void *context, network *net, const float *pixels, int count)
{
    (void)context;
    (void)count; /* net->batch */
    return network_predict(net, (float *)(uintptr_t)pixels);
}

struct kure_accuracy kure_classify_by(network *net, struct kure_images *images, kure_predictor *predict, void *predictor, void (*done)(void *, int),
                                      void *context)
{
    struct ranking r = {.images = images, .predict = predict, .predictor = predictor, .done = done, .context = context};
    kure_images_each(net, images, rank_batch, &r);
    return (struct kure_accuracy){100. * r.top1 / images->count, 100. * r.top5 / images->count,
                                  kure_has_probabilities(net) ? r.cross_entropy / images->count : NAN};
}

struct kure_accuracy kure_classify(network *net, struct kure_images *images, void (*done)(void *, int), void *context)
{
    return kure_classify_by(net, images, predict_float, NULL, done, context);
}
