/* SPDX-License-Identifier: MIT
 *
 * Secrets: wiped when they are closed and the last one inside has left, empty in a forked child, and not to be used
 * there; and threads that make and free them while the process forks.
 */
/* build: parts=core flags=-ldl */
#include "check.h"
#include "core/secret.h"

#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MANY 1024 /* of whole pages */
#define THREADS 4
#define TURNS 3000
#define FORKS 100

/* The sanitizers fork without the locks of their allocators. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FORKS_WITH_THREADS 0
#else
#define FORKS_WITH_THREADS 1
#endif

static const BYTE zeros[TUNRING_SECRET_SIZE];

static void
fill(BYTE *bytes, uint32_t number)
{
    for (uint32_t i = 0; i < TUNRING_SECRET_SIZE; i++)
        bytes[i] = (BYTE)(number * 31 + i * 7 + 1);
}

static tunring_secret *
make(uint32_t number)
{
    BYTE bytes[TUNRING_SECRET_SIZE];
    tunring_secret *secret;
    fill(bytes, number);
    CHECK_EQUAL(tunring_secret_new(bytes, sizeof(bytes), &secret), ERROR_SUCCESS);
    return secret;
}

/* It still has the bytes that make() gave it. */
static void
check_whole(tunring_secret *secret, uint32_t number)
{
    BYTE expected[TUNRING_SECRET_SIZE];
    fill(expected, number);
    const BYTE *bytes = tunring_secret_enter(secret);
    CHECK(bytes && memcmp(bytes, expected, sizeof(expected)) == 0);
    tunring_secret_leave(secret);
}

static bool
is_wiped(const BYTE *bytes)
{
    return memcmp(bytes, zeros, sizeof(zeros)) == 0;
}

static void
test_wiping(void)
{
    tunring_secret *secret = make(1);
    CHECK_EQUAL(tunring_secret_size(secret), TUNRING_SECRET_SIZE);
    const BYTE *bytes = tunring_secret_enter(secret);
    CHECK(bytes == tunring_secret_enter(secret));
    tunring_secret_close(secret);
    CHECK_EQUAL(tunring_secret_state(secret), TUNRING_CLOSED);
    CHECK(!tunring_secret_enter(secret));
    tunring_secret_leave(secret);
    CHECK(!is_wiped(bytes));
    tunring_secret_leave(secret);
    CHECK(is_wiped(bytes));
    /* Its place is the next one's, which a second close must not touch. */
    tunring_secret *next = make(2);
    CHECK(tunring_secret_enter(next) == bytes);
    tunring_secret_leave(next);
    tunring_secret_close(secret);
    tunring_secret_free(secret);
    check_whole(next, 2);
    tunring_secret_free(next);
    CHECK(is_wiped(bytes));
    tunring_secret_free(NULL);
}

static void
test_short_ones(void)
{
    tunring_secret *secret;
    CHECK_EQUAL(tunring_secret_new((const BYTE *)"abc", 3, &secret), ERROR_SUCCESS);
    CHECK_EQUAL(tunring_secret_size(secret), 3);
    CHECK(memcmp(tunring_secret_enter(secret), "abc", 4) == 0);
    tunring_secret_leave(secret);
    tunring_secret_free(secret);
}

/* Each has a place of its own, and the places of those that are freed serve again. */
static void
test_many(void)
{
    tunring_secret *secrets[MANY];
    const BYTE *places[MANY];
    for (uint32_t i = 0; i < MANY; i++)
        secrets[i] = make(i);
    for (uint32_t i = 0; i < MANY; i++)
    {
        check_whole(secrets[i], i);
        places[i] = tunring_secret_enter(secrets[i]);
        tunring_secret_leave(secrets[i]);
    }
    for (uint32_t i = 0; i < MANY; i += 2)
        tunring_secret_free(secrets[i]);
    for (uint32_t i = 0; i < MANY; i++)
        CHECK(is_wiped(places[i]) == (i % 2 == 0));
    for (uint32_t i = 0; i < MANY; i += 2)
    {
        secrets[i] = make(i);
        const BYTE *place = tunring_secret_enter(secrets[i]);
        bool known = false;
        for (uint32_t j = 0; j < MANY; j += 2)
            known = known || place == places[j];
        CHECK(known);
        tunring_secret_leave(secrets[i]);
    }
    for (uint32_t i = 0; i < MANY; i++)
    {
        check_whole(secrets[i], i);
        tunring_secret_free(secrets[i]);
    }
    for (uint32_t i = 0; i < MANY; i++)
        CHECK(is_wiped(places[i]));
}

