/* SPDX-License-Identifier: MIT
 *
 * wake_guard.h: one thread for the process. It never exists where no driver is affected, so it knows nothing of forks.
 */
#include "core/wake_guard.h"

#include "platform/os.h"
#include "core/session.h"

/* The last driver version that needs it. */
#define LAST_AFFECTED 0x0000000Eu /* 0.14 */
/* Nanoseconds between two looks: a filler follows the last send after one to two of them. */
#define TICK 3000000

_Atomic bool wake_guard_asleep = true;

static _Atomic bool switched_off;
static os_mutex lock = OS_MUTEX_INIT; /* guards what follows, and `next` and `owed` of each watch */
static wake_watch *watches;
static os_condition woken = OS_CONDITION_INIT; /* something was sent while the guard slept */
static bool has_thread;
static HANDLE ticker; /* of the guard's own naps */

void
tunring_wake_guard_enable(bool enabled)
{
    atomic_store(&switched_off, !enabled);
}

static bool
driver_is_affected(const tunring_api *api)
{
    return !api->backend && api->WintunGetRunningDriverVersion() <= LAST_AFFECTED;
}

void
wake_guard_add(tunring_session *session, wake_watch *watch)
{
    if (atomic_load(&switched_off) || !driver_is_affected(session->api))
        return;
    watch->session = session;
    watch->watched = true;
    os_mutex_lock(&lock);
    watch->next = watches;
    watches = watch;
    os_mutex_unlock(&lock);
}

void
wake_guard_remove(wake_watch *watch)
{
    if (!watch->watched)
        return;
    os_mutex_lock(&lock);
    wake_watch **place = &watches;
    while (*place != watch)
        place = &(*place)->next;
    *place = watch->next;
    os_mutex_unlock(&lock);
}

/* True once there is nothing left to do: it was sent, or the session is over. */
static bool
wake_driver(tunring_session *session)
{
    if (!source_enter(&session->source))
        return true;
    bool done = false;
    /* The holder of the lock is sending. */
    if (os_mutex_trylock(&session->send_lock))
    {
        BYTE *slot = session->api->WintunAllocateSendPacket(session->handle, 1);
        done = slot || GetLastError() != ERROR_BUFFER_OVERFLOW;
        if (slot)
        {
            slot[0] = 0; /* no IP version: the driver passes over it */
            session->api->WintunSendPacket(session->handle, slot);
        }
        os_mutex_unlock(&session->send_lock);
    }
    source_leave(&session->source);
    return done;
}

/* True if any session has sent something that is not followed by a filler yet. The lock is held. */
static bool
look_at_all(void)
{
    bool busy = false;
    for (wake_watch *watch = watches; watch; watch = watch->next)
    {
        if (atomic_exchange_explicit(&watch->sent, false, memory_order_relaxed))
            watch->owed = true;
        else if (watch->owed)
            watch->owed = !wake_driver(watch->session);
        busy = busy || watch->owed;
    }
    return busy;
}

static bool
nap_and_look(void)
{
    os_sleep_by(&ticker, TICK);
    os_mutex_lock(&lock);
    const bool busy = look_at_all();
    os_mutex_unlock(&lock);
    return busy;
}

/* Until a sender wakes the guard. One may have sent without having seen yet that the guard falls asleep: so there is
 * one more look before. */
static void
fall_asleep(void)
{
    atomic_store(&wake_guard_asleep, true);
    os_sleep_by(&ticker, TICK);
    os_mutex_lock(&lock);
    if (look_at_all())
        atomic_store(&wake_guard_asleep, false);
    while (atomic_load(&wake_guard_asleep))
        os_condition_wait(&woken, &lock);
    os_mutex_unlock(&lock);
}

static void
stand_guard(void *unused)
{
    (void)unused;
    for (;;)
        if (!nap_and_look())
            fall_asleep();
}

void
wake_guard_wake(void)
{
    os_mutex_lock(&lock);
    /* Without memory for a thread the next send tries again. */
    if (!has_thread)
        has_thread = os_thread_detached(stand_guard, NULL);
    if (has_thread)
    {
        atomic_store(&wake_guard_asleep, false);
        os_condition_signal(&woken);
    }
    os_mutex_unlock(&lock);
}
