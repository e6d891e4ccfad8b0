/* SPDX-License-Identifier: MIT
 *
 * Keypairs and their rotation. The initiator's new keypair is the current one at once. The responder's is upcoming
 * until authentic data has come under it, for only then does the initiator surely have it too.
 */
#include "core/counter.h"
#include "wireguard/device.h"

#include <stdlib.h>

/* Data messages begin with their type and the receiver's index. */
#define DATA_HEADER 8u
/* Of 8192 bits: one word is always being cleared. */
#define WINDOW (8192u - 64u)
#define PAD_TO 16u

/* ---- One keypair ---- */

void
keypair_use(keypair *self)
{
    atomic_fetch_add(&self->users, 1);
}

void
keypair_put(keypair *self)
{
    if (atomic_fetch_sub(&self->users, 1) != 1)
        return;
    tunring_sealer_free(self->sealer);
    tunring_opener_free(self->opener);
    free(self);
}

static DWORD
keypair_new(tunring_wireguard *device, const tunring_wireguard_keys *keys, keypair **result)
{
    keypair *self = calloc(1, sizeof(*self));
    if (!self)
        return ERROR_NOT_ENOUGH_MEMORY;
    atomic_init(&self->users, 1);
    self->index = keys->index;
    self->born = os_boottime();
    self->initiator = keys->initiator;
    BYTE header[DATA_HEADER] = {4};
    for (int i = 0; i < 4; i++)
        header[4 + i] = (BYTE)(keys->remote_index >> 8 * i);
    const tunring_aead_format sending = {
        .header = header, .header_size = sizeof(header), .unauthenticated_header = true};
    const tunring_aead_format receiving = {.header_size = sizeof(header), .unauthenticated_header = true};
    DWORD code = tunring_sealer_new(device->aead, TUNRING_CHACHA20_POLY1305, keys->send, &sending, PAD_TO,
                                    atomic_load(&device->mtu), 0, &self->sealer);
    if (code == ERROR_SUCCESS)
        code = tunring_opener_new(device->aead, TUNRING_CHACHA20_POLY1305, keys->receive, &receiving, WINDOW, false,
                                  &self->opener);
    if (code == ERROR_SUCCESS)
        *result = self;
    else
        keypair_put(self);
    return code;
}

bool
keypair_may_send(const keypair *self, const tunring_wireguard_limits *limits, int64_t now)
{
    return now - self->born < limits->reject_after && tunring_sealer_counter(self->sealer) < limits->reject_messages;
}

bool
keypair_may_receive(const keypair *self, const tunring_wireguard_limits *limits, int64_t now)
{
    return now - self->born < limits->reject_after;
}

/* ---- A peer's three ---- */

/* Takes a keypair out of its place. Its key is wiped as soon as the calls that use it have left. Both locks are
 * held. */
static void
retire(tunring_wireguard_peer *peer, keypair **place)
{
    keypair *old = *place;
    if (!old)
        return;
    *place = NULL;
    index_use *use = index_use_find(peer->device, old->index);
    if (use && use->keypair == old)
        index_use_remove(use);
    tunring_sealer_close(old->sealer);
    tunring_opener_close(old->opener);
    keypair_put(old);
}

void
peer_forget_keys(tunring_wireguard_peer *peer)
{
    retire(peer, &peer->previous);
    retire(peer, &peer->current);
    retire(peer, &peer->upcoming);
}

/* Both locks are held. */
static void
rotate_in(tunring_wireguard_peer *peer, keypair *fresh)
{
    retire(peer, &peer->previous);
    if (!fresh->initiator)
    {
        retire(peer, &peer->upcoming);
        peer->upcoming = fresh;
        return;
    }
    /* An upcoming one is younger than the current one, and the far end may be sending under it. */
    if (peer->upcoming)
    {
        retire(peer, &peer->current);
        peer->previous = peer->upcoming;
        peer->upcoming = NULL;
    }
    else
        peer->previous = peer->current;
    peer->current = fresh;
}

bool
peer_confirm(tunring_wireguard_peer *peer, keypair *self)
{
    tunring_wireguard *device = peer->device;
    os_mutex_lock(&peer->lock);
    const bool upcoming = peer->upcoming == self;
    os_mutex_unlock(&peer->lock);
    if (!upcoming)
        return false;
    os_mutex_lock(&device->lock);
    os_mutex_lock(&peer->lock);
    const bool still = peer->upcoming == self;
    if (still)
    {
        retire(peer, &peer->previous);
        peer->previous = peer->current;
        peer->current = self;
        peer->upcoming = NULL;
    }
    os_mutex_unlock(&peer->lock);
    os_mutex_unlock(&device->lock);
    if (still)
        atomic_store(&peer->stamps.wanted_at, 0);
    return still;
}

void
peer_refresh_key(tunring_wireguard_peer *peer, const tunring_wireguard_limits *limits, int64_t now)
{
    os_mutex_lock(&peer->lock);
    keypair *keys = peer->current;
    const bool late = keys && keys->initiator && !keys->asked && now - keys->born >= limits->rekey_on_receive;
    if (late)
        keys->asked = true;
    os_mutex_unlock(&peer->lock);
    if (late)
        peer_want_handshake(peer, now);
}

/* ERROR_NOT_FOUND if the handshake's index is gone. */
static DWORD
take_over_index(tunring_wireguard_peer *peer, keypair *fresh)
{
    tunring_wireguard *device = peer->device;
    DWORD code = ERROR_SUCCESS;
    os_mutex_lock(&device->lock);
    os_mutex_lock(&peer->lock);
    index_use *use = index_use_find(device, fresh->index);
    if (peer->removed)
        code = ERROR_HANDLE_EOF;
    else if (!use || use->peer != peer || use->keypair)
        code = ERROR_NOT_FOUND;
    else
    {
        fresh->generation = ++peer->last_generation;
        use->keypair = fresh;
        rotate_in(peer, fresh);
    }
    os_mutex_unlock(&peer->lock);
    os_mutex_unlock(&device->lock);
    return code;
}

DWORD
tunring_wireguard_peer_install(tunring_wireguard_peer *peer, const tunring_wireguard_keys *keys)
{
    tunring_wireguard *device = peer->device;
    if (!device_enter(device))
        return ERROR_HANDLE_EOF;
    keypair *fresh;
    DWORD code = keypair_new(device, keys, &fresh);
    if (code == ERROR_SUCCESS && (code = take_over_index(peer, fresh)) != ERROR_SUCCESS)
        keypair_put(fresh);
    if (code == ERROR_SUCCESS && keys->initiator)
    {
        bool sent;
        atomic_store(&peer->stamps.wanted_at, 0);
        if (atomic_load(&peer->staged_count))
            peer_send_staged(peer);
        else
            tunring_wireguard_peer_keepalive(peer, &sent);
    }
    device_leave(device);
    return code;
}

DWORD
tunring_wireguard_peer_wipe(tunring_wireguard_peer *peer)
{
    tunring_wireguard *device = peer->device;
    if (!device_enter(device))
        return ERROR_HANDLE_EOF;
    os_mutex_lock(&device->lock);
    os_mutex_lock(&peer->lock);
    peer_forget_keys(peer);
    os_mutex_unlock(&peer->lock);
    os_mutex_unlock(&device->lock);
    device_leave(device);
    return ERROR_SUCCESS;
}
