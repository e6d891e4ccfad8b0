/* SPDX-License-Identifier: MIT
 *
 * tun_linux: the read event is ready if and only if a receive would say something other than "empty", with rings that
 * are pinned and interfaces that come and go.
 */
/* build: parts=tun_session,tun_device,offloads,common,os,ring */
#include "tun_net.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <time.h>

#define MAX_HELD 4096

static BYTE *held[MAX_HELD];
static unsigned held_count;

static void
send_numbered(int out, unsigned number)
{
    uint8_t data[1400] = {0};
    memcpy(data, &number, sizeof(number));
    kernel_sends(out, AF_INET, data, sizeof(data));
}

static unsigned
number_of(const BYTE *packet)
{
    unsigned number;
    memcpy(&number, packet + 28, sizeof(number));
    return number;
}

/* Sends and receives until the ring has no room for another packet of any size; the kernel then holds one. */
static void
fill_ring(WINTUN_SESSION_HANDLE session, int out)
{
    held_count = 0;
    DWORD size;
    for (;;)
    {
        CHECK(!ready(session));
        send_numbered(out, held_count);
        BYTE *packet = WintunReceivePacket(session, &size);
        if (!packet)
            break;
        CHECK(size == 1428 && number_of(packet) == held_count);
        CHECK(held_count < MAX_HELD);
        held[held_count++] = packet;
    }
    CHECK(GetLastError() == ERROR_NO_MORE_ITEMS);
    CHECK(held_count > 10);
}

static long
cpu_milliseconds(void)
{
    return clock() / (CLOCKS_PER_SEC / 1000);
}

/* Every kind of wait agrees. */
static void
check_waits(HANDLE event, bool expected)
{
    int fd = (int)(intptr_t)event;
    fd_set set;
    FD_ZERO(&set);
    FD_SET(fd, &set);
    struct timeval now = {0};
    CHECK(select(fd + 1, &set, NULL, NULL, &now) == expected);
    CHECK(readable(event, 0) == expected);
    int outer = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event interest = {.events = EPOLLIN};
    CHECK(outer >= 0 && epoll_ctl(outer, EPOLL_CTL_ADD, fd, &interest) == 0);
    struct epoll_event got;
    CHECK(epoll_wait(outer, &got, 1, 0) == expected);
    close(outer);
}

static void
pinned(WINTUN_SESSION_HANDLE session)
{
    HANDLE event = WintunGetReadWaitEvent(session);
    int out = udp_socket(AF_INET);
    CHECK(event == WintunGetReadWaitEvent(session));
    DWORD size;
    BYTE *packet;
    for (int round = 0; round < 3; round++)
    {
        fill_ring(session, out);
        unsigned last = held_count;
        check_waits(event, false);

        /* Nothing spins while packets come for a ring that has no room. */
        long before = cpu_milliseconds();
        for (int i = 1; i < 20; i++)
        {
            send_numbered(out, last + (unsigned)i);
            CHECK(!readable(event, 10));
        }
        CHECK(cpu_milliseconds() - before < 50);

        /* Out of order: room comes only with the oldest. */
        for (unsigned i = last - 1; i >= 1; i--)
        {
            SetLastError(203);
            WintunReleaseReceivePacket(session, held[i]);
            CHECK(GetLastError() == 203);
            CHECK(!ready(session));
            CHECK_FAILS(WintunReceivePacket(session, &size), ERROR_NO_MORE_ITEMS);
        }
        WintunReleaseReceivePacket(session, held[0]);
        check_waits(event, true);

        for (unsigned i = 0; i < 20; i++)
        {
            CHECK(ready(session));
            packet = WintunReceivePacket(session, &size);
            CHECK(packet && number_of(packet) == last + i);
            WintunReleaseReceivePacket(session, packet);
        }
        check_waits(event, false);
        CHECK_FAILS(WintunReceivePacket(session, &size), ERROR_NO_MORE_ITEMS);
    }
    close(out);
}

