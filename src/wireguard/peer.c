/* SPDX-License-Identifier: MIT
 *
 * Peers: their life, endpoint and stamps.
 */
#include "wireguard/device.h"

#include <stdlib.h>

#define WANT_INTERVAL NANOSECONDS
/* From a stamp to the action that it is watched for: a new handshake, or a keepalive. No less than that: otherwise each
 * stamp of a flow would be noted, where the look that the one before it asked for is in time. */
#define UNANSWERED (15 * NANOSECONDS)
#define UNACKNOWLEDGED (10 * NANOSECONDS)

/* ---- Life ---- */

void
peer_use(tunring_wireguard_peer *peer)
{
    atomic_fetch_add(&peer->users, 1);
}

void
peer_put(tunring_wireguard_peer *peer)
{
    if (atomic_fetch_sub(&peer->users, 1) != 1)
        return;
    tunring_wireguard *device = peer->device;
    os_mutex_destroy(&peer->lock);
    free(peer);
    device_put(device);
}

tunring_wireguard_peer *
device_find_peer(tunring_wireguard *device, uint32_t number)
{
    os_mutex_lock(&device->lock);
    tunring_wireguard_peer *peer = index_find(&device->peers, number);
    if (peer)
        peer_use(peer);
    os_mutex_unlock(&device->lock);
    return peer;
}

/* The device's lock is held. Numbers are not used again, so that none of a batch's packets goes to a peer that has come
 * since its destination was looked up. */
static DWORD
add_peer(tunring_wireguard *device, tunring_wireguard_peer *peer)
{
    if (device->last_number == INT32_MAX)
        return ERROR_NOT_ENOUGH_MEMORY;
    peer->number = device->last_number + 1;
    if (!index_add(&device->peers, peer->number, peer))
        return ERROR_NOT_ENOUGH_MEMORY;
    device->last_number++;
    return ERROR_SUCCESS;
}

DWORD
tunring_wireguard_peer_add(tunring_wireguard *device, tunring_wireguard_peer **result)
{
    if (!device_enter(device))
        return ERROR_HANDLE_EOF;
    DWORD code = ERROR_NOT_ENOUGH_MEMORY;
    tunring_wireguard_peer *peer = calloc(1, sizeof(*peer));
    if (!peer)
        goto leave;
    peer->device = device;
    atomic_init(&peer->users, 2); /* the device's and the caller's */
    atomic_init(&peer->stamps.watched_until, INT64_MAX);
    os_mutex_init(&peer->lock);
    device_use(device);
    os_mutex_lock(&device->lock);
    code = add_peer(device, peer);
    os_mutex_unlock(&device->lock);
    if (code == ERROR_SUCCESS)
        *result = peer;
    else
    {
        peer_put(peer);
        peer_put(peer);
    }
leave:
    device_leave(device);
    return code;
}

void
peer_take_out(tunring_wireguard_peer *peer)
{
    tunring_wireguard *device = peer->device;
    staged_packet *staged[TUNRING_WIREGUARD_STAGED];
    uint32_t count = 0;
    os_mutex_lock(&device->lock);
    os_mutex_lock(&peer->lock);
    const bool first = !peer->removed;
    if (first)
    {
        peer->removed = true;
        peer_forget_keys(peer);
        while (peer->indices)
            index_use_remove(peer->indices);
        index_remove(&device->peers, peer->number);
        uint32_t networks;
        tunring_routes_remove_value(device->allowed, (int32_t)peer->number, &networks);
        count = peer_unstage(peer, staged);
    }
    os_mutex_unlock(&peer->lock);
    os_mutex_unlock(&device->lock);
    staged_free(device, staged, count);
    if (first)
        peer_put(peer);
}

void
tunring_wireguard_peer_remove(tunring_wireguard_peer *peer)
{
    tunring_wireguard *device = peer->device;
    if (!device_enter(device))
        return;
    peer_take_out(peer);
    device_leave(device);
}

void
tunring_wireguard_peer_drop(tunring_wireguard_peer *peer)
{
    if (!OS_FOREIGN(peer->device))
        peer_put(peer);
}

uint32_t
tunring_wireguard_peer_number(const tunring_wireguard_peer *peer)
{
    return peer->number;
}

