/* SPDX-License-Identifier: MIT
 *
 * WireGuard devices with messages that another implementation of the ciphers has made: keys change, packets wait for
 * them, and floods stay outside.
 */
/* build: parts=core,wireguard,loopback,common,os,ring */
#include "wireguard_net.h"

/* From 10.0.0.1 to 10.0.0.2, and data messages with it to index 0x11223344: key 00 01 .. 1f, counters 0 and
 * 0x0102030405; and a keepalive with counter 1. */
static const BYTE inner[] = {
    0x45, 0x00, 0x00, 0x32, 0x00, 0x00, 0x00, 0x00, 0x40, 0xfd, 0x00, 0x00, 0x0a, 0x00, 0x00, 0x01, 0x0a,
    0x00, 0x00, 0x02, 0x00, 0x07, 0x0e, 0x15, 0x1c, 0x23, 0x2a, 0x31, 0x38, 0x3f, 0x46, 0x4d, 0x54, 0x5b,
    0x62, 0x69, 0x70, 0x77, 0x7e, 0x85, 0x8c, 0x93, 0x9a, 0xa1, 0xa8, 0xaf, 0xb6, 0xbd, 0xc4, 0xcb,
};
static const BYTE first_message[] = {
    0x04, 0x00, 0x00, 0x00, 0x44, 0x33, 0x22, 0x11, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x5d, 0xb8, 0x42, 0x03, 0xad, 0xe6, 0xa6, 0xd1, 0x53, 0x9c, 0x5c, 0x61, 0xa5, 0x43, 0x4e, 0x26,
    0xf2, 0xb1, 0xf3, 0xf7, 0xe1, 0xaa, 0x55, 0x49, 0xf0, 0xdb, 0xd6, 0x23, 0x12, 0x0a, 0x33, 0x11,
    0x26, 0x53, 0x6a, 0x04, 0xa1, 0x99, 0x42, 0xd8, 0x11, 0x12, 0xc2, 0x85, 0xcc, 0xa1, 0xb6, 0x81,
    0x5f, 0x6b, 0xf6, 0x5e, 0xde, 0x5d, 0x59, 0xce, 0x0d, 0x2a, 0x4a, 0x7f, 0x31, 0x95, 0x5a, 0xcd,
    0x37, 0x26, 0xfe, 0x6b, 0x5e, 0xea, 0x59, 0xa0, 0x84, 0x42, 0x1e, 0x3d, 0x96, 0xa4, 0xce, 0xdf,
};
static const BYTE later_message[] = {
    0x04, 0x00, 0x00, 0x00, 0x44, 0x33, 0x22, 0x11, 0x05, 0x04, 0x03, 0x02, 0x01, 0x00, 0x00, 0x00,
    0x74, 0x83, 0x0a, 0xe2, 0xd3, 0xcb, 0xb3, 0xcc, 0x93, 0xe0, 0x0c, 0x29, 0xc6, 0x02, 0xa7, 0x47,
    0xac, 0xd2, 0xfe, 0x45, 0xe7, 0x98, 0x04, 0xb3, 0xd1, 0x6f, 0xf8, 0x6b, 0x9a, 0x43, 0x5c, 0xe8,
    0xf4, 0x0d, 0x3a, 0x24, 0x90, 0x43, 0x8d, 0xb9, 0x8a, 0x7c, 0xf7, 0xa2, 0x09, 0x45, 0x96, 0x6a,
    0xc3, 0x27, 0x56, 0xe3, 0xe9, 0x03, 0x26, 0x2c, 0x34, 0xd7, 0x42, 0xa5, 0xca, 0x0b, 0x74, 0xa3,
    0xd8, 0xd2, 0x5b, 0xbe, 0x63, 0xf7, 0x7f, 0xae, 0x45, 0x60, 0x21, 0x0d, 0xef, 0xb8, 0x15, 0x3b,
};
static const BYTE keepalive_message[] = {
    0x04, 0x00, 0x00, 0x00, 0x44, 0x33, 0x22, 0x11, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0xa8, 0xd3, 0x0d, 0x25, 0x53, 0xbf, 0xe0, 0x84, 0x94, 0xe6, 0xaa, 0x8f, 0xd5, 0xb0, 0x72, 0x96,
};

