/* SPDX-License-Identifier: MIT
 *
 * tun_linux: creating adapters, and packets of the kernel both ways.
 */
/* build: parts=tun_session,tun_device,offloads,common,os,ring */
#include "tun_net.h"

#include <sys/utsname.h>

static void
names_and_types(void)
{
    static const char *const bad[] = {"", "sixteen-bytes-xx", "t%d", "a/b", "a:b", "a b", "a\tb", "a\nb", ".", ".."};
    static const WCHAR surrogate[] = {'t', 0xD800, 0};
    static const WCHAR umlaut[] = {'t', 0xFC, 0xFC, 0};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
    {
        CHECK_FAILS(WintunCreateAdapter(wide(bad[i]), wide("Test"), NULL), ERROR_INVALID_PARAMETER);
        CHECK(strstr(last_line, bad[i]) && strstr(last_line, "1 to 15 bytes"));
        CHECK_FAILS(WintunOpenAdapter(wide(bad[i])), ERROR_INVALID_PARAMETER);
    }
    CHECK_FAILS(WintunCreateAdapter(surrogate, wide("Test"), NULL), ERROR_INVALID_PARAMETER);
    CHECK_FAILS(WintunCreateAdapter(wide("tt0"), wide(""), NULL), ERROR_INVALID_PARAMETER);

    char type[130];
    memset(type, 'x', sizeof(type));
    type[129] = 0;
    CHECK_FAILS(WintunCreateAdapter(wide("tt0"), wide(type), NULL), ERROR_INVALID_PARAMETER);
    CHECK(if_nametoindex("tt0") == 0);
    type[128] = 0;
    WINTUN_ADAPTER_HANDLE adapter = WintunCreateAdapter(umlaut, wide(type), NULL);
    CHECK(adapter);
    CHECK(if_nametoindex("t\xC3\xBC\xC3\xBC") != 0);
    WintunCloseAdapter(adapter);

    CHECK_FAILS(WintunCreateAdapter(wide("lo"), wide("Test"), NULL), ERROR_ALREADY_EXISTS);
    CHECK(strstr(last_line, "lo") && strstr(last_line, "taken"));
    adapter = create("fifteen-bytes-x");
    CHECK_FAILS(WintunCreateAdapter(wide("fifteen-bytes-x"), wide("Test"), NULL), ERROR_ALREADY_EXISTS);
    WintunCloseAdapter(adapter);
    WintunCloseAdapter(NULL);
}

static void
identity(void)
{
    WINTUN_ADAPTER_HANDLE adapter = create("tt0");
    NET_LUID luid;
    WintunGetAdapterLUID(adapter, &luid);
    CHECK(luid.Value == ((DWORD64)53 << 48 | (DWORD64)if_nametoindex("tt0") << 24));
    char name[IFNAMSIZ];
    CHECK(TunringBackend.adapter_name(adapter, name, sizeof(name)) == ERROR_SUCCESS && strcmp(name, "tt0") == 0);
    CHECK(TunringBackend.adapter_name(adapter, name, 3) == ERROR_BUFFER_OVERFLOW);
    CHECK(run("ip link show tt0 | grep -q 'alias Test'") == 0);

    CHECK(run("ip link set tt0 name renamed") == 0);
    CHECK(TunringBackend.adapter_name(adapter, name, sizeof(name)) == ERROR_SUCCESS && strcmp(name, "renamed") == 0);
    DWORD index;
    CHECK(TunringBackend.adapter_index(adapter, &index) == ERROR_SUCCESS && index == if_nametoindex("renamed"));

    CHECK(run("ip link del renamed") == 0);
    CHECK(TunringBackend.adapter_name(adapter, name, sizeof(name)) == ERROR_SUCCESS && strcmp(name, "renamed") == 0);
    CHECK(TunringBackend.adapter_index(adapter, &index) == ERROR_SUCCESS && index == 0);
    CHECK_FAILS(WintunStartSession(adapter, WINTUN_MIN_RING_CAPACITY), ERROR_NOT_FOUND);
    WintunCloseAdapter(adapter);
}

static void
driver(void)
{
    struct utsname system;
    unsigned major, minor;
    CHECK(uname(&system) == 0 && sscanf(system.release, "%u.%u", &major, &minor) == 2);
    SetLastError(203);
    CHECK(WintunGetRunningDriverVersion() == (major << 16 | minor));
    CHECK(WintunDeleteDriver());
    CHECK(GetLastError() == 203);
    WINTUN_ADAPTER_HANDLE adapter = create("tt0");
    CHECK_FAILS(WintunDeleteDriver(), ERROR_BUSY);
    WintunCloseAdapter(adapter);
    CHECK(WintunDeleteDriver());
}

static void
one_session(void)
{
    static const DWORD bad[] = {0, 1, 0x10000, 0x1FFFF, 0x30000, 0x8000000};
    WINTUN_ADAPTER_HANDLE adapter = create("tt0");
    WINTUN_ADAPTER_HANDLE second = WintunOpenAdapter(wide("tt0"));
    CHECK(second);
    configure4("tt0");
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        CHECK_FAILS(WintunStartSession(adapter, bad[i]), ERROR_INVALID_PARAMETER);
    /* The kernel notes this within a second, for what happened while the interface was not up. */
    for (int i = 0; i < 300 && link_flags("tt0") & IFF_RUNNING; i++)
        usleep(10000);
    CHECK(!(link_flags("tt0") & IFF_RUNNING));
    for (int i = 0; i < 3; i++)
    {
        WINTUN_SESSION_HANDLE session = WintunStartSession(i % 2 ? adapter : second, WINTUN_MIN_RING_CAPACITY);
        CHECK(session);
        CHECK(link_flags("tt0") & IFF_RUNNING);
        CHECK_FAILS(WintunStartSession(adapter, WINTUN_MIN_RING_CAPACITY), ERROR_ALREADY_INITIALIZED);
        CHECK_FAILS(WintunStartSession(second, WINTUN_MIN_RING_CAPACITY), ERROR_ALREADY_INITIALIZED);
        WintunEndSession(session);
        CHECK(!(link_flags("tt0") & IFF_RUNNING));
    }
    WintunCloseAdapter(second);
    CHECK(if_nametoindex("tt0") != 0);
    WintunCloseAdapter(adapter);
    CHECK(if_nametoindex("tt0") == 0);
}

