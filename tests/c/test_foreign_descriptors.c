/* SPDX-License-Identifier: MIT
 *
 * A program closes descriptors that are ours, or puts files of its own in their places: waits end, and none spins.
 */
/* build: parts=core,loopback,common,os,ring */
#include "core_api.h"
#include "platform/os.h"
#include "platform/wait.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#define CAPACITY 0x20000

static tunring_api api;

static int
descriptor(HANDLE handle)
{
    return (int)(intptr_t)handle;
}

static int64_t
processor_time(void)
{
    struct rusage usage;
    CHECK(getrusage(RUSAGE_SELF, &usage) == 0);
    return ((int64_t)usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000 +
           ((int64_t)usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000;
}

static void
a_wait_for_a_closed_one(void)
{
    os_event first, second;
    CHECK(os_event_open(&first) && os_event_open(&second));
    const HANDLE handles[] = {first.wait, NULL, second.wait};
    CHECK(wait_any(handles, 3, os_now()) == WAIT_NOTHING);
    int kept = fcntl(descriptor(second.wait), F_DUPFD_CLOEXEC, 100);
    close(descriptor(second.wait));
    CHECK(wait_any(handles, 3, TUNRING_FOREVER) == WAIT_BROKEN && GetLastError() == ERROR_INVALID_HANDLE);
    /* Earlier ones win. */
    os_event_set(&first);
    CHECK(wait_any(handles, 3, TUNRING_FOREVER) == 0);
    dup2(kept, descriptor(second.wait));
    close(kept);
    os_event_close(&first);
    os_event_close(&second);
}

/* The read event is closed: the session is over, for polls too, and the other end goes on. */
static void
a_session_without_its_event(void)
{
    ends pair;
    open_ends(&api, &pair, CAPACITY);
    int number = descriptor(tunring_source_read_event(tunring_session_source(pair.sessions[1])));
    int kept = fcntl(number, F_DUPFD_CLOEXEC, 100);
    close(number);
    tunring_lease *lease;
    CHECK(tunring_receive(tunring_session_source(pair.sessions[1]), 1, &FOREVER, &lease) == ERROR_HANDLE_EOF);
    CHECK(tunring_source_state(tunring_session_source(pair.sessions[1])) == TUNRING_REMOVED);
    CHECK(tunring_receive(tunring_session_source(pair.sessions[1]), 1, &POLL, &lease) == ERROR_HANDLE_EOF);
    CHECK(tunring_receive(tunring_session_source(pair.sessions[0]), 1, &POLL, &lease) == WAIT_TIMEOUT);
    dup2(kept, number);
    close(kept);
    close_ends(&pair);
}

static void *
wait_for_notifier(void *notifier)
{
    return (void *)(intptr_t)tunring_notifier_wait(notifier);
}

static void
a_notifier_without_the_event(void)
{
    ends pair;
    open_ends(&api, &pair, CAPACITY);
    int number = descriptor(tunring_source_read_event(tunring_session_source(pair.sessions[1])));
    tunring_notifier *notifier;
    CHECK(open_notifier(tunring_session_source(pair.sessions[1]), &notifier) == ERROR_SUCCESS);
    int kept = fcntl(number, F_DUPFD_CLOEXEC, 100);
    close(number);
    tunring_notifier_arm(notifier);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, wait_for_notifier, notifier) == 0);
    void *code;
    pthread_join(thread, &code);
    CHECK_EQUAL((intptr_t)code, ERROR_HANDLE_EOF);
    CHECK(tunring_source_state(tunring_session_source(pair.sessions[1])) == TUNRING_REMOVED);
    tunring_notifier_free(notifier);
    dup2(kept, number);
    close(kept);
    close_ends(&pair);
}

/* The read event is another file, which is always ready: a wait keeps to its deadline and hardly costs anything, and
 * packets still come. */
static void
an_event_that_is_always_ready(void)
{
    ends pair;
    open_ends(&api, &pair, CAPACITY);
    int number = descriptor(tunring_source_read_event(tunring_session_source(pair.sessions[1])));
    int kept = fcntl(number, F_DUPFD_CLOEXEC, 100);
    int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    dup2(zero, number);
    tunring_wait wait = {.deadline = os_deadline(500000000)};
    int64_t began = os_now();
    int64_t used = processor_time();
    tunring_lease *lease;
    CHECK(tunring_receive(tunring_session_source(pair.sessions[1]), 1, &wait, &lease) == WAIT_TIMEOUT);
    CHECK(os_now() - began >= 490000000);
    CHECK(processor_time() - used < 200000000);
    dup2(kept, number);
    close(kept);
    close(zero);
    close_ends(&pair);
}

int
main(void)
{
    api = linked_api();
    a_wait_for_a_closed_one();
    a_session_without_its_event();
    a_notifier_without_the_event();
    an_event_that_is_always_ready();
    return 0;
}
