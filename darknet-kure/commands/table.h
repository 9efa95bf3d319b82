/*
 * table.h: one table, three ways out: aligned text, CSV, JSON. Column names are the
 * same in all of them.
 */
#ifndef KURE_TABLE_H
#define KURE_TABLE_H

#include <stdio.h>

#include "kure.h"

enum kure_cell { KURE_CELL_TEXT, KURE_CELL_INTEGER, KURE_CELL_REAL };

struct kure_column {
    const char *name;
    enum kure_cell kind;
    const char *format; /* REAL: of printf, for one double */
};

struct kure_table {
    const char *schema; /* "kure.stats/1" */
    const struct kure_column *columns;
    int column_count;
    char model[33], plan[33]; /* hashes; "" where there is none */
    char **cells;             /* [rows][column_count], "" = no value */
    int rows, room;           /* how many there are, and how many fit in cells */
    const char *results;      /* names between blanks; NULL: printed text shows all columns, else the columns
                               * of one value that are not among these come in lines below */
    const struct kure_table *detail; /* borrowed; NULL: none. Its rows stand in the JSON behind `rows`, under detail_name */
    const char *detail_name;
};

void kure_table_init(struct kure_table *table, const char *schema, const struct kure_column *columns, int count);

/* Starts a row; the cells that are not set stay empty. A NaN or infinite value is no value. */
void kure_table_add_row(struct kure_table *table);
void kure_table_set_text(struct kure_table *table, const char *column, const char *value);
void kure_table_set_integer(struct kure_table *table, const char *column, long long value);
void kure_table_set_real(struct kure_table *table, const char *column, double value);

/* The text of a cell, "" = no value; borrowed. */
const char *kure_table_cell(const struct kure_table *table, int row, const char *column);

/* By a column of integers, ascending. */
void kure_table_sort(struct kure_table *table, const char *column);

/* The names of the columns, and one row, as lines of CSV. */
void kure_table_write_header(const struct kure_table *table, FILE *out);
void kure_table_write_row(const struct kure_table *table, int row, FILE *out);

/* Aligned text: empty columns are left out; with `results` those, too, that have the same
 * value wherever they have one. */
void kure_table_print(const struct kure_table *table, FILE *out);

/* Replace `path` only when all is written; a pipe or a device is written into. */
KURE_CHECKED enum kure_status kure_table_write_csv(const struct kure_table *table, const char *path, struct kure_error *error);
KURE_CHECKED enum kure_status kure_table_write_json(const struct kure_table *table, const char *path, struct kure_error *error);

void kure_table_free(struct kure_table *table);

#endif
