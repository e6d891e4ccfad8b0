/* SPDX-License-Identifier: MIT
 *
 * Sending and reserving. A chunk is allocated and filled, then committed from its end: the ring publishes only when its
 * oldest allocation is sent, so a chunk costs one publication and at most one wake-up of the host.
 */
#include "core/backoff.h"
#include "core/copy.h"
#include "core/lease.h"
#include "platform/wait.h"
#include "tunring_packets.h"

#include <stdlib.h>

/* Packets in a chunk. Enough to make the publication cheap, few enough that the host starts early. */
#define CHUNK 64u
/* The same for our own libraries, which take them in one call: what becomes one run of superpackets. */
#define LARGE_CHUNK 256u

/* No chunk covers the whole ring: the host starts early, and the guard's filler finds room. */
static uint64_t
max_bytes(const tunring_session *session)
{
    return session->capacity / 2;
}

/* A chunk by any library: allocations are committed from its end. Checksums are filled in the ring's copy if `fill`.
 * *sent and *bytes count what went out. */
static DWORD
send_each(tunring_session *session, const tunring_packet *packets, uint32_t count, bool fill, uint32_t *sent,
          uint64_t *bytes)
{
    const tunring_api *api = session->api;
    const WINTUN_SESSION_HANDLE handle = session->handle;
    const uint32_t chunk = count < CHUNK ? count : CHUNK;
    const uint64_t max = max_bytes(session);
    DWORD code = ERROR_SUCCESS;
    uint64_t filled_bytes = 0;
    uint32_t filled = 0;
    BYTE *slots[CHUNK];
    for (; filled < chunk && filled_bytes < max; filled++)
    {
        const tunring_packet packet = packets[filled];
        slots[filled] = api->WintunAllocateSendPacket(handle, packet.length);
        if (!slots[filled])
        {
            code = GetLastError();
            break;
        }
        copy_packet(slots[filled], packet.data, packet.length);
        if (fill)
            (void)tunring_fill_checksums(slots[filled], packet.length);
        filled_bytes += packet.length;
    }
    for (uint32_t i = filled; i-- > 0;)
        api->WintunSendPacket(handle, slots[i]);
    *sent = filled;
    *bytes = filled_bytes;
    return code;
}

/* The function of our own libraries for this, or NULL. */
typedef DWORD send_call(WINTUN_SESSION_HANDLE session, const tunring_packet *packets, DWORD count, DWORD *sent);

static send_call *
call_of(const tunring_backend *backend, bool fill)
{
    if (!backend)
        return NULL;
    return fill ? backend->send_filled : backend->send_many;
}

/* The same by one call. */
static DWORD
send_at_once(tunring_session *session, send_call *call, const tunring_packet *packets, uint32_t count, uint32_t *sent,
             uint64_t *bytes)
{
    const uint64_t max = max_bytes(session);
    uint64_t chunk_bytes = 0;
    uint32_t chunk = 0;
    while (chunk < count && chunk < LARGE_CHUNK && chunk_bytes < max)
        chunk_bytes += packets[chunk++].length;
    DWORD done;
    const DWORD code = call(session->handle, packets, chunk, &done);
    for (uint32_t i = done; i < chunk; i++)
        chunk_bytes -= packets[i].length;
    *sent = done;
    *bytes = chunk_bytes;
    return code;
}

/* Sends what fits of one chunk. 0, or why the packet after those *sent could not be allocated. */
static DWORD
send_chunk(tunring_session *session, const tunring_packet *packets, uint32_t count, bool fill, uint32_t *sent)
{
    send_call *call = call_of(session->api->backend, fill);
    uint64_t bytes;
    os_mutex_lock(&session->send_lock);
    const DWORD code = call ? send_at_once(session, call, packets, count, sent, &bytes)
                            : send_each(session, packets, count, fill, sent, &bytes);
    os_mutex_unlock(&session->send_lock);
    wake_guard_note(&session->watch);
    count_add(&session->source.counts.sent_packets, *sent);
    count_add(&session->source.counts.sent_bytes, bytes);
    return code;
}

