/* SPDX-License-Identifier: MIT
 *
 * session_capture.h. A capture holds one of its file's references, taken and given up under the lock: so the file stays
 * while any call writes to it, whoever ends the capture meanwhile.
 */
#include "core/session_capture.h"

#include "core/pcapng_file.h"
#include "core/source.h"

void
session_capture_init(session_capture *self)
{
    os_mutex_init(&self->lock);
}

void
session_capture_destroy(session_capture *self)
{
    os_mutex_destroy(&self->lock);
}

void
session_capture_write(session_capture *self, tunring_direction direction, int64_t time, const tunring_captured *packets)
{
    const uint64_t stamp = (uint64_t)time;
    os_mutex_lock(&self->lock);
    tunring_pcapng_file *behind = NULL;
    if (self->file && session_captures(self, direction))
    {
        tunring_captured what = *packets;
        what.interface_id = self->interface_id;
        what.direction = direction;
        what.times = &stamp;
        what.one_time = true;
        if (pcapng_file_write_or_drop(self->file, &what))
        {
            behind = self->file;
            pcapng_file_hold(behind);
        }
    }
    os_mutex_unlock(&self->lock);
    if (!behind)
        return;
    pcapng_file_give_way(behind);
    tunring_pcapng_drop(behind);
}

static bool
start(session_capture *self, tunring_pcapng_file *file, uint32_t interface_id, unsigned directions, uint32_t *number)
{
    os_mutex_lock(&self->lock);
    const bool first = !self->file;
    if (first)
    {
        pcapng_file_hold(file);
        self->file = file;
        self->interface_id = interface_id;
        *number = ++self->number;
        atomic_store(&self->directions, directions);
    }
    os_mutex_unlock(&self->lock);
    return first;
}

/* Ends the capture that has this number, or with 0 any. */
static void
stop(session_capture *self, uint32_t number)
{
    os_mutex_lock(&self->lock);
    tunring_pcapng_file *file = NULL;
    if (!number || number == self->number)
    {
        file = self->file;
        self->file = NULL;
        atomic_store(&self->directions, 0);
    }
    os_mutex_unlock(&self->lock);
    if (file)
        tunring_pcapng_drop(file);
}

void
session_capture_stop(session_capture *self)
{
    stop(self, 0);
}

DWORD
tunring_source_capture(tunring_source *source, tunring_pcapng_file *file, uint32_t interface_id, bool received,
                       bool sent, uint32_t *number)
{
    const unsigned directions = (received ? TUNRING_RECEIVED : 0u) | (sent ? TUNRING_SENT : 0u);
    if (interface_id >= tunring_pcapng_interfaces(file))
        return ERROR_INVALID_PARAMETER;
    if (!source_enter(source))
        return ERROR_HANDLE_EOF;
    const bool started = start(&source->capture, file, interface_id, directions, number);
    source_leave(source);
    return started ? ERROR_SUCCESS : ERROR_BUSY;
}

void
tunring_source_capture_end(tunring_source *source, uint32_t number)
{
    if (!OS_FOREIGN(source))
        stop(&source->capture, number);
}
