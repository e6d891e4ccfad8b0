/* SPDX-License-Identifier: MIT
 *
 * Receiving a batch: take what is there, else spin or sleep until something is.
 */
#include "core/backoff.h"
#include "core/lease.h"
#include "core/spin.h"
#include "platform/wait.h"

/* For a caller that gives no wait. */
static const tunring_wait look_once = {.deadline = 0};

/* Slots to start with: a batch's memory depends on its packets. */
#define FIRST_ROOM 64u

/* Number of brief waits that only spin after one that slept in vain. */
#define BRIEF_REST 64u

typedef struct receiver
{
    tunring_source *source;
    tunring_lease *lease;
    uint32_t max;
    bool consumed;        /* a wait was ended by the read event, and no "empty" was seen since */
    int64_t linger_until; /* 0 before the first packet */
    int64_t brief_until;  /* of a brief wait; 0 before it sleeps */
    spin spin;
    bool woken;     /* by the read event, and no packet has come since */
    backoff futile; /* such wake-ups for nothing */
} receiver;

/* Keeps a lease of gathered packets, or none (NULL). The lock is held. */
static void
keep(tunring_source *source, tunring_lease *lease)
{
    source->kept = lease;
    atomic_store(&source->kept_count, lease ? lease->count : 0);
}

/* Makes the read event report what is kept, or no longer do so. The lock is held, in a call on the source. */
static void
report_kept(tunring_source *source, bool kept)
{
    if (kept != source->kept_reported && source->ops->report_kept)
        source->ops->report_kept(source, kept);
    source->kept_reported = kept;
}

/* Begins an empty lease with what was gathered, if anything was. False without memory. */
static bool
take_kept(receiver *self)
{
    tunring_source *source = self->source;
    bool taken = true;
    os_mutex_lock(&source->kept_lock);
    tunring_lease *kept = source->kept, *rest = NULL;
    if (kept && kept->count > self->max)
        taken = (rest = lease_cut(kept, self->max)) != NULL;
    if (kept && taken)
    {
        tunring_lease_free(self->lease);
        self->lease = kept;
        keep(source, rest);
        /* Nobody else knows of the rest. */
        report_kept(source, rest != NULL);
    }
    os_mutex_unlock(&source->kept_lock);
    return taken;
}

/* 0: the lease is full. ERROR_NO_MORE_ITEMS: no more packets wait. Another code will come again. */
static DWORD
take_more(receiver *self)
{
    tunring_source *source = self->source;
    const uint32_t max = self->max;
    const uint32_t before = self->lease->count;
    DWORD code;
    do
    {
        const uint32_t room = self->lease->room < max ? self->lease->room : max;
        code = self->lease->count < room ? source->ops->receive_many(source, self->lease, room) : ERROR_SUCCESS;
    } while (code == ERROR_SUCCESS && self->lease->room < max && lease_grow(&self->lease, max));
    if (code == ERROR_NO_MORE_ITEMS)
        self->consumed = false;
    if (self->lease->count > before)
        self->woken = false;
    /* A source that can't be waited for any more is over, see source_waiting_failed(). */
    const bool over = atomic_load_explicit(&source->removed, memory_order_relaxed);
    return code == ERROR_NO_MORE_ITEMS && over ? ERROR_HANDLE_EOF : code;
}

/* The same, beginning with what was gathered. */
static DWORD
take_packets(receiver *self)
{
    if (atomic_load(&self->source->kept_count) && self->lease->count == 0 && !take_kept(self))
        return ERROR_NOT_ENOUGH_MEMORY;
    return take_more(self);
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
    switch (wait->brief ? wait_once(handles, count, until) : life_wait(&source->life, handles, count, until))
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
        if (wait->brief)
            self->brief_until = began; /* so that it ends: a signal may have come */
        return ERROR_SUCCESS;
    default:
        return source_waiting_failed(source);
    }
}

/* The time at which a brief wait ends: now, if it is not to sleep or has slept long enough. */
static int64_t
brief_end(receiver *self, int64_t now)
{
    _Atomic uint32_t *rest = &self->source->brief_rest;
    const uint32_t resting = atomic_load_explicit(rest, memory_order_relaxed);
    if (!self->brief_until && resting)
    {
        atomic_store_explicit(rest, resting - 1, memory_order_relaxed);
        return now;
    }
    if (!self->brief_until)
        self->brief_until = now + wait_brief;
    else if (now >= self->brief_until)
    {
        atomic_store_explicit(rest, BRIEF_REST, memory_order_relaxed);
        count_sub(&self->source->counts.waits, 1); /* the wait that goes on is the same */
    }
    return self->brief_until;
}

static DWORD
sleep_until_ready(receiver *self, const tunring_wait *wait, int64_t deadline)
{
    const int64_t now = os_now();
    if (now >= deadline)
        return WAIT_TIMEOUT;
    if (wait->brief)
    {
        const int64_t end = brief_end(self, now);
        if (now >= end)
            return WAIT_TIMEOUT;
        deadline = end < deadline ? end : deadline;
    }
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
    bool looked = wait->looked;
    if (looked)
        spin_inherit(self->source, &self->spin);
    for (;; looked = false)
    {
        const bool closing = source_closing(self->source);
        DWORD code = closing ? ERROR_HANDLE_EOF : looked ? ERROR_NO_MORE_ITEMS : take_packets(self);
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

/* Adds the packets that are there to those that are kept. The lock is held. */
static DWORD
gather(receiver *self)
{
    tunring_source *source = self->source;
    const tunring_wait poll = {.deadline = 0};
    tunring_lease *kept = source->kept;
    self->lease = kept ? kept : lease_new(self->max < FIRST_ROOM ? self->max : FIRST_ROOM);
    if (!self->lease)
        return ERROR_NOT_ENOUGH_MEMORY;
    DWORD code = ERROR_SUCCESS;
    do
        if (self->lease->count < self->max)
            code = take_more(self);
    while (code == ERROR_NO_MORE_ITEMS && settle(self, &poll));
    if (self->lease->count)
        keep(source, self->lease);
    else
        tunring_lease_free(self->lease);
    return code;
}

DWORD
tunring_gather(tunring_source *source, uint32_t max, uint32_t *count)
{
    receiver self = {.source = source, .max = max};
    *count = 0;
    if (!source_enter(source))
        return ERROR_HANDLE_EOF;
    os_mutex_lock(&source->kept_lock);
    const DWORD code = gather(&self);
    *count = atomic_load(&source->kept_count);
    report_kept(source, false);
    os_mutex_unlock(&source->kept_lock);
    if (self.consumed && source->auto_reset)
        wait_rearm(source->read_event);
    source_leave(source);
    return code == ERROR_NO_MORE_ITEMS ? ERROR_SUCCESS : code;
}

void
tunring_gather_end(tunring_source *source)
{
    if (!source_enter(source))
        return;
    os_mutex_lock(&source->kept_lock);
    report_kept(source, source->kept != NULL);
    os_mutex_unlock(&source->kept_lock);
    source_leave(source);
}
