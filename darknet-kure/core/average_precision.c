/* average_precision.c: see average_precision.h. Tested by tests/unit/test_average_precision.c and, against pycocotools, tests/test_detector.py. */
#include "average_precision.h"

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"

enum { THRESHOLDS = 10, RECALLS = 101, FIFTY = 0, SEVENTY_FIVE = 5 };
enum { MISS, HIT, IGNORED }; /* what a detection has met */

static const double area_from[KURE_BOX_SIZES] = {0, 0, 32 * 32, 96 * 96}, area_to[KURE_BOX_SIZES] = {1e10, 32 * 32, 96 * 96, 1e10};

/* One category. A detection is known by its number in `set`. */
struct category {
    const struct kure_detection_set *set;
    size_t *truths, *detected;         /* [truth_count], [detected_count]; images in ascending order */
    size_t truth_count, detected_count;
    size_t *ranked;                    /* [ranked_count] of the detections that count, images in ascending order, by score inside */
    size_t ranked_count;
    unsigned char (*met)[KURE_BOX_SIZES][THRESHOLDS]; /* [detected_count of the set] */
    size_t boxes[KURE_BOX_SIZES];      /* truths of that size */
    double *overlap;                   /* [KURE_MOST_DETECTED][most truths of an image] */
    size_t *order;                     /* [most truths of an image] those of the size first */
    unsigned char *taken;              /* the same */
    double *precision, *recall;        /* [detected_count] */
};

/* numpy's linspace(.5, .95, 10) and linspace(0, 1, 101) */
static double threshold_of(int i)
{
    return i == THRESHOLDS - 1 ? 0.95 : i * ((0.95 - 0.5) / 9) + 0.5;
}

static double recall_of(int i)
{
    return i == RECALLS - 1 ? 1 : i * 0.01;
}

static double area(const struct kure_rectangle *r)
{
    return r->width * r->height;
}

static int is_of_size(const struct kure_rectangle *r, int size)
{
    return area(r) >= area_from[size] && area(r) <= area_to[size];
}

static double intersection_over_union(const struct kure_rectangle *a, const struct kure_rectangle *b)
{
    double width = fmin(a->x + a->width, b->x + b->width) - fmax(a->x, b->x);
    double height = fmin(a->y + a->height, b->y + b->height) - fmax(a->y, b->y);
    if (!(width > 0) || !(height > 0)) return 0;
    return width * height / (area(a) + area(b) - width * height);
}

/* ---- sorting ------------------------------------------------------------------------------ */

struct scored {
    double score;
    size_t place, index;
};

static int compare_scored(const void *a, const void *b)
{
    const struct scored *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? 1 : -1;
    return (x->place > y->place) - (x->place < y->place);
}

/* Highest score first, equal ones as they stood. */
static enum kure_status sort_by_score(const struct kure_detection_set *set, size_t *indices, size_t n, struct kure_error *error)
{
    struct scored *s = malloc((n + 1) * sizeof *s);
    if (!s) return kure_fail_memory(error);
    for (size_t i = 0; i < n; ++i) s[i] = (struct scored){set->detected[indices[i]].score, i, indices[i]};
    qsort(s, n, sizeof *s, compare_scored);
    for (size_t i = 0; i < n; ++i) indices[i] = s[i].index;
    free(s);
    return KURE_OK;
}

/* ---- one image ------------------------------------------------------------------------------ */

/* truths: [n] of the image, those of the size first in order; returns the place of the one that detection d takes, n: none. */
static size_t best_of(const struct category *c, const size_t *truths, size_t n, size_t d, int size, double threshold)
{
    double best = fmin(threshold, 1 - 1e-10);
    size_t found = n;
    for (size_t i = 0; i < n; ++i) {
        size_t g = c->order[i];
        if (c->taken[g]) continue;
        if (found < n && is_of_size(&c->set->truths[truths[found]].box, size) && !is_of_size(&c->set->truths[truths[g]].box, size)) break;
        if (!(c->overlap[d * n + g] >= best)) continue;
        best = c->overlap[d * n + g];
        found = g;
    }
    return found;
}

static void match(struct category *c, const size_t *truths, size_t n, const size_t *detected, size_t count, int size)
{
    size_t at = 0;
    for (int inside = 1; inside >= 0; --inside) {
        for (size_t g = 0; g < n; ++g) {
            if (is_of_size(&c->set->truths[truths[g]].box, size) == inside) c->order[at++] = g;
        }
    }
    for (int t = 0; t < THRESHOLDS; ++t) {
        memset(c->taken, 0, n);
        for (size_t d = 0; d < count; ++d) {
            size_t g = best_of(c, truths, n, d, size, threshold_of(t));
            int counts = is_of_size(g < n ? &c->set->truths[truths[g]].box : &c->set->detected[detected[d]].box, size);
            c->met[detected[d]][size][t] = !counts ? IGNORED : g < n ? HIT : MISS;
            if (g < n) c->taken[g] = 1;
        }
    }
}

