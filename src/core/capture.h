/* SPDX-License-Identifier: MIT
 *
 * How sessions write captures.
 */
#ifndef TUNRING_CAPTURE_H
#define TUNRING_CAPTURE_H

#include "core/session.h"

#define CAPTURE_MOST_INTERFACES 64u

/* Writes what can be written without waiting for a reader, and counts the rest. */
void capture_tapped(tunring_capture *capture, const tunring_captured *what);

#endif
