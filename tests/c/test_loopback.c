/* SPDX-License-Identifier: MIT
 *
 * The loopback library through its 14 functions: adapters, sessions, the cable, the read event.
 */
/* build: parts=os,loopback,common,ring */
#include "check.h"
#include "backends/common/exports.h"
#include "platform/os.h"

#include <poll.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define CAPACITY WINTUN_MIN_RING_CAPACITY

static const WCHAR name_a[] = {'C', 'a', 'b', 'l', 'e', ' ', 'A', 0};
static const WCHAR name_a_again[] = {'c', 'A', 'B', 'L', 'E', ' ', 'a', 0};
static const WCHAR name_b[] = {'C', 'a', 'b', 'l', 'e', ' ', 0xE9, 0xD83D, 0xDE00, 0};
static const WCHAR name_c[] = {'C', 0};
static const WCHAR type[] = {'T', 'e', 's', 't', 0};
static const GUID guid = {1, 2, 3, {4, 5, 6, 7, 8, 9, 10, 11}};

static WINTUN_ADAPTER_HANDLE a, b;
static WINTUN_SESSION_HANDLE sa, sb;

static bool
event_ready(WINTUN_SESSION_HANDLE session)
{
    struct pollfd event = {.fd = (int)(intptr_t)WintunGetReadWaitEvent(session), .events = POLLIN};
    return poll(&event, 1, 0) == 1;
}

static unsigned
open_descriptors(void)
{
    unsigned count = 0;
    for (int fd = 0; fd < 256; fd++)
    {
        struct pollfd any = {.fd = fd};
        poll(&any, 1, 0);
        count += (any.revents & POLLNVAL) == 0;
    }
    return count;
}

static void
create_pair(void)
{
    CHECK((a = WintunCreateAdapter(name_a, type, &guid)));
    CHECK((b = WintunCreateAdapter(name_b, type, &guid)));
}

static void
start_pair(DWORD capacity)
{
    create_pair();
    CHECK((sa = WintunStartSession(a, capacity)));
    CHECK((sb = WintunStartSession(b, capacity)));
}

static void
end_pair(void)
{
    WintunEndSession(sa);
    WintunEndSession(sb);
    WintunCloseAdapter(a);
    WintunCloseAdapter(b);
    CHECK(WintunDeleteDriver());
}

/* An IPv4 packet as far as the filter looks, with a number in it. False when the ring is full. */
static bool
send(WINTUN_SESSION_HANDLE session, DWORD size, uint32_t number)
{
    BYTE *packet = WintunAllocateSendPacket(session, size);
    if (!packet)
    {
        CHECK_EQUAL(GetLastError(), ERROR_BUFFER_OVERFLOW);
        return false;
    }
    memset(packet, (int)number, size);
    packet[0] = 0x45;
    memcpy(packet + 4, &number, sizeof(number));
    WintunSendPacket(session, packet);
    return true;
}

static const BYTE *
receive(WINTUN_SESSION_HANDLE session, DWORD size, uint32_t number)
{
    DWORD received = 0;
    BYTE *packet = WintunReceivePacket(session, &received);
    CHECK(packet);
    CHECK_EQUAL(received, size);
    CHECK(packet[0] == 0x45 && memcmp(packet + 4, &number, sizeof(number)) == 0);
    CHECK(packet[size - 1] == (BYTE)number);
    return packet;
}

static void
receive_fails(WINTUN_SESSION_HANDLE session, DWORD code)
{
    SetLastError(0);
    DWORD size = 12345;
    CHECK(!WintunReceivePacket(session, &size));
    CHECK_EQUAL(GetLastError(), code);
    CHECK_EQUAL(size, 12345);
    CHECK(event_ready(session) == (code != ERROR_NO_MORE_ITEMS));
}

static tunring_counters
counters(WINTUN_SESSION_HANDLE session)
{
    tunring_counters result;
    TunringBackend.counters(session, &result);
    return result;
}

static void
create_fails(LPCWSTR name, LPCWSTR tunnel_type, const GUID *requested, DWORD code)
{
    SetLastError(0);
    CHECK(!WintunCreateAdapter(name, tunnel_type, requested));
    CHECK_EQUAL(GetLastError(), code);
}

