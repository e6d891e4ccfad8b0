/* SPDX-License-Identifier: MIT
 *
 * The two questions to the kernel that need rtnetlink. `control` is a bound or unbound NETLINK_ROUTE socket that nobody
 * else reads from.
 */
#ifndef TUNRING_TUN_NETLINK_H
#define TUNRING_TUN_NETLINK_H

#include "wintun.h"

#include <stdbool.h>

/* Sets the interface's alias, which `ip link` shows. Returns 0 or an errno. */
int tun_netlink_set_alias(int control, DWORD index, const char *alias);

/* Packets that the kernel dropped on their way into the interface's queue, since it exists. */
bool tun_netlink_dropped(int control, DWORD index, uint64_t *dropped);

#endif
