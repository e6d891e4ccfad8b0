/* SPDX-License-Identifier: MIT
 *
 * tun_linux: what happens when the kernel's read(), write() and ioctl() don't do what they mostly do, and the driver's
 * filter.
 */
/* build: parts=tun_session,tun_device,offloads,common,os,ring
          flags=-Wl,--wrap=write -Wl,--wrap=writev -Wl,--wrap=read -Wl,--wrap=ioctl */
#include "backends/tun_linux/offload_coalesce.h"
#include "backends/ring/poison.h"
#include "tun_net.h"

#include <linux/if_ether.h>
#include <netpacket/packet.h>
#include <sys/uio.h>

#define NONE (-1)

ssize_t __real_write(int fd, const void *data, size_t size);
ssize_t __real_writev(int fd, const struct iovec *pieces, int count);
ssize_t __wrap_writev(int fd, const struct iovec *pieces, int count);
ssize_t __real_read(int fd, void *data, size_t size);
ssize_t __wrap_write(int fd, const void *data, size_t size);
ssize_t __wrap_read(int fd, void *data, size_t size);
int __real_ioctl(int fd, unsigned long request, void *argument);
int __wrap_ioctl(int fd, unsigned long request, void *argument);

/* The errno that calls on IP packets fail with, and how many times. */
static int write_failure = NONE, read_failure = NONE;
static unsigned write_failures, read_failures;

ssize_t
__wrap_write(int fd, const void *data, size_t size)
{
    if (write_failure == NONE || size < 20)
        return __real_write(fd, data, size);
    errno = write_failure;
    if (--write_failures == 0)
        write_failure = NONE;
    return -1;
}

/* Calls that reached the kernel, with virtio headers. */
static unsigned written;

ssize_t
__wrap_writev(int fd, const struct iovec *pieces, int count)
{
    if (write_failure == NONE)
    {
        written++;
        return __real_writev(fd, pieces, count);
    }
    errno = write_failure;
    if (--write_failures == 0)
        write_failure = NONE;
    return -1;
}

ssize_t
__wrap_read(int fd, void *data, size_t size)
{
    if (read_failure == NONE || size < 20)
        return __real_read(fd, data, size);
    errno = read_failure;
    if (--read_failures == 0)
        read_failure = NONE;
    return -1;
}

/* Runs just before somebody attaches to an interface. */
static const char *before_attach;

int
__wrap_ioctl(int fd, unsigned long request, void *argument)
{
    if (request == TUNSETIFF && before_attach)
        CHECK(run(before_attach) == 0);
    return __real_ioctl(fd, request, argument);
}

static void
fail_writes(int code, unsigned times)
{
    write_failure = code;
    write_failures = times;
}

static void
fail_reads(int code, unsigned times)
{
    read_failure = code;
    read_failures = times;
}

static unsigned
datagrams(int in)
{
    unsigned count = 0;
    uint8_t got[65536];
    while (recv(in, got, sizeof(got), MSG_DONTWAIT) >= 0)
        count++;
    return count;
}

/* EAGAIN keeps packets in the ring, in order; any later call of the send direction tries again. */
static void
kernel_full(WINTUN_SESSION_HANDLE session, int in)
{
    const DWORD slot = udp_size(AF_INET, 1000) + 4;
    uint8_t data[1000] = {0};
    fail_writes(EAGAIN, 1000000);
    unsigned sent = 0;
    for (;;)
    {
        SetLastError(203);
        BYTE *packet = WintunAllocateSendPacket(session, udp_size(AF_INET, sizeof(data)));
        if (!packet)
            break;
        CHECK(GetLastError() == 203);
        data[0] = (uint8_t)sent++;
        build_udp(packet, AF_INET, data, sizeof(data));
        WintunSendPacket(session, packet);
        CHECK(GetLastError() == 203);
        CHECK(TunringBackend.send_room(session) == WINTUN_MIN_RING_CAPACITY - 4 - sent * slot);
    }
    CHECK(GetLastError() == ERROR_BUFFER_OVERFLOW);
    CHECK(sent == (WINTUN_MIN_RING_CAPACITY - 4) / slot);
    CHECK(datagrams(in) == 0);

    write_failure = NONE;
    CHECK(TunringBackend.send_room(session) == WINTUN_MIN_RING_CAPACITY - 4);
    uint8_t got[1000];
    for (unsigned i = 0; i < sent; i++)
        CHECK(recv(in, got, sizeof(got), 0) == sizeof(got) && got[0] == (uint8_t)i);

    /* Allocate alone, and send alone, do it as well. */
    fail_writes(EAGAIN, 1);
    ring_sends(session, AF_INET, "a", 1);
    CHECK(datagrams(in) == 0);
    ring_sends(session, AF_INET, "b", 1);
    CHECK(recv(in, got, 1, 0) == 1 && got[0] == 'a');
    CHECK(recv(in, got, 1, 0) == 1 && got[0] == 'b');
    fail_writes(EAGAIN, 1000000);
    while (TunringBackend.send_room(session) > 60000)
        ring_sends(session, AF_INET, data, sizeof(data));
    CHECK_FAILS(WintunAllocateSendPacket(session, 65535), ERROR_BUFFER_OVERFLOW);
    write_failure = NONE;
    BYTE *packet = WintunAllocateSendPacket(session, 65535);
    CHECK(packet);
    CHECK(datagrams(in) > 0);
    packet[0] = 0;
    WintunSendPacket(session, packet);
}

