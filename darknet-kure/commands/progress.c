/* progress.c: see progress.h. */
#define _GNU_SOURCE
#include "progress.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

double kure_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void kure_progress_start(struct kure_progress *p, const char *unit, long long total)
{
    *p = (struct kure_progress){.unit = unit, .total = total, .start = kure_seconds()};
}

static void print_bar(const struct kure_progress *p, double rate, long long left)
{
    enum { WIDTH = 30 };
    char bar[WIDTH + 1];
    int filled = (int)(p->done * WIDTH / p->total);
    for (int i = 0; i < WIDTH; ++i) bar[i] = i < filled ? '#' : '.';
    bar[WIDTH] = 0;
    fprintf(stderr, "[%s] %lld/%lld %s  %.0f/s  ETA %lld:%02lld\033[K\r", bar, p->done, p->total, p->unit, rate, left / 60, left % 60);
}

void kure_progress_add(struct kure_progress *p, long long done)
{
    double now = kure_seconds();
    p->done += done;
    double rate = (double)p->done / (now - p->start + 1e-9);
    long long left = (long long)((double)(p->total - p->done) / rate);
    if (isatty(STDERR_FILENO)) {
        if (now - p->last < 0.1) return;
        p->last = now;
        print_bar(p, rate, left);
        return;
    }
    int tenth = (int)(p->done * 10 / p->total);
    if (tenth == p->tenth || now - p->start < 5) return; /* short work says nothing */
    p->tenth = tenth;
    fprintf(stderr, "%d%%: %lld/%lld %s, %.0f/s, %lld:%02lld left\n", tenth * 10, p->done, p->total, p->unit, rate, left / 60, left % 60);
}

void kure_progress_end(struct kure_progress *p)
{
    (void)p;
    if (isatty(STDERR_FILENO)) fprintf(stderr, "\033[K");
}
