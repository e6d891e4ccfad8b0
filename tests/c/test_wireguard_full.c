/* SPDX-License-Identifier: MIT
 *
 * A full uplink holds up nothing of the downlink: the incoming loop never waits for room to send.
 */
/* build: parts=core,wireguard,loopback,common,os,ring flags=-Wl,--wrap=sendmsg */
#include "wireguard_net.h"

/* ---- The uplink ---- */

/* Sends to this port fail with this error; EAGAIN means that the system has no room. */
static _Atomic uint32_t full_port;
static _Atomic int send_error = EAGAIN;

ssize_t __real_sendmsg(int socket, const struct msghdr *message, int flags);
ssize_t __wrap_sendmsg(int socket, const struct msghdr *message, int flags);

ssize_t
__wrap_sendmsg(int socket, const struct msghdr *message, int flags)
{
    const struct sockaddr_in *to = message->msg_name;
    if (atomic_load(&full_port) && ntohs(to->sin_port) == atomic_load(&full_port))
    {
        errno = atomic_load(&send_error);
        return -1;
    }
    return __real_sendmsg(socket, message, flags);
}

/* ---- Two stations and a stranger ---- */

/* Half of a queue's load is let through, the rest asked for cookies. */
#define FLOOD (TUNRING_WIREGUARD_QUEUE / 4)
#define BURST 16u

static tunring_wireguard_figures
figures_of(const station *at)
{
    tunring_wireguard_figures figures;
    tunring_wireguard_figures_read(at->device, &figures);
    return figures;
}

/* Sends one packet to 10.0.0.`to`, and waits until the other station's host has it. */
static void
cross(const station *from, const station *there, uint8_t source, uint8_t to, uint32_t number)
{
    BYTE bytes[100];
    make_ipv4(bytes, sizeof(bytes), source, to, number);
    const tunring_packet packet = {bytes, sizeof(bytes)};
    send_packets(from->host, &packet, 1);
    tunring_lease *lease = receive_some(tunring_session_source(there->host));
    CHECK_EQUAL(lease->count, 1);
    CHECK(memcmp(lease->slots[0].data, bytes, sizeof(bytes)) == 0);
    let_go(lease);
}

/* Cookie replies that find no room are dropped, and counted as unsent. */
static void
test_cookies(void)
{
    const BYTE mac1_key[32] = {1}, cookie_key[32] = {2};
    BYTE message[TUNRING_WIREGUARD_MESSAGE];
    station here, there;
    tunring_endpoint from;
    tunring_socket *stranger = open_socket(&from);
    open_station(&here);
    open_station(&there);
    tunring_wireguard_peer *to_there = add_peer(&here, 2), *to_here = add_peer(&there, 1);
    CHECK_EQUAL(tunring_wireguard_peer_set_endpoint(to_there, &there.address), ERROR_SUCCESS);
    install_both(to_there, to_here, 1);
    await_flags(&there, TUNRING_WIREGUARD_CONFIRMED);
    CHECK_EQUAL(tunring_wireguard_set_identity(there.device, mac1_key, cookie_key), ERROR_SUCCESS);

    atomic_store(&full_port, from.port);
    make_initiation(message, mac1_key, NULL, 0);
    const int64_t began = os_now();
    for (uint32_t sent = 0; sent < FLOOD; sent += BURST)
    {
        for (uint32_t i = 0; i < BURST; i++)
            send_raw(stranger, &there.address, message, sizeof(message));
        cross(&here, &there, 1, 2, sent); /* data that comes behind it, and shows that it was dealt with */
    }
    const tunring_wireguard_figures figures = figures_of(&there);
    CHECK_EQUAL(figures.cookies_sent, 0);
    CHECK_EQUAL(figures.unsent, FLOOD - TUNRING_WIREGUARD_QUEUE / 8);
    /* A tenth of a second for each would be far more. */
    CHECK(os_now() - began < INT64_C(5000000000));
    atomic_store(&full_port, 0);

    tunring_wireguard_peer_drop(to_there);
    tunring_wireguard_peer_drop(to_here);
    close_station(&here);
    close_station(&there);
    close_socket(stranger);
}

/* The responder's packets that waited for a key have to wait for room, too: not those that come meanwhile. */
static void
test_staged(void)
{
    BYTE bytes[100];
    station here, there;
    open_station(&here);
    open_station(&there);
    tunring_wireguard_peer *to_there = add_peer(&here, 2), *to_here = add_peer(&there, 1);
    CHECK_EQUAL(tunring_wireguard_peer_set_endpoint(to_there, &there.address), ERROR_SUCCESS);
    make_ipv4(bytes, sizeof(bytes), 2, 1, 77);
    const tunring_packet packet = {bytes, sizeof(bytes)};
    send_packets(there.host, &packet, 1);
    await_flags(&there, TUNRING_WIREGUARD_WANT_HANDSHAKE);

    atomic_store(&full_port, here.address.port);
    install_both(to_there, to_here, 2);
    await_flags(&there, TUNRING_WIREGUARD_CONFIRMED);
    for (uint32_t i = 0; i < 10; i++)
        cross(&here, &there, 1, 2, i);
    atomic_store(&full_port, 0);
    tunring_lease *lease = receive_some(tunring_session_source(here.host));
    CHECK_EQUAL(lease->count, 1);
    CHECK(memcmp(lease->slots[0].data, bytes, sizeof(bytes)) == 0);
    let_go(lease);

    tunring_wireguard_peer_drop(to_there);
    tunring_wireguard_peer_drop(to_here);
    close_station(&here);
    close_station(&there);
}

/* A message that the system refuses is not sent. */
static void
test_refused(void)
{
    const BYTE message[TUNRING_WIREGUARD_MESSAGE] = {1};
    bool sent;
    station here, there;
    open_station(&here);
    open_station(&there);
    tunring_wireguard_peer *to_there = add_peer(&here, 2);
    CHECK_EQUAL(tunring_wireguard_peer_set_endpoint(to_there, &there.address), ERROR_SUCCESS);
    atomic_store(&send_error, EINVAL);
    atomic_store(&full_port, there.address.port);
    sent = true;
    CHECK_EQUAL(tunring_wireguard_send_to(here.device, message, sizeof(message), &there.address, &sent), ERROR_SUCCESS);
    CHECK(!sent);
    sent = true;
    CHECK_EQUAL(tunring_wireguard_peer_send(to_there, message, sizeof(message), &sent), ERROR_SUCCESS);
    CHECK(!sent);
    CHECK_EQUAL(figures_of(&here).unsent, 2);
    atomic_store(&full_port, 0);
    CHECK_EQUAL(tunring_wireguard_peer_send(to_there, message, sizeof(message), &sent), ERROR_SUCCESS);
    CHECK(sent);
    tunring_wireguard_status status;
    tunring_wireguard_peer_status(to_there, &status);
    CHECK_EQUAL(status.sent_bytes, sizeof(message));
    tunring_wireguard_peer_drop(to_there);
    close_station(&here);
    close_station(&there);
}

int
main(void)
{
    load_all();
    test_cookies();
    test_staged();
    test_refused();
    return 0;
}
