/* SPDX-License-Identifier: MIT
 *
 * A program closes descriptors that are ours, or puts files of its own in their places: waits end, and none spins; and
 * what is closed afterwards leaves those files alone.
 */
/* build: parts=core,loopback,common,os,ring */
#include "core_api.h"
#include "platform/os.h"
#include "platform/wait.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/stat.h>
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

/* ---- Programs that close all descriptors ---- */

#define FIRST 3
#define BEYOND 100

static void
close_all(void)
{
    for (int fd = FIRST; fd < BEYOND; fd++)
        close(fd);
}

/* Puts files of one pipe in all places: an end that is never ready, and is full if it is the one to write to. */
static void
fill_places(int fd)
{
    for (int place = FIRST; place < BEYOND; place++)
        CHECK(dup2(fd, place) == place);
}

static void
open_pipe(int ends[2])
{
    int low[2];
    CHECK(pipe(low) == 0);
    for (int i = 0; i < 2; i++)
    {
        ends[i] = fcntl(low[i], F_DUPFD_CLOEXEC, BEYOND);
        close(low[i]);
    }
}

typedef struct waiting
{
    tunring_source *source;
    DWORD code;
    pthread_t thread;
} waiting;

static void *
receive_for_ever(void *argument)
{
    waiting *self = argument;
    tunring_lease *lease;
    self->code = tunring_receive(self->source, 1, &FOREVER, &lease);
    return NULL;
}

static void
begin_to_wait(waiting *self, tunring_session *session)
{
    self->source = tunring_session_source(session);
    CHECK(pthread_create(&self->thread, NULL, receive_for_ever, self) == 0);
    os_sleep(100000000); /* by now it sleeps */
}

static void
a_close_under_a_wait(void)
{
    ends pair;
    waiting waiter;
    open_ends(&api, &pair, CAPACITY);
    begin_to_wait(&waiter, pair.sessions[1]);
    close_all();
    const int64_t began = os_now();
    close_ends(&pair);
    pthread_join(waiter.thread, NULL);
    CHECK_EQUAL(waiter.code, ERROR_HANDLE_EOF);
    CHECK(os_now() - began < 3000000000);
}

/* Nobody closes the session, and nothing shows by poll(): its event has become an end of a pipe. */
static void
a_wait_whose_event_is_a_pipe(void)
{
    ends pair;
    waiting waiter;
    int pipe[2];
    open_ends(&api, &pair, CAPACITY);
    open_pipe(pipe);
    begin_to_wait(&waiter, pair.sessions[1]);
    fill_places(pipe[0]);
    const int64_t began = os_now();
    pthread_join(waiter.thread, NULL);
    CHECK_EQUAL(waiter.code, ERROR_HANDLE_EOF);
    CHECK(tunring_source_state(waiter.source) == TUNRING_REMOVED);
    CHECK(os_now() - began < 3000000000);
    close_ends(&pair);
    close_all();
    close(pipe[0]);
    close(pipe[1]);
}

/* An event of the program's own looks like one of ours, and is never set. */
static void
a_close_under_a_wait_whose_event_is_another(void)
{
    ends pair;
    waiting waiter;
    os_event event;
    open_ends(&api, &pair, CAPACITY);
    CHECK(os_event_open(&event));
    int kept = fcntl(descriptor(event.wait), F_DUPFD_CLOEXEC, BEYOND);
    begin_to_wait(&waiter, pair.sessions[1]);
    fill_places(kept);
    const int64_t began = os_now();
    close_ends(&pair);
    pthread_join(waiter.thread, NULL);
    CHECK_EQUAL(waiter.code, ERROR_HANDLE_EOF);
    CHECK(os_now() - began < 3000000000);
    os_event_close(&event);
    close_all();
    close(kept);
}

static void
a_notifier_that_cannot_be_told(void)
{
    ends pair;
    open_ends(&api, &pair, CAPACITY);
    tunring_notifier *notifier;
    CHECK(open_notifier(tunring_session_source(pair.sessions[1]), &notifier) == ERROR_SUCCESS);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, wait_for_notifier, notifier) == 0);
    os_sleep(100000000);
    close_all();
    tunring_notifier_end(notifier);
    void *code;
    pthread_join(thread, &code);
    CHECK_EQUAL((intptr_t)code, ERROR_HANDLE_EOF);
    tunring_notifier_free(notifier);
    close_ends(&pair);
}

/* The program's files have our numbers: they are neither written to nor closed. */
static void
files_in_our_places(void)
{
    ends pair;
    open_ends(&api, &pair, CAPACITY);
    close_all();
    char name[] = "/tmp/tunring-test-XXXXXX";
    const int file = mkstemp(name);
    CHECK(file >= 0);
    unlink(name);
    fill_places(file);
    close_ends(&pair);
    for (int place = FIRST; place < BEYOND; place++)
    {
        struct stat about;
        CHECK(fstat(place, &about) == 0);
        CHECK_EQUAL(about.st_size, 0);
    }
    close_all();
}

/* A descriptor that is made afterwards has no number that another object of ours still means to close. */
static void
what_is_made_afterwards(void)
{
    os_event old, young;
    CHECK(os_event_open(&old));
    close_all();
    CHECK(os_event_open(&young));
    os_event_set_if_ours(&old);
    os_event_close(&old);
    CHECK(wait_any(&young.wait, 1, os_now()) == WAIT_NOTHING);
    os_event_set_if_ours(&young);
    CHECK(wait_any(&young.wait, 1, os_now()) == 0);
    os_event_close(&young);
}

int
main(void)
{
    api = linked_api();
    a_wait_for_a_closed_one();
    a_session_without_its_event();
    a_notifier_without_the_event();
    an_event_that_is_always_ready();
    a_close_under_a_wait();
    a_wait_whose_event_is_a_pipe();
    a_close_under_a_wait_whose_event_is_another();
    a_notifier_that_cannot_be_told();
    files_in_our_places();
    what_is_made_afterwards();
    return 0;
}
