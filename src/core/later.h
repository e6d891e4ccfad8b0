/* SPDX-License-Identifier: MIT
 *
 * Work that may block, asked for by somebody who must not: a detached helper thread does it. It starts with the first
 * job and ends with the last. Where no thread can be had, the next later_run() does the jobs.
 */
#ifndef TUNRING_LATER_H
#define TUNRING_LATER_H

typedef struct later_job
{
    struct later_job *next;
    void (*run)(struct later_job *job);
} later_job;

/* Any time. The job must stay valid until it runs; the child of a fork never runs it. */
void later(later_job *job);
/* Does the jobs that nobody does. May block. */
void later_run(void);

#endif
