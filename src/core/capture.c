/* SPDX-License-Identifier: MIT
 *
 * Writing captures: packets become blocks in a buffer, and a write takes the buffer to the file. A file takes all of it
 * each time. A pipe takes what its reader has made room for; the rest waits in the buffer.
 */
#include "core/capture.h"

#include "platform/file.h"
#include "core/pcapng.h"

#include <stdlib.h>
#include <string.h>

/* Bytes of the buffer: a batch of 256 large packets goes out in one write. */
#define BUFFER 0x100000u

struct tunring_capture
{
    file file;
    unsigned generation; /* of the process that opened it */
    os_mutex lock;       /* guards what follows; never held over a wait for a reader */
    bool closed;
    unsigned waiters; /* calls that wait for the reader without the lock; the last one closes the file */
    size_t whole;     /* where in the buffer the first block begins that is not written as a whole */
    size_t begin;     /* what is written */
    size_t end;       /* what is filled */
    BYTE *buffer;
    uint32_t snaplens[CAPTURE_MOST_INTERFACES];
    _Atomic uint32_t interfaces;
    _Atomic int failure;
    _Atomic uint64_t packets, dropped;
};

DWORD
tunring_capture_open(HANDLE original, const char *application, tunring_capture **result)
{
    DWORD code = ERROR_NOT_ENOUGH_MEMORY;
    tunring_capture *capture = calloc(1, sizeof(*capture));
    if (!capture)
        return code;
    capture->buffer = malloc(BUFFER);
    if (!capture->buffer)
        goto failed;
    code = file_open(&capture->file, original);
    if (code != ERROR_SUCCESS)
        goto failed;
    os_mutex_init(&capture->lock);
    capture->generation = os_generation();
    capture->end = pcapng_section(capture->buffer, application);
    *result = capture;
    return ERROR_SUCCESS;
failed:
    free(capture->buffer);
    free(capture);
    return code;
}

/* Locks it, unless it is closed or of another process. */
static bool
capture_enter(tunring_capture *capture)
{
    if (capture->generation != os_generation())
        return false;
    os_mutex_lock(&capture->lock);
    if (!capture->closed)
        return true;
    os_mutex_unlock(&capture->lock);
    return false;
}

/* Passes over the blocks that are written as a whole. */
static void
find_whole(tunring_capture *capture)
{
    while (capture->whole < capture->begin)
    {
        size_t next = capture->whole + pcapng_block_size(capture->buffer + capture->whole);
        if (next > capture->begin)
            return;
        capture->whole = next;
    }
}

/* Gives up what is not written as a whole. Returns how much of it is in the file. */
static size_t
discard(tunring_capture *capture)
{
    find_whole(capture);
    size_t torn = capture->begin - capture->whole;
    uint64_t lost = 0;
    for (size_t at = capture->whole; at < capture->end; at += pcapng_block_size(capture->buffer + at))
        lost += pcapng_block_is_packet(capture->buffer + at);
    count_sub(&capture->packets, lost);
    count_add(&capture->dropped, lost);
    capture->whole = capture->begin = capture->end = 0;
    return torn;
}

/* Writes the buffer out, as far as the reader takes it. */
static DWORD
drain(tunring_capture *capture)
{
    size_t written;
    if (atomic_load(&capture->failure))
        return ERROR_GEN_FAILURE;
    int failure = file_write(&capture->file, capture->buffer + capture->begin, capture->end - capture->begin, &written);
    capture->begin += written;
    if (failure == FILE_FULL)
        return ERROR_BUFFER_OVERFLOW;
    if (failure)
    {
        file_cut(&capture->file, discard(capture));
        atomic_store(&capture->failure, failure);
        return ERROR_GEN_FAILURE;
    }
    capture->whole = capture->begin = capture->end = 0;
    return ERROR_SUCCESS;
}

/* Room for one block more. */
static DWORD
make_room(tunring_capture *capture, size_t size)
{
    if (BUFFER - capture->end >= size)
        return ERROR_SUCCESS;
    DWORD code = drain(capture);
    if (code != ERROR_BUFFER_OVERFLOW)
        return code;
    find_whole(capture);
    memmove(capture->buffer, capture->buffer + capture->whole, capture->end - capture->whole);
    capture->begin -= capture->whole;
    capture->end -= capture->whole;
    capture->whole = 0;
    return BUFFER - capture->end >= size ? ERROR_SUCCESS : ERROR_BUFFER_OVERFLOW;
}

