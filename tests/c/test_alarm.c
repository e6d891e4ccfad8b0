/* SPDX-License-Identifier: MIT
 *
 * An alarm rings once for each time it is armed, when packets are there or the session is over, and ends at any time.
 */
/* build: parts=core,loopback,common,os,ring */
#include "core_api.h"

#include <pthread.h>

static tunring_api api;
static ends pair;

static void *
wait_and_count(void *argument)
{
    tunring_alarm *alarm = argument;
    intptr_t rings = 0;
    while (tunring_alarm_wait(alarm) == ERROR_SUCCESS)
        rings++;
    return (void *)rings;
}

static void
send_one(void)
{
    BYTE bytes[100];
    uint32_t sent;
    make_packet(bytes, sizeof(bytes), 1);
    tunring_packet packet = {bytes, sizeof(bytes)};
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
    tunring_alarm *alarm;
    open_ends(&api, &pair, 0x20000);
    CHECK(tunring_alarm_open(tunring_session_source(pair.sessions[1]), &alarm) == ERROR_SUCCESS);
    for (int i = 0; i < 100; i++)
    {
        tunring_alarm_arm(alarm);
        send_one();
        CHECK(tunring_alarm_wait(alarm) == ERROR_SUCCESS);
        take_one();
    }
    tunring_alarm_end(alarm);
    CHECK(tunring_alarm_wait(alarm) == ERROR_HANDLE_EOF);
    tunring_alarm_free(alarm);
    close_ends(&pair);
}

static void
test_ends_at_any_time(bool armed, bool by_close)
{
    tunring_alarm *alarm;
    pthread_t thread;
    void *rings;
    open_ends(&api, &pair, 0x20000);
    CHECK(tunring_alarm_open(tunring_session_source(pair.sessions[1]), &alarm) == ERROR_SUCCESS);
    CHECK(pthread_create(&thread, NULL, wait_and_count, alarm) == 0);
    if (armed)
        tunring_alarm_arm(alarm);
    if (by_close)
        close_ends(&pair);
    /* An unarmed alarm leaves the session alone, and so doesn't see it close. */
    if (!by_close || !armed)
        tunring_alarm_end(alarm);
    CHECK(pthread_join(thread, &rings) == 0);
    CHECK(rings == NULL);
    tunring_alarm_arm(alarm);
    CHECK(tunring_alarm_wait(alarm) == ERROR_HANDLE_EOF);
    tunring_alarm_free(alarm);
    if (!by_close)
        close_ends(&pair);
}

/* The loop's side and the thread's in turns, while the session closes at some moment. */
static void
test_closing_in_between(int round)
{
    tunring_alarm *alarm;
    pthread_t thread;
    open_ends(&api, &pair, 0x20000);
    CHECK(tunring_alarm_open(tunring_session_source(pair.sessions[1]), &alarm) == ERROR_SUCCESS);
    CHECK(pthread_create(&thread, NULL, wait_and_count, alarm) == 0);
    tunring_alarm_arm(alarm);
    if (round % 2)
        send_one();
    for (int i = 0; i < round % 5; i++)
        os_yield();
    close_ends(&pair);
    tunring_alarm_end(alarm);
    CHECK(pthread_join(thread, NULL) == 0);
    tunring_alarm_free(alarm);
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
