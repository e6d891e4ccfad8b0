/* SPDX-License-Identifier: MIT
 *
 * Ctrl-C for waits without the GIL: interrupt_posix.c, interrupt_windows.c. Only the main thread runs Python's signal
 * handlers, so only there is a wait interrupted. All of this needs the GIL.
 */
#ifndef TUNRING_INTERRUPT_H
#define TUNRING_INTERRUPT_H

#include "platform/os.h"

/* POSIX: a wake-up descriptor that somebody has set, and which file it was then. The number may become another's. */
typedef struct wakeup_fd
{
    int number; /* -1: none */
    uint64_t device, inode;
} wakeup_fd;

typedef struct interrupt
{
    HANDLE handle;      /* ready once a signal has come; NULL where there is nothing to wait for */
    wakeup_fd previous; /* POSIX: what was set before ours */
} interrupt;

/* Records which thread is the main one; again in a forked child, where no wait goes on. -1 with an exception. */
int interrupt_init(unsigned long main_thread);
/* False in a thread that handles no signals, where a wait need not be armed. */
bool interrupt_possible(void);
/* From here on a signal makes the handle ready. Signals that came before are handled: -1 if a handler raised. Either
 * way interrupt_disarm() must follow. */
int interrupt_arm(interrupt *state);
/* Handles what has come: -1 if a handler raised. Python code runs: the caller must hold nothing. The handle may
 * change. */
int interrupt_check(interrupt *state);
void interrupt_disarm(interrupt *state);

#endif
