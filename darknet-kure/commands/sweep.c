/* sweep.c: `darknet kure sweep CFG WEIGHTS DATA`: a grid of quantizers, one row a point. */
#define _GNU_SOURCE
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "estimate.h"
#include "interrupt.h"
#include "output.h"
#include "progress.h"
#include "sweep_file.h"

static const char *const help[] = {
    "usage: darknet kure sweep CFG WEIGHTS DATA --csv FILE [quantizer keys] [options]\n\n"
    "Evaluates the float network and every combination of the keys' lists: one row a point,\n"
    "written to FILE as soon as it is known. Run again, it goes on with what is missing. The\n"
    "keys are those of 'darknet kure eval --help': --weight-bits 8,6,4 --weight-step-ratio\n"
    "0.7,1,1.3 --rounding half_even,floor and so on.\n\n"
    "  --csv FILE                the table; it must be of this sweep, or not be there\n"
    "  --shard I/N               only the points I, I+N, I+2N... of the grid: N machines can\n"
    "                            share it; 'darknet kure merge' puts their files together\n"
    "  --jobs N                  points at a time, each on one processor thread (default: as\n"
    "                            many as there are threads; 1: one point on all of them)\n"
    "  --threads N               processor threads (default: all)\n"
    "  --images N                the first N images of the validation list only\n"
    "  --calibration-images N, --bn-images N, --bias-images N, --lapq-images N,\n"
    "  --equalize, --seed N, --threshold T   as in eval\n"
    "  --skip-bad                leave out images that cannot be read, and say how many\n"
    "  --long                    begin even where it would take more than a day\n"
    "  --json FILE               write the table as JSON as well\n"
    "  --help                    this text\n\n"
    "Robustness: points that differ in step ratios alone are a curve, whose area under top-1 (of\n"
    "a detector, AP) is divided by its width (trapezoidal rule); the score is the mean over all\n"
    "curves, without the float point. In percent, and divided by that of the float network. It\n"
    "depends on the grid: compare scores whose grid, named by its hash, is the same.\n",
    NULL,
};

struct sweep {
    struct kure_evaluation evaluation;
    struct kure_evaluation_request request;
    struct kure_sweep_head head;
    struct kure_table table;
    FILE *file;                  /* the CSV, at its end */
    int is_new;                  /* there was no such file */
    int *pending, pending_count; /* points to evaluate */
    pid_t *workers;
    FILE *said;                  /* their stderr */
    struct kure_progress progress;
};

/* Point 0 is float; the keys' combinations follow. */
static struct kure_point point_of(const struct sweep *s, int i)
{
    return i == 0 ? (struct kure_point){.fold = 0} : kure_points_get(&s->request.points, i - 1);
}

static void hash(char out[33], const char *format, ...)
{
    char *text;
    va_list list;
    va_start(list, format);
    if (vasprintf(&text, format, list) < 0) kure_stop(&(struct kure_error){"not enough memory"});
    va_end(list);
    kure_hash_text(text, out);
    free(text);
}

static void make_head(struct sweep *s, const struct kure_network *k)
{
    const struct kure_evaluation_request *r = &s->request;
    struct kure_error error;
    char *names = NULL, *keys = kure_points_text(&r->points), cfg[33];
    size_t size;
    FILE *out = open_memstream(&names, &size);
    if (!out || !keys) kure_stop(&(struct kure_error){"not enough memory"});
    kure_evaluation_describe(&s->evaluation, out);
    fclose(out);
    if (kure_hash_file(r->weights, s->head.model, &error) != KURE_OK) kure_stop(&error);
    if (kure_hash_file(r->cfg, cfg, &error) != KURE_OK) kure_stop(&error);
    hash(s->head.plan, "%s %s", k->plan.hash, cfg);
    double threshold = kure_evaluation_threshold(r, s->evaluation.net);
    char of_scores[48] = "";
    if (threshold > 0) snprintf(of_scores, sizeof of_scores, " threshold=%.9g", threshold);
    hash(s->head.grid, "%s%s images=%d calibration_images=%d bn_images=%d bias_images=%d lapq_images=%d equalize=%d seed=%llu%s", keys, names, r->images,
         r->calibration_images, r->bn_images, r->bias_images, r->lapq_images, r->equalize, (unsigned long long)r->seed, of_scores);
    s->head.points = 1 + kure_points_count(&r->points);
    free(names);
    free(keys);
}

/* ---- the file ------------------------------------------------------------------------- */

static void stop_file(const char *path, const char *reason)
{
    struct kure_error error;
    snprintf(error.text, sizeof error.text, "%s: %s", path, reason);
    kure_stop(&error);
}

/* For Ctrl-C: what is done stays done. */
static void say_done(const struct sweep *s)
{
    kure_interrupt_say("%d of %d points are in %s: run the same command again to go on", s->table.rows, s->head.points, s->request.csv);
}

