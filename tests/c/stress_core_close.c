/* SPDX-License-Identifier: MIT
 *
 * Closing while eight threads receive and send, and leases that other threads hold and release: every thread returns,
 * nothing is freed too early (ASan) and nothing races (TSan).
 */
/* build: parts=core,loopback,common,os,ring */
#include "core_api.h"

#include <pthread.h>

#define ROUNDS 60
#define RECEIVERS 4
#define SENDERS 4

static tunring_api api;
static ends pair;

/* One lease on its way from a receiver to whoever releases it. */
static tunring_lease *_Atomic passed;

static void
give_back(tunring_lease *lease)
{
    if (!lease)
        return;
    bool held = tunring_lease_hold(lease, 0, 0);
    tunring_lease_release(lease);
    if (held)
        tunring_lease_unhold(lease, 0);
    tunring_lease_free(lease);
}

static void *
receiver(void *session)
{
    tunring_lease *lease;
    DWORD code;
    while ((code = tunring_receive(tunring_session_source(session), 32, &FOREVER, &lease)) == ERROR_SUCCESS)
        give_back(atomic_exchange(&passed, lease));
    CHECK(code == ERROR_HANDLE_EOF);
    return NULL;
}

static void *
sender(void *session)
{
    BYTE bytes[1400];
    make_packet(bytes, sizeof(bytes), 1);
    tunring_packet packets[100];
    for (int i = 0; i < 100; i++)
        packets[i] = (tunring_packet){bytes, sizeof(bytes)};
    uint32_t sent;
    DWORD code;
    do
        code = tunring_send(session, packets, 100, &FOREVER, &sent);
    while (code == ERROR_SUCCESS);
    CHECK(code == ERROR_HANDLE_EOF);
    return NULL;
}

static void *
closer(void *session)
{
    tunring_source_close(tunring_session_source(session));
    return NULL;
}

static void
round_of_threads(int number)
{
    open_ends(&api, &pair, 0x20000);
    pthread_t threads[RECEIVERS + SENDERS];
    for (int i = 0; i < RECEIVERS; i++)
        CHECK(pthread_create(&threads[i], NULL, receiver, pair.sessions[i & 1]) == 0);
    for (int i = 0; i < SENDERS; i++)
        CHECK(pthread_create(&threads[RECEIVERS + i], NULL, sender, pair.sessions[i & 1]) == 0);
    os_sleep(1000000 * (number % 5));
    pthread_t second;
    CHECK(pthread_create(&second, NULL, closer, pair.sessions[0]) == 0);
    tunring_source_close(tunring_session_source(pair.sessions[0]));
    tunring_source_close(tunring_session_source(pair.sessions[1]));
    for (int i = 0; i < RECEIVERS + SENDERS; i++)
        pthread_join(threads[i], NULL);
    pthread_join(second, NULL);
    close_ends(&pair);
    give_back(atomic_exchange(&passed, NULL));
}

int
main(void)
{
    api = linked_api();
    for (int i = 0; i < ROUNDS; i++)
        round_of_threads(i);
    for (int i = 0; tunring_sources_pinned() && i < 1000; i++)
        os_sleep(1000000);
    CHECK(tunring_sources_pinned() == 0);
    return 0;
}
