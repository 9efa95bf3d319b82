/*
 * regularize_cuda.c: see regularize_cuda.h. Everything that is not a loop over weights is
 * that of core/kurtosis.c, and the loops give the CPU's bits: so does the whole.
 */
#include "regularize_cuda.h"

#ifdef GPU
#include <math.h>
#include <stdlib.h>

#include "../backend/cuda.h"
#include "chunks.h"
#include "fold.h"
#include "kurtosis_parts.h"

/* A piece of weights with statistics of its own: a layer's weights, or a row of them. */
struct part {
    const float *weights; /* on the GPU */
    float *updates;
    size_t n, first_chunk;
    struct kure_statistics statistics;
    double norm; /* of the cubic */
};

/* SUM to WIDE: a tensor is a part; FOLD to ACROSS: a row of a folded layer */
enum batch { SUM, POWERS, DOTS, NARROW, WIDE, FOLD, ROW_DOTS, ACROSS, BATCHES };

struct kure_cuda_kurtosis {
    struct part *parts;   /* of a layer: the whole, with granularity=channel its rows, and where it is folded the raw whole */
    size_t count, folded; /* parts, rows of folded layers */
    size_t *part_of;      /* [plan.count] the first one of a layer */
    size_t *row_of;       /* [plan.count] likewise, of folded layers */
    float **scratch;      /* [plan.count] on the GPU: folded weights; NULL: the layer is not folded */
    struct kure_cuda_batch *batch[BATCHES];
    int is_sent;          /* the arguments of SUM and POWERS, which do not change */
    int planned[BATCHES]; /* is there something to do? */
};

static void stop_on(const struct kure_network *k, enum kure_status status, const struct kure_error *reason)
{
    struct kure_error error;
    if (status == KURE_OK) return;
    snprintf(error.text, sizeof error.text, "%s: update %lld: %.900s", k->options.path, kure_updates_done(k->net), reason->text);
    kure_stop(&error);
}

static int by_row(const struct kure_network *k)
{
    return k->plan.kurtosis.granularity == KURE_GRANULARITY_CHANNEL;
}

/* Rows with too few weights have no kurtosis. */
static size_t rows_of(const struct kure_network *k, int i)
{
    const struct kure_plan_row *row = &k->plan.rows[i];
    return by_row(k) && row->row_length >= KURE_MIN_WEIGHTS ? row->rows : 0;
}

static int is_folded(const struct kure_network *k, int i)
{
    const struct kure_plan_row *row = &k->plan.rows[i];
    return row->regularized && k->plan.kurtosis.fold && row->batch_normalize;
}

static size_t weights_of(const struct kure_network *k, int i)
{
    return k->plan.rows[i].rows * k->plan.rows[i].row_length;
}

static const struct part *whole_of(const struct kure_network *k, int i)
{
    return &k->cuda->parts[k->cuda->part_of[i]];
}

static const struct part *raw_of(const struct kure_network *k, int i)
{
    return whole_of(k, i) + (is_folded(k, i) ? 1 + rows_of(k, i) : 0);
}

/* ---- attach ------------------------------------------------------------------ */

static void add_part(struct kure_cuda_kurtosis *c, const layer *l, const float *weights, size_t start, size_t n)
{
    c->parts[c->count++] = (struct part){.weights = weights + start, .updates = l->weight_updates_gpu + start, .n = n};
}

static void list_parts(struct kure_network *k, struct kure_cuda_kurtosis *c)
{
    for (int i = 0; i < k->plan.count; ++i) {
        const struct kure_plan_row *row = &k->plan.rows[i];
        const layer *l = &k->net->layers[i];
        if (!row->regularized) continue;
        if (is_folded(k, i)) c->scratch[i] = cuda_make_array(0, weights_of(k, i));
        c->part_of[i] = c->count;
        add_part(c, l, is_folded(k, i) ? c->scratch[i] : l->weights_gpu, 0, weights_of(k, i));
        for (size_t r = 0; r < rows_of(k, i); ++r) add_part(c, l, l->weights_gpu, r * row->row_length, row->row_length);
        if (is_folded(k, i)) add_part(c, l, l->weights_gpu, 0, weights_of(k, i));
    }
}

