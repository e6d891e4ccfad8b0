/* SPDX-License-Identifier: MIT
 *
 * A session's tap. Its lock is what lets a tap go while other threads receive and send: it is held over a write, and
 * only while there is a tap.
 */
#include "core/tap.h"

#include "core/capture.h"

void
tap_write(tunring_session *session, tunring_direction direction, int64_t time, const tunring_packet *packets,
          const tunring_slot *slots, uint32_t count)
{
    const uint64_t stamp = (uint64_t)time;
    os_mutex_lock(&session->tap_lock);
    if (session->tap && tap_wants(session, direction))
    {
        const tunring_captured what = {
            .packets = packets,
            .slots = slots,
            .count = count,
            .interface_id = session->tap_interface,
            .direction = direction,
            .times = &stamp,
            .one_time = true,
        };
        capture_tapped(session->tap, &what);
    }
    os_mutex_unlock(&session->tap_lock);
}

DWORD
tunring_session_tap(tunring_session *session, tunring_capture *capture, uint32_t interface_id, bool received, bool sent)
{
    DWORD code = ERROR_BUSY;
    if (interface_id >= tunring_capture_interfaces(capture))
        return ERROR_INVALID_PARAMETER;
    if (!session_enter(session))
        return ERROR_HANDLE_EOF;
    os_mutex_lock(&session->tap_lock);
    if (!session->tap)
    {
        session->tap = capture;
        session->tap_interface = interface_id;
        atomic_store(&session->tapped, (received ? TUNRING_RECEIVED : 0u) | (sent ? TUNRING_SENT : 0u));
        code = ERROR_SUCCESS;
    }
    os_mutex_unlock(&session->tap_lock);
    session_leave(session);
    return code;
}

void
tunring_session_untap(tunring_session *session)
{
    if (session->generation != os_generation())
        return;
    os_mutex_lock(&session->tap_lock);
    session->tap = NULL;
    atomic_store(&session->tapped, 0);
    os_mutex_unlock(&session->tap_lock);
}
