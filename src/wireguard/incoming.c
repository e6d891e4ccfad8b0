/* SPDX-License-Identifier: MIT
 *
 * The loop from the socket to the session. Nothing of a datagram is believed before its tag is: index, counter,
 * endpoint and source in this order. The loop never waits for the socket to have room: while the uplink is full, what
 * the downlink brings would be lost.
 */
#include "core/counter.h"
#include "platform/wait.h"
#include "wireguard/device.h"
#include "wireguard/packet.h"

/* A session without room for that long has trouble that waiting doesn't mend. */
#define DELIVERY_PATIENCE (NANOSECONDS / 50)

#define DATA_HEADER 16u
#define SMALLEST_DATA (DATA_HEADER + TUNRING_AEAD_TAG)

typedef enum message_type
{
    INITIATION = 1,
    RESPONSE,
    COOKIE_REPLY,
    DATA
} message_type;

/* A batch on its way. */
typedef struct incoming
{
    tunring_wireguard *device;
    tunring_socket *socket;
    tunring_wireguard_limits limits;
    int64_t now;
    const tunring_origins *origins;
    uint32_t origin; /* of the datagram that is looked at */
    tunring_datagram datagrams[DEVICE_TAKE];
    /* To deliver. */
    uint32_t count;
    tunring_packet packets[DEVICE_TAKE];
    int32_t from[DEVICE_TAKE];   /* the peer that sent it */
    int32_t owners[DEVICE_TAKE]; /* the peer that its source belongs to */
} incoming;

static void
add(_Atomic uint64_t *count, uint64_t amount)
{
    if (amount)
        atomic_fetch_add_explicit(count, amount, memory_order_relaxed);
}

