/* SPDX-License-Identifier: MIT
 *
 * Receive: what the kernel handed over with a virtio header becomes packets as they would have come without offloads,
 * each with complete checksums. A superpacket is split as the kernel's own segmentation does it.
 *
 * Nothing is allocated and the kernel's packet isn't changed, so splitting can stop after any packet and go on later.
 */
#ifndef TUNRING_OFFLOAD_SPLIT_H
#define TUNRING_OFFLOAD_SPLIT_H

#include "backends/tun_linux/offload_headers.h"
#include "backends/tun_linux/offload_virtio.h"

typedef struct offload_split
{
    const BYTE *packet; /* the caller's: a single packet, or a superpacket whose headers each segment gets */
    uint32_t length;
    uint32_t left;           /* packets that are not written yet */
    uint32_t at;             /* offset of the payload that is not written yet */
    uint32_t segment;        /* payload bytes of each packet but the last */
    offload_headers headers; /* of a superpacket; their length is 0 for a single packet */
    uint32_t sequence;       /* of the next TCP segment */
    uint16_t identification; /* of the next IPv4 packet */
    uint8_t flags;           /* TCP's, those of the next segment were it not the last */
    uint16_t network_sum;    /* of the IPv4 header, but for what differs from packet to packet */
    uint16_t transport_sum;  /* of the pseudo-header and the TCP or UDP header, likewise */
    uint32_t checksum_start; /* of a single packet: where its sum begins, `length` if it is complete; */
    uint32_t checksum_at;    /* and where it goes */
} offload_split;

/* Begins with a packet as it was read. False if the headers can't be right; there is nothing to write then. Anything
 * that is not an IP packet passes unless it has to be changed: the caller filters. */
bool offload_split_begin(offload_split *split, const virtio_header *virtio, const BYTE *packet, uint32_t length);

/* Bytes of the next packet, at most 65535; 0 when none is left. */
uint32_t offload_split_next(const offload_split *split);

/* Writes that packet, which there must be, to a place of its size outside the superpacket, and moves on. */
void offload_split_write(offload_split *split, BYTE *place);

#endif