/* chunks [out]: all of them, as the CPU cuts; firsts [out]: the first one of every part */
static size_t cut_up(struct kure_cuda_kurtosis *c, struct kure_cuda_chunk *chunks, struct kure_cuda_chunk *firsts)
{
    size_t count = 0;
    for (size_t p = 0; p < c->count; ++p) {
        struct part *part = &c->parts[p];
        size_t size = kure_chunk_size(part->n);
        part->first_chunk = count;
        for (size_t i = 0; i < kure_chunk_count(part->n); ++i) {
            chunks[count++] = (struct kure_cuda_chunk){(uint32_t)p, i * size, kure_chunk_length(part->n, i)};
        }
        firsts[p] = chunks[part->first_chunk];
    }
    return count;
}

static const enum kure_cuda_op ops[BATCHES] = {
    [SUM] = KURE_CUDA_sum, [POWERS] = KURE_CUDA_power_sums, [DOTS] = KURE_CUDA_kurtosis_dots, [NARROW] = KURE_CUDA_kurtosis_descend,
    [WIDE] = KURE_CUDA_kurtosis_descend_across, [FOLD] = KURE_CUDA_multiply, [ROW_DOTS] = KURE_CUDA_kurtosis_dots,
    [ACROSS] = KURE_CUDA_kurtosis_descend_across,
};

static void make_batch(struct kure_network *k, enum batch b, const struct kure_cuda_chunk *chunks, size_t count, size_t tensors)
{
    struct kure_error error;
    stop_on(k, kure_cuda_batch_make(&k->cuda->batch[b], ops[b], chunks, count, tensors, "[kurtosis]", &error), &error);
}

/* A row is one chunk, as on the CPU. */
static void make_row_batches(struct kure_network *k, struct kure_cuda_kurtosis *c)
{
    for (int i = 0; i < k->plan.count; ++i) {
        c->row_of[i] = c->folded;
        if (is_folded(k, i)) c->folded += k->plan.rows[i].rows;
    }
    struct kure_cuda_chunk *chunks = calloc(c->folded + 1, sizeof *chunks);
    if (!chunks) kure_stop(&(struct kure_error){"not enough memory for [kurtosis]"});
    for (int i = 0; i < k->plan.count; ++i) {
        for (size_t r = 0; is_folded(k, i) && r < k->plan.rows[i].rows; ++r) {
            chunks[c->row_of[i] + r] = (struct kure_cuda_chunk){(uint32_t)(c->row_of[i] + r), 0, k->plan.rows[i].row_length};
        }
    }
    for (int b = FOLD; b <= ACROSS; ++b) make_batch(k, (enum batch)b, chunks, c->folded, c->folded);
    free(chunks);
    for (int i = 0; i < k->plan.count; ++i) {
        for (size_t r = 0; is_folded(k, i) && r < k->plan.rows[i].rows; ++r) {
            size_t at = r * k->plan.rows[i].row_length, row = c->row_of[i] + r;
            struct kure_cuda_arguments *fold = &kure_cuda_batch_arguments(c->batch[FOLD])[row];
            struct kure_cuda_arguments *dots = &kure_cuda_batch_arguments(c->batch[ROW_DOTS])[row];
            fold->x = dots->w = k->net->layers[i].weights_gpu + at;
            fold->y = c->scratch[i] + at;
            dots->x = fold->y;
        }
    }
}

static void make_batches(struct kure_network *k, struct kure_cuda_kurtosis *c, const struct kure_cuda_chunk *chunks, size_t count,
                         const struct kure_cuda_chunk *firsts)
{
    make_batch(k, SUM, firsts, c->count, c->count);
    for (int b = POWERS; b <= WIDE; ++b) make_batch(k, (enum batch)b, chunks, count, c->count);
    make_row_batches(k, c);
    const double *sums = kure_cuda_batch_results_there(c->batch[SUM]);
    for (size_t p = 0; p < c->count; ++p) {
        struct kure_cuda_arguments *powers = &kure_cuda_batch_arguments(c->batch[POWERS])[p];
        kure_cuda_batch_arguments(c->batch[SUM])[p].x = powers->x = c->parts[p].weights;
        powers->pivot.first = firsts[p].n;
        powers->pivot.sum = sums + p;
    }
}