/* What is there already stays; a line that was cut when its writer was killed goes. */
static void open_file(struct sweep *s)
{
    struct kure_error error;
    const char *path = s->request.csv;
    long whole = 0;
    struct stat own, there;
    s->is_new = access(path, F_OK) != 0;
    do { /* again where another sweep has ended, and replaced the file, in between */
        if (s->file) fclose(s->file);
        s->file = fopen(path, "a");
        if (!s->file) stop_file(path, strerror(errno));
        if (flock(fileno(s->file), LOCK_EX | LOCK_NB) != 0) {
            stop_file(path, "another sweep writes into it: choose another --csv, and put them together with merge");
        }
    } while (fstat(fileno(s->file), &own) != 0 || stat(path, &there) != 0 || own.st_ino != there.st_ino || own.st_dev != there.st_dev);
    if (kure_sweep_read(path, &s->head, &s->table, &whole, &error) != KURE_OK) kure_stop(&error);
    if (ftruncate(fileno(s->file), whole) != 0) stop_file(path, strerror(errno));
    if (whole == 0) kure_table_write_header(&s->table, s->file);
    if (fflush(s->file) != 0) stop_file(path, strerror(errno));
    if (s->table.rows) fprintf(stderr, "%s: %d of %d points are there already\n", path, s->table.rows, s->head.points);
}

static void find_pending(struct sweep *s)
{
    const struct kure_evaluation_request *r = &s->request;
    s->pending = calloc((size_t)s->head.points, sizeof *s->pending);
    if (!s->pending) kure_stop(&(struct kure_error){"not enough memory"});
    for (int i = r->shards ? r->shard - 1 : 0; i < s->head.points; i += r->shards ? r->shards : 1) {
        if (!kure_sweep_has(&s->head, i)) s->pending[s->pending_count++] = i;
    }
}

/* A row that does not fit on the disk goes as a whole. */
static void stop_cut(struct sweep *s, off_t whole, int reason)
{
    struct kure_error error;
    __fpurge(s->file); /* nothing more is to be written at exit */
    int cut = ftruncate(fileno(s->file), whole);
    (void)cut; /* one that stays is seen as such by the next sweep */
    kure_interrupt_kill_workers();
    snprintf(error.text, sizeof error.text, "%s: cannot be written: %s: %d of %d points are in it: run the same command again to go on",
             s->request.csv, strerror(reason), s->table.rows - 1, s->head.points);
    kure_stop(&error);
}

static void add_result(struct sweep *s, int i, const struct kure_result *result)
{
    struct kure_point point = point_of(s, i);
    struct stat before;
    kure_interrupt_hold(1);
    if (fstat(fileno(s->file), &before) != 0) stop_file(s->request.csv, strerror(errno));
    kure_sweep_add(&s->table, &s->head, i);
    kure_evaluation_set(&s->table, &point, result);
    kure_evaluation_set_images(&s->evaluation, &point, &s->table);
    kure_table_write_row(&s->table, s->table.rows - 1, s->file);
    if (fflush(s->file) != 0 || ferror(s->file)) stop_cut(s, before.st_size, errno);
    say_done(s);
    kure_interrupt_hold(0);
}

/* ---- the work --------------------------------------------------------------------------- */

static void count_images(void *progress, int n)
{
    kure_progress_add(progress, n);
}

static void run_here(struct sweep *s)
{
    for (int i = 0; i < s->pending_count; ++i) {
        struct kure_point point = point_of(s, s->pending[i]);
        struct kure_result result = kure_evaluation_run(&s->evaluation, &point, NULL, count_images, &s->progress);
        add_result(s, s->pending[i], &result);
    }
}

/* What a worker tells: images that are done, or the result of a point. Small enough for
 * one write to a pipe that others write to as well. */
struct message {
    int images, point;
    struct kure_result result;
};

static void tell(int out, const struct message *message)
{
    if (write(out, message, sizeof *message) != (ssize_t)sizeof *message) _exit(1);
}

static void tell_images(void *context, int n)
{
    tell(*(int *)context, &(struct message){.images = n});
}

/* A process of its own, on one thread; next: the place in the list of the points. */
static void work(struct sweep *s, atomic_int *next, int out)
{
#ifdef _OPENMP
    omp_set_num_threads(1); /* the threads of the parent are not here */
#endif
    for (int i; (i = atomic_fetch_add(next, 1)) < s->pending_count;) {
        struct kure_point point = point_of(s, s->pending[i]);
        struct message message = {.point = s->pending[i]};
        message.result = kure_evaluation_run(&s->evaluation, &point, NULL, tell_images, &out);
        tell(out, &message);
    }
    fflush(stderr);
    _exit(0);
}

static int collect(struct sweep *s, int in)
{
    struct message message;
    ssize_t bytes;
    int results = 0;
    while ((bytes = read(in, &message, sizeof message)) != 0) {
        if (bytes < 0 && errno == EINTR) continue;
        if (bytes != (ssize_t)sizeof message) break;
        if (message.images) {
            kure_progress_add(&s->progress, message.images);
        } else {
            add_result(s, message.point, &message.result);
            ++results;
        }
    }
    return results;
}

