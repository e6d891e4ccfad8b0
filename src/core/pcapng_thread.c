/* SPDX-License-Identifier: MIT
 *
 * The thread of a pcapng file. It takes chunks out of the buffer and writes them. All system calls are made without the
 * lock; one that never returns keeps this thread, its file and its memory, and nobody else.
 */
#include "core/pcapng_exit.h"
#include "core/pcapng_file.h"
#include "platform/wait.h"

/* Nanoseconds for which it lets small batches gather. */
#define NAP 1000000

/* Nanoseconds between two looks without an event that could wake it: a program may have closed its descriptor. */
#define BLIND_NAP 10000000

/* Unlocks the file while it sleeps, which may end for nothing. */
static void
rest(tunring_pcapng_file *self, pcapng_rest how, int64_t deadline)
{
    self->rest = how;
    os_mutex_unlock(&self->lock);
    const int ready = wait_once(&self->wake.wait, 1, deadline);
    if (ready != WAIT_NOTHING && !os_event_clear_if_ours(&self->wake))
        os_sleep(BLIND_NAP);
    os_mutex_lock(&self->lock);
    self->rest = PCAPNG_AWAKE;
}

/* The next chunk, once there is one. False when there is nothing left to do. The lock is held. */
static bool
take_chunk(tunring_pcapng_file *self)
{
    if (self->writing)
        pcapng_buffer_give_back(&self->buffer, self->writing);
    self->writing = NULL;
    if (!pcapng_file_is_urgent(self))
        rest(self, PCAPNG_NAPPING, os_now() + NAP);
    while (pcapng_buffer_is_empty(&self->buffer) && !self->closing)
    {
        pcapng_mark_finished(self);
        rest(self, PCAPNG_ASLEEP, OS_FOREVER);
    }
    self->writing = pcapng_buffer_take(&self->buffer);
    self->written = 0;
    return self->writing != NULL;
}

/* Notes what a write has passed on. False if the file was given up in the meantime. */
static bool
note(tunring_pcapng_file *self, size_t some)
{
    os_mutex_lock(&self->lock);
    self->written += some;
    self->passed += some;
    const bool goes_on = self->pace != PCAPNG_GIVEN_UP;
    os_mutex_unlock(&self->lock);
    if (some)
        progress_made(&self->progress);
    return goes_on;
}

/* Takes a block back that is written in part. Nobody else changes what it looks at. */
static void
cut_torn_block(tunring_pcapng_file *self)
{
    const size_t torn = self->written - pcapng_chunk_whole(self->writing, self->written);
    if (torn)
        file_cut(&self->file, torn);
}

/* The file takes nothing any more. One that was given up has no failure. */
static void
fail(tunring_pcapng_file *self, int failure)
{
    os_mutex_lock(&self->lock);
    if (self->pace != PCAPNG_GIVEN_UP)
        atomic_store(&self->failure, failure);
    pcapng_file_give_up(self);
    os_mutex_unlock(&self->lock);
    progress_made(&self->progress);
}

/* False if there is no time for that. */
static bool
wait_for_reader(tunring_pcapng_file *self)
{
    os_mutex_lock(&self->lock);
    if (self->pace == PCAPNG_HURRIED)
        pcapng_file_give_up(self);
    const bool goes_on = self->pace == PCAPNG_PATIENT;
    os_mutex_unlock(&self->lock);
    if (!goes_on)
        return false;
    file_wait(&self->file, &self->wake);
    /* Before it looks at the pace again: a change sets the event anew. */
    (void)os_event_clear_if_ours(&self->wake);
    return true;
}

/* False if nothing more is to be written. */
static bool
write_chunk(tunring_pcapng_file *self)
{
    const pcapng_chunk *chunk = self->writing;
    int failure = 0;
    while (self->written < chunk->filled && failure <= 0)
    {
        size_t some;
        failure = file_write(&self->file, chunk->data + self->written, chunk->filled - self->written, &some);
        if (!note(self, some) || (failure == FILE_FULL && !wait_for_reader(self)))
            break;
    }
    if (self->written == chunk->filled)
        return true;
    cut_torn_block(self);
    if (failure > 0)
        fail(self, failure);
    return false;
}

void
pcapng_thread(void *argument)
{
    tunring_pcapng_file *self = argument;
    os_mutex_lock(&self->lock);
    bool goes_on = true;
    while (goes_on && take_chunk(self))
    {
        os_mutex_unlock(&self->lock);
        progress_made(&self->progress);
        goes_on = write_chunk(self);
        os_mutex_lock(&self->lock);
    }
    os_mutex_unlock(&self->lock);
    file_close(&self->file);
    os_mutex_lock(&self->lock);
    pcapng_mark_finished(self);
    self->ended = true;
    os_mutex_unlock(&self->lock);
    progress_made(&self->progress);
    pcapng_file_release(self);
}
