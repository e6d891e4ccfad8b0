/* SPDX-License-Identifier: MIT
 *
 * Datagrams for a WireGuard device. Input: records of a kind, a length of two bytes, and that many bytes: a datagram
 * as it is, the inside of an authentic data message, or a handshake message whose mac1 is set right.
 */
#include "fuzz.h"
#include "core/lease.h"
#include "wireguard/device.h"
#include "wireguard_net.h"

#define MOST_DATAGRAMS DEVICE_TAKE
#define MOST_INSIDE 2000u

typedef enum kind
{
    AS_IT_IS,
    DATA_INSIDE,
    HANDSHAKE,
    KINDS
} kind;

static const BYTE key[TUNRING_WIREGUARD_KEY] = {7};
static station here;
static tunring_wireguard_peer *peer;
static tunring_sealer *sealer;
static uint32_t index_here;

/* Once. Nothing comes to the device's loops: datagrams are handed over by this thread. */
static void
begin(void)
{
    load_all();
    open_station(&here);
    peer = add_peer(&here, 1);
    CHECK_EQUAL(tunring_wireguard_set_identity(here.device, key, key), ERROR_SUCCESS);
}

/* Fresh keys, so that an input does the same at any time. */
static void
install(void)
{
    const tunring_aead_format format = {
        .header = (const BYTE *)"\4\0\0\0\0\0\0\0", .header_size = 8, .unauthenticated_header = true};
    CHECK_EQUAL(tunring_wireguard_index_new(peer, &index_here), ERROR_SUCCESS);
    const tunring_wireguard_keys keys = {.index = index_here, .send = key, .receive = key, .remote_index = 1};
    CHECK_EQUAL(tunring_wireguard_peer_install(peer, &keys), ERROR_SUCCESS);
    CHECK_EQUAL(tunring_sealer_new(aead, TUNRING_CHACHA20_POLY1305, key, &format, 1, 0, 0, &sealer), ERROR_SUCCESS);
}

static BYTE *
data_message(const uint8_t *bytes, uint32_t length, uint32_t *size)
{
    const tunring_packet inside = {bytes, length};
    *size = length + 32;
    BYTE *message = malloc(*size);
    tunring_sealing call;
    CHECK_EQUAL(tunring_seal_begin(sealer, 1, &call), ERROR_SUCCESS);
    tunring_slot slot;
    CHECK_EQUAL(tunring_seal(&call, &inside, 1, message, &slot), ERROR_SUCCESS);
    tunring_seal_end(&call);
    memcpy(message + 4, &index_here, sizeof(index_here));
    return message;
}

/* A datagram of the record. */
static BYTE *
make(unsigned what, const uint8_t *bytes, uint32_t length, uint32_t *size)
{
    if (what == DATA_INSIDE && length <= MOST_INSIDE)
        return data_message(bytes, length, size);
    *size = length;
    BYTE *message = exact_copy(bytes, length);
    if (what == HANDSHAKE && length >= 36)
        CHECK(tunring_hashes_mac(hashes, key, sizeof(key), message, length - 32, message + length - 32));
    return message;
}

/* Everything delivered must be whole packets from the peer's network. */
static void
check_delivered(void)
{
    tunring_lease *lease;
    while (tunring_receive(tunring_session_source(here.host), 128, NULL, &lease) == ERROR_SUCCESS)
    {
        for (uint32_t i = 0; i < lease->count; i++)
        {
            const BYTE *packet = lease->slots[i].data;
            REQUIRE(packet[0] >> 4 == 4 && memcmp(packet + 12, "\12\0\0\1", 4) == 0);
            REQUIRE(lease->slots[i].length == ((uint32_t)packet[2] << 8 | packet[3]));
        }
        let_go(lease);
    }
}

static void
check_queue(void)
{
    static tunring_wireguard_news news;
    while (tunring_wireguard_take(here.device, NULL, &news) == ERROR_SUCCESS)
        for (uint32_t i = 0; i < news.messages; i++)
        {
            const tunring_wireguard_message *message = &news.message[i];
            REQUIRE(message->data[0] >= 1 && message->data[0] <= 3);
            REQUIRE(message->length == (message->data[0] == 1 ? 148u : message->data[0] == 2 ? 92u : 64u));
        }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint32_t count = 0;
    static bool begun;
    if (!begun)
        begin();
    begun = true;
    install();
    tunring_lease *lease = lease_new(MOST_DATAGRAMS);
    const tunring_endpoint from = {.host = {[10] = 0xFF, [11] = 0xFF, [12] = 127, [15] = 1}, .port = 9};
    CHECK(lease_add_origin(lease, &from, 3));
    BYTE *datagrams[MOST_DATAGRAMS];
    while (size >= 3 && count < MOST_DATAGRAMS)
    {
        const size_t claimed = data[1] | (size_t)data[2] << 8;
        const uint32_t length = (uint32_t)(claimed < size - 3 ? claimed : size - 3);
        uint32_t made;
        datagrams[count] = make(data[0] % KINDS, data + 3, length, &made);
        lease_append(lease, datagrams[count++], made);
        data += 3 + length;
        size -= 3 + length;
    }
    CHECK_EQUAL(device_take(here.device, NULL, lease), ERROR_SUCCESS);
    check_delivered();
    check_queue();
    tunring_lease_free(lease);
    for (uint32_t i = 0; i < count; i++)
        free(datagrams[i]);
    tunring_sealer_free(sealer);
    return 0;
}
