/* SPDX-License-Identifier: MIT
 *
 * The driver simulator: chains, overflow, corruption, delay, removal.
 */
/* build: parts=os,loopback,common,ring */
#include "check.h"
#include "backends/common/exports.h"
#include "platform/os.h"

#include <poll.h>
#include <string.h>

#define CAPACITY WINTUN_MIN_RING_CAPACITY

static const WCHAR name[] = {'S', 0};
static const WCHAR other_name[] = {'O', 0};
static const WCHAR type[] = {'T', 0};
static const GUID guid = {1, 2, 3, {4}};

static const tunring_simulator *simulator;
static WINTUN_ADAPTER_HANDLE adapter;
static WINTUN_SESSION_HANDLE session;
static BYTE bytes[0x10000];

static bool
event_ready(void)
{
    struct pollfd event = {.fd = (int)(intptr_t)WintunGetReadWaitEvent(session), .events = POLLIN};
    return poll(&event, 1, 0) == 1;
}

static void
setup(void)
{
    CHECK((adapter = WintunCreateAdapter(name, type, NULL)));
    CHECK_EQUAL(simulator->attach(adapter), ERROR_SUCCESS);
    CHECK((session = WintunStartSession(adapter, CAPACITY)));
}

static void
teardown(void)
{
    WintunEndSession(session);
    WintunCloseAdapter(adapter);
    CHECK(WintunDeleteDriver());
}

static DWORD
inject(DWORD size)
{
    return simulator->inject(adapter, &(tunring_packet){bytes, size}, 1);
}

static void
receive(DWORD expected)
{
    CHECK(event_ready());
    DWORD size;
    BYTE *packet = WintunReceivePacket(session, &size);
    CHECK(packet);
    CHECK_EQUAL(size, expected);
    CHECK(memcmp(packet, bytes, size) == 0);
    WintunReleaseReceivePacket(session, packet);
}

static void
receive_fails(DWORD code)
{
    DWORD size;
    CHECK(!WintunReceivePacket(session, &size));
    CHECK_EQUAL(GetLastError(), code);
    CHECK(event_ready() == (code != ERROR_NO_MORE_ITEMS));
}

static void
allocate_fails(DWORD code)
{
    CHECK(!WintunAllocateSendPacket(session, 20));
    CHECK_EQUAL(GetLastError(), code);
}

static void
send(DWORD size, BYTE first)
{
    BYTE *packet = WintunAllocateSendPacket(session, size);
    CHECK(packet);
    if (size > 0)
    {
        memcpy(packet, bytes, size);
        packet[0] = first;
    }
    WintunSendPacket(session, packet);
}

static tunring_counters
counters(void)
{
    tunring_counters result;
    TunringBackend.counters(session, &result);
    return result;
}

static void
test_attach(void)
{
    CHECK((adapter = WintunCreateAdapter(name, type, &guid)));
    CHECK_EQUAL(inject(20), ERROR_NOT_SUPPORTED);
    DWORD size = 1;
    CHECK_EQUAL(simulator->drain(adapter, bytes, &size), ERROR_NOT_SUPPORTED);
    CHECK_EQUAL(simulator->corrupt(adapter, TUNRING_CORRUPT_SEND_HEAD, 0), ERROR_NOT_SUPPORTED);
    CHECK_EQUAL(simulator->delay(adapter, 0), ERROR_NOT_SUPPORTED);
    CHECK_EQUAL(simulator->remove(adapter), ERROR_NOT_SUPPORTED);
    CHECK((session = WintunStartSession(adapter, CAPACITY)));
    CHECK_EQUAL(simulator->attach(adapter), ERROR_BUSY);
    WintunEndSession(session);
    CHECK_EQUAL(simulator->attach(adapter), ERROR_SUCCESS);
    CHECK_EQUAL(simulator->attach(adapter), ERROR_SUCCESS);
    CHECK_EQUAL(inject(20), ERROR_HANDLE_EOF);
    CHECK_EQUAL(simulator->drain(adapter, bytes, &size), ERROR_HANDLE_EOF);
    WINTUN_ADAPTER_HANDLE other;
    /* It is not a cable end any more. */
    CHECK((other = WintunCreateAdapter(other_name, type, &guid)));
    CHECK((session = WintunStartSession(other, CAPACITY)));
    send(20, 0x45);
    CHECK_EQUAL(counters().host_dropped, 1);
    WintunEndSession(session);
    WintunCloseAdapter(other);
    WintunCloseAdapter(adapter);
}

