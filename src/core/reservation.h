/* SPDX-License-Identifier: MIT
 *
 * A reservation's way out, for lease.c.
 */
#ifndef TUNRING_RESERVATION_H
#define TUNRING_RESERVATION_H

#include "core/session.h"

/* Sends the slots, which the caller has claimed: afterwards they are the host's. */
void reservation_send(tunring_session *session, const tunring_lease *lease);

#endif
