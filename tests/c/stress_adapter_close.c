/* SPDX-License-Identifier: MIT
 *
 * Closing an adapter while seven threads start sessions on it, ask it, play its driver, borrow its handle and close it
 * too: every call is done or turns back, nothing is freed too early (ASan), nothing races (TSan), and no close returns
 * before the adapter is gone.
 */
/* build: parts=core,loopback,common,os,ring */
#include "core_api.h"

#include <pthread.h>

#define ROUNDS 100

static tunring_api api;
static const WCHAR name[] = {'a', 0};

static void *
start_sessions(void *argument)
{
    tunring_session *session;
    DWORD code;
    do
    {
        code = tunring_session_start(argument, 0x20000, NULL, &session);
        if (code != ERROR_SUCCESS)
            continue;
        tunring_source_close(tunring_session_source(session));
        tunring_source_drop(tunring_session_source(session));
    } while (code != ERROR_INVALID_HANDLE);
    return NULL;
}

/* Its session is left to the adapter's close. */
static void *
receive(void *argument)
{
    tunring_session *session;
    tunring_lease *lease;
    DWORD code;
    while ((code = tunring_session_start(argument, 0x20000, NULL, &session)) != ERROR_INVALID_HANDLE)
    {
        if (code != ERROR_SUCCESS)
            continue;
        while (tunring_receive(tunring_session_source(session), 8, &FOREVER, &lease) == ERROR_SUCCESS)
        {
            tunring_lease_release(lease);
            tunring_lease_free(lease);
        }
        CHECK(tunring_adapter_is_shut(argument));
        tunring_source_drop(tunring_session_source(session));
    }
    return NULL;
}

static void *
ask(void *argument)
{
    char text[64];
    DWORD index;
    NET_LUID luid;
    while (tunring_adapter_name(argument, text, sizeof(text)) == ERROR_SUCCESS)
    {
        (void)tunring_adapter_index(argument, &index);
        (void)tunring_adapter_luid(argument, &luid);
        (void)tunring_adapter_pinned(argument);
    }
    return NULL;
}

static void *
play(void *argument)
{
    BYTE bytes[0x10000];
    make_packet(bytes, 100, 1);
    const tunring_packet chain = {bytes, 100};
    DWORD code;
    do
    {
        DWORD size = sizeof(bytes);
        (void)tunring_simulate_inject(argument, &chain, 1);
        code = tunring_simulate_drain(argument, bytes, &size);
    } while (code != ERROR_INVALID_HANDLE);
    return NULL;
}

static void *
borrow(void *argument)
{
    WINTUN_ADAPTER_HANDLE handle;
    NET_LUID luid;
    while (tunring_adapter_lend(argument, &handle) == ERROR_SUCCESS)
    {
        api.WintunGetAdapterLUID(handle, &luid);
        tunring_adapter_give_back(argument);
    }
    return NULL;
}

static bool
exists(void)
{
    const WINTUN_ADAPTER_HANDLE handle = api.WintunOpenAdapter(name);
    if (handle)
        api.WintunCloseAdapter(handle);
    return handle != NULL;
}

static void *
close_session(void *argument)
{
    tunring_source_close(tunring_session_source(argument));
    return NULL;
}

static void *
close_adapter(void *argument)
{
    tunring_adapter_close(argument);
    return NULL;
}

static void
round_of_threads(int number)
{
    void *(*const work[])(void *) = {start_sessions, receive, ask, play, borrow, close_adapter, close_adapter};
    enum
    {
        THREADS = sizeof(work) / sizeof(work[0]),
        CLOSERS = 2
    };
    tunring_adapter *adapter;
    CHECK(tunring_adapter_create(&api, name, name, NULL, NULL, &adapter) == ERROR_SUCCESS);
    CHECK(tunring_simulate_attach(adapter) == ERROR_SUCCESS);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS - CLOSERS; i++)
        CHECK(pthread_create(&threads[i], NULL, work[i], adapter) == 0);
    os_sleep(100000 * (number % 10));
    for (int i = THREADS - CLOSERS; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, work[i], adapter) == 0);
    tunring_adapter_close(adapter);
    /* Only a loan may still keep it, which a thread of the core's own then ends. */
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; exists() && i < 1000; i++)
        os_sleep(1000000);
    CHECK(!exists());
    tunring_adapter_drop(adapter);
}

/* A second close, of the session or of the adapter, returns when the first is done. */
static void
round_of_closers(void)
{
    tunring_adapter *adapter;
    CHECK(tunring_adapter_create(&api, name, name, NULL, NULL, &adapter) == ERROR_SUCCESS);
    tunring_session *session;
    CHECK(tunring_session_start(adapter, 0x20000, NULL, &session) == ERROR_SUCCESS);
    pthread_t threads[2];
    CHECK(pthread_create(&threads[0], NULL, close_session, session) == 0);
    CHECK(pthread_create(&threads[1], NULL, close_adapter, adapter) == 0);
    tunring_adapter_close(adapter);
    CHECK(!exists());
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    tunring_source_drop(tunring_session_source(session));
    tunring_adapter_drop(adapter);
}

int
main(void)
{
    api = linked_api();
    for (int i = 0; i < ROUNDS; i++)
    {
        round_of_threads(i);
        round_of_closers();
    }
    for (int i = 0; tunring_sources_pinned() && i < 1000; i++)
        os_sleep(1000000);
    CHECK(tunring_sources_pinned() == 0);
    return 0;
}
