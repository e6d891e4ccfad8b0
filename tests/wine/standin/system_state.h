/* SPDX-License-Identifier: MIT
 *
 * What the system is made to say about the driver and the user.
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
