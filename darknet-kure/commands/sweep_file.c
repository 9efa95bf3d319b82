/* sweep_file.c: see sweep_file.h. */
#define _GNU_SOURCE
#include "sweep_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"

enum { HEAD = 5, MOST_COLUMNS = 64 };
static const char *const head_names[HEAD] = {"model_hash", "plan_hash", "grid_hash", "points", "point"};
static struct kure_column columns[MOST_COLUMNS];

void kure_sweep_table(struct kure_table *table)
{
    for (int i = 0; i < HEAD; ++i) columns[i] = (struct kure_column){head_names[i], i < 3 ? KURE_CELL_TEXT : KURE_CELL_INTEGER, NULL};
    memcpy(columns + HEAD, kure_evaluation_columns, (size_t)kure_evaluation_column_count * sizeof *columns);
    kure_table_init(table, "kure.sweep/1", columns, HEAD + kure_evaluation_column_count);
    table->results = kure_evaluation_results;
}

/* The new last row is that of a point. */
static void set_row(const struct kure_table *table, struct kure_sweep_head *head, int point)
{
    if (!head->rows) head->rows = calloc((size_t)head->points, sizeof *head->rows);
    if (!head->rows) kure_stop(&(struct kure_error){"not enough memory for the points of a sweep"});
    head->rows[point] = table->rows;
}

/* -1: it has none */
static int row_of(const struct kure_sweep_head *head, int point)
{
    return head->rows ? head->rows[point] - 1 : -1;
}

int kure_sweep_has(const struct kure_sweep_head *head, int point)
{
    return row_of(head, point) >= 0;
}

void kure_sweep_free(struct kure_sweep_head *head)
{
    free(head->rows);
    head->rows = NULL;
}

void kure_sweep_add(struct kure_table *table, struct kure_sweep_head *head, int point)
{
    kure_table_add_row(table);
    kure_table_set_text(table, "model_hash", head->model);
    kure_table_set_text(table, "plan_hash", head->plan);
    kure_table_set_text(table, "grid_hash", head->grid);
    kure_table_set_integer(table, "points", head->points);
    kure_table_set_integer(table, "point", point);
    set_row(table, head, point);
}

/* ---- reading ---------------------------------------------------------------------- */

/* Cuts a line at its commas; our tables quote nothing. Returns the number of cells. */
static int split(char *line, char **cells)
{
    int n = 0;
    line[strcspn(line, "\r\n")] = 0;
    for (char *cell; n < MOST_COLUMNS && (cell = strsep(&line, ",")) != NULL;) cells[n++] = cell;
    return line ? MOST_COLUMNS + 1 : n;
}

/* Of a first line that is not ours: a table of the plugin, with the columns of another version, or anything else. */
static enum kure_status refuse_header(const char *path, const char *line, struct kure_error *error)
{
    size_t used = 0;
    for (int i = 0; i < HEAD; ++i) {
        size_t length = strlen(head_names[i]);
        if (strncmp(line + used, head_names[i], length) != 0 || line[used + length] != ',') {
            return kure_fail(error, KURE_ERROR_INPUT, "%s: is no table of kure sweep", path);
        }
        used += length + 1;
    }
    return kure_fail(error, KURE_ERROR_INPUT, "%s: a table of kure sweep with the columns of another version: choose another file, or delete this one", path);
}

/* The line of column names, with its end. To be freed. */
static char *header_of(const struct kure_table *table)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (out) kure_table_write_header(table, out);
    if (out) fclose(out);
    return text;
}

static enum kure_status check_head(const char *path, int line, char **cells, struct kure_sweep_head *head, struct kure_error *error)
{
    static const char *const what[] = {"other weights", "another cfg", "another grid of points or other images"};
    char *const wanted[] = {head->model, head->plan, head->grid};
    for (int i = 0; i < 3; ++i) {
        if (head->points == 0 && strlen(cells[i]) == 32) memcpy(wanted[i], cells[i], 33);
        if (strcmp(wanted[i], cells[i]) != 0) {
            return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: a row of %s (%s is %.40s, not %.40s): choose another file, or delete this one", path, line,
                             what[i], head_names[i], cells[i], wanted[i]);
        }
    }
    int points = atoi(cells[3]), point = atoi(cells[4]);
    if (head->points == 0) head->points = points;
    if (points < 1 || points > KURE_MOST_POINTS + 1 || points != head->points || point < 0 || point >= points) {
        return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: point %.20s of %.20s, where there are %d", path, line, cells[4], cells[3], head->points);
    }
    return KURE_OK;
}

/* A row that is there already must say the same but for the time it took. */
static enum kure_status add_cells(const char *path, int line, char **cells, struct kure_sweep_head *head, struct kure_table *table,
                                  struct kure_error *error)
{
    int point = atoi(cells[4]), row = row_of(head, point);
    if (row < 0) {
        kure_table_add_row(table);
        for (int i = 0; i < table->column_count; ++i) kure_table_set_text(table, table->columns[i].name, cells[i]);
        set_row(table, head, point);
        return KURE_OK;
    }
    for (int i = 0; i < table->column_count; ++i) {
        const char *name = table->columns[i].name, *known = kure_table_cell(table, row, name);
        if (strcmp(name, "seconds") == 0 || strcmp(known, cells[i]) == 0) continue;
        return kure_fail(error, KURE_ERROR_INPUT, "%s:%d: point %d has %s %s here and %s before", path, line, point, name, cells[i], known);
    }
    return KURE_OK;
}

enum kure_status kure_sweep_read(const char *path, struct kure_sweep_head *head, struct kure_table *table, long *whole, struct kure_error *error)
{
    FILE *file = fopen(path, "r");
    char *text = NULL, *cells[MOST_COLUMNS];
    size_t capacity = 0;
    ssize_t length;
    int line = 0;
    enum kure_status status = KURE_OK;
    *whole = 0;
    if (!file) return kure_fail(error, KURE_ERROR_FILE, "%s: cannot be opened: %s", path, strerror(errno));
    char *header = header_of(table);
    if (!header) status = kure_fail_memory(error);
    while (status == KURE_OK && (length = getline(&text, &capacity, file)) > 0) {
        int cut = text[length - 1] != '\n', is_header = strcmp(text, header) == 0; /* again where files stand one behind the other */
        ++line;
        if (line == 1 && !is_header && !(cut && strncmp(text, header, strlen(text)) == 0 && strlen(text) == (size_t)length)) {
            status = refuse_header(path, text, error);
        }
        if (status != KURE_OK || cut) continue;
        *whole += length;
        if (is_header) continue;
        if (split(text, cells) != table->column_count) status = kure_fail(error, KURE_ERROR_INPUT, "%s:%d: is no row of a sweep", path, line);
        if (status == KURE_OK) status = check_head(path, line, cells, head, error);
        if (status == KURE_OK) status = add_cells(path, line, cells, head, table, error);
    }
    free(header);
    if (status == KURE_OK && ferror(file)) status = kure_fail(error, KURE_ERROR_FILE, "%s: cannot be read", path);
    free(text);
    fclose(file);
    return status;
}
