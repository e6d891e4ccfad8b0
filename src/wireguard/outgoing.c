/* SPDX-License-Identifier: MIT
 *
 * The loop from the session to the socket: packets are sorted by the peer that their destination belongs to, and each
 * peer's leave together.
 */
#include "wireguard/device.h"

typedef struct outgoing
{
    tunring_wireguard *device;
    transmitter *transmitter;
    tunring_packet packets[TRANSMIT_MAX]; /* of a batch */
    int32_t numbers[TRANSMIT_MAX];        /* of their peers; then TAKEN */
    tunring_packet chosen[TRANSMIT_MAX];  /* one peer's */
} outgoing;

#define TAKEN (TUNRING_NO_ROUTE - 1)

/* The packets of the first one's peer, in order. */
static uint32_t
choose(outgoing *self, uint32_t first, uint32_t count)
{
    const int32_t number = self->numbers[first];
    uint32_t chosen = 0;
    for (uint32_t i = first; i < count; i++)
    {
        if (self->numbers[i] != number)
            continue;
        self->chosen[chosen++] = self->packets[i];
        self->numbers[i] = TAKEN;
    }
    return chosen;
}

static void
send_to_peer(outgoing *self, int32_t number, uint32_t chosen)
{
    tunring_wireguard *device = self->device;
    tunring_wireguard_peer *peer = number < 0 ? NULL : device_find_peer(device, (uint32_t)number);
    if (!peer)
    {
        atomic_fetch_add_explicit(&device->counts.no_peer, chosen, memory_order_relaxed);
        return;
    }
    transmit_or_stage(peer, self->transmitter, self->chosen, chosen);
    peer_put(peer);
}

static void
send_batch(outgoing *self, const tunring_lease *lease)
{
    const uint32_t count = tunring_slots_packets(lease->slots, lease->count, true, self->packets);
    tunring_routes_lookup_packets(self->device->allowed, self->packets, count, false, self->numbers);
    for (uint32_t i = 0; i < count; i++)
    {
        const int32_t number = self->numbers[i];
        if (number != TAKEN)
            send_to_peer(self, number, choose(self, i, count));
    }
}

/* ---- Packets that waited for a key ---- */

void
outgoing_flush(tunring_wireguard_peer *peer)
{
    tunring_wireguard *device = peer->device;
    if (!atomic_load(&peer->staged_count) || atomic_exchange(&peer->confirmed, true))
        return;
    peer_use(peer);
    peer->next_confirmed = atomic_load(&device->confirmed);
    while (!atomic_compare_exchange_weak(&device->confirmed, &peer->next_confirmed, peer))
        ;
    os_event_set_if_ours(&device->flush);
}

/* Takes the list. Each peer's use is the caller's from then on. */
static tunring_wireguard_peer *
take_confirmed(tunring_wireguard *device)
{
    if (!atomic_load_explicit(&device->confirmed, memory_order_relaxed))
        return NULL;
    return atomic_exchange(&device->confirmed, NULL);
}

/* The next in the list. The peer may be put into another one from then on. */
static tunring_wireguard_peer *
after_confirmed(tunring_wireguard_peer *peer)
{
    tunring_wireguard_peer *next = peer->next_confirmed;
    atomic_store(&peer->confirmed, false);
    return next;
}

void
outgoing_end(tunring_wireguard *device)
{
    for (tunring_wireguard_peer *next, *peer = take_confirmed(device); peer; peer = next)
    {
        next = after_confirmed(peer);
        peer_put(peer);
    }
}

static void
send_confirmed(outgoing *self)
{
    for (tunring_wireguard_peer *next, *peer = take_confirmed(self->device); peer; peer = next)
    {
        next = after_confirmed(peer);
        if (atomic_load(&peer->staged_count))
            transmit_or_stage(peer, self->transmitter, NULL, 0);
        peer_put(peer);
    }
}

/* ---- The loop ---- */

static DWORD
run(outgoing *self)
{
    tunring_wireguard *device = self->device;
    tunring_source *source = tunring_session_source(device->session);
    const tunring_wait wait = {
        .deadline = TUNRING_FOREVER, .cancel = device->stop.wait, .interrupt = device->flush.wait};
    while (!device_ending(device))
    {
        send_confirmed(self);
        tunring_lease *lease;
        DWORD code = tunring_receive(source, TRANSMIT_MAX, &wait, &lease);
        /* Before the look at the list. If the program has closed the event, nothing tells of what is confirmed. */
        if (code == ERROR_OPERATION_ABORTED)
            code = os_event_clear_if_ours(&device->flush) ? ERROR_CANCELLED : ERROR_INVALID_HANDLE;
        if (code == ERROR_SUCCESS)
        {
            send_batch(self, lease);
            tunring_lease_release(lease);
            tunring_lease_free(lease);
        }
        else if (code != ERROR_CANCELLED && code != ERROR_NOT_ENOUGH_MEMORY)
        {
            device_over(device);
            return code;
        }
    }
    return ERROR_HANDLE_EOF;
}

DWORD
tunring_wireguard_run_outgoing(tunring_wireguard *device)
{
    if (!device_enter(device))
        return ERROR_HANDLE_EOF;
    DWORD code = ERROR_BUSY;
    if (atomic_exchange(&device->sending, true))
        goto leave;
    outgoing self = {.device = device, .transmitter = transmitter_new()};
    code = self.transmitter ? run(&self) : ERROR_NOT_ENOUGH_MEMORY;
    transmitter_free(self.transmitter);
    atomic_store(&device->sending, false);
leave:
    device_leave(device);
    return code;
}