static uint32_t
read_word(const BYTE *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

/* Where the datagram came from. Calls come in order. */
static const tunring_origin *
origin_of(incoming *self, uint32_t datagram)
{
    const tunring_origins *origins = self->origins;
    while (self->origin + 1 < origins->count && origins->list[self->origin + 1].first <= datagram)
        self->origin++;
    return &origins->list[self->origin];
}

static bool
is_data(const tunring_slot *slot)
{
    return slot->length >= SMALLEST_DATA && read_word(slot->data) == DATA;
}

/* ---- Data messages ---- */

/* Takes a packet out of its padding, to be delivered if its source is the peer's. */
static void
take_packet(incoming *self, const tunring_wireguard_peer *peer, const tunring_datagram *opened, bool congested)
{
    const uint32_t length = packet_length(opened->data, opened->length);
    if (!length)
    {
        add(&self->device->counts.malformed, 1);
        return;
    }
    if (congested)
        packet_mark_congested(opened->data);
    self->packets[self->count] = (tunring_packet){.data = opened->data, .length = length};
    self->from[self->count] = (int32_t)peer->number;
    self->count++;
}

/* The results of a run of datagrams under one key. */
typedef struct findings
{
    uint32_t authentic, data, rejected, replayed;
    uint64_t bytes;              /* of authentic ones */
    uint64_t newest;             /* counter */
    const tunring_origin *where; /* the newest came from */
} findings;

static void
look_at(incoming *self, const tunring_wireguard_peer *peer, uint32_t datagram, findings *found)
{
    const tunring_datagram *opened = &self->datagrams[datagram];
    const tunring_origin *origin = origin_of(self, datagram);
    if (opened->result != TUNRING_OPENED)
    {
        found->replayed += opened->result == TUNRING_REPLAYED;
        found->rejected += opened->result != TUNRING_REPLAYED;
        return;
    }
    const uint64_t counter = counter_read(opened->data - TUNRING_AEAD_COUNTER, false);
    if (!found->where || counter > found->newest)
    {
        found->newest = counter;
        found->where = origin;
    }
    found->authentic++;
    found->bytes += opened->length + SMALLEST_DATA;
    if (!opened->length)
        return;
    found->data++;
    take_packet(self, peer, opened, origin->ecn == ECN_CE);
}

/* Authentic data came. */
static void
believe(incoming *self, tunring_wireguard_peer *peer, keypair *keys, const findings *found)
{
    peer_note_received(peer, self->now, found->bytes, found->data != 0);
    peer_follow(peer, keys, found->newest, &found->where->from);
    if (peer_confirm(peer, keys))
    {
        queue_flag(peer, TUNRING_WIREGUARD_CONFIRMED);
        outgoing_flush(peer);
    }
    /* The current key is at most as old as this one: mostly, this look is enough. */
    if (self->now - keys->born >= self->limits.rekey_on_receive)
        peer_refresh_key(peer, &self->limits, self->now);
}

static void
open_run(incoming *self, tunring_wireguard_peer *peer, keypair *keys, uint32_t first, uint32_t count)
{
    device_counts *counts = &self->device->counts;
    if (!keypair_may_receive(keys, &self->limits, self->now))
    {
        add(&counts->expired, count);
        return;
    }
    tunring_opener_set_last_counter(keys->opener, self->limits.reject_messages - 1);
    uint32_t opened;
    if (tunring_open(keys->opener, &self->datagrams[first], count, &opened) != ERROR_SUCCESS)
        return;
    findings found = {0};
    for (uint32_t i = 0; i < count; i++)
        look_at(self, peer, first + i, &found);
    add(&counts->rejected, found.rejected);
    add(&counts->replayed, found.replayed);
    if (found.authentic)
        believe(self, peer, keys, &found);
}

/* Datagrams in a row for one index. */
static void
take_run(incoming *self, uint32_t first, uint32_t count)
{
    tunring_wireguard_peer *peer;
    keypair *keys = device_find_keypair(self->device, read_word(self->datagrams[first].data + 4), &peer);
    if (!keys)
    {
        add(&self->device->counts.unknown_index, count);
        return;
    }
    open_run(self, peer, keys, first, count);
    keypair_put(keys);
    peer_put(peer);
}

/* The number of datagrams from this one on that are data for its index. */
static uint32_t
run_length(const tunring_lease *lease, uint32_t first)
{
    uint32_t count = 1;
    while (first + count < lease->count && is_data(&lease->slots[first + count]) &&
           memcmp(lease->slots[first].data + 4, lease->slots[first + count].data + 4, 4) == 0)
        count++;
    return count;
}

/* ---- Batches ---- */

/* Drops what does not come from the peer's own addresses. */
static void
check_sources(incoming *self)
{
    uint32_t kept = 0;
    tunring_routes_lookup_packets(self->device->allowed, self->packets, self->count, true, self->owners);
    for (uint32_t i = 0; i < self->count; i++)
        if (self->owners[i] == self->from[i])
            self->packets[kept++] = self->packets[i];
    add(&self->device->counts.wrong_source, self->count - kept);
    self->count = kept;
}

static DWORD
deliver(incoming *self)
{
    check_sources(self);
    if (!self->count)
        return ERROR_SUCCESS;
    const tunring_wait wait = {.deadline = os_deadline(DELIVERY_PATIENCE), .interrupt = self->device->stop.wait};
    uint32_t sent;
    const DWORD code = tunring_send(self->device->session, self->packets, self->count, &wait, &sent);
    add(&self->device->counts.undelivered, self->count - sent);
    return code == WAIT_TIMEOUT || code == ERROR_OPERATION_ABORTED ? ERROR_SUCCESS : code;
}

static void
take_datagrams(incoming *self, const tunring_lease *lease)
{
    for (uint32_t i = 0; i < lease->count; i++)
        self->datagrams[i] = (tunring_datagram){.data = lease->slots[i].data, .length = lease->slots[i].length};
    for (uint32_t i = 0; i < lease->count;)
    {
        if (is_data(&lease->slots[i]))
        {
            const uint32_t run = run_length(lease, i);
            take_run(self, i, run);
            i += run;
            continue;
        }
        gate_message(self->device->gate, self->socket, lease->slots[i].data, lease->slots[i].length,
                     &origin_of(self, i)->from);
        i++;
    }
}

DWORD
device_take(tunring_wireguard *device, tunring_socket *socket, const tunring_lease *lease)
{
    incoming self;
    self.device = device;
    self.socket = socket;
    self.limits = device_limits(device);
    self.now = os_boottime();
    self.origins = lease->origins;
    self.origin = 0;
    self.count = 0;
    take_datagrams(&self, lease);
    return deliver(&self);
}

/* ---- The loop ---- */

/* Waits for another socket, as there is none or it is closed. After ERROR_SUCCESS the caller looks again; there may be
 * none yet. */
static DWORD
wait_for_socket(const tunring_wireguard *device)
{
    const HANDLE handles[] = {device->stop.wait, device->changed.wait};
    return wait_once(handles, 2, OS_FOREVER) == WAIT_BROKEN ? GetLastError() : ERROR_SUCCESS;
}

/* Receives from the socket that is the device's now, until that changes. Returns what ends the loop, or 0. */
static DWORD
use_socket(tunring_wireguard *device, tunring_socket *socket)
{
    const tunring_wait wait = {.deadline = TUNRING_FOREVER, .cancel = device->changed.wait};
    while (!device_ending(device))
    {
        tunring_lease *lease;
        DWORD code = tunring_receive(tunring_socket_source(socket), DEVICE_TAKE, &wait, &lease);
        if (code == ERROR_CANCELLED)
            return ERROR_SUCCESS;
        if (code == ERROR_HANDLE_EOF)
            return wait_for_socket(device);
        if (code != ERROR_SUCCESS)
        {
            os_sleep(NANOSECONDS / 1000);
            continue;
        }
        code = device_take(device, socket, lease);
        tunring_lease_release(lease);
        tunring_lease_free(lease);
        if (code != ERROR_SUCCESS)
            return code;
    }
    return ERROR_HANDLE_EOF;
}

/* After that, another change sets the event again. */
static tunring_socket *
look_for_socket(tunring_wireguard *device)
{
    os_mutex_lock(&device->lock);
    if (!life_closing(&device->life))
        (void)os_event_clear_if_ours(&device->changed);
    tunring_socket *socket = device->socket;
    if (socket)
        source_use(&socket->source);
    os_mutex_unlock(&device->lock);
    return socket;
}

static DWORD
run(tunring_wireguard *device)
{
    DWORD code = ERROR_SUCCESS;
    while (code == ERROR_SUCCESS && !device_ending(device))
    {
        tunring_socket *socket = look_for_socket(device);
        code = socket ? use_socket(device, socket) : wait_for_socket(device);
        device_put_socket(socket);
        /* A program has closed it, and a file that is always ready may have its number. */
        if (code == ERROR_SUCCESS && !os_event_is_ours(&device->changed))
            code = ERROR_INVALID_HANDLE;
    }
    if (code != ERROR_SUCCESS)
        device_over(device);
    return ERROR_HANDLE_EOF;
}

DWORD
tunring_wireguard_run_incoming(tunring_wireguard *device)
{
    if (!device_enter(device))
        return ERROR_HANDLE_EOF;
    DWORD code = ERROR_BUSY;
    if (!atomic_exchange(&device->receiving, true))
    {
        code = run(device);
        atomic_store(&device->receiving, false);
    }
    device_leave(device);
    return code;
}
