/* SPDX-License-Identifier: MIT
 *
 * Plain C over the functions of a Wintun DLL, as a DLL that a Python program calls: what batches over the official one
 * are measured beside. Each round returns the nanoseconds it took, 0 when something failed.
 */
#include "wintun.h"

#include <stdint.h>
#include <string.h>

#define EXPORT __declspec(dllexport)
#define MAX_PACKETS 1024

typedef struct functions
{
#define FIELD(name, type) type *name;
    WINTUN_FUNCTIONS(FIELD)
#undef FIELD
} functions;

static functions api;

static double
now(void)
{
    LARGE_INTEGER frequency;
    QueryPerformanceFrequency(&frequency);
    LARGE_INTEGER count;
    QueryPerformanceCounter(&count);
    return (double)count.QuadPart * 1e9 / (double)frequency.QuadPart;
}

/* The functions of the DLL that is loaded already. */
EXPORT BOOL
loop_init(HMODULE module)
{
    FARPROC found;
#define FIND(name, type)                   \
    found = GetProcAddress(module, #name); \
    if (!found)                            \
        return FALSE;                      \
    memcpy(&api.name, &found, sizeof(api.name));
    WINTUN_FUNCTIONS(FIND)
#undef FIND
    return TRUE;
}

EXPORT WINTUN_SESSION_HANDLE
loop_start(WINTUN_ADAPTER_HANDLE adapter, DWORD capacity)
{
    return api.WintunStartSession(adapter, capacity);
}

EXPORT void
loop_end(WINTUN_SESSION_HANDLE session)
{
    api.WintunEndSession(session);
}

/* Takes them batch by batch, and lets each batch go. */
EXPORT double
loop_receive(WINTUN_SESSION_HANDLE session, DWORD packets, DWORD batch)
{
    volatile uint64_t seen = 0;
    const double began = now();
    BYTE *taken[MAX_PACKETS];
    for (DWORD left = packets; left > 0;)
    {
        DWORD count = 0, size;
        while (count < batch && count < left)
        {
            taken[count] = api.WintunReceivePacket(session, &size);
            if (!taken[count++])
                return 0;
            seen += size;
        }
        for (DWORD i = 0; i < count; i++)
            api.WintunReleaseReceivePacket(session, taken[i]);
        left -= count;
    }
    return now() - began;
}

/* Allocates and fills `chunk` packets, then commits them from the last to the first. A full ring is tried again.
 * `source` has `different` packets back to back. */
EXPORT double
loop_send(WINTUN_SESSION_HANDLE session, const BYTE *source, DWORD different, DWORD size, DWORD packets, DWORD chunk)
{
    const double began = now();
    BYTE *slots[MAX_PACKETS];
    for (DWORD done = 0; done < packets;)
    {
        DWORD count = 0;
        for (; count < chunk && done + count < packets; count++)
        {
            slots[count] = api.WintunAllocateSendPacket(session, size);
            if (!slots[count] && GetLastError() != ERROR_BUFFER_OVERFLOW)
                return 0;
            if (!slots[count])
                break;
            memcpy(slots[count], source + (size_t)size * ((done + count) % different), size);
        }
        done += count;
        while (count > 0)
            api.WintunSendPacket(session, slots[--count]);
    }
    return now() - began;
}

/* Takes all that was sent, as the driver does. */
EXPORT void
loop_drain(DWORD (*drain)(WINTUN_ADAPTER_HANDLE, BYTE *, DWORD *), WINTUN_ADAPTER_HANDLE adapter)
{
    static BYTE packet[WINTUN_MAX_IP_PACKET_SIZE];
    DWORD size = sizeof(packet);
    while (drain(adapter, packet, &size) == ERROR_SUCCESS)
        size = sizeof(packet);
}

/* No ring: copies as many bytes, from where different packets lie to as many as there are in a round. */
EXPORT double
loop_copy(BYTE *target, const BYTE *source, DWORD different, DWORD size, DWORD packets)
{
    const double began = now();
    for (DWORD i = 0; i < packets; i++)
        memcpy(target + (size_t)size * i, source + (size_t)size * (i % different), size);
    return now() - began;
}
