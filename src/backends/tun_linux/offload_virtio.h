/* SPDX-License-Identifier: MIT
 *
 * The header of virtio-net in front of each packet that is read from or written to a TUN descriptor with IFF_VNET_HDR:
 * the legacy one of 10 bytes, in this machine's byte order.
 */
#ifndef TUNRING_OFFLOAD_VIRTIO_H
#define TUNRING_OFFLOAD_VIRTIO_H

#include "wintun.h"

#include <stdint.h>

typedef struct virtio_header
{
    uint8_t flags;
    uint8_t gso_type;
    uint16_t header_length;   /* a hint */
    uint16_t gso_size;        /* payload bytes of each segment but the last */
    uint16_t checksum_start;  /* offset in the packet from which on the checksum is to be taken */
    uint16_t checksum_offset; /* its place, from there; it already holds the sum of the pseudo-header */
} virtio_header;

WINTUN_ASSERT(sizeof(virtio_header) == 10, "no padding");

/* Bytes of a header that is padded, at most: other programs may have asked for more than the legacy one. */
#define VIRTIO_MAX_HEADER 64u

/* flags */
#define VIRTIO_NEEDS_CHECKSUM 0x01u

/* gso_type */
#define VIRTIO_GSO_NONE 0x00u
#define VIRTIO_GSO_TCP4 0x01u
#define VIRTIO_GSO_TCP6 0x04u
#define VIRTIO_GSO_UDP 0x05u /* datagrams of equal size: "UDP_L4" */
#define VIRTIO_GSO_ECN 0x80u /* beside a TCP type: CWR is set, and belongs to the first segment */

#endif
