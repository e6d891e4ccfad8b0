/* SPDX-License-Identifier: MIT
 *
 * Looking up in a table while it changes: each lookup finds what was there before the change or after it, and nobody
 * uses a value any more once it was removed. And a child process that is forked meanwhile.
 */
/* build: parts=core */
#include "check.h"
#include "tunring_routes.h"
#include "platform/os.h"

#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define READERS 3
#define ROUNDS 60
#define MOVING 8

static tunring_routes *table;
static atomic_bool done;
/* True while the value may be found: set before it is in the table, cleared once it has been removed. */
static atomic_bool usable[3 * MOVING];

/* 10.N.0.0/16 always has a value of its own or 10.0.0.0/8's, and 10.N.N.0/24 comes and goes inside it. */
static tunring_route
route_of(unsigned number, unsigned length)
{
    tunring_route route = {{.address = {10}, .version = 4, .length = (uint8_t)length}, 0};
    if (length >= 16)
        route.prefix.address[1] = (BYTE)number;
    if (length >= 24)
        route.prefix.address[2] = (BYTE)number;
    return route;
}

static void *
read_always(void *argument)
{
    uint64_t state = 77 + (uintptr_t)argument;
    do
    {
        const uint32_t entered = tunring_routes_enter(table);
        for (unsigned i = 0; i < 64; i++)
        {
            const BYTE number = (BYTE)(check_random(&state) % MOVING);
            const BYTE address[] = {10, number, number, (BYTE)i};
            const int32_t value = tunring_routes_find4(table, address);
            CHECK(value >= 0);
            if (value != 1000)
            {
                CHECK_EQUAL(value % MOVING, number);
                CHECK(atomic_load(&usable[value]));
            }
            const BYTE elsewhere[] = {11, number, number, 1};
            CHECK_EQUAL(tunring_routes_find4(table, elsewhere), TUNRING_NO_ROUTE);
        }
        tunring_routes_leave(table, entered);
        os_yield(); /* one that is not running would keep every change waiting */
    } while (!atomic_load(&done));
    return NULL;
}

static void
set_route(tunring_route route, int32_t value)
{
    route.value = value;
    uint32_t count;
    CHECK(tunring_routes_set(table, &route, 1, &count) == ERROR_SUCCESS);
}

static void *
change(void *argument)
{
    const unsigned number = (unsigned)(uintptr_t)argument;
    const tunring_route outer = route_of(number, 16), inner = route_of(number, 24);
    for (unsigned round = 0; round < ROUNDS; round++)
    {
        const int32_t first = (int32_t)number, second = first + MOVING, third = second + MOVING;
        atomic_store(&usable[first], true);
        set_route(outer, first);
        atomic_store(&usable[second], true);
        set_route(inner, second);
        atomic_store(&usable[third], true);
        CHECK(tunring_routes_move(table, &inner.prefix, second, third) == ERROR_SUCCESS);
        atomic_store(&usable[second], false);
        int32_t value;
        CHECK(tunring_routes_remove(table, &outer.prefix, &value) == ERROR_SUCCESS && value == first);
        atomic_store(&usable[first], false);
        uint32_t removed;
        CHECK(tunring_routes_remove_value(table, third, &removed) == ERROR_SUCCESS && removed == 1);
        atomic_store(&usable[third], false);
    }
    return NULL;
}

static void
start(void)
{
    table = tunring_routes_new();
    CHECK(table);
    set_route(route_of(0, 8), 1000);
}

static void
test_changes(void)
{
    start();
    pthread_t readers[READERS];
    for (uintptr_t i = 0; i < READERS; i++)
        CHECK(pthread_create(&readers[i], NULL, read_always, (void *)i) == 0);
    pthread_t writers[MOVING];
    for (uintptr_t i = 0; i < MOVING; i++)
        CHECK(pthread_create(&writers[i], NULL, change, (void *)i) == 0);
    for (unsigned i = 0; i < MOVING; i++)
        pthread_join(writers[i], NULL);
    atomic_store(&done, true);
    for (unsigned i = 0; i < READERS; i++)
        pthread_join(readers[i], NULL);
    CHECK_EQUAL(tunring_routes_count(table), 1);
    tunring_routes_free(table);
    atomic_store(&done, false);
}

/* The readers in flight are not in the child, and must not be waited for there. */
static int
use_as_child(void)
{
    const BYTE address[] = {10, 200, 200, 1};
    const tunring_route route = route_of(200, 24);
    alarm(20);
    CHECK_EQUAL(tunring_routes_lookup(table, 4, address), 1000);
    set_route(route, 5);
    CHECK_EQUAL(tunring_routes_lookup(table, 4, address), 5);
    int32_t value;
    CHECK(tunring_routes_remove(table, &route.prefix, &value) == ERROR_SUCCESS && value == 5);
    CHECK_EQUAL(tunring_routes_lookup(table, 4, address), 1000);
    CHECK(tunring_routes_clear(table) == ERROR_SUCCESS);
    tunring_routes_free(table);
    return 0;
}

static void
test_forks(void)
{
    start();
    pthread_t readers[READERS];
    for (uintptr_t i = 0; i < READERS; i++)
        CHECK(pthread_create(&readers[i], NULL, read_always, (void *)i) == 0);
    pthread_t writer;
    CHECK(pthread_create(&writer, NULL, change, (void *)(uintptr_t)1) == 0);
    for (unsigned i = 0; i < 30; i++)
    {
        const pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0)
            _exit(use_as_child());
        int status;
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    pthread_join(writer, NULL);
    atomic_store(&done, true);
    for (unsigned i = 0; i < READERS; i++)
        pthread_join(readers[i], NULL);
    tunring_routes_free(table);
}

int
main(void)
{
    test_changes();
    test_forks();
    return 0;
}
