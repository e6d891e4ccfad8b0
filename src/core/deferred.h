/* SPDX-License-Identifier: MIT
 *
 * Work that may block, asked for by somebody who must not: a detached helper thread does it. It starts with the first
 * job and ends with the last. Where no thread can be had, the next deferred_run() does the jobs.
 */
#ifndef TUNRING_DEFERRED_H
#define TUNRING_DEFERRED_H

#include <stddef.h>

typedef struct deferred_job
{
    struct deferred_job *next;
    void (*run)(struct deferred_job *job);
} deferred_job;

/* The struct that a job is the member `job` of. */
#define DEFERRED_OWNER(type, job_pointer) ((type *)((char *)(job_pointer) - offsetof(type, job)))

/* May be called at any time. The job must stay valid until it runs; the child of a fork never runs it. */
void defer(deferred_job *job);
/* Does the jobs that nobody does. May block. */
void deferred_run(void);

#endif
