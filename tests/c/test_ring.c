/* SPDX-License-Identifier: MIT
 *
 * The ring's layout, algebra, order of checks and error codes, one rule at a time.
 */
/* build: parts=os,ring */
#include "check.h"
#include "backends/ring/poison.h"
#include "backends/ring/ring.h"

#include <string.h>

#define CAPACITY WINTUN_MIN_RING_CAPACITY
#define UNTOUCHED 0xAAAAAAAAu

static ring_pair pair;

static void
setup(void)
{
    CHECK_EQUAL(ring_pair_open(&pair, CAPACITY), ERROR_SUCCESS);
}

static void
teardown(void)
{
    ring_pair_close(&pair);
}

static BYTE *
receive(DWORD *size)
{
    SetLastError(0);
    *size = UNTOUCHED;
    return ring_receive(&pair.receive, size);
}

static void
receive_fails(DWORD code)
{
    DWORD size;
    CHECK(!receive(&size));
    CHECK_EQUAL(GetLastError(), code);
    CHECK_EQUAL(size, UNTOUCHED);
}

static void
allocate_fails(DWORD size, DWORD code)
{
    SetLastError(0);
    CHECK(!ring_allocate(&pair.send, size));
    CHECK_EQUAL(GetLastError(), code);
}

static bool
put(uint32_t size)
{
    static BYTE bytes[WINTUN_MAX_IP_PACKET_SIZE];

    memset(bytes, (int)size, sizeof(bytes));
    return ring_host_put_chain(&pair.receive, &(tunring_packet){bytes, size}, 1);
}

static void
release(const BYTE *packet)
{
    ring_mark_released(packet);
    ring_reclaim(&pair.receive);
}

static ring_published
send(const BYTE *packet)
{
    ring_mark_ready(packet);
    return ring_publish(&pair.send);
}

static void
test_capacity(void)
{
    CHECK(ring_capacity_valid(0x20000));
    CHECK(ring_capacity_valid(0x4000000));
    CHECK(!ring_capacity_valid(0x10000));
    CHECK(!ring_capacity_valid(0x8000000));
    CHECK(!ring_capacity_valid(0x20004));
    CHECK(!ring_capacity_valid(0));
    CHECK_EQUAL(ring_pair_open(&pair, 0x30000), ERROR_INVALID_PARAMETER);
}

static void
test_layout(void)
{
    setup();
    CHECK_EQUAL((BYTE *)pair.send.ring - (BYTE *)pair.receive.ring, CAPACITY + 0x1000C);
    CHECK_EQUAL(pair.size, 2 * (CAPACITY + 0x1000C));
    CHECK_EQUAL(offsetof(ring, head), 0);
    CHECK_EQUAL(offsetof(ring, tail), 4);
    CHECK_EQUAL(offsetof(ring, alertable), 8);
    CHECK_EQUAL(offsetof(ring, data), 12);
    CHECK_EQUAL(ring_slot_size(0), 4);
    CHECK_EQUAL(ring_slot_size(1), 8);
    CHECK_EQUAL(ring_slot_size(4), 8);
    CHECK_EQUAL(ring_slot_size(0xFFFF), 0x10004);
    teardown();
}

static void
test_empty(void)
{
    setup();
    receive_fails(ERROR_NO_MORE_ITEMS);
    CHECK(!ring_readable(&pair.receive));
    CHECK(put(0));
    CHECK(ring_readable(&pair.receive));
    DWORD size;
    CHECK(receive(&size));
    CHECK_EQUAL(size, 0);
    CHECK_EQUAL(GetLastError(), 0);
    CHECK(!ring_readable(&pair.receive));
    teardown();
}

/* A ring holds floor((capacity - 4) / slot) packets, either way. */
static void
test_full(void)
{
    static const uint32_t sizes[] = {0, 1, 4, 20, 60, 64, 1400, 1500, 9000, 0xFFFF};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
    {
        uint32_t expected = (CAPACITY - 4) / ring_slot_size(sizes[i]);
        setup();
        uint32_t count = 0;
        while (ring_allocate(&pair.send, sizes[i]))
            count++;
        CHECK_EQUAL(GetLastError(), ERROR_BUFFER_OVERFLOW);
        CHECK_EQUAL(count, expected);
        CHECK_EQUAL(ring_room(&pair.send), CAPACITY - 4 - expected * ring_slot_size(sizes[i]));
        for (count = 0; put(sizes[i]); count++)
        {
        }
        CHECK_EQUAL(count, expected);
        teardown();
    }
}

