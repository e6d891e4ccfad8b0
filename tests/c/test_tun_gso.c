/* SPDX-License-Identifier: MIT
 *
 * tun_linux with offloads before a kernel that hands over nonsense, has few offloads, or changes its mind.
 *
 * The interface is real, its read(), writev() and TUNSETOFFLOAD aren't.
 */
/* build: parts=tun_session,tun_device,offloads,common,os,ring
          flags=-Wl,--wrap=read -Wl,--wrap=writev -Wl,--wrap=ioctl */
#include "backends/tun_linux/offload_coalesce.h"
#include "backends/tun_linux/offload_split.h"
#include "backends/ring/poison.h"
#include "tun_net.h"

/* Both headers have functions of these names. */
#define put16 store16
#define add_up sum_up
#include "offload_packets.h"
#undef put16
#undef add_up

#include <sys/uio.h>

#define HEADER ((uint32_t)sizeof(virtio_header))
#define MAX_READ (HEADER + 65535u)

ssize_t __real_read(int fd, void *data, size_t size);
ssize_t __wrap_read(int fd, void *data, size_t size);
ssize_t __wrap_writev(int fd, const struct iovec *pieces, int count);
int __real_ioctl(int fd, unsigned long request, void *argument);
int __wrap_ioctl(int fd, unsigned long request, void *argument);

/* ---- What the kernel hands over ---- */

static BYTE fed[MAX_READ + 100];
static uint32_t fed_length;
static unsigned left_to_feed; /* how many times */

ssize_t
__wrap_read(int fd, void *data, size_t size)
{
    if (size < MAX_READ)
        return __real_read(fd, data, size);
    /* Bytes behind the last packet must not be looked at. */
    unpoison(data, size);
    if (left_to_feed == 0)
    {
        errno = EAGAIN;
        return -1;
    }
    left_to_feed--;
    memcpy(data, fed, fed_length);
    poison((BYTE *)data + fed_length, size - fed_length);
    return (ssize_t)fed_length;
}

/* Puts a packet before the next read. */
static void
feed(const virtio_header *virtio, const BYTE *packet, uint32_t length)
{
    memcpy(fed, virtio, HEADER);
    memcpy(fed + HEADER, packet, length);
    fed_length = HEADER + length;
    left_to_feed = 1;
}

static uint64_t
filtered(WINTUN_SESSION_HANDLE session)
{
    tunring_counters counters;
    TunringBackend.counters(session, &counters);
    return counters.host_filtered;
}

/* Receives and looks at all bytes of whatever there is. Returns the number of packets. */
static unsigned
take_all(WINTUN_SESSION_HANDLE session)
{
    unsigned count = 0;
    uint32_t sum = 0;
    DWORD size;
    BYTE *packet;
    while ((packet = WintunReceivePacket(session, &size)))
    {
        CHECK(size >= 20 && size <= 65535);
        CHECK(packet[0] >> 4 == 4 || (packet[0] >> 4 == 6 && size >= 40));
        sum = sum_up(packet, size, sum);
        WintunReleaseReceivePacket(session, packet);
        count++;
    }
    CHECK(GetLastError() == ERROR_NO_MORE_ITEMS && sum <= 0xFFFF);
    CHECK(left_to_feed == 0);
    return count;
}

/* The session is as good as before: a superpacket comes out whole. */
static void
still_works(WINTUN_SESSION_HANDLE session)
{
    const shape whole = plain(6, TCP, 5000);
    const virtio_header virtio = virtio_of(&whole, 700);
    const uint64_t before = filtered(session);
    static BYTE bytes[70000];
    feed(&virtio, bytes, build_partial(&whole, bytes));
    DWORD size;
    static BYTE expected[2000];
    for (uint32_t i = 0; i < segments_of(&whole, 700); i++)
    {
        const shape part = segment_of(&whole, 700, i);
        BYTE *packet = WintunReceivePacket(session, &size);
        CHECK(packet && size == build(&part, expected) && memcmp(packet, expected, size) == 0);
        WintunReleaseReceivePacket(session, packet);
    }
    CHECK(take_all(session) == 0 && filtered(session) == before);
}

