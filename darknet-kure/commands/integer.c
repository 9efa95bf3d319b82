/* integer.c: see integer.h. */
#define _GNU_SOURCE
#include "integer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "profiles.h"
#include "progress.h"

/* ---- quantizers --------------------------------------------------------------------- */

static int parse_points(struct kure_integer_source *s)
{
    const struct kure_points *points = &s->request->points;
    struct kure_error error;
    s->quantization = (struct kure_quantization_options){.line = KURE_NO_SECTION, .method = KURE_METHOD_STE, .first_bits = 8, .last_bits = 8,
                                                         .batchnorm = KURE_BATCHNORM_FOLD, .every = 1};
    for (int i = 0; i < 3; ++i) kure_quantizer_keys_clear(&s->quantization.quantizer[i]);
    for (int i = 0; points->given && kure_point_key(i); ++i) {
        const char *list = kure_points_given(points, i);
        if (!list) continue;
        if (strchr(list, ',')) return kure_usage_error(s->request->command, "%s=%s: one integer model has one value", kure_point_key(i), list);
        if (kure_quantization_set(&s->quantization, kure_point_key(i), list, &error) != KURE_OK) return kure_usage_error(s->request->command, "%s", error.text);
    }
    return -1;
}

static const char *profile_of_cfg(const struct kure_integer_source *s)
{
    const struct kure_network *k = s->net->kure;
    const struct kure_profile *p = s->has_section ? kure_profile((int)k->options.quantization.profile - 1) : NULL;
    return p ? p->name : NULL;
}

const char *kure_integer_profile(const struct kure_integer_source *s)
{
    const char *own = profile_of_cfg(s);
    return s->request->profile ? s->request->profile : own ? own : "onnx";
}

static int check_profile(const char *command, const char *profile)
{
    char names[200] = "";
    if (!profile || kure_profile_find(profile) >= 0) return -1;
    for (int i = 0; kure_profile(i); ++i) snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", i ? ", " : "", kure_profile(i)->name);
    return kure_usage_error(command, "--profile %s: must be one of: %s", profile, names);
}

int kure_integer_load(struct kure_integer_source *s, const struct kure_integer_request *r)
{
    *s = (struct kure_integer_source){.request = r};
    int status = check_profile(r->command, r->profile);
    if (status < 0) status = parse_points(s);
    if (status >= 0) return status;
    s->net = kure_network_load(r->cfg, r->weights);
    const struct kure_network *k = s->net->kure;
    s->has_section = k->plan.quantizers > 0;
    const char *own = profile_of_cfg(s);
    if (s->has_section && r->points.given) {
        fprintf(stderr, "%s: has a [quantization] of its own, which the quantizer keys of the command line contradict: leave them out\n", r->cfg);
        return 1;
    }
    if (own && r->profile && strcmp(own, r->profile) != 0) {
        fprintf(stderr, "%s:%d: [quantization] profile=%s and --profile %s contradict each other: leave --profile out, or train with profile=%s\n", r->cfg,
                k->options.quantization.line, own, r->profile, r->profile);
        return 1;
    }
    if (!s->has_section && !r->data) {
        fprintf(stderr, "%s: was neither trained with [quantization] nor calibrated: add --data DATA to calibrate now, or run 'darknet kure calibrate %s %s "
                "DATA' with a [quantization] in the cfg\n", r->cfg, r->cfg, r->weights);
        return 1;
    }
    return -1;
}

/* ---- ranges ----------------------------------------------------------------------------- */

static void count_images(void *progress, int n)
{
    kure_progress_add(progress, n);
}

static void begin_ptq(struct kure_integer_source *s)
{
    if (!s->ptq) s->ptq = kure_ptq_begin(s->net);
}

static void calibrate(struct kure_integer_source *s)
{
    const struct kure_integer_request *r = s->request;
    struct kure_progress progress;
    if (s->calibration) return;
    begin_ptq(s);
    struct kure_images *images = kure_images_sample(s->net, r->data, r->images, r->seed, "--images");
    kure_images_check(s->net, images, 0);
    kure_progress_start(&progress, "calibration images", images->count);
    s->calibration = kure_calibrate(s->ptq, images, count_images, &progress);
    kure_progress_end(&progress);
    const char *file = strrchr(r->data, '/');
    snprintf(s->ranges, sizeof s->ranges, "%d images of %s, seed %llu", images->count, file ? file + 1 : r->data, (unsigned long long)r->seed);
    kure_images_free(images);
}

/* Quantizers and ranges in force. A network that was trained or calibrated keeps what its sidecar has. */
static void prepare(struct kure_integer_source *s, const char *profile, int replan)
{
    const struct kure_integer_request *r = s->request;
    struct kure_error error;
    int number = kure_profile_find(profile), ready = s->has_section && kure_simulation_is_ready(s->net->kure);
    if (!s->ranges[0]) snprintf(s->ranges, sizeof s->ranges, "%s", s->has_section ? "the .kure file beside the weights" : "");
    if (s->has_section && !replan && (ready || !r->data)) return; /* without data the view says what is missing */
    if ((!ready || s->calibration) && r->data) calibrate(s);
    begin_ptq(s);
    if (s->has_section && !replan) {
        kure_export_use_own(s->ptq);
    } else if (kure_export_use_profile(s->ptq, s->has_section ? NULL : &s->quantization, number, &error) != KURE_OK) {
        kure_stop(&error);
    }
    if (s->calibration) kure_export_calibrate(s->ptq, s->calibration);
}

