/* interrupt.c: see interrupt.h. Tested by tests/test_interrupt.py. */
#define _GNU_SOURCE
#include "interrupt.h"

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
enum { SIGNALS = sizeof signals / sizeof signals[0] };
static char sentence[1024];
static int said_to = -1; /* stderr, also while Darknet's chatter is held back */
static atomic_int held, waiting;
static const pid_t *workers;
static atomic_int worker_count;
static void (*undo)(void);

void kure_interrupt_kill_workers(void)
{
    for (int i = 0; i < worker_count; ++i) kill(workers[i], SIGKILL);
    worker_count = 0;
}

/* Functions that a signal handler may call only. */
static void leave(int signal_number)
{
    static const char clear[] = "\r\033[K";
    ssize_t written = 0;
    kure_interrupt_kill_workers();
    if (undo) undo();
    if (isatty(said_to)) written += write(said_to, clear, sizeof clear - 1); /* the bar, ^C */
    written += write(said_to, sentence, strlen(sentence));
    (void)written; /* nothing is left to do about it */
    _exit(128 + signal_number);
}

static void on_signal(int signal_number)
{
    waiting = signal_number;
    if (!held) leave(signal_number);
}

void kure_interrupt_hold(int hold)
{
    held = hold;
    if (!hold && waiting) leave(waiting);
}

static void catch_signals(void)
{
    said_to = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
    for (int i = 0; i < SIGNALS; ++i) {
        struct sigaction now, wanted = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
        if (sigaction(signals[i], NULL, &now) == 0 && now.sa_handler == SIG_DFL) sigaction(signals[i], &wanted, NULL);
    }
}

void kure_interrupt_say(const char *format, ...)
{
    va_list arguments;
    int was_held = held;
    held = 1;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence - 1, format, arguments);
    va_end(arguments);
    strcat(sentence, "\n");
    if (said_to < 0) catch_signals();
    kure_interrupt_hold(was_held);
}

void kure_interrupt_undo(void (*function)(void))
{
    undo = function;
}

void kure_interrupt_workers(const pid_t *pids, int count)
{
    worker_count = 0;
    workers = pids;
    worker_count = count;
}

void kure_interrupt_in_worker(void)
{
    worker_count = 0;
    undo = NULL;
    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGTERM, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* nobody else would read what it finds */
}