/* What the workers have said: all of it, or the first line. */
static void repeat_said(FILE *said, int all)
{
    char *line = NULL;
    size_t capacity = 0;
    rewind(said);
    while (getline(&line, &capacity, said) > 0) {
        fputs(line, stderr);
        if (!all) break;
    }
    free(line);
    fclose(said);
}

static void start_workers(struct sweep *s, int jobs, atomic_int *next, const int ends[2])
{
    fflush(NULL);
    kure_interrupt_hold(1);
    for (int i = 0; i < jobs; ++i) {
        s->workers[i] = fork();
        if (s->workers[i] < 0) {
            kure_interrupt_kill_workers();
            kure_stop(&(struct kure_error){"no more processes for the workers: try --jobs 1"});
        }
        if (s->workers[i] == 0) {
            kure_interrupt_in_worker();
            dup2(fileno(s->said), STDERR_FILENO);
            close(ends[0]);
            work(s, next, ends[1]);
        }
        kure_interrupt_workers(s->workers, i + 1);
    }
    kure_interrupt_hold(0);
}

static void run_workers(struct sweep *s, int jobs)
{
    int ends[2], status, failed = 0, spoke = 0;
    atomic_int *next = mmap(NULL, sizeof *next, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    s->workers = calloc((size_t)jobs, sizeof *s->workers);
    s->said = tmpfile();
    if (next == MAP_FAILED || !s->workers || !s->said || pipe(ends) != 0) {
        kure_stop(&(struct kure_error){"no pipe, file or memory for the workers: try --jobs 1"});
    }
    start_workers(s, jobs, next, ends);
    close(ends[1]);
    int results = collect(s, ends[0]);
    close(ends[0]);
    while (wait(&status) > 0) {
        int stopped = WIFEXITED(status) && WEXITSTATUS(status) == 1; /* by kure_stop, with a sentence */
        spoke |= stopped;
        failed |= !stopped && !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    kure_interrupt_workers(NULL, 0);
    munmap(next, sizeof *next);
    free(s->workers);
    kure_progress_end(&s->progress);
    repeat_said(s->said, !spoke || failed);
    if (spoke) exit(1);
    if (!failed && results == s->pending_count) return;
    kure_stop(&(struct kure_error){"a worker has ended before its work was done: the points that are missing can be had by the same command"});
}

static int job_count(const struct sweep *s)
{
    int jobs = s->request.jobs;
#ifdef _OPENMP
    if (!jobs) jobs = omp_get_max_threads();
#endif
    if (gpu_index >= 0 || jobs < 1) jobs = 1;
    return jobs < s->pending_count ? jobs : s->pending_count;
}

static void run(struct sweep *s)
{
    kure_evaluation_begin(&s->evaluation);
    struct kure_point last = point_of(s, s->pending[s->pending_count - 1]);
    int jobs = job_count(s);
    if (!kure_estimate_allows(&s->evaluation, &last, s->pending_count, jobs)) {
        if (s->is_new) unlink(s->request.csv);
        exit(1);
    }
    kure_progress_start(&s->progress, "images", s->pending_count * kure_evaluation_images(&s->evaluation));
    if (jobs > 1) run_workers(s, jobs);
    else run_here(s);
    kure_progress_end(&s->progress);
}

int kure_command_sweep(int argc, char **argv)
{
    struct sweep s = {.request = {.csv = NULL}};
    int status = kure_evaluation_parse(argc, argv, help, KURE_SWEEP, &s.request);
    if (status >= 0) return status;
    if (!s.request.csv) return kure_usage_error("sweep", "--csv FILE is needed: the rows go there as they are known");
    if (kure_is_special(s.request.csv)) return kure_usage_error("sweep", "--csv %s: must be a regular file, to go on with later", s.request.csv);
    if (!s.request.points.given) return kure_usage_error("sweep", "no quantizer key is given, such as --weight-bits 8,6,4");
    kure_interrupt_say("stopped before the first point: %s is as it was", s.request.csv);
    network *net = kure_network_load(s.request.cfg, s.request.weights);
    kure_evaluation_load(&s.evaluation, &s.request, net);
    kure_sweep_table(&s.table);
    make_head(&s, net->kure);
    memcpy(s.table.plan, s.head.plan, sizeof s.table.plan);
    memcpy(s.table.model, s.head.model, sizeof s.table.model);
    if (s.request.shards > s.head.points) {
        return kure_usage_error("sweep", "--shard %d/%d: the grid has only %d points", s.request.shard, s.request.shards, s.head.points);
    }
    open_file(&s);
    find_pending(&s);
    say_done(&s);
    if (s.pending_count) run(&s);
    kure_evaluation_end(&s.evaluation);
    kure_table_sort(&s.table, "point");
    kure_table_print(&s.table, stdout);
    kure_evaluation_say_defaults(&s.request);
    kure_sweep_print_score(&s.table, &s.head);
    kure_interrupt_hold(1);
    status = kure_write_tables(&s.table, s.request.csv, s.request.json); /* in order */
    fclose(s.file);
    kure_sweep_free(&s.head);
    kure_table_free(&s.table);
    kure_points_free(&s.request.points);
    free(s.pending);
    return status;
}
