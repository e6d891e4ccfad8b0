/* SPDX-License-Identifier: MIT
 *
 * Waiting for handles: wait_posix.c, wait_windows.c.
 */
#ifndef TUNRING_WAIT_H
#define TUNRING_WAIT_H

#include "platform/os.h"

#define WAIT_NOTHING (-1) /* the time is up */
#define WAIT_BROKEN (-2)  /* the system refused to wait: last error; ERROR_INVALID_HANDLE if somebody closed a handle */
#define WAIT_MAX 4

/* The index of the first handle that is ready; earlier ones win. NULL handles are passed over. A signal doesn't end
 * the wait: it makes an interrupt handle ready if the caller has one. */
int wait_any(const HANDLE *handles, unsigned count, int64_t deadline);
/* The same, but a signal ends it, with WAIT_NOTHING; and so does a second or so where a program may close a descriptor
 * under the wait, which wouldn't hear of it: nor of anything that can't be signalled any more. */
int wait_once(const HANDLE *handles, unsigned count, int64_t deadline);

/* Nanoseconds for which a wait may go on without an interrupt handle, by wait_once(). A timer that is due before the
 * system's own tick costs more than a handle. 0 on Windows, where handles are cheap. */
extern const int64_t wait_brief;

/* The code of a call that waited for {its end, an interrupt, whatever it wants}, from the result of wait_any(). */
static inline DWORD
wait_code(int ready)
{
    switch (ready)
    {
    case 0:
        return ERROR_HANDLE_EOF;
    case 1:
        return ERROR_OPERATION_ABORTED;
    case WAIT_NOTHING:
        return WAIT_TIMEOUT;
    case WAIT_BROKEN:
        return GetLastError();
    default:
        return ERROR_SUCCESS;
    }
}

/* Takes the signal of an auto-reset read event back. True if there was one: then look at the ring once more. */
bool wait_settle(HANDLE read_event);

/* For a thread that a read event woke and that did not see the ring empty: the next waiter has to be woken, too. */
void wait_rearm(HANDLE read_event);

#endif
