/* SPDX-License-Identifier: MIT
 *
 * The system's answers about the driver and the user, as tests set them.
 */
#ifndef STANDIN_SYSTEM_STATE_H
#define STANDIN_SYSTEM_STATE_H

#include <stdatomic.h>
#include <stdbool.h>

typedef struct system_state
{
    atomic_bool driver_in_store;
    atomic_bool driver_loaded;
    atomic_bool elevated;
} system_state;

extern system_state standin_system;

#endif
