/* SPDX-License-Identifier: MIT
 *
 * The guard against lost wake-ups, over a library of the test's own that passes for the official one and notes what is
 * sent, and when.
 */
/* build: parts=core,os */
#include "check.h"
#include "platform/os.h"
#include "tunring.h"

#include <string.h>

#define MILLISECOND 1000000

static DWORD version = 0xE;
static _Atomic bool full;
static BYTE slot[64];
static _Atomic unsigned fillers, packets;
static int64_t longest_gap, last_send; /* of the sender's thread */

static BYTE *WINAPI
allocate(WINTUN_SESSION_HANDLE session, DWORD size)
{
    (void)session;
    CHECK(size <= sizeof(slot));
    if (!atomic_load(&full))
        return slot;
    SetLastError(ERROR_BUFFER_OVERFLOW);
    return NULL;
}

static void WINAPI
send_slot(WINTUN_SESSION_HANDLE session, const BYTE *packet)
{
    (void)session;
    if (packet[0] >> 4 == 4)
        atomic_fetch_add(&packets, 1);
    else
        atomic_fetch_add(&fillers, 1);
}

static WINTUN_SESSION_HANDLE WINAPI
start(WINTUN_ADAPTER_HANDLE adapter, DWORD capacity)
{
    (void)adapter;
    (void)capacity;
    return (WINTUN_SESSION_HANDLE)slot;
}

static void WINAPI
end(WINTUN_SESSION_HANDLE session)
{
    (void)session;
}

static HANDLE WINAPI
read_event(WINTUN_SESSION_HANDLE session)
{
    (void)session;
    return NULL;
}

static BYTE *WINAPI
receive_nothing(WINTUN_SESSION_HANDLE session, DWORD *size)
{
    (void)session;
    (void)size;
    SetLastError(ERROR_NO_MORE_ITEMS);
    return NULL;
}

static WINTUN_ADAPTER_HANDLE WINAPI
create(LPCWSTR name, LPCWSTR type, const GUID *guid)
{
    (void)name;
    (void)type;
    (void)guid;
    return (WINTUN_ADAPTER_HANDLE)slot;
}

static void WINAPI
close_adapter(WINTUN_ADAPTER_HANDLE adapter)
{
    (void)adapter;
}

static DWORD WINAPI
driver_version(void)
{
    return version;
}

static const tunring_api api = {
    .WintunCreateAdapter = create,
    .WintunCloseAdapter = close_adapter,
    .WintunStartSession = start,
    .WintunEndSession = end,
    .WintunGetReadWaitEvent = read_event,
    .WintunReceivePacket = receive_nothing,
    .WintunAllocateSendPacket = allocate,
    .WintunSendPacket = send_slot,
    .WintunGetRunningDriverVersion = driver_version,
};

static tunring_adapter *adapter;

static tunring_session *
open_session(void)
{
    static const WCHAR name[] = {'a', 0};
    CHECK(tunring_adapter_create(&api, name, name, NULL, NULL, &adapter) == ERROR_SUCCESS);
    tunring_session *session;
    CHECK(tunring_session_start(adapter, 0x20000, NULL, &session) == ERROR_SUCCESS);
    atomic_store(&fillers, 0);
    atomic_store(&packets, 0);
    return session;
}

static void
close_session(tunring_session *session)
{
    tunring_source_close(tunring_session_source(session));
    tunring_source_drop(tunring_session_source(session));
    tunring_adapter_close(adapter);
    tunring_adapter_drop(adapter);
}

static void
note_gap(int64_t now)
{
    if (last_send && now - last_send > longest_gap)
        longest_gap = now - last_send;
    last_send = now;
}

static void
send_one(tunring_session *session)
{
    static const BYTE bytes[20] = {0x45};
    const tunring_packet packet = {bytes, sizeof(bytes)};
    uint32_t sent;
    CHECK(tunring_send(session, &packet, 1, NULL, &sent) == ERROR_SUCCESS && sent == 1);
    note_gap(os_now());
}

static bool
fillers_reach(unsigned count)
{
    for (int64_t limit = os_now() + 20000 * (int64_t)MILLISECOND; os_now() < limit; os_sleep(MILLISECOND / 4))
        if (atomic_load(&fillers) >= count)
            return true;
    return false;
}

/* Once after each burst, awake or asleep when it began; never while it lasts, nor later. */
static void
check_one_filler_a_burst(void)
{
    tunring_session *session = open_session();
    for (unsigned burst = 1; burst <= 20; burst++)
    {
        unsigned before = atomic_load(&fillers);
        last_send = longest_gap = 0;
        for (int i = 0; i < 200; i++)
            send_one(session);
        unsigned during = atomic_load(&fillers) - before;
        note_gap(os_now());
        /* Where this thread had to wait for its processor, the burst itself had pauses. */
        CHECK(during == 0 || longest_gap > MILLISECOND / 2);
        CHECK(fillers_reach(before + during + 1));
        before = atomic_load(&fillers);
        os_sleep((burst % 4) * 5 * MILLISECOND);
        CHECK(atomic_load(&fillers) == before);
    }
    CHECK(atomic_load(&packets) == 20 * 200);
    close_session(session);
}

static void
check_tries_again_when_full(void)
{
    tunring_session *session = open_session();
    send_one(session);
    atomic_store(&full, true);
    os_sleep(20 * MILLISECOND);
    unsigned before = atomic_load(&fillers);
    atomic_store(&full, false);
    if (!before)
        CHECK(fillers_reach(1));
    close_session(session);
}

static void
check_silent(void)
{
    tunring_session *session = open_session();
    send_one(session);
    os_sleep(20 * MILLISECOND);
    CHECK(atomic_load(&fillers) == 0);
    close_session(session);
}

static void
check_close_forgets(void)
{
    for (int i = 0; i < 50; i++)
    {
        tunring_session *session = open_session();
        send_one(session);
        os_sleep(i % 5 * 2 * MILLISECOND);
        close_session(session);
        unsigned before = atomic_load(&fillers);
        os_sleep(8 * MILLISECOND);
        CHECK(atomic_load(&fillers) == before);
    }
}

int
main(void)
{
    check_one_filler_a_burst();
    check_tries_again_when_full();
    check_close_forgets();
    version = 0xF;
    check_silent();
    version = 0xE;
    tunring_wake_guard_enable(false);
    check_silent();
    return 0;
}
