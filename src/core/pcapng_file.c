/* SPDX-License-Identifier: MIT
 *
 * Writing captures: packets become blocks in a buffer, and a write takes the buffer to the file. A file takes all of it
 * each time. A pipe takes what its reader has made room for; the rest waits in the buffer.
 */
#include "core/pcapng_file.h"

#include "core/pcapng.h"
#include "core/session.h"
#include "platform/file.h"

#include <stdlib.h>
#include <string.h>

/* Bytes of the buffer: a batch of 256 large packets goes out in one write. */
#define BUFFER 0x100000u

struct tunring_pcapng_file
{
    file file;
    unsigned generation;   /* of the process that opened it */
    _Atomic uint32_t refs; /* the caller's, and one of each session that is captured to it */
    os_mutex lock;         /* guards what follows; never held over a wait for a reader */
    bool closed;
    unsigned waiters; /* calls that wait for the reader without the lock; the last one closes the file */
    size_t whole;     /* where in the buffer the first block begins that is not written as a whole */
    size_t begin;     /* what is written */
    size_t end;       /* what is filled */
    BYTE *buffer;
    uint32_t snaplens[PCAPNG_MAX_INTERFACES];
    _Atomic uint32_t interfaces;
    _Atomic int failure;
    _Atomic uint64_t packets, dropped;
};

DWORD
tunring_pcapng_open(HANDLE original, const char *application, tunring_pcapng_file **result)
{
    DWORD code = ERROR_NOT_ENOUGH_MEMORY;
    tunring_pcapng_file *self = calloc(1, sizeof(*self));
    if (!self)
        return code;
    self->buffer = malloc(BUFFER);
    if (!self->buffer)
        goto failed;
    code = file_open(&self->file, original);
    if (code != ERROR_SUCCESS)
        goto failed;
    os_mutex_init(&self->lock);
    self->generation = os_generation();
    atomic_init(&self->refs, 1);
    self->end = pcapng_section(self->buffer, application);
    *result = self;
    return ERROR_SUCCESS;
failed:
    free(self->buffer);
    free(self);
    return code;
}

/* Locks it, unless it is closed or of another process. */
static bool
enter(tunring_pcapng_file *self)
{
    if (self->generation != os_generation())
        return false;
    os_mutex_lock(&self->lock);
    if (!self->closed)
        return true;
    os_mutex_unlock(&self->lock);
    return false;
}

/* Passes over the blocks that are written as a whole. */
static void
find_whole(tunring_pcapng_file *self)
{
    while (self->whole < self->begin)
    {
        size_t next = self->whole + pcapng_block_size(self->buffer + self->whole);
        if (next > self->begin)
            return;
        self->whole = next;
    }
}

/* Gives up what is not written as a whole. Returns how much of it is in the file. */
static size_t
discard(tunring_pcapng_file *self)
{
    find_whole(self);
    size_t torn = self->begin - self->whole;
    uint64_t lost = 0;
    for (size_t at = self->whole; at < self->end; at += pcapng_block_size(self->buffer + at))
        lost += pcapng_block_is_packet(self->buffer + at);
    count_sub(&self->packets, lost);
    count_add(&self->dropped, lost);
    self->whole = self->begin = self->end = 0;
    return torn;
}

/* Writes the buffer out, as far as the reader takes it. */
static DWORD
drain(tunring_pcapng_file *self)
{
    size_t written;
    if (atomic_load(&self->failure))
        return ERROR_GEN_FAILURE;
    int failure = file_write(&self->file, self->buffer + self->begin, self->end - self->begin, &written);
    self->begin += written;
    if (failure == FILE_FULL)
        return ERROR_BUFFER_OVERFLOW;
    if (failure)
    {
        file_cut(&self->file, discard(self));
        atomic_store(&self->failure, failure);
        return ERROR_GEN_FAILURE;
    }
    self->whole = self->begin = self->end = 0;
    return ERROR_SUCCESS;
}

/* Room for one block more. */
static DWORD
make_room(tunring_pcapng_file *self, size_t size)
{
    if (BUFFER - self->end >= size)
        return ERROR_SUCCESS;
    DWORD code = drain(self);
    if (code != ERROR_BUFFER_OVERFLOW)
        return code;
    find_whole(self);
    memmove(self->buffer, self->buffer + self->whole, self->end - self->whole);
    self->begin -= self->whole;
    self->end -= self->whole;
    self->whole = 0;
    return BUFFER - self->end >= size ? ERROR_SUCCESS : ERROR_BUFFER_OVERFLOW;
}

