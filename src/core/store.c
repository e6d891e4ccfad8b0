/* SPDX-License-Identifier: MIT
 *
 * Batches that are written, not received: sealed datagrams and opened copies, back to back in an arena's chunks.
 */
#include "core/aead.h"
#include "core/arena.h"
#include "core/copy.h"
#include "core/lease.h"
#include "core/source.h"
#include "core/table.h"

#include <stdlib.h>

struct tunring_store
{
    tunring_source source;
    os_mutex lock; /* guards taking room of the arena; never held while that is written to */
    arena arena;
};

static tunring_store *
store_of(tunring_source *source)
{
    return (tunring_store *)source;
}

static void
store_give_back(tunring_source *source, const tunring_slot *slots, uint32_t count)
{
    (void)source;
    arena_give_back(slots, count);
}

static void
store_detach(tunring_source *source)
{
    (void)source;
}

static void
store_end(tunring_source *source)
{
    arena_close(&store_of(source)->arena);
}

static void
store_free(tunring_source *source)
{
    os_mutex_destroy(&store_of(source)->lock);
    free(store_of(source));
}

static const source_ops store_ops = {
    .give_back = store_give_back, .detach = store_detach, .end = store_end, .free = store_free};

DWORD
tunring_store_new(tunring_store **result)
{
    tunring_store *store = calloc(1, sizeof(*store));
    if (!store)
        return ERROR_NOT_ENOUGH_MEMORY;
    if (!source_open(&store->source, &store_ops))
    {
        const DWORD code = GetLastError();
        free(store);
        return code;
    }
    os_mutex_init(&store->lock);
    arena_init(&store->arena, 0, NULL, NULL);
    *result = store;
    return ERROR_SUCCESS;
}

DWORD
tunring_store_shared(tunring_store **result)
{
    static tunring_store *_Atomic shared;
    tunring_store *before = atomic_load(&shared);
    if (before && !OS_FOREIGN(&before->source))
    {
        *result = before;
        return ERROR_SUCCESS;
    }
    os_watch_forks();
    const DWORD code = tunring_store_new(result);
    if (code != ERROR_SUCCESS)
        return code;
    /* The parent's is left as it is: in a child nothing touches it. */
    if (!atomic_compare_exchange_strong(&shared, &before, *result))
    {
        tunring_source_close(&(*result)->source);
        tunring_source_drop(&(*result)->source);
        *result = before;
    }
    return ERROR_SUCCESS;
}

tunring_source *
tunring_store_source(tunring_store *store)
{
    return &store->source;
}

/* A call that writes: packets to seal or datagrams to copy, of which each takes its size. */
typedef struct writing
{
    tunring_store *store;
    const tunring_sealer *sealer; /* NULL: copies */
    const tunring_packet *packets;
    uint32_t count;
} writing;

/* At least one byte: the address of a slot at a chunk's very end would be the next one's. */
static uint32_t
size_of(const writing *what, uint32_t index)
{
    const uint32_t length = what->packets[index].length;
    if (what->sealer)
        return tunring_sealer_size(what->sealer, length);
    return length ? length : 1;
}

/* Takes room for the packets from `first` on, as many as lie back to back: *count of them. NULL without memory. */
static BYTE *
take_room(const writing *what, uint32_t first, uint32_t *count)
{
    arena *arena = &what->store->arena;
    uint32_t bytes = 0, index = first;
    os_mutex_lock(&what->store->lock);
    uint32_t room;
    BYTE *data = arena_room(arena, size_of(what, first), &room);
    if (data)
    {
        for (; index < what->count; index++)
        {
            const uint32_t size = size_of(what, index);
            if (size > room - bytes)
                break;
            bytes += size;
        }
        arena_take(arena, bytes, index - first);
    }
    os_mutex_unlock(&what->store->lock);
    *count = index - first;
    return data;
}

/* A lease of `count` slots that lie in the store, which takes them over. */
static tunring_lease *
finish(tunring_store *store, tunring_lease *lease, uint32_t count, bool sealed)
{
    lease->count = count;
    for (uint32_t i = 0; i < count; i++)
    {
        atomic_init(&lease->slots[i].holds, HOLDS_ONE);
        lease->bytes += lease->slots[i].length;
    }
    lease->sealed = sealed;
    lease_bind(lease, &store->source, false);
    return lease;
}

