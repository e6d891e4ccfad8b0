/* SPDX-License-Identifier: MIT
 *
 * A brief wait: it ends by a packet, a deadline, a cancel or a signal, gives up after a moment, and then doesn't sleep
 * for a while.
 */
/* build: parts=core,loopback,common,os,ring */
#include "core_api.h"
#include "platform/wait.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/time.h>

#define CAPACITY 0x20000
#define MILLISECOND 1000000
#define ROUNDS 200

static tunring_api api;
static const tunring_wait BRIEF = {.deadline = TUNRING_FOREVER, .brief = true};
static const tunring_wait LOOKED = {.deadline = TUNRING_FOREVER, .looked = true};

static DWORD
receive(tunring_session *session, const tunring_wait *wait, tunring_lease **lease)
{
    return tunring_receive(tunring_session_source(session), 8, wait, lease);
}

static DWORD
find_nothing(tunring_session *session, const tunring_wait *wait)
{
    tunring_lease *lease = NULL;
    const DWORD code = receive(session, wait, &lease);
    CHECK(!lease);
    return code;
}

/* How often this thread went to sleep. */
static long
sleeps(void)
{
    struct rusage usage;
    CHECK(getrusage(RUSAGE_THREAD, &usage) == 0);
    return usage.ru_nvcsw;
}

static uint64_t
waits_of(tunring_session *session)
{
    tunring_stats stats;
    tunring_session_stats(session, &stats);
    return stats.waits;
}

static void
test_it_gives_up_and_rests(void)
{
    ends pair;
    open_ends(&api, &pair, CAPACITY);
    tunring_session *session = pair.sessions[1];
    for (int round = 0; round < 2; round++)
    {
        const long before = sleeps();
        CHECK(find_nothing(session, &BRIEF) == WAIT_TIMEOUT);
        CHECK(sleeps() > before);
        /* The wait that goes on counts. */
        CHECK(waits_of(session) == 0);
        const long after = sleeps();
        for (int i = 0; i < 64; i++)
            CHECK(find_nothing(session, &BRIEF) == WAIT_TIMEOUT);
        CHECK(sleeps() == after);
    }
    close_ends(&pair);
}

static void
test_its_deadline_and_its_cancel(void)
{
    ends pair;
    open_ends(&api, &pair, CAPACITY);
    tunring_session *session = pair.sessions[1];
    /* Neither is a reason to rest. */
    for (int i = 0; i < 3; i++)
    {
        const tunring_wait soon = {.deadline = os_now() + MILLISECOND, .brief = true};
        const long before = sleeps();
        CHECK(find_nothing(session, &soon) == WAIT_TIMEOUT && os_now() >= soon.deadline);
        CHECK(sleeps() > before || os_now() > soon.deadline + MILLISECOND);
    }
    os_event cancel;
    CHECK(os_event_open(&cancel));
    os_event_set(&cancel);
    const tunring_wait cancelled = {.deadline = TUNRING_FOREVER, .brief = true, .cancel = cancel.wait};
    CHECK(find_nothing(session, &cancelled) == ERROR_CANCELLED);
    os_event_close(&cancel);
    close_ends(&pair);
}

static void
send_number(tunring_session *session, uint32_t number)
{
    BYTE bytes[64];
    make_packet(bytes, sizeof(bytes), number);
    const tunring_packet packet = {bytes, sizeof(bytes)};
    uint32_t sent;
    CHECK(tunring_send(session, &packet, 1, NULL, &sent) == ERROR_SUCCESS && sent == 1);
}

static void *
send_now_and_then(void *argument)
{
    for (uint32_t i = 0; i < ROUNDS; i++)
    {
        send_number(argument, i);
        os_sleep((i % 7) * (MILLISECOND / 4));
    }
    os_sleep(50 * MILLISECOND); /* the last one comes after a brief wait has given up */
    send_number(argument, ROUNDS);
    return NULL;
}

/* As Python receives: briefly first, then for as long as it takes, without another look before it sleeps. */
static void
test_no_packet_is_missed(void)
{
    ends pair;
    open_ends(&api, &pair, CAPACITY);
    pthread_t sender;
    CHECK(pthread_create(&sender, NULL, send_now_and_then, pair.sessions[0]) == 0);
    for (uint32_t next = 0; next <= ROUNDS;)
    {
        tunring_lease *lease = NULL;
        DWORD code = receive(pair.sessions[1], &BRIEF, &lease);
        if (code == WAIT_TIMEOUT)
            code = receive(pair.sessions[1], &LOOKED, &lease);
        CHECK(code == ERROR_SUCCESS && lease->count > 0);
        for (uint32_t i = 0; i < lease->count; i++)
            CHECK(packet_number(lease->slots[i].data) == next++);
        tunring_lease_release(lease);
        tunring_lease_free(lease);
    }
    pthread_join(sender, NULL);
    close_ends(&pair);
}

static void
ignore(int number)
{
    (void)number;
}

/* The system may lose no signal to a wait that is to end by it: it comes again and again. */
static void
test_a_signal_ends_it(void)
{
    os_event never;
    CHECK(os_event_open(&never));
    const struct sigaction action = {.sa_handler = ignore};
    const struct itimerval often = {{.tv_usec = 1000}, {.tv_usec = 1000}};
    const struct itimerval off = {{0}, {0}};
    CHECK(sigaction(SIGALRM, &action, NULL) == 0 && setitimer(ITIMER_REAL, &often, NULL) == 0);
    CHECK(wait_once(&never.wait, 1, OS_FOREVER) == WAIT_NOTHING);
    const int64_t deadline = os_now() + 20 * MILLISECOND;
    CHECK(wait_any(&never.wait, 1, deadline) == WAIT_NOTHING && os_now() >= deadline);
    CHECK(setitimer(ITIMER_REAL, &off, NULL) == 0);
    os_event_close(&never);
}

int
main(void)
{
    api = linked_api();
    test_it_gives_up_and_rests();
    test_its_deadline_and_its_cancel();
    test_no_packet_is_missed();
    test_a_signal_ends_it();
    return 0;
}
