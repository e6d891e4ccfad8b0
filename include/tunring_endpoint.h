/* SPDX-License-Identifier: MIT
 *
 * The far end of a datagram.
 */
#ifndef TUNRING_ENDPOINT_H
#define TUNRING_ENDPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* `host`, `scope` and `port` are its identity; `local` and `local_scope` are the address that a reply should leave
 * from. */
typedef struct tunring_endpoint
{
    uint8_t host[16]; /* in network order; IPv4 as ::ffff:a.b.c.d */
    uint32_t scope;   /* the interface's index, for link-local hosts; otherwise 0 */
    uint16_t port;
    uint16_t zero;        /* so that the identity is one block of memory */
    uint8_t local[16];    /* as `host`; all zero: unknown */
    uint32_t local_scope; /* as `scope` */
} tunring_endpoint;

#define TUNRING_ENDPOINT_IDENTITY offsetof(tunring_endpoint, local)

static inline bool
tunring_endpoint_same(const tunring_endpoint *left, const tunring_endpoint *right)
{
    return memcmp(left, right, TUNRING_ENDPOINT_IDENTITY) == 0;
}

static inline bool
tunring_endpoint_is_ipv4(const uint8_t *host)
{
    static const uint8_t prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    return memcmp(host, prefix, sizeof(prefix)) == 0;
}

static inline bool
tunring_endpoint_has_local(const tunring_endpoint *endpoint)
{
    static const uint8_t none[16];
    return memcmp(endpoint->local, none, sizeof(none)) != 0;
}

#endif
