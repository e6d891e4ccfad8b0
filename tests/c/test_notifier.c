/* SPDX-License-Identifier: MIT
 *
 * A notifier returns once for each time it is armed, when packets are there or the session is over, and ends at any
 * time.
 */
/* build: parts=core,loopback,common,os,ring */
#include "core_api.h"

#include <pthread.h>

static tunring_api api;
static ends pair;

static void *
wait_and_count(void *argument)
{
    tunring_notifier *notifier = argument;
    intptr_t rings = 0;
    while (tunring_notifier_wait(notifier) == ERROR_SUCCESS)
        rings++;
    return (void *)rings;
}

static void
send_one(void)
{
    BYTE bytes[100];
    make_packet(bytes, sizeof(bytes), 1);
    tunring_packet packet = {bytes, sizeof(bytes)};
    uint32_t sent;
    CHECK(tunring_send(pair.sessions[0], &packet, 1, &FOREVER, &sent) == ERROR_SUCCESS);
}

static void
take_one(void)
{
    tunring_lease *lease;
    CHECK(tunring_receive(tunring_session_source(pair.sessions[1]), 1, &FOREVER, &lease) == ERROR_SUCCESS);
    tunring_lease_release(lease);
    tunring_lease_free(lease);
}

static void
test_rings_once_an_arming(void)
{
    open_ends(&api, &pair, 0x20000);
    tunring_notifier *notifier;
    CHECK(open_notifier(tunring_session_source(pair.sessions[1]), &notifier) == ERROR_SUCCESS);
    for (int i = 0; i < 100; i++)
    {
        tunring_notifier_arm(notifier);
        send_one();
        CHECK(tunring_notifier_wait(notifier) == ERROR_SUCCESS);
        take_one();
    }
    tunring_notifier_end(notifier);
    CHECK(tunring_notifier_wait(notifier) == ERROR_HANDLE_EOF);
    tunring_notifier_free(notifier);
    close_ends(&pair);
}

static void
test_ends_at_any_time(bool armed, bool by_close)
{
    open_ends(&api, &pair, 0x20000);
    tunring_notifier *notifier;
    CHECK(open_notifier(tunring_session_source(pair.sessions[1]), &notifier) == ERROR_SUCCESS);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, wait_and_count, notifier) == 0);
    if (armed)
        tunring_notifier_arm(notifier);
    if (by_close)
        close_ends(&pair);
    /* An unarmed notifier leaves the session alone, and so doesn't see it close. */
    if (!by_close || !armed)
        tunring_notifier_end(notifier);
    void *rings;
    CHECK(pthread_join(thread, &rings) == 0);
    CHECK(!rings);
    tunring_notifier_arm(notifier);
    CHECK(tunring_notifier_wait(notifier) == ERROR_HANDLE_EOF);
    tunring_notifier_free(notifier);
    if (!by_close)
        close_ends(&pair);
}

/* The loop's side and the thread's in turns, while the session closes at some moment. */
static void
test_closing_in_between(int round)
{
    open_ends(&api, &pair, 0x20000);
    tunring_notifier *notifier;
    CHECK(open_notifier(tunring_session_source(pair.sessions[1]), &notifier) == ERROR_SUCCESS);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, wait_and_count, notifier) == 0);
    tunring_notifier_arm(notifier);
    if (round % 2)
        send_one();
    for (int i = 0; i < round % 5; i++)
        os_yield();
    close_ends(&pair);
    tunring_notifier_end(notifier);
    CHECK(pthread_join(thread, NULL) == 0);
    tunring_notifier_free(notifier);
}

int
main(void)
{
    api = linked_api();
    test_rings_once_an_arming();
    for (int i = 0; i < 40; i++)
        test_ends_at_any_time(i & 1, i & 2);
    for (int i = 0; i < 200; i++)
        test_closing_in_between(i);
    return 0;
}