static const BYTE vector_key[TUNRING_WIREGUARD_KEY] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                                       16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
static const BYTE other_key[TUNRING_WIREGUARD_KEY] = {0xFF};

/* Our index, in the header, is not authenticated. */
static void
send_to_index(tunring_socket *from, const station *to, const BYTE *message, uint32_t length, uint32_t index)
{
    BYTE copy[128];
    CHECK(length <= sizeof(copy));
    memcpy(copy, message, length);
    memcpy(copy + 4, &index, sizeof(index));
    send_raw(from, &to->address, copy, length);
}

static void
await_figure(station *at, const char *name, size_t offset, uint64_t wanted)
{
    uint64_t value = 0;
    for (int i = 0; i < 2000; i++)
    {
        tunring_wireguard_figures figures;
        tunring_wireguard_figures_read(at->device, &figures);
        memcpy(&value, (const char *)&figures + offset, sizeof(value));
        if (value == wanted)
            return;
        os_sleep(10000000);
    }
    fprintf(stderr, "%s is %llu, not %llu\n", name, (unsigned long long)value, (unsigned long long)wanted);
    exit(1);
}
#define AWAIT(at, name, wanted) await_figure(at, #name, offsetof(tunring_wireguard_figures, name), wanted)

static void
test_vectors(void)
{
    station here;
    tunring_endpoint far_address;
    tunring_socket *far = open_socket(&far_address);
    uint32_t index;
    open_station(&here);
    tunring_wireguard_peer *peer = add_peer(&here, 2), *other = add_peer(&here, 1);
    CHECK_EQUAL(tunring_wireguard_peer_set_endpoint(peer, &far_address), ERROR_SUCCESS);
    CHECK_EQUAL(tunring_wireguard_index_new(peer, &index), ERROR_SUCCESS);

    /* Sending: the packet waits, and leaves with the first counter. */
    const tunring_packet packet = {inner, sizeof(inner)};
    send_packets(here.host, &packet, 1);
    await_flags(&here, TUNRING_WIREGUARD_WANT_HANDSHAKE);
    tunring_wireguard_keys keys = {
        .index = index, .remote_index = 0x11223344, .send = vector_key, .receive = other_key, .initiator = true};
    CHECK_EQUAL(tunring_wireguard_peer_install(peer, &keys), ERROR_SUCCESS);
    tunring_lease *lease = receive_some(tunring_socket_source(far));
    CHECK_EQUAL(lease->slots[0].length, sizeof(first_message));
    CHECK(memcmp(lease->slots[0].data, first_message, sizeof(first_message)) == 0);
    let_go(lease);
    bool sent;
    CHECK_EQUAL(tunring_wireguard_peer_keepalive(peer, &sent), ERROR_SUCCESS);
    CHECK(sent);
    lease = receive_some(tunring_socket_source(far));
    CHECK_EQUAL(lease->slots[0].length, sizeof(keepalive_message));
    CHECK(memcmp(lease->slots[0].data, keepalive_message, sizeof(keepalive_message)) == 0);
    let_go(lease);

    /* Receiving. */
    CHECK_EQUAL(tunring_wireguard_index_new(other, &index), ERROR_SUCCESS);
    keys = (tunring_wireguard_keys){.index = index, .remote_index = 1, .send = other_key, .receive = vector_key};
    CHECK_EQUAL(tunring_wireguard_peer_install(other, &keys), ERROR_SUCCESS);
    send_to_index(far, &here, keepalive_message, sizeof(keepalive_message), index);
    await_flags(&here, TUNRING_WIREGUARD_CONFIRMED | TUNRING_WIREGUARD_ENDPOINT);
    for (int i = 0; i < 3; i++)
        send_to_index(far, &here, later_message, sizeof(later_message), index);
    lease = receive_some(tunring_session_source(here.host));
    CHECK_EQUAL(lease->count, 1);
    CHECK_EQUAL(lease->slots[0].length, sizeof(inner));
    CHECK(memcmp(lease->slots[0].data, inner, sizeof(inner)) == 0);
    let_go(lease);
    AWAIT(&here, replayed, 2);
    for (uint32_t length = 0; length < sizeof(later_message); length++)
        send_to_index(far, &here, later_message, length, index);
    AWAIT(&here, rejected, sizeof(later_message) - 32);
    AWAIT(&here, malformed, 32);

    tunring_wireguard_peer_drop(peer);
    tunring_wireguard_peer_drop(other);
    close_station(&here);
    close_socket(far);
}

