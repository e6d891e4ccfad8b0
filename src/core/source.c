/* SPDX-License-Identifier: MIT
 *
 * The life of a source. Calls register in `life`, so that close() can wait for every call that may still touch it. A
 * lease, which needs the memory of slots after that, has taken a pin while its call was in flight. The last pin ends
 * the source.
 */
#include "core/source.h"

static _Atomic uint64_t sources_pinned;

/* Nobody waits for what nothing is received from, so it takes no event: there may be no descriptor to spare. */
static bool
has_stop(const tunring_source *source)
{
    return source->ops->receive_many != NULL;
}

bool
source_open(tunring_source *source, const source_ops *ops)
{
    source->ops = ops;
    if (has_stop(source) && !os_event_open(&source->stop))
        return false;
    source->generation = os_generation();
    atomic_init(&source->pins, 1);
    atomic_init(&source->users, 1);
    os_mutex_init(&source->kept_lock);
    session_capture_init(&source->capture);
    return true;
}

void
source_discard(tunring_source *source)
{
    session_capture_destroy(&source->capture);
    os_mutex_destroy(&source->kept_lock);
    if (has_stop(source))
        os_event_close(&source->stop);
}

bool
source_enter(tunring_source *source)
{
    return !OS_FOREIGN(source) && life_enter(&source->life);
}

void
source_leave(tunring_source *source)
{
    life_leave(&source->life);
}

static void
end_source(tunring_source *source)
{
    source->ops->end(source);
    source_put(source);
}

static void
end_deferred(deferred_job *job)
{
    tunring_source *source = DEFERRED_OWNER(tunring_source, job);
    if (!OS_FOREIGN(source))
        end_source(source);
}

DWORD
source_waiting_failed(tunring_source *source)
{
    const DWORD code = GetLastError();
    if (code != ERROR_INVALID_HANDLE)
        return code;
    atomic_store(&source->removed, true);
    return ERROR_HANDLE_EOF;
}

void
source_pin(tunring_source *source)
{
    atomic_fetch_add(&source->pins, 1);
}

void
source_unpin(tunring_source *source)
{
    if (atomic_fetch_sub(&source->pins, 1) != 1)
        return;
    count_sub(&sources_pinned, 1);
    source->job.run = end_deferred;
    defer(&source->job);
}

void
source_use(tunring_source *source)
{
    atomic_fetch_add(&source->users, 1);
}

void
source_put(tunring_source *source)
{
    if (atomic_fetch_sub(&source->users, 1) != 1)
        return;
    session_capture_destroy(&source->capture);
    os_mutex_destroy(&source->kept_lock);
    source->ops->free(source);
}

/* Calls in flight have left, and new ones turn back at the door. */
static void
close_quiet(tunring_source *source)
{
    if (source->kept)
    {
        source->ops->give_back(source, source->kept->slots, source->kept->count);
        tunring_lease_free(source->kept);
        source->kept = NULL;
    }
    source->ops->detach(source);
    if (has_stop(source))
        os_event_close(&source->stop);
    /* end_source() gives up a use of its own, which the pins stand for; the caller's stays until
     * tunring_source_drop(). */
    atomic_fetch_add(&source->users, 1);
    count_add(&sources_pinned, 1);
    if (atomic_fetch_sub(&source->pins, 1) == 1)
    {
        count_sub(&sources_pinned, 1);
        end_source(source);
    }
}

void
tunring_source_close(tunring_source *source)
{
    if (OS_FOREIGN(source))
        return;
    deferred_run();
    if (!life_shut(&source->life))
    {
        life_await_end(&source->life);
        return;
    }
    if (has_stop(source))
        os_event_set_if_ours(&source->stop);
    life_await_calls(&source->life);
    close_quiet(source);
    life_end(&source->life);
}

static void
drop_deferred(deferred_job *job)
{
    tunring_source *source = DEFERRED_OWNER(tunring_source, job);
    if (OS_FOREIGN(source))
        return;
    tunring_source_close(source);
    source_put(source);
}

void
tunring_source_drop(tunring_source *source)
{
    if (OS_FOREIGN(source))
        return;
    if (source_closing(source))
    {
        source_put(source);
        return;
    }
    source->job.run = drop_deferred;
    defer(&source->job);
}

tunring_state
tunring_source_state(const tunring_source *source)
{
    if (OS_FOREIGN(source))
        return TUNRING_FORKED;
    if (atomic_load(&source->removed))
        return TUNRING_REMOVED;
    return source_closing(source) ? TUNRING_CLOSED : TUNRING_OPEN;
}

HANDLE
tunring_source_read_event(const tunring_source *source)
{
    return source->read_event;
}

uint64_t
tunring_sources_pinned(void)
{
    return atomic_load(&sources_pinned);
}
