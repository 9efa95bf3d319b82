/*
 * calibration.c: what the activations of the float network are: one pass over images, in
 * constant memory, that serves every truncation policy and width.
 */
#include <stdlib.h>

#include "ptq.h"

struct kure_calibration {
    int count;
    struct observed {
        struct kure_activation_quantizer before, after; /* their observers alone */
    } *layers;
};

/* A quantizer wherever one can sit: what it observes does not depend on its width. */
static const struct kure_point everywhere = {.activations = {.bits = 8, .step_ratio = 1, .grid = KURE_GRID_FULL},
                                             .first_bits = 8, .last_bits = 8, .everywhere = 1};

static void observe_all(struct kure_activation_quantizer *a)
{
    struct kure_error error;
    if (a->q.bits && kure_activation_observe_all(a, &error) != KURE_OK) kure_stop(&error);
}

/* Takes the observers over. */
static void take(struct kure_activation_quantizer *to, struct kure_activation_quantizer *from)
{
    *to = *from;
    from->slots = from->now = NULL;
    from->slot_count = 0;
}

struct kure_calibration *kure_calibrate(struct kure_ptq *ptq, struct kure_images *images, void (*done)(void *, int), void *context)
{
    struct kure_calibration *c = calloc(1, sizeof *c);
    if (c) c->layers = calloc((size_t)ptq->net->n, sizeof *c->layers);
    if (!c || !c->layers) kure_stop(&(struct kure_error){"not enough memory for a calibration"});
    c->count = ptq->net->n;
    kure_ptq_set(ptq, &everywhere, NULL);
    struct kure_simulation *s = ptq->k->simulation;
    s->observing = 1;
    for (int i = 0; i < c->count; ++i) {
        observe_all(&s->layers[i].before);
        observe_all(&s->layers[i].after);
    }
    kure_images_predict(ptq->net, images, done, context);
    for (int i = 0; i < c->count; ++i) {
        take(&c->layers[i].before, &s->layers[i].before);
        take(&c->layers[i].after, &s->layers[i].after);
    }
    s->observing = 0;
    return c;
}

void kure_calibration_apply(const struct kure_calibration *c, struct kure_network *k)
{
    struct kure_simulation *s = k->simulation;
    for (int i = 0; s && i < c->count; ++i) {
        struct kure_error error;
        if ((s->layers[i].before.q.bits && kure_activation_calibrate(&s->layers[i].before, &c->layers[i].before, &error) != KURE_OK) ||
            (s->layers[i].after.q.bits && kure_activation_calibrate(&s->layers[i].after, &c->layers[i].after, &error) != KURE_OK)) {
            kure_simulation_stop(k, i, &error);
        }
    }
}

const struct kure_observer *kure_calibration_observer(const struct kure_calibration *c, int i, int after, int group)
{
    const struct kure_activation_quantizer *a = after ? &c->layers[i].after : &c->layers[i].before;
    return a->now && group < kure_activation_groups(a) ? &a->now->group[group].observer : NULL;
}

void kure_calibration_save(struct kure_ptq *ptq, const struct kure_calibration *c, const char *weights)
{
    kure_ptq_restore(ptq);
    kure_calibration_apply(c, ptq->k);
    kure_sidecar_save(ptq->k, weights);
}

void kure_calibration_free(struct kure_calibration *c)
{
    for (int i = 0; c && i < c->count; ++i) {
        kure_activation_free(&c->layers[i].before);
        kure_activation_free(&c->layers[i].after);
    }
    if (c) free(c->layers);
    free(c);
}
