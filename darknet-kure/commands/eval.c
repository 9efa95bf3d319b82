/* eval.c: `darknet kure eval CFG WEIGHTS DATA`: accuracy, float or quantized. */
#define _GNU_SOURCE
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "classes.h"
#include "estimate.h"
#include "evaluation.h"
#include "integer.h"
#include "interrupt.h"
#include "progress.h"

static const char *const help[] = {
    "usage: darknet kure eval CFG WEIGHTS DATA [options]\n\n"
    "Top-1 and top-5 of a classifier, AP of a detector on the validation list of a .data file:\n"
    "float, or quantized after training as soon as a quantizer key is given. Lists such as\n"
    "8,6,4 give one row for every combination. Keys that a layer of CFG has itself stand;\n"
    "[quantization] of CFG is read with --simulate and --integer only.\n\n"
    "AP is COCO's, of the boxes of 'darknet detector valid'; in all and by class.\n\n",
    "Quantizers, one value or a list each:\n"
    "  --quantize KEY=VALUE,...        any of them in one option, or each by itself:\n"
    "  --weight-bits LIST              2-16, 0 = float (default 8)\n"
    "  --first-bits LIST, --last-bits LIST   layers at the network input and the loss (default 8)\n"
    "  --weight-step-ratio LIST        multiplies the step size (default 1)\n"
    "  --weight-rounding LIST          half_even (default), half_away, half_up, half_down,\n"
    "                                  half_to_zero, floor, ceil, to_zero, stochastic\n"
    "  --weight-truncation LIST        minmax (default), percentile, mse, kl, gauss, laplace,\n"
    "                                  lp, sigma, fixed\n"
    "  --weight-truncation-value LIST  the percentile, lp's exponent, the number of sigmas,\n"
    "                                  or the bound of fixed\n"
    "  --weight-step LIST              free (default), power_of_two\n"
    "  --weight-granularity LIST       channel (default), tensor\n"
    "  --weight-grid LIST              narrow (default), full, midrise\n"
    "  --weight-symmetric LIST         1 (default); 0: a free zero point, on the full grid\n"
    "  --batchnorm LIST                fold (default): the grid of the folded weights;\n"
    "                                  train: raw weights\n"
    "  --activation-bits LIST          2-16, 0 = float (default); weights are then quantized as\n"
    "                                  well, to 8 bits: --weight-bits 0 leaves them float\n"
    "  --activation-KEY LIST           step-ratio, rounding, truncation (default ema; the\n"
    "                                  above as well), truncation-value, step, grid\n"
    "                                  (default full), symmetric (default 0)\n"
    "  --bits LIST, --rounding LIST... weights and activations alike: 8,4 are two rows\n"
    "  --calibration-images N          images of the training list that the ranges of\n"
    "                                  activations come from (default 256, or all)\n\n",
    "Repairs that need no training:\n"
    "  --equalize                      cross-layer equalization of the float network first\n"
    "  --bn-images N                   estimate batch norm anew in every row, from so many\n"
    "                                  images of the training list (default 0: as trained)\n"
    "  --bias-images N                 move biases in every row until each channel's mean, over\n"
    "                                  so many images, is that of the float network (default 0)\n"
    "  --lapq-images N                 LAPQ: steps found together, by the cross-entropy of N\n"
    "                                  images of the training list (default 0; usual: 512)\n"
    "  --save NAME                     write the row's network as NAME.cfg and NAME.weights, with\n"
    "                                  what was found: for export, --simulate and training\n\n",
    "Trained or exported quantizers:\n"
    "  --simulate                      as [quantization] of CFG says; ranges: WEIGHTS.kure\n"
    "  --integer                       the integer model that export makes, run by the integer\n"
    "                                  runtime: of [quantization], or of the keys above\n"
    "  --profile NAME                  its target, as in export (default: that of CFG, or onnx)\n\n",
    "Detectors:\n"
    "  --threshold T                   score for precision, recall, F1 (default 0.25)\n"
    "  --detections FILE               write the boxes as COCO's results; image_id: line of the\n"
    "                                  list. scripts/report.py draws such files side by side\n\n",
    "All:\n"
    "  --images N                      the first N images of the validation list only\n"
    "  --seed N                        which images of the training list (default 0)\n"
    "  --skip-bad                      leave out images that cannot be read, and say how many\n"
    "  --long                          begin even where it would take more than a day\n"
    "  --threads N                     processor threads (default: all)\n"
    "  --csv FILE, --json FILE         write the table\n"
    "  --help                          this text\n",
    NULL,
};