/* A packet that starts in the last unit runs to the very end of the spill, and the next one starts near the front. */
static void
test_spill(void)
{
    setup();
    CHECK(put(0xFFFF));
    DWORD size;
    release(receive(&size));
    CHECK(put(CAPACITY - 4 - 0x10004 - 4));
    release(receive(&size));
    CHECK_EQUAL(pair.receive.ring->tail, CAPACITY - 4);
    CHECK(put(0xFFFF));
    CHECK_EQUAL(pair.receive.ring->tail, 0x10000);
    const BYTE *packet = receive(&size);
    CHECK(packet == pair.receive.ring->data + CAPACITY);
    CHECK_EQUAL(size, 0xFFFF);
    CHECK(packet[0] == 0xFF && packet[0xFFFE] == 0xFF);
    release(packet);
    CHECK_EQUAL(pair.receive.ring->head, 0x10000);

    CHECK_EQUAL(send(ring_allocate(&pair.send, 0xFFFF)), RING_MORE);
    CHECK_EQUAL(send(ring_allocate(&pair.send, CAPACITY - 4 - 0x10004 - 4)), RING_MORE);
    uint32_t taken;
    const BYTE *seen;
    while (ring_host_peek(&pair.send, &seen, &taken) == ERROR_SUCCESS)
        ring_host_take(&pair.send, taken);
    BYTE *slot = ring_allocate(&pair.send, 0xFFFF);
    CHECK(slot == pair.send.ring->data + CAPACITY);
    memset(slot, 0x45, 0xFFFF);
    CHECK(slot + 0x10000 == (BYTE *)pair.pages + pair.size);
    CHECK_EQUAL(send(slot), RING_MORE);
    CHECK_EQUAL(ring_host_peek(&pair.send, &seen, &taken), ERROR_SUCCESS);
    CHECK(seen == slot && taken == 0xFFFF && seen[0xFFFE] == 0x45);
    teardown();
}

static void
test_release_order(void)
{
    setup();
    const BYTE *packets[3];
    DWORD size;
    for (int i = 0; i < 3; i++)
    {
        CHECK(put(20));
        packets[i] = receive(&size);
    }
    release(packets[2]);
    release(packets[1]);
    CHECK_EQUAL(pair.receive.ring->head, 0);
    release(packets[0]);
    CHECK_EQUAL(pair.receive.ring->head, 3 * 24);
    /* Once more, while idle: nothing. */
    release(packets[0]);
    release(packets[2]);
    CHECK_EQUAL(pair.receive.ring->head, 3 * 24);
    CHECK(put(20));
    CHECK(receive(&size));
    CHECK_EQUAL(size, 20);
    teardown();
}

static void
test_send_order(void)
{
    setup();
    BYTE *slots[3];
    for (int i = 0; i < 3; i++)
        slots[i] = ring_allocate(&pair.send, 20);
    CHECK_EQUAL(send(slots[2]), RING_NOTHING);
    CHECK_EQUAL(send(slots[1]), RING_NOTHING);
    CHECK_EQUAL(pair.send.ring->tail, 0);
    atomic_store(&pair.send.ring->alertable, 1);
    CHECK_EQUAL(send(slots[0]), RING_WAKE);
    CHECK_EQUAL(pair.send.ring->tail, 3 * 24);
    CHECK_EQUAL(send(slots[1]), RING_NOTHING);
    atomic_store(&pair.send.ring->alertable, 0);
    CHECK_EQUAL(send(ring_allocate(&pair.send, 0)), RING_MORE);
    CHECK_EQUAL(pair.send.ring->tail, 3 * 24 + 4);
    teardown();
}

/* The packet at the head, which is taken, and how far the head moves. */
static void
take(uint32_t size, BYTE first, uint32_t slot)
{
    const BYTE *packet;
    uint32_t seen;
    const uint32_t head = ring_host_head(&pair.send);
    CHECK_EQUAL(ring_host_peek(&pair.send, &packet, &seen), ERROR_SUCCESS);
    CHECK_EQUAL(seen, size);
    CHECK_EQUAL(packet[0], first);
    ring_host_take(&pair.send, seen);
    CHECK_EQUAL((ring_host_head(&pair.send) - head) & (CAPACITY - 1), slot);
}

static void
shorten(uint32_t size, uint32_t to)
{
    setup();
    for (uint32_t round = 0; round < 5; round++) /* the largest go round the end of the ring */
    {
        BYTE *packet = ring_allocate(&pair.send, size);
        BYTE *behind = ring_allocate(&pair.send, 4);
        packet[0] = 1;
        behind[0] = 2;
        ring_shorten(packet, to + (size - to) / 2);
        ring_shorten(packet, to);
        CHECK_EQUAL(send(behind), RING_NOTHING);
        CHECK_EQUAL(send(packet), RING_MORE);
        take(to, 1, ring_slot_size(size));
        take(4, 2, 8);
        CHECK_EQUAL(ring_room(&pair.send), CAPACITY - 4);
    }
    teardown();
}

