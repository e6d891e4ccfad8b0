/* SPDX-License-Identifier: MIT
 *
 * Two senders at either end of a cable, two receivers at one and one at the other, and threads that release what others
 * received. Every packet arrives once and whole, each sender's in order, and a waiter is always woken.
 */
/* build: parts=os,loopback,common,ring */
#include "check.h"
#include "backends/common/exports.h"
#include "platform/os.h"

#include <poll.h>
#include <pthread.h>
#include <string.h>

#define CAPACITY WINTUN_MIN_RING_CAPACITY
#define SENDERS 2u
#define QUEUE 256u

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define PACKETS 30000u
#else
#define PACKETS 150000u
#endif

static const WCHAR names[2][2] = {{'A', 0}, {'B', 0}};
static const WCHAR type[] = {'T', 0};
static const GUID guid = {1, 2, 3, {4}};

/* A packet's description of itself, after the byte that makes it IPv4. */
typedef struct header
{
    BYTE version[4];
    uint32_t sender;
    uint32_t number;
    uint32_t sum;
} header;

typedef struct end
{
    WINTUN_ADAPTER_HANDLE adapter;
    WINTUN_SESSION_HANDLE session;
    _Atomic uint32_t received;
    os_event complete; /* everything was received */
    unsigned receivers;
    uint32_t next[SENDERS]; /* with one receiver, which sees the order */
    uint8_t seen[SENDERS][PACKETS];
    const BYTE *_Atomic queue[QUEUE]; /* received packets that the releasing thread takes */
    _Atomic unsigned queue_in;
} end;

static end ends[2];

typedef struct job
{
    end *end;
    uint32_t number;
} job;

static uint32_t
checksum(const BYTE *packet, DWORD size)
{
    uint32_t sum = size;
    for (DWORD i = sizeof(header); i < size; i++)
        sum = sum * 31 + packet[i];
    return sum;
}

static void
fill(BYTE *packet, DWORD size, uint32_t sender, uint32_t number)
{
    header head = {{0x45}, sender, number, 0};
    for (DWORD i = sizeof(head); i < size; i++)
        packet[i] = (BYTE)(number * 7 + i);
    head.sum = checksum(packet, size);
    memcpy(packet, &head, sizeof(head));
}

/* Sends chunks as the core does, from the end; every now and then a single packet. */
static void *
sender(void *argument)
{
    job *self = argument;
    uint64_t state = 77 + self->number;
    uint32_t number = 0;
    while (number < PACKETS)
    {
        unsigned max = 1 + check_random(&state) % 32;
        unsigned count = 0;
        BYTE *slots[32];
        while (count < max && number < PACKETS)
        {
            DWORD size = sizeof(header) + 20 + check_random(&state) % 500;
            slots[count] = WintunAllocateSendPacket(self->end->session, size);
            if (!slots[count])
            {
                CHECK_EQUAL(GetLastError(), ERROR_BUFFER_OVERFLOW);
                break;
            }
            fill(slots[count++], size, self->number, number++);
        }
        if (count == 0)
            os_yield();
        while (count > 0)
            WintunSendPacket(self->end->session, slots[--count]);
    }
    return NULL;
}

static void
check_packet(end *self, const BYTE *packet, DWORD size)
{
    header head;
    memcpy(&head, packet, sizeof(head));
    CHECK(head.sender < SENDERS && head.number < PACKETS);
    CHECK_EQUAL(head.sum, checksum(packet, size));
    /* Each cell is written by the one thread that got the packet, unless it comes twice. */
    CHECK(self->seen[head.sender][head.number] == 0);
    self->seen[head.sender][head.number] = 1;
    if (self->receivers == 1)
        CHECK_EQUAL(head.number, self->next[head.sender]++);
}

/* Hands the packet to the releasing thread, or releases it when that is behind. */
static void
give_back(end *self, const BYTE *packet)
{
    const BYTE *empty = NULL;
    unsigned at = atomic_fetch_add(&self->queue_in, 1) % QUEUE;
    if (!atomic_compare_exchange_strong(&self->queue[at], &empty, packet))
        WintunReleaseReceivePacket(self->session, packet);
}

static void *
receiver(void *argument)
{
    end *self = ((job *)argument)->end;
    struct pollfd events[] = {{.fd = (int)(intptr_t)WintunGetReadWaitEvent(self->session), .events = POLLIN},
                              {.fd = (int)(intptr_t)self->complete.wait, .events = POLLIN}};

    while (atomic_load(&self->received) < SENDERS * PACKETS)
    {
        DWORD size;
        BYTE *packet = WintunReceivePacket(self->session, &size);
        if (!packet)
        {
            CHECK_EQUAL(GetLastError(), ERROR_NO_MORE_ITEMS);
            /* A wake-up that is lost is never made good: then this takes its time. */
            CHECK(poll(events, 2, 30000) > 0);
            continue;
        }
        check_packet(self, packet, size);
        give_back(self, packet);
        if (atomic_fetch_add(&self->received, 1) + 1 == SENDERS * PACKETS)
            os_event_set(&self->complete);
    }
    return NULL;
}

static _Atomic bool over;

static void *
releaser(void *argument)
{
    end *self = ((job *)argument)->end;
    bool last;
    do
    {
        last = atomic_load(&over);
        for (unsigned i = 0; i < QUEUE; i++)
        {
            const BYTE *packet = atomic_exchange(&self->queue[i], NULL);
            if (packet)
                WintunReleaseReceivePacket(self->session, packet);
        }
        os_yield();
    } while (!last);
    return NULL;
}

int
main(void)
{
    for (unsigned i = 0; i < 2; i++)
    {
        CHECK((ends[i].adapter = WintunCreateAdapter(names[i], type, &guid)));
        CHECK((ends[i].session = WintunStartSession(ends[i].adapter, CAPACITY)));
        CHECK(os_event_open(&ends[i].complete));
    }
    unsigned count = 0;
    pthread_t threads[2 * SENDERS + 3];
    pthread_t releasers[2];
    job jobs[2][SENDERS];
    for (unsigned i = 0; i < 2; i++)
    {
        for (unsigned k = 0; k < SENDERS; k++)
        {
            jobs[i][k] = (job){&ends[i], k};
            CHECK(pthread_create(&threads[count++], NULL, sender, &jobs[i][k]) == 0);
        }
        ends[i].receivers = 1 + i;
        for (unsigned k = 0; k < ends[i].receivers; k++)
            CHECK(pthread_create(&threads[count++], NULL, receiver, &jobs[i][k]) == 0);
        CHECK(pthread_create(&releasers[i], NULL, releaser, &jobs[i][0]) == 0);
    }
    while (count > 0)
        CHECK(pthread_join(threads[--count], NULL) == 0);
    atomic_store(&over, true);
    for (unsigned i = 0; i < 2; i++)
    {
        CHECK(pthread_join(releasers[i], NULL) == 0);
        CHECK_EQUAL(ends[i].received, SENDERS * PACKETS);
        DWORD size;
        CHECK(!WintunReceivePacket(ends[i].session, &size));
        tunring_counters counted;
        TunringBackend.counters(ends[i].session, &counted);
        CHECK_EQUAL(counted.host_dropped + counted.host_filtered, 0);
        CHECK_EQUAL(TunringBackend.send_room(ends[i].session), CAPACITY - 4);
    }
    for (unsigned i = 0; i < 2; i++)
    {
        os_event_close(&ends[i].complete);
        WintunEndSession(ends[i].session);
        WintunCloseAdapter(ends[i].adapter);
    }
    return 0;
}
