/* table.c: see table.h; JSON by jansson. */
#define _GNU_SOURCE
#include "table.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "output.h"

static void no_memory(void)
{
    fprintf(stderr, "not enough memory for a table\n");
    exit(1);
}

void kure_table_init(struct kure_table *table, const char *schema, const struct kure_column *columns, int count)
{
    memset(table, 0, sizeof *table);
    table->schema = schema;
    table->columns = columns;
    table->column_count = count;
}

static char **row_of(const struct kure_table *table, int row)
{
    return table->cells + (size_t)row * (size_t)table->column_count;
}

void kure_table_add_row(struct kure_table *table)
{
    if (table->rows == table->room) {
        table->room = table->room ? 2 * table->room : 16;
        char **grown = realloc(table->cells, (size_t)table->room * (size_t)table->column_count * sizeof *grown);
        if (!grown) no_memory();
        table->cells = grown;
    }
    for (int i = 0; i < table->column_count; ++i) {
        char *empty = strdup("");
        if (!empty) no_memory();
        row_of(table, table->rows)[i] = empty;
    }
    table->rows++;
}

/* Takes over `value`. */
static void set_cell(struct kure_table *table, const char *column, char *value)
{
    for (int i = 0; value && i < table->column_count; ++i) {
        if (strcmp(table->columns[i].name, column) != 0) continue;
        char **cell = &row_of(table, table->rows - 1)[i];
        free(*cell);
        *cell = value;
        return;
    }
    no_memory(); /* a column that does not exist is our own fault, found by the first run */
}

void kure_table_set_text(struct kure_table *table, const char *column, const char *value)
{
    set_cell(table, column, strdup(value));
}

void kure_table_set_integer(struct kure_table *table, const char *column, long long value)
{
    char *text = NULL;
    if (asprintf(&text, "%lld", value) < 0) text = NULL;
    set_cell(table, column, text);
}

void kure_table_set_real(struct kure_table *table, const char *column, double value)
{
    char text[64] = "";
    for (int i = 0; i < table->column_count; ++i) {
        if (strcmp(table->columns[i].name, column) == 0 && isfinite(value)) {
            snprintf(text, sizeof text, table->columns[i].format, value);
        }
    }
    set_cell(table, column, strdup(text));
}

const char *kure_table_cell(const struct kure_table *table, int row, const char *column)
{
    for (int i = 0; i < table->column_count; ++i) {
        if (strcmp(table->columns[i].name, column) == 0) return row_of(table, row)[i];
    }
    return "";
}

struct place {
    long long key;
    int row;
};

/* Rows of one key stay in their order. */
static int compare_places(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    return x->key != y->key ? (x->key > y->key) - (x->key < y->key) : (x->row > y->row) - (x->row < y->row);
}

void kure_table_sort(struct kure_table *table, const char *column)
{
    size_t rows = (size_t)table->rows, columns = (size_t)table->column_count;
    struct place *places = malloc((rows + 1) * sizeof *places);
    char **sorted = malloc((rows * columns + 1) * sizeof *sorted);
    if (!places || !sorted) no_memory();
    for (int r = 0; r < table->rows; ++r) places[r] = (struct place){atoll(kure_table_cell(table, r, column)), r};
    qsort(places, rows, sizeof *places, compare_places);
    for (size_t r = 0; r < rows; ++r) memcpy(sorted + r * columns, row_of(table, places[r].row), columns * sizeof *sorted);
    free(table->cells);
    free(places);
    table->cells = sorted;
    table->room = table->rows;
}

/* ------------------------------------------------------------------------- */

static int width_of(const struct kure_table *table, int column)
{
    size_t width = 0;
    for (int r = 0; r < table->rows; ++r) {
        size_t length = strlen(row_of(table, r)[column]);
        if (length > width) width = length;
    }
    if (width == 0) return 0; /* no value anywhere: the column is not shown */
    size_t name = strlen(table->columns[column].name);
    return (int)(width > name ? width : name);
}

static void print_row(const struct kure_table *table, char **cells, const int *widths, FILE *out)
{
    const char *gap = "";
    for (int i = 0; i < table->column_count; ++i) {
        if (widths[i] == 0) continue;
        const char *text = cells ? cells[i] : table->columns[i].name;
        int left = table->columns[i].kind == KURE_CELL_TEXT;
        fprintf(out, "%s%*s", gap, left ? -widths[i] : widths[i], text);
        gap = "  ";
    }
    fprintf(out, "\n");
}