static void
test_names(void)
{
    static const WCHAR empty[] = {0};
    WCHAR text[130];
    for (int i = 0; i < 129; i++)
        text[i] = 'x';
    text[129] = 0;
    create_fails(NULL, type, NULL, ERROR_INVALID_PARAMETER);
    create_fails(empty, type, NULL, ERROR_INVALID_PARAMETER);
    create_fails(name_a, NULL, NULL, ERROR_INVALID_PARAMETER);
    create_fails(name_a, empty, NULL, ERROR_INVALID_PARAMETER);
    create_fails(name_a, text, NULL, ERROR_INVALID_PARAMETER);
    create_fails(text + 1, type, NULL, ERROR_INVALID_PARAMETER);
    CHECK(!WintunOpenAdapter(empty) && GetLastError() == ERROR_INVALID_PARAMETER);
    SetLastError(77);
    WINTUN_ADAPTER_HANDLE adapter;
    CHECK((adapter = WintunCreateAdapter(text + 2, text + 1, NULL)));
    CHECK_EQUAL(GetLastError(), 77);
    WintunCloseAdapter(adapter);
    WintunCloseAdapter(NULL);
}

static void
test_adapters(void)
{
    CHECK(WintunDeleteDriver());
    CHECK_EQUAL(WintunGetRunningDriverVersion(), 0x10000);
    CHECK(!WintunOpenAdapter(name_a) && GetLastError() == ERROR_NOT_FOUND);
    create_pair();
    CHECK(!WintunDeleteDriver() && GetLastError() == ERROR_BUSY);
    create_fails(name_a_again, type, NULL, ERROR_ALREADY_EXISTS);
    create_fails(name_c, type, &guid, ERROR_ALREADY_EXISTS);
    NET_LUID first;
    WintunGetAdapterLUID(a, &first);
    NET_LUID second;
    WintunGetAdapterLUID(b, &second);
    CHECK_EQUAL(first.Value >> 48, 53);
    CHECK_EQUAL(second.Value - first.Value, 1 << 24);
    char text[32];
    CHECK_EQUAL(TunringBackend.adapter_name(b, text, sizeof(text)), ERROR_SUCCESS);
    CHECK(strcmp(text, "Cable \xC3\xA9\xF0\x9F\x98\x80") == 0);
    CHECK_EQUAL(TunringBackend.adapter_name(b, text, 8), ERROR_BUFFER_OVERFLOW);
    DWORD index = 5;
    CHECK_EQUAL(TunringBackend.adapter_index(b, &index), ERROR_SUCCESS);
    CHECK_EQUAL(index, 0);
    CHECK_EQUAL(TunringBackend.adapter_namespace(b), -1);

    WINTUN_ADAPTER_HANDLE opened;
    CHECK((opened = WintunOpenAdapter(name_a_again)));
    WintunGetAdapterLUID(opened, &second);
    CHECK(first.Value == second.Value);
    WintunCloseAdapter(opened);
    CHECK((opened = WintunOpenAdapter(name_a)));
    CHECK((sa = WintunStartSession(opened, CAPACITY)));
    CHECK(!WintunStartSession(a, CAPACITY) && GetLastError() == ERROR_ALREADY_INITIALIZED);
    WintunCloseAdapter(a);
    receive_fails(sa, ERROR_HANDLE_EOF);
    CHECK(!WintunAllocateSendPacket(sa, 20) && GetLastError() == ERROR_HANDLE_EOF);
    CHECK(!WintunOpenAdapter(name_a) && GetLastError() == ERROR_NOT_FOUND);
    CHECK(!WintunStartSession(opened, CAPACITY) && GetLastError() == ERROR_FILE_NOT_FOUND);
    WINTUN_ADAPTER_HANDLE again;
    /* Its end of the cable and its name are free again. */
    CHECK((again = WintunCreateAdapter(name_a, type, &guid)));
    WintunCloseAdapter(opened);
    WintunEndSession(sa);
    a = again;
    CHECK((sa = WintunStartSession(a, CAPACITY)));
    CHECK((sb = WintunStartSession(b, CAPACITY)));
    CHECK(send(sb, 100, 7));
    WintunReleaseReceivePacket(sa, receive(sa, 100, 7));
    end_pair();
}

