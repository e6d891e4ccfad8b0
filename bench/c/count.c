/* SPDX-License-Identifier: MIT
 *
 * The work whose instructions bench/guard.py counts: one piece, with packets, single-threaded and without a wait.
 *
 *     count WORK SIZE
 *
 * does it once to warm up, then again within measured(), which is what callgrind looks at, and prints how many packets
 * that were. WORK is one of the names below. The core runs over loopback; in place of a TUN descriptor there is a
 * socket whose messages are packets, so no privilege is needed.
 */
#include "core_api.h"
#include "backends/tun_linux/offload_coalesce.h"
#include "offload_packets.h"
#include "backends/tun_linux/tun_session.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define BATCH 256u
#define ROUNDS 16u
#define SUPERPACKETS 8u
#define CAPACITY 0x400000u

static uint32_t size;
static tunring_api api;
static ends pair;
static BYTE *packets;
static tunring_packet list[BATCH];

static tun_session *tun;
static int kernel; /* the other end of what stands for the TUN descriptor */
static BYTE whole[66000];
static uint32_t whole_length, whole_count;

/* ---- Over loopback ---- */

static void
fill(void)
{
    uint32_t sent;
    for (uint32_t i = 0; i < ROUNDS; i++)
        CHECK(tunring_send(pair.sessions[0], list, size > 1000 ? 128 : BATCH, NULL, &sent) == ERROR_SUCCESS);
}

static uint32_t
receive(bool hold, bool forward)
{
    uint32_t count = 0, sent;
    tunring_lease *lease;
    static tunring_packet received[BATCH];
    while (tunring_receive(tunring_session_source(pair.sessions[1]), BATCH, NULL, &lease) == ERROR_SUCCESS)
    {
        count += lease->count;
        for (uint32_t i = 0; hold && i < lease->count; i++)
        {
            CHECK(tunring_lease_hold(lease, i, 0));
            tunring_lease_unhold(lease, i);
        }
        if (forward)
        {
            const uint32_t found = tunring_slots_packets(lease->slots, lease->count, true, received);
            CHECK(tunring_send(pair.sessions[1], received, found, NULL, &sent) == ERROR_SUCCESS);
        }
        tunring_lease_release(lease);
        tunring_lease_free(lease);
    }
    return count;
}

static void
drain(void)
{
    tunring_lease *lease;
    for (int i = 0; i < 2; i++)
        while (tunring_receive(tunring_session_source(pair.sessions[i]), BATCH, NULL, &lease) == ERROR_SUCCESS)
        {
            tunring_lease_release(lease);
            tunring_lease_free(lease);
        }
}

static uint32_t
core_receive(void)
{
    return receive(false, false);
}

static uint32_t
core_hold(void)
{
    return receive(true, false);
}

static uint32_t
core_forward(void)
{
    return receive(false, true);
}

static uint32_t
core_send(void)
{
    fill();
    return ROUNDS * (size > 1000 ? 128 : BATCH);
}

/* ---- Over what stands for a TUN descriptor ---- */

static void
open_tun(bool virtio)
{
    static const int room = 1 << 22;
    const tun_format format = {.virtio = virtio, .offloads = OFFLOAD_TSO4 | OFFLOAD_TSO6 | OFFLOAD_USO};
    int fds[2];
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds) == 0);
    for (int i = 0; i < 2; i++)
    {
        (void)setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
        CHECK(fcntl(fds[i], F_SETFL, O_NONBLOCK) == 0);
    }
    kernel = fds[1];
    DWORD code;
    CHECK((tun = tun_session_open(fds[0], &format, CAPACITY, &code)));
}

static void
queue_single(void)
{
    BYTE message[sizeof(virtio_header) + 2048] = {0};
    const size_t head = tun->virtio ? sizeof(virtio_header) : 0;
    memcpy(message + head, packets, size);
    /* As many as the socket takes: each system has its own idea. */
    for (uint32_t i = 0; i < 10; i++)
        CHECK(write(kernel, message, head + size) == (ssize_t)(head + size));
}

static void
queue_superpacket(void)
{
    CHECK(write(kernel, whole, whole_length) == (ssize_t)whole_length);
}

static uint32_t
take(uint32_t max)
{
    uint32_t all = 0, count;
    static tunring_slot slots[BATCH];
    while ((count = tun_receive(tun, slots, max)) > 0)
    {
        tun_release(tun, slots, count);
        all += count;
    }
    return all;
}

static uint32_t
take_all(void)
{
    return take(1);
}