bool
peer_enter(tunring_wireguard_peer *peer)
{
    if (!device_enter(peer->device))
        return false;
    os_mutex_lock(&peer->lock);
    const bool removed = peer->removed;
    os_mutex_unlock(&peer->lock);
    if (removed)
        device_leave(peer->device);
    return !removed;
}

/* ---- The endpoint ---- */

DWORD
tunring_wireguard_peer_endpoint(tunring_wireguard_peer *peer, tunring_endpoint *endpoint)
{
    if (!peer_enter(peer))
        return ERROR_HANDLE_EOF;
    os_mutex_lock(&peer->lock);
    *endpoint = peer->endpoint;
    os_mutex_unlock(&peer->lock);
    device_leave(peer->device);
    return ERROR_SUCCESS;
}

DWORD
tunring_wireguard_peer_set_endpoint(tunring_wireguard_peer *peer, const tunring_endpoint *endpoint)
{
    if (!peer_enter(peer))
        return ERROR_HANDLE_EOF;
    os_mutex_lock(&peer->lock);
    peer->endpoint = *endpoint;
    os_mutex_unlock(&peer->lock);
    device_leave(peer->device);
    return ERROR_SUCCESS;
}

/* True if that changes it. The peer's lock is held. */
static bool
move_endpoint(tunring_wireguard_peer *peer, const tunring_endpoint *to)
{
    const bool moved = !tunring_endpoint_same(&peer->endpoint, to);
    peer->endpoint = *to;
    return moved;
}

void
peer_roam(tunring_wireguard_peer *peer, const tunring_endpoint *to)
{
    os_mutex_lock(&peer->lock);
    const bool moved = move_endpoint(peer, to);
    os_mutex_unlock(&peer->lock);
    if (moved)
        queue_flag(peer, TUNRING_WIREGUARD_ENDPOINT);
}

/* The peer's lock is held. */
static bool
is_newer(const tunring_wireguard_peer *peer, const keypair *keys, uint64_t counter)
{
    return keys->generation > peer->followed_generation ||
           (keys->generation == peer->followed_generation && counter > peer->followed_counter);
}

void
peer_follow(tunring_wireguard_peer *peer, const keypair *keys, uint64_t counter, const tunring_endpoint *to)
{
    bool moved = false;
    os_mutex_lock(&peer->lock);
    if (is_newer(peer, keys, counter))
    {
        peer->followed_generation = keys->generation;
        peer->followed_counter = counter;
        moved = move_endpoint(peer, to);
    }
    os_mutex_unlock(&peer->lock);
    if (moved)
        queue_flag(peer, TUNRING_WIREGUARD_ENDPOINT);
}

/* ---- Stamps ---- */

/* Sets a stamp that isn't set, and has it noted if nobody will look by the time of its action. */
static void
begin(tunring_wireguard_peer *peer, _Atomic int64_t *stamp, int64_t now, int64_t action)
{
    int64_t never = 0;
    if (atomic_load_explicit(stamp, memory_order_relaxed) || !atomic_compare_exchange_strong(stamp, &never, now))
        return;
    if (atomic_load(&peer->stamps.watched_until) - action > now)
        queue_flag(peer, TUNRING_WIREGUARD_ACTIVE);
}

static void
set(_Atomic int64_t *stamp, int64_t time)
{
    if (atomic_load_explicit(stamp, memory_order_relaxed) != time)
        atomic_store(stamp, time);
}

void
peer_note_sent(tunring_wireguard_peer *peer, int64_t now, bool data)
{
    peer_stamps *stamps = &peer->stamps;
    set(&stamps->last_sent, now);
    set(&stamps->unacknowledged_since, 0);
    if (!data)
        return;
    set(&stamps->last_data_sent, now);
    begin(peer, &stamps->unanswered_since, now, UNANSWERED);
}

void
peer_count_sent(tunring_wireguard_peer *peer, uint64_t bytes)
{
    atomic_fetch_add_explicit(&peer->stamps.sent_bytes, bytes, memory_order_relaxed);
}