static void
test_inject(void)
{
    const tunring_packet chain[] = {{bytes, 20}, {bytes, 0x10000}, {bytes, 0}, {bytes, 1400}};
    setup();
    receive_fails(ERROR_NO_MORE_ITEMS);
    CHECK_EQUAL(simulator->inject(adapter, chain, 4), ERROR_SUCCESS);
    receive(20);
    receive(0);
    receive(1400);
    receive_fails(ERROR_NO_MORE_ITEMS);
    for (DWORD i = 0; i < 1000; i++)
    {
        CHECK_EQUAL(inject(i), ERROR_SUCCESS);
        receive(i);
    }
    receive_fails(ERROR_NO_MORE_ITEMS);
    teardown();
}

/* A chain that lacks room is lost whole. */
static void
test_overflow(void)
{
    const tunring_packet chain[] = {{bytes, 1400}, {bytes, 1400}, {bytes, 1400}};
    setup();
    DWORD count = 0;
    while (simulator->inject(adapter, chain, 3) == ERROR_SUCCESS)
        count += 3;
    CHECK_EQUAL(count, (CAPACITY - 4) / 1404 / 3 * 3);
    CHECK_EQUAL(counters().host_dropped, 3);
    while (count-- > 0)
        receive(1400);
    receive_fails(ERROR_NO_MORE_ITEMS);
    CHECK_EQUAL(simulator->inject(adapter, chain, 3), ERROR_SUCCESS);
    teardown();
}

static void
test_drain(void)
{
    BYTE buffer[2000];
    DWORD size = sizeof(buffer);
    setup();
    CHECK_EQUAL(simulator->drain(adapter, buffer, &size), ERROR_NO_MORE_ITEMS);
    send(60, 0x00);
    send(0, 0);
    send(60, 0x45);
    send(1400, 0x60);
    size = 59;
    CHECK_EQUAL(simulator->drain(adapter, buffer, &size), ERROR_BUFFER_OVERFLOW);
    CHECK_EQUAL(size, 60);
    CHECK_EQUAL(simulator->drain(adapter, buffer, &size), ERROR_SUCCESS);
    CHECK(size == 60 && buffer[0] == 0x45 && memcmp(buffer + 1, bytes + 1, 59) == 0);
    size = sizeof(buffer);
    CHECK_EQUAL(simulator->drain(adapter, buffer, &size), ERROR_SUCCESS);
    CHECK(size == 1400 && buffer[0] == 0x60 && memcmp(buffer + 1, bytes + 1, 1399) == 0);
    size = sizeof(buffer);
    CHECK_EQUAL(simulator->drain(adapter, buffer, &size), ERROR_NO_MORE_ITEMS);
    CHECK_EQUAL(counters().host_filtered, 2);
    /* Nothing moves by itself. */
    while (TunringBackend.send_room(session) >= 24)
        send(20, 0x45);
    allocate_fails(ERROR_BUFFER_OVERFLOW);
    teardown();
}

static void
test_corrupt(void)
{
    setup();
    CHECK_EQUAL(simulator->corrupt(adapter, TUNRING_CORRUPT_RECEIVE_SIZE, 1), ERROR_NO_MORE_ITEMS);
    CHECK_EQUAL(simulator->corrupt(adapter, TUNRING_CORRUPT_SEND_SIZE, 1), ERROR_NO_MORE_ITEMS);
    CHECK_EQUAL(inject(100), ERROR_SUCCESS);
    CHECK_EQUAL(inject(100), ERROR_SUCCESS);
    receive(100);
    CHECK_EQUAL(simulator->corrupt(adapter, TUNRING_CORRUPT_RECEIVE_SIZE, 0x10000), ERROR_SUCCESS);
    receive_fails(ERROR_INVALID_DATA);
    receive_fails(ERROR_INVALID_DATA);
    send(100, 0x45); /* the other direction goes on */
    CHECK_EQUAL(simulator->corrupt(adapter, TUNRING_CORRUPT_SEND_SIZE, 0x10000), ERROR_SUCCESS);
    DWORD size = 20;
    CHECK_EQUAL(simulator->drain(adapter, bytes, &size), ERROR_INVALID_DATA);
    CHECK_EQUAL(simulator->drain(adapter, bytes, &size), ERROR_HANDLE_EOF);
    allocate_fails(ERROR_HANDLE_EOF);
    teardown();

    setup();
    CHECK_EQUAL(simulator->corrupt(adapter, TUNRING_CORRUPT_RECEIVE_TAIL, 2), ERROR_SUCCESS);
    receive_fails(ERROR_INVALID_DATA);
    CHECK_EQUAL(simulator->corrupt(adapter, TUNRING_CORRUPT_RECEIVE_TAIL, CAPACITY), ERROR_SUCCESS);
    receive_fails(ERROR_HANDLE_EOF);
    CHECK_EQUAL(inject(20), ERROR_BUFFER_OVERFLOW);
    CHECK_EQUAL(simulator->corrupt(adapter, TUNRING_CORRUPT_SEND_HEAD, CAPACITY), ERROR_SUCCESS);
    allocate_fails(ERROR_HANDLE_EOF);
    teardown();
}

