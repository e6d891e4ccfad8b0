/* SPDX-License-Identifier: MIT
 *
 * Waiting for a read event on behalf of an event loop that can't: one thread sits here, without Python, and returns
 * once a burst. It is armed for each wait, since the loop has to look at the ring before the next one makes sense.
 */
#include "core/source.h"
#include "platform/wait.h"

#include <stdlib.h>

struct tunring_alarm
{
    tunring_source *source; /* a use of it */
    os_event armed;
    os_event ended;
};

DWORD
tunring_alarm_open(tunring_source *source, tunring_alarm **result)
{
    DWORD code = ERROR_NOT_ENOUGH_MEMORY;
    tunring_alarm *alarm = calloc(1, sizeof(*alarm));
    if (!alarm)
        goto failed;
    if (!os_event_open(&alarm->armed))
    {
        code = GetLastError();
        goto free_alarm;
    }
    if (!os_event_open(&alarm->ended))
    {
        code = GetLastError();
        goto close_armed;
    }
    alarm->source = source;
    source_use(source);
    *result = alarm;
    return ERROR_SUCCESS;

close_armed:
    os_event_close(&alarm->armed);
free_alarm:
    free(alarm);
failed:
    return code;
}

void
tunring_alarm_free(tunring_alarm *alarm)
{
    os_event_close(&alarm->ended);
    os_event_close(&alarm->armed);
    source_put(alarm->source);
    free(alarm);
}

void
tunring_alarm_arm(tunring_alarm *alarm)
{
    os_event_set(&alarm->armed);
}

void
tunring_alarm_end(tunring_alarm *alarm)
{
    os_event_set(&alarm->ended);
}

/* The index of the handle that ended the wait, or the reason why there was none in *code. */
static int
wait_for_ever(tunring_source *source, const HANDLE *handles, unsigned count, DWORD *code)
{
    int index = wait_any(handles, count, TUNRING_FOREVER);
    *code = index < 0 ? source_waiting_failed(source) : ERROR_SUCCESS;
    return index;
}

static DWORD
wait_until_readable(tunring_alarm *alarm)
{
    tunring_source *source = alarm->source;
    enum
    {
        READ = 2
    };
    DWORD code;
    if (!source_enter(source))
        return ERROR_HANDLE_EOF;
    const HANDLE handles[] = {source->stop.wait, alarm->ended.wait, source->read_event};
    int index = wait_for_ever(source, handles, 3, &code);
    /* This thread doesn't look at the ring, so others who wait must be woken as well. The loop settles the event
     * before it arms the alarm again. */
    if (index == READ && source->auto_reset)
        wait_rearm(source->read_event);
    source_leave(source);
    if (code == ERROR_SUCCESS && index != READ)
        code = ERROR_HANDLE_EOF;
    return code;
}

DWORD
tunring_alarm_wait(tunring_alarm *alarm)
{
    enum
    {
        ENDED
    };
    DWORD code;
    const HANDLE handles[] = {alarm->ended.wait, alarm->armed.wait};
    if (alarm->source->generation != os_generation())
        return ERROR_HANDLE_EOF;
    int index = wait_for_ever(alarm->source, handles, 2, &code);
    if (code != ERROR_SUCCESS)
        return code;
    if (index == ENDED)
        return ERROR_HANDLE_EOF;
    os_event_clear(&alarm->armed);
    return wait_until_readable(alarm);
}
