/* SPDX-License-Identifier: MIT
 *
 * The thread that empties a session's R ring while no simulator does.
 */
#ifndef STANDIN_DRIVER_THREAD_H
#define STANDIN_DRIVER_THREAD_H

#include "wintun.h"

/* `session` is a registration. Ends when it is disconnected, or its ring is corrupt. */
DWORD WINAPI driver_thread(void *session);

#endif