static void
test_delay(void)
{
    setup();
    CHECK_EQUAL(simulator->delay(adapter, 20000), ERROR_SUCCESS);
    int64_t began = os_now();
    CHECK_EQUAL(inject(20), ERROR_SUCCESS);
    CHECK(os_now() - began >= 20000000);
    DWORD size = 20;
    CHECK_EQUAL(simulator->drain(adapter, bytes, &size), ERROR_NO_MORE_ITEMS);
    CHECK(os_now() - began >= 40000000);
    CHECK_EQUAL(simulator->delay(adapter, 0), ERROR_SUCCESS);
    receive(20);
    teardown();
}

static void
test_remove(void)
{
    DWORD before = simulator->stale_ends();
    setup();
    CHECK_EQUAL(inject(50), ERROR_SUCCESS);
    CHECK_EQUAL(inject(60), ERROR_SUCCESS);
    DWORD size;
    BYTE *packet = WintunReceivePacket(session, &size);
    BYTE *open = WintunAllocateSendPacket(session, 40);
    CHECK(!TunringBackend.detach(session));
    CHECK_EQUAL(simulator->remove(adapter), ERROR_SUCCESS);
    CHECK_EQUAL(simulator->remove(adapter), ERROR_NOT_FOUND);
    receive_fails(ERROR_HANDLE_EOF); /* the unread packet is lost */
    allocate_fails(ERROR_HANDLE_EOF);
    CHECK_EQUAL(inject(20), ERROR_HANDLE_EOF);
    CHECK(!WintunOpenAdapter(name) && GetLastError() == ERROR_NOT_FOUND);
    CHECK(!WintunStartSession(adapter, CAPACITY) && GetLastError() == ERROR_FILE_NOT_FOUND);
    CHECK(WintunDeleteDriver());
    WINTUN_ADAPTER_HANDLE again;
    CHECK((again = WintunCreateAdapter(name, type, NULL)));
    /* Memory stays until the end. */
    CHECK(memcmp(packet, bytes, 50) == 0);
    WintunReleaseReceivePacket(session, packet);
    WintunSendPacket(session, open);
    CHECK_EQUAL(simulator->stale_ends(), before);
    WintunCloseAdapter(adapter);
    WintunEndSession(session);
    CHECK_EQUAL(simulator->stale_ends(), before + 1);
    WintunCloseAdapter(again);

    /* In order: not stale. Closed under the session: stale. */
    setup();
    teardown();
    CHECK_EQUAL(simulator->stale_ends(), before + 1);
    setup();
    WintunCloseAdapter(adapter);
    receive_fails(ERROR_HANDLE_EOF);
    WintunEndSession(session);
    CHECK_EQUAL(simulator->stale_ends(), before + 2);

    /* Sessions that are never ended are not lost memory to a leak checker. */
    for (int i = 0; i < 3; i++)
    {
        setup();
        CHECK_EQUAL(simulator->remove(adapter), ERROR_SUCCESS);
        WintunCloseAdapter(adapter);
        session = NULL;
    }
}

int
main(void)
{
    simulator = TunringBackend.simulator;
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (BYTE)(i * 7);
    test_attach();
    test_inject();
    test_overflow();
    test_drain();
    test_corrupt();
    test_delay();
    test_remove();
    return 0;
}
