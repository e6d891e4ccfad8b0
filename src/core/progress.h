/* SPDX-License-Identifier: MIT
 *
 * Lets any number of threads wait until another one has got on with something. A waiter looks at the state that it
 * waits for between progress_look() and progress_wait(), and misses nothing that happens after the first.
 */
#ifndef TUNRING_PROGRESS_H
#define TUNRING_PROGRESS_H

#include "platform/os.h"
#include "tunring.h"

typedef struct progress
{
    _Atomic uint64_t made;     /* calls of progress_made() */
    _Atomic uint32_t sleeping; /* waiters that the event has not been set for */
    uint32_t waking;           /* those that it is set for, and that have not seen it yet */
    uint64_t round;            /* times that it was set */
    os_mutex lock;             /* guards the event and the counts of waiters */
    os_event event;
} progress;

/* False on failure, with the last error. */
bool progress_open(progress *self);
void progress_close(progress *self);

static inline uint64_t
progress_look(progress *self)
{
    return atomic_load(&self->made);
}

/* Returns at once if anything has happened since progress_look() returned `seen`. WAIT_TIMEOUT at the deadline,
 * ERROR_OPERATION_ABORTED for the interrupt. */
DWORD progress_wait(progress *self, uint64_t seen, const tunring_wait *wait);
/* Call it after the state has changed, and not with a lock held. */
void progress_made(progress *self);

#endif
