/* SPDX-License-Identifier: MIT
 *
 * How the core calls a library: a chunk is allocated in order and committed from its end, and nothing is waited for
 * while an allocation is open. The library is a recorder.
 */
/* build: parts=core */
#include "check.h"
#include "platform/os.h"
#include "tunring.h"

#include <string.h>

#define SLOTS 200

static BYTE slots[SLOTS][64];
static unsigned allocated, open_slots, commits, room = SLOTS;
static int last_commit;
static unsigned publications; /* commits of the oldest open slot */
static bool is_open[SLOTS];

static BYTE *WINAPI
fake_allocate(WINTUN_SESSION_HANDLE session, DWORD size)
{
    (void)session;
    CHECK(size <= sizeof(slots[0]));
    if (allocated == room)
    {
        SetLastError(ERROR_BUFFER_OVERFLOW);
        return NULL;
    }
    is_open[allocated] = true;
    open_slots++;
    return slots[allocated++];
}

static void WINAPI
fake_send(WINTUN_SESSION_HANDLE session, const BYTE *packet)
{
    (void)session;
    int index = (int)((packet - slots[0]) / (ptrdiff_t)sizeof(slots[0]));
    CHECK(is_open[index]);
    is_open[index] = false;
    open_slots--;
    commits++;
    last_commit = index;
    bool oldest = true;
    for (int i = 0; i < index; i++)
        oldest = oldest && !is_open[i];
    publications += oldest;
}

static WINTUN_ADAPTER_HANDLE WINAPI
fake_create(LPCWSTR name, LPCWSTR type, const GUID *guid)
{
    (void)name, (void)type, (void)guid;
    return (WINTUN_ADAPTER_HANDLE)slots;
}

static void WINAPI
fake_close(WINTUN_ADAPTER_HANDLE adapter)
{
    (void)adapter;
}

static WINTUN_SESSION_HANDLE WINAPI
fake_start(WINTUN_ADAPTER_HANDLE adapter, DWORD capacity)
{
    (void)adapter, (void)capacity;
    return (WINTUN_SESSION_HANDLE)slots;
}

static unsigned ended;

static void WINAPI
fake_end(WINTUN_SESSION_HANDLE session)
{
    (void)session;
    ended++;
}

static os_event read_event;

static HANDLE WINAPI
fake_event(WINTUN_SESSION_HANDLE session)
{
    (void)session;
    return read_event.wait;
}

static DWORD receive_code = ERROR_NO_MORE_ITEMS;

static BYTE *WINAPI
fake_receive(WINTUN_SESSION_HANDLE session, DWORD *size)
{
    (void)session, (void)size;
    SetLastError(receive_code);
    return NULL;
}

int
main(void)
{
    const WCHAR name[] = {'x', 0};
    CHECK(os_event_open(&read_event));
    tunring_wake_guard_enable(false); /* its fillers are none of this test */
    tunring_api api = {
        .WintunCreateAdapter = fake_create,
        .WintunCloseAdapter = fake_close,
        .WintunStartSession = fake_start,
        .WintunEndSession = fake_end,
        .WintunGetReadWaitEvent = fake_event,
        .WintunReceivePacket = fake_receive,
        .WintunAllocateSendPacket = fake_allocate,
        .WintunSendPacket = fake_send,
    };
    tunring_adapter *adapter;
    CHECK(tunring_adapter_create(&api, name, name, NULL, NULL, &adapter) == ERROR_SUCCESS);
    tunring_session *session;
    CHECK(tunring_session_start(adapter, 0x20000, NULL, &session) == ERROR_SUCCESS);

    BYTE bytes[64] = {0x45};
    tunring_packet packets[100];
    for (int i = 0; i < 100; i++)
        packets[i] = (tunring_packet){bytes, sizeof(bytes)};
    uint32_t sent;
    CHECK(tunring_send(session, packets, 64, NULL, &sent) == ERROR_SUCCESS && sent == 64);
    CHECK(commits == 64 && last_commit == 0 && publications == 1);

    /* 100 packets: two chunks, so two publications. */
    publications = 0;
    CHECK(tunring_send(session, packets, 100, NULL, &sent) == ERROR_SUCCESS && sent == 100);
    CHECK(publications == 2 && open_slots == 0);

    /* Room for 36 more: they are committed before the wait. */
    tunring_wait wait = {.deadline = os_deadline(2000000)};
    CHECK(tunring_send(session, packets, 100, &wait, &sent) == WAIT_TIMEOUT && sent == 36);
    CHECK(open_slots == 0);

    /* A reservation that doesn't fit goes out as filler, since this library can't report its room. */
    allocated = SLOTS - 2;
    const uint32_t sizes[3] = {64, 64, 64};
    bytes[0] = 0x45;
    memset(slots[SLOTS - 2], 0x45, 128);
    tunring_lease *lease;
    CHECK(tunring_reserve(session, sizes, 3, NULL, &lease) == ERROR_BUFFER_OVERFLOW);
    CHECK(open_slots == 0 && slots[SLOTS - 2][0] == 0 && slots[SLOTS - 1][0] == 0);

    /* The adapter goes: this session is never ended, since its handle may be somebody else's by now. */
    receive_code = ERROR_HANDLE_EOF;
    tunring_source_close(tunring_session_source(session));
    tunring_source_drop(tunring_session_source(session));
    CHECK(ended == 0 && tunring_sessions_leaked() == 1);

    receive_code = ERROR_NO_MORE_ITEMS;
    CHECK(tunring_session_start(adapter, 0x20000, NULL, &session) == ERROR_SUCCESS);
    tunring_source_close(tunring_session_source(session));
    tunring_source_drop(tunring_session_source(session));
    CHECK(ended == 1 && tunring_sessions_leaked() == 1);
    tunring_adapter_close(adapter);
    tunring_adapter_drop(adapter);
    os_event_close(&read_event);
    return 0;
}