void kure_cuda_attach(struct kure_network *k)
{
    struct kure_cuda_kurtosis *c = calloc(1, sizeof *c);
    size_t parts = 0, chunks = 0;
    for (int i = 0; i < k->plan.count; ++i) {
        size_t wholes = 1 + (size_t)is_folded(k, i);
        if (!k->plan.rows[i].regularized) continue;
        parts += wholes + rows_of(k, i);
        chunks += wholes * kure_chunk_count(weights_of(k, i)) + rows_of(k, i) * kure_chunk_count(k->plan.rows[i].row_length);
    }
    struct kure_cuda_chunk *all = calloc(chunks, sizeof *all), *firsts = calloc(parts, sizeof *firsts);
    if (c) c->parts = calloc(parts, sizeof *c->parts);
    if (c) c->part_of = calloc((size_t)k->plan.count, sizeof *c->part_of);
    if (c) c->row_of = calloc((size_t)k->plan.count, sizeof *c->row_of);
    if (c) c->scratch = calloc((size_t)k->plan.count, sizeof *c->scratch);
    if (!c || !all || !firsts || !c->parts || !c->part_of || !c->row_of || !c->scratch) kure_stop(&(struct kure_error){"not enough memory for [kurtosis]"});
    k->cuda = c;
    list_parts(k, c);
    chunks = cut_up(c, all, firsts);
    make_batches(k, c, all, chunks, firsts);
    free(all);
    free(firsts);
}

void kure_cuda_release(struct kure_network *k)
{
    struct kure_cuda_kurtosis *c = k->cuda;
    if (!c) return;
    for (int b = 0; b < BATCHES; ++b) kure_cuda_batch_free(c->batch[b]);
    for (int i = 0; i < k->plan.count; ++i) cuda_free(c->scratch[i]);
    free(c->scratch);
    free(c->parts);
    free(c->part_of);
    free(c->row_of);
    free(c);
    k->cuda = NULL;
}

/* ---- measure ----------------------------------------------------------------- */

static void run(struct kure_network *k, enum batch b, int what)
{
    struct kure_error error;
    stop_on(k, kure_cuda_batch_run(k->cuda->batch[b], what, NULL, &error), &error); /* Darknet works on the default stream */
}

/* The sum of squares of a part, element by element, in the order of the CPU. */
static double sum_of_squares(const struct part *part, const struct kure_dots *dots)
{
    double total = 0;
    for (size_t i = 0; i < kure_chunk_count(part->n); ++i) total += dots[part->first_chunk + i].tt;
    return total;
}

/* Batch norm's arrays of a layer are short: they go to the CPU and, gamma's updates, back. */
static void fold_weights(struct kure_network *k)
{
    struct kure_cuda_kurtosis *c = k->cuda;
    if (!c->folded) return;
    for (int i = 0; i < k->plan.count; ++i) {
        layer *l = &k->net->layers[i];
        size_t rows = k->plan.rows[i].rows;
        if (!is_folded(k, i)) continue;
        cuda_pull_array(l->scales_gpu, l->scales, rows);
        cuda_pull_array(l->rolling_variance_gpu, l->rolling_variance, rows);
        for (size_t r = 0; r < rows; ++r) {
            kure_cuda_batch_arguments(c->batch[FOLD])[c->row_of[i] + r].factor = kure_fold_factor(l->scales[r], l->rolling_variance[r]);
        }
    }
    run(k, FOLD, KURE_CUDA_SEND);
}

/* Granularity tensor: the dots of folded and raw rows. */
static void find_row_dots(struct kure_network *k)
{
    struct kure_cuda_kurtosis *c = k->cuda;
    if (!c->folded || by_row(k)) return;
    for (int i = 0; i < k->plan.count; ++i) {
        for (size_t r = 0; is_folded(k, i) && r < k->plan.rows[i].rows; ++r) {
            kure_cuda_batch_arguments(c->batch[ROW_DOTS])[c->row_of[i] + r].across.cubic = kure_kurtosis_cubic(&whole_of(k, i)->statistics);
        }
    }
    run(k, ROW_DOTS, KURE_CUDA_SEND | KURE_CUDA_FETCH);
}

