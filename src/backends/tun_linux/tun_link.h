/* SPDX-License-Identifier: MIT
 *
 * An interface's link and its queue, by ioctl. `control` is a socket in the interface's namespace.
 */
#ifndef TUNRING_TUN_LINK_H
#define TUNRING_TUN_LINK_H

#include "wintun.h"

#include <net/if.h>
#include <stdbool.h>

struct ifreq tun_link_request(const char *name);

/* The interface's index, or 0 if there is no such interface. */
DWORD tun_link_index(int control, const char *name);

/* Stores the name that the interface itself has: to the kernel, it may have alternative ones as well. */
bool tun_link_own_name(int control, DWORD index, char name[IFNAMSIZ]);

/* Switches the link of the interface that `fd` is attached to, and waits until the kernel's queues have followed. */
void tun_link_set_carrier(int fd, int control, const char *name, bool up);

/* Packets that each of the interface's queues holds at most. */
int tun_link_queue_length(int control, const char *name);

/* Raises that to at least `length`. A refusal of the system is only logged: packets pass nevertheless. */
void tun_link_raise_queue_length(int control, const char *name, int length);

#endif