static void
test_shorten(void)
{
    const uint32_t sizes[] = {1, 4, 5, 20, 21, 1399, 1400, 0xFFFE, 0xFFFF};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        for (size_t k = 0; k <= i; k++)
            shorten(sizes[i], sizes[k]);
}

static void
corrupt_receive(uint32_t tail, uint32_t size_word, DWORD code)
{
    setup();
    CHECK(put(100));
    atomic_store((_Atomic uint32_t *)(void *)pair.receive.ring->data, size_word);
    atomic_store(&pair.receive.ring->tail, tail);
    receive_fails(code);
    receive_fails(code); /* it stays so */
    CHECK(ring_readable(&pair.receive));
    teardown();
}

static void
test_corrupt_receive(void)
{
    corrupt_receive(104, 0x10000, ERROR_INVALID_DATA);
    corrupt_receive(104, 101, ERROR_INVALID_DATA);
    corrupt_receive(104, 100 | RING_FLAG, ERROR_INVALID_DATA);
    corrupt_receive(3, 100, ERROR_INVALID_DATA);
    corrupt_receive(103, 100, ERROR_INVALID_DATA);
    corrupt_receive(CAPACITY, 100, ERROR_HANDLE_EOF);
    corrupt_receive(RING_GONE, 100, ERROR_HANDLE_EOF);
}

static void
corrupt_send(uint32_t size_word, uint32_t tail)
{
    setup();
    CHECK_EQUAL(send(ring_allocate(&pair.send, 100)), RING_MORE);
    atomic_store((_Atomic uint32_t *)(void *)pair.send.ring->data, size_word);
    atomic_store(&pair.send.ring->tail, tail);
    const BYTE *packet;
    uint32_t size;
    CHECK_EQUAL(ring_host_peek(&pair.send, &packet, &size), ERROR_INVALID_DATA);
    CHECK_EQUAL(ring_host_peek(&pair.send, &packet, &size), ERROR_HANDLE_EOF);
    CHECK_EQUAL(pair.send.ring->head, RING_GONE);
    allocate_fails(20, ERROR_HANDLE_EOF);
    CHECK_EQUAL(ring_room(&pair.send), RING_GONE);
    /* The other direction goes on. */
    CHECK(put(20));
    teardown();
}

static void
test_corrupt_send(void)
{
    corrupt_send(0x10000, 104);
    corrupt_send(RING_SHORTER | 1 << RING_UNUSED_SHIFT | 100, 104); /* past the tail */
    corrupt_send(RING_SHORTER | RING_UNUSED_MASK << RING_UNUSED_SHIFT | RING_SIZE_MASK, 104);
    corrupt_send(RING_FLAG | RING_SHORTER | 96, 104);
    corrupt_send(0x30000000 | 96, 104);
    corrupt_send(101, 104);
    corrupt_send(100, 3);
    corrupt_send(100, CAPACITY);
}

static void
test_allocate_errors(void)
{
    setup();
    allocate_fails(0x10000, ERROR_INVALID_PARAMETER);
    allocate_fails(0xFFFFFFFF, ERROR_INVALID_PARAMETER);
    CHECK(ring_allocate(&pair.send, 0xFFFF));
    allocate_fails(0xFFFF, ERROR_BUFFER_OVERFLOW);
    ring_host_end_send(&pair.send);
    ring_host_end_receive(&pair.receive);
    allocate_fails(0, ERROR_HANDLE_EOF);
    receive_fails(ERROR_HANDLE_EOF);
    CHECK(ring_readable(&pair.receive));
    CHECK(!put(20));
    teardown();
}

static void
test_chain(void)
{
    static BYTE bytes[WINTUN_MAX_IP_PACKET_SIZE + 1];
    const tunring_packet mixed[] = {{bytes, 20}, {bytes, 0x10000}, {NULL, 30}, {bytes, 40}};
    const tunring_packet large[] = {{bytes, 0xFFFF}, {bytes, 0xFFFF}};
    memset(bytes, 1, sizeof(bytes));
    setup();
    CHECK(!ring_host_put_chain(&pair.receive, large, 2));
    receive_fails(ERROR_NO_MORE_ITEMS);
    CHECK(ring_host_put_chain(&pair.receive, mixed, 4));
    DWORD size;
    CHECK(receive(&size) && size == 20);
    const BYTE *packet = receive(&size);
    CHECK(size == 30 && packet[0] == 0 && packet[29] == 0);
    packet = receive(&size);
    CHECK(size == 40 && packet[39] == 1);
    receive_fails(ERROR_NO_MORE_ITEMS);
    teardown();
}

