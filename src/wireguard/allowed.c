/* SPDX-License-Identifier: MIT
 *
 * The networks that a peer may send from, and is sent the packets of.
 */
#include "wireguard/device.h"

#include <stdlib.h>

static bool
listed(const tunring_prefix *prefix, const tunring_prefix *networks, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (networks[i].version == prefix->version && networks[i].length == prefix->length &&
            memcmp(networks[i].address, prefix->address, sizeof(prefix->address)) == 0)
            return true;
    return false;
}

/* All routes of the table, for the caller to free; NULL without memory. The device's lock is held, so none comes. */
static tunring_route *
list_all(tunring_wireguard *device, uint32_t *count)
{
    const uint32_t room = tunring_routes_count(device->allowed);
    tunring_route *routes = calloc((size_t)room + 1, sizeof(*routes));
    if (routes)
        *count = tunring_routes_list(device->allowed, routes, room);
    return routes;
}

/* Takes the networks from the peer that are not among these. */
static DWORD
remove_others(tunring_wireguard_peer *peer, const tunring_prefix *networks, uint32_t count)
{
    uint32_t all;
    tunring_route *routes = list_all(peer->device, &all);
    if (!routes)
        return ERROR_NOT_ENOUGH_MEMORY;
    for (uint32_t i = 0; i < all; i++)
    {
        int32_t value;
        if (routes[i].value == (int32_t)peer->number && !listed(&routes[i].prefix, networks, count))
            tunring_routes_remove(peer->device->allowed, &routes[i].prefix, &value);
    }
    free(routes);
    return ERROR_SUCCESS;
}

static DWORD
give(tunring_wireguard_peer *peer, const tunring_prefix *networks, uint32_t count)
{
    tunring_route *routes = calloc((size_t)count + 1, sizeof(*routes));
    if (!routes)
        return ERROR_NOT_ENOUGH_MEMORY;
    for (uint32_t i = 0; i < count; i++)
        routes[i] = (tunring_route){.prefix = networks[i], .value = (int32_t)peer->number};
    uint32_t done;
    const DWORD code = tunring_routes_set(peer->device->allowed, routes, count, &done);
    free(routes);
    return code;
}

DWORD
tunring_wireguard_peer_allow(tunring_wireguard_peer *peer, const tunring_prefix *networks, uint32_t count, bool replace)
{
    tunring_wireguard *device = peer->device;
    if (!device_enter(device))
        return ERROR_HANDLE_EOF;
    os_mutex_lock(&device->lock);
    DWORD code = peer->removed ? ERROR_HANDLE_EOF : give(peer, networks, count);
    if (code == ERROR_SUCCESS && replace)
        code = count ? remove_others(peer, networks, count)
                     : tunring_routes_remove_value(device->allowed, (int32_t)peer->number, &count);
    os_mutex_unlock(&device->lock);
    device_leave(device);
    return code;
}

DWORD
tunring_wireguard_peer_allowed(tunring_wireguard_peer *peer, tunring_prefix *networks, uint32_t room, uint32_t *count)
{
    if (!peer_enter(peer))
        return ERROR_HANDLE_EOF;
    tunring_wireguard *device = peer->device;
    uint32_t all = 0;
    os_mutex_lock(&device->lock);
    tunring_route *routes = list_all(device, &all);
    os_mutex_unlock(&device->lock);
    *count = 0;
    for (uint32_t i = 0; i < all; i++)
    {
        if (routes[i].value != (int32_t)peer->number)
            continue;
        if (*count < room)
            networks[*count] = routes[i].prefix;
        ++*count;
    }
    device_leave(device);
    const DWORD code = routes ? ERROR_SUCCESS : ERROR_NOT_ENOUGH_MEMORY;
    free(routes);
    return code;
}