/* ---- Nonsense ---- */

/* One thing that is wrong: a byte of the packet, or a field of the header. */
typedef struct lie
{
    uint8_t version, protocol;
    int byte; /* of the packet, -1 for none */
    BYTE value;
    virtio_header virtio; /* added to the right one */
    uint32_t cut;         /* bytes that are missing at the end */
} lie;

static const lie lies[] = {
    {4, UDP, -1, 0, {.gso_size = (uint16_t)-100}, 0},      /* 0 */
    {6, TCP, -1, 0, {.gso_size = (uint16_t)-100}, 0},      /* 0 */
    {4, TCP, -1, 0, {.gso_type = 1}, 0},                   /* 2 is none */
    {4, TCP, -1, 0, {.gso_type = 2}, 0},                   /* IPv4 fragments */
    {4, TCP, -1, 0, {.gso_type = 3}, 0},                   /* the other version */
    {4, TCP, -1, 0, {.gso_type = 4}, 0},                   /* the other protocol */
    {4, UDP, -1, 0, {.gso_type = 0x80}, 0},                /* UDP has no ECN */
    {6, UDP, -1, 0, {.gso_type = 0xFA}, 0},                /* 0xFF */
    {4, TCP, -1, 0, {.checksum_start = 1}, 0},             /* not where the header is */
    {4, TCP, -1, 0, {.checksum_start = 60000}, 0},         /* behind the end */
    {6, UDP, -1, 0, {.checksum_start = (uint16_t)-40}, 0}, /* before the IP header's end */
    {4, TCP, -1, 0, {.checksum_offset = 2}, 0},            /* elsewhere in the header */
    {6, TCP, -1, 0, {.checksum_offset = 65000}, 0},        /* behind the end */
    {4, TCP, 0, 0x4F, {0}, 0},                             /* options that the packet hasn't */
    {4, TCP, 0, 0x44, {0}, 0},                             /* a header of 16 bytes */
    {4, TCP, 0, 0x40, {0}, 0},                             /* of none */
    {4, TCP, 0, 0x55, {0}, 0},                             /* another version */
    {6, TCP, 0, 0x45, {0}, 0},                             /* another version */
    {4, TCP, 2, 0xFF, {0}, 0},                             /* longer than it is */
    {4, UDP, 2, 0x00, {0}, 0},                             /* shorter */
    {6, TCP, 4, 0xFF, {0}, 0},                             /* longer */
    {4, TCP, 6, 0x20, {0}, 0},                             /* a fragment */
    {4, TCP, 7, 0x01, {0}, 0},                             /* another one */
    {4, TCP, 9, 1, {0}, 0},                                /* ICMP */
    {6, UDP, 6, 44, {0}, 0},                               /* a fragment header */
    {6, UDP, 6, 0, {0}, 0},                                /* extensions that the packet hasn't */
    {4, TCP, 32, 0x40, {0}, 0},                            /* a TCP header of 16 bytes */
    {4, UDP, 24, 0xFF, {0}, 0},                            /* UDP's length */
    {6, UDP, 45, 0x00, {0}, 0},                            /* UDP's length */
    {4, TCP, -1, 0, {0}, 1},                               /* cut off everywhere */
    {4, TCP, -1, 0, {0}, 500},
    {4, TCP, -1, 0, {0}, 510},
    {6, TCP, -1, 0, {0}, 500},
    {6, UDP, -1, 0, {0}, 505},
};