static void
test_rewind(void)
{
    setup();
    CHECK(put(20));
    ring_host_rewind(&pair.receive); /* unread */
    DWORD size;
    const BYTE *packet = receive(&size);
    ring_host_rewind(&pair.receive); /* held */
    CHECK_EQUAL(pair.receive.ring->tail, 24);
    CHECK(put(20));
    const BYTE *other = receive(&size);
    release(other);
    ring_host_rewind(&pair.receive); /* the older one is held */
    CHECK_EQUAL(pair.receive.ring->tail, 48);
    release(packet);
    ring_host_rewind(&pair.receive);
    CHECK_EQUAL(pair.receive.ring->tail, 0);
    CHECK_EQUAL(pair.receive.ring->head, 0);
    CHECK(put(30));
    CHECK(receive(&size) == pair.receive.ring->data + 4 && size == 30);

    BYTE *slot = ring_allocate(&pair.send, 20);
    ring_host_rewind(&pair.send); /* allocated */
    CHECK_EQUAL(pair.send.next, 24);
    send(slot);
    ring_host_rewind(&pair.send); /* not taken */
    CHECK_EQUAL(pair.send.ring->tail, 24);
    uint32_t taken;
    CHECK_EQUAL(ring_host_peek(&pair.send, &packet, &taken), ERROR_SUCCESS);
    ring_host_take(&pair.send, taken);
    ring_host_rewind(&pair.send);
    CHECK_EQUAL(pair.send.ring->tail, 0);
    CHECK_EQUAL(ring_room(&pair.send), CAPACITY - 4);
    CHECK(ring_allocate(&pair.send, 20) == pair.send.ring->data + 4);
    ring_host_end_send(&pair.send);
    ring_host_end_receive(&pair.receive);
    ring_host_rewind(&pair.send);
    ring_host_rewind(&pair.receive);
    CHECK_EQUAL(pair.send.ring->head, RING_GONE);
    CHECK_EQUAL(pair.receive.ring->tail, RING_GONE);
    teardown();
}

static void
test_filter(void)
{
    BYTE packet[40] = {0};
    packet[0] = 0x45;
    CHECK(tunring_packet_is_ip(packet, 20));
    CHECK(!tunring_packet_is_ip(packet, 19));
    CHECK(!tunring_packet_is_ip(packet, 0));
    packet[0] = 0x60;
    CHECK(tunring_packet_is_ip(packet, 40));
    CHECK(!tunring_packet_is_ip(packet, 39));
    packet[0] = 0x50;
    CHECK(!tunring_packet_is_ip(packet, 40));
}

#if defined(POISON_ENABLED)

static bool
usable(const BYTE *packet, size_t size)
{
    return __asan_region_is_poisoned((void *)(uintptr_t)packet, size) == NULL;
}

/* Of a slot that is nobody's, all but 7 bytes at either edge is poisoned, and the size word never. */
static bool
poisoned(const BYTE *packet, size_t size)
{
    for (size_t i = 7; i + 7 < size; i++)
        if (!__asan_address_is_poisoned(packet + i))
            return false;
    return usable(packet - 4, 4);
}

static void
test_poison(void)
{
    setup();
    CHECK(put(101) && put(102));
    DWORD size;
    const BYTE *first = receive(&size);
    const BYTE *second = receive(&size);
    CHECK(usable(first, 101) && usable(second, 102));
    release(second);
    CHECK(poisoned(second, 102) && usable(first, 101));
    release(first);
    CHECK(poisoned(first, 101));

    BYTE *slot = ring_allocate(&pair.send, 103);
    CHECK(usable(slot, 103));
    slot[0] = 0x45;
    CHECK(__asan_address_is_poisoned(slot + 103 + 8));
    send(slot);
    CHECK(poisoned(slot, 103));
    const BYTE *seen;
    uint32_t taken;
    CHECK_EQUAL(ring_host_peek(&pair.send, &seen, &taken), ERROR_SUCCESS);
    CHECK(seen == slot && usable(seen, taken));
    ring_host_take(&pair.send, taken);
    CHECK(poisoned(slot, 103));

    /* A place that was not filled, or not wholly, is taken back. */
    slot = ring_host_place(&pair.receive, ring_host_tail(&pair.receive), 0xFFFF);
    CHECK(usable(slot, 0xFFFF));
    ring_host_show(&pair.receive, ring_host_fill(&pair.receive, ring_host_tail(&pair.receive), 50));
    CHECK(usable(slot, 50) && __asan_address_is_poisoned(slot + 0x8000));
    teardown();
}

#else

static void
test_poison(void)
{
}

#endif

int
main(void)
{
    test_capacity();
    test_layout();
    test_empty();
    test_full();
    test_spill();
    test_release_order();
    test_send_order();
    test_corrupt_receive();
    test_corrupt_send();
    test_shorten();
    test_allocate_errors();
    test_chain();
    test_rewind();
    test_filter();
    test_poison();
    return 0;
}