/* Packets of every length, in both directions, while keys change. */
static void
test_round_trip(void)
{
    static BYTE bytes[1500][1500];
    station left, right;
    open_station(&left);
    open_station(&right);
    tunring_wireguard_peer *to_right = add_peer(&left, 2), *to_left = add_peer(&right, 1);
    CHECK_EQUAL(tunring_wireguard_peer_set_endpoint(to_right, &right.address), ERROR_SUCCESS);
    uint32_t number = 0;
    for (int turn = 0; turn < 4; turn++)
    {
        station *const from = turn % 2 ? &right : &left, *const to = turn % 2 ? &left : &right;
        if (turn % 2 == 0)
        {
            install_both(to_right, to_left, (uint8_t)turn);
            await_flags(&right, TUNRING_WIREGUARD_CONFIRMED);
        }
        tunring_packet packets[1500];
        uint32_t count = 0, got = 0;
        for (uint32_t size = 20; size <= 1420; size++, count++)
        {
            make_ipv4(bytes[count], size, turn % 2 ? 2 : 1, turn % 2 ? 1 : 2, number + count);
            packets[count] = (tunring_packet){bytes[count], size};
        }
        for (uint32_t sent = 0; got < count;)
        {
            /* No more on the way than a socket's buffer has room for. */
            const uint32_t some = count - sent < 64 ? count - sent : 64;
            if (sent == got)
                send_packets(from->host, packets + sent, some);
            sent += sent == got ? some : 0;
            tunring_lease *lease = receive_some(tunring_session_source(to->host));
            for (uint32_t i = 0; i < lease->count; i++, got++)
            {
                CHECK_EQUAL(lease->slots[i].length, packets[got].length);
                CHECK(memcmp(lease->slots[i].data, packets[got].data, packets[got].length) == 0);
            }
            let_go(lease);
        }
        number += count;
    }
    tunring_wireguard_peer_drop(to_left);
    tunring_wireguard_peer_drop(to_right);
    close_station(&left);
    close_station(&right);
}

/* Peers that nobody answers for keep bounded memory, and give all of it back. */
static void
test_staging(void)
{
    static BYTE bytes[1400];
    const uint64_t each = 1424; /* with its length and the allocator's word, in steps of 16 */
    station here;
    tunring_wireguard_peer *peers[100];
    open_station(&here);
    for (int i = 0; i < 100; i++)
        peers[i] = add_peer(&here, (uint8_t)(10 + i));
    for (uint32_t turn = 0; turn < 200; turn++)
        for (int i = 0; i < 100; i++)
        {
            make_ipv4(bytes, sizeof(bytes), 1, (uint8_t)(10 + i), turn);
            const tunring_packet packet = {bytes, sizeof(bytes)};
            send_packets(here.host, &packet, 1);
        }
    AWAIT(&here, staged_dropped, 100 * (200 - TUNRING_WIREGUARD_STAGED));
    AWAIT(&here, staged_bytes, 100 * TUNRING_WIREGUARD_STAGED * each);
    CHECK_EQUAL(tunring_wireguard_peer_drop_staged(peers[0]), ERROR_SUCCESS);
    AWAIT(&here, staged_bytes, 99 * TUNRING_WIREGUARD_STAGED * each);
    for (int i = 0; i < 50; i++)
        tunring_wireguard_peer_remove(peers[i]);
    AWAIT(&here, staged_bytes, 50 * TUNRING_WIREGUARD_STAGED * each);
    /* A packet of 20 bytes takes more memory than that. */
    make_ipv4(bytes, 20, 1, 10 + 99, 0);
    CHECK_EQUAL(tunring_wireguard_peer_drop_staged(peers[99]), ERROR_SUCCESS);
    send_packets(here.host, &(tunring_packet){bytes, 20}, 1);
    AWAIT(&here, staged_bytes, 49 * TUNRING_WIREGUARD_STAGED * each + 32);
    close_station(&here); /* the device outlives it, for the peers */
    for (int i = 0; i < 100; i++)
    {
        CHECK_EQUAL(tunring_wireguard_peer_wipe(peers[i]), ERROR_HANDLE_EOF);
        tunring_wireguard_peer_drop(peers[i]);
    }
}

