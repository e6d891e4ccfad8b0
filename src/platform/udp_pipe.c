/* SPDX-License-Identifier: MIT
 *
 * udp.h for systems on which tunring has no UDP sockets yet: none can be opened, so nothing else is ever reached.
 */
#include "platform/udp.h"

udp_handle
udp_adopt(uintptr_t handle)
{
    (void)handle;
    SetLastError(ERROR_NOT_SUPPORTED);
    return UDP_NONE;
}

void
udp_close(udp_handle socket)
{
    (void)socket;
}

void
udp_set_option(udp_handle socket, int level, int name, int value)
{
    (void)socket, (void)level, (void)name, (void)value;
}

int
udp_receive(udp_handle socket, BYTE *room, uint32_t size, udp_received *received)
{
    (void)socket, (void)room, (void)size, (void)received;
    return ENOSYS;
}

int
udp_send(udp_handle socket, bool ipv6, const udp_run *run)
{
    (void)socket, (void)ipv6, (void)run;
    return ENOSYS;
}

#define NEVER(name)      \
    bool name(int error) \
    {                    \
        (void)error;     \
        return false;    \
    }
NEVER(udp_would_block)
NEVER(udp_no_route)
NEVER(udp_too_large)
NEVER(udp_bad_source)
NEVER(udp_run_refused)
NEVER(udp_no_offload)
NEVER(udp_from_peer)
NEVER(udp_own_error)

DWORD
udp_error_code(int error)
{
    return os_error_from_errno(error);
}

int
udp_take_error(udp_handle socket)
{
    (void)socket;
    return 0;
}

void
udp_own_address(udp_handle socket, tunring_endpoint *own)
{
    (void)socket, (void)own;
}

uint32_t
udp_mark(udp_handle socket)
{
    (void)socket;
    return 0;
}

int
udp_set_mark(udp_handle socket, uint32_t mark)
{
    (void)socket, (void)mark;
    return ENOSYS;
}

bool
udp_drops(udp_handle socket, uint64_t *dropped)
{
    (void)socket, (void)dropped;
    return false;
}

bool
udp_events_open(udp_events *events, udp_handle socket)
{
    (void)events, (void)socket;
    SetLastError(ERROR_NOT_SUPPORTED);
    return false;
}

void
udp_events_close(udp_events *events)
{
    (void)events;
}

void
udp_events_signal(udp_events *events, bool on)
{
    (void)events, (void)on;
}

void
udp_events_watch(udp_events *events, udp_handle socket, bool datagrams)
{
    (void)events, (void)socket, (void)datagrams;
}