static void
nonsense(WINTUN_SESSION_HANDLE session)
{
    static BYTE bytes[70000];
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++)
    {
        const lie *wrong = &lies[i];
        const shape whole = plain(wrong->version, wrong->protocol, 500);
        const uint32_t length = build_partial(&whole, bytes);
        virtio_header virtio = virtio_of(&whole, 100);
        virtio.gso_type = (uint8_t)(virtio.gso_type + wrong->virtio.gso_type);
        virtio.gso_size = (uint16_t)(virtio.gso_size + wrong->virtio.gso_size);
        virtio.checksum_start = (uint16_t)(virtio.checksum_start + wrong->virtio.checksum_start);
        virtio.checksum_offset = (uint16_t)(virtio.checksum_offset + wrong->virtio.checksum_offset);
        if (wrong->byte >= 0)
            bytes[wrong->byte] = wrong->value;
        const uint64_t before = filtered(session);
        feed(&virtio, bytes, length - wrong->cut);
        const unsigned count = take_all(session);
        if (count || filtered(session) != before + 1)
            fprintf(stderr, "lie %zu passes\n", i);
        CHECK(count == 0 && filtered(session) == before + 1);
        still_works(session);
    }
}

/* Less than a header, a header alone, and little more. */
static void
truncated(WINTUN_SESSION_HANDLE session)
{
    const shape whole = plain(4, UDP, 500);
    const virtio_header virtio = virtio_of(&whole, 100);
    static BYTE bytes[70000];
    (void)build_partial(&whole, bytes);
    for (uint32_t length = 1; length < HEADER + 528; length++)
    {
        const uint64_t before = filtered(session);
        feed(&virtio, bytes, 528);
        fed_length = length;
        CHECK(take_all(session) == 0 && filtered(session) == before + 1);
    }
    still_works(session);
}

/* No TUN descriptor gives 0 bytes: somebody has put another file in its place. The session ends. */
static void
nothing_at_all(WINTUN_SESSION_HANDLE session)
{
    left_to_feed = 1000;
    fed_length = 0;
    DWORD size;
    CHECK(!WintunReceivePacket(session, &size) && GetLastError() == ERROR_HANDLE_EOF);
    CHECK(left_to_feed == 999 && ready(session));
    CHECK(!WintunAllocateSendPacket(session, 20) && GetLastError() == ERROR_HANDLE_EOF);
    left_to_feed = 0;
}

/* A segment size that the payload doesn't reach, or the largest of packets, are valid. */
static void
one_segment(WINTUN_SESSION_HANDLE session)
{
    static const uint32_t payloads[] = {0, 1, 499, 500, 40000, 65535 - 60};
    const uint64_t before = filtered(session);
    DWORD size;
    static BYTE bytes[70000], expected[70000];
    for (size_t i = 0; i < sizeof(payloads) / sizeof(payloads[0]); i++)
    {
        const shape whole = plain(6, TCP, payloads[i]);
        const virtio_header virtio = virtio_of(&whole, 65535);
        feed(&virtio, bytes, build_partial(&whole, bytes));
        BYTE *packet = WintunReceivePacket(session, &size);
        CHECK(packet && size == build(&whole, expected) && memcmp(packet, expected, size) == 0);
        WintunReleaseReceivePacket(session, packet);
        CHECK(take_all(session) == 0);
    }
    CHECK(filtered(session) == before);
}

static uint32_t seed = 12345;

static uint32_t
dice(uint32_t below)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % below;
}

/* Every one is either counted or gives packets. */
static void
garbage(WINTUN_SESSION_HANDLE session)
{
    unsigned passed = 0;
    static BYTE bytes[70000];
    for (int i = 0; i < 10000; i++)
    {
        const uint64_t before = filtered(session);
        const shape whole = plain(dice(2) ? 4 : 6, dice(2) ? TCP : UDP, dice(dice(20) ? 300 : 40000));
        uint32_t length = build_partial(&whole, bytes);
        virtio_header virtio = virtio_of(&whole, 1 + dice(1400));
        if (dice(3) == 0)
        {
            length = dice(400);
            for (uint32_t k = 0; k < length; k++)
                bytes[k] = (BYTE)dice(256);
            bytes[0] = (BYTE)(dice(2) ? 0x45 : 0x60);
        }
        for (uint32_t changes = dice(4); changes > 0; changes--)
        {
            bytes[dice(80)] = (BYTE)dice(256);
            ((BYTE *)&virtio)[dice(HEADER)] = (BYTE)dice(256);
        }
        feed(&virtio, bytes, dice(10) ? length : dice(length + 1));
        const bool gave = take_all(session) > 0;
        CHECK(filtered(session) == before + (gave ? 0 : 1));
        passed += gave;
    }
    /* Otherwise this tests nothing but the first check. */
    CHECK(passed > 1000 && passed < 9000);
    still_works(session);
}

