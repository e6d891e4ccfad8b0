/* SPDX-License-Identifier: MIT
 *
 * The driver simulator: see tunring_backend.h.
 */
#ifndef TUNRING_SIMULATOR_H
#define TUNRING_SIMULATOR_H

#include "tunring_backend.h"

extern const tunring_simulator simulator;

#endif
