/*
 * classes.h: a detector class by class: the second table of eval, and the file of detections.
 */
#ifndef KURE_CLASSES_H
#define KURE_CLASSES_H

#include "evaluation.h"

struct kure_classes {
    struct kure_table table;       /* row (of the first table, from 1), class, boxes, what is measured */
    struct kure_measuring how;     /* for kure_measure: with room for the classes, and a stream for detections */
    int count;                     /* 0: a classifier, for which there is nothing to say */
    char **names;                  /* by the .data file; NULL: numbers */
    const char *path;              /* of the file of detections; NULL: not wanted */
    char *text;                    /* its content */
    size_t size;
};

/* Ends the process if options of detectors were given for a classifier. */
void kure_classes_begin(struct kure_classes *c, const struct kure_evaluation_request *r, const network *net);
void kure_classes_add(struct kure_classes *c, int row); /* what `how` has left */
/* Prints the table, and hangs it on `table`, for JSON. */
void kure_classes_print(const struct kure_classes *c, struct kure_table *table);
void kure_classes_end(struct kure_classes *c); /* writes the detections */

#endif
