/* SPDX-License-Identifier: MIT
 *
 * The places where one thread says "I am about to sleep" and another "there is work", in as many narrow races as the
 * time allows: no work may be left undone when both have finished.
 */
/* build: parts=os,loopback,common,ring */
#include "check.h"
#include "backends/common/exports.h"
#include "backends/ring/ring.h"

#include <poll.h>
#include <pthread.h>
#include <string.h>

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define ROUNDS 20000u
#else
#define ROUNDS 200000u
#endif

/* Runs left() and right() at the same time, again and again, with check() after each time. */
typedef struct race
{
    void (*left)(void);
    void (*right)(void);
    void (*check)(void);
    unsigned rounds;
} race;

static const race *racing;
static _Atomic unsigned started;
static _Atomic unsigned finished;

static void
spin_until(_Atomic unsigned *counter, unsigned value)
{
    for (unsigned spins = 0; atomic_load(counter) != value; spins++)
        if (spins > 2000)
            os_yield();
}

static void
hesitate(uint64_t *state)
{
    for (volatile unsigned i = check_random(state) % 128; i > 0; i--)
    {
    }
}

static void *
run_right(void *argument)
{
    (void)argument;
    uint64_t state = 3;
    for (unsigned round = 1; round <= racing->rounds; round++)
    {
        spin_until(&started, round);
        hesitate(&state);
        racing->right();
        atomic_store(&finished, round);
    }
    return NULL;
}

static void
run(const race *self)
{
    racing = self;
    atomic_store(&started, 0);
    atomic_store(&finished, 0);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, run_right, NULL) == 0);
    uint64_t state = 5;
    for (unsigned round = 1; round <= racing->rounds; round++)
    {
        atomic_store(&started, round);
        hesitate(&state);
        self->left();
        spin_until(&finished, round);
        self->check();
    }
    CHECK(pthread_join(thread, NULL) == 0);
}

/* ---- A host goes to sleep while the client publishes ---- */

static ring_pair pair;
static bool woken, sleeping;

static void
client_sends(void)
{
    ring_mark_ready(ring_allocate(&pair.send, 20));
    woken = ring_publish(&pair.send) == RING_WAKE;
}

static void
host_sleeps(void)
{
    atomic_exchange(&pair.send.ring->alertable, 1);
    const BYTE *packet;
    uint32_t size;
    sleeping = ring_host_peek(&pair.send, &packet, &size) == ERROR_NO_MORE_ITEMS;
}

static void
check_woken(void)
{
    CHECK(woken || !sleeping);
    const BYTE *packet;
    uint32_t size;
    CHECK_EQUAL(ring_host_peek(&pair.send, &packet, &size), ERROR_SUCCESS);
    ring_host_take(&pair.send, size);
    atomic_exchange(&pair.send.ring->alertable, 0);
}

/* ---- Two threads ask for work under one lock ---- */

static ring_lock lock;
static _Atomic unsigned asked;
static unsigned done;

static void
work(void *context)
{
    (void)context;
    done = atomic_load(&asked);
}

static void
ask(void)
{
    atomic_fetch_add(&asked, 1);
    ring_lock_combine(&lock, work, NULL);
}

static void
check_done(void)
{
    CHECK_EQUAL(done, atomic_load(&asked));
    CHECK_EQUAL(atomic_load(&lock.pending), 0);
}

/* ---- The cable's far end makes room while its near end finds none ---- */

/* Two of these don't fit a ring. */
#define LARGE WINTUN_MAX_IP_PACKET_SIZE

static const WCHAR names[2][2] = {{'A', 0}, {'B', 0}};
static const WCHAR type[] = {'T', 0};
static const GUID guid = {1, 2, 3, {4}};
static WINTUN_SESSION_HANDLE near_session, far_session;
static BYTE *to_send;
static const BYTE *held;

static BYTE *
allocate(DWORD size)
{
    BYTE *packet = WintunAllocateSendPacket(near_session, size);
    CHECK(packet);
    memset(packet, 0x45, 20);
    return packet;
}

static const BYTE *
receive(void)
{
    DWORD size;
    const BYTE *packet = WintunReceivePacket(far_session, &size);
    CHECK(packet);
    return packet;
}

static void
send_without_room(void)
{
    WintunSendPacket(near_session, to_send);
}

static void
make_room(void)
{
    WintunReleaseReceivePacket(far_session, held);
}

/* The packet must have come by itself: a receive would make good what was left undone. */
static void
check_moved(void)
{
    struct pollfd event = {.fd = (int)(intptr_t)WintunGetReadWaitEvent(far_session), .events = POLLIN};
    CHECK_EQUAL(poll(&event, 1, 0), 1);
    held = receive();
    to_send = allocate(LARGE);
}

static void
race_on_cable(void)
{
    static const race far_end = {send_without_room, make_room, check_moved, ROUNDS / 4};
    WINTUN_ADAPTER_HANDLE adapters[2];
    for (unsigned i = 0; i < 2; i++)
        CHECK((adapters[i] = WintunCreateAdapter(names[i], type, &guid)));
    CHECK((near_session = WintunStartSession(adapters[0], WINTUN_MIN_RING_CAPACITY)));
    CHECK((far_session = WintunStartSession(adapters[1], WINTUN_MIN_RING_CAPACITY)));
    WintunSendPacket(near_session, allocate(LARGE));
    held = receive();
    to_send = allocate(LARGE);
    run(&far_end);
    WintunEndSession(near_session);
    WintunEndSession(far_session);
    WintunCloseAdapter(adapters[0]);
    WintunCloseAdapter(adapters[1]);
}

int
main(void)
{
    static const race publication = {client_sends, host_sleeps, check_woken, ROUNDS};
    static const race combination = {ask, ask, check_done, ROUNDS};
    CHECK_EQUAL(ring_pair_open(&pair, WINTUN_MIN_RING_CAPACITY), ERROR_SUCCESS);
    run(&publication);
    ring_pair_close(&pair);
    ring_lock_init(&lock);
    run(&combination);
    ring_lock_destroy(&lock);
    race_on_cable();
    return 0;
}