/* No more than a socket's buffer has room for. */
#define FLOOD 200u
#define BURST 20u

/* False if the machine was too slow for a flood. */
static bool
flood_a_taker(void)
{
    static tunring_wireguard_news news;
    const BYTE mac1_key[32] = {1}, cookie_key[32] = {2};
    BYTE message[TUNRING_WIREGUARD_MESSAGE];
    tunring_wireguard_figures figures;
    tunring_endpoint from;
    station here;
    uint32_t taken = 0;
    open_station(&here);
    tunring_socket *sender = open_socket(&from);
    CHECK_EQUAL(tunring_wireguard_set_identity(here.device, mac1_key, cookie_key), ERROR_SUCCESS);
    const int64_t began = os_now();
    for (uint32_t sent = BURST; sent <= FLOOD; sent += BURST)
    {
        for (uint32_t i = 0; i < BURST; i++)
        {
            make_initiation(message, mac1_key, NULL, i);
            send_raw(sender, &here.address, message, sizeof(message));
        }
        do
        {
            if (tunring_wireguard_take(here.device, NULL, &news) == ERROR_SUCCESS)
                taken += news.messages;
            tunring_wireguard_figures_read(here.device, &figures);
        } while (taken + figures.cookies_sent < sent);
    }
    const bool fast = os_now() - began < 100000000;
    if (fast)
        CHECK_EQUAL(taken, TUNRING_WIREGUARD_QUEUE / 8);
    close_socket(sender);
    close_station(&here);
    return fast;
}

/* Initiations that are taken as fast as they come are load, too, if there are many. */
static void
test_flood_that_is_taken(void)
{
    unsigned tries = 1;
    while (!flood_a_taker())
        CHECK(tries++ < 50);
}

/* A flood fills the queue as far as load begins; then cookies are asked for, and a sender that has one is limited. */
static void
test_flood(void)
{
    const BYTE mac1_key[32] = {1}, cookie_key[32] = {2};
    BYTE message[TUNRING_WIREGUARD_MESSAGE];
    static tunring_wireguard_news news;
    station here;
    tunring_endpoint far_address;
    tunring_socket *far = open_socket(&far_address);
    open_station(&here);
    CHECK_EQUAL(tunring_wireguard_set_identity(here.device, mac1_key, cookie_key), ERROR_SUCCESS);
    for (uint32_t i = 0; i < FLOOD; i++)
    {
        make_initiation(message, mac1_key, NULL, i);
        send_raw(far, &here.address, message, sizeof(message));
    }
    AWAIT(&here, cookies_sent, FLOOD - TUNRING_WIREGUARD_QUEUE / 8);
    tunring_lease *lease = receive_some(tunring_socket_source(far));
    CHECK_EQUAL(lease->slots[0].length, 64);
    CHECK_EQUAL(lease->slots[0].data[0], 3);
    let_go(lease);
    uint32_t taken = 0;
    while (tunring_wireguard_take(here.device, NULL, &news) == ERROR_SUCCESS)
        taken += news.messages;
    CHECK_EQUAL(taken, TUNRING_WIREGUARD_QUEUE / 8);
    /* A message that is not from here. */
    make_initiation(message, cookie_key, NULL, 0);
    send_raw(far, &here.address, message, sizeof(message));
    AWAIT(&here, wrong_mac, 1);
    CHECK_EQUAL(tunring_wireguard_set_identity(here.device, NULL, NULL), ERROR_SUCCESS);
    make_initiation(message, mac1_key, NULL, 0);
    send_raw(far, &here.address, message, sizeof(message));
    AWAIT(&here, wrong_mac, 2);
    close_station(&here);
    close_socket(far);
}

int
main(void)
{
    load_all();
    test_vectors();
    test_round_trip();
    test_staging();
    test_flood();
    test_flood_that_is_taken();
    return 0;
}
