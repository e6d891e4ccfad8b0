/* SPDX-License-Identifier: MIT
 *
 * Indices, by which the far end's messages find a handshake or a keypair: random, so that nobody guesses them, and
 * unique within the device.
 */
#include "wireguard/device.h"
#include "wireguard/hashes.h"

#include <stdlib.h>

index_use *
index_use_find(tunring_wireguard *device, uint32_t index)
{
    return index_find(&device->indices, index);
}

void
index_use_remove(index_use *use)
{
    index_use **link = &use->peer->indices;
    while (*link != use)
        link = &(*link)->next;
    *link = use->next;
    index_remove(&use->peer->device->indices, use->index);
    free(use);
}

keypair *
device_find_keypair(tunring_wireguard *device, uint32_t index, tunring_wireguard_peer **peer)
{
    keypair *found = NULL;
    os_mutex_lock(&device->lock);
    const index_use *use = index_use_find(device, index);
    if (use && use->keypair)
    {
        found = use->keypair;
        *peer = use->peer;
        keypair_use(found);
        peer_use(*peer);
    }
    os_mutex_unlock(&device->lock);
    return found;
}

uint32_t
device_index_owner(tunring_wireguard *device, uint32_t index, bool of_keypair)
{
    os_mutex_lock(&device->lock);
    const index_use *use = index_use_find(device, index);
    const uint32_t number = use && (of_keypair || !use->keypair) ? use->peer->number : 0;
    os_mutex_unlock(&device->lock);
    return number;
}

/* The device's lock is held. */
static DWORD
add_use(tunring_wireguard_peer *peer, uint32_t *index)
{
    tunring_wireguard *device = peer->device;
    do
        if (!hashes_random(device->hashes, index, sizeof(*index)))
            return ERROR_GEN_FAILURE;
    while (index_find(&device->indices, *index));
    index_use *use = calloc(1, sizeof(*use));
    if (!use)
        return ERROR_NOT_ENOUGH_MEMORY;
    *use = (index_use){.next = peer->indices, .peer = peer, .index = *index};
    if (!index_add(&device->indices, *index, use))
    {
        free(use);
        return ERROR_NOT_ENOUGH_MEMORY;
    }
    peer->indices = use;
    return ERROR_SUCCESS;
}

DWORD
tunring_wireguard_index_new(tunring_wireguard_peer *peer, uint32_t *index)
{
    tunring_wireguard *device = peer->device;
    if (!device_enter(device))
        return ERROR_HANDLE_EOF;
    os_mutex_lock(&device->lock);
    const DWORD code = peer->removed ? ERROR_HANDLE_EOF : add_use(peer, index);
    os_mutex_unlock(&device->lock);
    device_leave(device);
    return code;
}

DWORD
tunring_wireguard_index_free(tunring_wireguard *device, uint32_t index)
{
    if (!device_enter(device))
        return ERROR_HANDLE_EOF;
    os_mutex_lock(&device->lock);
    index_use *use = index_use_find(device, index);
    if (use && !use->keypair)
        index_use_remove(use);
    os_mutex_unlock(&device->lock);
    device_leave(device);
    return ERROR_SUCCESS;
}
