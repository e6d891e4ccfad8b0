/* SPDX-License-Identifier: MIT
 *
 * tun_linux under threads: two receivers that hand packets to each other for release, two senders, and the end of the
 * session and of the interface in the midst of it.
 */
/* build: parts=tun_session,tun_device,offloads,common,os,ring */
#include "tun_net.h"

#include <pthread.h>
#include <stdatomic.h>

#define PACKETS 4000u
#define HELD 64u

/* Packets that one thread received and another one releases. */
typedef struct box
{
    BYTE *_Atomic slots[HELD];
} box;

typedef struct shared
{
    WINTUN_SESSION_HANDLE session;
    HANDLE read_event; /* asked for once, as the core does: detach() closes it */
    atomic_uint received, sent, stop;
    atomic_bool seen[PACKETS];
    box held;
} shared;

static void
swap_and_release(shared *all, unsigned place, BYTE *packet)
{
    BYTE *older = atomic_exchange(&all->held.slots[place % HELD], packet);
    if (older)
        WintunReleaseReceivePacket(all->session, older);
}

static void *
receive_all(void *context)
{
    shared *all = context;
    while (!atomic_load(&all->stop))
    {
        DWORD size;
        BYTE *packet = WintunReceivePacket(all->session, &size);
        if (!packet && GetLastError() == ERROR_HANDLE_EOF)
            break;
        if (!packet)
        {
            CHECK(GetLastError() == ERROR_NO_MORE_ITEMS);
            (void)readable(all->read_event, 20);
            continue;
        }
        unsigned number = 0;
        if (size == 28 + 1000)
        {
            memcpy(&number, packet + 28, sizeof(number));
            CHECK(number < PACKETS && !atomic_exchange(&all->seen[number], true));
            atomic_fetch_add(&all->received, 1);
        }
        packet[0] ^= 1;
        swap_and_release(all, number * 7, packet);
    }
    return NULL;
}

static void *
release_all(void *context)
{
    shared *all = context;
    for (unsigned i = 0; !atomic_load(&all->stop); i++)
    {
        swap_and_release(all, i * 5, NULL);
        if (i % 64 == 0)
            usleep(100);
    }
    return NULL;
}

static void *
send_all(void *context)
{
    shared *all = context;
    while (!atomic_load(&all->stop))
    {
        unsigned taken = 0;
        BYTE *slots[8];
        while (taken < 8 && (slots[taken] = WintunAllocateSendPacket(all->session, udp_size(AF_INET, 900))))
            taken++;
        if (taken == 0 && GetLastError() == ERROR_HANDLE_EOF)
            break;
        uint8_t data[900] = {0};
        for (unsigned i = taken; i-- > 0;)
        {
            build_udp(slots[i], AF_INET, data, sizeof(data));
            WintunSendPacket(all->session, slots[i]);
            atomic_fetch_add(&all->sent, 1);
        }
        usleep(100);
    }
    return NULL;
}

typedef enum ending
{
    BY_END,
    BY_DETACH,
    BY_REMOVAL
} ending;

static void
stress(ending how)
{
    static void *(*const jobs[])(void *) = {receive_all, receive_all, release_all, send_all, send_all};
    static shared all;
    memset(&all, 0, sizeof(all));
    WINTUN_ADAPTER_HANDLE adapter = create("tt0");
    configure4("tt0");
    all.session = WintunStartSession(adapter, WINTUN_MIN_RING_CAPACITY);
    CHECK(all.session);
    all.read_event = WintunGetReadWaitEvent(all.session);
    int in = bound_socket(AF_INET), out = udp_socket(AF_INET);
    pthread_t threads[5];
    for (size_t i = 0; i < 5; i++)
        CHECK(pthread_create(&threads[i], NULL, jobs[i], &all) == 0);
    for (unsigned i = 0; i < PACKETS; i++)
    {
        uint8_t data[1000] = {0};
        memcpy(data, &i, sizeof(i));
        kernel_sends(out, AF_INET, data, sizeof(data));
        /* The kernel's queue takes 500. */
        while (atomic_load(&all.received) + 400 <= i)
            usleep(100);
    }
    for (int i = 0; i < 3000 && atomic_load(&all.received) < PACKETS; i++)
        usleep(1000);
    CHECK(atomic_load(&all.received) == PACKETS);
    CHECK(atomic_load(&all.sent) > 0);
    CHECK(recv(in, &(uint8_t){0}, 1, 0) == 1);

    if (how == BY_DETACH)
        CHECK(TunringBackend.detach(all.session) == TRUE);
    if (how == BY_REMOVAL)
        CHECK(run("ip link del tt0") == 0);
    /* Blocked calls end by themselves in both cases. */
    if (how == BY_END)
        atomic_store(&all.stop, 1);
    for (size_t i = 0; i < 5; i++)
    {
        if (i == 2)
            atomic_store(&all.stop, 1);
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    for (unsigned i = 0; i < HELD; i++)
        swap_and_release(&all, i, NULL);
    WintunEndSession(all.session);
    WintunCloseAdapter(adapter);
    close(in);
    close(out);
}

/* Adapters that come and go in several threads at once. */
static void *
come_and_go(void *context)
{
    const char *name = context;
    for (int i = 0; i < 10; i++)
    {
        WINTUN_ADAPTER_HANDLE adapter = create(name);
        WINTUN_ADAPTER_HANDLE other = WintunOpenAdapter(wide(name));
        CHECK(other);
        WINTUN_SESSION_HANDLE session = WintunStartSession(other, WINTUN_MIN_RING_CAPACITY);
        CHECK(session);
        char seen[IFNAMSIZ];
        CHECK(TunringBackend.adapter_name(adapter, seen, sizeof(seen)) == ERROR_SUCCESS && strcmp(seen, name) == 0);
        if (i % 2)
            WintunCloseAdapter(adapter);
        WintunEndSession(session);
        WintunCloseAdapter(other);
        if (i % 2 == 0)
            WintunCloseAdapter(adapter);
        CHECK(if_nametoindex(name) == 0);
    }
    return NULL;
}

int
main(void)
{
    enter_namespace();
    stress(BY_END);
    stress(BY_DETACH);
    stress(BY_REMOVAL);
    WintunSetLogger(NULL);
    static char names[3][4] = {"ta0", "tb0", "tc0"};
    pthread_t threads[3];
    for (size_t i = 0; i < 3; i++)
        CHECK(pthread_create(&threads[i], NULL, come_and_go, names[i]) == 0);
    for (size_t i = 0; i < 3; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(WintunDeleteDriver());
    return 0;
}
