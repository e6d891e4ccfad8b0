/* SPDX-License-Identifier: MIT
 *
 * wait.h for POSIX: poll(). Our libraries' read events are level-triggered, so there is nothing to rearm.
 */
#include "platform/wait.h"

#include <poll.h>
#include <time.h>

const int64_t wait_brief = 20000000;

static int
poll_until(struct pollfd *polls, unsigned count, int64_t deadline)
{
    int64_t left = deadline - os_now();
    if (left < 0)
        left = 0;
#if defined(__linux__)
    struct timespec span = {.tv_sec = (time_t)(left / 1000000000), .tv_nsec = (long)(left % 1000000000)};
    return ppoll(polls, count, deadline == OS_FOREVER ? NULL : &span, NULL);
#else
    int64_t milliseconds = left / 1000000 + (left % 1000000 != 0);
    if (milliseconds > INT32_MAX)
        milliseconds = INT32_MAX;
    return poll(polls, (nfds_t)count, deadline == OS_FOREVER ? -1 : (int)milliseconds);
#endif
}

/* False, with the last error, for a descriptor that somebody else has closed. */
static bool
still_open(const struct pollfd *polled)
{
    if (!(polled->revents & POLLNVAL))
        return true;
    SetLastError(ERROR_INVALID_HANDLE);
    return false;
}

int
wait_once(const HANDLE *handles, unsigned count, int64_t deadline)
{
    struct pollfd polls[WAIT_MOST];
    /* poll() passes over negative descriptors. */
    for (unsigned i = 0; i < count; i++)
        polls[i] = (struct pollfd){.fd = handles[i] ? (int)(intptr_t)handles[i] : -1, .events = POLLIN};
    const int ready = poll_until(polls, count, deadline);
    if (ready < 0 && errno != EINTR && errno != EAGAIN)
    {
        SetLastError(os_error_from_errno(errno));
        return WAIT_BROKEN;
    }
    for (unsigned i = 0; ready > 0 && i < count; i++)
        if (polls[i].revents)
            return still_open(&polls[i]) ? (int)i : WAIT_BROKEN;
    return WAIT_NOTHING;
}

int
wait_any(const HANDLE *handles, unsigned count, int64_t deadline)
{
    int ready;
    do
        ready = wait_once(handles, count, deadline);
    while (ready == WAIT_NOTHING && os_now() < deadline);
    return ready;
}

void
wait_rearm(HANDLE read_event)
{
    (void)read_event;
}

bool
wait_settle(HANDLE read_event)
{
    (void)read_event;
    return false;
}
