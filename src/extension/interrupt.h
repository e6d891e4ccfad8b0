/* SPDX-License-Identifier: MIT
 *
 * Ctrl-C for waits without the GIL: interrupt_posix.c, interrupt_windows.c. Only the main thread runs Python's signal
 * handlers, so only there is a wait interrupted. All of this needs the GIL.
 */
#ifndef TUNRING_INTERRUPT_H
#define TUNRING_INTERRUPT_H

#include "platform/os.h"

typedef struct interrupt
{
    HANDLE handle; /* ready once a signal has come; NULL where there is nothing to wait for */
    int previous;  /* POSIX: the wake-up descriptor that was set before ours */
} interrupt;

/* Tells which thread is the main one; again in a forked child. -1 with an exception. */
int interrupt_init(unsigned long main_thread);
/* From here on a signal makes the handle ready. Signals that came before are handled: -1 if a handler raised. */
int interrupt_arm(interrupt *state);
/* Handles what has come: -1 if a handler raised. Python code runs: the caller must hold nothing. */
int interrupt_check(interrupt *state);
void interrupt_disarm(interrupt *state);

#endif