static void
test_bad_start(void)
{
    static const DWORD bad[] = {0, 1, 0x10000, 0x20001, 0x30000, 0x8000000, 0xFFFFFFFF};
    create_pair();
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
    {
        CHECK(!WintunStartSession(a, bad[i]));
        CHECK_EQUAL(GetLastError(), ERROR_INVALID_PARAMETER);
    }
    unsigned before = open_descriptors();
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    struct rlimit none = limit;
    none.rlim_cur = 0;
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    CHECK(!WintunStartSession(a, CAPACITY));
    CHECK_EQUAL(GetLastError(), ERROR_TOO_MANY_OPEN_FILES);
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    for (int i = 0; i < 300; i++)
    {
        CHECK((sa = WintunStartSession(a, CAPACITY)));
        WintunEndSession(sa);
    }
    CHECK_EQUAL(open_descriptors(), before);
    WintunCloseAdapter(a);
    WintunCloseAdapter(b);
}

static void
test_unplugged(void)
{
    CHECK((a = WintunCreateAdapter(name_a, type, NULL)));
    CHECK((sa = WintunStartSession(a, CAPACITY)));
    receive_fails(sa, ERROR_NO_MORE_ITEMS);
    for (uint32_t i = 0; i < 1000; i++)
        CHECK(send(sa, 1400, i));
    tunring_counters counted = counters(sa);
    CHECK_EQUAL(counted.host_dropped, 1000);
    CHECK_EQUAL(counted.host_filtered, 0);
    CHECK_EQUAL(TunringBackend.send_room(sa), CAPACITY - 4);
    WintunEndSession(sa);
    WintunCloseAdapter(a);
}

static void
test_filter(void)
{
    static const struct
    {
        BYTE first;
        DWORD size;
        bool passes;
    } cases[] = {{0x45, 20, true},  {0x45, 19, false}, {0x60, 40, true},      {0x60, 39, false},
                 {0x00, 60, false}, {0x50, 60, false}, {0xF5, 0xFFFF, false}, {0x6F, 0xFFFF, true}};

    start_pair(CAPACITY);
    DWORD size;
    const BYTE *packet;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
    {
        BYTE *slot = WintunAllocateSendPacket(sa, cases[i].size);
        slot[0] = cases[i].first;
        WintunSendPacket(sa, slot);
        packet = WintunReceivePacket(sb, &size);
        CHECK((packet != NULL) == cases[i].passes);
        if (packet)
        {
            CHECK(size == cases[i].size && packet[0] == cases[i].first);
            WintunReleaseReceivePacket(sb, packet);
        }
    }
    WintunSendPacket(sa, WintunAllocateSendPacket(sa, 0));
    receive_fails(sb, ERROR_NO_MORE_ITEMS);
    CHECK_EQUAL(counters(sa).host_filtered, 6);
    CHECK_EQUAL(counters(sa).host_dropped, 0);
    CHECK(!WintunAllocateSendPacket(sa, 0x10000) && GetLastError() == ERROR_INVALID_PARAMETER);
    end_pair();
}

/* Both rings fill, and nothing is lost. */
static void
test_back_pressure(void)
{
    const uint32_t ring_holds = (CAPACITY - 4) / 1404;
    start_pair(CAPACITY);
    uint32_t sent = 0;
    while (send(sa, 1400, sent))
        sent++;
    CHECK_EQUAL(sent, 2 * ring_holds);
    /* A slot of the far ring gives one of the near ring. */
    const BYTE *packet = receive(sb, 1400, 0);
    CHECK(!send(sa, 1400, sent));
    WintunReleaseReceivePacket(sb, packet);
    CHECK(send(sa, 1400, sent));
    CHECK(!send(sa, 1400, ++sent));
    for (uint32_t i = 1; i < sent; i++)
    {
        CHECK(event_ready(sb));
        WintunReleaseReceivePacket(sb, receive(sb, 1400, i));
    }
    receive_fails(sb, ERROR_NO_MORE_ITEMS);
    CHECK_EQUAL(counters(sa).host_dropped, 0);
    CHECK_EQUAL(TunringBackend.send_room(sa), CAPACITY - 4);
    end_pair();
}

