/*
 * progress.h: how far a long command is: a bar with rate and ETA on a terminal,
 * elsewhere a plain line at every tenth of the way. On stderr.
 */
#ifndef KURE_PROGRESS_H
#define KURE_PROGRESS_H

struct kure_progress {
    const char *unit; /* "images" */
    long long total, done;
    double start, last;
    int tenth; /* last tenth said */
};

void kure_progress_start(struct kure_progress *p, const char *unit, long long total);
void kure_progress_add(struct kure_progress *p, long long done);
void kure_progress_end(struct kure_progress *p); /* takes the bar away */

double kure_seconds(void); /* of a clock that only runs forward */

#endif
