/* SPDX-License-Identifier: MIT
 *
 * What the Python benchmarks are compared with: a plain C program over the same library and the same 14 functions, with
 * packets of the same sizes, in the same rounds.
 *
 *     loop LIBRARY SIZE PACKETS
 *
 * It opens both ends of a loopback cable. For each word on its standard input it does a round of PACKETS packets of SIZE
 * bytes and prints how long that took, in nanoseconds:
 *
 *     receive   takes all from a ring that holds them, batch by batch: receive, look at the length, release
 *     send      chunk by chunk, as tunring's core: allocate and copy, then commit in reverse order
 *     each      packet by packet: allocate, copy, commit
 */
#include "wintun.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BATCH 256
#define CHUNK 64
#define CAPACITY 0x400000

static struct
{
#define FIELD(name, type) type *name;
    WINTUN_FUNCTIONS(FIELD)
#undef FIELD
} api;

static BYTE *source;  /* a batch of packets to send, back to back: one alone would stay in the nearest cache */
static uint64_t seen; /* bytes; printed, so that the lengths are really looked at */

static void
fail(const char *what)
{
    fprintf(stderr, "loop: %s\n", what);
    exit(1);
}

static void
load(const char *path)
{
    void *module = dlopen(path, RTLD_NOW);
    if (!module)
        fail(dlerror());
#define LOAD(name, type)                        \
    *(void **)&api.name = dlsym(module, #name); \
    if (!api.name)                              \
        fail(#name " is missing");
    WINTUN_FUNCTIONS(LOAD)
#undef LOAD
}

static WINTUN_SESSION_HANDLE
start(WCHAR letter)
{
    static const GUID cable = {1, 2, 3, {4}};
    const WCHAR name[] = {'l', 'o', 'o', 'p', letter, 0};
    WINTUN_ADAPTER_HANDLE adapter = api.WintunCreateAdapter(name, name, &cable);
    WINTUN_SESSION_HANDLE session = adapter ? api.WintunStartSession(adapter, CAPACITY) : NULL;
    if (!session)
        fail("can't start a session");
    return session;
}

static int64_t
now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

static void
receive(WINTUN_SESSION_HANDLE session, unsigned packets)
{
    BYTE *batch[BATCH];
    for (unsigned done = 0; done < packets;)
    {
        unsigned count = 0;
        for (; count < BATCH && done + count < packets; count++)
        {
            DWORD size;
            batch[count] = api.WintunReceivePacket(session, &size);
            if (!batch[count])
                fail("a packet is missing");
            seen += size;
        }
        for (unsigned i = 0; i < count; i++)
            api.WintunReleaseReceivePacket(session, batch[i]);
        done += count;
    }
}

static void
send(WINTUN_SESSION_HANDLE session, unsigned packets, DWORD size, unsigned chunk)
{
    BYTE *slots[CHUNK];
    for (unsigned done = 0; done < packets;)
    {
        unsigned count = 0;
        for (; count < chunk && done + count < packets; count++)
        {
            slots[count] = api.WintunAllocateSendPacket(session, size);
            if (!slots[count])
                fail("the ring is full");
            memcpy(slots[count], source + (size_t)size * ((done + count) % BATCH), size);
        }
        done += count;
        while (count > 0)
            api.WintunSendPacket(session, slots[--count]);
    }
}

static void *
nothing(void *argument)
{
    return argument;
}

/* A process that never had a second thread is spared the atomic operations in locks. A Python program that uses
 * sessions has had one. */
static void
have_had_threads(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, nothing, NULL) || pthread_join(thread, NULL))
        fail("can't start a thread");
}

int
main(int count, char **arguments)
{
    char word[16];
    if (count != 4)
        return 2;
    have_had_threads();
    load(arguments[1]);
    const DWORD size = (DWORD)atoi(arguments[2]);
    const unsigned packets = (unsigned)atoi(arguments[3]);
    WINTUN_SESSION_HANDLE left = start('a');
    WINTUN_SESSION_HANDLE right = start('b');
    source = calloc(BATCH, size);
    if (!source)
        fail("out of memory");
    for (unsigned i = 0; i < BATCH; i++)
        source[(size_t)size * i] = 0x45;
    while (scanf("%15s", word) == 1)
    {
        const unsigned chunk = strcmp(word, "each") == 0 ? 1 : CHUNK;
        const int64_t began = now();
        send(left, packets, size, chunk);
        const int64_t sent = now();
        receive(right, packets);
        const int64_t ended = now();
        printf("%lld\n", (long long)(strcmp(word, "receive") == 0 ? ended - sent : sent - began));
        fflush(stdout);
    }
    fprintf(stderr, "loop: %llu bytes received\n", (unsigned long long)seen);
    return 0;
}