/* The far end holds what it received: the slots that the near ring keeps come one by one. */
static void
test_release_out_of_order(void)
{
    start_pair(CAPACITY);
    uint32_t sent = 0;
    while (send(sa, 1600, sent))
        sent++;
    CHECK_EQUAL(sent, 2 * 81);
    uint32_t held = 0;
    const BYTE *packets[80];
    for (; held < 80; held++)
        packets[held] = receive(sb, 1600, held);
    for (uint32_t i = 80; i-- > 1;)
    {
        WintunReleaseReceivePacket(sb, packets[i]);
        CHECK(!send(sa, 1600, sent));
    }
    WintunReleaseReceivePacket(sb, packets[0]);
    for (uint32_t i = 0; i < 80; i++)
        CHECK(send(sa, 1600, sent++));
    CHECK(!send(sa, 1600, sent));
    for (; held < sent; held++)
        WintunReleaseReceivePacket(sb, receive(sb, 1600, held));
    receive_fails(sb, ERROR_NO_MORE_ITEMS);
    end_pair();
}

static void
test_send_order(void)
{
    start_pair(CAPACITY);
    BYTE *slots[3];
    for (uint32_t i = 0; i < 3; i++)
    {
        slots[i] = WintunAllocateSendPacket(sa, 20);
        memset(slots[i], (int)i, 20);
        slots[i][0] = 0x45;
        memcpy(slots[i] + 4, &i, 4);
    }
    WintunSendPacket(sa, slots[2]);
    WintunSendPacket(sa, slots[1]);
    receive_fails(sb, ERROR_NO_MORE_ITEMS);
    WintunSendPacket(sa, slots[0]);
    CHECK(event_ready(sb));
    for (uint32_t i = 0; i < 3; i++)
        WintunReleaseReceivePacket(sb, receive(sb, 20, i));
    end_pair();
}

/* Without a session at the far end packets are dropped, those included that waited for its room. */
static void
test_far_end_ends(void)
{
    const uint32_t ring_holds = (CAPACITY - 4) / 1404;
    create_pair();
    CHECK((sa = WintunStartSession(a, CAPACITY)));
    CHECK(send(sa, 1400, 0));
    CHECK_EQUAL(counters(sa).host_dropped, 1);
    CHECK((sb = WintunStartSession(b, CAPACITY)));
    receive_fails(sb, ERROR_NO_MORE_ITEMS);
    uint32_t sent = 0;
    while (send(sa, 1400, sent))
        sent++;
    WintunEndSession(sb);
    CHECK_EQUAL(counters(sa).host_dropped, 1 + ring_holds);
    CHECK_EQUAL(TunringBackend.send_room(sa), CAPACITY - 4);
    CHECK((sb = WintunStartSession(b, CAPACITY)));
    receive_fails(sb, ERROR_NO_MORE_ITEMS);
    CHECK(send(sa, 1400, 5));
    WintunReleaseReceivePacket(sb, receive(sb, 1400, 5));
    end_pair();
}

/* After detach the adapter takes a new session while the memory of the old one lives, even past the adapter. */
static void
test_detach(void)
{
    start_pair(CAPACITY);
    CHECK(send(sa, 100, 1) && send(sa, 100, 2) && send(sa, 100, 3));
    const BYTE *first = receive(sb, 100, 1);
    const BYTE *second = receive(sb, 100, 2);
    BYTE *open = WintunAllocateSendPacket(sb, 60);
    memset(open, 0x45, 60);
    CHECK(TunringBackend.detach(sb));
    CHECK(event_ready(sb));
    CHECK(TunringBackend.detach(sb));
    WINTUN_SESSION_HANDLE old = sb;
    CHECK((sb = WintunStartSession(b, CAPACITY)));
    CHECK(send(sa, 100, 4));
    CHECK(first[99] == 1 && second[99] == 2);
    WintunReleaseReceivePacket(old, second);
    WintunReleaseReceivePacket(old, first);
    WintunSendPacket(old, open);
    receive_fails(sa, ERROR_NO_MORE_ITEMS);
    WintunReleaseReceivePacket(sb, receive(sb, 100, 4));
    CHECK(send(sb, 100, 9));
    WintunReleaseReceivePacket(sa, receive(sa, 100, 9));
    end_pair();
    WintunEndSession(old);
}

