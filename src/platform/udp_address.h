/* SPDX-License-Identifier: MIT
 *
 * Endpoints as the system's socket addresses and control messages have them: for udp_linux.c and udp_windows.c, which
 * include the system's socket headers first.
 */
#ifndef TUNRING_UDP_ADDRESS_H
#define TUNRING_UDP_ADDRESS_H

#include "platform/udp.h"

#include <string.h>

#define ECN_MASK 3

typedef union udp_address
{
    struct sockaddr generic;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
} udp_address;

static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static inline void
map_ipv4(uint8_t *host, const struct in_addr *address)
{
    memcpy(host, mapped_prefix, sizeof(mapped_prefix));
    memcpy(host + sizeof(mapped_prefix), address, sizeof(*address));
}

static inline struct in_addr
unmap_ipv4(const uint8_t *host)
{
    struct in_addr address;
    memcpy(&address, host + sizeof(mapped_prefix), sizeof(address));
    return address;
}

static inline void
read_endpoint(const udp_address *address, tunring_endpoint *from)
{
    if (address->generic.sa_family == AF_INET)
    {
        map_ipv4(from->host, &address->v4.sin_addr);
        from->port = ntohs(address->v4.sin_port);
        return;
    }
    memcpy(from->host, &address->v6.sin6_addr, sizeof(from->host));
    from->port = ntohs(address->v6.sin6_port);
    if (IN6_IS_ADDR_LINKLOCAL(&address->v6.sin6_addr))
        from->scope = address->v6.sin6_scope_id;
}

/* Reads the address that a datagram came to. */
static inline void
read_local_ipv6(const void *data, tunring_endpoint *from)
{
    struct in6_pktinfo info;
    memcpy(&info, data, sizeof(info));
    memcpy(from->local, &info.ipi6_addr, sizeof(from->local));
    if (IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr))
        from->local_scope = info.ipi6_ifindex;
}

/* Returns the address's size. */
static inline int
write_receiver(const tunring_endpoint *to, bool ipv6, udp_address *address)
{
    if (!ipv6)
    {
        address->v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(to->port)};
        address->v4.sin_addr = unmap_ipv4(to->host);
        return sizeof(address->v4);
    }
    address->v6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(to->port)};
    address->v6.sin6_scope_id = to->scope;
    memcpy(&address->v6.sin6_addr, to->host, sizeof(to->host));
    return sizeof(address->v6);
}

/* The address that a datagram leaves from. An interface is set for link-local addresses only: it would override the
 * routes of others. */
static inline struct in6_pktinfo
local_ipv6(const tunring_endpoint *to)
{
    struct in6_pktinfo info = {.ipi6_ifindex = to->local_scope};
    memcpy(&info.ipi6_addr, to->local, sizeof(to->local));
    return info;
}

#endif
