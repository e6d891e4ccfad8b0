/* SPDX-License-Identifier: MIT
 *
 * Completing and changing packets in place: packet/complete.c.
 *
 * A packet is left alone where it ends before its headers do, where its length fields contradict each other, and, but
 * for the IPv4 header, where it is a fragment or has a source route that is not at its end: their sum is not known.
 */
#ifndef TUNRING_PACKETS_H
#define TUNRING_PACKETS_H

#include "tunring_packet.h"

/* Writes the checksums of the IPv4 header and of TCP, UDP, ICMP and ICMPv6. True if none of them is left alone. */
bool tunring_fill_checksums(BYTE *packet, uint32_t length);

/* Lowers the maximum segment size that a TCP segment with SYN announces, and its checksum. True if it was larger. */
bool tunring_clamp_mss(BYTE *packet, uint32_t length, uint32_t ip4_mss, uint32_t ip6_mss);

/* The same for several, in writable memory; these return the number of packets for which it is true. */
uint32_t tunring_packets_fill_checksums(const tunring_packet *packets, uint32_t count);
uint32_t tunring_packets_clamp_mss(const tunring_packet *packets, uint32_t count, uint32_t ip4_mss, uint32_t ip6_mss);

#endif
