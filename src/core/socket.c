/* SPDX-License-Identifier: MIT
 *
 * The life of a UDP socket, and receiving: reads go into chunks of an arena, each beginning where the last one ended. A
 * coalesced read is handed out as its datagrams, and what a batch has no room for waits for the next one.
 */
#include "core/socket.h"

#include "core/lease.h"

#include <stdlib.h>
#include <string.h>

/* A system that goes on refusing to receive does not do so for peers: each ICMP error is reported once. */
#define MAX_ERRORS 100000u

/* ---- Receiving ---- */

static uint32_t
datagrams_of(const udp_received *read)
{
    return read->length == 0 ? 1 : (read->length + read->segment - 1) / read->segment;
}

/* No chunk is free. An ICMP error makes the event ready although it is masked: left where it is, it would wake whoever
 * waits, again and again. */
static DWORD
without_room(tunring_socket *self)
{
    if (!arena_at_limit(&self->arena))
        return ERROR_NOT_ENOUGH_MEMORY;
    if (udp_take_error(self->handle))
        count_add(&self->icmp_errors, 1);
    return ERROR_NO_MORE_ITEMS;
}

/* Reads, again and again where ICMP errors come first. 0, or the system's error. */
static int
receive_past_icmp(tunring_socket *self, BYTE *data)
{
    int error = udp_receive(self->handle, data, SOCKET_READ, &self->leftover.read);
    for (unsigned tries = 0; error && !udp_own_error(error) && tries < MAX_ERRORS; tries++)
    {
        count_add(&self->icmp_errors, 1);
        error = udp_receive(self->handle, data, SOCKET_READ, &self->leftover.read);
    }
    return error;
}

/* Reads into the arena. 0, or why nothing was read. */
static DWORD
read_datagrams(tunring_socket *self)
{
    socket_leftover *leftover = &self->leftover;
    uint32_t room;
    BYTE *data = arena_room(&self->arena, SOCKET_READ, &room);
    const int error = data ? receive_past_icmp(self, data) : 0;
    const bool failed = error && !udp_would_block(error);
    atomic_store_explicit(&self->receive_error, failed ? error : 0, memory_order_relaxed);
    if (!data)
        return without_room(self);
    if (error)
        return failed ? udp_error_code(error) : ERROR_NO_MORE_ITEMS;
    leftover->data = data;
    leftover->count = datagrams_of(&leftover->read);
    arena_take(&self->arena, leftover->read.length, leftover->count);
    count_add(&self->reads, 1);
    if (leftover->count > 1)
        count_add(&self->coalesced_reads, 1);
    if (leftover->read.truncated)
        count_add(&self->truncated, 1);
    return ERROR_SUCCESS;
}

/* Hands out datagrams of the last read, as far as the lease has room. False without memory for their origin: then
 * none. */
static bool
hand_out(tunring_socket *self, tunring_lease *lease, uint32_t room)
{
    socket_leftover *leftover = &self->leftover;
    udp_received *read = &leftover->read;
    if (!lease_add_origin(lease, &read->from, read->ecn))
        return false;
    for (; leftover->count && lease->count < room; leftover->count--)
    {
        const uint32_t length = read->length < read->segment ? read->length : read->segment;
        lease_append(lease, leftover->data, length);
        leftover->data += length;
        read->length -= length;
    }
    return true;
}

/* Makes the read event report datagrams in the system, or not while no chunk is free. Whoever changes `starved` calls
 * this afterwards. The lock makes one step of the note and the system call: else a call that masks the event could be
 * overtaken by the release that watches again. */
static void
update_watch(tunring_socket *self)
{
    os_mutex_lock(&self->watch_lock);
    /* Writes `watched` first and looks at `starved` again, and update_event() does the opposite: one of them sees the
     * other. */
    while (atomic_load(&self->watched) == atomic_load(&self->arena.starved))
    {
        const bool watch = !atomic_load(&self->watched);
        atomic_store(&self->watched, watch);
        udp_events_watch(&self->events, self->handle, watch);
    }
    os_mutex_unlock(&self->watch_lock);
}

/* Makes the read event report what the next receive will find. */
static void
update_event(tunring_socket *self)
{
    const bool unread = self->kept || self->leftover.count != 0;
    if (unread != self->signalled)
    {
        udp_events_signal(&self->events, unread);
        self->signalled = unread;
    }
    if (atomic_load(&self->watched) == atomic_load(&self->arena.starved))
        update_watch(self);
}

/* A chunk is free again, after there was none. */
static void
chunk_came_back(void *context)
{
    tunring_socket *self = context;
    /* A socket that is closing has closed its events, or is about to; in a forked child the lock may be held for
     * ever. */
    if (!source_enter(&self->source))
        return;
    update_watch(self);
    source_leave(&self->source);
}

static DWORD
socket_receive_many(tunring_source *source, tunring_lease *lease, uint32_t room)
{
    tunring_socket *self = socket_of(source);
    os_mutex_lock(&self->receive_lock);
    DWORD code = ERROR_SUCCESS;
    while (code == ERROR_SUCCESS && lease->count < room)
    {
        if (self->leftover.count == 0)
            code = read_datagrams(self);
        if (code == ERROR_SUCCESS && !hand_out(self, lease, room))
            code = ERROR_NOT_ENOUGH_MEMORY;
    }
    update_event(self);
    os_mutex_unlock(&self->receive_lock);
    return code;
}