static enum kure_status match_image(struct category *c, const size_t *truths, size_t n, size_t *detected, size_t count, struct kure_error *error)
{
    enum kure_status status = sort_by_score(c->set, detected, count, error);
    if (count > KURE_MOST_DETECTED) count = KURE_MOST_DETECTED;
    for (size_t d = 0; d < count; ++d) {
        for (size_t g = 0; g < n; ++g) {
            c->overlap[d * n + g] = intersection_over_union(&c->set->detected[detected[d]].box, &c->set->truths[truths[g]].box);
        }
    }
    for (int size = 0; size < KURE_BOX_SIZES; ++size) {
        for (size_t g = 0; g < n; ++g) c->boxes[size] += (size_t)is_of_size(&c->set->truths[truths[g]].box, size);
        match(c, truths, n, detected, count, size);
    }
    memcpy(c->ranked + c->ranked_count, detected, count * sizeof *detected);
    c->ranked_count += count;
    return status;
}

/* How many from `first` on are of the same image. */
static size_t run_of_truths(const struct category *c, size_t first)
{
    size_t n = 0;
    while (first + n < c->truth_count && c->set->truths[c->truths[first + n]].image == c->set->truths[c->truths[first]].image) ++n;
    return n;
}

static size_t run_of_detected(const struct category *c, size_t first)
{
    size_t n = 0;
    while (first + n < c->detected_count && c->set->detected[c->detected[first + n]].image == c->set->detected[c->detected[first]].image) ++n;
    return n;
}

static enum kure_status match_images(struct category *c, struct kure_error *error)
{
    enum kure_status status = KURE_OK;
    c->ranked_count = 0;
    memset(c->boxes, 0, sizeof c->boxes);
    for (size_t t = 0, d = 0; status == KURE_OK && (t < c->truth_count || d < c->detected_count);) {
        int left = t < c->truth_count, right = d < c->detected_count;
        int of_truth = left ? c->set->truths[c->truths[t]].image : 0, of_detected = right ? c->set->detected[c->detected[d]].image : 0;
        size_t truths = left && (!right || of_truth <= of_detected) ? run_of_truths(c, t) : 0;
        size_t detected = right && (!left || of_detected <= of_truth) ? run_of_detected(c, d) : 0;
        status = match_image(c, c->truths + t, truths, c->detected + d, detected, error);
        t += truths;
        d += detected;
    }
    return status == KURE_OK ? sort_by_score(c->set, c->ranked, c->ranked_count, error) : status;
}

/* ---- the curve -------------------------------------------------------------------------------- */

/* Mean over the recalls; the category has a box of this size. */
static double area_under_curve(struct category *c, int size, int t)
{
    size_t n = 0, hits = 0, misses = 0, at = 0;
    double sum = 0;
    for (size_t i = 0; i < c->ranked_count; ++i) {
        int met = c->met[c->ranked[i]][size][t];
        if (met == IGNORED) continue;
        hits += met == HIT;
        misses += met == MISS;
        c->recall[n] = (double)hits / (double)c->boxes[size];
        c->precision[n++] = (double)hits / ((double)misses + (double)hits + DBL_EPSILON);
    }
    for (size_t i = n; i-- > 1;) c->precision[i - 1] = fmax(c->precision[i - 1], c->precision[i]);
    for (int r = 0; r < RECALLS; ++r) {
        while (at < n && c->recall[at] < recall_of(r)) ++at;
        if (at < n) sum += c->precision[at];
    }
    return sum / RECALLS;
}

static double share(size_t part, size_t whole)
{
    return whole ? (double)part / (double)whole : NAN;
}

static void set_shares(struct kure_average_precision *a)
{
    a->precision = share(a->hits, a->detections);
    a->recall = share(a->hits, a->truths);
    a->f1 = share(2 * a->hits, a->detections + a->truths);
}

static void measure(struct category *c, struct kure_average_precision *out)
{
    *out = (struct kure_average_precision){.ap50 = NAN, .ap75 = NAN, .truths = c->truth_count};
    for (int size = 0; size < KURE_BOX_SIZES; ++size) {
        double sum = 0;
        for (int t = 0; c->boxes[size] && t < THRESHOLDS; ++t) {
            double ap = area_under_curve(c, size, t);
            sum += ap;
            if (size == KURE_BOX_ANY && t == FIFTY) out->ap50 = ap;
            if (size == KURE_BOX_ANY && t == SEVENTY_FIVE) out->ap75 = ap;
        }
        out->ap[size] = c->boxes[size] ? sum / THRESHOLDS : NAN;
    }
    for (size_t i = 0; i < c->ranked_count; ++i) {
        int met = c->met[c->ranked[i]][KURE_BOX_ANY][FIFTY];
        if (!(c->set->detected[c->ranked[i]].score > c->set->threshold) || met == IGNORED) continue;
        ++out->detections;
        out->hits += met == HIT;
    }
    set_shares(out);
}

