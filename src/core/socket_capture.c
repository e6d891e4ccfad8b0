/* SPDX-License-Identifier: MIT
 *
 * Captures of a socket. The system keeps the headers of datagrams to itself, so they are made anew from the endpoint:
 * addresses, ports and ECN bits are those of the packet, its lifetime is not.
 */
#include "core/socket.h"

#include "packet/checksum.h"

#define UDP_HEADER 8u
#define IPV4_HEADER 20u
#define IPV6_HEADER 40u
#define IP_PROTOCOL_UDP 17u
#define LIFETIME 64u
#define DONT_FRAGMENT 0x40u

typedef struct end
{
    const uint8_t *host; /* as in an endpoint */
    uint16_t port;
} end;

/* Where the host's bytes are in an endpoint, for that version of IP. All zero for one that is not of it, say a socket's
 * of IPv6 that sends to IPv4. */
static const uint8_t *
address(const uint8_t *host, bool ipv4)
{
    static const uint8_t unspecified[16];
    if (!ipv4)
        return host;
    return tunring_endpoint_is_ipv4(host) ? host + 12 : unspecified;
}

static uint32_t
write_ipv4(BYTE *at, uint32_t payload, uint8_t ds)
{
    memset(at, 0, IPV4_HEADER - 8);
    at[0] = 0x45;
    at[1] = ds;
    packet_put16(at + 2, IPV4_HEADER + payload);
    at[6] = DONT_FRAGMENT;
    at[8] = LIFETIME;
    at[9] = IP_PROTOCOL_UDP;
    return IPV4_HEADER;
}

static uint32_t
write_ipv6(BYTE *at, uint32_t payload, uint8_t ds)
{
    memset(at, 0, 8);
    at[0] = (BYTE)(0x60 | ds >> 4);
    at[1] = (BYTE)(ds << 4);
    packet_put16(at + 4, payload);
    at[6] = IP_PROTOCOL_UDP;
    at[7] = LIFETIME;
    return IPV6_HEADER;
}

static uint32_t
write_headers(BYTE *at, end from, end to, bool ipv4, uint8_t ds, const BYTE *data, uint32_t length)
{
    const uint32_t payload = UDP_HEADER + length;
    const uint32_t before = ipv4 ? write_ipv4(at, payload, ds) : write_ipv6(at, payload, ds);
    const uint32_t size = ipv4 ? 4 : 16;
    BYTE *addresses = at + before - 2 * size;
    BYTE *udp = at + before;
    memcpy(addresses, address(from.host, ipv4), size);
    memcpy(addresses + size, address(to.host, ipv4), size);
    if (ipv4)
        packet_store_word(at + 10, (uint16_t)~packet_fold(packet_sum(at, IPV4_HEADER, 0)));
    packet_put16(udp, from.port);
    packet_put16(udp + 2, to.port);
    packet_put16(udp + 4, payload);
    packet_put16(udp + 6, 0);
    uint64_t sum = packet_sum(addresses, 2 * size, (uint64_t)packet_word(IP_PROTOCOL_UDP) + packet_word(payload));
    sum = packet_sum(data, length, packet_sum(udp, UDP_HEADER, sum));
    /* 0 would mean: without a checksum. */
    const uint16_t complete = (uint16_t)~packet_fold(sum);
    packet_store_word(udp + 6, complete ? complete : 0xFFFF);
    return before + UDP_HEADER;
}

/* The socket's end of a datagram's way. */
static end
own_end(const tunring_socket *self, const tunring_endpoint *peer, bool local)
{
    return (end){.host = local ? peer->local : self->own.host, .port = self->own.port};
}

static end
peer_end(const tunring_endpoint *peer)
{
    return (end){.host = peer->host, .port = peer->port};
}

/* ---- Received ---- */

typedef struct arrivals
{
    const tunring_socket *socket;
    const tunring_origins *origins;
    uint32_t origin; /* of the packet that was asked for last */
} arrivals;

static uint32_t
received_headers(void *context, uint32_t index, const BYTE *data, uint32_t length, BYTE *at)
{
    arrivals *self = context;
    const tunring_origins *origins = self->origins;
    while (self->origin + 1 < origins->count && origins->list[self->origin + 1].first <= index)
        self->origin++;
    const tunring_origin *origin = &origins->list[self->origin];
    const tunring_endpoint *peer = &origin->from;
    const end here = own_end(self->socket, peer, tunring_endpoint_has_local(peer));
    return write_headers(at, peer_end(peer), here, tunring_endpoint_is_ipv4(peer->host), origin->ecn, data, length);
}

void
socket_capture_received(tunring_source *source, const tunring_lease *lease, tunring_captured *packets)
{
    arrivals context = {.socket = socket_of(source), .origins = lease->origins};
    packets->headers = received_headers;
    packets->context = &context;
    session_capture_write(&source->capture, TUNRING_RECEIVED, os_wall_clock(), packets);
}

/* ---- Sent ---- */

typedef struct departures
{
    const tunring_socket *socket;
    const udp_run *run;
} departures;

static uint32_t
sent_headers(void *context, uint32_t index, const BYTE *data, uint32_t length, BYTE *at)
{
    const departures *self = context;
    const tunring_endpoint *peer = self->run->to;
    (void)index;
    const end here = own_end(self->socket, peer, self->run->from_local);
    const uint8_t ds = (uint8_t)(self->run->dscp << 2 | self->run->ecn);
    return write_headers(at, here, peer_end(peer), tunring_endpoint_is_ipv4(peer->host), ds, data, length);
}

void
socket_capture_sent(tunring_socket *self, const udp_run *run, int64_t time)
{
    departures context = {.socket = self, .run = run};
    const tunring_captured packets = {
        .packets = run->packets,
        .count = run->count,
        .headers = sent_headers,
        .context = &context,
    };
    session_capture_write(&self->source.capture, TUNRING_SENT, time, &packets);
}