/* Sends datagrams that are published together. */
static void
send_run(WINTUN_SESSION_HANDLE session, unsigned count, uint32_t size)
{
    uint8_t data[1000] = {0};
    CHECK(count <= OFFLOAD_RUN && size <= sizeof(data));
    BYTE *packets[OFFLOAD_RUN];
    for (unsigned i = 0; i < count; i++)
    {
        packets[i] = WintunAllocateSendPacket(session, udp_size(AF_INET, size));
        CHECK(packets[i]);
        data[0] = (uint8_t)i;
        build_udp(packets[i], AF_INET, data, size);
    }
    for (unsigned i = count; i-- > 0;)
        WintunSendPacket(session, packets[i]);
}

static void
expect_run(int in, unsigned count)
{
    uint8_t got[1000];
    for (unsigned i = 0; i < count; i++)
        CHECK(recv(in, got, sizeof(got), 0) > 0 && got[0] == (uint8_t)i);
    CHECK(datagrams(in) == 0);
}

/* A run is few writes; one that the kernel refuses as a superpacket goes out singly, and so do all later ones. */
static void
superpackets(WINTUN_SESSION_HANDLE session, int in)
{
    tunring_counters before;
    TunringBackend.counters(session, &before);
    written = 0;
    send_run(session, 40, 1000);
    CHECK(written == 1);
    expect_run(in, 40);

    /* The kernel is full: the run waits, and others behind it. */
    written = 0;
    fail_writes(EAGAIN, 1000);
    send_run(session, 40, 1000);
    send_run(session, 3, 500);
    CHECK(datagrams(in) == 0 && written == 0);
    write_failure = NONE;
    CHECK(TunringBackend.send_room(session) == WINTUN_MIN_RING_CAPACITY - 4);
    uint8_t got[1000];
    for (unsigned i = 0; i < 43; i++)
        CHECK(recv(in, got, sizeof(got), 0) == (i < 40 ? 1000 : 500) && got[0] == (uint8_t)(i < 40 ? i : i - 40));

    written = 0;
    fail_writes(EINVAL, 1);
    send_run(session, 40, 1000);
    expect_run(in, 40);
    CHECK(written == 40);
    written = 0;
    send_run(session, 40, 1000);
    expect_run(in, 40);
    CHECK(written == 40);
    tunring_counters after;
    TunringBackend.counters(session, &after);
    CHECK(after.write_errors == before.write_errors);
}

static void
refused_and_interrupted(WINTUN_SESSION_HANDLE session, int in)
{
    static const int codes[] = {EIO, EINVAL, ENOMEM, EFAULT, ENOBUFS};
    tunring_counters before, after;
    uint8_t got;
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
    {
        TunringBackend.counters(session, &before);
        fail_writes(codes[i], 1);
        ring_sends(session, AF_INET, "a", 1);
        ring_sends(session, AF_INET, "b", 1);
        TunringBackend.counters(session, &after);
        CHECK(after.write_errors == before.write_errors + 1);
        CHECK(recv(in, &got, 1, 0) == 1 && got == 'b');
    }
    TunringBackend.counters(session, &before);
    fail_writes(EINTR, 3);
    ring_sends(session, AF_INET, "c", 1);
    CHECK(recv(in, &got, 1, 0) == 1 && got == 'c');
    TunringBackend.counters(session, &after);
    CHECK(after.write_errors == before.write_errors);
}

static void
filter_out(WINTUN_SESSION_HANDLE session, int in)
{
    static const struct
    {
        BYTE first;
        DWORD size;
    } bad[] = {{0x00, 100}, {0x45, 19}, {0x60, 39}, {0x75, 100}, {0xFF, 65535}, {0x45, 0}, {0x45, 1}};
    const DWORD count = sizeof(bad) / sizeof(bad[0]);
    tunring_counters before;
    TunringBackend.counters(session, &before);
    for (DWORD i = 0; i < count; i++)
    {
        BYTE *packet = WintunAllocateSendPacket(session, bad[i].size);
        CHECK(packet);
        memset(packet, bad[i].first, bad[i].size);
        WintunSendPacket(session, packet);
    }
    ring_sends(session, AF_INET, "z", 1);
    uint8_t got;
    CHECK(recv(in, &got, 1, 0) == 1 && got == 'z');
    tunring_counters after;
    TunringBackend.counters(session, &after);
    CHECK(after.host_filtered == before.host_filtered + count && after.write_errors == before.write_errors);
}

