/* SPDX-License-Identifier: MIT
 *
 * Sessions and adapters come and go at both ends of a cable while the other end sends and receives; a simulated adapter
 * is removed while packets are injected and drained.
 */
/* build: parts=os,loopback,common,ring */
#include "check.h"
#include "backends/common/exports.h"
#include "platform/os.h"

#include <pthread.h>
#include <string.h>

#define CAPACITY WINTUN_MIN_RING_CAPACITY
#define HELD 16

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define ROUNDS 800u
#else
#define ROUNDS 6000u
#endif

static const WCHAR names[3][2] = {{'A', 0}, {'B', 0}, {'S', 0}};
static const WCHAR type[] = {'T', 0};
static const GUID guid = {1, 2, 3, {4}};

static _Atomic bool over;
static _Atomic uint64_t arrived;

static void
send_some(WINTUN_SESSION_HANDLE session, unsigned count, uint64_t *state)
{
    while (count-- > 0)
    {
        DWORD size = 60 + check_random(state) % 1400;
        BYTE *packet = WintunAllocateSendPacket(session, size);
        if (!packet)
        {
            CHECK_EQUAL(GetLastError(), ERROR_BUFFER_OVERFLOW);
            return;
        }
        memset(packet, 0x45, size);
        WintunSendPacket(session, packet);
    }
}

/* Receives some, keeps up to HELD of them. */
static unsigned
receive_some(WINTUN_SESSION_HANDLE session, unsigned count, const BYTE **held)
{
    unsigned kept = 0;
    while (count-- > 0)
    {
        DWORD size;
        const BYTE *packet = WintunReceivePacket(session, &size);
        if (!packet)
        {
            CHECK_EQUAL(GetLastError(), ERROR_NO_MORE_ITEMS);
            break;
        }
        CHECK(size >= 60 && packet[0] == 0x45 && packet[size - 1] == 0x45);
        atomic_fetch_add(&arrived, 1);
        if (kept < HELD)
            held[kept++] = packet;
        else
            WintunReleaseReceivePacket(session, packet);
    }
    return kept;
}

/* One life of a session; sometimes its memory outlives it, with packets still held. */
static void
use_session(WINTUN_ADAPTER_HANDLE adapter, uint64_t *state)
{
    WINTUN_SESSION_HANDLE session = WintunStartSession(adapter, CAPACITY);
    CHECK(session);
    unsigned kept = 0;
    const BYTE *held[HELD];
    for (unsigned i = check_random(state) % 8; i > 0; i--)
    {
        send_some(session, check_random(state) % 100, state);
        while (kept > 0)
            WintunReleaseReceivePacket(session, held[--kept]);
        kept = receive_some(session, check_random(state) % 200, held);
    }
    WINTUN_SESSION_HANDLE next = NULL;
    if (check_random(state) % 2)
    {
        CHECK(TunringBackend.detach(session));
        CHECK((next = WintunStartSession(adapter, CAPACITY)));
        send_some(next, 10, state);
    }
    while (kept > 0)
    {
        const BYTE *packet = held[--kept];
        CHECK(packet[1] == 0x45);
        WintunReleaseReceivePacket(session, packet);
    }
    WintunEndSession(session);
    if (next)
        WintunEndSession(next);
}

static void *
churn(void *argument)
{
    unsigned which = *(unsigned *)argument;
    uint64_t state = 99 + which;
    WINTUN_ADAPTER_HANDLE adapter = NULL;
    for (unsigned round = 0; round < ROUNDS; round++)
    {
        if (!adapter)
            CHECK((adapter = WintunCreateAdapter(names[which], type, &guid)));
        use_session(adapter, &state);
        if (check_random(&state) % 4 == 0)
        {
            WintunCloseAdapter(adapter);
            adapter = NULL;
        }
    }
    WintunCloseAdapter(adapter);
    return NULL;
}

/* Opens what the others create and close. */
static void *
look(void *argument)
{
    (void)argument;
    while (!atomic_load(&over))
    {
        WINTUN_ADAPTER_HANDLE adapter = WintunOpenAdapter(names[0]);
        char name[8];
        if (adapter)
        {
            CHECK_EQUAL(TunringBackend.adapter_name(adapter, name, sizeof(name)), ERROR_SUCCESS);
            CHECK(strcmp(name, "A") == 0);
            WintunCloseAdapter(adapter);
        }
        os_yield();
    }
    return NULL;
}

static WINTUN_ADAPTER_HANDLE simulated;

static void *
drive(void *argument)
{
    static const BYTE bytes[200] = {0x45};
    const tunring_packet chain[] = {{bytes, 100}, {bytes, 200}};
    (void)argument;
    DWORD code = ERROR_SUCCESS;
    BYTE buffer[2000];
    while (code != ERROR_HANDLE_EOF)
    {
        DWORD size = sizeof(buffer);
        code = TunringBackend.simulator->inject(simulated, chain, 2);
        CHECK(code == ERROR_SUCCESS || code == ERROR_BUFFER_OVERFLOW || code == ERROR_HANDLE_EOF);
        code = TunringBackend.simulator->drain(simulated, buffer, &size);
        CHECK(code == ERROR_SUCCESS || code == ERROR_NO_MORE_ITEMS || code == ERROR_HANDLE_EOF);
    }
    return NULL;
}

static void *
remove_later(void *argument)
{
    os_sleep(*(int64_t *)argument);
    CHECK_EQUAL(TunringBackend.simulator->remove(simulated), ERROR_SUCCESS);
    return NULL;
}

static void
use_until_removed(WINTUN_SESSION_HANDLE session)
{
    for (;;)
    {
        DWORD size;
        BYTE *packet = WintunReceivePacket(session, &size);
        if (packet)
        {
            CHECK(packet[0] == 0x45);
            WintunReleaseReceivePacket(session, packet);
        }
        else if (GetLastError() == ERROR_HANDLE_EOF)
            return;
        packet = WintunAllocateSendPacket(session, 100);
        if (packet)
        {
            memset(packet, 0x45, 100);
            WintunSendPacket(session, packet);
        }
    }
}

static void
test_removal(void)
{
    for (int64_t i = 0; i < 30; i++)
    {
        int64_t after = i * 100000;
        CHECK((simulated = WintunCreateAdapter(names[2], type, NULL)));
        CHECK_EQUAL(TunringBackend.simulator->attach(simulated), ERROR_SUCCESS);
        WINTUN_SESSION_HANDLE session;
        CHECK((session = WintunStartSession(simulated, CAPACITY)));
        pthread_t driver;
        CHECK(pthread_create(&driver, NULL, drive, NULL) == 0);
        pthread_t remover;
        CHECK(pthread_create(&remover, NULL, remove_later, &after) == 0);
        use_until_removed(session);
        CHECK(pthread_join(driver, NULL) == 0 && pthread_join(remover, NULL) == 0);
        WintunCloseAdapter(simulated);
        WintunEndSession(session);
    }
}

int
main(void)
{
    unsigned which[] = {0, 1};
    pthread_t threads[3];
    CHECK(pthread_create(&threads[0], NULL, churn, &which[0]) == 0);
    CHECK(pthread_create(&threads[1], NULL, churn, &which[1]) == 0);
    CHECK(pthread_create(&threads[2], NULL, look, NULL) == 0);
    for (unsigned i = 0; i < 2; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    atomic_store(&over, true);
    CHECK(pthread_join(threads[2], NULL) == 0);
    CHECK(atomic_load(&arrived) > ROUNDS);
    test_removal();
    CHECK(WintunDeleteDriver());
    return 0;
}
