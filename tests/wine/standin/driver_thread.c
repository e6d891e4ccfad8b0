/* SPDX-License-Identifier: MIT
 *
 * driver_thread.h: the driver's protocol of falling asleep, and the retries of a cable whose far ring is full.
 */
#include "driver_thread.h"

#include "driver.h"

/* How long the driver looks for more before it falls asleep, in nanoseconds. */
#define SPIN 100000
#define MILLISECOND 1000000

static bool
is_gone(const registration *session)
{
    return ring_host_head(&session->send) == RING_GONE;
}

static bool
is_empty(const registration *session)
{
    return atomic_load(&session->send.ring->tail) == ring_host_head(&session->send);
}

static void
empty_ring(registration *session)
{
    direction_enter(session->outgoing);
    driver_move(session->outgoing);
    direction_leave(session->outgoing);
}

/* True if something came. */
static bool
spin(const registration *session)
{
    int64_t limit = os_now() + SPIN;
    while (is_empty(session))
    {
        if (os_now() > limit)
            return false;
        /* The driver yields here, which in the kernel takes no system call. */
        os_relax();
    }
    return true;
}

static void
note_stranded(registration *session, int64_t seen)
{
    uint64_t microseconds = (uint64_t)(os_now() - seen) / 1000;
    direction_enter(session->outgoing);
    session->counters->missed_wakes++;
    if (microseconds > session->counters->longest_stranded)
        session->counters->longest_stranded = microseconds;
    direction_leave(session->outgoing);
}

/* Until the client sets the event; false when the session ends. The driver would lie there without looking: this one
 * looks each millisecond, only to know whether there is a packet that it was not woken for. */
static bool
sleep_until_woken(registration *session)
{
    const HANDLE events[] = {session->disconnected, session->send_event};
    session->counters->sleeps++;
    int64_t seen = 0;
    DWORD result;
    while ((result = WaitForMultipleObjects(2, events, FALSE, 1)) == WAIT_TIMEOUT)
        if (seen == 0 && !is_empty(session))
            seen = os_now();
    /* Within a millisecond its sender may just have been on the way to the event. */
    if (seen != 0 && os_now() - seen > MILLISECOND)
        note_stranded(session, seen);
    return result == WAIT_OBJECT_0 + 1;
}

static void
serve(registration *session)
{
    _Atomic int32_t *alertable = &session->send.ring->alertable;
    bool connected = true;
    while (connected)
    {
        empty_ring(session);
        if (is_gone(session))
            return;
        if (spin(session))
            continue;
        /* With a full barrier after it, as in current drivers. */
        atomic_exchange(alertable, 1);
        if (is_empty(session))
        {
            connected = sleep_until_woken(session);
            atomic_exchange(alertable, 0);
        }
        else
        {
            atomic_exchange(alertable, 0);
            ResetEvent(session->send_event);
        }
    }
}

/* The near end's SetEvent() moves packets; only room that the far end makes goes unreported. */
static void
retry(registration *session)
{
    const HANDLE events[] = {session->disconnected, session->stalled};
    while (WaitForMultipleObjects(2, events, FALSE, INFINITE) == WAIT_OBJECT_0 + 1 &&
           WaitForSingleObject(session->disconnected, 1) == WAIT_TIMEOUT)
    {
        empty_ring(session);
    }
}

DWORD WINAPI
driver_thread(void *session)
{
    if (((registration *)session)->outgoing->service == SERVED_BY_CABLE)
        retry(session);
    else
        serve(session);
    return 0;
}