/* Weights that have not seen their quantizers yet. */
static void warn_of_start(const struct kure_integer_source *s)
{
    const struct kure_network *k = s->net->kure;
    long long start = k->plan.quantization.start, done = kure_updates_done(s->net);
    if (start <= done) return;
    fprintf(stderr, "%s: [quantization] start=%lld: the weights have seen %lld updates, all of them in float\n", s->request->cfg, start, done);
}

/* The names of DATA's classes, where it says them. */
static void add_classes(const struct kure_integer_source *s, struct kure_network_view *view)
{
    if (s->request->data) view->classes = kure_class_names(s->request->data, &view->class_count);
}

void kure_integer_make(struct kure_integer_source *s, const char *profile, int replan, struct kure_network_view *view, struct kure_integer_model *model)
{
    struct kure_error error;
    prepare(s, profile, replan);
    if (kure_export_view(s->net, s->request->cfg, s->request->weights, view, &error) != KURE_OK) kure_stop(&error);
    add_classes(s, view);
    warn_of_start(s);
    if (kure_integer_build(view, profile, model, &error) != KURE_OK) kure_stop(&error);
}

void kure_integer_end(struct kure_integer_source *s)
{
    kure_calibration_free(s->calibration);
    if (s->ptq) kure_ptq_free(s->ptq);
    free_network(s->net);
}

/* ---- accuracy ----------------------------------------------------------------------------- */

struct predicting {
    const struct kure_integer_model *model;
    struct kure_model opened;
    int *sources; /* [output_count] layers of the cfg */
};

/* Where row r of a part of a head stands in the layer that is its source; struct kure_integer_output. */
static int row_of(const struct kure_integer_output *o, int r)
{
    int rows = o->part == KURE_PART_BOXES ? o->head_boxes : o->head_rows - o->head_boxes;
    if (o->part == KURE_PART_ALL) return r;
    return r / rows * o->head_rows + r % rows + (o->part == KURE_PART_SCORES ? o->head_boxes : 0);
}

/* The values of an output to where Darknet's layer has them; room: [elements] */
static void put_output(const struct predicting *p, const layer *l, const struct kure_integer_output *o, int image, const void *arena, float *room)
{
    const struct kure_integer_tensor *t = &p->model->tensors[o->tensor];
    size_t plane = (size_t)t->height * (size_t)t->width;
    float *to = l->output + (size_t)image * (size_t)l->outputs;
    kure_runtime_dequantize(&p->opened, (uint32_t)o->tensor, kure_runtime_codes(&p->opened, arena, (uint32_t)o->tensor), room);
    for (int r = 0; r < t->channels; ++r) memcpy(to + (size_t)row_of(o, r) * plane, room + (size_t)r * plane, plane * sizeof *room);
}

static void run_one(const struct predicting *p, const network *net, int image, const float *pixels, void *arena, int8_t *input, float *room)
{
    kure_runtime_quantize(&p->opened, pixels, input);
    if (kure_runtime_run(&p->opened, arena, kure_runtime_arena_bytes(&p->opened), input) != KURE_RUNTIME_OK) return; /* an arena of that size fits */
    for (int i = 0; i < p->model->output_count; ++i) {
        put_output(p, &net->layers[p->sources[i]], &p->model->outputs[i], image, arena, room);
    }
}

/* In place of a prediction: every image through the runtime, then through the float layers behind its outputs. */
static float *predict(void *context, network *net, const float *pixels, int count)
{
    const struct predicting *p = context;
    size_t inputs = kure_runtime_tensor(&p->opened, 0).elements, most = 1;
    int failed = 0;
    for (int i = 0; i < p->model->output_count; ++i) {
        size_t n = kure_integer_elements(&p->model->tensors[p->model->outputs[i].tensor]);
        if (n > most) most = n;
    }
#ifdef _OPENMP
#pragma omp parallel
#endif
    {
        void *arena = malloc(kure_runtime_arena_bytes(&p->opened));
        int8_t *input = malloc(inputs);
        float *room = malloc(most * sizeof *room);
        if (!arena || !input || !room) failed = 1;
#ifdef _OPENMP
#pragma omp barrier
#pragma omp for schedule(dynamic)
#endif
        for (int i = 0; i < count; ++i) {
            if (!failed) run_one(p, net, i, pixels + (size_t)i * inputs, arena, input, room);
        }
        free(arena);
        free(input);
        free(room);
    }
    if (failed) kure_stop(&(struct kure_error){"not enough memory for the activations of the integer model"});
    return kure_export_decode(net, p->sources, p->model->output_count);
}

struct kure_measure kure_integer_measure(const struct kure_integer_model *model, network *net, struct kure_images *images, struct kure_measuring *how)
{
    struct predicting p = {.model = model};
    p.sources = malloc((size_t)model->output_count * sizeof *p.sources);
    if (!p.sources || kure_runtime_open(&p.opened, model->file, model->file_bytes, NULL) != KURE_RUNTIME_OK) {
        kure_stop(&(struct kure_error){"not enough memory for the outputs of the integer model"});
    }
    for (int i = 0; i < model->output_count; ++i) p.sources[i] = model->outputs[i].source;
    how->predict = predict;
    how->predictor = &p;
    struct kure_measure m = kure_measure(net, images, how);
    free(p.sources);
    return m;
}
