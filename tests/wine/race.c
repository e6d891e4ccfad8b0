/* SPDX-License-Identifier: MIT
 *
 * The race for the lost wake-up: packets that are sent through the official DLL just as its driver, the stand-in, falls
 * asleep.
 *
 *     race STANDIN WINTUN SENDS GUARD
 *
 * Each packet is sent alone, when the one before it has been taken, at a random moment around the end of the driver's
 * spin. GUARD is 1 or 0. Prints how many took more than 10 ms until the driver had them, and the longest, in
 * microseconds.
 *
 * On a busy machine a processor may stand still for longer than that, and with it the driver or the guard. So a thread
 * on each processor notes by how much a sleep of a millisecond was too long; the time that a packet lay is also
 * reported without.
 */
#include "platform/os.h"
#include "standin/standin.h"
#include "tunring.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#define MICROSECOND 1000
#define STRANDED (10000 * (int64_t)MICROSECOND)
/* Without the guard a stranded packet lies until the next one is sent. */
#define GIVE_UP (50000 * (int64_t)MICROSECOND)
/* The driver spins for 100 microseconds. */
#define EARLIEST (85 * MICROSECOND)
#define LATEST (125 * MICROSECOND)

#define MOST_PROCESSORS 64

/* The beats of one processor. */
typedef struct pulse
{
    unsigned processor;
    _Atomic int64_t last; /* beat */
    _Atomic int64_t gap;  /* the longest between two, since somebody set it to 0 */
} pulse;

static pulse pulses[MOST_PROCESSORS];
static unsigned processors;

static BOOL (*install)(void);
static DWORD (*counters)(WINTUN_ADAPTER_HANDLE, standin_counters *);

static void
fail(const char *what, DWORD code)
{
    fprintf(stderr, "race: %s: %lu\n", what, (unsigned long)code);
    exit(1);
}

static FARPROC
symbol(HMODULE module, const char *name)
{
    FARPROC found = GetProcAddress(module, name);
    if (!found)
        fail(name, GetLastError());
    return found;
}

static void
load_standin(const wchar_t *path)
{
    HMODULE module = LoadLibraryW(path);
    if (!module)
        fail("the stand-in can't be loaded", GetLastError());
    FARPROC found = symbol(module, "StandinInstall");
    memcpy(&install, &found, sizeof(install));
    found = symbol(module, "StandinCounters");
    memcpy(&counters, &found, sizeof(counters));
    if (!install())
        fail("the stand-in can't be installed", 0);
}

static void
beat(void *argument)
{
    pulse *self = argument;
    SetThreadAffinityMask(GetCurrentThread(), (DWORD_PTR)1 << self->processor);
    for (;;)
    {
        Sleep(1);
        const int64_t now = os_now();
        const int64_t gap = now - atomic_exchange(&self->last, now);
        if (gap > atomic_load(&self->gap))
            atomic_store(&self->gap, gap);
    }
}

static void
start_pulses(void)
{
    processors = os_cpu_count() < MOST_PROCESSORS ? os_cpu_count() : MOST_PROCESSORS;
    for (unsigned i = 0; i < processors; i++)
    {
        pulses[i].processor = i;
        atomic_store(&pulses[i].last, os_now());
        if (!os_thread_detached(beat, &pulses[i]))
            fail("can't start a thread", GetLastError());
    }
}

static void
forget_standstills(void)
{
    for (unsigned i = 0; i < processors; i++)
        atomic_store(&pulses[i].gap, 0);
}

/* Nanoseconds that a processor stood still, at most, since they were forgotten. */
static int64_t
longest_standstill(void)
{
    int64_t longest = 0;
    for (unsigned i = 0; i < processors; i++)
    {
        const int64_t gap = atomic_load(&pulses[i].gap);
        const int64_t now = os_now() - atomic_load(&pulses[i].last);
        longest = gap > longest ? gap : longest;
        longest = now > longest ? now : longest;
    }
    return longest;
}

static uint32_t
random_number(void)
{
    static uint32_t state = 2463534242u;
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

static uint64_t
taken(WINTUN_ADAPTER_HANDLE adapter)
{
    standin_counters now;
    DWORD code = counters(adapter, &now);
    if (code)
        fail("no counters", code);
    return now.taken;
}

static void
spin_until(int64_t moment)
{
    while (os_now() < moment)
        os_relax();
}

/* Nanoseconds until the driver had the packet. */
static int64_t
send_one(tunring_session *session, WINTUN_ADAPTER_HANDLE adapter, uint64_t number)
{
    static const BYTE bytes[20] = {0x45};
    const tunring_packet packet = {bytes, sizeof(bytes)};
    int64_t began = os_now();
    uint32_t sent;
    DWORD code = tunring_send(session, &packet, 1, NULL, &sent);
    if (code)
        fail("can't send", code);
    while (taken(adapter) < number && os_now() - began < GIVE_UP)
        spin_until(os_now() + 5 * MICROSECOND);
    return os_now() - began;
}

/* Packets that lay too long, and the longest that one did, in nanoseconds. */
typedef struct tally
{
    uint64_t stranded;
    int64_t longest;
} tally;

static void
note(tally *all, int64_t lay)
{
    all->stranded += lay > STRANDED;
    all->longest = lay > all->longest ? lay : all->longest;
}

int
wmain(int count, wchar_t **arguments)
{
    char detail[256] = "";
    if (count != 5)
        return 2;
    const uint64_t sends = (uint64_t)_wtoi64(arguments[3]);
    const bool guarded = wcscmp(arguments[4], L"1") == 0;
    load_standin(arguments[1]);
    static tunring_api api;
    DWORD code = tunring_api_load(&api, arguments[2], detail, sizeof(detail));
    if (code)
        fail(detail, code);
    tunring_wake_guard_enable(guarded);
    tunring_adapter *adapter;
    code = tunring_adapter_create(&api, L"race", L"Tunring", NULL, NULL, &adapter);
    if (code)
        fail("no adapter", code);
    tunring_session *session;
    code = tunring_session_start(adapter, 0x20000, NULL, &session);
    if (code)
        fail("no session", code);
    WINTUN_ADAPTER_HANDLE handle;
    code = tunring_adapter_lend(adapter, &handle);
    if (code)
        fail("no handle", code);
    start_pulses();
    tally all = {0}, calm = {0};
    for (uint64_t i = 1; i <= sends; i++)
    {
        forget_standstills();
        const int64_t lay = send_one(session, handle, i);
        note(&all, lay);
        note(&calm, lay > STRANDED ? lay - longest_standstill() : lay);
        spin_until(os_now() + EARLIEST + random_number() % (LATEST - EARLIEST));
    }
    printf("%llu sends %s: %llu lay longer than 10 ms, the longest %lld us; without what a processor stood still, %llu "
           "did, the longest %lld us\n",
           (unsigned long long)sends, guarded ? "with the guard" : "without it", (unsigned long long)all.stranded,
           (long long)(all.longest / MICROSECOND), (unsigned long long)calm.stranded,
           (long long)(calm.longest / MICROSECOND));
    tunring_adapter_give_back(adapter);
    tunring_source_close(tunring_session_source(session));
    tunring_source_drop(tunring_session_source(session));
    tunring_adapter_close(adapter);
    return guarded && calm.stranded ? 1 : 0;
}
