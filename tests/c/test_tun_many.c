/* SPDX-License-Identifier: MIT
 *
 * Many packets in one call, over a socket that stands for the TUN descriptor: what is received and sent is what the
 * functions of the ABI would receive and send one by one, also when the kernel has no room.
 */
/* build: parts=tun_session,offloads,ring,common,os */
#include "check.h"
#include "offload_packets.h"
#include "backends/tun_linux/tun_session.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#define CAPACITY 0x20000u
#define COUNT 100u
#define SIZE 60u

static int kernel;
static BYTE packets[COUNT][SIZE];
static tunring_packet list[COUNT];

static tun_session *
open_session(bool virtio)
{
    const tun_format format = {.virtio = virtio, .offloads = OFFLOAD_TSO4 | OFFLOAD_TSO6 | OFFLOAD_USO};
    const int minimum = 1; /* the system makes it a few kilobytes */
    int fds[2];
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds) == 0);
    CHECK(setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &minimum, sizeof(minimum)) == 0);
    CHECK(fcntl(fds[0], F_SETFL, O_NONBLOCK) == 0 && fcntl(fds[1], F_SETFL, O_NONBLOCK) == 0);
    kernel = fds[1];
    DWORD code;
    tun_session *session = tun_session_open(fds[0], &format, CAPACITY, &code);
    CHECK(session);
    return session;
}

static void
close_session(tun_session *session)
{
    const int fd = session->receive.fd;
    tun_session_detach(session);
    tun_session_free(session);
    close(fd);
    close(kernel);
}

/* Datagrams of `flows` flows in turn, each with its number in its payload. */
static void
make_packets(uint32_t flows)
{
    for (uint32_t i = 0; i < COUNT; i++)
    {
        shape one = plain(4, UDP, SIZE - 28);
        (void)build(&one, packets[i]);
        packets[i][21] = (BYTE)(i % flows); /* the source port */
        packets[i][28] = (BYTE)i;
        seal(&one, packets[i], SIZE);
        list[i] = (tunring_packet){packets[i], SIZE};
    }
}

/* Takes what the "kernel" was given; returns how many packets, cut from superpackets, and checks each flow's order. */
static uint32_t
take_written(bool virtio, int *last)
{
    uint32_t count = 0;
    static BYTE frame[70000];
    for (ssize_t length; (length = read(kernel, frame, sizeof(frame))) > 0;)
    {
        const BYTE *packet = frame + (virtio ? sizeof(virtio_header) : 0);
        length -= virtio ? (ssize_t)sizeof(virtio_header) : 0;
        const uint32_t segments = ((uint32_t)length - 28) / (SIZE - 28);
        for (uint32_t i = 0; i < segments; i++)
        {
            const int number = packet[28 + i * (SIZE - 28)];
            CHECK(number > last[packet[21]]);
            last[packet[21]] = number;
            count++;
        }
    }
    return count;
}

/* The socket holds a few messages, so that most has to wait in the ring. */
static void
send_more_than_fits(bool virtio, uint32_t flows)
{
    tun_session *session = open_session(virtio);
    int last[COUNT];
    for (uint32_t i = 0; i < COUNT; i++)
        last[i] = -1;
    make_packets(flows);
    DWORD sent;
    CHECK(tun_send_many(session, list, COUNT, &sent) == ERROR_SUCCESS && sent == COUNT);
    const bool waits = ring_host_head(&session->rings.send) != session->rings.send.next;
    CHECK(waits || (virtio && flows < 20));
    uint32_t written = take_written(virtio, last);
    CHECK((written < COUNT) == waits);
    for (int turn = 0; turn < 100 && written < COUNT; turn++)
    {
        CHECK(tun_send_room(session) != RING_GONE);
        written += take_written(virtio, last);
    }
    CHECK(written == COUNT && session->write_errors == 0 && session->filtered == 0);
    CHECK(tun_send_room(session) == CAPACITY - 4);
    close_session(session);
}

static void
test_open_slot_holds_back(void)
{
    tun_session *session = open_session(true);
    int last[COUNT];
    for (uint32_t i = 0; i < COUNT; i++)
        last[i] = -1;
    make_packets(1);
    BYTE *slot = tun_allocate(session, SIZE);
    CHECK(slot);
    DWORD sent;
    CHECK(tun_send_many(session, list + 1, 10, &sent) == ERROR_SUCCESS && sent == 10);
    CHECK(take_written(true, last) == 0);
    memcpy(slot, packets[0], SIZE);
    tun_send(session, slot);
    CHECK(take_written(true, last) == 11);
    close_session(session);
}

static void
test_filtered(void)
{
    tun_session *session = open_session(true);
    int last[COUNT] = {0};
    make_packets(1);
    packets[1][0] = 0x15;
    last[0] = -1;
    DWORD sent;
    CHECK(tun_send_many(session, list, 3, &sent) == ERROR_SUCCESS && sent == 3);
    CHECK(take_written(true, last) == 2 && session->filtered == 1);
    close_session(session);
}

/* A superpacket between two packets, taken by few and by many at a time. */
static void
test_receive(DWORD max)
{
    tun_session *session = open_session(true);
    shape super = plain(4, UDP, 32 * 40);
    DWORD all = 0;
    make_packets(1);
    const virtio_header none = {0}, virtio = virtio_of(&super, 32);
    static BYTE frame[sizeof(virtio_header) + 4000];
    for (int i = 0; i < 3; i++)
    {
        memcpy(frame, i == 1 ? &virtio : &none, sizeof(virtio));
        uint32_t length = SIZE;
        if (i == 1)
            length = build_partial(&super, frame + sizeof(virtio));
        else
            memcpy(frame + sizeof(virtio), packets[i], SIZE);
        CHECK(write(kernel, frame, sizeof(virtio) + length) > 0);
    }
    tunring_slot slots[64];
    DWORD count;
    do
    {
        count = tun_receive(session, slots, max);
        CHECK(count == max || GetLastError() == ERROR_NO_MORE_ITEMS);
        for (DWORD i = 0; i < count; i++, all++)
            CHECK(slots[i].length == SIZE && (all > 0 || memcmp(slots[i].data, packets[0], SIZE) == 0));
        if (all == 42 && count > 0)
            CHECK(memcmp(slots[count - 1].data, packets[2], SIZE) == 0);
        tun_release(session, slots, count);
    } while (count > 0);
    CHECK(all == 42 && session->rings.receive.outstanding == 0);
    close_session(session);
}

int
main(void)
{
    for (int virtio = 0; virtio < 2; virtio++)
        for (uint32_t flows = 1; flows <= COUNT; flows += 33)
            send_more_than_fits(virtio, flows);
    test_open_slot_holds_back();
    test_filtered();
    test_receive(1);
    test_receive(7);
    test_receive(64);
    return 0;
}
