/* SPDX-License-Identifier: MIT
 *
 * Network namespaces: a socket, and what is opened at /dev/net/tun, belongs to the one that its maker was in.
 * Descriptors are made by OS_FD, for os_fd_close().
 */
#ifndef TUNRING_TUN_NAMESPACE_H
#define TUNRING_TUN_NAMESPACE_H

#include <stdbool.h>

/* A route socket in the calling thread's namespace, or -1 with errno. */
int tun_namespace_control(void);

/* A descriptor of the calling thread's namespace, or -1 with errno. Where there is no /proc it takes CAP_NET_ADMIN. */
int tun_namespace_here(void);

bool tun_namespace_same(int first, int second);

/* Calls a function in a namespace, in a thread of its own, and returns what it returns, or -1. */
int tun_namespace_call(int space, int (*function)(void));

#endif
