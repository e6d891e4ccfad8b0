/* SPDX-License-Identifier: MIT
 *
 * Descriptors that Python code of ours uses: at least 3, not inherited by programs that are executed, and closed in a
 * forked child, whenever the fork comes. Each function returns the descriptor, or a negated errno.
 */
#ifndef TUNRING_DESCRIPTOR_H
#define TUNRING_DESCRIPTOR_H

#include <errno.h>

#if defined(__linux__)
int descriptor_socket(int family, int kind, int protocol);
/* A client of a listening socket that does not block. */
int descriptor_accept(int listening);
/* A file, to read. */
int descriptor_open(const char *path);
void descriptor_close(int descriptor);
#else
/* Never called: other systems have no tunnels, or have handles in place of descriptors. */
static inline int
descriptor_socket(int family, int kind, int protocol)
{
    (void)family, (void)kind, (void)protocol;
    return -ENOSYS;
}

static inline int
descriptor_accept(int listening)
{
    (void)listening;
    return -ENOSYS;
}

static inline int
descriptor_open(const char *path)
{
    (void)path;
    return -ENOSYS;
}

static inline void
descriptor_close(int descriptor)
{
    (void)descriptor;
}
#endif

#endif
