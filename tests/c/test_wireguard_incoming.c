/* SPDX-License-Identifier: MIT
 *
 * What a device believes of data messages, in batches and at times of the test's own.
 */
/* build: parts=core,wireguard,loopback,common,os,ring flags=-Wl,--wrap=os_boottime */
#include "wireguard_net.h"
#include "wireguard/device.h"

/* ---- The clock ---- */

#define SECOND INT64_C(1000000000)

static _Atomic int64_t ahead;

int64_t __real_os_boottime(void);
int64_t __wrap_os_boottime(void);

int64_t
__wrap_os_boottime(void)
{
    return __real_os_boottime() + atomic_load(&ahead);
}

/* ---- A device and the senders of messages to it ---- */

typedef struct sender
{
    tunring_socket *socket;
    tunring_endpoint address;
} sender;

/* A peer and one of its keypairs. */
typedef struct far_end
{
    tunring_wireguard_peer *peer;
    uint8_t last; /* of its address */
    BYTE key[TUNRING_WIREGUARD_KEY];
    uint32_t index;
} far_end;

static station here;
/* The device gets what has come here only when the test says so. */
static sender mailbox;

static sender
open_sender(void)
{
    sender result;
    result.socket = open_socket(&result.address);
    return result;
}

static far_end
new_key(tunring_wireguard_peer *peer, uint8_t last, uint8_t seed, bool initiator)
{
    const BYTE sending[TUNRING_WIREGUARD_KEY] = {0};
    far_end result = {.peer = peer, .last = last};
    memset(result.key, seed, sizeof(result.key));
    CHECK_EQUAL(tunring_wireguard_index_new(peer, &result.index), ERROR_SUCCESS);
    const tunring_wireguard_keys keys = {
        .index = result.index, .remote_index = 1, .send = sending, .receive = result.key, .initiator = initiator};
    CHECK_EQUAL(tunring_wireguard_peer_install(peer, &keys), ERROR_SUCCESS);
    return result;
}

static void
post(const sender *from, const far_end *as, uint64_t counter)
{
    BYTE packet[64], message[sizeof(packet) + DATA_OVERHEAD];
    make_ipv4(packet, sizeof(packet), as->last, 200, 0);
    send_raw(from->socket, &mailbox.address, message,
             make_data(message, as->key, as->index, counter, packet, sizeof(packet)));
}

/* Has the device take what was posted, as one batch. */
static void
deliver_posted(uint32_t count)
{
    tunring_lease *lease = receive_some(tunring_socket_source(mailbox.socket));
    CHECK_EQUAL(lease->count, count);
    CHECK_EQUAL(device_take(here.device, mailbox.socket, lease), ERROR_SUCCESS);
    let_go(lease);
}

static bool
is_at(const far_end *end, const sender *where)
{
    tunring_endpoint endpoint;
    CHECK_EQUAL(tunring_wireguard_peer_endpoint(end->peer, &endpoint), ERROR_SUCCESS);
    return endpoint.port == where->address.port;
}

/* True if a handshake was asked for since the last call. */
static bool
wanted(void)
{
    static tunring_wireguard_news news;
    uint32_t flags = 0;
    while (tunring_wireguard_take(here.device, NULL, &news) == ERROR_SUCCESS)
        for (uint32_t i = 0; i < news.events; i++)
            flags |= news.event[i].flags;
    return flags & TUNRING_WIREGUARD_WANT_HANDSHAKE;
}

/* ---- Tests ---- */

/* The endpoint follows the newest data, in whatever order that comes. */
static void
test_roaming(void)
{
    const sender before = open_sender(), after = open_sender();
    const far_end first = new_key(add_peer(&here, 1), 1, 1, false);
    const far_end other = new_key(add_peer(&here, 7), 7, 2, false);

    post(&before, &first, 10);
    deliver_posted(1);
    CHECK(is_at(&first, &before));
    /* Another peer's message lies between the newest one and one that was on its way. */
    post(&after, &first, 1000);
    post(&before, &other, 0);
    post(&before, &first, 999);
    deliver_posted(3);
    CHECK(is_at(&first, &after) && is_at(&other, &before));
    post(&before, &first, 998);
    deliver_posted(1);
    CHECK(is_at(&first, &after));
    /* Nor is a key's last data newer than the first under the next key. */
    const far_end next = new_key(first.peer, 1, 3, false);
    post(&before, &next, 0);
    deliver_posted(1);
    CHECK(is_at(&first, &before));
    post(&after, &first, 1001);
    deliver_posted(1);
    CHECK(is_at(&first, &before));
    post(&after, &next, 1);
    deliver_posted(1);
    CHECK(is_at(&first, &after));
    tunring_wireguard_figures figures;
    tunring_wireguard_figures_read(here.device, &figures);
    CHECK_EQUAL(figures.rejected + figures.replayed + figures.unknown_index + figures.wrong_source, 0);

    tunring_wireguard_peer_remove(first.peer);
    tunring_wireguard_peer_remove(other.peer);
    tunring_wireguard_peer_drop(first.peer);
    tunring_wireguard_peer_drop(other.peer);
    close_socket(before.socket);
    close_socket(after.socket);
}

/* An initiator asks for a handshake when data comes late in the life of the current key, not of the one before. */
static void
test_data_that_comes_late(void)
{
    const sender far = open_sender();
    const far_end first = new_key(add_peer(&here, 1), 1, 4, true);
    atomic_fetch_add(&ahead, 164 * SECOND);
    post(&far, &first, 0);
    deliver_posted(1);
    CHECK(!wanted());
    atomic_fetch_add(&ahead, 2 * SECOND);
    const far_end next = new_key(first.peer, 1, 5, true);
    post(&far, &first, 1);
    deliver_posted(1);
    CHECK(!wanted());
    post(&far, &next, 0);
    deliver_posted(1);
    CHECK(!wanted());
    atomic_fetch_add(&ahead, 166 * SECOND);
    post(&far, &next, 1);
    deliver_posted(1);
    CHECK(wanted());
    /* Once is enough. */
    atomic_fetch_add(&ahead, 5 * SECOND);
    post(&far, &next, 2);
    deliver_posted(1);
    CHECK(!wanted());
    tunring_wireguard_peer_remove(first.peer);
    tunring_wireguard_peer_drop(first.peer);
    close_socket(far.socket);
}

int
main(void)
{
    load_all();
    open_station(&here);
    mailbox = open_sender();
    test_roaming();
    test_data_that_comes_late();
    close_socket(mailbox.socket);
    close_station(&here);
    return 0;
}