/* Packets that the kernel queued before the session are not for it. */
static void
stale_packets(void)
{
    WINTUN_ADAPTER_HANDLE adapter = create("tt0");
    configure4("tt0");
    int out = udp_socket(AF_INET);
    for (int i = 0; i < 50; i++)
    {
        WINTUN_SESSION_HANDLE session = WintunStartSession(adapter, WINTUN_MIN_RING_CAPACITY);
        CHECK(session);
        CHECK(!ready(session));
        /* The link is up by the time that StartSession returns. */
        kernel_sends(out, AF_INET, "new", 4);
        DWORD size;
        BYTE *packet = WintunReceivePacket(session, &size);
        CHECK(packet && size == 32 && strcmp((char *)packet + 28, "new") == 0);
        kernel_sends(out, AF_INET, "old", 4);
        WintunEndSession(session);
        kernel_sends(out, AF_INET, "old", 4);
    }
    close(out);
    WintunCloseAdapter(adapter);
}

static void
kernel_to_client(WINTUN_SESSION_HANDLE session, int family)
{
    static const size_t sizes[] = {0, 1, 2, 3, 100, 1200, 1400};
    const DWORD header = udp_size(family, 0);
    int out = udp_socket(family);
    uint8_t data[1400];
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
    {
        memset(data, (int)(i + 1), sizeof(data));
        kernel_sends(out, family, data, sizes[i]);
        SetLastError(203);
        DWORD size;
        BYTE *packet = next_packet(session, &size);
        CHECK(size == header + sizes[i]);
        CHECK(packet[0] >> 4 == (family == AF_INET ? 4 : 6));
        CHECK(memcmp(packet + header, data, sizes[i]) == 0);
        CHECK(inet_pton(family, family == AF_INET ? remote4 : remote6, data) == 1);
        CHECK(memcmp(packet + (family == AF_INET ? 16 : 24), data, family == AF_INET ? 4 : 16) == 0);
        packet[0] = 0;
        WintunReleaseReceivePacket(session, packet);
    }
    close(out);
}

static void
client_to_kernel(WINTUN_SESSION_HANDLE session, int family)
{
    static const DWORD sizes[] = {0, 1, 5, 500, 1400, 8000, 65000};
    int in = bound_socket(family);
    static uint8_t data[65000], got[65536];
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
    {
        memset(data, (int)(i + 1), sizes[i]);
        SetLastError(203);
        ring_sends(session, family, data, sizes[i]);
        CHECK(GetLastError() == 203);
        CHECK(recv(in, got, sizeof(got), 0) == (ssize_t)sizes[i]);
        CHECK(memcmp(got, data, sizes[i]) == 0);
    }
    close(in);
}

/* The ring publishes when its oldest allocation is sent, and then in order of allocation. */
static void
order(WINTUN_SESSION_HANDLE session)
{
    int in = bound_socket(AF_INET);
    BYTE *slots[8];
    for (uint8_t i = 0; i < 8; i++)
    {
        slots[i] = WintunAllocateSendPacket(session, udp_size(AF_INET, 1));
        CHECK(slots[i]);
        build_udp(slots[i], AF_INET, &i, 1);
    }
    for (int i = 7; i >= 1; i--)
        WintunSendPacket(session, slots[i]);
    uint8_t got;
    CHECK(recv(in, &got, 1, MSG_DONTWAIT) < 0);
    WintunSendPacket(session, slots[0]);
    for (int i = 0; i < 8; i++)
        CHECK(recv(in, &got, 1, 0) == 1 && got == i);
    close(in);
}

static void
traffic(DWORD capacity)
{
    WINTUN_ADAPTER_HANDLE adapter = create("tt0");
    add_address4("tt0");
    add_address6("tt0");
    set_up("tt0", true);
    WINTUN_SESSION_HANDLE session = WintunStartSession(adapter, capacity);
    CHECK(session);
    /* The two IPv6 multicast reports that an interface starts with come when they like; here they are in the way. */
    CHECK(run("ip -6 route del multicast ff00::/8 dev tt0 table local") == 0);
    for (int round = 0; round < 20; round++)
    {
        kernel_to_client(session, AF_INET);
        kernel_to_client(session, AF_INET6);
        client_to_kernel(session, AF_INET);
        client_to_kernel(session, AF_INET6);
        order(session);
    }
    DWORD size;
    CHECK_FAILS(WintunReceivePacket(session, &size), ERROR_NO_MORE_ITEMS);
    CHECK_FAILS(WintunAllocateSendPacket(session, 65536), ERROR_INVALID_PARAMETER);
    CHECK(TunringBackend.send_room(session) == capacity - 4);
    WintunEndSession(session);
    WintunCloseAdapter(adapter);
}

int
main(void)
{
    enter_namespace();
    names_and_types();
    identity();
    driver();
    one_session();
    stale_packets();
    traffic(WINTUN_MIN_RING_CAPACITY);
    traffic(0x400000);
    return 0;
}
