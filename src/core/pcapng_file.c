/* SPDX-License-Identifier: MIT
 *
 * pcapng_file.h, for those who have packets to write.
 */
#include "core/pcapng_file.h"

#include "core/pcapng.h"
#include "core/pcapng_exit.h"
#include "core/source.h"

#include <stdlib.h>
#include <string.h>

/* Nanoseconds for which a session waits, at most, until a file that it is too fast for has taken one more chunk. */
#define MOMENT 10000000

static void
count_block(tunring_pcapng_file *self, size_t size)
{
    pcapng_buffer_add(&self->buffer, size);
    self->appended += size;
}

static DWORD
start_thread(tunring_pcapng_file *self)
{
    self->generation = os_generation();
    os_mutex_init(&self->lock);
    atomic_init(&self->users, 1);
    atomic_init(&self->refs, 2);
    /* It has a header to write. */
    pcapng_mark_unfinished(self);
    if (os_thread_detached(pcapng_thread, self))
        return ERROR_SUCCESS;
    pcapng_mark_finished(self);
    os_mutex_destroy(&self->lock);
    return ERROR_NOT_ENOUGH_MEMORY;
}

DWORD
tunring_pcapng_open(HANDLE original, const char *application, tunring_pcapng_file **result)
{
    DWORD code = ERROR_NOT_ENOUGH_MEMORY;
    tunring_pcapng_file *self = calloc(1, sizeof(*self));
    if (!self)
        return code;
    if (!pcapng_buffer_open(&self->buffer))
        goto free_self;
    code = file_open(&self->file, original);
    if (code != ERROR_SUCCESS)
        goto close_buffer;
    if (!progress_open(&self->progress))
    {
        code = GetLastError();
        goto close_file;
    }
    if (!os_event_open(&self->wake))
    {
        code = GetLastError();
        goto close_progress;
    }
    count_block(self, pcapng_section(pcapng_buffer_room(&self->buffer, PCAPNG_MAX_HEADER), application));
    code = start_thread(self);
    if (code != ERROR_SUCCESS)
        goto close_wake;
    *result = self;
    return ERROR_SUCCESS;

close_wake:
    os_event_close(&self->wake);
close_progress:
    progress_close(&self->progress);
close_file:
    file_close(&self->file);
close_buffer:
    pcapng_buffer_close(&self->buffer);
free_self:
    free(self);
    return code;
}

void
pcapng_file_release(tunring_pcapng_file *self)
{
    if (atomic_fetch_sub(&self->refs, 1) != 1)
        return;
    os_mutex_destroy(&self->lock);
    os_event_close(&self->wake);
    progress_close(&self->progress);
    pcapng_buffer_close(&self->buffer);
    free(self);
}

static bool
foreign(const tunring_pcapng_file *self)
{
    return OS_FOREIGN(self);
}

bool
pcapng_file_is_urgent(const tunring_pcapng_file *self)
{
    return self->closing || pcapng_buffer_has_full(&self->buffer) || self->passed < self->wanted;
}

/* Unlocks it, and wakes the thread if it sleeps and has something to do. */
static void
leave(tunring_pcapng_file *self)
{
    const bool sleeps = self->rest == PCAPNG_ASLEEP;
    if (sleeps && pcapng_buffer_is_empty(&self->buffer))
        pcapng_mark_finished(self);
    const bool wake = self->rest != PCAPNG_AWAKE &&
                      (pcapng_file_is_urgent(self) || (sleeps && !pcapng_buffer_is_empty(&self->buffer)));
    if (wake)
        self->rest = PCAPNG_AWAKE;
    os_mutex_unlock(&self->lock);
    /* Once per rest of the thread, and not per packet. */
    if (wake)
        os_event_set_if_ours(&self->wake);
}

/* Locks it for somebody who has more to write. 0, or why nothing is taken. */
static DWORD
enter(tunring_pcapng_file *self)
{
    if (foreign(self))
        return ERROR_HANDLE_EOF;
    os_mutex_lock(&self->lock);
    DWORD code = ERROR_SUCCESS;
    if (self->closing)
        code = ERROR_HANDLE_EOF;
    else if (atomic_load(&self->failure))
        code = ERROR_GEN_FAILURE;
    else
    {
        pcapng_mark_unfinished(self);
        if (pcapng_exiting())
            code = ERROR_HANDLE_EOF;
    }
    if (code != ERROR_SUCCESS)
        leave(self);
    return code;
}

