/* SPDX-License-Identifier: MIT
 *
 * A random walk over both ends of a cable. After every call, either end's read event must be readable if and only if a
 * receive would not say "empty", nothing may be lost or reordered, and a full ring must be a real one.
 */
/* build: parts=os,loopback,common,ring */
#include "check.h"
#include "backends/common/exports.h"

#include <poll.h>
#include <stdbool.h>
#include <string.h>

#define CAPACITY WINTUN_MIN_RING_CAPACITY
#define SEEDS 6
#define STEPS 20000
#define MAX_HELD 16384

static const WCHAR names[2][2] = {{'A', 0}, {'B', 0}};
static const WCHAR type[] = {'T', 0};
static const GUID guid = {1, 2, 3, {4}};

/* One end. Packets that it sends have consecutive numbers, and so have those that it receives. */
typedef struct end
{
    WINTUN_ADAPTER_HANDLE adapter;
    WINTUN_SESSION_HANDLE session;
    uint32_t sent;     /* published, IP */
    uint32_t received; /* taken, by the other end's numbers */
    uint32_t filtered;
    const BYTE *held[MAX_HELD];
    unsigned held_count;
} end;

static end ends[2];
static uint64_t state;

static bool
event_ready(const end *self)
{
    struct pollfd event = {.fd = (int)(intptr_t)WintunGetReadWaitEvent(self->session), .events = POLLIN};
    return poll(&event, 1, 0) == 1;
}

static DWORD
random_size(void)
{
    uint32_t choice = check_random(&state) % 20;
    return choice == 0 ? 0xFFFF : choice < 4 ? 20 + check_random(&state) % 20000 : 20 + check_random(&state) % 1480;
}

static bool
fill(BYTE *packet, DWORD size, uint32_t number)
{
    memset(packet, (int)number, size);
    if (check_random(&state) % 16 == 0)
    {
        packet[0] = 0; /* filler */
        return false;
    }
    packet[0] = 0x45;
    memcpy(packet + 4, &number, 4);
    memcpy(packet + 8, &size, 4);
    return true;
}

static void
allocate_and_send(end *self)
{
    DWORD size = random_size();
    BYTE *packet = WintunAllocateSendPacket(self->session, size);
    if (!packet)
    {
        CHECK_EQUAL(GetLastError(), ERROR_BUFFER_OVERFLOW);
        CHECK(TunringBackend.send_room(self->session) < size + 4);
        return;
    }
    if (fill(packet, size, self->sent))
        self->sent++;
    else
        self->filtered++;
    WintunSendPacket(self->session, packet);
}

/* A batch, which is sent from its end. */
static void
send_batch(end *self)
{
    unsigned count = 1 + check_random(&state) % 64;
    unsigned filled = 0;
    BYTE *packets[64];
    for (; filled < count; filled++)
    {
        DWORD size = random_size() % 2000 + 20;
        packets[filled] = WintunAllocateSendPacket(self->session, size);
        if (!packets[filled])
            break;
        if (fill(packets[filled], size, self->sent))
            self->sent++;
        else
            self->filtered++;
    }
    while (filled-- > 0)
        WintunSendPacket(self->session, packets[filled]);
}

static void
receive_one(end *self, const end *other)
{
    bool ready = event_ready(self);
    if (self->held_count == MAX_HELD)
        return;
    DWORD size;
    BYTE *packet = WintunReceivePacket(self->session, &size);
    CHECK(ready == (packet != NULL));
    if (!packet)
    {
        CHECK_EQUAL(GetLastError(), ERROR_NO_MORE_ITEMS);
        /* Unless what is held blocks the rings, nothing is on its way. */
        CHECK(self->held_count > 0 || self->received == other->sent);
        return;
    }
    uint32_t number;
    memcpy(&number, packet + 4, 4);
    DWORD stated;
    memcpy(&stated, packet + 8, 4);
    CHECK(packet[0] == 0x45);
    CHECK_EQUAL(number, self->received);
    CHECK_EQUAL(stated, size);
    CHECK(packet[size - 1] == (BYTE)number);
    self->received++;
    self->held[self->held_count++] = packet;
}

static void
release_one(end *self)
{
    if (self->held_count == 0)
        return;
    unsigned index = check_random(&state) % 2 ? 0 : check_random(&state) % self->held_count;
    WintunReleaseReceivePacket(self->session, self->held[index]);
    self->held_count--;
    memmove(&self->held[index], &self->held[index + 1], (self->held_count - index) * sizeof(*self->held));
}

static void
step(bool fills)
{
    unsigned which = check_random(&state) % 2;
    end *self = &ends[which];
    end *other = &ends[!which];
    unsigned many = check_random(&state) % 40;
    switch (check_random(&state) % (fills ? 6 : 12))
    {
    case 0:
    case 1:
        allocate_and_send(self);
        break;
    case 2:
        send_batch(self);
        break;
    case 3:
    case 4:
        receive_one(self, other);
        break;
    case 5:
    case 6:
        release_one(self);
        break;
    case 7:
    case 8:
        for (unsigned i = 0; i < many; i++)
            receive_one(self, other);
        break;
    default:
        for (unsigned i = 0; i < many; i++)
            release_one(self);
    }
}

/* The model's state of an end's event: readable if the other end's packets are not all taken, unless slots that are
 * held keep the rest from coming. Only receive_one can tell that apart; here, not readable must mean held or done. */
static void
check_event(const end *self, const end *other)
{
    if (!event_ready(self))
        CHECK(self->held_count > 0 || self->received == other->sent);
    else
        CHECK(self->received != other->sent);
}

static void
start(unsigned which)
{
    memset(&ends[which], 0, sizeof(end));
    CHECK((ends[which].adapter = WintunCreateAdapter(names[which], type, &guid)));
    CHECK((ends[which].session = WintunStartSession(ends[which].adapter, CAPACITY)));
}

static void
finish(end *self, const end *other)
{
    while (self->held_count > 0)
        release_one(self);
    while (self->received != other->sent)
    {
        receive_one(self, other);
        release_one(self);
    }
    CHECK(!event_ready(self));
    tunring_counters counted;
    TunringBackend.counters(self->session, &counted);
    CHECK_EQUAL(counted.host_dropped, 0);
    CHECK(counted.host_filtered <= self->filtered);
}

int
main(void)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
    {
        state = seed * 0x9E3779B97F4A7C15ull;
        start(0);
        start(1);
        for (unsigned i = 0; i < STEPS; i++)
        {
            step(i / 1000 % 2 == 0);
            check_event(&ends[0], &ends[1]);
            check_event(&ends[1], &ends[0]);
        }
        finish(&ends[0], &ends[1]);
        finish(&ends[1], &ends[0]);
        CHECK(ends[0].sent > 1000 && ends[1].sent > 1000);
        for (unsigned i = 0; i < 2; i++)
        {
            WintunEndSession(ends[i].session);
            WintunCloseAdapter(ends[i].adapter);
        }
    }
    return 0;
}
