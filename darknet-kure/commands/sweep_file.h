/*
 * sweep_file.h: the CSV file of a sweep: one row a point, each with the hashes of what it
 * was made from, so that shards can be told apart, merged, or simply written one behind
 * the other; and the robustness score of a whole one.
 */
#ifndef KURE_SWEEP_FILE_H
#define KURE_SWEEP_FILE_H

#include "evaluation.h"

/* What a sweep is of. Point 0 is the float network. */
struct kure_sweep_head {
    char model[33]; /* XXH3-128 of the weights */
    char plan[33];  /* of the cfg and its plan */
    char grid[33];  /* of every key's list, the images and the seed: the same for every network that is swept so */
    int points;     /* of the whole grid, with the float one */
    int *rows;      /* [points] of the table, from 1; 0: no row. NULL: no row of any; kure_sweep_free frees it */
};

void kure_sweep_table(struct kure_table *table); /* with the columns of a sweep */

/* A row; point 0 is float. */
void kure_sweep_add(struct kure_table *table, struct kure_sweep_head *head, int point);

/* Reads the rows of `path` into a table of a sweep; those that are there already must be
 * the same. head [in, out]: what the rows must be of; one with points = 0 takes that of
 * the first row. whole [out]: bytes of the lines that are whole; what follows was cut when
 * its writer was killed, and is left out. KURE_ERROR_INPUT: no sweep, or another one; KURE_ERROR_FILE. */
KURE_CHECKED enum kure_status kure_sweep_read(const char *path, struct kure_sweep_head *head, struct kure_table *table, long *whole,
                                              struct kure_error *error);

/* 1: the table has a row of this point; before it is sorted. */
int kure_sweep_has(const struct kure_sweep_head *head, int point);

void kure_sweep_free(struct kure_sweep_head *head);

/* Of a sorted table: says the robustness score, or how many points are missing; on stdout. */
void kure_sweep_print_score(const struct kure_table *table, const struct kure_sweep_head *head);

#endif
