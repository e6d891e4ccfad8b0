/* SPDX-License-Identifier: MIT
 *
 * wait.h for Windows. The DLL's read event is auto-reset: a wait consumes it.
 */
#include "platform/wait.h"

const int64_t wait_brief = 0;

static DWORD
milliseconds_until(int64_t deadline)
{
    if (deadline == OS_FOREVER)
        return INFINITE;
    int64_t left = deadline - os_now();
    if (left <= 0)
        return 0;
    int64_t milliseconds = (left + 999999) / 1000000;
    return milliseconds < INFINITE ? (DWORD)milliseconds : INFINITE - 1;
}

/* Shorter waits than this, in nanoseconds, are worth a timer of their own. */
#define FINE 20000000

static int
wait_with(const HANDLE *present, DWORD used, int64_t deadline)
{
    for (;;)
    {
        DWORD result = WaitForMultipleObjects(used, present, FALSE, milliseconds_until(deadline));
        if (result < WAIT_OBJECT_0 + used)
            return (int)(result - WAIT_OBJECT_0);
        if (result != WAIT_TIMEOUT)
            return WAIT_BROKEN;
        if (os_now() >= deadline)
            return WAIT_NOTHING;
    }
}

int
wait_any(const HANDLE *handles, unsigned count, int64_t deadline)
{
    DWORD used = 0;
    HANDLE present[WAIT_MAX + 1];
    int index[WAIT_MAX + 1];
    for (unsigned i = 0; i < count; i++)
    {
        if (!handles[i])
            continue;
        present[used] = handles[i];
        index[used++] = (int)i;
    }
    int64_t left = deadline == OS_FOREVER ? deadline : deadline - os_now();
    HANDLE timer = left > 0 && left < FINE ? os_timer_start(left) : NULL;
    if (timer)
    {
        present[used] = timer;
        index[used++] = WAIT_NOTHING;
    }
    int ready = wait_with(present, used, timer ? OS_FOREVER : deadline);
    if (timer)
        CloseHandle(timer);
    return ready >= 0 ? index[ready] : ready;
}

int
wait_once(const HANDLE *handles, unsigned count, int64_t deadline)
{
    return wait_any(handles, count, deadline);
}

void
wait_rearm(HANDLE read_event)
{
    SetEvent(read_event);
}

bool
wait_settle(HANDLE read_event)
{
    return WaitForSingleObject(read_event, 0) == WAIT_OBJECT_0;
}
