/* SPDX-License-Identifier: MIT
 *
 * A session's tap. Its lock is what lets a tap go while other threads receive and send: it is held over a write, and
 * only while there is a tap.
 */
#include "core/tap.h"

#include "core/capture.h"
#include "core/session.h"

void
tap_write(tunring_source *source, tunring_direction direction, int64_t time, const tunring_packet *packets,
          const tunring_slot *slots, uint32_t count)
{
    const uint64_t stamp = (uint64_t)time;
    os_mutex_lock(&source->tap_lock);
    if (source->tap && tap_wants(source, direction))
    {
        const tunring_captured what = {
            .packets = packets,
            .slots = slots,
            .count = count,
            .interface_id = source->tap_interface,
            .direction = direction,
            .times = &stamp,
            .one_time = true,
        };
        capture_tapped(source->tap, &what);
    }
    os_mutex_unlock(&source->tap_lock);
}

DWORD
tunring_session_tap(tunring_session *session, tunring_capture *capture, uint32_t interface_id, bool received, bool sent)
{
    tunring_source *source = &session->source;
    DWORD code = ERROR_BUSY;
    if (interface_id >= tunring_capture_interfaces(capture))
        return ERROR_INVALID_PARAMETER;
    if (!source_enter(source))
        return ERROR_HANDLE_EOF;
    os_mutex_lock(&source->tap_lock);
    if (!source->tap)
    {
        source->tap = capture;
        source->tap_interface = interface_id;
        atomic_store(&source->tapped, (received ? TUNRING_RECEIVED : 0u) | (sent ? TUNRING_SENT : 0u));
        code = ERROR_SUCCESS;
    }
    os_mutex_unlock(&source->tap_lock);
    source_leave(source);
    return code;
}

void
tunring_session_untap(tunring_session *session)
{
    tunring_source *source = &session->source;
    if (source->generation != os_generation())
        return;
    os_mutex_lock(&source->tap_lock);
    source->tap = NULL;
    atomic_store(&source->tapped, 0);
    os_mutex_unlock(&source->tap_lock);
}
