/* SPDX-License-Identifier: MIT
 *
 * A guard against the lost wake-up of Wintun up to 0.14. Those versions store the send ring's tail and then load
 * "the driver sleeps" without a full fence in between, on both sides: a packet can be published just as the driver
 * falls asleep, and then nobody wakes it before the next send. So 3 to 6 ms after a session's last send a helper thread
 * sends one filler, which wakes the driver, and which the driver drops. It sleeps while nothing is sent.
 */
#ifndef TUNRING_WAKE_GUARD_H
#define TUNRING_WAKE_GUARD_H

#include <stdatomic.h>
#include <stdbool.h>

struct tunring_session;

/* A session's place in the guard's list. */
typedef struct wake_watch
{
    struct wake_watch *next;
    struct tunring_session *session;
    bool watched;      /* constant while the session is open */
    bool owed;         /* a filler is due; the guard's own */
    _Atomic bool sent; /* something was published since the guard looked */
} wake_watch;

/* True while the guard doesn't look, so that a sender has to wake it. */
extern _Atomic bool wake_guard_asleep;

/* Watches a session of an affected driver; does nothing for others. */
void wake_guard_add(struct tunring_session *session, wake_watch *watch);
/* The session's last call has returned. */
void wake_guard_remove(wake_watch *watch);
void wake_guard_wake(void);

/* After each publication. Relaxed: both sides see each other's store long before the guard's next look. */
static inline void
wake_guard_note(wake_watch *watch)
{
    if (!watch->watched)
        return;
    atomic_store_explicit(&watch->sent, true, memory_order_relaxed);
    if (atomic_load_explicit(&wake_guard_asleep, memory_order_relaxed))
        wake_guard_wake();
}

#endif
