/* SPDX-License-Identifier: MIT
 *
 * The calls that need rtnetlink. `control` is a bound or unbound NETLINK_ROUTE socket that nobody
 * else reads from.
 */
#ifndef TUNRING_TUN_NETLINK_H
#define TUNRING_TUN_NETLINK_H

#include "wintun.h"

#include <stdbool.h>

/* Sets the interface's alias, which `ip link` shows. Returns 0 or an errno. */
int tun_netlink_set_alias(int control, DWORD index, const char *alias);

/* The kernel's answer about an interface. */
typedef struct tun_link_state
{
    uint64_t dropped; /* packets on their way into the interface's queue, since it exists */
    bool carrier;
    unsigned queues; /* that are attached; 0 if it doesn't report them (before Linux 4.16) */
} tun_link_state;

/* False if the interface is gone or the question is refused. */
bool tun_netlink_read(int control, DWORD index, tun_link_state *state);

#endif
