/* SPDX-License-Identifier: MIT
 *
 * os_event on Linux: an eventfd, whose counter is 0 or not. And its pipes, which are made in one step.
 */
#include "platform/os.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

const char *const os_event_refusal = "Opening an event by eventfd() failed";

bool
os_event_open(os_event *event)
{
    const int fd = OS_FD(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    if (fd < 0)
    {
        SetLastError(os_error_from_errno(errno));
        return false;
    }
    event->wait = (HANDLE)(intptr_t)fd;
    event->write_fd = fd;
    return true;
}

void
os_event_close(os_event *event)
{
    os_fd_close(event->write_fd);
}

void
os_event_set(os_event *event)
{
    int last_error = errno;
    uint64_t one = 1;
    /* Fails only when the counter is full, so that the event is set anyway. */
    ssize_t written = write(event->write_fd, &one, sizeof(one));
    (void)written;
    errno = last_error;
}

void
os_event_clear(os_event *event)
{
    int last_error = errno;
    uint64_t count;
    /* Fails only when the counter is 0, so that the event is clear anyway. */
    ssize_t taken = read(event->write_fd, &count, sizeof(count));
    (void)taken;
    errno = last_error;
}

bool
os_pipe(int ends[2])
{
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
        return false;
    return os_pipe_move(ends);
}