/* Norms of the cubics: from the moments, or where these cancel, by one more launch. */
static void find_norms(struct kure_network *k)
{
    struct kure_cuda_kurtosis *c = k->cuda;
    struct kure_cuda_arguments *a = kure_cuda_batch_arguments(c->batch[DOTS]);
    int some = 0;
    for (size_t p = 0; p < c->count; ++p) {
        struct part *part = &c->parts[p];
        int cancel = !isnan(kure_kurtosis(&part->statistics, KURE_STD_BIASED)) && !kure_cubic_norm(&part->statistics, &part->norm);
        a[p].x = a[p].w = cancel ? part->weights : NULL;
        a[p].across.cubic = kure_kurtosis_cubic(&part->statistics);
        some |= cancel;
    }
    if (!some) return;
    run(k, DOTS, KURE_CUDA_SEND | KURE_CUDA_FETCH);
    const struct kure_dots *dots = kure_cuda_batch_results(c->batch[DOTS]);
    for (size_t p = 0; p < c->count; ++p) {
        if (a[p].x) c->parts[p].norm = sqrt(sum_of_squares(&c->parts[p], dots));
    }
}

void kure_cuda_measure(struct kure_network *k)
{
    struct kure_cuda_kurtosis *c = k->cuda;
    int send = c->is_sent ? 0 : KURE_CUDA_SEND;
    fold_weights(k);
    run(k, SUM, send);
    run(k, POWERS, send | KURE_CUDA_FETCH);
    c->is_sent = 1;
    struct kure_power_sums *powers = kure_cuda_batch_results(c->batch[POWERS]);
    for (struct part *part = c->parts; part < c->parts + c->count; ++part) {
        kure_statistics_finish(powers + part->first_chunk, kure_chunk_count(part->n), part->n, &part->statistics);
    }
    if (k->plan.kurtosis.max_step > 0) find_norms(k);
    find_row_dots(k);
    c->planned[NARROW] = c->planned[WIDE] = c->planned[ACROSS] = 0;
    for (size_t r = 0; r < c->folded; ++r) kure_cuda_batch_arguments(c->batch[ACROSS])[r].x = NULL;
    for (size_t p = 0; p < c->count; ++p) {
        kure_cuda_batch_arguments(c->batch[NARROW])[p].x = NULL;
        kure_cuda_batch_arguments(c->batch[WIDE])[p].x = NULL;
    }
}

void kure_cuda_finish(struct kure_network *k, int i, const struct kure_kurtosis_rule *rule)
{
    const struct part *whole = whole_of(k, i);
    struct kure_rows_kurtosis rows = {0};
    for (size_t r = 1; r <= rows_of(k, i); ++r) kure_rows_add(&rows, &whole[r].statistics, rule);
    kure_kurtosis_finish(&whole->statistics, by_row(k) ? &rows : NULL, k->plan.rows[i].row_length, rule, &k->measures[i]);
}

/* ---- apply -------------------------------------------------------------------- */

static void plan_descent(struct kure_cuda_kurtosis *c, const struct part *part, double gain)
{
    const struct kure_descent d = kure_descent_of(&part->statistics, gain);
    if (d.kind == KURE_DESCENT_NONE) return;
    enum batch b = d.kind == KURE_DESCENT_NARROW ? NARROW : WIDE;
    struct kure_cuda_arguments *a = &kure_cuda_batch_arguments(c->batch[b])[part - c->parts];
    a->x = a->w = part->weights;
    a->dx = part->updates;
    if (b == NARROW) {
        a->descend.cubic = d.narrow;
        a->descend.gain = d.narrow_gain;
    } else {
        a->across.cubic = d.cubic;
        a->across.gain = d.gain;
        a->across.along = 0;
    }
    c->planned[b] = 1;
}

static int plan_tensor(struct kure_cuda_kurtosis *c, const struct part *whole, const struct kure_kurtosis_rule *rule, double factor,
                       double rate, double max_step)
{
    double gain = factor * kure_kurtosis_gain(&whole->statistics, rule), share = 1;
    if (max_step > 0) share = kure_step_share(rate * fabs(gain) * whole->norm, max_step, &whole->statistics);
    plan_descent(c, whole, gain * share);
    return share < 1;
}

