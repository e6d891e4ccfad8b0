/* SPDX-License-Identifier: MIT
 *
 * Numbers of threads.
 */
#include "platform/os.h"

#include <stdatomic.h>

static _Atomic uint64_t last_number;
static _Thread_local uint64_t number; /* 0: none yet */

uint64_t
os_thread_number(void)
{
    if (!number)
        number = atomic_fetch_add(&last_number, 1) + 1;
    return number;
}