DWORD
tunring_pcapng_add_interface(tunring_pcapng_file *self, const char *name, const char *description, uint32_t snaplen,
                             uint32_t *number)
{
    DWORD code = ERROR_INVALID_PARAMETER;
    if (!enter(self))
        return ERROR_HANDLE_EOF;
    uint32_t count = atomic_load(&self->interfaces);
    if (count == PCAPNG_MAX_INTERFACES)
        goto unlock;
    code = make_room(self, PCAPNG_MAX_HEADER);
    if (code != ERROR_SUCCESS)
        goto unlock;
    self->end += pcapng_interface(self->buffer + self->end, name, description, snaplen);
    code = drain(self);
    if (code == ERROR_GEN_FAILURE)
        goto unlock;
    code = ERROR_SUCCESS;
    self->snaplens[count] = snaplen;
    *number = count;
    atomic_store(&self->interfaces, count + 1);
unlock:
    os_mutex_unlock(&self->lock);
    return code;
}

uint32_t
tunring_pcapng_interfaces(const tunring_pcapng_file *self)
{
    return atomic_load(&self->interfaces);
}

/* Packets from *done on, into the buffer, and whenever that is full to the file. */
static DWORD
append(tunring_pcapng_file *self, const tunring_captured *what, uint32_t *done)
{
    uint32_t snaplen = self->snaplens[what->interface_id];
    DWORD code = ERROR_SUCCESS;
    for (; *done < what->count; ++*done)
    {
        uint32_t i = *done;
        const BYTE *data = what->slots ? what->slots[i].data : what->packets[i].data;
        uint32_t length = what->slots ? what->slots[i].length : what->packets[i].length;
        uint32_t captured = length < snaplen ? length : snaplen;
        code = make_room(self, pcapng_packet_size(captured));
        if (code != ERROR_SUCCESS)
            break;
        self->end += pcapng_packet(self->buffer + self->end, data, captured, length, what->interface_id,
                                   what->direction, what->times[what->one_time ? 0 : i]);
        /* At once, so that giving the buffer up finds them counted. */
        count_add(&self->packets, 1);
    }
    return code;
}

static DWORD
write_now(tunring_pcapng_file *self, const tunring_captured *what, uint32_t *done)
{
    if (!enter(self))
        return ERROR_HANDLE_EOF;
    DWORD code = ERROR_GEN_FAILURE;
    if (!atomic_load(&self->failure))
        code = append(self, what, done);
    if (code == ERROR_SUCCESS)
        code = drain(self);
    os_mutex_unlock(&self->lock);
    return code;
}

static DWORD
wait_for_reader(tunring_pcapng_file *self, const tunring_wait *wait)
{
    if (!enter(self))
        return ERROR_HANDLE_EOF;
    self->waiters++;
    os_mutex_unlock(&self->lock);
    DWORD code = file_wait(&self->file, wait->interrupt, wait->deadline);
    os_mutex_lock(&self->lock);
    if (--self->waiters == 0 && self->closed)
        file_close(&self->file);
    os_mutex_unlock(&self->lock);
    return code;
}

DWORD
tunring_pcapng_write(tunring_pcapng_file *self, const tunring_captured *what, const tunring_wait *wait, uint32_t *done)
{
    for (;;)
    {
        DWORD code = write_now(self, what, done);
        if (code != ERROR_BUFFER_OVERFLOW || !wait)
            return code;
        code = wait_for_reader(self, wait);
        if (code != ERROR_SUCCESS)
            return code;
    }
}

void
pcapng_file_write_or_drop(tunring_pcapng_file *self, const tunring_captured *what)
{
    uint32_t done = 0;
    tunring_pcapng_write(self, what, NULL, &done);
    count_add(&self->dropped, what->count - done);
}

void
tunring_pcapng_close(tunring_pcapng_file *self)
{
    if (!enter(self))
        return;
    self->closed = true;
    discard(self);
    if (self->waiters == 0)
        file_close(&self->file);
    os_mutex_unlock(&self->lock);
}

void
pcapng_file_hold(tunring_pcapng_file *self)
{
    atomic_fetch_add(&self->refs, 1);
}

void
tunring_pcapng_drop(tunring_pcapng_file *self)
{
    if (atomic_fetch_sub(&self->refs, 1) != 1)
        return;
    if (self->generation == os_generation())
    {
        tunring_pcapng_close(self);
        os_mutex_destroy(&self->lock);
    }
    free(self->buffer);
    free(self);
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
