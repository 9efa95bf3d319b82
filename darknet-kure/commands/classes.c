/* classes.c: see classes.h. */
#define _GNU_SOURCE
#include "classes.h"

#include <stdlib.h>

#include "output.h"

static const struct kure_column columns[] = {
    {"row", KURE_CELL_INTEGER, NULL},       {"class", KURE_CELL_TEXT, NULL},        {"boxes", KURE_CELL_INTEGER, NULL},
    {"ap", KURE_CELL_REAL, "%.2f"},         {"ap50", KURE_CELL_REAL, "%.2f"},       {"ap75", KURE_CELL_REAL, "%.2f"},
    {"ap_small", KURE_CELL_REAL, "%.2f"},   {"ap_medium", KURE_CELL_REAL, "%.2f"},  {"ap_large", KURE_CELL_REAL, "%.2f"},
    {"precision", KURE_CELL_REAL, "%.2f"},  {"recall", KURE_CELL_REAL, "%.2f"},     {"f1", KURE_CELL_REAL, "%.2f"},
};

static void check_classifier(const struct kure_evaluation_request *r)
{
    struct kure_error error;
    if (!r->detections) return;
    snprintf(error.text, sizeof error.text, "--detections %s: the network is no detector", r->detections);
    kure_stop(&error);
}

void kure_classes_begin(struct kure_classes *c, const struct kure_evaluation_request *r, const network *net)
{
    int head = kure_detector_layer(net), named;
    *c = (struct kure_classes){.path = r->detections, .how = {.threshold = kure_evaluation_threshold(r, net)}};
    kure_table_init(&c->table, "kure.classes/1", columns, sizeof columns / sizeof columns[0]);
    if (head < 0) {
        check_classifier(r);
        return;
    }
    c->count = net->layers[head].classes;
    c->how.categories = calloc((size_t)c->count, sizeof *c->how.categories);
    if (!c->how.categories) kure_stop(&(struct kure_error){"not enough memory for a table of classes"});
    c->names = kure_class_names(r->data, &named);
    if (named < c->count) c->names = NULL;
    if (!r->detections) return;
    c->how.detections = open_memstream(&c->text, &c->size);
    if (!c->how.detections) kure_stop(&(struct kure_error){"not enough memory for the boxes that are detected"});
}

void kure_classes_add(struct kure_classes *c, int row)
{
    for (int i = 0; i < c->count; ++i) {
        const struct kure_average_precision *a = &c->how.categories[i];
        struct kure_measure m;
        kure_measure_set_precision(&m, a);
        kure_table_add_row(&c->table);
        kure_table_set_integer(&c->table, "row", row);
        if (c->names) kure_table_set_text(&c->table, "class", c->names[i]);
        else kure_table_set_integer(&c->table, "class", i);
        kure_table_set_integer(&c->table, "boxes", (long long)a->truths);
        for (int v = KURE_MEASURE_AP; v < KURE_MEASURES; ++v) kure_table_set_real(&c->table, kure_measure_text(v).column, m.value[v]);
    }
}

void kure_classes_print(const struct kure_classes *c, struct kure_table *table)
{
    if (!c->count) return;
    printf("\n");
    kure_table_print(&c->table, stdout);
    table->detail = &c->table;
    table->detail_name = "classes";
}

static void write_detections(struct kure_classes *c)
{
    struct kure_error error;
    struct kure_output out;
    int whole = fclose(c->how.detections) == 0;
    if (!whole) kure_stop(&(struct kure_error){"not enough memory for the boxes that are detected"});
    if (kure_output_open(c->path, &out, &error) != KURE_OK) kure_stop(&error);
    whole = fwrite(c->text, 1, c->size, out.file) == c->size && fflush(out.file) == 0;
    if (kure_output_close(&out, whole, &error) != KURE_OK) kure_stop(&error);
    free(c->text);
}

void kure_classes_end(struct kure_classes *c)
{
    if (c->how.detections) write_detections(c);
    kure_table_free(&c->table);
    free(c->how.categories);
}
