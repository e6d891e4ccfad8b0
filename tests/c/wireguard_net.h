/* SPDX-License-Identifier: MIT
 *
 * WireGuard devices between cables and UDP sockets, each with its two loops in threads.
 */
#ifndef WIREGUARD_NET_H
#define WIREGUARD_NET_H

#include "core_api.h"
#include "tunring_wireguard.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#define CAPACITY 0x100000

static tunring_api api;
static tunring_aead *aead;
static tunring_hashes *hashes;

/* Exit code 77 without a libcrypto that has everything. */
static inline void
load_all(void)
{
    static const char *const names[] = {"libcrypto.so.4", "libcrypto.so.3"};
    char detail[256];
    api = linked_api();
    for (int i = 0; i < 2 && !hashes; i++)
        if (tunring_aead_load(TUNRING_LIBCRYPTO, names[i], false, &aead, detail, sizeof(detail)) == ERROR_SUCCESS)
            tunring_hashes_load(names[i], false, &hashes, detail, sizeof(detail));
    if (!hashes || tunring_aead_check(aead, TUNRING_CHACHA20_POLY1305) != ERROR_SUCCESS)
    {
        printf("no libcrypto for WireGuard\n");
        exit(77);
    }
}

/* ---- Sockets ---- */

static inline int
bound_socket(tunring_endpoint *address)
{
    const int on = 1;
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(own);
    const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&own, sizeof(own)) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&own, &size) == 0);
    CHECK(setsockopt(fd, SOL_UDP, UDP_GRO, &on, sizeof(on)) == 0);
    CHECK(setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on)) == 0);
    CHECK(setsockopt(fd, IPPROTO_IP, IP_RECVTOS, &on, sizeof(on)) == 0);
    memset(address, 0, sizeof(*address));
    memcpy(address->host, "\0\0\0\0\0\0\0\0\0\0\377\377\177\0\0\1", 16);
    address->port = ntohs(own.sin_port);
    return fd;
}

static inline tunring_socket *
open_socket(tunring_endpoint *address)
{
    tunring_socket *socket;
    const int fd = bound_socket(address);
    const tunring_socket_options options = {.handle = (uintptr_t)fd, .runs = true, .max_chunks = 64};
    CHECK_EQUAL(tunring_socket_open(&options, &socket), ERROR_SUCCESS);
    close(fd);
    return socket;
}

static inline void
close_socket(tunring_socket *socket)
{
    tunring_source_close(tunring_socket_source(socket));
    tunring_source_drop(tunring_socket_source(socket));
}

static inline void
send_raw(tunring_socket *socket, const tunring_endpoint *to, const BYTE *data, uint32_t length)
{
    const tunring_packet packet = {data, length};
    const tunring_sending what = {.packets = &packet, .count = 1, .endpoints = to};
    uint32_t done;
    CHECK_EQUAL(tunring_socket_send(socket, &what, &FOREVER, &done), ERROR_SUCCESS);
    CHECK_EQUAL(done, 1);
}

/* ---- Devices ---- */

/* A host, the device at the other end of its cable, and the device's socket. */
typedef struct station
{
    tunring_adapter *adapters[2];
    tunring_session *host, *inner;
    tunring_wireguard *device;
    tunring_socket *socket;
    tunring_endpoint address;
    pthread_t loops[2];
} station;

static inline void *
run_outgoing(void *device)
{
    CHECK_EQUAL(tunring_wireguard_run_outgoing(device), ERROR_HANDLE_EOF);
    return NULL;
}

static inline void *
run_incoming(void *device)
{
    CHECK_EQUAL(tunring_wireguard_run_incoming(device), ERROR_HANDLE_EOF);
    return NULL;
}

static inline void
open_station(station *self)
{
    static uint32_t cables;
    static const WCHAR type[] = {'t', 0};
    const GUID cable = {.Data1 = 100 + ++cables};
    tunring_session *sessions[2];
    for (int i = 0; i < 2; i++)
    {
        const WCHAR name[] = {(WCHAR)('a' + i), (WCHAR)('0' + cables), 0};
        CHECK_EQUAL(tunring_adapter_create(&api, name, type, &cable, NULL, &self->adapters[i]), ERROR_SUCCESS);
        CHECK_EQUAL(tunring_session_start(self->adapters[i], CAPACITY, NULL, &sessions[i]), ERROR_SUCCESS);
    }
    self->host = sessions[0];
    self->inner = sessions[1];
    self->socket = open_socket(&self->address);
    CHECK_EQUAL(tunring_wireguard_new(self->inner, aead, hashes, &self->device), ERROR_SUCCESS);
    CHECK_EQUAL(tunring_wireguard_set_socket(self->device, self->socket), ERROR_SUCCESS);
    CHECK(pthread_create(&self->loops[0], NULL, run_outgoing, self->device) == 0);
    CHECK(pthread_create(&self->loops[1], NULL, run_incoming, self->device) == 0);
}

static inline void
close_station(station *self)
{
    tunring_session *const sessions[] = {self->host, self->inner};
    tunring_wireguard_close(self->device);
    pthread_join(self->loops[0], NULL);
    pthread_join(self->loops[1], NULL);
    tunring_wireguard_drop(self->device);
    close_socket(self->socket);
    for (int i = 0; i < 2; i++)
    {
        tunring_source_close(tunring_session_source(sessions[i]));
        tunring_source_drop(tunring_session_source(sessions[i]));
        tunring_adapter_close(self->adapters[i]);
        tunring_adapter_drop(self->adapters[i]);
    }
}

