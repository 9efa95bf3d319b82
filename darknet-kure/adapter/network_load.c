/* network_load.c: a network for a command, without Darknet's chatter. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "evaluate.h"
#include "output.h"

/* While Darknet parses, stderr goes to this file; shown if the process ends there. */
static FILE *held;
static int real_stderr = -1;
static const char *loading = "";
static const int crashes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
enum { CRASHES = sizeof crashes / sizeof crashes[0] };
static struct sigaction before[CRASHES];

static void watch_crashes(int on);

static void release_stderr(void)
{
    if (!held) return;
    watch_crashes(0);
    fflush(stderr);
    dup2(real_stderr, STDERR_FILENO);
    close(real_stderr);
    fclose(held);
    held = NULL;
}

/* At exit inside of the parser: the last line says why. */
static void show_last_line(void)
{
    if (!held) return;
    fflush(stderr);
    rewind(held);
    char *line = NULL, *last = NULL;
    size_t capacity = 0;
    while (getline(&line, &capacity, held) > 0) {
        if (line[0] == '\n') continue;
        free(last);
        last = strdup(line);
    }
    release_stderr();
    if (last) fputs(last, stderr);
    free(last);
    free(line);
}

static void say(const char *text, size_t bytes)
{
    ssize_t written = write(real_stderr, text, bytes);
    (void)written; /* nothing is left to do about it */
}

/* Functions that a signal handler may call only. Whoever handled the signal before, or
 * the system, gets it again when this returns. */
static void on_crash(int signal)
{
    static const char sentence[] = ": Darknet crashed while it read this network; it had said last:\n";
    char block[2048];
    ssize_t bytes;
    say(loading, strlen(loading));
    say(sentence, sizeof sentence - 1);
    off_t end = lseek(fileno(held), 0, SEEK_END), start = end > (off_t)sizeof block ? end - (off_t)sizeof block : 0;
    lseek(fileno(held), start, SEEK_SET);
    if ((bytes = read(fileno(held), block, sizeof block)) > 0) say(block, (size_t)bytes);
    dup2(real_stderr, STDERR_FILENO);
    for (int i = 0; i < CRASHES; ++i) sigaction(crashes[i], &before[i], NULL);
    raise(signal);
}

static void watch_crashes(int on)
{
    const struct sigaction watch = {.sa_handler = on_crash};
    for (int i = 0; i < CRASHES; ++i) {
        if (on) sigaction(crashes[i], &watch, &before[i]);
        else sigaction(crashes[i], &before[i], NULL);
    }
}

static void hold_stderr(const char *path)
{
    static int registered;
    if (!registered) atexit(show_last_line);
    registered = 1;
    held = tmpfile();
    if (!held) return;
    fflush(stderr);
    real_stderr = dup(STDERR_FILENO);
    dup2(fileno(held), STDERR_FILENO);
    loading = path;
    watch_crashes(1);
}

static void check_readable(const char *path)
{
    if (access(path, R_OK) == 0) return;
    struct kure_error error;
    snprintf(error.text, sizeof error.text, "%s: no such file, or it cannot be read", path);
    kure_stop(&error);
}

/* Weights in the place of the cfg, which begin with the bytes of small integers: Darknet
 * would print them. Not of a pipe, which is read once. */
static void check_text(const char *path)
{
    unsigned char start[8];
    FILE *file = kure_is_special(path) ? NULL : fopen(path, "rb");
    size_t n = file ? fread(start, 1, sizeof start, file) : 0;
    if (file) fclose(file);
    if (!memchr(start, 0, n)) return;
    struct kure_error error;
    snprintf(error.text, sizeof error.text, "%s: is no cfg but a binary file: the order is CFG WEIGHTS", path);
    kure_stop(&error);
}

static void check_extent(const network *net, const char *weights)
{
    const struct kure_network *k = net->kure;
    struct kure_error error;
    if (k->extent_known && k->loaded_layers < net->n) {
        snprintf(error.text, sizeof error.text, "%s: partial: it ends after layer %d of %d", weights, k->loaded_layers - 1, net->n - 1);
        kure_stop(&error);
    }
    if (k->extent_known && k->bytes_left > 0) {
        snprintf(error.text, sizeof error.text, "%s: %zu bytes are left over after the last layer: not the weights of this cfg",
                 weights, k->bytes_left);
        kure_stop(&error);
    }
}

network *kure_network_load(const char *cfg, const char *weights)
{
    check_readable(cfg);
    check_text(cfg);
    if (weights) check_readable(weights);
    hold_stderr(cfg);
    network *net = load_network((char *)(uintptr_t)cfg, (char *)(uintptr_t)weights, 0);
    release_stderr();
    if (weights) check_extent(net, weights);
    return net;
}
