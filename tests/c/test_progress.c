/* SPDX-License-Identifier: MIT
 *
 * Waiting for another thread's progress: nothing is missed, deadlines and interrupts end a wait, and nobody spins.
 */
/* build: parts=core,os */
#include "check.h"
#include "core/progress.h"

#include <pthread.h>

#define WAITERS 6
#define ROUNDS 3000u

static const tunring_wait NEVER = {.deadline = OS_FOREVER};

typedef struct scene
{
    progress progress;
    os_mutex lock;
    uint32_t round;             /* guarded by the lock */
    _Atomic uint32_t slept;     /* times that a waiter returned from a wait */
    _Atomic uint32_t to_answer; /* waiters that have not seen the round */
} scene;

/* Waits for every round, whichever the maker is in. */
static void *
follow(void *argument)
{
    scene *self = argument;
    for (uint32_t expected = 1; expected <= ROUNDS; expected++)
    {
        for (;;)
        {
            const uint64_t seen = progress_look(&self->progress);
            os_mutex_lock(&self->lock);
            const bool there = self->round >= expected;
            os_mutex_unlock(&self->lock);
            if (there)
                break;
            CHECK(progress_wait(&self->progress, seen, &NEVER) == ERROR_SUCCESS);
            atomic_fetch_add(&self->slept, 1);
        }
        atomic_fetch_sub(&self->to_answer, 1);
    }
    return NULL;
}

/* A waiter that misses a round would wait for ever, as the maker does for its answer. */
static void
test_nothing_is_missed(void)
{
    static scene self;
    CHECK(progress_open(&self.progress));
    os_mutex_init(&self.lock);
    pthread_t threads[WAITERS];
    for (int i = 0; i < WAITERS; i++)
        CHECK(pthread_create(&threads[i], NULL, follow, &self) == 0);
    for (uint32_t round = 1; round <= ROUNDS; round++)
    {
        atomic_store(&self.to_answer, WAITERS);
        os_mutex_lock(&self.lock);
        self.round = round;
        os_mutex_unlock(&self.lock);
        progress_made(&self.progress);
        while (atomic_load(&self.to_answer))
            os_yield();
    }
    for (int i = 0; i < WAITERS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    /* Each waits once for a round, or a little more often when the event of others is still set. */
    CHECK(atomic_load(&self.slept) <= 2 * WAITERS * ROUNDS);
    CHECK(self.progress.waking == 0 && atomic_load(&self.progress.sleeping) == 0);
    os_mutex_destroy(&self.lock);
    progress_close(&self.progress);
}

static void
test_other_ends(void)
{
    progress self = {0};
    os_event interrupt;
    CHECK(progress_open(&self) && os_event_open(&interrupt));
    const uint64_t seen = progress_look(&self);
    const tunring_wait past = {.deadline = os_now() - 1};
    const tunring_wait soon = {.deadline = os_now() + 20000000, .interrupt = interrupt.wait};
    CHECK(progress_wait(&self, seen, &past) == WAIT_TIMEOUT);
    CHECK(progress_wait(&self, seen, &soon) == WAIT_TIMEOUT);
    CHECK(os_now() >= soon.deadline);
    os_event_set(&interrupt);
    const tunring_wait interrupted = {.deadline = OS_FOREVER, .interrupt = interrupt.wait};
    CHECK(progress_wait(&self, seen, &interrupted) == ERROR_OPERATION_ABORTED);
    /* An event that has happened comes first. */
    progress_made(&self);
    CHECK(progress_wait(&self, seen, &interrupted) == ERROR_SUCCESS);
    CHECK(progress_wait(&self, seen, &past) == ERROR_SUCCESS);
    os_event_close(&interrupt);
    progress_close(&self);
}

int
main(void)
{
    test_nothing_is_missed();
    test_other_ends();
    return 0;
}
