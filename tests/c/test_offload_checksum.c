/* SPDX-License-Identifier: MIT
 *
 * The Internet checksum against one that adds byte by byte.
 */
/* build: parts=offloads */
#include "packet/checksum.h"
#include "offload_packets.h"

#define MAX_LENGTH 300u

static uint64_t state = 1;

/* As a number rather than as it lies in memory. */
static uint32_t
number(uint64_t sum)
{
    BYTE bytes[2];
    packet_store_word(bytes, packet_fold(sum));
    return packet_get16(bytes);
}

static void
check_at(const BYTE *bytes, uint32_t length, BYTE *room)
{
    const uint32_t expected = add_up(bytes, length, 0);
    CHECK_EQUAL(number(packet_sum(bytes, length, 0)), expected);
    /* A byte on either side may not change. */
    memset(room, 0xA5, length + 2);
    CHECK_EQUAL(number(packet_sum_copy(room + 1, bytes, length, 0)), expected);
    CHECK(room[0] == 0xA5 && room[length + 1] == 0xA5 && memcmp(room + 1, bytes, length) == 0);
}

/* Every length at every alignment, in memory that ends with the bytes, for ASan. */
static void
test_lengths(int fill)
{
    for (uint32_t length = 0; length < MAX_LENGTH; length++)
    {
        for (uint32_t offset = 0; offset < 8; offset++)
        {
            BYTE *memory = malloc(offset + length + 1), *room = malloc(length + 2);
            CHECK(memory && room);
            for (uint32_t i = 0; i < offset + length; i++)
                memory[i] = fill < 0 ? (BYTE)check_random(&state) : (BYTE)fill;
            check_at(memory + offset, length, room);
            free(memory);
            free(room);
        }
    }
}

/* Sums that start with a sum, and parts of even size. */
static void
test_parts(void)
{
    BYTE bytes[MAX_LENGTH];
    for (int i = 0; i < 20000; i++)
    {
        const uint32_t length = check_random(&state) % MAX_LENGTH, cut = check_random(&state) % (length + 1) & ~1u;
        for (uint32_t k = 0; k < length; k++)
            bytes[k] = check_random(&state) % 3 ? 0xFF : (BYTE)check_random(&state);
        const uint64_t start = (uint64_t)check_random(&state) << 32 | check_random(&state);
        const uint64_t sum = packet_sum(bytes + cut, length - cut, packet_sum(bytes, cut, start));
        CHECK_EQUAL(number(sum), add_up(bytes, length, number(start)));
    }
}

static void
test_fold(void)
{
    CHECK_EQUAL(packet_fold(0), 0);
    CHECK_EQUAL(packet_fold(0xFFFF), 0xFFFF);
    CHECK_EQUAL(packet_fold(0x10000), 1);
    CHECK_EQUAL(packet_fold(UINT64_MAX), 0xFFFF);
    CHECK_EQUAL(packet_fold(UINT64_MAX - 0xFFFE), 1);
    for (int i = 0; i < 100000; i++)
    {
        const uint64_t sum = (uint64_t)check_random(&state) << 32 | check_random(&state);
        const uint64_t rest = sum % 0xFFFF;
        CHECK_EQUAL(packet_fold(sum), rest || !sum ? rest : 0xFFFF);
    }
}

static void
test_numbers(void)
{
    BYTE bytes[4];
    packet_put32(bytes, 0x12345678);
    CHECK(bytes[0] == 0x12 && bytes[1] == 0x34 && bytes[2] == 0x56 && bytes[3] == 0x78);
    CHECK_EQUAL(packet_get32(bytes), 0x12345678);
    CHECK_EQUAL(packet_get16(bytes + 2), 0x5678);
    CHECK_EQUAL(packet_word(0x5678), packet_load_word(bytes + 2));
}

int
main(void)
{
    test_lengths(-1);
    test_lengths(0);
    test_lengths(0xFF);
    test_parts();
    test_fold();
    test_numbers();
    return 0;
}
