/*
 * points.h: the quantizer keys of a command line as a list of points to evaluate.
 *
 * Every key takes one value or a list; the points are all combinations, the key
 * named first in the table of points.c varying slowest.
 */
#ifndef KURE_POINTS_H
#define KURE_POINTS_H

#include "evaluate.h"

enum { KURE_POINT_KEYS = 24, KURE_POINT_NAMES = 32, KURE_MOST_POINTS = 100000 };

struct kure_points {
    char *values[KURE_POINT_KEYS]; /* comma-separated, NULL: the default */
    double *numbers[KURE_POINT_KEYS]; /* the same as values of fields; choices by their place */
    int counts[KURE_POINT_KEYS];   /* of numbers; 0: the default */
    char paired[KURE_POINT_KEYS];  /* 1: of activations, set by the bare key: goes with the weights' value */
    char bare[KURE_POINT_KEYS];    /* 1: set by the bare key, for weights and activations */
    int given;                     /* any key was */
};

/* The keys, bare ones too, for getopt_long: weight_bits is --weight-bits. NULL after the last. */
const char *kure_point_key(int i);

/* The same as options of getopt_long, --weight-bits, which it answers with 1. Returns how many.
 *   options, names  [out]: [KURE_POINT_NAMES]; the options borrow the names */
struct option;
int kure_point_options(struct option *options, char names[][32]);

/* Records `list` for `key` (as written in a cfg); checks every value. A bare key, bits,
 * sets weights and activations alike: bits=8,4 are two points, not four.
 * KURE_ERROR_INPUT: unknown key, a value out of range. */
KURE_CHECKED enum kure_status kure_points_set(struct kure_points *points, const char *key, const char *list,
                                              struct kure_error *error);

/* The same for an option's name, weight-bits. */
KURE_CHECKED enum kure_status kure_points_set_option(struct kure_points *points, const char *option, const char *list,
                                                     struct kure_error *error);

/* Was this key (full name) given? */
int kure_points_has(const struct kure_points *points, const char *key);
/* Its list as text, the default where it was not; borrowed. */
const char *kure_points_list(const struct kure_points *points, const char *key);
/* 1: the quantizer's policy wants a truncation_value. */
int kure_point_takes_value(const struct kure_quantizer *q);

/* The list of key i of kure_point_key, NULL: not given; a bare key has given those of weights and activations. */
const char *kure_points_given(const struct kure_points *points, int i);

/* --quantize key=value,key=value */
KURE_CHECKED enum kure_status kure_points_parse(struct kure_points *points, const char *text, struct kure_error *error);

/* Above KURE_MOST_POINTS: one more than that. */
int kure_points_count(const struct kure_points *points);
/* truncation_value is 0 in points whose policy takes none. */
struct kure_point kure_points_get(const struct kure_points *points, int i);
/* `own` with the activation_ keys of point i that were given. */
struct kure_quantizer kure_points_activations(const struct kure_points *points, int i, const struct kure_quantizer *own);
/* Do the keys of every point go together? KURE_ERROR_INPUT and why not. */
KURE_CHECKED enum kure_status kure_points_check(const struct kure_points *points, struct kure_error *error);
/* Every key with its list, defaults too, for a hash. To be freed; NULL: no memory. */
char *kure_points_text(const struct kure_points *points);
void kure_points_free(struct kure_points *points);

#endif