static DWORD
seal_all(const writing *what, tunring_sealing *call, tunring_slot *slots, uint32_t *done)
{
    while (*done < what->count)
    {
        uint32_t run;
        BYTE *out = take_room(what, *done, &run);
        if (!out)
            return ERROR_NOT_ENOUGH_MEMORY;
        const uint32_t first = *done;
        *done += run;
        const DWORD code = tunring_seal(call, what->packets + first, run, out, slots + first);
        if (code == ERROR_SUCCESS)
            continue;
        /* The slots that it didn't come to lie in the same chunk. */
        for (uint32_t i = first; i < *done; i++)
            slots[i].data = out;
        return code;
    }
    return ERROR_SUCCESS;
}

DWORD
tunring_store_seal(tunring_store *store, tunring_sealer *sealer, const tunring_packet *packets, uint32_t count,
                   tunring_lease **result)
{
    const writing what = {store, sealer, packets, count};
    uint32_t done = 0;
    *result = NULL;
    if (!source_enter(&store->source))
        return ERROR_HANDLE_EOF;
    DWORD code = ERROR_NOT_ENOUGH_MEMORY;
    tunring_lease *lease = lease_new(count);
    if (!lease)
        goto leave;
    tunring_sealing call;
    code = tunring_seal_begin(sealer, count, &call);
    if (code == ERROR_SUCCESS)
    {
        code = seal_all(&what, &call, lease->slots, &done);
        tunring_seal_end(&call);
    }
    if (code == ERROR_SUCCESS && count)
        *result = finish(store, lease, count, true);
    else
    {
        arena_give_back(lease->slots, done);
        tunring_lease_free(lease);
    }
leave:
    source_leave(&store->source);
    return code;
}

static bool
copy_all(const writing *what, tunring_datagram *datagrams, tunring_slot *slots, uint32_t *done)
{
    while (*done < what->count)
    {
        uint32_t run;
        BYTE *out = take_room(what, *done, &run);
        if (!out)
            return false;
        for (; run; run--, ++*done)
        {
            const tunring_packet packet = what->packets[*done];
            if (packet.length) /* else there may be no address */
                copy_packet(out, packet.data, packet.length);
            slots[*done].data = out;
            datagrams[*done].data = out;
            datagrams[*done].length = packet.length;
            out += size_of(what, *done);
        }
    }
    return true;
}

/* Moves what was opened to the front; the slots of the rest go back. Returns how many were opened. */
static uint32_t
keep_opened(const tunring_datagram *datagrams, uint32_t count, tunring_slot *slots)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++)
        if (datagrams[i].result == TUNRING_OPENED)
        {
            slots[kept].data = datagrams[i].data;
            slots[kept++].length = datagrams[i].length;
        }
        else
        {
            const tunring_slot slot = {.data = datagrams[i].data};
            arena_give_back(&slot, 1);
        }
    return kept;
}

DWORD
tunring_store_open(tunring_store *store, tunring_opener *opener, const tunring_packet *packets, uint32_t count,
                   tunring_lease **result)
{
    const writing what = {store, NULL, packets, count};
    uint32_t done = 0, opened = 0;
    *result = NULL;
    if (!source_enter(&store->source))
        return ERROR_HANDLE_EOF;
    DWORD code = ERROR_NOT_ENOUGH_MEMORY;
    tunring_lease *lease = lease_new(count);
    tunring_datagram *datagrams = table_alloc(sizeof(*datagrams), count, sizeof(*datagrams));
    if (lease && datagrams && copy_all(&what, datagrams, lease->slots, &done))
        code = tunring_open(opener, datagrams, count, &opened);
    if (lease && code == ERROR_SUCCESS)
    {
        keep_opened(datagrams, count, lease->slots);
        if (opened)
            *result = finish(store, lease, opened, false);
        else
            tunring_lease_free(lease);
    }
    else if (lease)
    {
        arena_give_back(lease->slots, done);
        tunring_lease_free(lease);
    }
    free(datagrams);
    source_leave(&store->source);
    return code;
}