/* ---- More than the ring has room for ---- */

#define HOLDS 20000u

static BYTE *held[HOLDS];

/* Holds until there is no room; all is as it has to be. Returns the number of packets. */
static uint32_t
hold_all(WINTUN_SESSION_HANDLE session, const shape *whole, uint32_t segment, uint32_t index)
{
    uint32_t count = 0;
    DWORD size;
    BYTE *packet;
    static BYTE expected[70000];
    while ((packet = WintunReceivePacket(session, &size)))
    {
        const shape part = segment_of(whole, segment, index + count);
        CHECK(count < HOLDS && size == build(&part, expected) && memcmp(packet, expected, size) == 0);
        held[count++] = packet;
        CHECK(ready(session) == (index + count < segments_of(whole, segment) &&
                                 count < (WINTUN_MIN_RING_CAPACITY - 4) / ((size + 7) & ~3u)));
    }
    CHECK(GetLastError() == ERROR_NO_MORE_ITEMS && !ready(session));
    return count;
}

/* Splitting goes on where it stopped, however often, and whatever order the packets are let go in. */
static void
resumes(WINTUN_SESSION_HANDLE session, uint8_t version, uint8_t protocol, uint32_t segment, uint32_t payload)
{
    const shape whole = plain(version, protocol, payload);
    const virtio_header virtio = virtio_of(&whole, segment);
    const uint32_t all = segments_of(&whole, segment);
    uint32_t index = 0, stops = 0;
    static BYTE bytes[70000];
    feed(&virtio, bytes, build_partial(&whole, bytes));
    while (index < all)
    {
        const uint32_t count = hold_all(session, &whole, segment, index);
        CHECK(count > 0);
        index += count;
        stops += index < all;
        for (uint32_t i = count; i > 1; i--)
        {
            WintunReleaseReceivePacket(session, held[i - 1]);
            CHECK(!ready(session)); /* the oldest is still held */
        }
        WintunReleaseReceivePacket(session, held[0]);
        CHECK(ready(session) == (index < all));
    }
    CHECK(stops >= 1 && take_all(session) == 0);
}

static void
larger_than_the_ring(WINTUN_SESSION_HANDLE session)
{
    resumes(session, 4, UDP, 1, 30000);
    resumes(session, 6, TCP, 8, 60000);
    resumes(session, 6, TCP, 48, 65000);
    still_works(session);
}

/* ---- What the kernel takes ---- */

static unsigned kernel_offloads; /* OFFLOAD_ flags of what writev() takes */
static unsigned refused_flags;   /* TUN_F_ flags that TUNSETOFFLOAD doesn't know */
static bool refuses_all;         /* not even 0 */
static unsigned long set_flags;  /* the last that it took */
static unsigned frames_written, super_written, super_refused;
static BYTE expected_packets[128][1600];
static uint32_t expected_lengths[128], expected_count, arrived;

int
__wrap_ioctl(int fd, unsigned long request, void *argument)
{
    if (request != TUNSETOFFLOAD)
        return __real_ioctl(fd, request, argument);
    if (refuses_all || (unsigned long)(uintptr_t)argument & refused_flags)
    {
        errno = EINVAL;
        return -1;
    }
    set_flags = (unsigned long)(uintptr_t)argument;
    return 0;
}

static unsigned
offload_of(const virtio_header *virtio)
{
    switch (virtio->gso_type & ~VIRTIO_GSO_ECN)
    {
    case VIRTIO_GSO_TCP4:
        return OFFLOAD_TSO4;
    case VIRTIO_GSO_TCP6:
        return OFFLOAD_TSO6;
    default:
        return virtio->gso_type == VIRTIO_GSO_UDP ? OFFLOAD_USO : 0;
    }
}

