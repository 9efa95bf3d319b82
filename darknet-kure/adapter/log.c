/*
 * log.c: the training log, one CSV row an update.
 *
 * A run that resumes at an update keeps the rows before it and drops those behind,
 * which it is about to write again. A log with other columns, or of another run when
 * this one starts at update 0, is kept aside as FILE.old; a file that is no log of
 * ours is refused. Rows are flushed as they are written. Tested by tests/test_log_file.py.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "output.h"
#include "state.h"

#define FIRST_COLUMNS "update,loss," /* how every log of ours begins */

struct kure_log {
    FILE *file;
};

static void stop_log(const struct kure_network *k, const char *what)
{
    struct kure_error error;
    snprintf(error.text, sizeof error.text, "%s:%d: [kurtosis] log=%s: %s: %s", k->options.path, k->plan.kurtosis.line,
             k->plan.kurtosis.log, what, strerror(errno));
    kure_stop(&error);
}

static char *header_of(const struct kure_network *k)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    if (!out) stop_log(k, "cannot be written");
    fprintf(out, FIRST_COLUMNS "kurtosis_loss,rate,capped");
    for (int i = 0; i < k->plan.count; ++i) {
        if (k->plan.rows[i].regularized) fprintf(out, ",kurtosis_%d", i);
    }
    fprintf(out, "\n");
    fclose(out);
    return text;
}

static void refuse_log(const struct kure_network *k, const char *why)
{
    struct kure_error error;
    snprintf(error.text, sizeof error.text, "%s:%d: [kurtosis] log=%s: %s", k->options.path, k->plan.kurtosis.line,
             k->plan.kurtosis.log, why);
    kure_stop(&error);
}

static int ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* A device, a pipe or a folder of that name is not to be replaced, nor read to its end;
 * a checkpoint of that name would replace the log. */
static void check_name(const struct kure_network *k)
{
    static const char *const checkpoints[] = {".weights", ".backup", ".kure"};
    struct stat status;
    const char *path = k->plan.kurtosis.log;
    for (size_t i = 0; i < sizeof checkpoints / sizeof *checkpoints; ++i) {
        if (ends_with(path, checkpoints[i])) refuse_log(k, "this is the name of a checkpoint: give another one, such as log.csv");
    }
    if (stat(path, &status) != 0 || S_ISREG(status.st_mode)) return;
    errno = S_ISDIR(status.st_mode) ? EISDIR : EINVAL;
    stop_log(k, "is no regular file");
}

/* Copies the rows before `update` of the log that is there, `in`. 1: the whole log has to
 * be kept aside: other columns, or a run from the start would drop rows; -1: no log of ours. */
static int copy_rows(FILE *in, FILE *out, const char *header, long long update)
{
    char *line = NULL;
    size_t capacity = 0;
    int some = getline(&line, &capacity, in) >= 0, same = some && strcmp(line, header) == 0, dropped = 0;
    int ours = !some || strncmp(line, FIRST_COLUMNS, sizeof FIRST_COLUMNS - 1) == 0;
    while (same && getline(&line, &capacity, in) >= 0) {
        int kept = strchr(line, '\n') && atoll(line) < update;
        if (kept) fputs(line, out);
        dropped |= !kept;
    }
    free(line);
    return !ours ? -1 : some && (!same || (dropped && update <= 1));
}

void kure_log_open(struct kure_network *k, long long update)
{
    if (k->log) return;
    check_name(k);
    char *path = kure_follow_links(k->plan.kurtosis.log), *temporary = NULL, *old = NULL, *header = header_of(k);
    struct kure_log *log = calloc(1, sizeof *log);
    if (!log || !path || asprintf(&temporary, "%s.tmp", path) < 0 || asprintf(&old, "%s.old", path) < 0) stop_log(k, "cannot be written");
    log->file = fopen(temporary, "w");
    if (!log->file) stop_log(k, "cannot be written");
    fputs(header, log->file);
    FILE *before = fopen(path, "r");
    if (before) {
        int aside = copy_rows(before, log->file, header, update);
        fclose(before);
        if (aside < 0) unlink(temporary);
        if (aside < 0) refuse_log(k, "this file is there and is no log of ours, which begins with 'update,loss,': give another name");
        if (aside && rename(path, old) != 0) stop_log(k, "cannot be kept aside");
    }
    if (fflush(log->file) != 0 || rename(temporary, path) != 0) {
        unlink(temporary);
        stop_log(k, "cannot be written");
    }
    free(path);
    free(temporary);
    free(old);
    free(header);
    k->log = log;
}

void kure_log_row(struct kure_network *k, long long update, double loss)
{
    FILE *out = k->log->file;
    fprintf(out, "%lld,%.6g,%.6g,%.6g,%d", update, loss, k->loss, k->rate, k->capped);
    for (int i = 0; i < k->plan.count; ++i) {
        if (!k->plan.rows[i].regularized) continue;
        if (k->measures[i].skip == KURE_SKIP_NO) fprintf(out, ",%.6f", k->measures[i].kurtosis);
        else fprintf(out, ",");
    }
    if (fprintf(out, "\n") < 0 || fflush(out) != 0) stop_log(k, "cannot be written");
}

void kure_log_free(struct kure_log *log)
{
    if (log) fclose(log->file);
    free(log);
}
