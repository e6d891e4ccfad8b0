/* SPDX-License-Identifier: MIT
 *
 * Sealing packets of one peer and sending them: as many at a time as one system call takes, into a buffer that stays
 * in the processor's cache.
 */
#include "wireguard/device.h"
#include "wireguard/packet.h"

#include <stdlib.h>

/* Header, counter and tag. */
#define OVERHEAD 32u
#define PADDING 15u
/* Room for the datagrams of one run, if each were padded after its size was asked for. */
#define ROOM (UDP_MAX_PAYLOAD + UDP_MAX_RUN * (PADDING + 1))

struct transmitter
{
    tunring_slot slots[UDP_MAX_RUN];
    tunring_packet datagrams[UDP_MAX_RUN];
    uint8_t ecn[UDP_MAX_RUN];
    BYTE buffer[ROOM];
};

transmitter *
transmitter_new(void)
{
    return malloc(sizeof(transmitter));
}

void
transmitter_free(transmitter *self)
{
    free(self);
}

/* Packets up to this size leave in a datagram, with padding. */
static bool
fits(const tunring_packet *packet)
{
    return packet->length <= UDP_MAX_PAYLOAD - OVERHEAD - PADDING;
}

/* The number of the packets, which fit, that make the next run. */
static uint32_t
plan(const keypair *keys, const tunring_packet *packets, uint32_t count)
{
    uint32_t bytes = 0, planned = 0;
    while (planned < count && planned < UDP_MAX_RUN)
    {
        bytes += tunring_sealer_size(keys->sealer, packets[planned].length);
        if (planned && bytes > UDP_MAX_PAYLOAD)
            break;
        planned++;
    }
    return planned;
}

static DWORD
seal(transmitter *self, const keypair *keys, const tunring_packet *packets, uint32_t count)
{
    tunring_sealing call;
    DWORD code = tunring_seal_begin(keys->sealer, count, &call);
    if (code != ERROR_SUCCESS)
        return code;
    code = tunring_seal(&call, packets, count, self->buffer, self->slots);
    tunring_seal_end(&call);
    return code;
}

/* Sends what was sealed. Returns the bytes that the system accepted. */
static uint64_t
send_sealed(tunring_wireguard *device, transmitter *self, tunring_socket *socket, const tunring_endpoint *to,
            const tunring_packet *packets, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
    {
        self->datagrams[i] = (tunring_packet){.data = self->slots[i].data, .length = self->slots[i].length};
        self->ecn[i] = packets[i].length ? packet_outer_ecn(packets[i].data) : 0;
    }
    const tunring_sending what = {.packets = self->datagrams, .count = count, .endpoints = to, .ecn = self->ecn};
    return device_send(device, socket, &what).bytes;
}

/* True if a new handshake is due. */
static bool
is_old(const keypair *keys, const tunring_wireguard_limits *limits, int64_t now)
{
    return tunring_sealer_counter(keys->sealer) >= limits->rekey_messages ||
           (keys->initiator && now - keys->born >= limits->rekey_after);
}

static bool
has_data(const tunring_packet *packets, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (packets[i].length)
            return true;
    return false;
}

bool
transmit(tunring_wireguard_peer *peer, transmitter *self, keypair *keys, const tunring_endpoint *to,
         const tunring_packet *packets, uint32_t count)
{
    tunring_wireguard *device = peer->device;
    const tunring_wireguard_limits limits = device_limits(device);
    const int64_t now = os_boottime();
    tunring_socket *socket = device_socket(device);
    tunring_sealer_set_pad_limit(keys->sealer, atomic_load(&device->mtu));
    uint32_t done = 0;
    while (done < count && keypair_may_send(keys, &limits, now))
    {
        const uint32_t some = plan(keys, packets + done, count - done);
        if (seal(self, keys, packets + done, some) != ERROR_SUCCESS)
            break;
        /* Before they go: an answer may come before the system call returns. */
        peer_note_sent(peer, now, has_data(packets + done, some));
        peer_count_sent(peer, send_sealed(device, self, socket, to, packets + done, some));
        done += some;
    }
    device_put_socket(socket);
    if (done < count || is_old(keys, &limits, now))
        peer_want_handshake(peer, now);
    return done == count;
}

