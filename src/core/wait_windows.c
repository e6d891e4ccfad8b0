/* SPDX-License-Identifier: MIT
 *
 * wait.h for Windows. The DLL's read event is auto-reset: a wait consumes it.
 */
#include "tunring.h"
#include "wait.h"

static DWORD
milliseconds_until(int64_t deadline)
{
    if (deadline == TUNRING_FOREVER)
        return INFINITE;
    int64_t left = deadline - os_now();
    if (left <= 0)
        return 0;
    int64_t milliseconds = (left + 999999) / 1000000;
    return milliseconds < INFINITE ? (DWORD)milliseconds : INFINITE - 1;
}

int
wait_any(const HANDLE *handles, unsigned count, int64_t deadline)
{
    HANDLE present[WAIT_MOST];
    int index[WAIT_MOST];
    DWORD used = 0;
    for (unsigned i = 0; i < count; i++)
    {
        if (!handles[i])
            continue;
        present[used] = handles[i];
        index[used++] = (int)i;
    }
    for (;;)
    {
        DWORD result = WaitForMultipleObjects(used, present, FALSE, milliseconds_until(deadline));
        if (result < WAIT_OBJECT_0 + used)
            return index[result - WAIT_OBJECT_0];
        if (result != WAIT_TIMEOUT)
            return WAIT_BROKEN;
        if (os_now() >= deadline)
            return WAIT_NOTHING;
    }
}

void
wait_rearm(HANDLE read_event)
{
    SetEvent(read_event);
}