/* One pause of a wait for room. No event reports room, so it sleeps on what else may end the wait. */
static DWORD
pause_for_room(tunring_session *session, const tunring_wait *wait, backoff *pause)
{
    if (source_closing(&session->source))
        return ERROR_HANDLE_EOF;
    int64_t now = os_now();
    if (now >= wait->deadline)
        return WAIT_TIMEOUT;
    int64_t nanoseconds = backoff_next(pause);
    if (!nanoseconds)
        return ERROR_SUCCESS;
    int64_t until = wait->deadline - now < nanoseconds ? wait->deadline : now + nanoseconds;
    const HANDLE handles[] = {session->source.stop.wait, wait->interrupt};
    count_add(&session->source.counts.waits, 1);
    switch (life_wait(&session->source.life, handles, 2, until))
    {
    case 0:
        return ERROR_HANDLE_EOF;
    case 1:
        return ERROR_OPERATION_ABORTED;
    case WAIT_NOTHING:
        return ERROR_SUCCESS;
    default:
        return source_waiting_failed(&session->source);
    }
}

/* Decides whether to try again: 0 if so, after a pause. */
static DWORD
ring_is_full(tunring_session *session, const tunring_wait *wait, backoff *pause)
{
    if (pause->turn == 0)
        count_add(&session->source.counts.ring_full, 1);
    return wait ? pause_for_room(session, wait, pause) : ERROR_BUFFER_OVERFLOW;
}

/* How far the capture of a call's packets has got, and when those that follow began to go out. */
typedef struct capture_progress
{
    bool fill; /* they go out with their checksums filled */
    bool wanted;
    int64_t time;
    uint32_t written;
} capture_progress;

/* The time is that before the packets go: an answer, which another thread may receive at once, comes after it. */
static void
capture_begin(tunring_session *session, capture_progress *progress)
{
    progress->wanted = session_captures(&session->source.capture, TUNRING_SENT);
    if (progress->wanted)
        progress->time = os_wall_clock();
}

static void
write_capture(tunring_session *session, int64_t time, const tunring_packet *packets, uint32_t count)
{
    session_capture_write(&session->source.capture, TUNRING_SENT, time,
                          &(tunring_captured){.packets = packets, .count = count});
}

/* Bytes of packets that are copied for a capture at once. */
#define FILLED_BYTES (256u * 1024u)

/* The same as they went out, from copies. Without memory for those: as they are. */
static void
write_filled_capture(tunring_session *session, int64_t time, const tunring_packet *packets, uint32_t count)
{
    BYTE *memory = malloc(FILLED_BYTES);
    if (!memory)
        write_capture(session, time, packets, count);
    for (uint32_t done = 0; memory && done < count;)
    {
        tunring_packet filled[CHUNK];
        uint32_t copied = 0, bytes = 0;
        for (; copied < CHUNK && done < count && packets[done].length <= FILLED_BYTES - bytes; copied++, done++)
        {
            const tunring_packet packet = packets[done];
            copy_packet(memory + bytes, packet.data, packet.length);
            (void)tunring_fill_checksums(memory + bytes, packet.length);
            filled[copied] = (tunring_packet){memory + bytes, packet.length};
            bytes += packet.length;
        }
        write_capture(session, time, filled, copied);
    }
    free(memory);
}

static void
capture_sent(tunring_session *session, capture_progress *progress, const tunring_packet *packets, uint32_t sent)
{
    if (progress->wanted && sent > progress->written)
        (progress->fill ? write_filled_capture : write_capture)(session, progress->time, packets + progress->written,
                                                                sent - progress->written);
    progress->written = sent;
}

static DWORD
send_all(tunring_session *session, const tunring_packet *packets, uint32_t count, bool fill, const tunring_wait *wait,
         uint32_t *sent)
{
    *sent = 0;
    if (!source_enter(&session->source))
        return ERROR_HANDLE_EOF;
    capture_progress captured = {.fill = fill};
    capture_begin(session, &captured);
    DWORD code = ERROR_SUCCESS;
    backoff pause = {0};
    while (*sent < count && code == ERROR_SUCCESS)
    {
        uint32_t left = count - *sent;
        if (source_closing(&session->source))
        {
            code = ERROR_HANDLE_EOF;
            break;
        }
        uint32_t done = 0;
        code = send_chunk(session, packets + *sent, left, fill, &done);
        *sent += done;
        if (code != ERROR_BUFFER_OVERFLOW)
            continue;
        /* Committed packets may have made room already. */
        if (done)
        {
            code = ERROR_SUCCESS;
            pause = (backoff){0};
            continue;
        }
        capture_sent(session, &captured, packets, *sent);
        code = ring_is_full(session, wait, &pause);
        capture_begin(session, &captured);
    }
    capture_sent(session, &captured, packets, *sent);
    if (*sent)
        count_add(&session->source.counts.sent_batches, 1);
    source_leave(&session->source);
    return code;
}

DWORD
tunring_send(tunring_session *session, const tunring_packet *packets, uint32_t count, const tunring_wait *wait,
             uint32_t *sent)
{
    return send_all(session, packets, count, false, wait, sent);
}