static int plan_rows(struct kure_cuda_kurtosis *c, const struct part *whole, const struct part *raw, size_t rows,
                     const struct kure_kurtosis_rule *rule, double factor, double rate, double max_step)
{
    size_t counted = 0;
    double squares = 0, share = 1;
    for (size_t r = 1; r <= rows; ++r) {
        if (isnan(kure_kurtosis(&whole[r].statistics, rule->std))) continue;
        counted++;
        double norm = max_step > 0 ? kure_kurtosis_gain(&whole[r].statistics, rule) * whole[r].norm : 0;
        squares += norm * norm;
    }
    if (!counted) return 0;
    factor /= (double)counted;
    if (max_step > 0) share = kure_step_share(rate * fabs(factor) * sqrt(squares), max_step, &raw->statistics);
    for (size_t r = 1; r <= rows; ++r) {
        if (isnan(kure_kurtosis(&whole[r].statistics, rule->std))) continue;
        plan_descent(c, &whole[r], factor * share * kure_kurtosis_gain(&whole[r].statistics, rule));
    }
    return share < 1;
}

static int plan_folded(struct kure_network *k, int i, const struct kure_kurtosis_rule *rule, double factor, double rate, double max_step)
{
    struct kure_cuda_kurtosis *c = k->cuda;
    const struct kure_statistics *s = &whole_of(k, i)->statistics;
    const struct kure_dots *dots = (const struct kure_dots *)kure_cuda_batch_results(c->batch[ROW_DOTS]) + c->row_of[i];
    const struct kure_cuda_arguments *rows = kure_cuda_batch_arguments(c->batch[ROW_DOTS]) + c->row_of[i];
    struct kure_cuda_arguments *across = kure_cuda_batch_arguments(c->batch[ACROSS]) + c->row_of[i];
    struct kure_folded_sums sums = {0};
    size_t count = k->plan.rows[i].rows, length = k->plan.rows[i].row_length;
    layer *l = &k->net->layers[i];
    for (size_t r = 0; max_step > 0 && r < count; ++r) kure_folded_add(&sums, l->scales[r], l->rolling_variance[r], &dots[r]);
    const struct kure_folded_step step = kure_folded_finish(&sums, factor * kure_kurtosis_gain(s, rule), rate, max_step, &raw_of(k, i)->statistics);
    cuda_pull_array(l->scale_updates_gpu, l->scale_updates, count);
    for (size_t r = 0; r < count; ++r) {
        double f = kure_fold_factor(l->scales[r], l->rolling_variance[r]);
        l->scale_updates[r] = kure_folded_gamma(&step, l->scale_updates[r], l->rolling_variance[r], &dots[r]);
        if (f == 0) continue;
        across[r] = rows[r];
        across[r].dx = l->weight_updates_gpu + r * length;
        across[r].across.gain = f * step.gain;
        across[r].across.along = dots[r].ww > 0 ? dots[r].tw / dots[r].ww : 0;
    }
    cuda_push_array(l->scale_updates_gpu, l->scale_updates, count);
    c->planned[ACROSS] = 1;
    return step.is_limited;
}

int kure_cuda_apply(struct kure_network *k, int i, const struct kure_kurtosis_rule *rule, double factor, double rate, double max_step)
{
    if (k->measures[i].skip != KURE_SKIP_NO) return 0;
    if (by_row(k)) return plan_rows(k->cuda, whole_of(k, i), raw_of(k, i), rows_of(k, i), rule, factor, rate, max_step);
    if (is_folded(k, i)) return plan_folded(k, i, rule, factor, rate, max_step);
    return plan_tensor(k->cuda, whole_of(k, i), rule, factor, rate, max_step);
}

void kure_cuda_descend(struct kure_network *k)
{
    if (k->cuda->planned[NARROW]) run(k, NARROW, KURE_CUDA_SEND);
    if (k->cuda->planned[WIDE]) run(k, WIDE, KURE_CUDA_SEND);
    if (k->cuda->planned[ACROSS]) run(k, ACROSS, KURE_CUDA_SEND);
}
#endif