/* A packet that is not IP comes from a packet socket, and a receive returns the packet behind it. */
static void
filter_in(WINTUN_SESSION_HANDLE session, int out)
{
    uint8_t data[60] = {0x20};
    int raw = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, htons(ETH_P_IP));
    struct sockaddr_ll to = {
        .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP), .sll_ifindex = (int)if_nametoindex("tt0")};
    CHECK(raw >= 0);
    tunring_counters before;
    TunringBackend.counters(session, &before);
    for (int i = 0; i < 5; i++)
        CHECK(sendto(raw, data, sizeof(data), 0, (struct sockaddr *)&to, sizeof(to)) == sizeof(data));
    kernel_sends(out, AF_INET, "good", 4);
    DWORD size;
    BYTE *packet = WintunReceivePacket(session, &size);
    CHECK(packet && size == 32 && memcmp(packet + 28, "good", 4) == 0);
    WintunReleaseReceivePacket(session, packet);
    tunring_counters after;
    TunringBackend.counters(session, &after);
    CHECK(after.host_filtered == before.host_filtered + 5);
    CHECK(sendto(raw, data, sizeof(data), 0, (struct sockaddr *)&to, sizeof(to)) == sizeof(data));
    CHECK_FAILS(WintunReceivePacket(session, &size), ERROR_NO_MORE_ITEMS);
    CHECK(!ready(session));
    close(raw);
}

static void
interrupted_read(WINTUN_SESSION_HANDLE session, int out)
{
    kernel_sends(out, AF_INET, "good", 4);
    fail_reads(EINTR, 3);
    SetLastError(203);
    DWORD size;
    BYTE *packet = WintunReceivePacket(session, &size);
    CHECK(packet && size == 32 && GetLastError() == 203);
    WintunReleaseReceivePacket(session, packet);
    CHECK(GetLastError() == 203);
}

/* The memory that an empty receive offered to the kernel is not anybody's again. */
static void
poisoned(WINTUN_SESSION_HANDLE session, int out)
{
    kernel_sends(out, AF_INET, "good", 4);
    DWORD size;
    BYTE *packet = WintunReceivePacket(session, &size);
    CHECK(packet);
    WintunReleaseReceivePacket(session, packet);
    CHECK_FAILS(WintunReceivePacket(session, &size), ERROR_NO_MORE_ITEMS);
#if defined(POISON_ENABLED)
    CHECK(__asan_address_is_poisoned(packet + 8) && __asan_address_is_poisoned(packet + 60000));
#endif
}

/* An error that nobody expects must not make waiters spin. */
static void
broken(WINTUN_SESSION_HANDLE session)
{
    fail_reads(EIO, 1);
    DWORD size;
    CHECK_FAILS(WintunReceivePacket(session, &size), ERROR_HANDLE_EOF);
    CHECK(strstr(last_line, "ends"));
    CHECK(ready(session));
    CHECK_FAILS(WintunReceivePacket(session, &size), ERROR_HANDLE_EOF);
    CHECK_FAILS(WintunAllocateSendPacket(session, 100), ERROR_HANDLE_EOF);
}

/* An interface that goes while it is being opened, or is another one by then, is not found; and none is made. */
static void
lost_race(void)
{
    CHECK(run("ip tuntap add mode tun name keep0") == 0);
    before_attach = "ip link del keep0";
    CHECK_FAILS(WintunOpenAdapter(wide("keep0")), ERROR_NOT_FOUND);
    CHECK(if_nametoindex("keep0") == 0);
    before_attach = NULL;
    CHECK(run("ip tuntap add mode tun name keep0") == 0);
    before_attach = "ip link del keep0 && ip tuntap add mode tun name keep0";
    CHECK_FAILS(WintunOpenAdapter(wide("keep0")), ERROR_NOT_FOUND);
    CHECK(if_nametoindex("keep0") != 0);
    before_attach = "ip link add tt9 type veth peer name tt8";
    CHECK_FAILS(WintunCreateAdapter(wide("tt9"), wide("Test"), NULL), ERROR_ALREADY_EXISTS);
    before_attach = NULL;
    CHECK(run("ip link del keep0 && ip link del tt9") == 0);
}

static void
everything(unsigned offloads)
{
    CHECK(TunringBackend.set_option("offloads", offloads) == ERROR_SUCCESS);
    WINTUN_ADAPTER_HANDLE adapter = create("tt0");
    configure4("tt0");
    WINTUN_SESSION_HANDLE session = WintunStartSession(adapter, WINTUN_MIN_RING_CAPACITY);
    CHECK(session);
    int in = bound_socket(AF_INET), out = udp_socket(AF_INET);
    for (int i = 0; i < 3; i++)
    {
        kernel_full(session, in);
        refused_and_interrupted(session, in);
        filter_out(session, in);
        filter_in(session, out);
        interrupted_read(session, out);
        poisoned(session, out);
    }
    if (offloads)
        superpackets(session, in);
    broken(session);
    WintunEndSession(session);
    WintunCloseAdapter(adapter);
    close(in);
    close(out);
}

int
main(void)
{
    enter_namespace();
    lost_race();
    CHECK(TunringBackend.set_option("offload", 1) == ERROR_NOT_FOUND);
    CHECK(TunringBackend.set_option("offloads", 2) == ERROR_INVALID_PARAMETER);
    everything(0);
    everything(1);
    return 0;
}
