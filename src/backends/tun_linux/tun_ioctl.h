/* SPDX-License-Identifier: MIT
 *
 * ioctl() with the type that each C library has for its request: glibc takes an unsigned long, musl and bionic take an
 * int, which the numbers of requests that return something don't fit.
 */
#ifndef TUNRING_TUN_IOCTL_H
#define TUNRING_TUN_IOCTL_H

#include <sys/ioctl.h>

#if defined(__GLIBC__)
typedef unsigned long ioctl_request;
#else
typedef int ioctl_request;
#endif

/* For requests that take an address. */
static inline int
tun_ioctl(int fd, unsigned long request, void *argument)
{
    return ioctl(fd, (ioctl_request)request, argument);
}

/* For requests that take a number. */
static inline int
tun_ioctl_value(int fd, unsigned long request, unsigned long value)
{
    return ioctl(fd, (ioctl_request)request, value);
}

#endif
