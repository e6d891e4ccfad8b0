/* SPDX-License-Identifier: MIT
 *
 * Completes whatever comes, and lowers its segment size. Input: the packet.
 */
#include "fuzz.h"
#include "tunring_packets.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > WINTUN_MAX_IP_PACKET_SIZE)
        return 0;
    const uint32_t length = (uint32_t)size;
    BYTE *packet = exact_copy(data, length), *again = exact_copy(data, length);
    const bool complete = tunring_fill_checksums(packet, length);
    if (length)
        memcpy(again, packet, length);
    /* A complete packet stays as it is. */
    REQUIRE(tunring_fill_checksums(again, length) == complete);
    REQUIRE(!length || memcmp(again, packet, length) == 0);
    if (tunring_clamp_mss(packet, length, 500, 480))
    {
        REQUIRE(!tunring_clamp_mss(packet, length, 500, 480));
        /* The checksum was mended, where it was right. */
        if (complete)
        {
            memcpy(again, packet, length);
            REQUIRE(tunring_fill_checksums(again, length));
            REQUIRE(memcmp(again, packet, length) == 0);
        }
    }
    free(packet);
    free(again);
    return 0;
}