static uint32_t
take_many(void)
{
    return take(BATCH);
}

static uint32_t
give_many(void)
{
    DWORD sent;
    CHECK(tun_send_many(tun, list, BATCH, &sent) == ERROR_SUCCESS);
    return sent;
}

static uint32_t
give_all(void)
{
    BYTE *slots[64];
    for (uint32_t done = 0; done < BATCH; done += 64)
    {
        for (uint32_t i = 0; i < 64; i++)
        {
            CHECK((slots[i] = tun_allocate(tun, size)));
            memcpy(slots[i], list[i].data, size);
        }
        for (uint32_t i = 64; i-- > 0;)
            tun_send(tun, slots[i]);
    }
    return BATCH;
}

static void
discard(void)
{
    while (read(kernel, whole, sizeof(whole)) > 0)
        continue;
}

static void
make_superpacket(uint8_t protocol)
{
    shape super = plain(4, protocol, 0);
    const uint32_t headers = headers_of(&super), segment = size - headers;
    const uint32_t max = (65535 - headers) / segment;
    whole_count = max < 40 ? max : 40;
    super.payload = segment * whole_count;
    const virtio_header virtio = virtio_of(&super, segment);
    memcpy(whole, &virtio, sizeof(virtio));
    whole_length = (uint32_t)sizeof(virtio) + build_partial(&super, whole + sizeof(virtio));
}

#include "count_tunnel.h"

/* ---- Which ---- */

typedef struct work
{
    const char *name;
    void (*begin)(void); /* once; NULL: open the ends of a cable, or what stands for a TUN descriptor */
    void (*prepare)(void);
    uint32_t (*run)(void);
    void (*after)(void);
} work;

static const work works[] = {
    {"receive", NULL, fill, core_receive, drain},
    {"hold", NULL, fill, core_hold, drain},
    {"forward", NULL, fill, core_forward, drain},
    {"send", NULL, drain, core_send, drain},
    {"tun-receive", NULL, queue_single, take_all, NULL},
    {"tun-receive-plain", NULL, queue_single, take_all, NULL},
    {"tun-split-udp", NULL, queue_superpacket, take_all, NULL},
    {"tun-split-tcp", NULL, queue_superpacket, take_all, NULL},
    {"tun-send", NULL, NULL, give_all, discard},
    {"tun-many", NULL, queue_single, take_many, NULL},
    {"tun-many-udp", NULL, queue_superpacket, take_many, NULL},
    {"tun-many-tcp", NULL, queue_superpacket, take_many, NULL},
    {"tun-send-many", NULL, NULL, give_many, discard},
    {"seal", begin_aead, NULL, seal_all, release_all},
    {"open", begin_aead, prepare_sealed, open_all, release_all},
    {"udp-send", begin_sockets, NULL, udp_send_all, discard_datagrams},
    {"udp-receive", begin_sockets, prepare_datagrams, udp_receive_all, NULL},
    {"lookup-v4", begin_routes_v4, NULL, look_up_all, NULL},
    {"lookup-v6", begin_routes_v6, NULL, look_up_all, NULL},
};

static void
make_packets(void)
{
    shape one = plain(4, UDP, size - 28);
    CHECK((packets = calloc(BATCH, size)));
    for (uint32_t i = 0; i < BATCH; i++)
    {
        list[i] = (tunring_packet){packets + (size_t)i * size, size};
        (void)build(&one, packets + (size_t)i * size);
    }
}

uint32_t measured(const work *what);

__attribute__((noinline)) uint32_t
measured(const work *what)
{
    return what->run();
}

int
main(int count, char **arguments)
{
    const work *what = NULL;
    for (size_t i = 0; count == 3 && i < sizeof(works) / sizeof(works[0]); i++)
        if (strcmp(works[i].name, arguments[1]) == 0)
            what = &works[i];
    if (!what)
        return 2;
    size = (uint32_t)atoi(arguments[2]);
    make_packets();
    api = linked_api();
    if (what->begin)
        what->begin();
    else if (strncmp(what->name, "tun", 3) == 0)
    {
        make_superpacket(strstr(what->name, "tcp") ? TCP : UDP);
        open_tun(strcmp(what->name, "tun-receive-plain") != 0);
    }
    else
        open_ends(&api, &pair, CAPACITY);
    uint32_t done = 0;
    for (int round = 0; round < 2; round++)
    {
        if (what->prepare)
            what->prepare();
        done = round == 0 ? what->run() : measured(what);
        if (what->after)
            what->after();
    }
    printf("%u\n", done);
    return 0;
}