/* The only value of a column that is none of the results; NULL: it has none or several. */
static const char *constant_of(const struct kure_table *table, int column)
{
    const char *value = NULL;
    char name[64];
    snprintf(name, sizeof name, " %s ", table->columns[column].name);
    if (!table->results || strstr(table->results, name)) return NULL;
    for (int r = 0; r < table->rows; ++r) {
        const char *cell = row_of(table, r)[column];
        if (!*cell) continue;
        if (value && strcmp(value, cell) != 0) return NULL;
        value = cell;
    }
    return value;
}

enum { LINE = 96 }; /* characters of a line of name=value */

static void print_constants(const struct kure_table *table, FILE *out)
{
    size_t used = 0;
    for (int i = 0; i < table->column_count; ++i) {
        const char *name = table->columns[i].name, *value = constant_of(table, i);
        if (!value) continue;
        size_t length = strlen(name) + strlen(value) + 2;
        fprintf(out, "%s%s=%s", used == 0 ? "\n" : used + length > LINE ? "\n" : " ", name, value);
        used = used == 0 || used + length > LINE ? length : used + length;
    }
    if (used) fprintf(out, "\n");
}

void kure_table_print(const struct kure_table *table, FILE *out)
{
    int *widths = calloc((size_t)table->column_count, sizeof *widths);
    if (!widths) no_memory();
    for (int i = 0; i < table->column_count; ++i) widths[i] = constant_of(table, i) ? 0 : width_of(table, i);
    print_row(table, NULL, widths, out);
    for (int r = 0; r < table->rows; ++r) print_row(table, row_of(table, r), widths, out);
    print_constants(table, out);
    free(widths);
}

/* ------------------------------------------------------------------------- */

static void write_csv_cell(const char *text, FILE *out)
{
    if (!strpbrk(text, ",\"\n")) {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    for (; *text; ++text) {
        if (*text == '"') fputc('"', out);
        fputc(*text, out);
    }
    fputc('"', out);
}

void kure_table_write_row(const struct kure_table *table, int row, FILE *out)
{
    for (int i = 0; i < table->column_count; ++i) {
        if (i) fputc(',', out);
        write_csv_cell(row_of(table, row)[i], out);
    }
    fputc('\n', out);
}

void kure_table_write_header(const struct kure_table *table, FILE *out)
{
    for (int i = 0; i < table->column_count; ++i) fprintf(out, "%s%s", i ? "," : "", table->columns[i].name);
    fputc('\n', out);
}

static int write_csv(const struct kure_table *table, FILE *out)
{
    kure_table_write_header(table, out);
    for (int r = 0; r < table->rows; ++r) kure_table_write_row(table, r, out);
    return fflush(out) == 0 && !ferror(out);
}

static json_t *json_cell(enum kure_cell kind, const char *text)
{
    if (!*text) return json_null();
    if (kind == KURE_CELL_INTEGER) return json_integer(atoll(text));
    if (kind == KURE_CELL_REAL) return json_real(strtod(text, NULL));
    return json_string(text);
}

static json_t *json_rows(const struct kure_table *table)
{
    json_t *rows = json_array();
    for (int r = 0; r < table->rows; ++r) {
        json_t *row = json_object();
        for (int i = 0; i < table->column_count; ++i) {
            json_object_set_new(row, table->columns[i].name, json_cell(table->columns[i].kind, row_of(table, r)[i]));
        }
        json_array_append_new(rows, row);
    }
    return rows;
}

static int write_json(const struct kure_table *table, FILE *out)
{
    json_t *root = json_pack("{s:s, s:s, s:s, s:o}", "schema", table->schema, "model", table->model, "plan", table->plan, "rows", json_rows(table));
    if (root && table->detail) json_object_set_new(root, table->detail_name, json_rows(table->detail));
    int ok = root && json_dumpf(root, out, JSON_INDENT(1)) == 0 && fputc('\n', out) != EOF && fflush(out) == 0;
    json_decref(root);
    return ok;
}

static enum kure_status write_file(const struct kure_table *table, const char *path,
                                   int (*write)(const struct kure_table *, FILE *), struct kure_error *error)
{
    struct kure_output out;
    enum kure_status status = kure_output_open(path, &out, error);
    if (status != KURE_OK) return status;
    return kure_output_close(&out, write(table, out.file), error);
}

enum kure_status kure_table_write_csv(const struct kure_table *table, const char *path, struct kure_error *error)
{
    return write_file(table, path, write_csv, error);
}

enum kure_status kure_table_write_json(const struct kure_table *table, const char *path, struct kure_error *error)
{
    return write_file(table, path, write_json, error);
}

void kure_table_free(struct kure_table *table)
{
    for (int i = 0; i < table->rows * table->column_count; ++i) free(table->cells[i]);
    free(table->cells);
    table->cells = NULL;
    table->rows = table->room = 0;
}