static void count_images(void *progress, int n)
{
    kure_progress_add(progress, n);
}

/* The quantizers of the layers in the middle, which carry the section's own bits. */
static const struct kure_plan_row *inner_row(const struct kure_plan *plan)
{
    const struct kure_plan_row *any = &plan->rows[0];
    for (int i = 0; i < plan->count; ++i) {
        const struct kure_plan_row *row = &plan->rows[i];
        if (!row->weight.bits && !row->after.bits) continue;
        if (!row->reads_input && !row->reaches_head) return row;
        any = row;
    }
    return any;
}

/* As [quantization] of the cfg says. */
static void evaluate_simulated(network *net, const struct kure_evaluation_request *r, struct kure_table *table, struct kure_classes *classes)
{
    const struct kure_plan *plan = &((const struct kure_network *)net->kure)->plan;
    const struct kure_plan_row *row = inner_row(plan);
    const struct kure_quantization_options *o = &plan->quantization;
    struct kure_point point = {.weights = row->weight, .activations = row->after, .fold = o->batchnorm != KURE_BATCHNORM_TRAIN,
                               .first_bits = (int)o->first_bits, .last_bits = (int)o->last_bits};
    struct kure_result result = {.sqnr = NAN, .threshold = kure_evaluation_threshold(r, net)};
    struct kure_progress progress;
    kure_classes_begin(classes, r, net);
    struct kure_images *images = kure_images_load(net, r->data, r->images);
    kure_images_check(net, images, r->skip_bad);
    double start = kure_seconds();
    kure_progress_start(&progress, "images", images->count);
    classes->how.done = count_images;
    classes->how.context = &progress;
    result.measure = kure_measure(net, images, &classes->how);
    result.seconds = kure_seconds() - start;
    kure_table_add_row(table);
    kure_evaluation_set(table, &point, &result);
    kure_classes_add(classes, 1);
    kure_progress_end(&progress);
    kure_images_free(images);
    free_network(net);
}

/* What export would write, by the integer runtime. */
static int evaluate_integer(const struct kure_evaluation_request *r, struct kure_table *table, struct kure_classes *classes)
{
    const struct kure_integer_request wanted = {.command = "eval", .cfg = r->cfg, .weights = r->weights, .data = r->data, .profile = r->profile,
                                                .points = r->points, .images = r->calibration_images, .seed = r->seed};
    struct kure_integer_source source;
    struct kure_network_view view;
    struct kure_integer_model model;
    struct kure_result result = {.sqnr = NAN};
    struct kure_progress progress;
    int status = kure_integer_load(&source, &wanted);
    if (status >= 0) return status;
    kure_classes_begin(classes, r, source.net);
    result.threshold = kure_evaluation_threshold(r, source.net);
    struct kure_images *images = kure_images_load(source.net, r->data, r->images);
    kure_images_check(source.net, images, r->skip_bad);
    kure_integer_make(&source, kure_integer_profile(&source), 0, &view, &model);
    const struct kure_plan *plan = &((const struct kure_network *)source.net->kure)->plan;
    const struct kure_plan_row *row = inner_row(plan);
    struct kure_point point = {.weights = row->weight, .activations = row->after, .fold = plan->quantization.batchnorm != KURE_BATCHNORM_TRAIN,
                               .first_bits = (int)plan->quantization.first_bits, .last_bits = (int)plan->quantization.last_bits};
    double start = kure_seconds();
    kure_progress_start(&progress, "images", images->count);
    classes->how.done = count_images;
    classes->how.context = &progress;
    result.measure = kure_integer_measure(&model, source.net, images, &classes->how);
    kure_progress_end(&progress);
    result.seconds = kure_seconds() - start;
    memcpy(table->plan, plan->hash, sizeof table->plan);
    kure_table_add_row(table);
    kure_evaluation_set(table, &point, &result);
    kure_classes_add(classes, 1);
    fprintf(stderr, "integer model of profile %s, ranges: %s\n", model.profile, source.ranges);
    kure_integer_free(&model);
    kure_export_view_free(&view);
    kure_images_free(images);
    kure_integer_end(&source);
    return -1;
}

