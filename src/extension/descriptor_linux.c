/* SPDX-License-Identifier: MIT
 *
 * descriptor.h for Linux.
 */
#include "extension/descriptor.h"

#include "platform/os.h"

#include <fcntl.h>
#include <sys/socket.h>

static int
or_failure(int descriptor)
{
    return descriptor < 0 ? -errno : descriptor;
}

int
descriptor_socket(int family, int kind, int protocol)
{
    return or_failure(OS_FD(socket(family, kind | SOCK_CLOEXEC, protocol)));
}

int
descriptor_accept(int listening)
{
    return or_failure(OS_FD(accept4(listening, NULL, NULL, SOCK_CLOEXEC)));
}

int
descriptor_open(const char *path)
{
    return or_failure(OS_FD(open(path, O_RDONLY | O_CLOEXEC)));
}

void
descriptor_close(int descriptor)
{
    os_fd_close(descriptor);
}
