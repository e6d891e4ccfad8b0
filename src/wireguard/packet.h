/* SPDX-License-Identifier: MIT
 *
 * The packet inside a data message: its own length, and its congestion bits.
 */
#ifndef TUNRING_WIREGUARD_PACKET_H
#define TUNRING_WIREGUARD_PACKET_H

#include "tunring_packet.h"

#define ECN_MASK 3u
#define ECN_ECT0 2u
#define ECN_CE 3u

/* Bytes that the IP header claims; 0 if it is not a whole packet. */
static inline uint32_t
packet_length(const BYTE *packet, uint32_t length)
{
    if (!tunring_packet_is_ip(packet, length))
        return 0;
    const bool ipv4 = packet[0] >> 4 == 4;
    const uint32_t claimed = ipv4 ? (uint32_t)packet[2] << 8 | packet[3] : ((uint32_t)packet[4] << 8 | packet[5]) + 40;
    return claimed >= 20 && claimed <= length ? claimed : 0;
}

static inline uint8_t
packet_ecn(const BYTE *packet)
{
    return (packet[0] >> 4 == 4 ? packet[1] : packet[1] >> 4) & ECN_MASK;
}

/* The bits of the datagram that carries the packet: congestion that the packet has met is not the datagram's. */
static inline uint8_t
packet_outer_ecn(const BYTE *packet)
{
    const uint8_t ecn = packet_ecn(packet);
    return ecn == ECN_CE ? ECN_ECT0 : ecn;
}

/* The datagram met congestion. Packets that can't be marked stay as they are. */
static inline void
packet_mark_congested(BYTE *packet)
{
    const uint8_t ecn = packet_ecn(packet);
    if (ecn == 0 || ecn == ECN_CE)
        return;
    if (packet[0] >> 4 == 6)
    {
        packet[1] |= ECN_CE << 4;
        return;
    }
    packet[1] |= ECN_CE;
    /* The sum of the header's words has grown by that much, which its complement makes up for (RFC 1624). */
    const uint32_t sum = (uint32_t)packet[10] << 8 | packet[11];
    const uint32_t grown = (sum ^ 0xFFFFu) + (ECN_CE - ecn);
    const uint32_t folded = ((grown & 0xFFFFu) + (grown >> 16)) ^ 0xFFFFu;
    packet[10] = (BYTE)(folded >> 8);
    packet[11] = (BYTE)folded;
}

#endif
