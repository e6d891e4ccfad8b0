/* SPDX-License-Identifier: MIT
 *
 * Send: a run of packets becomes groups, each of which is one write: a packet as it is, or a superpacket that the
 * kernel splits again into the same packets. The one difference that can be seen afterwards is the IPv4 identification
 * of packets that must not be fragmented, which has no meaning.
 *
 * Only what is proven intact is merged, as the kernel computes the checksums of a superpacket anew: a packet with a
 * wrong one goes out alone and stays wrong. Packets of a flow keep their order, and so does what belongs to no flow
 * (other protocols, fragments, options) relative to everything between the same two addresses.
 *
 * The packets are only read. Somebody may still write to them meanwhile; then what goes out is theirs to answer for,
 * but no lengths are taken from them twice.
 */
#ifndef TUNRING_OFFLOAD_COALESCE_H
#define TUNRING_OFFLOAD_COALESCE_H

#include "backends/tun_linux/offload_headers.h"
#include "backends/tun_linux/offload_virtio.h"
#include "tunring_packet.h"

#include <sys/uio.h>

/* The maximum number of packets in a run. */
#define OFFLOAD_RUN 256u
/* The maximum number of datagrams in a superpacket: what every kernel with USO splits. */
#define OFFLOAD_DATAGRAMS 64u
/* The largest TTL or hop limit of a datagram that is never merged: it may be a probe, as traceroute sends them, and
 * whoever answers has to quote what was sent. */
#define OFFLOAD_PROBE_HOPS 32u
/* Of IPv6 and TCP with all options; what is merged has no other extensions. */
#define OFFLOAD_MAX_HEADERS 100u

/* The offloads that the kernel takes. */
#define OFFLOAD_TSO4 1u
#define OFFLOAD_TSO6 2u
#define OFFLOAD_USO 4u
/* Beside them: the packets' checksums are to be filled, whatever they are. */
#define OFFLOAD_FILL 8u

typedef struct offload_group
{
    offload_headers headers; /* of its first packet; zeros if that belongs to no flow */
    bool open;               /* may still grow */
    bool verified;           /* the first packet's checksums are right */
    uint16_t first;          /* index of its first packet in the run */
    uint16_t last;
    uint16_t count;
    uint8_t flags;     /* TCP's, of the superpacket */
    uint32_t length;   /* of the superpacket */
    uint32_t segment;  /* payload bytes of the first packet: of all but the last */
    uint32_t sequence; /* TCP's, that comes next */
} offload_group;

typedef struct offload_run
{
    const tunring_packet *packets;
    uint32_t group_count;
    offload_group groups[OFFLOAD_RUN]; /* by their first packets */
    uint16_t next[OFFLOAD_RUN];        /* the packet after this one in its group, unless it is the last */
    uint16_t flows[2 * OFFLOAD_RUN];   /* a hash table: 1 + the newest group of a flow, or 0 */
} offload_run;

WINTUN_ASSERT(2 * OFFLOAD_RUN == 512, "flows are found by 9 bits");

/* The parts of one write. */
typedef struct offload_frame
{
    BYTE head[sizeof(virtio_header) + OFFLOAD_MAX_HEADERS]; /* the virtio header, then those of a superpacket */
    struct iovec pieces[1 + OFFLOAD_RUN];
    uint32_t count; /* of pieces */
} offload_frame;

/* Groups `count` packets, at most OFFLOAD_RUN, which have to stay where they are. `offloads` are OFFLOAD_ flags;
 * without one that the kernel takes, each packet is a group of its own. */
void offload_coalesce(offload_run *run, const tunring_packet *packets, uint32_t count, unsigned offloads);

/* Puts a group together. The frame points into itself and to the packets. */
void offload_group_frame(const offload_run *run, const offload_group *group, offload_frame *frame);

/* The same for one packet as it is: also for each of a superpacket that the kernel refused. */
void offload_packet_frame(const tunring_packet *packet, offload_frame *frame);

/* The same for a packet whose checksum the kernel is to compute. False if it can't: then nothing is written. */
bool offload_filled_frame(const tunring_packet *packet, offload_frame *frame);

#endif
