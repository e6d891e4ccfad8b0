/* SPDX-License-Identifier: MIT
 *
 * The capture of a session or socket: where its calls write the packets that they receive and send. Without one they
 * pay one branch per batch.
 */
#ifndef TUNRING_SESSION_CAPTURE_H
#define TUNRING_SESSION_CAPTURE_H

#include "platform/os.h"
#include "tunring_pcapng.h"

typedef struct session_capture
{
    _Atomic unsigned directions; /* that are written; 0: no capture */
    os_mutex lock;               /* guards what follows */
    tunring_pcapng_file *file;   /* NULL: no capture; else one of the file's references */
    uint32_t interface_id;       /* the source's in that file */
    uint32_t number;             /* of the present capture, or of the last one; they count from 1 */
} session_capture;

void session_capture_init(session_capture *self);
/* Ends any capture of the source. Afterwards nothing more is written. */
void session_capture_stop(session_capture *self);
/* After session_capture_stop(), and nobody may use it any more. */
void session_capture_destroy(session_capture *self);

static inline bool
session_captures(const session_capture *self, tunring_direction direction)
{
    return (atomic_load_explicit(&self->directions, memory_order_relaxed) & (unsigned)direction) != 0;
}

/* Writes packets that came or went at `time`; the capture itself knows where to. The caller is in a call on the
 * source. */
void session_capture_write(session_capture *self, tunring_direction direction, int64_t time,
                           const tunring_captured *packets);

#endif
