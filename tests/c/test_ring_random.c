/* SPDX-License-Identifier: MIT
 *
 * A random walk over both rings, checked at every step against a model that knows no rings: queues of packets and a
 * count of free bytes.
 */
/* build: parts=os,ring */
#include "check.h"
#include "backends/ring/ring.h"

#include <string.h>

#define CAPACITY WINTUN_MIN_RING_CAPACITY
#if defined(__SANITIZE_THREAD__)
#define SEEDS 2
#else
#define SEEDS 8
#endif
#define STEPS 30000
#define MAX_SLOTS 65536

/* A queue of slots in the order of the ring. For S: unread, then held, then released until reclaimed. For R: allocated,
 * ready, published when all before it are ready. */
typedef struct slot
{
    BYTE *packet;
    uint32_t size;
    uint8_t seed;
    bool done; /* released, or ready */
} slot;

typedef struct model
{
    slot slots[MAX_SLOTS];
    unsigned oldest; /* not given back to the other side */
    unsigned middle; /* S: next to receive; R: next for the host to take */
    unsigned newest;
    uint32_t used; /* ring bytes from oldest on, as the other side must see them */
} model;

static ring_pair pair;
static model s, r;
static uint64_t state;
static uint8_t bytes[WINTUN_MAX_IP_PACKET_SIZE];

static slot *
at(model *m, unsigned index)
{
    return &m->slots[index % MAX_SLOTS];
}

static uint32_t
random_size(void)
{
    switch (check_random(&state) % 8)
    {
    case 0:
        return check_random(&state) % 8;
    case 1:
        return WINTUN_MAX_IP_PACKET_SIZE - check_random(&state) % 8;
    case 2:
        return check_random(&state) % (WINTUN_MAX_IP_PACKET_SIZE + 1);
    default:
        return check_random(&state) % 1600;
    }
}

/* Often 0: only the oldest gives room. */
static unsigned
random_below(unsigned count)
{
    return check_random(&state) % 4 ? 0 : check_random(&state) % count;
}

static void
fill(BYTE *packet, uint32_t size, uint8_t seed)
{
    for (uint32_t i = 0; i < size; i++)
        packet[i] = (BYTE)(seed + i);
}

static void
check_bytes(const BYTE *packet, const slot *expected)
{
    for (uint32_t i = 0; i < expected->size; i++)
        CHECK(packet[i] == (BYTE)(expected->seed + i));
}

/* ---- S ---- */

static void
host_puts(void)
{
    uint32_t size = random_size();
    uint8_t seed = (uint8_t)check_random(&state);
    bool fits = s.used + ring_slot_size(size) <= CAPACITY - 4;
    tunring_packet chain = {bytes, size};
    fill(bytes, size, seed);
    CHECK(ring_host_put_chain(&pair.receive, &chain, 1) == fits);
    if (fits)
    {
        *at(&s, s.newest++) = (slot){NULL, size, seed, false};
        s.used += ring_slot_size(size);
    }
}

static void
client_receives(void)
{
    DWORD size;
    BYTE *packet = ring_receive(&pair.receive, &size);
    if (s.middle == s.newest)
    {
        CHECK(!packet && GetLastError() == ERROR_NO_MORE_ITEMS);
        return;
    }
    CHECK(packet);
    CHECK_EQUAL(size, at(&s, s.middle)->size);
    check_bytes(packet, at(&s, s.middle));
    at(&s, s.middle++)->packet = packet;
}

static void
client_releases(void)
{
    if (s.oldest == s.middle)
        return;
    slot *any = at(&s, s.oldest + random_below(s.middle - s.oldest));
    /* A second release of a slot that is not reclaimed yet changes nothing. */
    if (!any->done)
        check_bytes(any->packet, any);
    ring_mark_released(any->packet);
    any->done = true;
    CHECK(ring_reclaim(&pair.receive) == at(&s, s.oldest)->done);
    while (s.oldest != s.middle && at(&s, s.oldest)->done)
        s.used -= ring_slot_size(at(&s, s.oldest++)->size);
}

/* ---- R ---- */

static void
client_allocates(void)
{
    uint32_t size = random_size();
    uint8_t seed = (uint8_t)check_random(&state);
    BYTE *packet = ring_allocate(&pair.send, size);
    CHECK((packet != NULL) == (r.used + ring_slot_size(size) <= CAPACITY - 4));
    if (!packet)
    {
        CHECK_EQUAL(GetLastError(), ERROR_BUFFER_OVERFLOW);
        return;
    }
    fill(packet, size, seed);
    *at(&r, r.newest++) = (slot){packet, size, seed, false};
    r.used += ring_slot_size(size);
}

static void
client_sends(void)
{
    if (r.oldest == r.newest)
        return;
    slot *any = at(&r, r.oldest + random_below(r.newest - r.oldest));
    if (!any->done)
        check_bytes(any->packet, any);
    ring_mark_ready(any->packet);
    any->done = true;
    CHECK((ring_publish(&pair.send) != RING_NOTHING) == at(&r, r.oldest)->done);
    while (r.oldest != r.newest && at(&r, r.oldest)->done)
        r.oldest++;
}

static void
host_takes(void)
{
    const BYTE *packet;
    uint32_t size;
    DWORD code = ring_host_peek(&pair.send, &packet, &size);
    CHECK_EQUAL(code, r.middle == r.oldest ? ERROR_NO_MORE_ITEMS : ERROR_SUCCESS);
    if (code == ERROR_SUCCESS)
    {
        CHECK_EQUAL(size, at(&r, r.middle)->size);
        CHECK(packet == at(&r, r.middle)->packet);
        check_bytes(packet, at(&r, r.middle++));
        ring_host_take(&pair.send, size);
        r.used -= ring_slot_size(size);
    }
}

static void
step(unsigned bias)
{
    unsigned what = check_random(&state) % 16;
    /* In turns, the rings rather fill and rather drain. */
    what = bias && what >= 10 ? what - 10 : what;
    switch (what)
    {
    case 0:
    case 1:
    case 2:
        host_puts();
        break;
    case 3:
    case 4:
    case 5:
        client_allocates();
        break;
    case 6:
    case 7:
        client_receives();
        break;
    case 8:
    case 9:
        client_sends();
        break;
    case 10:
    case 11:
        client_releases();
        break;
    case 12:
    case 13:
        host_takes();
        break;
    case 14:
        ring_host_rewind(&pair.receive);
        break;
    default:
        ring_host_rewind(&pair.send);
    }
}

int
main(void)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
    {
        state = seed * 0x9E3779B97F4A7C15ull;
        memset(&s, 0, sizeof(s));
        memset(&r, 0, sizeof(r));
        CHECK_EQUAL(ring_pair_open(&pair, CAPACITY), ERROR_SUCCESS);
        unsigned wraps = 0;
        uint32_t before = 0;
        for (unsigned i = 0; i < STEPS; i++)
        {
            step(i / 500 % 3 == 0);
            CHECK(ring_readable(&pair.receive) == (s.middle != s.newest));
            CHECK_EQUAL(ring_room(&pair.send), CAPACITY - 4 - r.used);
            CHECK_EQUAL(ring_host_room(&pair.receive), CAPACITY - 4 - s.used);
            wraps += pair.receive.ring->tail < before && pair.receive.ring->tail != 0; /* not a rewind */
            before = pair.receive.ring->tail;
        }
        CHECK(wraps > 10);
        ring_pair_close(&pair);
    }
    return 0;
}