/* Committed packets still arrive when the near end closes, as far as there is room. */
static void
test_near_end_ends(void)
{
    start_pair(CAPACITY);
    CHECK(send(sa, 100, 1));
    WintunEndSession(sa);
    WintunReleaseReceivePacket(sb, receive(sb, 100, 1));
    receive_fails(sb, ERROR_NO_MORE_ITEMS);
    CHECK((sa = WintunStartSession(a, 2 * CAPACITY)));
    CHECK(send(sa, 100, 2));
    WintunReleaseReceivePacket(sb, receive(sb, 100, 2));
    end_pair();
}

static WINTUN_LOGGER_LEVEL logged_level;
static DWORD64 logged_time;
static char logged_text[256];

static void CALLBACK
remember_line(WINTUN_LOGGER_LEVEL level, DWORD64 timestamp, LPCWSTR message)
{
    logged_level = level;
    logged_time = timestamp;
    size_t i = 0;
    for (; message[i] != 0 && i < sizeof(logged_text) - 1; i++)
        logged_text[i] = message[i] < 0x80 ? (char)message[i] : '?';
    logged_text[i] = 0;
    SetLastError(4321);
}

static void
test_logger(void)
{
    WintunSetLogger(remember_line);
    SetLastError(0);
    CHECK(!WintunOpenAdapter(name_b));
    CHECK_EQUAL(GetLastError(), ERROR_NOT_FOUND);
    CHECK_EQUAL(logged_level, WINTUN_LOG_ERR);
    CHECK(strcmp(logged_text, "Failed to open adapter \"Cable ???\": Code 0x00000490") == 0);
    /* Between 2020 and 2200, in 100 ns units since 1601. */
    CHECK(logged_time > 132223104000000000ull && logged_time < 189000000000000000ull);
    WintunSetLogger(NULL);
    logged_text[0] = 0;
    CHECK(!WintunOpenAdapter(name_b));
    CHECK(logged_text[0] == 0);
}

/* A child has no adapters of its parent's, even if another thread was in a call, and can make its own. */
static void
test_fork(void)
{
    start_pair(CAPACITY);
    pid_t child = fork();
    CHECK(child >= 0);
    DWORD size;
    if (child == 0)
    {
        CHECK(WintunDeleteDriver());
        CHECK(!WintunOpenAdapter(name_a));
        CHECK(!WintunAllocateSendPacket(sa, 50) && GetLastError() == ERROR_HANDLE_EOF);
        CHECK(!WintunReceivePacket(sb, &size) && GetLastError() == ERROR_HANDLE_EOF);
        CHECK(!WintunStartSession(a, CAPACITY) && GetLastError() == ERROR_HANDLE_EOF);
        end_pair();
        start_pair(CAPACITY);
        CHECK(send(sa, 50, 3));
        WintunReleaseReceivePacket(sb, receive(sb, 50, 3));
        end_pair();
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(send(sa, 50, 3));
    WintunReleaseReceivePacket(sb, receive(sb, 50, 3));
    end_pair();
}

int
main(void)
{
    CHECK_EQUAL(TunringBackend.version, TUNRING_BACKEND_VERSION);
    CHECK_EQUAL(TunringBackend.size, sizeof(tunring_backend));
    test_names();
    test_adapters();
    test_bad_start();
    test_unplugged();
    test_filter();
    test_back_pressure();
    test_release_out_of_order();
    test_send_order();
    test_far_end_ends();
    test_detach();
    test_near_end_ends();
    test_logger();
    test_fork();
    CHECK(WintunDeleteDriver());
    return 0;
}
