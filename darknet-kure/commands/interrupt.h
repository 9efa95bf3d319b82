/*
 * interrupt.h: Ctrl-C (SIGINT, SIGTERM, SIGHUP) in a long command: one sentence, status 128 + the
 * signal's number (130), workers ended, no line half-written.
 */
#ifndef KURE_INTERRUPT_H
#define KURE_INTERRUPT_H

#include <sys/types.h>

/* What is said if the process is interrupted from now on. The first call begins to catch the
 * signals, where nobody has told the process to ignore them. */
__attribute__((format(printf, 1, 2))) void kure_interrupt_say(const char *format, ...);

/* What is undone then, before the sentence. undo [in]: called in the signal handler, so only what may be called there; NULL: nothing */
void kure_interrupt_undo(void (*undo)(void));

/* hold = 1: a signal waits until it is 0 again: around what must not be cut in two. */
void kure_interrupt_hold(int hold);

/* Processes that are killed with this one; pids [in]: [count], to be kept until the next call. */
void kure_interrupt_workers(const pid_t *pids, int count);
void kure_interrupt_kill_workers(void);

/* In a worker, forked while signals are held: the signals of a terminal are its parent's business. */
void kure_interrupt_in_worker(void);

#endif