/* ---- all categories ---------------------------------------------------------------------------- */

static void add_mean(double *mean, double value, double *sum, int *n)
{
    if (isnan(value)) return;
    *sum += value;
    *mean = *sum / ++*n;
}

static void measure_all(const struct kure_average_precision *categories, int n, struct kure_average_precision *all)
{
    double sums[KURE_BOX_SIZES + 2] = {0};
    int counts[KURE_BOX_SIZES + 2] = {0};
    *all = (struct kure_average_precision){.ap = {NAN, NAN, NAN, NAN}, .ap50 = NAN, .ap75 = NAN};
    for (int i = 0; i < n; ++i) {
        const struct kure_average_precision *c = &categories[i];
        for (int s = 0; s < KURE_BOX_SIZES; ++s) add_mean(&all->ap[s], c->ap[s], &sums[s], &counts[s]);
        add_mean(&all->ap50, c->ap50, &sums[KURE_BOX_SIZES], &counts[KURE_BOX_SIZES]);
        add_mean(&all->ap75, c->ap75, &sums[KURE_BOX_SIZES + 1], &counts[KURE_BOX_SIZES + 1]);
        all->truths += c->truths;
        all->detections += c->detections;
        all->hits += c->hits;
    }
    set_shares(all);
}

/* Most truths of any image, of all categories together. */
static size_t most_truths(const struct kure_detection_set *set)
{
    size_t most = 1;
    for (size_t i = 0, n = 0; i < set->truth_count; ++i) {
        n = i && set->truths[i].image == set->truths[i - 1].image ? n + 1 : 1;
        if (n > most) most = n;
    }
    return most;
}

/* Counting sort of a list of structs by the int `category`, which lies `offset` bytes into each of `size` bytes.
 * indices [out]: [count] by category, each in the order of the list; starts [in, out]: [categories + 1] of 0 */
static void sort_by_category(const void *list, size_t count, size_t size, size_t offset, int categories, size_t *indices, size_t *starts)
{
    const char *category = (const char *)list + (list ? offset : 0);
    for (size_t i = 0; i < count; ++i) starts[*(const int *)(const void *)(category + i * size) + 1]++;
    for (int c = 0; c < categories; ++c) starts[c + 1] += starts[c];
    for (size_t i = 0; i < count; ++i) indices[starts[*(const int *)(const void *)(category + i * size)]++] = i;
    for (int c = categories; c > 0; --c) starts[c] = starts[c - 1];
    starts[0] = 0;
}

enum kure_status kure_average_precision(const struct kure_detection_set *set, struct kure_average_precision *categories,
                                        struct kure_average_precision *all, struct kure_error *error)
{
    size_t n = set->detected_count + 1, most = most_truths(set), slots = (size_t)set->categories + 1;
    struct category c = {.set = set};
    size_t *truths = malloc((set->truth_count + 1) * sizeof *truths), *detected = malloc(n * sizeof *detected);
    size_t *truth_starts = calloc(slots, sizeof *truth_starts), *detected_starts = calloc(slots, sizeof *detected_starts);
    c.ranked = malloc(n * sizeof *c.ranked);
    c.met = calloc(n, sizeof *c.met);
    c.overlap = malloc(KURE_MOST_DETECTED * most * sizeof *c.overlap);
    c.order = malloc(most * sizeof *c.order);
    c.taken = malloc(most);
    c.precision = malloc(n * sizeof *c.precision);
    c.recall = malloc(n * sizeof *c.recall);
    int ok = truths && detected && truth_starts && detected_starts && c.ranked && c.met && c.overlap && c.order && c.taken && c.precision && c.recall;
    enum kure_status status = ok ? KURE_OK : kure_fail_memory(error);
    if (ok) {
        sort_by_category(set->truths, set->truth_count, sizeof *set->truths, offsetof(struct kure_truth, category), set->categories, truths, truth_starts);
        sort_by_category(set->detected, set->detected_count, sizeof *set->detected, offsetof(struct kure_detected, category), set->categories, detected,
                         detected_starts);
    }
    for (int i = 0; status == KURE_OK && i < set->categories; ++i) {
        c.truths = truths + truth_starts[i];
        c.truth_count = truth_starts[i + 1] - truth_starts[i];
        c.detected = detected + detected_starts[i];
        c.detected_count = detected_starts[i + 1] - detected_starts[i];
        status = match_images(&c, error);
        if (status == KURE_OK) measure(&c, &categories[i]);
    }
    if (status == KURE_OK) measure_all(categories, set->categories, all);
    free(truths);
    free(detected);
    free(truth_starts);
    free(detected_starts);
    free(c.ranked);
    free(c.met);
    free(c.overlap);
    free(c.order);
    free(c.taken);
    free(c.precision);
    free(c.recall);
    return status;
}