static void
socket_report_kept(tunring_source *source, bool kept)
{
    tunring_socket *self = socket_of(source);
    os_mutex_lock(&self->receive_lock);
    self->kept = kept;
    update_event(self);
    os_mutex_unlock(&self->receive_lock);
}

static void
socket_give_back(tunring_source *source, const tunring_slot *slots, uint32_t count)
{
    (void)source;
    arena_give_back(slots, count);
}

/* ---- Life ---- */

/* Notes what the system has dropped. */
static void
look_at_drops(tunring_socket *self)
{
    uint64_t drops;
    if (udp_drops(self->handle, &drops))
        atomic_store(&self->last_drops, drops);
}

static void
socket_detach(tunring_source *source)
{
    tunring_socket *self = socket_of(source);
    session_capture_stop(&source->capture);
    look_at_drops(self);
    const tunring_slot rest = {.data = self->leftover.data};
    for (; self->leftover.count; self->leftover.count--)
        arena_give_back(&rest, 1);
    /* While Windows watches a socket, nobody can make it block again, as one that was taken over has to. */
    udp_events_watch(&self->events, self->handle, false);
    udp_events_close(&self->events);
    for (uint32_t i = 0; i < self->restored_count; i++)
    {
        const tunring_socket_option *option = &self->restored[i];
        udp_set_option(self->handle, option->level, option->name, option->value);
    }
    udp_close(self->handle);
}

static void
socket_end(tunring_source *source)
{
    arena_close(&socket_of(source)->arena);
}

static void
socket_free(tunring_source *source)
{
    tunring_socket *self = socket_of(source);
    os_mutex_destroy(&self->receive_lock);
    os_mutex_destroy(&self->watch_lock);
    os_mutex_destroy(&self->refusal_lock);
    free(self);
}

static const source_ops socket_ops = {
    .receive_many = socket_receive_many,
    .report_kept = socket_report_kept,
    .capture_received = socket_capture_received,
    .give_back = socket_give_back,
    .detach = socket_detach,
    .end = socket_end,
    .free = socket_free,
};

DWORD
tunring_socket_open(const tunring_socket_options *options, tunring_socket **result)
{
    DWORD code = ERROR_NOT_ENOUGH_MEMORY;
    tunring_socket *self = calloc(1, sizeof(*self));
    if (!self)
        return code;
    if (!source_open(&self->source, &socket_ops))
    {
        code = GetLastError();
        goto free_self;
    }
    self->handle = udp_adopt(options->handle);
    if (self->handle == UDP_NONE)
    {
        code = GetLastError();
        goto discard_source;
    }
    if (!udp_events_open(&self->events, self->handle))
    {
        code = GetLastError();
        goto close_handle;
    }
    udp_own_address(self->handle, &self->own);
    look_at_drops(self);
    self->first_drops = atomic_load(&self->last_drops);
    self->ipv6 = options->ipv6;
    memcpy(self->restored, options->restored, sizeof(self->restored));
    self->restored_count = options->restored_count;
    atomic_init(&self->runs, options->runs);
    atomic_init(&self->watched, true);
    self->source.read_event = self->events.readable;
    self->source.auto_reset = self->events.auto_reset;
    os_mutex_init(&self->receive_lock);
    os_mutex_init(&self->watch_lock);
    os_mutex_init(&self->refusal_lock);
    arena_init(&self->arena, options->max_chunks, chunk_came_back, self);
    *result = self;
    return ERROR_SUCCESS;

close_handle:
    udp_close(self->handle);
discard_source:
    source_discard(&self->source);
free_self:
    free(self);
    return code;
}

tunring_source *
tunring_socket_source(tunring_socket *socket)
{
    return &socket->source;
}

DWORD
tunring_socket_set_mark(tunring_socket *self, uint32_t mark, int *number)
{
    *number = 0;
    if (!source_enter(&self->source))
        return ERROR_HANDLE_EOF;
    *number = udp_set_mark(self->handle, mark);
    source_leave(&self->source);
    return *number ? udp_error_code(*number) : ERROR_SUCCESS;
}

DWORD
tunring_socket_mark(tunring_socket *self, uint32_t *mark)
{
    if (!source_enter(&self->source))
        return ERROR_HANDLE_EOF;
    *mark = udp_mark(self->handle);
    source_leave(&self->source);
    return ERROR_SUCCESS;
}

HANDLE
tunring_socket_room_event(const tunring_socket *socket)
{
    return socket->events.writable;
}

int
tunring_socket_receive_error(const tunring_socket *socket)
{
    return atomic_load_explicit(&socket->receive_error, memory_order_relaxed);
}

#define FIGURE(name) {#name, offsetof(tunring_socket_stats, name)},
const tunring_figure tunring_socket_figures[] = {TUNRING_SOCKET_COUNTS(FIGURE){NULL, 0}};

void
tunring_socket_read_stats(tunring_socket *self, tunring_socket_stats *stats)
{
    if (source_enter(&self->source))
    {
        look_at_drops(self);
        source_leave(&self->source);
    }
#define READ(name) .name = count_read(&self->name),
    *stats = (tunring_socket_stats){TUNRING_SOCKET_COUNTS(READ)};
    /* Modulo what the system counts to. */
    stats->host_dropped = (uint32_t)(atomic_load(&self->last_drops) - self->first_drops);
    stats->runs = atomic_load(&self->runs);
}
