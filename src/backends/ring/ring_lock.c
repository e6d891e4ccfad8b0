/* SPDX-License-Identifier: MIT
 *
 * The lock of a ring side or a cable. Those who must not wait leave their work to whoever holds it.
 *
 * No work is lost: `pending` is set before the second try, and every holder reads it after unlocking. So either that
 * try gets the lock, or its holder has yet to unlock and will see `pending`.
 */
#include "backends/ring/ring.h"

void
ring_lock_init(ring_lock *lock)
{
    os_mutex_init(&lock->mutex);
    atomic_init(&lock->pending, 0);
}

void
ring_lock_destroy(ring_lock *lock)
{
    os_mutex_destroy(&lock->mutex);
}

void
ring_lock_enter(ring_lock *lock)
{
    os_mutex_lock(&lock->mutex);
}

bool
ring_lock_try(ring_lock *lock)
{
    return os_mutex_trylock(&lock->mutex);
}

void
ring_lock_leave(ring_lock *lock, void (*work)(void *), void *context)
{
    os_mutex_unlock(&lock->mutex);
    while (atomic_load(&lock->pending) != 0 && os_mutex_trylock(&lock->mutex))
    {
        /* Cleared first: what is asked for from here on is asked for again. */
        atomic_exchange(&lock->pending, 0);
        work(context);
        os_mutex_unlock(&lock->mutex);
    }
}

void
ring_lock_combine(ring_lock *lock, void (*work)(void *), void *context)
{
    if (!os_mutex_trylock(&lock->mutex))
    {
        atomic_exchange(&lock->pending, 1);
        if (!os_mutex_trylock(&lock->mutex))
            return;
        atomic_exchange(&lock->pending, 0);
    }
    work(context);
    ring_lock_leave(lock, work, context);
}
