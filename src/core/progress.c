/* SPDX-License-Identifier: MIT
 *
 * progress.h. The event stays set until the last of the waiters that it was set for has seen it: one who came later and
 * cleared it would make the others miss it.
 */
#include "core/progress.h"

#include "platform/wait.h"

bool
progress_open(progress *self)
{
    if (!os_event_open(&self->event))
        return false;
    os_mutex_init(&self->lock);
    return true;
}

void
progress_close(progress *self)
{
    os_mutex_destroy(&self->lock);
    os_event_close(&self->event);
}

void
progress_made(progress *self)
{
    /* Counts first and looks for waiters second: they do the opposite. */
    atomic_fetch_add(&self->made, 1);
    if (atomic_load(&self->sleeping) == 0)
        return;
    os_mutex_lock(&self->lock);
    if (atomic_load(&self->sleeping))
    {
        self->waking += atomic_exchange(&self->sleeping, 0);
        self->round++;
        os_event_set_if_ours(&self->event);
    }
    os_mutex_unlock(&self->lock);
}

static DWORD
sleep_once(progress *self, const tunring_wait *wait)
{
    const HANDLE handles[] = {wait->interrupt, self->event.wait};
    switch (wait_any(handles, 2, wait->deadline))
    {
    case 0:
        return ERROR_OPERATION_ABORTED;
    case 1:
        return os_event_is_ours(&self->event) ? ERROR_SUCCESS : ERROR_INVALID_HANDLE;
    case WAIT_NOTHING:
        return WAIT_TIMEOUT;
    default:
        return GetLastError();
    }
}

DWORD
progress_wait(progress *self, uint64_t seen, const tunring_wait *wait)
{
    os_mutex_lock(&self->lock);
    const uint64_t round = self->round;
    atomic_fetch_add(&self->sleeping, 1);
    DWORD code = ERROR_SUCCESS;
    while (code == ERROR_SUCCESS && round == self->round && progress_look(self) == seen)
    {
        /* Set for others, who are about to clear it. */
        const bool others = self->waking != 0;
        os_mutex_unlock(&self->lock);
        if (others)
            os_yield();
        code = sleep_once(self, wait);
        os_mutex_lock(&self->lock);
    }
    if (round == self->round)
        atomic_fetch_sub(&self->sleeping, 1);
    else if (--self->waking == 0)
        (void)os_event_clear_if_ours(&self->event);
    os_mutex_unlock(&self->lock);
    return progress_look(self) == seen ? code : ERROR_SUCCESS;
}