/* A peer that may send from, and is sent the packets of, 10.0.0.`last`. */
static inline tunring_wireguard_peer *
add_peer(station *at, uint8_t last)
{
    tunring_wireguard_peer *peer;
    const tunring_prefix network = {.address = {10, 0, 0, last}, .version = 4, .length = 32};
    CHECK_EQUAL(tunring_wireguard_peer_add(at->device, &peer), ERROR_SUCCESS);
    CHECK_EQUAL(tunring_wireguard_peer_allow(peer, &network, 1, true), ERROR_SUCCESS);
    return peer;
}

/* Keys for both ends, as a handshake that `left` began would have left them. */
static inline void
install_both(tunring_wireguard_peer *left, tunring_wireguard_peer *right, uint8_t seed)
{
    BYTE one[TUNRING_WIREGUARD_KEY], other[TUNRING_WIREGUARD_KEY];
    tunring_wireguard_keys keys = {.send = one, .receive = other};
    uint32_t ours, theirs;
    memset(one, seed, sizeof(one));
    memset(other, seed ^ 0x80, sizeof(other));
    CHECK_EQUAL(tunring_wireguard_index_new(left, &ours), ERROR_SUCCESS);
    CHECK_EQUAL(tunring_wireguard_index_new(right, &theirs), ERROR_SUCCESS);
    keys.index = theirs;
    keys.remote_index = ours;
    keys.send = other;
    keys.receive = one;
    CHECK_EQUAL(tunring_wireguard_peer_install(right, &keys), ERROR_SUCCESS);
    keys = (tunring_wireguard_keys){
        .index = ours, .remote_index = theirs, .send = one, .receive = other, .initiator = true};
    CHECK_EQUAL(tunring_wireguard_peer_install(left, &keys), ERROR_SUCCESS);
}

/* ---- Messages ---- */

#define DATA_OVERHEAD 32u

/* A data message that an implementation with the key would send. Returns its length; packets are not padded. */
static inline uint32_t
make_data(BYTE *message, const BYTE *key, uint32_t index, uint64_t counter, const BYTE *packet, uint32_t size)
{
    BYTE nonce[12] = {0};
    memset(message, 0, 16);
    message[0] = 4;
    memcpy(message + 4, &index, sizeof(index));
    memcpy(message + 8, &counter, sizeof(counter));
    memcpy(nonce + 4, &counter, sizeof(counter));
    memcpy(message + 16, packet, size);
    const tunring_aead_text text = {
        .nonce = nonce, .aad = nonce, .length = size, .data = message + 16, .tag = message + 16 + size};
    CHECK_EQUAL(tunring_aead_message(aead, TUNRING_CHACHA20_POLY1305, key, false, &text), ERROR_SUCCESS);
    return size + DATA_OVERHEAD;
}

/* An initiation whose macs are right. */
static inline void
make_initiation(BYTE *message, const BYTE *mac1_key, const BYTE *cookie, uint32_t number)
{
    memset(message, 0, TUNRING_WIREGUARD_MESSAGE);
    message[0] = 1;
    memcpy(message + 8, &number, sizeof(number));
    CHECK(tunring_hashes_mac(hashes, mac1_key, 32, message, TUNRING_WIREGUARD_MESSAGE - 32,
                             message + TUNRING_WIREGUARD_MESSAGE - 32));
    if (cookie)
        CHECK(tunring_hashes_mac(hashes, cookie, 16, message, TUNRING_WIREGUARD_MESSAGE - 16,
                                 message + TUNRING_WIREGUARD_MESSAGE - 16));
}

/* ---- Packets ---- */

/* From 10.0.0.`from` to 10.0.0.`to`, with a number. */
static inline void
make_ipv4(BYTE *packet, uint32_t size, uint8_t from, uint8_t to, uint32_t number)
{
    make_packet(packet, size, number);
    packet[1] = 0;
    packet[2] = (BYTE)(size >> 8);
    packet[3] = (BYTE)size;
    memcpy(packet + 12, "\12\0\0", 3);
    memcpy(packet + 16, "\12\0\0", 3);
    packet[15] = from;
    packet[19] = to;
}

static inline void
send_packets(tunring_session *session, const tunring_packet *packets, uint32_t count)
{
    uint32_t sent;
    CHECK_EQUAL(tunring_send(session, packets, count, &FOREVER, &sent), ERROR_SUCCESS);
}

static inline tunring_lease *
receive_some(tunring_source *source)
{
    tunring_lease *lease = NULL;
    const tunring_wait wait = {.deadline = os_deadline(INT64_C(20000000000))};
    CHECK_EQUAL(tunring_receive(source, 128, &wait, &lease), ERROR_SUCCESS);
    return lease;
}

static inline void
let_go(tunring_lease *lease)
{
    tunring_lease_release(lease);
    tunring_lease_free(lease);
}

/* Waits until all these flags have come for some peer. */
static inline void
await_flags(station *at, uint32_t wanted)
{
    static tunring_wireguard_news news;
    const tunring_wait wait = {.deadline = os_deadline(INT64_C(20000000000))};
    while (wanted)
    {
        CHECK_EQUAL(tunring_wireguard_take(at->device, &wait, &news), ERROR_SUCCESS);
        for (uint32_t i = 0; i < news.events; i++)
            wanted &= ~news.event[i].flags;
    }
}

#endif