void
peer_note_received(tunring_wireguard_peer *peer, int64_t now, uint64_t bytes, bool data)
{
    peer_stamps *stamps = &peer->stamps;
    atomic_fetch_add_explicit(&stamps->received_bytes, bytes, memory_order_relaxed);
    set(&stamps->last_received, now);
    set(&stamps->unanswered_since, 0);
    if (data)
        begin(peer, &stamps->unacknowledged_since, now, UNACKNOWLEDGED);
}

void
peer_want_handshake(tunring_wireguard_peer *peer, int64_t now)
{
    int64_t before = atomic_load(&peer->stamps.wanted_at);
    if (before && now - before < WANT_INTERVAL)
        return;
    if (atomic_compare_exchange_strong(&peer->stamps.wanted_at, &before, now))
        queue_flag(peer, TUNRING_WIREGUARD_WANT_HANDSHAKE);
}

DWORD
tunring_wireguard_peer_heard(tunring_wireguard_peer *peer, uint32_t size, const tunring_endpoint *source)
{
    if (!peer_enter(peer))
        return ERROR_HANDLE_EOF;
    peer_note_received(peer, os_boottime(), size, false);
    if (source)
        peer_roam(peer, source);
    device_leave(peer->device);
    return ERROR_SUCCESS;
}

DWORD
tunring_wireguard_peer_watch(tunring_wireguard_peer *peer, int64_t until)
{
    if (!peer_enter(peer))
        return ERROR_HANDLE_EOF;
    peer_stamps *stamps = &peer->stamps;
    atomic_store(&stamps->watched_until, until);
    /* A stamp may have been set since the caller looked. */
    const int64_t unanswered = atomic_load(&stamps->unanswered_since);
    const int64_t unacknowledged = atomic_load(&stamps->unacknowledged_since);
    if ((unanswered && until - UNANSWERED > unanswered) || (unacknowledged && until - UNACKNOWLEDGED > unacknowledged))
        queue_flag(peer, TUNRING_WIREGUARD_ACTIVE);
    device_leave(peer->device);
    return ERROR_SUCCESS;
}

DWORD
tunring_wireguard_peer_drop_staged(tunring_wireguard_peer *peer)
{
    if (!peer_enter(peer))
        return ERROR_HANDLE_EOF;
    staged_packet *staged[TUNRING_WIREGUARD_STAGED];
    os_mutex_lock(&peer->lock);
    const uint32_t count = peer_unstage(peer, staged);
    os_mutex_unlock(&peer->lock);
    staged_free(peer->device, staged, count);
    atomic_fetch_add_explicit(&peer->device->counts.staged_dropped, count, memory_order_relaxed);
    device_leave(peer->device);
    return ERROR_SUCCESS;
}

/* The peer's lock is held. */
static void
read_keys(const tunring_wireguard_peer *peer, tunring_wireguard_status *status)
{
    const keypair *all[] = {peer->previous, peer->current, peer->upcoming};
    for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if (all[i] && all[i]->born > status->newest_born)
            status->newest_born = all[i]->born;
    if (peer->current)
    {
        status->current_born = peer->current->born;
        status->current_initiator = peer->current->initiator;
    }
    status->has_next = peer->upcoming != NULL;
}

void
tunring_wireguard_peer_status(tunring_wireguard_peer *peer, tunring_wireguard_status *status)
{
    *status = (tunring_wireguard_status){0};
    if (!peer_enter(peer))
        return;
    const peer_stamps *stamps = &peer->stamps;
    status->unanswered_since = atomic_load(&stamps->unanswered_since);
    status->unacknowledged_since = atomic_load(&stamps->unacknowledged_since);
    status->last_data_sent = atomic_load(&stamps->last_data_sent);
    status->last_sent = atomic_load(&stamps->last_sent);
    status->last_received = atomic_load(&stamps->last_received);
    status->received_bytes = atomic_load_explicit(&stamps->received_bytes, memory_order_relaxed);
    status->sent_bytes = atomic_load_explicit(&stamps->sent_bytes, memory_order_relaxed);
    status->staged = atomic_load(&peer->staged_count);
    os_mutex_lock(&peer->lock);
    read_keys(peer, status);
    os_mutex_unlock(&peer->lock);
    device_leave(peer->device);
}