DWORD
tunring_send_filled(tunring_session *session, const tunring_packet *packets, uint32_t count, const tunring_wait *wait,
                    uint32_t *sent)
{
    return send_all(session, packets, count, true, wait, sent);
}

static uint64_t
ring_bytes(const uint32_t *sizes, uint32_t count)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < count; i++)
        bytes += ((uint64_t)sizes[i] + 4 + 3) & ~(uint64_t)3;
    return bytes;
}

/* Our libraries report their room; for others a failed attempt has to go out as filler. An attempt at a single slot
 * leaves nothing. */
static bool
surely_full(tunring_session *session, uint32_t count, uint64_t bytes)
{
    const tunring_backend *backend = session->api->backend;
    return count > 1 && backend && backend->send_room(session->handle) < bytes;
}

/* The ring holds old packets. An unfilled slot must not pass for one. */
static void
append_reserved(tunring_lease *lease, BYTE *slot, uint32_t size)
{
    if (size)
        slot[0] = 0;
    lease_append(lease, slot, size);
}

/* All slots or none. */
static DWORD
allocate_all(tunring_session *session, const uint32_t *sizes, uint32_t count, uint64_t bytes, tunring_lease *lease)
{
    os_mutex_lock(&session->send_lock);
    DWORD code = ERROR_SUCCESS;
    if (surely_full(session, count, bytes))
        code = ERROR_BUFFER_OVERFLOW;
    while (code == ERROR_SUCCESS && lease->count < count)
    {
        uint32_t size = sizes[lease->count];
        BYTE *slot = session->api->WintunAllocateSendPacket(session->handle, size);
        if (slot)
            append_reserved(lease, slot, size);
        else
            code = GetLastError();
    }
    os_mutex_unlock(&session->send_lock);
    return code;
}

/* Turns what was allocated into filler, and the lease into an empty one. */
static void
give_up_slots(tunring_session *session, tunring_lease *lease)
{
    for (uint32_t i = lease->count; i-- > 0;)
        session->api->WintunSendPacket(session->handle, lease->slots[i].data);
    wake_guard_note(&session->watch);
    count_add(&session->source.counts.fillers, lease->count);
    lease->count = 0;
    lease->bytes = 0;
}

static DWORD
reserve_all(tunring_session *session, const uint32_t *sizes, uint32_t count, const tunring_wait *wait,
            tunring_lease *lease)
{
    uint64_t bytes = ring_bytes(sizes, count);
    backoff pause = {0};
    for (;;)
    {
        DWORD code =
            source_closing(&session->source) ? ERROR_HANDLE_EOF : allocate_all(session, sizes, count, bytes, lease);
        if (code == ERROR_SUCCESS)
            return code;
        give_up_slots(session, lease);
        if (code == ERROR_BUFFER_OVERFLOW)
            code = ring_is_full(session, wait, &pause);
        if (code != ERROR_SUCCESS)
            return code;
    }
}

DWORD
tunring_reserve(tunring_session *session, const uint32_t *sizes, uint32_t count, const tunring_wait *wait,
                tunring_lease **result)
{
    if (ring_bytes(sizes, count) > session->capacity - 4)
        return ERROR_INVALID_PARAMETER;
    if (!source_enter(&session->source))
        return ERROR_HANDLE_EOF;
    DWORD code = ERROR_NOT_ENOUGH_MEMORY;
    tunring_lease *lease = lease_new(count);
    if (!lease)
        goto leave;
    code = reserve_all(session, sizes, count, wait, lease);
    if (code == ERROR_SUCCESS)
    {
        lease_bind(lease, &session->source, true);
        *result = lease;
    }
    else
        tunring_lease_free(lease);
leave:
    source_leave(&session->source);
    return code;
}

DWORD
tunring_reserve_now(tunring_session *session, uint32_t size, tunring_lease **result)
{
    tunring_lease *lease = *result;
    *result = NULL;
    if (!session->api->backend || !source_enter(&session->source))
    {
        tunring_lease_free(lease);
        return ERROR_BUSY;
    }
    DWORD code = ERROR_BUSY;
    lease = lease_again(lease, 1);
    /* Without the lock of those who send: what they allocate later waits for this slot, as it should. */
    BYTE *slot = lease ? session->api->backend->allocate_now(session->handle, size) : NULL;
    if (slot)
    {
        append_reserved(lease, slot, size);
        lease_bind(lease, &session->source, true);
        *result = lease;
        code = ERROR_SUCCESS;
    }
    else
        tunring_lease_free(lease);
    source_leave(&session->source);
    return code;
}
