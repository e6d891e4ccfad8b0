/* SPDX-License-Identifier: MIT
 *
 * For count.c: sealing and opening, UDP sockets, and lookups in a table of prefixes.
 */
#include "core/aead.h"
#include "tunring_routes.h"
#include "tunring_socket.h"

#include <arpa/inet.h>
#include <netinet/udp.h>

#define PREFIXES 10000u

/* Batches: those that were sealed before the count began, and those that it makes. */
static tunring_lease *leases[ROUNDS];

static void
release_all(void)
{
    for (uint32_t i = 0; i < ROUNDS; i++)
        if (leases[i])
        {
            tunring_lease_release(leases[i]);
            tunring_lease_free(leases[i]);
            leases[i] = NULL;
        }
}

/* ---- Sealing and opening, by a cipher that does nothing: the rest of the work is counted ---- */

static aead_context *
no_context(tunring_aead *library, tunring_aead_algorithm algorithm, const BYTE *key, bool opens)
{
    (void)library, (void)algorithm, (void)key, (void)opens;
    return calloc(1, sizeof(aead_context));
}

static void
end_no_context(aead_context *context)
{
    free(context);
}

static bool
seal_nothing(aead_context *context, aead_message *messages, uint32_t count)
{
    (void)context, (void)messages, (void)count;
    return true;
}

static void
open_nothing(aead_context *context, aead_message *messages, uint32_t count)
{
    (void)context;
    for (uint32_t i = 0; i < count; i++)
        messages[i].authentic = true;
}

static const aead_sequence no_cipher = {no_context, end_no_context, seal_nothing, open_nothing};
static tunring_aead no_library;
static tunring_sealer *sealer;
static tunring_opener *opener;
static tunring_store *store;

static void
begin_aead(void)
{
    static const BYTE key[AEAD_MAX_KEY];
    static const tunring_aead_format format = {.header = (const BYTE *)"8 bytes.", .header_size = 8};
    atomic_store(&no_library.checked[TUNRING_AES_256_GCM], &no_cipher);
    CHECK(tunring_sealer_new(&no_library, TUNRING_AES_256_GCM, key, &format, 1, UINT32_MAX, 0, &sealer) ==
          ERROR_SUCCESS);
    CHECK(tunring_opener_new(&no_library, TUNRING_AES_256_GCM, key, &format, 8192, false, &opener) == ERROR_SUCCESS);
    CHECK(tunring_store_new(&store) == ERROR_SUCCESS);
}

static uint32_t
seal_all(void)
{
    for (uint32_t i = 0; i < ROUNDS; i++)
        CHECK(tunring_store_seal(store, sealer, list, BATCH, &leases[i]) == ERROR_SUCCESS);
    return ROUNDS * BATCH;
}

static void
prepare_sealed(void)
{
    (void)seal_all();
}

static uint32_t
open_all(void)
{
    uint32_t count = 0, index;
    for (uint32_t i = 0; i < ROUNDS; i++)
    {
        tunring_part *opened;
        CHECK(tunring_open_part(opener, leases[i], NULL, &opened, &index) == ERROR_SUCCESS);
        count += opened->count;
        free(opened);
    }
    return count;
}

/* ---- Sockets ---- */

static tunring_socket *sockets[2];
static tunring_endpoint destination;

static tunring_socket *
open_socket(tunring_endpoint *own)
{
    static const int on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    const int fd = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&address, &length) == 0);
    (void)setsockopt(fd, IPPROTO_UDP, 104 /* UDP_GRO */, &on, sizeof(on));
    CHECK(setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on)) == 0);
    CHECK(setsockopt(fd, IPPROTO_IP, IP_RECVTOS, &on, sizeof(on)) == 0);
    const tunring_socket_options options = {.handle = (uintptr_t)fd, .runs = true, .max_chunks = 64};
    tunring_socket *result;
    CHECK(tunring_socket_open(&options, &result) == ERROR_SUCCESS);
    close(fd);
    memcpy(own->host, "\0\0\0\0\0\0\0\0\0\0\377\377\177\0\0\1", 16);
    own->port = ntohs(address.sin_port);
    return result;
}

static void
begin_sockets(void)
{
    tunring_endpoint unused = {0};
    sockets[0] = open_socket(&unused);
    sockets[1] = open_socket(&destination);
}

/* As many as fit into the buffer of a socket that nobody made larger. */
static uint32_t
udp_send_all(void)
{
    const tunring_sending what = {.packets = list, .count = size > 1000 ? 64 : BATCH, .endpoints = &destination};
    uint32_t done;
    CHECK(tunring_socket_send(sockets[0], &what, NULL, &done) == ERROR_SUCCESS);
    CHECK(done == what.count);
    return done;
}

static void
prepare_datagrams(void)
{
    (void)udp_send_all();
}

static uint32_t
udp_receive_all(void)
{
    uint32_t count = 0;
    tunring_lease *lease;
    while (tunring_receive(tunring_socket_source(sockets[1]), BATCH, NULL, &lease) == ERROR_SUCCESS)
    {
        count += lease->count;
        tunring_lease_release(lease);
        tunring_lease_free(lease);
    }
    return count;
}

static void
discard_datagrams(void)
{
    (void)udp_receive_all();
}

/* ---- Lookups ---- */

static tunring_routes *routes;
static uint64_t random_state = 1;

/* Random prefixes, and random destinations, each inside one of them. */
static void
begin_routes(unsigned version)
{
    static tunring_route made[PREFIXES];
    const unsigned offset = version == 4 ? 16 : 24, bytes = version == 4 ? 4 : 16;
    CHECK((routes = tunring_routes_new()));
    for (uint32_t i = 0; i < PREFIXES; i++)
    {
        made[i].value = (int32_t)i;
        made[i].prefix.version = (uint8_t)version;
        made[i].prefix.length = (uint8_t)(8 * (1 + check_random(&random_state) % bytes));
        for (unsigned k = 0; k < made[i].prefix.length / 8u; k++)
            made[i].prefix.address[k] = (BYTE)check_random(&random_state);
    }
    uint32_t done;
    CHECK(tunring_routes_set(routes, made, PREFIXES, &done) == ERROR_SUCCESS);
    for (uint32_t i = 0; i < BATCH; i++)
    {
        BYTE *packet = packets + (size_t)i * size;
        const tunring_prefix *inside = &made[check_random(&random_state) % PREFIXES].prefix;
        packet[0] = version == 4 ? 0x45 : 0x60;
        for (unsigned k = 0; k < bytes; k++)
            packet[offset + k] = k < inside->length / 8u ? inside->address[k] : (BYTE)check_random(&random_state);
    }
}

static void
begin_routes_v4(void)
{
    begin_routes(4);
}

static void
begin_routes_v6(void)
{
    begin_routes(6);
}

static uint32_t
look_up_all(void)
{
    static int32_t values[BATCH];
    for (uint32_t i = 0; i < ROUNDS; i++)
        tunring_routes_lookup_packets(routes, list, BATCH, false, values);
    for (uint32_t i = 0; i < BATCH; i++)
        CHECK(values[i] >= 0);
    return ROUNDS * BATCH;
}