/* A ring that is about to have no room shows that at once, not only at the next receive. */
static void
last_room(WINTUN_SESSION_HANDLE session)
{
    int out = udp_socket(AF_INET);
    for (unsigned i = 0; i < 100; i++)
        send_numbered(out, i);
    unsigned taken = 0;
    DWORD size;
    while (ready(session))
    {
        held[taken] = WintunReceivePacket(session, &size);
        CHECK(held[taken] && number_of(held[taken]) == taken);
        taken++;
    }
    CHECK(taken > 10 && taken < 100);
    CHECK_FAILS(WintunReceivePacket(session, &size), ERROR_NO_MORE_ITEMS);
    for (unsigned i = 0; i < taken; i++)
        WintunReleaseReceivePacket(session, held[i]);
    while (ready(session))
    {
        BYTE *packet = WintunReceivePacket(session, &size);
        CHECK(packet && number_of(packet) == taken);
        WintunReleaseReceivePacket(session, packet);
        taken++;
    }
    CHECK(taken == 100);
    close(out);
}

static void
down_and_up(WINTUN_SESSION_HANDLE session)
{
    int in = bound_socket(AF_INET), out = udp_socket(AF_INET);
    tunring_counters before;
    TunringBackend.counters(session, &before);
    set_up("tt0", false);
    CHECK(!ready(session));
    DWORD size;
    CHECK_FAILS(WintunReceivePacket(session, &size), ERROR_NO_MORE_ITEMS);
    ring_sends(session, AF_INET, "lost", 4);
    tunring_counters after;
    TunringBackend.counters(session, &after);
    CHECK(after.write_errors == before.write_errors + 1);
    set_up("tt0", true);
    ring_sends(session, AF_INET, "come", 4);
    uint8_t got[4];
    CHECK(recv(in, got, 4, 0) == 4 && memcmp(got, "come", 4) == 0);
    kernel_sends(out, AF_INET, "goes", 4);
    BYTE *packet = next_packet(session, &size);
    CHECK(memcmp(packet + 28, "goes", 4) == 0);
    WintunReleaseReceivePacket(session, packet);
    close(in);
    close(out);
}

static void
check_gone(WINTUN_SESSION_HANDLE session)
{
    DWORD size;
    for (int i = 0; i < 3; i++)
    {
        CHECK_FAILS(WintunReceivePacket(session, &size), ERROR_HANDLE_EOF);
        CHECK_FAILS(WintunAllocateSendPacket(session, 100), ERROR_HANDLE_EOF);
        check_waits(WintunGetReadWaitEvent(session), true);
    }
    CHECK(TunringBackend.send_room(session) == UINT32_MAX);
}

/* A child removes the interface in a moment. */
static pid_t
remove_soon(const char *name)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0)
    {
        usleep(100000);
        execlp("ip", "ip", "link", "del", name, (char *)NULL);
        _exit(1);
    }
    return child;
}

/* Removed while somebody waits: with room, without, and found out by a send. */
static void
removed(bool full, bool by_send)
{
    WINTUN_ADAPTER_HANDLE adapter = create("tt1");
    WINTUN_SESSION_HANDLE session = WintunStartSession(adapter, WINTUN_MIN_RING_CAPACITY);
    CHECK(session);
    int out = udp_socket(AF_INET);
    configure4("tt1");
    BYTE *open_slot = WintunAllocateSendPacket(session, 100);
    CHECK(open_slot);
    if (full)
        fill_ring(session, out);
    CHECK(!ready(session));
    pid_t child = remove_soon("tt1");
    CHECK(readable(WintunGetReadWaitEvent(session), 3000));
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    if (by_send)
    {
        memset(open_slot, 0, 100);
        open_slot[0] = 0x45;
        WintunSendPacket(session, open_slot);
        CHECK_FAILS(WintunAllocateSendPacket(session, 100), ERROR_HANDLE_EOF);
    }
    check_gone(session);
    if (full)
    {
        for (unsigned i = 0; i < held_count; i++)
            WintunReleaseReceivePacket(session, held[i]);
        check_gone(session);
    }
    WintunEndSession(session);
    WintunCloseAdapter(adapter);
    close(out);
}

