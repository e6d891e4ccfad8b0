/* SPDX-License-Identifier: MIT
 *
 * Events, for one thread of the caller's to take: handshake messages in a ring, and peers with flags in a
 * list, each at most once.
 */
#include "platform/wait.h"
#include "wireguard/device.h"

#include <stdlib.h>

bool
queue_open(queue *self)
{
    self->messages = calloc(TUNRING_WIREGUARD_QUEUE, sizeof(*self->messages));
    if (!self->messages)
    {
        SetLastError(ERROR_NOT_ENOUGH_MEMORY);
        return false;
    }
    if (!os_event_open(&self->ready))
    {
        free(self->messages);
        return false;
    }
    os_mutex_init(&self->lock);
    return true;
}

void
queue_close(queue *self)
{
    os_mutex_destroy(&self->lock);
    free(self->messages);
}

void
queue_end(queue *self)
{
    os_mutex_lock(&self->lock);
    tunring_wireguard_peer *peer = self->peers;
    self->peers = NULL;
    os_mutex_unlock(&self->lock);
    while (peer)
    {
        tunring_wireguard_peer *next = peer->next;
        peer_put(peer);
        peer = next;
    }
    os_event_close(&self->ready);
}

/* The lock is held. */
static void
signal_ready(queue *self)
{
    if (!self->signalled)
        os_event_set(&self->ready);
    self->signalled = true;
}

bool
queue_put(queue *self, const tunring_wireguard_message *message)
{
    os_mutex_lock(&self->lock);
    const bool room = self->count < TUNRING_WIREGUARD_QUEUE;
    if (room)
    {
        self->messages[(self->first + self->count) % TUNRING_WIREGUARD_QUEUE] = *message;
        atomic_fetch_add_explicit(&self->count, 1, memory_order_relaxed);
        signal_ready(self);
    }
    os_mutex_unlock(&self->lock);
    return room;
}

void
queue_flag(tunring_wireguard_peer *peer, uint32_t flags)
{
    queue *self = &peer->device->queue;
    if ((atomic_load_explicit(&peer->flags, memory_order_relaxed) & flags) == flags)
        return;
    os_mutex_lock(&self->lock);
    if (!atomic_fetch_or(&peer->flags, flags))
    {
        peer_use(peer);
        peer->next = NULL;
        if (self->peers)
            self->last_peer->next = peer;
        else
            self->peers = peer;
        self->last_peer = peer;
        signal_ready(self);
    }
    os_mutex_unlock(&self->lock);
}

/* Takes a peer with flags; the queue's use of it is the caller's from then on. The lock is held. */
static tunring_wireguard_peer *
take_peer(queue *self, uint32_t *flags)
{
    tunring_wireguard_peer *peer = self->peers;
    if (!peer)
        return NULL;
    self->peers = peer->next;
    *flags = atomic_exchange(&peer->flags, 0);
    return peer;
}

static void
take_messages(queue *self, tunring_wireguard_news *news)
{
    while (self->count && news->messages < TUNRING_WIREGUARD_TAKE)
    {
        news->message[news->messages++] = self->messages[self->first];
        self->first = (self->first + 1) % TUNRING_WIREGUARD_QUEUE;
        atomic_fetch_sub_explicit(&self->count, 1, memory_order_relaxed);
    }
}

/* Takes the messages that wait. False if there are none, and nobody wants the wait to end. */
static bool
take(queue *self, tunring_wireguard_news *news)
{
    news->messages = news->events = 0;
    os_mutex_lock(&self->lock);
    const bool woken = self->woken;
    self->woken = false;
    take_messages(self, news);
    tunring_wireguard_peer *taken[TUNRING_WIREGUARD_TAKE];
    uint32_t peers = 0;
    while (peers < TUNRING_WIREGUARD_TAKE && (taken[peers] = take_peer(self, &news->event[peers].flags)))
        peers++;
    if (self->signalled && !self->count && !self->peers)
    {
        os_event_clear(&self->ready);
        self->signalled = false;
    }
    os_mutex_unlock(&self->lock);
    for (uint32_t i = 0; i < peers; i++)
    {
        os_mutex_lock(&taken[i]->lock);
        const bool removed = taken[i]->removed;
        os_mutex_unlock(&taken[i]->lock);
        if (!removed)
            news->event[news->events++] =
                (tunring_wireguard_event){.peer = taken[i]->number, .flags = news->event[i].flags};
        peer_put(taken[i]);
    }
    return woken || news->messages || news->events;
}

/* ERROR_SUCCESS to look again, maybe for nothing. */
static DWORD
wait_for_news(tunring_wireguard *device, const tunring_wait *wait)
{
    const HANDLE handles[] = {device->stop.wait, wait->interrupt, device->queue.ready.wait};
    const int ready = wait_once(handles, 3, wait->deadline);
    if (ready == WAIT_NOTHING && os_now() < wait->deadline)
        return ERROR_SUCCESS;
    const DWORD code = wait_code(ready);
    if (code != ERROR_INVALID_HANDLE && (ready <= 0 || os_event_is_ours(&device->queue.ready)))
        return code;
    /* A program has closed our descriptors: nothing can be waited for any more. */
    device_over(device);
    return ERROR_HANDLE_EOF;
}

DWORD
tunring_wireguard_take(tunring_wireguard *device, const tunring_wait *wait, tunring_wireguard_news *news)
{
    if (!device_enter(device))
        return ERROR_HANDLE_EOF;
    DWORD code = ERROR_SUCCESS;
    while (code == ERROR_SUCCESS)
        if (device_ending(device))
            code = ERROR_HANDLE_EOF;
        else if (take(&device->queue, news))
            break;
        else
            code = wait ? wait_for_news(device, wait) : WAIT_TIMEOUT;
    device_leave(device);
    return code;
}

void
tunring_wireguard_wake(tunring_wireguard *device)
{
    if (!device_enter(device))
        return;
    os_mutex_lock(&device->queue.lock);
    device->queue.woken = true;
    signal_ready(&device->queue);
    os_mutex_unlock(&device->queue.lock);
    device_leave(device);
}
