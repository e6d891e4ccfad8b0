/* SPDX-License-Identifier: MIT
 *
 * file.h for POSIX. The descriptor shares its mode with others, standard output say, so it stays as it is; instead a
 * pipe gets no more at once than it takes without waiting.
 */
#include "platform/file.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* Milliseconds that a wait for a reader takes, at most. */
#define LOOK_AGAIN 1000
/* Nanoseconds that it takes where the event that would end it is closed. */
#define BLIND_NAP 10000000

static int
descriptor(const file *self)
{
    return (int)(intptr_t)self->handle;
}

DWORD
file_open(file *self, HANDLE original)
{
    const int fd = OS_FD(fcntl((int)(intptr_t)original, F_DUPFD_CLOEXEC, 3));
    struct stat about;
    if (fd < 0 || fstat(fd, &about) < 0)
    {
        DWORD code = os_error_from_errno(errno);
        os_fd_close(fd);
        return code;
    }
    self->handle = (HANDLE)(intptr_t)fd;
    self->regular = S_ISREG(about.st_mode);
    self->socket = S_ISSOCK(about.st_mode);
    return ERROR_SUCCESS;
}

void
file_close(file *self)
{
    os_fd_close(descriptor(self));
}

static ssize_t
write_some(const file *self, const BYTE *data, size_t size)
{
    int fd = descriptor(self);
    /* A program that closes all descriptors has files of its own by their numbers. */
    if (!os_fd_is_ours(fd))
    {
        errno = EBADF;
        return -1;
    }
    if (self->regular)
        return write(fd, data, size);
    if (self->socket)
        return send(fd, data, size, MSG_DONTWAIT);
    struct pollfd ready = {.fd = fd, .events = POLLOUT};
    int polled = poll(&ready, 1, 0);
    if (polled == 0)
        errno = EAGAIN;
    if (polled <= 0) /* -1 too, as when a signal comes: whether there is room is not known then */
        return -1;
    return write(fd, data, size < PIPE_BUF ? size : PIPE_BUF);
}

int
file_write(const file *self, const BYTE *data, size_t size, size_t *written)
{
    ssize_t some;
    do
        some = write_some(self, data, size);
    while (some < 0 && errno == EINTR);
    *written = some > 0 ? (size_t)some : 0;
    if (some > 0 || size == 0)
        return 0;
    /* A device that takes nothing would be asked for ever. */
    if (some == 0)
        return EIO;
    return errno == EAGAIN || errno == EWOULDBLOCK ? FILE_FULL : errno;
}

void
file_cut(const file *self, size_t size)
{
    const bool possible = self->regular && os_fd_is_ours(descriptor(self));
    const off_t end = possible ? lseek(descriptor(self), 0, SEEK_CUR) : -1;
    struct stat about;
    /* Nothing that others have behind it. */
    if (end < (off_t)size || fstat(descriptor(self), &about) < 0 || about.st_size != end)
        return;
    if (ftruncate(descriptor(self), end - (off_t)size) == 0)
        (void)lseek(descriptor(self), end - (off_t)size, SEEK_SET);
}

void
file_wait(const file *self, const os_event *wake)
{
    struct pollfd polls[] = {
        {.fd = (int)(intptr_t)wake->wait, .events = POLLIN},
        {.fd = descriptor(self), .events = POLLOUT},
    };
    /* The caller looks again in any case: also after a second, as a poll() doesn't hear of descriptors that are closed
     * meanwhile, and at once if they are. */
    if (poll(polls, 2, LOOK_AGAIN) > 0 && polls[0].revents & POLLNVAL)
        os_sleep(BLIND_NAP);
}
