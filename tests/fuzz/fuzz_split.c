/* SPDX-License-Identifier: MIT
 *
 * Splits whatever comes. Input: a virtio header of 10 bytes, then the packet.
 */
#include "fuzz.h"
#include "backends/tun_linux/offload_split.h"

#define MAX_INPUT 70000u

/* The requirements on each segment, whatever the superpacket is. */
static void
check_segment(const offload_split *split, const BYTE *segment, uint32_t size, uint32_t index)
{
    const offload_headers *headers = &split->headers;
    const BYTE *whole = split->packet, *transport = segment + headers->transport;
    const uint32_t payload = size - headers->length;
    offload_headers again;
    REQUIRE(offload_headers_parse(&again, segment, size));
    REQUIRE(again.version == headers->version && again.protocol == headers->protocol);
    REQUIRE(again.transport == headers->transport && again.length == headers->length);
    REQUIRE(memcmp(segment + headers->length, whole + headers->length + index * split->segment, payload) == 0);
    REQUIRE(payload == split->segment || split->left == 1);
    if (headers->version == 4)
        REQUIRE(add_words(segment, headers->transport, 0) == 0xFFFF);
    if (headers->protocol == PROTOCOL_UDP)
        REQUIRE(transport[6] || transport[7]);
    else
    {
        const uint8_t flags = whole[headers->transport + TCP_FLAGS];
        const uint8_t lost = (uint8_t)((split->left > 1 ? TCP_FIN | TCP_PSH : 0) | (index ? TCP_CWR : 0));
        REQUIRE(transport[TCP_FLAGS] == (flags & ~lost));
    }
}

/* True if the segment's checksum verifies: it has to if the superpacket's sum of the pseudo-header was right. */
static bool
verifies(const offload_headers *headers, const BYTE *packet, uint32_t size)
{
    const uint32_t left = size - headers->transport;
    const uint32_t pseudo = headers->version == 4 ? add_words(packet + 12, 8, 0) : add_words(packet + 8, 32, 0);
    return add_words(packet + headers->transport, left, pseudo + headers->protocol + left) == 0xFFFF;
}

/* The kernel takes a UDP header at its word: the sum has to have the length that stands there. */
static bool
sum_is_right(const virtio_header *virtio, const offload_headers *headers, const BYTE *packet, uint32_t size)
{
    const uint32_t left = size - headers->transport;
    const uint32_t pseudo = headers->version == 4 ? add_words(packet + 12, 8, 0) : add_words(packet + 8, 32, 0);
    const BYTE *stored = packet + headers->transport + (headers->protocol == PROTOCOL_TCP ? 16 : 6);
    const uint32_t sum = (uint32_t)stored[0] << 8 | stored[1];
    const uint32_t length = headers->protocol == PROTOCOL_TCP ? left : (uint32_t)stored[-2] << 8 | stored[-1];
    return !(virtio->flags & VIRTIO_NEEDS_CHECKSUM) ||
           add_words(NULL, 0, pseudo + headers->protocol + (length & 0xFFFF) + (length >> 16)) % 0xFFFF == sum % 0xFFFF;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    virtio_header virtio;
    if (size < sizeof(virtio) || size > MAX_INPUT)
        return 0;
    memcpy(&virtio, data, sizeof(virtio));
    const uint32_t length = (uint32_t)(size - sizeof(virtio));
    BYTE *packet = exact_copy(data + sizeof(virtio), length);
    offload_split split;
    const bool valid = offload_split_begin(&split, &virtio, packet, length);
    const uint32_t count = split.left;
    const bool right = valid && split.headers.length && sum_is_right(&virtio, &split.headers, packet, length);
    REQUIRE(valid == (count > 0));
    for (uint32_t index = 0; index < count; index++)
    {
        const uint32_t next = offload_split_next(&split);
        REQUIRE(next > 0 && next <= WINTUN_MAX_IP_PACKET_SIZE && split.left == count - index);
        BYTE *place = malloc(next);
        REQUIRE(place);
        const offload_split before = split;
        offload_split_write(&split, place);
        if (split.headers.length)
            check_segment(&before, place, next, index);
        if (right)
            REQUIRE(verifies(&split.headers, place, next));
        free(place);
    }
    REQUIRE(offload_split_next(&split) == 0);
    REQUIRE(size == sizeof(virtio) || memcmp(packet, data + sizeof(virtio), length) == 0);
    free(packet);
    return 0;
}
