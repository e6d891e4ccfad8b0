/* SPDX-License-Identifier: MIT
 *
 * wait.h for POSIX: poll(). Our libraries' read events are level-triggered, so there is nothing to rearm.
 */
#include "platform/wait.h"

#include <poll.h>
#include <time.h>

const int64_t wait_brief = 20000000;

/* Nanoseconds of one poll(), which holds on to the files that it was called with: whether a program has closed their
 * descriptors meanwhile shows at the next one. */
#define SLICE 1000000000

static int
poll_until(struct pollfd *polls, unsigned count, int64_t deadline)
{
    int64_t left = deadline - os_now();
    if (left < 0)
        left = 0;
    if (left > SLICE)
        left = SLICE;
#if defined(__linux__)
    struct timespec span = {.tv_sec = (time_t)(left / 1000000000), .tv_nsec = (long)(left % 1000000000)};
    return ppoll(polls, count, &span, NULL);
#else
    return poll(polls, (nfds_t)count, (int)(left / 1000000 + (left % 1000000 != 0)));
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

/* True, with the last error, if the number of a handle of ours is another file's by now: it may never be ready. */
static bool
is_any_lost(const struct pollfd *polls, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
    {
        if (polls[i].fd < 0 || !os_fd_is_lost(polls[i].fd))
            continue;
        SetLastError(ERROR_INVALID_HANDLE);
        return true;
    }
    return false;
}

int
wait_once(const HANDLE *handles, unsigned count, int64_t deadline)
{
    struct pollfd polls[WAIT_MAX];
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
    return os_now() < deadline && is_any_lost(polls, count) ? WAIT_BROKEN : WAIT_NOTHING;
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