static DWORD
add_interface(tunring_pcapng_file *self, const char *name, const char *description, uint32_t snaplen, uint32_t *number)
{
    const uint32_t count = atomic_load(&self->interfaces);
    if (count == PCAPNG_MAX_INTERFACES)
        return ERROR_INVALID_PARAMETER;
    BYTE *room = pcapng_buffer_room(&self->buffer, PCAPNG_MAX_HEADER);
    if (!room)
        return ERROR_BUFFER_OVERFLOW;
    count_block(self, pcapng_interface(room, name, description, snaplen));
    self->snaplens[count] = snaplen;
    *number = count;
    atomic_store(&self->interfaces, count + 1);
    return ERROR_SUCCESS;
}

/* Packets from *done on, into the buffer. */
static DWORD
append(tunring_pcapng_file *self, const tunring_captured *what, uint32_t *done)
{
    const uint32_t snaplen = self->snaplens[what->interface_id];
    const uint32_t first = *done;
    DWORD code = ERROR_SUCCESS;
    uint32_t i = first;
    for (; i < what->count; i++)
    {
        const BYTE *data = what->slots ? what->slots[i].data : what->packets[i].data;
        const uint32_t length = what->slots ? what->slots[i].length : what->packets[i].length;
        BYTE bytes[TUNRING_MAX_HEADERS];
        tunring_packet headers = {.data = bytes};
        if (what->headers)
            headers.length = what->headers(what->context, i, data, length, bytes);
        const uint32_t all = headers.length + length;
        const uint32_t captured = all < snaplen ? all : snaplen;
        BYTE *room = pcapng_buffer_room(&self->buffer, pcapng_packet_size(captured));
        if (!room)
        {
            code = ERROR_BUFFER_OVERFLOW;
            break;
        }
        count_block(self, pcapng_packet(room, &headers, data, captured, all, what->interface_id, what->direction,
                                        what->times[what->one_time ? 0 : i]));
    }
    count_add(&self->packets, i - first);
    *done = i;
    return code;
}

DWORD
tunring_pcapng_add_interface(tunring_pcapng_file *self, const char *name, const char *description, uint32_t snaplen,
                             const tunring_wait *wait, uint32_t *number)
{
    uint64_t seen;
    DWORD code;
    do
    {
        seen = progress_look(&self->progress);
        code = enter(self);
        if (code != ERROR_SUCCESS)
            return code;
        code = add_interface(self, name, description, snaplen, number);
        leave(self);
    } while (code == ERROR_BUFFER_OVERFLOW && wait &&
             (code = progress_wait(&self->progress, seen, wait)) == ERROR_SUCCESS);
    return code;
}

uint32_t
tunring_pcapng_interfaces(const tunring_pcapng_file *self)
{
    return atomic_load(&self->interfaces);
}

DWORD
tunring_pcapng_write(tunring_pcapng_file *self, const tunring_captured *what, const tunring_wait *wait, uint32_t *done)
{
    uint64_t seen;
    DWORD code;
    do
    {
        seen = progress_look(&self->progress);
        code = enter(self);
        if (code != ERROR_SUCCESS)
            return code;
        code = append(self, what, done);
        leave(self);
    } while (code == ERROR_BUFFER_OVERFLOW && wait &&
             (code = progress_wait(&self->progress, seen, wait)) == ERROR_SUCCESS);
    return code;
}

/* True for a file that gets on, if not as fast as its buffer fills. */
static bool
is_behind(const tunring_pcapng_file *self)
{
    return self->file.regular && pcapng_buffer_is_half_full(&self->buffer) && self->passed != self->stuck_at;
}

bool
pcapng_file_write_or_drop(tunring_pcapng_file *self, const tunring_captured *what)
{
    uint32_t done = 0;
    bool behind = false;
    if (enter(self) == ERROR_SUCCESS)
    {
        append(self, what, &done);
        behind = is_behind(self);
        leave(self);
    }
    count_add(&self->dropped, what->count - done);
    return behind;
}

void
pcapng_file_give_way(tunring_pcapng_file *self)
{
    const tunring_wait moment = {.deadline = os_now() + MOMENT};
    const uint64_t seen = progress_look(&self->progress);
    os_mutex_lock(&self->lock);
    const bool behind = is_behind(self);
    const uint64_t passed = self->passed;
    os_mutex_unlock(&self->lock);
    if (!behind || progress_wait(&self->progress, seen, &moment) == ERROR_SUCCESS)
        return;
    /* Nobody waits for this file again before it has got on. */
    os_mutex_lock(&self->lock);
    self->stuck_at = passed;
    os_mutex_unlock(&self->lock);
}