static void evaluate_points(network *net, const struct kure_evaluation_request *r, struct kure_table *table, struct kure_classes *classes)
{
    int count = r->points.given ? kure_points_count(&r->points) : 1;
    struct kure_evaluation e;
    struct kure_progress progress;
    kure_classes_begin(classes, r, net);
    kure_evaluation_load(&e, r, net);
    kure_evaluation_begin(&e);
    struct kure_point last = r->points.given ? kure_points_get(&r->points, count - 1) : (struct kure_point){0};
    if (count > 1 && !kure_estimate_allows(&e, &last, count, 1)) exit(1);
    kure_progress_start(&progress, "images", count * kure_evaluation_images(&e));
    for (int i = 0; i < count; ++i) {
        struct kure_point point = {0};
        if (r->points.given) point = kure_points_get(&r->points, i);
        struct kure_result result = kure_evaluation_run(&e, &point, &classes->how, count_images, &progress);
        kure_table_add_row(table);
        kure_evaluation_set(table, &point, &result);
        kure_classes_add(classes, i + 1);
        kure_evaluation_set_images(&e, &point, table);
    }
    kure_progress_end(&progress);
    if (r->save) kure_evaluation_save(&e, &last);
    kure_evaluation_end(&e);
}

/* By Darknet: float, simulated, or quantized after training. -1: done; else the exit status. */
static int evaluate_network(const struct kure_evaluation_request *r, struct kure_table *table, struct kure_classes *classes)
{
    network *net = kure_network_load(r->cfg, r->weights);
    const struct kure_network *k = net->kure;
    if (r->simulate && !k->plan.quantizers) {
        fprintf(stderr, "%s: has no [quantization] and no [quantize] to simulate\n", r->cfg);
        return 1;
    }
    memcpy(table->plan, k->plan.hash, sizeof table->plan);
    if (r->simulate) evaluate_simulated(net, r, table, classes);
    else evaluate_points(net, r, table, classes);
    return -1;
}

int kure_command_eval(int argc, char **argv)
{
    struct kure_evaluation_request r = {.csv = NULL};
    int status = kure_evaluation_parse(argc, argv, help, KURE_EVAL, &r);
    if (status >= 0) return status;
    kure_interrupt_say("stopped: a table is written at the end only, so that nothing is kept; 'darknet kure sweep' keeps every row");
    struct kure_table table;
    struct kure_classes classes;
    struct kure_error error;
    kure_table_init(&table, "kure.eval/1", kure_evaluation_columns, kure_evaluation_column_count);
    table.results = kure_evaluation_results;
    status = r.integer ? evaluate_integer(&r, &table, &classes) : evaluate_network(&r, &table, &classes);
    if (status >= 0) return status;
    if (kure_hash_file(r.weights, table.model, &error) != KURE_OK) kure_stop(&error);
    kure_interrupt_hold(1);
    kure_table_print(&table, stdout);
    kure_classes_print(&classes, &table);
    kure_evaluation_say_defaults(&r);
    status = kure_write_tables(&table, r.csv, r.json);
    kure_classes_end(&classes);
    kure_table_free(&table);
    kure_points_free(&r.points);
    return status;
}
