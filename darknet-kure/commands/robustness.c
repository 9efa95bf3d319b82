/*
 * robustness.c: the robustness score of a whole sweep.
 *
 * Points that differ in step ratios alone are a curve, or a surface where the ratios of
 * weights and of activations both vary: its area under top-1 or AP by the trapezoidal rule,
 * divided by its width. The score is the mean over all curves; a point by itself is one.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "sweep_file.h"

static const char *const ratios[] = {"weight_step_ratio", "activation_step_ratio"};
enum { RATIOS = sizeof ratios / sizeof ratios[0] };

struct curve_point {
    char *setting;        /* every other cell that is no result; owned */
    double ratio[RATIOS]; /* 0: there is none */
    double measure;
};

static int is_float(const struct kure_table *table, int row)
{
    return atoi(kure_table_cell(table, row, "weight_bits")) == 0 && atoi(kure_table_cell(table, row, "activation_bits")) == 0;
}

static int is_setting(const struct kure_table *table, const char *column)
{
    char word[64];
    snprintf(word, sizeof word, " %s ", column);
    for (int i = 0; i < RATIOS; ++i) {
        if (strcmp(column, ratios[i]) == 0) return 0;
    }
    return strstr(table->results, word) == NULL;
}

/* The measure that all rows have: top-1, or AP. */
static struct kure_measure_text measure_of(const struct kure_table *table)
{
    return kure_measure_text(*kure_table_cell(table, 0, kure_measure_text(KURE_MEASURE_AP).column) ? KURE_MEASURE_AP : KURE_MEASURE_TOP1);
}

static struct curve_point point_of(const struct kure_table *table, int row)
{
    struct curve_point p = {.measure = strtod(kure_table_cell(table, row, measure_of(table).column), NULL)};
    size_t size;
    FILE *out = open_memstream(&p.setting, &size);
    if (!out) kure_stop(&(struct kure_error){"not enough memory for a score"});
    for (int c = 0; c < table->column_count; ++c) {
        if (is_setting(table, table->columns[c].name)) fprintf(out, "%s,", kure_table_cell(table, row, table->columns[c].name));
    }
    fclose(out);
    for (int i = 0; i < RATIOS; ++i) p.ratio[i] = strtod(kure_table_cell(table, row, ratios[i]), NULL);
    return p;
}

static int by_setting(const void *a, const void *b)
{
    return strcmp(((const struct curve_point *)a)->setting, ((const struct curve_point *)b)->setting);
}

static int compare_reals(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The distinct ratios of a curve, ascending, to x [n]; returns their number. */
static int distinct_ratios(const struct curve_point *curve, int n, int which, double *x)
{
    int distinct = 0;
    for (int i = 0; i < n; ++i) x[i] = curve[i].ratio[which];
    qsort(x, (size_t)n, sizeof *x, compare_reals);
    for (int i = 0; i < n; ++i) {
        if (distinct == 0 || x[i] != x[distinct - 1]) x[distinct++] = x[i];
    }
    return distinct;
}

/* The share of the axis that one of its values stands for. */
static double trapezoid(const double *x, int n, double value)
{
    const double *at = bsearch(&value, x, (size_t)n, sizeof *x, compare_reals);
    if (n == 1) return 1;
    return ((at > x ? at[0] - at[-1] : 0) + (at + 1 < x + n ? at[1] - at[0] : 0)) / 2;
}

/* x [out]: [RATIOS][n], room. */
static double area_over_width(const struct curve_point *curve, int n, double *x)
{
    int distinct[RATIOS], tied = 1; /* tied: weights and activations have the same ratio everywhere */
    double sum = 0, weights = 0;
    for (int a = 0; a < RATIOS; ++a) distinct[a] = distinct_ratios(curve, n, a, x + a * n);
    for (int i = 0; i < n; ++i) tied &= curve[i].ratio[0] == curve[i].ratio[1];
    for (int i = 0; i < n; ++i) {
        double weight = 1;
        for (int a = 0; a < (tied ? 1 : RATIOS); ++a) weight *= trapezoid(x + a * n, distinct[a], curve[i].ratio[a]);
        sum += weight * curve[i].measure;
        weights += weight;
    }
    return sum / weights;
}

/* points [n]: sorted by their settings */
static double mean_of_curves(const struct curve_point *points, int n)
{
    double sum = 0, *x = malloc((size_t)n * RATIOS * sizeof *x);
    int curves = 0;
    if (!x) kure_stop(&(struct kure_error){"not enough memory for a score"});
    for (int first = 0, end; first < n; first = end, ++curves) {
        for (end = first; end < n && by_setting(&points[first], &points[end]) == 0;) ++end;
        sum += area_over_width(points + first, end - first, x);
    }
    free(x);
    return sum / curves;
}

void kure_sweep_print_score(const struct kure_table *table, const struct kure_sweep_head *head)
{
    int n = 0;
    if (table->rows < head->points) {
        printf("%d of %d points: no robustness score before all are there\n", table->rows, head->points);
        return;
    }
    struct curve_point *points = calloc((size_t)table->rows, sizeof *points);
    if (!points) kure_stop(&(struct kure_error){"not enough memory for a score"});
    for (int r = 0; r < table->rows; ++r) {
        if (!is_float(table, r)) points[n++] = point_of(table, r);
    }
    if (n == 0) {
        printf("no point is quantized: no robustness score\n");
    } else {
        qsort(points, (size_t)n, sizeof *points, by_setting);
        double score = mean_of_curves(points, n), plain = strtod(kure_table_cell(table, 0, measure_of(table).column), NULL);
        printf("robustness %.2f %% %s over %d points, %.4f of float (%.2f %%); comparable over the same grid only: %.8s\n", score, measure_of(table).name, n,
               plain > 0 ? score / plain : 0, plain, head->grid);
    }
    for (int i = 0; i < n; ++i) free(points[i].setting);
    free(points);
}