uint64_t
tunring_pcapng_position(tunring_pcapng_file *self)
{
    if (foreign(self))
        return 0;
    os_mutex_lock(&self->lock);
    const uint64_t position = self->appended;
    os_mutex_unlock(&self->lock);
    return position;
}

static DWORD
flushed(tunring_pcapng_file *self, uint64_t position)
{
    os_mutex_lock(&self->lock);
    DWORD code = WAIT_TIMEOUT;
    if (atomic_load(&self->failure))
        code = ERROR_GEN_FAILURE;
    else if (self->closing)
        code = ERROR_HANDLE_EOF;
    else if (self->passed >= position)
        code = ERROR_SUCCESS;
    else if (self->wanted < position)
        self->wanted = position;
    leave(self);
    return code;
}

DWORD
tunring_pcapng_flush(tunring_pcapng_file *self, uint64_t position, const tunring_wait *wait)
{
    if (foreign(self))
        return ERROR_HANDLE_EOF;
    uint64_t seen;
    DWORD code;
    do
    {
        seen = progress_look(&self->progress);
        code = flushed(self, position);
    } while (code == WAIT_TIMEOUT && wait && (code = progress_wait(&self->progress, seen, wait)) == ERROR_SUCCESS);
    return code;
}

/* Takes nothing from here on. True once the thread is done, or no longer waited for. */
static bool
close_now(tunring_pcapng_file *self)
{
    os_mutex_lock(&self->lock);
    const bool first = !self->closing;
    self->closing = true;
    const bool over = self->ended || (self->pace == PCAPNG_GIVEN_UP && !atomic_load(&self->failure));
    leave(self);
    /* For those who wait for room. */
    if (first)
        progress_made(&self->progress);
    return over;
}

DWORD
tunring_pcapng_close(tunring_pcapng_file *self, const tunring_wait *wait)
{
    if (foreign(self))
        return ERROR_HANDLE_EOF;
    for (;;)
    {
        const uint64_t seen = progress_look(&self->progress);
        if (close_now(self))
            return atomic_load(&self->failure) ? ERROR_GEN_FAILURE : ERROR_SUCCESS;
        const DWORD code = wait ? progress_wait(&self->progress, seen, wait) : WAIT_TIMEOUT;
        if (code != ERROR_SUCCESS)
            return code;
    }
}

void
pcapng_file_give_up(tunring_pcapng_file *self)
{
    if (self->pace == PCAPNG_GIVEN_UP)
        return;
    uint64_t lost = pcapng_buffer_discard(&self->buffer);
    if (self->writing)
        lost += pcapng_chunk_packets(self->writing, pcapng_chunk_whole(self->writing, self->written));
    count_sub(&self->packets, lost);
    count_add(&self->dropped, lost);
    self->pace = PCAPNG_GIVEN_UP;
}

void
tunring_pcapng_give_up(tunring_pcapng_file *self)
{
    if (foreign(self))
        return;
    os_mutex_lock(&self->lock);
    self->closing = true;
    if (!self->ended)
        pcapng_file_give_up(self);
    pcapng_mark_finished(self);
    os_mutex_unlock(&self->lock);
    os_event_set_if_ours(&self->wake);
    progress_made(&self->progress);
}

void
pcapng_file_hold(tunring_pcapng_file *self)
{
    atomic_fetch_add(&self->users, 1);
}

void
tunring_pcapng_drop(tunring_pcapng_file *self)
{
    /* The child of a fork has neither the thread nor, perhaps, an unlocked lock: it leaves everything as it is. */
    if (foreign(self) || atomic_fetch_sub(&self->users, 1) != 1)
        return;
    os_mutex_lock(&self->lock);
    self->closing = true;
    if (self->pace == PCAPNG_PATIENT)
        self->pace = PCAPNG_HURRIED;
    os_mutex_unlock(&self->lock);
    os_event_set_if_ours(&self->wake);
    pcapng_file_release(self);
}

int
tunring_pcapng_failure(const tunring_pcapng_file *self)
{
    return atomic_load(&self->failure);
}

uint64_t
tunring_pcapng_packets(const tunring_pcapng_file *self)
{
    return atomic_load_explicit(&self->packets, memory_order_relaxed);
}

uint64_t
tunring_pcapng_dropped(const tunring_pcapng_file *self)
{
    return atomic_load_explicit(&self->dropped, memory_order_relaxed);
}