static void
await_child(pid_t child)
{
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK_EQUAL(status, 0);
}

static void
test_fork(void)
{
    tunring_secret *secret = make(7);
    const BYTE *bytes = tunring_secret_enter(secret); /* as a call of another thread */
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0)
    {
        alarm(10);
        CHECK_EQUAL(tunring_secret_state(secret), TUNRING_FORKED);
        CHECK(!tunring_secret_enter(secret));
        CHECK(is_wiped(bytes) || !(tunring_secret_protection(secret) & OS_SECRET_EMPTY_IN_CHILD));
        tunring_secret *own = make(8);
        check_whole(own, 8);
        tunring_secret_leave(secret);
        tunring_secret_free(secret);
        check_whole(own, 8);
        tunring_secret_free(own);
        _exit(0);
    }
    await_child(child);
    tunring_secret_leave(secret);
    check_whole(secret, 7);
    tunring_secret_free(secret);
}

static void *
make_and_free(void *argument)
{
    uint64_t chance = (uint64_t)(uintptr_t)argument;
    tunring_secret *kept[16] = {0};
    uint32_t numbers[16] = {0};
    for (int turn = 0; turn < TURNS; turn++)
    {
        const uint32_t at = check_random(&chance) % 16;
        if (kept[at])
        {
            check_whole(kept[at], numbers[at]);
            tunring_secret_free(kept[at]);
        }
        numbers[at] = check_random(&chance);
        kept[at] = make(numbers[at]);
    }
    for (int i = 0; i < 16; i++)
        tunring_secret_free(kept[i]);
    return NULL;
}

static void
test_threads(void)
{
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, make_and_free, (void *)(i + 1)) == 0);
    for (int i = 0; FORKS_WITH_THREADS && i < FORKS; i++)
    {
        const pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0)
        {
            alarm(10);
            tunring_secret *own = make(9);
            check_whole(own, 9);
            tunring_secret_free(own);
            _exit(0);
        }
        await_child(child);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

/* One closes it while others are inside: nobody inside sees it wiped. */

static tunring_secret *shared;

static void *
use_until_closed(void *unused)
{
    (void)unused;
    BYTE expected[TUNRING_SECRET_SIZE];
    fill(expected, 3);
    const BYTE *bytes;
    while ((bytes = tunring_secret_enter(shared)))
    {
        CHECK(memcmp(bytes, expected, sizeof(expected)) == 0);
        tunring_secret_leave(shared);
    }
    return NULL;
}

static void
test_close_by_another_thread(void)
{
    for (int turn = 0; turn < 50; turn++)
    {
        pthread_t threads[THREADS];
        shared = make(3);
        const BYTE *bytes = tunring_secret_enter(shared);
        tunring_secret_leave(shared);
        for (int i = 0; i < THREADS; i++)
            CHECK(pthread_create(&threads[i], NULL, use_until_closed, NULL) == 0);
        os_sleep(100000);
        tunring_secret_close(shared);
        for (int i = 0; i < THREADS; i++)
            pthread_join(threads[i], NULL);
        CHECK(is_wiped(bytes));
        tunring_secret_free(shared);
    }
}

int
main(void)
{
    test_wiping();
    test_short_ones();
    test_many();
    test_fork();
    test_threads();
    test_close_by_another_thread();
    return 0;
}