/* Each arrival has to be the next of those expected. */
static void
arrive(const virtio_header *virtio, const BYTE *packet, uint32_t length)
{
    offload_split split;
    CHECK(offload_split_begin(&split, virtio, packet, length));
    uint32_t size;
    static BYTE place[70000];
    while ((size = offload_split_next(&split)) > 0)
    {
        offload_split_write(&split, place);
        CHECK(arrived < expected_count && size == expected_lengths[arrived]);
        CHECK(memcmp(place, expected_packets[arrived], size) == 0);
        arrived++;
    }
}

static unsigned full_after = ~0u; /* frames that the kernel has room for */

ssize_t
__wrap_writev(int fd, const struct iovec *pieces, int count)
{
    (void)fd;
    uint32_t length = 0;
    static BYTE bytes[MAX_READ];
    for (int i = 0; i < count; i++)
    {
        CHECK(length + pieces[i].iov_len <= MAX_READ);
        memcpy(bytes + length, pieces[i].iov_base, pieces[i].iov_len);
        length += (uint32_t)pieces[i].iov_len;
    }
    virtio_header virtio;
    memcpy(&virtio, bytes, HEADER);
    if (full_after == 0)
    {
        errno = EAGAIN;
        return -1;
    }
    if (virtio.gso_type && !(offload_of(&virtio) & kernel_offloads))
    {
        super_refused++;
        errno = EINVAL;
        return -1;
    }
    full_after--;
    frames_written++;
    super_written += virtio.gso_type != 0;
    arrive(&virtio, bytes + HEADER, length - HEADER);
    return (ssize_t)length;
}

/* Sends a run of one flow, published together. */
static void
send_flow(WINTUN_SESSION_HANDLE session, uint8_t version, uint8_t protocol, uint32_t count)
{
    const shape whole = plain(version, protocol, 1000 * count);
    CHECK(count <= 128);
    frames_written = super_written = super_refused = arrived = 0;
    expected_count = count;
    BYTE *packets[128];
    for (uint32_t i = 0; i < count; i++)
    {
        const shape part = segment_of(&whole, 1000, i);
        expected_lengths[i] = build(&part, expected_packets[i]);
        packets[i] = WintunAllocateSendPacket(session, expected_lengths[i]);
        CHECK(packets[i]);
        memcpy(packets[i], expected_packets[i], expected_lengths[i]);
    }
    for (uint32_t i = count; i-- > 0;)
        WintunSendPacket(session, packets[i]);
}

static const struct
{
    uint8_t version, protocol;
    unsigned offload;
} kinds[] = {{4, TCP, OFFLOAD_TSO4}, {6, TCP, OFFLOAD_TSO6}, {4, UDP, OFFLOAD_USO}, {6, UDP, OFFLOAD_USO}};

/* Only what is allowed is merged, and nothing has to be refused first. */
static void
sends_use(WINTUN_SESSION_HANDLE session, unsigned offloads)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
    {
        const bool merged = (kinds[i].offload & offloads) != 0;
        send_flow(session, kinds[i].version, kinds[i].protocol, 40);
        CHECK(arrived == 40 && super_refused == 0);
        CHECK(frames_written == (merged ? 1 : 40) && super_written == (merged ? 1 : 0));
    }
}

static void
negotiation(unsigned refused, bool all, unsigned long flags, unsigned offloads)
{
    refused_flags = refused;
    refuses_all = all;
    set_flags = 0;
    kernel_offloads = offloads;
    WINTUN_ADAPTER_HANDLE adapter = create("tt0");
    CHECK(set_flags == flags);
    WINTUN_SESSION_HANDLE session = WintunStartSession(adapter, WINTUN_MIN_RING_CAPACITY);
    CHECK(session);
    sends_use(session, offloads);
    still_works(session); /* what comes has virtio headers all the same */
    WintunEndSession(session);
    WintunCloseAdapter(adapter);
    CHECK(set_flags == 0);
    refused_flags = 0;
    refuses_all = false;
}

