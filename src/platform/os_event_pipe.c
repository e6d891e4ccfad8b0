/* SPDX-License-Identifier: MIT
 *
 * os_event where there is no eventfd: a pipe that holds a byte or not.
 */
#include "platform/os.h"

#include <fcntl.h>
#include <unistd.h>

/* Not every system has pipe2(). The caller holds forks off, so no program inherits the ends meanwhile. */
bool
os_pipe(int ends[2])
{
    if (pipe(ends) != 0)
        return false;
    for (int i = 0; i < 2; i++)
    {
        fcntl(ends[i], F_SETFD, FD_CLOEXEC);
        fcntl(ends[i], F_SETFL, O_NONBLOCK);
    }
    return os_pipe_move(ends);
}

const char *const os_event_refusal = "Opening an event by pipe() failed";

bool
os_event_open(os_event *event)
{
    os_fork_hold();
    int ends[2];
    const bool made = os_pipe(ends);
    const int read_fd = made ? os_fd_register(ends[0]) : -1;
    const int write_fd = made ? os_fd_register(ends[1]) : -1;
    os_fork_release();
    if (read_fd < 0 || write_fd < 0)
    {
        SetLastError(os_error_from_errno(errno));
        os_fd_close(read_fd);
        os_fd_close(write_fd);
        return false;
    }
    event->wait = (HANDLE)(intptr_t)read_fd;
    event->write_fd = write_fd;
    return true;
}

void
os_event_close(os_event *event)
{
    os_fd_close((int)(intptr_t)event->wait);
    os_fd_close(event->write_fd);
}

void
os_event_set(os_event *event)
{
    int last_error = errno;
    /* Fails only when the pipe is full, so that the event is set anyway. */
    ssize_t written = write(event->write_fd, "", 1);
    (void)written;
    errno = last_error;
}

void
os_event_clear(os_event *event)
{
    int last_error = errno;
    char bytes[64];
    while (read((int)(intptr_t)event->wait, bytes, sizeof(bytes)) > 0)
        continue;
    errno = last_error;
}