/* The current key, if it may be used, with one more user; and where to. NULL without either. The peer's lock is
 * held. */
static keypair *
usable(tunring_wireguard_peer *peer, const tunring_wireguard_limits *limits, tunring_endpoint *to)
{
    keypair *keys = peer->current;
    if (!keys || !peer->endpoint.port || !keypair_may_send(keys, limits, os_boottime()))
        return NULL;
    keypair_use(keys);
    *to = peer->endpoint;
    return keys;
}

static void
transmit_staged(tunring_wireguard_peer *peer, transmitter *self, keypair *keys, const tunring_endpoint *to,
                staged_packet **staged, uint32_t count)
{
    tunring_packet packets[TUNRING_WIREGUARD_STAGED];
    for (uint32_t i = 0; i < count; i++)
        packets[i] = (tunring_packet){.data = staged[i]->data, .length = staged[i]->length};
    transmit(peer, self, keys, to, packets, count);
    staged_free(peer->device, staged, count);
}

/* Leaves out what no datagram has room for. Returns how many are left. */
static uint32_t
keep_fitting(tunring_wireguard *device, const tunring_packet *packets, uint32_t count, tunring_packet *kept)
{
    uint32_t left = 0;
    for (uint32_t i = 0; i < count; i++)
        if (fits(&packets[i]))
            kept[left++] = packets[i];
    if (left < count)
        atomic_fetch_add_explicit(&device->counts.no_peer, count - left, memory_order_relaxed);
    return left;
}

void
transmit_or_stage(tunring_wireguard_peer *peer, transmitter *self, const tunring_packet *packets, uint32_t count)
{
    tunring_packet kept[TRANSMIT_MAX];
    const uint32_t left = keep_fitting(peer->device, packets, count, kept);
    const tunring_wireguard_limits limits = device_limits(peer->device);
    staged_packet *staged[TUNRING_WIREGUARD_STAGED];
    uint32_t waiting = 0;
    tunring_endpoint to;
    os_mutex_lock(&peer->lock);
    keypair *keys = usable(peer, &limits, &to);
    if (keys)
        waiting = peer_unstage(peer, staged);
    else if (!peer->removed)
        peer_stage(peer, kept, left);
    os_mutex_unlock(&peer->lock);
    if (!keys)
    {
        peer_want_handshake(peer, os_boottime());
        return;
    }
    if (waiting)
        transmit_staged(peer, self, keys, &to, staged, waiting);
    if (left)
        transmit(peer, self, keys, &to, kept, left);
    keypair_put(keys);
}

void
peer_send_staged(tunring_wireguard_peer *peer)
{
    transmitter *self = transmitter_new();
    if (!self)
        return;
    if (atomic_load(&peer->staged_count))
        transmit_or_stage(peer, self, NULL, 0);
    transmitter_free(self);
}

DWORD
tunring_wireguard_peer_keepalive(tunring_wireguard_peer *peer, bool *sent)
{
    *sent = false;
    if (!peer_enter(peer))
        return ERROR_HANDLE_EOF;
    const tunring_wireguard_limits limits = device_limits(peer->device);
    transmitter *self = transmitter_new();
    tunring_endpoint to;
    os_mutex_lock(&peer->lock);
    keypair *keys = self ? usable(peer, &limits, &to) : NULL;
    os_mutex_unlock(&peer->lock);
    if (keys)
    {
        const tunring_packet empty = {0};
        *sent = transmit(peer, self, keys, &to, &empty, 1);
        keypair_put(keys);
    }
    transmitter_free(self);
    device_leave(peer->device);
    return self ? ERROR_SUCCESS : ERROR_NOT_ENOUGH_MEMORY;
}

DWORD
tunring_wireguard_peer_send(tunring_wireguard_peer *peer, const BYTE *data, uint32_t size, bool *sent)
{
    *sent = false;
    tunring_endpoint to;
    DWORD code = tunring_wireguard_peer_endpoint(peer, &to);
    if (code != ERROR_SUCCESS || !to.port)
        return code;
    peer_note_sent(peer, os_boottime(), false);
    code = tunring_wireguard_send_to(peer->device, data, size, &to, sent);
    if (*sent)
        peer_count_sent(peer, size);
    return code;
}