/* A superpacket is refused at run time: its packets go singly, and so do later ones of that kind. Nothing is lost. */
static void
changes_its_mind(void)
{
    static const unsigned later[] = {OFFLOAD_TSO4 | OFFLOAD_TSO6, OFFLOAD_TSO6 | OFFLOAD_USO, OFFLOAD_USO, 0};
    for (size_t i = 0; i < sizeof(later) / sizeof(later[0]); i++)
    {
        kernel_offloads = OFFLOAD_TSO4 | OFFLOAD_TSO6 | OFFLOAD_USO;
        WINTUN_ADAPTER_HANDLE adapter = create("tt0");
        WINTUN_SESSION_HANDLE session = WintunStartSession(adapter, WINTUN_MIN_RING_CAPACITY);
        CHECK(session);
        sends_use(session, kernel_offloads);
        kernel_offloads = later[i];
        for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++)
        {
            send_flow(session, kinds[k].version, kinds[k].protocol, 100);
            CHECK(arrived == 100);
            CHECK(super_written == 0 || super_refused == 0);
        }
        sends_use(session, later[i]);
        tunring_counters counters;
        TunringBackend.counters(session, &counters);
        CHECK(counters.write_errors == 0);
        WintunEndSession(session);
        WintunCloseAdapter(adapter);
    }
}

/* The kernel is full at every point of a run whose superpackets it refuses: each packet is written once. */
static void
full_in_the_middle(unsigned offloads)
{
    for (unsigned room = 0; room < 101; room++)
    {
        kernel_offloads = OFFLOAD_TSO4 | OFFLOAD_TSO6 | OFFLOAD_USO;
        WINTUN_ADAPTER_HANDLE adapter = create("tt0");
        WINTUN_SESSION_HANDLE session = WintunStartSession(adapter, WINTUN_MIN_RING_CAPACITY);
        CHECK(session);
        kernel_offloads = offloads;
        full_after = room;
        send_flow(session, 4, UDP, 100);
        CHECK(frames_written <= room);
        for (unsigned tries = 0; arrived < 100; tries++)
        {
            CHECK(tries < 100);
            full_after = 3;
            CHECK(TunringBackend.send_room(session) <= WINTUN_MIN_RING_CAPACITY - 4);
        }
        full_after = ~0u;
        CHECK(TunringBackend.send_room(session) == WINTUN_MIN_RING_CAPACITY - 4);
        CHECK(arrived == 100);
        WintunEndSession(session);
        WintunCloseAdapter(adapter);
    }
}

int
main(void)
{
    const unsigned tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
    const unsigned udp4 = 0x20, udp6 = 0x40; /* TUN_F_USO4 and 6, which old headers lack */
    enter_namespace();
    WINTUN_ADAPTER_HANDLE adapter = create("tt0");
    WINTUN_SESSION_HANDLE session = WintunStartSession(adapter, WINTUN_MIN_RING_CAPACITY);
    CHECK(session);
    nonsense(session);
    truncated(session);
    one_segment(session);
    garbage(session);
    larger_than_the_ring(session);
    nothing_at_all(session);
    WintunEndSession(session);
    WintunCloseAdapter(adapter);

    negotiation(0, false, tcp | udp4 | udp6, OFFLOAD_TSO4 | OFFLOAD_TSO6 | OFFLOAD_USO);
    negotiation(udp4 | udp6, false, tcp, OFFLOAD_TSO4 | OFFLOAD_TSO6);
    negotiation(udp6, false, tcp, OFFLOAD_TSO4 | OFFLOAD_TSO6);
    negotiation(tcp | udp4 | udp6, false, 0, 0);
    negotiation(0, true, 0, 0);
    changes_its_mind();
    full_in_the_middle(OFFLOAD_USO);
    full_in_the_middle(0);
    return 0;
}
