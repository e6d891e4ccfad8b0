/* SPDX-License-Identifier: MIT
 *
 * Waiting for a source's event on behalf of an event loop that can't: one thread sits here, without Python, and returns
 * once per burst. It is armed for each wait, since the loop has to look at the source before the next one makes sense.
 */
#include "core/source.h"
#include "platform/wait.h"

#include <stdlib.h>

struct tunring_notifier
{
    tunring_source *source; /* a use of it */
    HANDLE event;           /* the source's, which is waited for */
    os_event armed;
    os_event ended;
    _Atomic bool ending; /* `ended` is set, or could not be */
};

DWORD
tunring_notifier_open(tunring_source *source, HANDLE event, tunring_notifier **result)
{
    DWORD code = ERROR_NOT_ENOUGH_MEMORY;
    tunring_notifier *notifier = calloc(1, sizeof(*notifier));
    if (!notifier)
        goto failed;
    if (!os_event_open(&notifier->armed))
    {
        code = GetLastError();
        goto free_notifier;
    }
    if (!os_event_open(&notifier->ended))
    {
        code = GetLastError();
        goto close_armed;
    }
    notifier->source = source;
    notifier->event = event;
    source_use(source);
    *result = notifier;
    return ERROR_SUCCESS;

close_armed:
    os_event_close(&notifier->armed);
free_notifier:
    free(notifier);
failed:
    return code;
}

/* Forked children have neither the thread that waits nor the events, whose numbers may be other files' there. */
static bool
foreign(const tunring_notifier *notifier)
{
    return OS_FOREIGN(notifier->source);
}

void
tunring_notifier_free(tunring_notifier *notifier)
{
    if (foreign(notifier))
        return;
    os_event_close(&notifier->ended);
    os_event_close(&notifier->armed);
    source_put(notifier->source);
    free(notifier);
}

void
tunring_notifier_arm(tunring_notifier *notifier)
{
    if (!foreign(notifier))
        os_event_set_if_ours(&notifier->armed);
}

void
tunring_notifier_end(tunring_notifier *notifier)
{
    if (foreign(notifier))
        return;
    atomic_store(&notifier->ending, true);
    os_event_set_if_ours(&notifier->ended);
}

/* The index of the handle that ended the wait, or the reason why there was none in *code. The first handle stands for
 * the end, which may come without it: a program may have closed its descriptor. */
static int
wait_for_ever(tunring_notifier *notifier, const HANDLE *handles, unsigned count, DWORD *code)
{
    tunring_source *source = notifier->source;
    int index = WAIT_NOTHING;
    while (index == WAIT_NOTHING && !atomic_load(&notifier->ending) && !source_closing(source))
        index = wait_once(handles, count, TUNRING_FOREVER);
    *code = index == WAIT_BROKEN ? source_waiting_failed(source) : ERROR_SUCCESS;
    return index == WAIT_NOTHING ? 0 : index;
}

static DWORD
wait_until_ready(tunring_notifier *notifier)
{
    tunring_source *source = notifier->source;
    enum
    {
        READY = 2
    };
    if (!source_enter(source))
        return ERROR_HANDLE_EOF;
    const HANDLE handles[] = {source->stop.wait, notifier->ended.wait, notifier->event};
    DWORD code;
    int index = wait_for_ever(notifier, handles, 3, &code);
    /* This thread doesn't look at the ring, so others who wait must be woken as well. The loop settles the event
     * before it arms the notifier again. */
    if (index == READY && notifier->event == source->read_event && source->auto_reset)
        wait_rearm(source->read_event);
    source_leave(source);
    if (code == ERROR_SUCCESS && index != READY)
        code = ERROR_HANDLE_EOF;
    return code;
}

DWORD
tunring_notifier_wait(tunring_notifier *notifier)
{
    enum
    {
        ENDED
    };
    const HANDLE handles[] = {notifier->ended.wait, notifier->armed.wait};
    if (foreign(notifier))
        return ERROR_HANDLE_EOF;
    DWORD code;
    int index = wait_for_ever(notifier, handles, 2, &code);
    if (code != ERROR_SUCCESS)
        return code;
    if (index == ENDED || !os_event_clear_if_ours(&notifier->armed))
        return ERROR_HANDLE_EOF;
    return wait_until_ready(notifier);
}
