/* SPDX-License-Identifier: MIT
 *
 * The Python benchmarks' yardstick: a plain C program over the same library and the same 14 functions, with packets of
 * the same sizes, in the same rounds.
 *
 *     loop LIBRARY SIZE PACKETS CAPACITY
 *
 * It opens both ends of a loopback cable. For each line on its standard input, a word and a number N, it does a round
 * of PACKETS packets of SIZE bytes and prints how long that took, in nanoseconds:
 *
 *     receive N   takes all from a ring that holds them, N at a time: receive, look at the length, release
 *     send N      N at a time, as tunring's core: allocate and copy, then commit in reverse order
 *     memcpy N    no ring: copies as many bytes, N packets from memory that they all lie in to other memory
 */
#include "clock.h"
#include "wintun.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH 256 /* different packets to send */
#define MAX_PACKETS 1024

static struct
{
#define FIELD(name, type) type *name;
    WINTUN_FUNCTIONS(FIELD)
#undef FIELD
} api;

static WINTUN_SESSION_HANDLE left, right;
static BYTE *target;  /* of the bare memcpy */
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
start(WCHAR letter, DWORD capacity)
{
    static const GUID cable = {1, 2, 3, {4}};
    const WCHAR name[] = {'l', 'o', 'o', 'p', letter, 0};
    WINTUN_ADAPTER_HANDLE adapter = api.WintunCreateAdapter(name, name, &cable);
    WINTUN_SESSION_HANDLE session = adapter ? api.WintunStartSession(adapter, capacity) : NULL;
    if (!session)
        fail("can't start a session");
    return session;
}

static void
receive(unsigned packets, unsigned max)
{
    BYTE *batch[MAX_PACKETS];
    for (unsigned done = 0; done < packets;)
    {
        unsigned count = 0;
        for (; count < max && done + count < packets; count++)
        {
            DWORD size;
            batch[count] = api.WintunReceivePacket(right, &size);
            if (!batch[count])
                fail("a packet is missing");
            seen += size;
        }
        for (unsigned i = 0; i < count; i++)
            api.WintunReleaseReceivePacket(right, batch[i]);
        done += count;
    }
}

static void
send(unsigned packets, DWORD size, unsigned chunk)
{
    BYTE *slots[MAX_PACKETS];
    for (unsigned done = 0; done < packets;)
    {
        unsigned count = 0;
        for (; count < chunk && done + count < packets; count++)
        {
            slots[count] = api.WintunAllocateSendPacket(left, size);
            if (!slots[count])
                fail("the ring is full");
            memcpy(slots[count], source + (size_t)size * ((done + count) % BATCH), size);
        }
        done += count;
        while (count > 0)
            api.WintunSendPacket(left, slots[--count]);
    }
}

static void
copy(unsigned packets, DWORD size)
{
    for (unsigned i = 0; i < packets; i++)
        memcpy(target + (size_t)size * i, source + (size_t)size * (i % BATCH), size);
}

/* Nanoseconds of one round. */
static int64_t
take_round(const char *word, unsigned packets, DWORD size, unsigned max)
{
    const bool sends = strcmp(word, "send") == 0;
    const int64_t began = now();
    if (strcmp(word, "memcpy") == 0)
    {
        copy(packets, size);
        return now() - began;
    }
    send(packets, size, sends ? max : 64);
    const int64_t sent = now();
    receive(packets, sends ? 256 : max);
    return sends ? sent - began : now() - sent;
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
    if (count != 5)
        return 2;
    have_had_threads();
    load(arguments[1]);
    const DWORD size = (DWORD)atoi(arguments[2]);
    const unsigned packets = (unsigned)atoi(arguments[3]);
    left = start('a', (DWORD)atoi(arguments[4]));
    right = start('b', (DWORD)atoi(arguments[4]));
    source = calloc(BATCH, size);
    target = calloc(packets, size);
    if (!source || !target)
        fail("out of memory");
    for (unsigned i = 0; i < BATCH; i++)
        source[(size_t)size * i] = 0x45;
    char word[16];
    unsigned max;
    while (scanf("%15s %u", word, &max) == 2 && max >= 1 && max <= MAX_PACKETS)
    {
        printf("%lld\n", (long long)take_round(word, packets, size, max));
        fflush(stdout);
    }
    fprintf(stderr, "loop: %llu bytes received\n", (unsigned long long)seen);
    free(target);
    free(source);
    return 0;
}
