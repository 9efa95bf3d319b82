/* training.c: once an update: log row, status line, and SIGINT's checkpoint. */
#define _GNU_SOURCE
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "state.h"

static volatile sig_atomic_t stop_signal;

long long kure_updates_done(const network *net)
{
    return (long long)(*net->seen / ((size_t)net->batch * (size_t)net->subdivisions));
}

int kure_owns_terminal(void)
{
    return isatty(STDOUT_FILENO) && isatty(STDERR_FILENO);
}

/* The first signal asks for a checkpoint, the second one ends the process. */
static void on_signal(int signal)
{
    stop_signal = signal;
}

static void catch_signals(void)
{
    static int caught;
    static const int signals[] = {SIGINT, SIGTERM};
    if (caught) return;
    caught = 1;
    for (int i = 0; i < 2; ++i) {
        struct sigaction now, wanted = {.sa_handler = on_signal, .sa_flags = SA_RESTART | (int)SA_RESETHAND};
        if (sigaction(signals[i], NULL, &now) == 0 && now.sa_handler == SIG_DFL) sigaction(signals[i], &wanted, NULL);
    }
}

/* A missing folder would otherwise show at the first checkpoint, hours later. */
static void check_backup(const char *backup)
{
    static int checked;
    if (checked) return;
    checked = 1;
    if (access(backup, W_OK | X_OK) == 0) return;
    struct kure_error error;
    snprintf(error.text, sizeof error.text, "backup=%s: no such folder, or it cannot be written: no checkpoint could be saved", backup);
    kure_stop(&error);
}

/* Neither a checkpoint nor a row of the log is worth keeping from here on. */
static void stop_diverged(const network *net, float loss, const char *backup)
{
    const struct kure_network *k = net->kure;
    const struct kure_kurtosis_options *o = &k->plan.kurtosis;
    struct kure_error error;
    int unlimited = k->plan.regularized && o->lambda > 0 && o->max_step == 0;
    snprintf(error.text, sizeof error.text, "%s: update %lld: the loss is %s, the training has diverged: try a lower learning_rate "
             "(%g at this update)%s; the checkpoints in %s are of earlier updates", k->options.path, kure_updates_done(net),
             isnan(loss) ? "nan" : "infinite", (double)get_current_rate((network *)(uintptr_t)net),
             unlimited ? " or [kurtosis] max_step above 0" : "", backup);
    if (kure_owns_terminal()) fprintf(stderr, "\n");
    kure_stop(&error);
}

static void leave_with_checkpoint(network *net, const char *backup, const char *base)
{
    char *path = NULL;
    if (asprintf(&path, "%s/%s.backup", backup, base) < 0) kure_stop(&(struct kure_error){"not enough memory"});
    if (kure_owns_terminal()) fprintf(stderr, "\n");
    save_weights(net, path);
    fprintf(stderr, "Stopped after update %lld; to go on, give %s as the weights, without -clear\n", kure_updates_done(net), path);
    fflush(NULL);
    _exit(128 + stop_signal); /* the loader thread still runs */
}

static double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void print_kurtosis(const struct kure_network *k)
{
    double sum = 0;
    int n = 0;
    for (int i = 0; k->measured && i < k->plan.count; ++i) {
        if (!k->plan.rows[i].regularized || k->measures[i].skip != KURE_SKIP_NO) continue;
        sum += k->measures[i].kurtosis;
        ++n;
    }
    if (n) fprintf(stderr, "  kurtosis %.2f", sum / n);
}

/* The cursor stays at the start of the line, so that whatever comes next overwrites it. */
static void print_status(const network *net, float loss, int nets)
{
    static double start, last;
    static long long first;
    long long update = kure_updates_done(net);
    double now = now_seconds();
    if (start == 0) {
        start = now;
        first = update;
        return;
    }
    int end = update >= net->max_batches;
    if (now - last < 0.2 && !end) return;
    last = now;
    double rate = (double)(update - first) / (now - start); /* updates a second */
    long long left = rate > 0 ? (long long)((double)(net->max_batches - update) / rate) : 0;
    double images = rate * net->batch * net->subdivisions * nets;
    fprintf(stderr, "update %lld/%d  loss %.4f  rate %.4g  %.0f images/s  ETA %lld:%02lld", update, net->max_batches, loss,
            get_current_rate((network *)(uintptr_t)net), images, left / 60, left % 60);
    if (net->kure) print_kurtosis(net->kure);
    fprintf(stderr, end ? "\033[K\n" : "\033[K\r");
}

void kure_iteration(network **nets, int n, float loss, const char *backup, const char *base)
{
    network *net = nets[0];
    struct kure_network *k = net->kure;
    long long update = kure_updates_done(net);
    if (!kure_is_finite(loss)) stop_diverged(net, loss, backup);
    catch_signals();
    check_backup(backup);
    k->trained = 1;
    for (int i = 0; i < n; ++i) ((struct kure_network *)nets[i]->kure)->unseen = 0;
    if (k->plan.kurtosis.log) {
        kure_log_open(k, update);
        if (k->measured && update % k->plan.kurtosis.every == 0) kure_log_row(k, update, loss);
    }
    if (kure_owns_terminal()) print_status(net, loss, n);
    int is_last = net->max_batches > 0 && update >= net->max_batches; /* the weights are saved next anyway */
    if (stop_signal && !is_last) leave_with_checkpoint(net, backup, base);
}