DWORD
tunring_capture_add_interface(tunring_capture *capture, const char *name, const char *description, uint32_t snaplen,
                              uint32_t *number)
{
    DWORD code = ERROR_INVALID_PARAMETER;
    if (!capture_enter(capture))
        return ERROR_HANDLE_EOF;
    uint32_t count = atomic_load(&capture->interfaces);
    if (count == CAPTURE_MOST_INTERFACES)
        goto unlock;
    code = make_room(capture, PCAPNG_MOST_HEADER);
    if (code != ERROR_SUCCESS)
        goto unlock;
    capture->end += pcapng_interface(capture->buffer + capture->end, name, description, snaplen);
    code = drain(capture);
    if (code == ERROR_GEN_FAILURE)
        goto unlock;
    code = ERROR_SUCCESS;
    capture->snaplens[count] = snaplen;
    *number = count;
    atomic_store(&capture->interfaces, count + 1);
unlock:
    os_mutex_unlock(&capture->lock);
    return code;
}

uint32_t
tunring_capture_interfaces(const tunring_capture *capture)
{
    return atomic_load(&capture->interfaces);
}

/* Packets from *done on, into the buffer, and whenever that is full to the file. */
static DWORD
append(tunring_capture *capture, const tunring_captured *what, uint32_t *done)
{
    uint32_t snaplen = capture->snaplens[what->interface_id];
    DWORD code = ERROR_SUCCESS;
    for (; *done < what->count; ++*done)
    {
        uint32_t i = *done;
        const BYTE *data = what->slots ? what->slots[i].data : what->packets[i].data;
        uint32_t length = what->slots ? what->slots[i].length : what->packets[i].length;
        uint32_t captured = length < snaplen ? length : snaplen;
        code = make_room(capture, pcapng_packet_size(captured));
        if (code != ERROR_SUCCESS)
            break;
        capture->end += pcapng_packet(capture->buffer + capture->end, data, captured, length, what->interface_id,
                                      what->direction, what->times[what->one_time ? 0 : i]);
        /* At once, so that giving the buffer up finds them counted. */
        count_add(&capture->packets, 1);
    }
    return code;
}

static DWORD
write_now(tunring_capture *capture, const tunring_captured *what, uint32_t *done)
{
    if (!capture_enter(capture))
        return ERROR_HANDLE_EOF;
    DWORD code = ERROR_GEN_FAILURE;
    if (!atomic_load(&capture->failure))
        code = append(capture, what, done);
    if (code == ERROR_SUCCESS)
        code = drain(capture);
    os_mutex_unlock(&capture->lock);
    return code;
}

static DWORD
wait_for_reader(tunring_capture *capture, const tunring_wait *wait)
{
    if (!capture_enter(capture))
        return ERROR_HANDLE_EOF;
    capture->waiters++;
    os_mutex_unlock(&capture->lock);
    DWORD code = file_wait(&capture->file, wait->interrupt, wait->deadline);
    os_mutex_lock(&capture->lock);
    if (--capture->waiters == 0 && capture->closed)
        file_close(&capture->file);
    os_mutex_unlock(&capture->lock);
    return code;
}

DWORD
tunring_capture_write(tunring_capture *capture, const tunring_captured *what, const tunring_wait *wait, uint32_t *done)
{
    for (;;)
    {
        DWORD code = write_now(capture, what, done);
        if (code != ERROR_BUFFER_OVERFLOW || !wait)
            return code;
        code = wait_for_reader(capture, wait);
        if (code != ERROR_SUCCESS)
            return code;
    }
}

void
capture_tapped(tunring_capture *capture, const tunring_captured *what)
{
    uint32_t done = 0;
    tunring_capture_write(capture, what, NULL, &done);
    count_add(&capture->dropped, what->count - done);
}

void
tunring_capture_close(tunring_capture *capture)
{
    if (!capture_enter(capture))
        return;
    capture->closed = true;
    discard(capture);
    if (capture->waiters == 0)
        file_close(&capture->file);
    os_mutex_unlock(&capture->lock);
}

void
tunring_capture_free(tunring_capture *capture)
{
    if (capture->generation == os_generation())
        os_mutex_destroy(&capture->lock);
    free(capture->buffer);
    free(capture);
}

int
tunring_capture_failure(const tunring_capture *capture)
{
    return atomic_load(&capture->failure);
}

uint64_t
tunring_capture_packets(const tunring_capture *capture)
{
    return atomic_load_explicit(&capture->packets, memory_order_relaxed);
}

uint64_t
tunring_capture_dropped(const tunring_capture *capture)
{
    return atomic_load_explicit(&capture->dropped, memory_order_relaxed);
}
