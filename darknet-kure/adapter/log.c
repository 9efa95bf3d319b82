/*
 * log.c: the training log, one CSV row an update.
 *
 * A run that starts or resumes at an update keeps the rows before it and drops those
 * behind, which it is about to write again. A log with other columns is kept aside
 * as FILE.old. Rows are flushed as they are written.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "state.h"

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
    fprintf(out, "update,loss,kurtosis_loss,rate,capped");
    for (int i = 0; i < k->plan.count; ++i) {
        if (k->plan.rows[i].regularized) fprintf(out, ",kurtosis_%d", i);
    }
    fprintf(out, "\n");
    fclose(out);
    return text;
}

/* Copies the rows before `update` of the log that is there; 0: other columns. */
static int copy_rows(FILE *in, FILE *out, const char *header, long long update)
{
    char *line = NULL;
    size_t capacity = 0;
    int same = getline(&line, &capacity, in) >= 0 && strcmp(line, header) == 0;
    while (same && getline(&line, &capacity, in) >= 0) {
        if (strchr(line, '\n') && atoll(line) < update) fputs(line, out);
    }
    free(line);
    return same;
}

/* A device, a pipe or a folder of that name is not to be replaced, nor read to its end. */
static void check_kind(const struct kure_network *k)
{
    struct stat status;
    if (stat(k->plan.kurtosis.log, &status) != 0 || S_ISREG(status.st_mode)) return;
    errno = S_ISDIR(status.st_mode) ? EISDIR : EINVAL;
    stop_log(k, "is no regular file");
}

void kure_log_open(struct kure_network *k, long long update)
{
    if (k->log) return;
    check_kind(k);
    const char *path = k->plan.kurtosis.log;
    char *temporary = NULL, *old = NULL, *header = header_of(k);
    struct kure_log *log = calloc(1, sizeof *log);
    if (!log || asprintf(&temporary, "%s.tmp", path) < 0 || asprintf(&old, "%s.old", path) < 0) stop_log(k, "cannot be written");
    log->file = fopen(temporary, "w");
    if (!log->file) stop_log(k, "cannot be written");
    fputs(header, log->file);
    FILE *before = fopen(path, "r");
    if (before) {
        int same = copy_rows(before, log->file, header, update);
        fclose(before);
        if (!same && rename(path, old) != 0) stop_log(k, "cannot be kept aside");
    }
    if (fflush(log->file) != 0 || rename(temporary, path) != 0) {
        unlink(temporary);
        stop_log(k, "cannot be written");
    }
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
