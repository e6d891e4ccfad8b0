/* SPDX-License-Identifier: MIT
 *
 * A packet in memory that somebody else keeps, and the test for packets that hosts accept.
 */
#ifndef TUNRING_PACKET_H
#define TUNRING_PACKET_H

#include "wintun.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct tunring_packet
{
    const BYTE *data;
    uint32_t length;
} tunring_packet;

/* True for what hosts and drivers let through: IPv4 of at least 20 bytes, IPv6 of at least 40, by the first nibble. */
static inline bool
tunring_packet_is_ip(const BYTE *packet, uint32_t length)
{
    if (length < 20)
        return false;
    const unsigned version = packet[0] >> 4;
    return version == 4 || (version == 6 && length >= 40);
}

#endif
