/* SPDX-License-Identifier: MIT
 *
 * deferred.h: a stack of jobs and a helper thread that lives while there are any.
 */
#include "core/deferred.h"

#include "platform/os.h"

static deferred_job *_Atomic waiting;
/* Generation plus one of the process that has a helper, so that a fork leaves the child without one. */
static atomic_uint helper;

static bool
become_helper(void)
{
    unsigned mine = os_generation() + 1;
    return atomic_exchange(&helper, mine) != mine;
}

static void
run_all(void)
{
    deferred_job *job = atomic_exchange(&waiting, NULL);
    while (job)
    {
        deferred_job *next = job->next;
        job->run(job);
        job = next;
    }
}

/* The caller is the helper. It steps down before it looks again, so that a job pushed meanwhile finds one. */
static void
help(void *unused)
{
    (void)unused;
    do
    {
        run_all();
        atomic_store(&helper, 0);
    } while (atomic_load(&waiting) && become_helper());
}

void
defer(deferred_job *job)
{
    deferred_job *head = atomic_load(&waiting);
    do
        job->next = head;
    while (!atomic_compare_exchange_weak(&waiting, &head, job));
    if (become_helper() && !os_thread_detached(help, NULL))
        atomic_store(&helper, 0);
}

void
deferred_run(void)
{
    if (atomic_load(&waiting) && become_helper())
        help(NULL);
}
