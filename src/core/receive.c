/* SPDX-License-Identifier: MIT
 *
 * Receiving a batch: take what is there, else spin or sleep until something is.
 */
#include "core/backoff.h"
#include "core/lease.h"
#include "core/spin.h"
#include "platform/wait.h"

/* For a caller who gives no wait. */
static const tunring_wait look_once = {.deadline = 0};

/* Slots to start with: a batch costs memory by what came. */
#define FIRST_ROOM 64u

typedef struct receiver
{
    tunring_source *source;
    tunring_lease *lease;
    uint32_t max;
    bool consumed;        /* a wait was ended by the read event, and no "empty" was seen since */
    int64_t linger_until; /* 0 before the first packet */
    spin spin;
    bool woken;     /* by the read event, and no packet has come since */
    backoff futile; /* such wake-ups for nothing */
} receiver;

/* 0: the lease is full. ERROR_NO_MORE_ITEMS: no more packets wait. Another code will come again. */
static DWORD
take_packets(receiver *self)
{
    tunring_source *source = self->source;
    const uint32_t max = self->max;
    const uint32_t before = self->lease->count;
    DWORD code;
    do
    {
        const uint32_t room = self->lease->room < max ? self->lease->room : max;
        code = source->ops->receive_many(source, self->lease, room);
    } while (code == ERROR_SUCCESS && self->lease->room < max && lease_grow(&self->lease, max));
    if (code == ERROR_NO_MORE_ITEMS)
        self->consumed = false;
    if (self->lease->count > before)
        self->woken = false;
    /* A source that can't be waited for any more is over, see source_waiting_failed(). */
    const bool over = atomic_load_explicit(&source->removed, memory_order_relaxed);
    return code == ERROR_NO_MORE_ITEMS && over ? ERROR_HANDLE_EOF : code;
}

typedef enum wait_handle
{
    STOP,
    INTERRUPT,
    CANCEL,
    READ,
    ALL_HANDLES
} wait_handle;

/* Sleeps on the first `count` handles. ERROR_SUCCESS to look at the ring again. */
static DWORD
sleep_on(receiver *self, const tunring_wait *wait, unsigned count, int64_t until)
{
    tunring_source *source = self->source;
    const HANDLE handles[ALL_HANDLES] = {source->stop.wait, wait->interrupt, wait->cancel, source->read_event};
    const int64_t began = os_now();
    switch (wait_any(handles, count, until))
    {
    case STOP:
        return ERROR_HANDLE_EOF;
    case INTERRUPT:
        return ERROR_OPERATION_ABORTED;
    case CANCEL:
        return ERROR_CANCELLED;
    case READ:
        self->consumed = self->woken = true;
        count_add(&source->counts.wakes, 1);
        spin_learn(source, self->spin.until != 0, os_now() - began);
        self->spin = (spin){0};
        return ERROR_SUCCESS;
    case WAIT_NOTHING:
        return ERROR_SUCCESS;
    default:
        return source_waiting_failed(source);
    }
}

static DWORD
sleep_until_ready(receiver *self, const tunring_wait *wait, int64_t deadline)
{
    const int64_t now = os_now();
    if (now >= deadline)
        return WAIT_TIMEOUT;
    /* Woken for nothing again and again, by packets that others were faster to take or because a program has put a file
     * of its own in the read event's place: the event is then no reason to look at once. */
    const int64_t pause = self->woken ? backoff_next(&self->futile) : 0;
    self->woken = false;
    if (pause)
        return sleep_on(self, wait, READ, pause < deadline - now ? now + pause : deadline);
    count_add(&self->source->counts.waits, 1);
    return sleep_on(self, wait, ALL_HANDLES, deadline);
}

/* Before somebody else waits for the read event: a signal left over from packets that were taken without a wait would
 * end that wait for nothing. True if there was one, so that packets may have come with it. */
static bool
settle(receiver *self, const tunring_wait *wait)
{
    if (wait == &look_once || !self->source->auto_reset || !wait_settle(self->source->read_event))
        return false;
    self->consumed = true;
    return true;
}

/* There are packets. False if more are worth a wait. */
static bool
enough(receiver *self, const tunring_wait *wait)
{
    if (self->lease->count >= wait->min_packets || self->lease->count >= self->max)
        return true;
    if (!self->linger_until)
        self->linger_until = os_deadline(wait->linger);
    return os_now() >= self->linger_until;
}

/* Waits until packets are there, and those that have come are enough. No packet is left in a call that fails. */
static DWORD
wait_for_packets(receiver *self, const tunring_wait *wait)
{
    for (;;)
    {
        const bool closing = source_closing(self->source);
        DWORD code = closing ? ERROR_HANDLE_EOF : take_packets(self);
        if (self->lease->count && self->spin.until)
            spin_succeeded(self->source);
        if (self->lease->count && (code != ERROR_NO_MORE_ITEMS || enough(self, wait)))
            return ERROR_SUCCESS;
        if (code != ERROR_NO_MORE_ITEMS)
            return code;
        if (wait->deadline == 0 && !self->lease->count)
        {
            if (!settle(self, wait))
                return WAIT_TIMEOUT;
            continue;
        }
        if (spin_again(self->source, &self->spin))
            continue;
        code = sleep_until_ready(self, wait, self->lease->count ? self->linger_until : wait->deadline);
        if (code != ERROR_SUCCESS)
            return self->lease->count ? ERROR_SUCCESS : code;
    }
}

static void
hand_over(receiver *self, tunring_lease **result)
{
    source_counts *counts = &self->source->counts;
    count_add(&counts->received_packets, self->lease->count);
    count_add(&counts->received_bytes, self->lease->bytes);
    count_add(&counts->received_batches, 1);
    session_capture *capture = &self->source->capture;
    if (session_captures(capture, TUNRING_RECEIVED))
    {
        tunring_captured packets = {.slots = self->lease->slots, .count = self->lease->count};
        if (self->source->ops->capture_received)
            self->source->ops->capture_received(self->source, self->lease, &packets);
        else
            session_capture_write(capture, TUNRING_RECEIVED, os_wall_clock(), &packets);
    }
    lease_bind(self->lease, self->source, false);
    *result = self->lease;
}

DWORD
tunring_receive(tunring_source *source, uint32_t max, const tunring_wait *wait, tunring_lease **result)
{
    receiver self = {.source = source, .max = max};
    if (!source_enter(source))
        return ERROR_HANDLE_EOF;
    DWORD code = ERROR_NOT_ENOUGH_MEMORY;
    self.lease = lease_new(max < FIRST_ROOM ? max : FIRST_ROOM);
    if (!self.lease)
        goto leave;
    code = wait_for_packets(&self, wait ? wait : &look_once);
    if (code == ERROR_SUCCESS)
        hand_over(&self, result);
    else
        tunring_lease_free(self.lease);
    if (code == ERROR_HANDLE_EOF && !source_closing(source))
        atomic_store(&source->removed, true);
    if (self.consumed && source->auto_reset)
        wait_rearm(source->read_event);
leave:
    source_leave(source);
    return code;
}
