/*
 * evaluation.h: what eval and sweep have in common: their options, their columns, and the
 * work on one point.
 */
#ifndef KURE_EVALUATION_H
#define KURE_EVALUATION_H

#include "command.h"
#include "measure.h"
#include "points.h"

struct kure_evaluation_request {
    const char *csv, *json, *cfg, *weights, *data;
    struct kure_points points;
    int images, threads;
    int equalize;
    int skip_bad;                      /* images that cannot be read are left out */
    int lasting;                       /* --long: as long as it takes */
    double threshold;                  /* of a detector's scores; 0: not given */
    int simulate, integer;             /* eval */
    const char *profile;               /* of integer; NULL: not given */
    const char *detections;            /* eval: file for them */
    const char *save;                  /* eval: NAME of the network to write; NULL: none */
    int shard, shards, jobs;           /* sweep; 0: not given */
    double suggest;                    /* sensitivity: average bits; 0: not given */
    int calibration_images, bn_images, bias_images, lapq_images; /* 0: not given */
    uint64_t seed;
    int seed_given;
};

enum kure_evaluation_kind { KURE_EVAL, KURE_SWEEP, KURE_SENSITIVITY };

/* Reads the command line. -1: go on; else the exit status. help [in]: texts, printed one behind the other, NULL at the end: C has
 * no literal above 4095 characters. */
int kure_evaluation_parse(int argc, char **argv, const char *const *help, enum kure_evaluation_kind kind, struct kure_evaluation_request *r);

/* On stderr what nobody has asked for: weights quantized because activations are. */
void kure_evaluation_say_defaults(const struct kure_evaluation_request *r);

/* Columns from weight_bits to seconds, for a table that begins with others or not. */
extern const struct kure_column kure_evaluation_columns[];
extern const int kure_evaluation_column_count;
extern const char kure_evaluation_results[]; /* those of struct kure_result, for kure_table */

struct kure_result {
    struct kure_measure measure;
    double sqnr, seconds;
    double threshold; /* of a detector; else 0 */
};

/* Adds to the last row of a table. */
void kure_evaluation_set(struct kure_table *table, const struct kure_point *point, const struct kure_result *result);

/* Everything that the points of a request share, loaded once. */
struct kure_evaluation {
    const struct kure_evaluation_request *request;
    network *net;
    struct kure_ptq *ptq;
    struct kure_images *images, *bn_images, *bias_images, *lapq_images; /* NULL without the option of that name */
    struct kure_images *calibrating;        /* for the calibration; NULL: none, or it is done */
    struct kure_correction *correction;
    struct kure_lapq_steps *lapq;
    struct kure_calibration *calibration;   /* NULL: no point quantizes activations */
    int calibration_images;
};

/* The images, those of the training list too; then what takes long, every point being checked first. */
void kure_evaluation_load(struct kure_evaluation *e, const struct kure_evaluation_request *request, network *net);
void kure_evaluation_begin(struct kure_evaluation *e);

/* Which images there are, on whatever machine they lie. */
void kure_evaluation_describe(const struct kure_evaluation *e, FILE *out);
void kure_evaluation_end(struct kure_evaluation *e); /* the network too */

/* done(context, images): after every batch. detail: what the table of a detector's classes is made of, with the file of
 * detections; NULL: not wanted */
struct kure_result kure_evaluation_run(struct kure_evaluation *e, const struct kure_point *point, struct kure_measuring *detail, void (*done)(void *, int),
                                       void *context);

/* Of a detector's scores, given or not; 0: a classifier, for which none may be given. */
double kure_evaluation_threshold(const struct kure_evaluation_request *r, const network *net);

/* Images that a point passes, for the progress. */
long long kure_evaluation_images(const struct kure_evaluation *e);

/* evaluation_save.c: --save NAME: does it go together with the other options (-1: it does; else the exit status), and what it does
 * after the only point was run. */
int kure_evaluation_check_save(const char *command, const struct kure_evaluation_request *r);
void kure_evaluation_save(const struct kure_evaluation *e, const struct kure_point *point);

/* The columns that do not depend on the result: calibration_images and the like. */
void kure_evaluation_set_images(const struct kure_evaluation *e, const struct kure_point *point, struct kure_table *table);

#endif
