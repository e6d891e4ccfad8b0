/* SPDX-License-Identifier: MIT
 *
 * Packets that another thread changes while they are completed or looked up: lengths that were checked are
 * not read again. The sanitizers see what lies behind a packet.
 */
/* build: parts=core */
#include "check.h"
#include "core/routes.h"
#include "tunring_packets.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_THREAD__)
#define RACES 1 /* on purpose */
#else
#define RACES 0
#endif

#define TURNS 300000u

/* A byte that has one value and the other in turns. */
typedef struct flicker
{
    volatile BYTE *byte;
    BYTE values[2];
    atomic_bool stop;
} flicker;

static void *
change(void *argument)
{
    flicker *self = argument;
    for (unsigned turn = 0; !atomic_load_explicit(&self->stop, memory_order_relaxed); turn++)
        *self->byte = self->values[turn & 1];
    return NULL;
}

/* Memory of exactly that size, so that a read behind it is noticed. */
static BYTE *
packet_of(uint32_t size)
{
    BYTE *packet = calloc(1, size);
    CHECK(packet);
    packet[0] = 0x45;
    packet[3] = (BYTE)size;
    return packet;
}

/* An IPv4 header whose size flickers: the packet ends where it does by the smaller value. */
static void
test_checksum(void)
{
    BYTE *packet = packet_of(20);
    packet[9] = 50; /* nothing that has a checksum of its own */
    flicker both = {.byte = packet, .values = {0x45, 0x4F}};
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, change, &both) == 0);
    unsigned filled = 0;
    for (unsigned turn = 0; turn < TURNS || filled == 0 || filled == turn; turn++)
        filled += tunring_fill_checksums(packet, 20);
    atomic_store(&both.stop, true);
    pthread_join(thread, NULL);
    free(packet);
}

/* An option of TCP at the very end, which is one that holds a size or has nothing in it. */
static void
test_segment_size(void)
{
    BYTE *packet = packet_of(44);
    packet[9] = 6;
    packet[32] = 6 << 4;
    packet[33] = 2;
    packet[40] = packet[41] = 1;
    packet[42] = 2;
    flicker both = {.byte = &packet[43], .values = {2, 4}};
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, change, &both) == 0);
    for (unsigned turn = 0; turn < TURNS; turn++)
        CHECK(!tunring_clamp_mss(packet, 44, 0, 0));
    atomic_store(&both.stop, true);
    pthread_join(thread, NULL);
    free(packet);
}

/* A version that flickers in a packet that is too short for the other. */
static void
test_lookup(void)
{
    tunring_routes *table = tunring_routes_new();
    CHECK(table);
    BYTE *packet = packet_of(20);
    const tunring_slot slot = {.data = packet, .length = 20};
    flicker both = {.byte = packet, .values = {0x45, 0x65}};
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, change, &both) == 0);
    for (unsigned turn = 0; turn < TURNS; turn++)
    {
        int32_t value;
        tunring_routes_lookup_slots(table, &slot, 1, turn & 1, &value);
        CHECK_EQUAL(value, TUNRING_NO_ROUTE);
    }
    atomic_store(&both.stop, true);
    pthread_join(thread, NULL);
    free(packet);
    tunring_routes_free(table);
}

int
main(void)
{
    if (RACES)
        return 77;
    test_checksum();
    test_segment_size();
    test_lookup();
    return 0;
}