static int
descriptor_count(void)
{
    int count = 0;
    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void
detached(void)
{
    int out = udp_socket(AF_INET);
    WINTUN_ADAPTER_HANDLE adapter = create("tt1");
    configure4("tt1");
    WINTUN_SESSION_HANDLE old = WintunStartSession(adapter, WINTUN_MIN_RING_CAPACITY);
    CHECK(old);
    fill_ring(old, out);
    BYTE *slot = WintunAllocateSendPacket(old, udp_size(AF_INET, 3));
    CHECK(slot);
    build_udp(slot, AF_INET, "old", 3);
    CHECK(!ready(old));
    int read_event = (int)(intptr_t)WintunGetReadWaitEvent(old);
    const int before = descriptor_count();
    CHECK(TunringBackend.detach(old) == TRUE);
    /* Memory is all that is left: the read event and what it watches are gone. */
    CHECK(fcntl(read_event, F_GETFD) == -1 && descriptor_count() <= before - 2);
    CHECK(!(link_flags("tt1") & IFF_RUNNING));

    /* The next session of the device hears nothing of the old one. */
    WINTUN_SESSION_HANDLE session = WintunStartSession(adapter, WINTUN_MIN_RING_CAPACITY);
    CHECK(session);
    int in = bound_socket(AF_INET);
    WintunSendPacket(old, slot);
    for (unsigned i = 0; i < held_count; i++)
    {
        memset(held[i], 0xEE, 1428);
        WintunReleaseReceivePacket(old, held[i]);
    }
    DWORD size;
    CHECK(recv(in, &size, sizeof(size), MSG_DONTWAIT) < 0);
    CHECK(!ready(session));
    kernel_sends(out, AF_INET, "new", 3);
    BYTE *packet = next_packet(session, &size);
    CHECK(size == 31 && memcmp(packet + 28, "new", 3) == 0);
    CHECK(TunringBackend.detach(old) == TRUE);

    /* Close before end, for both. */
    WintunCloseAdapter(adapter);
    CHECK(if_nametoindex("tt1") == 0);
    check_gone(session);
    packet[0] = 1;
    WintunReleaseReceivePacket(session, packet);
    WintunEndSession(old);
    WintunEndSession(session);
    close(in);
    close(out);
}

/* Packets that the kernel dropped for want of room in its own queue are counted. */
static void
dropped(WINTUN_SESSION_HANDLE session)
{
    int out = udp_socket(AF_INET);
    fill_ring(session, out);
    for (unsigned i = 0; i < 2000; i++)
        (void)send_numbered(out, i);
    tunring_counters counters;
    TunringBackend.counters(session, &counters);
    CHECK(counters.host_dropped >= 1000 && counters.host_dropped < 2000);
    for (unsigned i = 0; i < held_count; i++)
        WintunReleaseReceivePacket(session, held[i]);
    DWORD size;
    while (ready(session))
    {
        BYTE *packet = WintunReceivePacket(session, &size);
        CHECK(packet);
        WintunReleaseReceivePacket(session, packet);
    }
    close(out);
}

int
main(void)
{
    enter_namespace();
    WINTUN_ADAPTER_HANDLE adapter = create("tt0");
    configure4("tt0");
    WINTUN_SESSION_HANDLE session = WintunStartSession(adapter, WINTUN_MIN_RING_CAPACITY);
    CHECK(session);
    CHECK(!ready(session));
    pinned(session);
    last_room(session);
    down_and_up(session);
    dropped(session);
    WintunEndSession(session);
    WintunCloseAdapter(adapter);
    for (int i = 0; i < 4; i++)
        removed(i & 1, i & 2);
    detached();
    return 0;
}
