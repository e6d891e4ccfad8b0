/* SPDX-License-Identifier: MIT
 *
 * pcapng_exit.h. Without a lock and without a list, which a fork could leave in the middle of a change.
 */
#include "core/pcapng_exit.h"

#include "platform/wait.h"

/* Nanoseconds between two looks. */
#define PAUSE 1000000

/* The generation of a process in the high half, its number of unfinished files in the low one: the child of a fork
 * begins anew. */
static _Atomic uint64_t unfinished;
/* Generation plus one of the process that is exiting. */
static _Atomic uint64_t exiting;

static uint64_t
count_of(uint64_t word)
{
    return word >> 32 == os_generation() ? (uint32_t)word : 0;
}

static void
count(int change)
{
    uint64_t before = atomic_load(&unfinished);
    uint64_t after;
    do
        after = (uint64_t)os_generation() << 32 | (uint32_t)(count_of(before) + (uint64_t)change);
    while (!atomic_compare_exchange_weak(&unfinished, &before, after));
}

void
pcapng_mark_unfinished(tunring_pcapng_file *file)
{
    if (!file->unfinished)
        count(1);
    file->unfinished = true;
}

void
pcapng_mark_finished(tunring_pcapng_file *file)
{
    if (file->unfinished)
        count(-1);
    file->unfinished = false;
}

bool
pcapng_exiting(void)
{
    return atomic_load(&exiting) == (uint64_t)os_generation() + 1;
}

DWORD
tunring_pcapng_exit(const tunring_wait *wait)
{
    atomic_store(&exiting, (uint64_t)os_generation() + 1);
    while (count_of(atomic_load(&unfinished)))
    {
        const int64_t now = os_now();
        if (!wait || now >= wait->deadline)
            return WAIT_TIMEOUT;
        const int64_t next = wait->deadline - now < PAUSE ? wait->deadline : now + PAUSE;
        if (wait_any(&wait->interrupt, 1, next) == 0)
            return ERROR_OPERATION_ABORTED;
    }
    return ERROR_SUCCESS;
}
