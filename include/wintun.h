/* SPDX-License-Identifier: MIT
 *
 * The Wintun ABI, described in our own words: the 14 functions that the official wintun.dll exports, and that
 * tunring's own libraries (tun_linux, loopback) export as well.
 *
 * A function that returns a handle or a pointer returns NULL on failure, one that returns BOOL or a version returns 0;
 * the reason is then in the last error (GetLastError(); errno outside Windows, see wintun_posix.h). Success leaves the
 * last error alone. "Errors" below names the codes that callers meet; system calls inside may give others.
 */
#ifndef WINTUN_H
#define WINTUN_H

#if defined(_WIN32)
#include <winsock2.h>
#include <windows.h>
#include <ifdef.h>
#else
#include "wintun_posix.h"
#endif

#ifdef __cplusplus
extern "C"
{
#endif

/* An adapter, as CreateAdapter or OpenAdapter returned it. */
typedef struct _WINTUN_ADAPTER *WINTUN_ADAPTER_HANDLE;

/* A session, as StartSession returned it. */
typedef struct _TUN_SESSION *WINTUN_SESSION_HANDLE;

/* Ring capacities in bytes: a power of two from 128 KiB to 64 MiB. */
#define WINTUN_MIN_RING_CAPACITY 0x20000
#define WINTUN_MAX_RING_CAPACITY 0x4000000

/* Largest packet, in bytes. Allocating more is accepted by the official DLL and ends the session's send direction. */
#define WINTUN_MAX_IP_PACKET_SIZE 0xFFFF

/* Obsolete: longest pool name in UTF-16 units. Wintun's documentation still lists it; the DLL (0.14) has no pools. */
#define WINTUN_MAX_POOL 256

/* Severity of a log line. */
typedef enum
{
    WINTUN_LOG_INFO = 0,
    WINTUN_LOG_WARN = 1,
    WINTUN_LOG_ERR = 2
} WINTUN_LOGGER_LEVEL;

/* Receives a log line: level, time in 100 ns units since 1601-01-01 UTC, text without a line end. It is called on
 * whichever thread has something to log, threads of the library's own included. */
typedef void(CALLBACK *WINTUN_LOGGER_CALLBACK)(WINTUN_LOGGER_LEVEL Level, DWORD64 Timestamp, LPCWSTR Message);

/* Obsolete: callback of the enumeration that the DLL (0.14) no longer has. Return 0 to stop. */
typedef BOOL(CALLBACK *WINTUN_ENUM_CALLBACK)(WINTUN_ADAPTER_HANDLE Adapter, intptr_t Param);

/* Creates an adapter, which lives until CloseAdapter.
 *   Name           1 to 127 UTF-16 units.
 *   TunnelType     1 to 128 UTF-16 units: what kind of tunnel this is, for people.
 *   RequestedGUID  the adapter's identity from one creation to the next, or NULL for a random one.
 * Errors: ERROR_ACCESS_DENIED without the privilege; ERROR_ALREADY_EXISTS if the name is taken (our libraries; the
 * official DLL picks another name); ERROR_INVALID_PARAMETER, ERROR_BUFFER_OVERFLOW for a bad name. */
typedef WINTUN_ADAPTER_HANDLE(WINAPI WINTUN_CREATE_ADAPTER_FUNC)(LPCWSTR Name, LPCWSTR TunnelType,
                                                                 const GUID *RequestedGUID);

/* Opens an existing adapter by name; the official DLL compares without regard to case.
 * Errors: ERROR_NOT_FOUND; ERROR_ACCESS_DENIED. */
typedef WINTUN_ADAPTER_HANDLE(WINAPI WINTUN_OPEN_ADAPTER_FUNC)(LPCWSTR Name);

/* Frees the handle, and removes the adapter if the handle came from CreateAdapter. NULL is allowed. End the adapter's
 * session first: the driver closes the session's device handle when the adapter goes, and an EndSession after that
 * would close a handle value that something else may own by then. */
typedef void(WINAPI WINTUN_CLOSE_ADAPTER_FUNC)(WINTUN_ADAPTER_HANDLE Adapter);

/* Removes the driver from the system if no adapter is in use. Errors: those of the system; ERROR_BUSY from ours. */
typedef BOOL(WINAPI WINTUN_DELETE_DRIVER_FUNC)(void);

/* The adapter's locally unique identifier. Cannot fail. */
typedef void(WINAPI WINTUN_GET_ADAPTER_LUID_FUNC)(WINTUN_ADAPTER_HANDLE Adapter, NET_LUID *Luid);

/* Version of the driver that runs now: major in the high 16 bits, minor in the low.
 * Errors: ERROR_FILE_NOT_FOUND when it is not loaded. */
typedef DWORD(WINAPI WINTUN_GET_RUNNING_DRIVER_VERSION_FUNC)(void);

/* Sets the process-wide log callback, or none with NULL. Keep the callback valid for ever: a thread of the library may
 * be on its way into it when it is replaced. */
typedef void(WINAPI WINTUN_SET_LOGGER_FUNC)(WINTUN_LOGGER_CALLBACK NewLogger);

/* Starts the adapter's one session over two new rings of Capacity bytes each, and connects its link.
 * Errors: ERROR_INVALID_PARAMETER for a capacity that is not a power of two in range; ERROR_ALREADY_INITIALIZED if the
 * adapter has a session; ERROR_ACCESS_DENIED; ERROR_NOT_ENOUGH_MEMORY. */
typedef WINTUN_SESSION_HANDLE(WINAPI WINTUN_START_SESSION_FUNC)(WINTUN_ADAPTER_HANDLE Adapter, DWORD Capacity);

/* Ends the session and frees its rings: packets still held are gone. Nobody may be inside a call on this session. */
typedef void(WINAPI WINTUN_END_SESSION_FUNC)(WINTUN_SESSION_HANDLE Session);

/* The event to wait on when ReceivePacket returns ERROR_NO_MORE_ITEMS. It belongs to the session. Windows: auto-reset,
 * set after every publication and at the end, so loop over ReceivePacket until it reports an empty ring. Ours:
 * level-triggered. */
typedef HANDLE(WINAPI WINTUN_GET_READ_WAIT_EVENT_FUNC)(WINTUN_SESSION_HANDLE Session);

/* Takes the next packet: a pointer to its bytes in the ring, writable, valid until released; *PacketSize its length.
 * Thread-safe. Errors: ERROR_NO_MORE_ITEMS when empty; ERROR_HANDLE_EOF when the adapter is going or gone;
 * ERROR_INVALID_DATA when the ring is corrupt (it stays so). *PacketSize is not written on failure. */
typedef BYTE *(WINAPI WINTUN_RECEIVE_PACKET_FUNC)(WINTUN_SESSION_HANDLE Session, DWORD *PacketSize);

/* Gives a received packet's slot back, once, in any order; the ring regains room up to the oldest one still held. */
typedef void(WINAPI WINTUN_RELEASE_RECEIVE_PACKET_FUNC)(WINTUN_SESSION_HANDLE Session, const BYTE *Packet);

/* Reserves room for a packet of PacketSize bytes, at most WINTUN_MAX_IP_PACKET_SIZE. The order of these calls is the
 * order on the wire, and a reservation can't be undone: it holds back all later ones until it is sent. Thread-safe.
 * Errors: ERROR_BUFFER_OVERFLOW when the ring is full; ERROR_HANDLE_EOF when the adapter is going or gone;
 * ERROR_INVALID_PARAMETER for too large a size (ours; the official DLL doesn't check). */
typedef BYTE *(WINAPI WINTUN_ALLOCATE_SEND_PACKET_FUNC)(WINTUN_SESSION_HANDLE Session, DWORD PacketSize);

/* Sends a reserved packet; the host's treatment of it is not reported. Anything but IPv4 of at least 20 bytes or IPv6
 * of at least 40, by the first nibble, is dropped by the host. Thread-safe. */
typedef void(WINAPI WINTUN_SEND_PACKET_FUNC)(WINTUN_SESSION_HANDLE Session, const BYTE *Packet);

/* Every function once: X(name, function type). */
#define WINTUN_FUNCTIONS(X)                                                  \
    X(WintunCreateAdapter, WINTUN_CREATE_ADAPTER_FUNC)                       \
    X(WintunOpenAdapter, WINTUN_OPEN_ADAPTER_FUNC)                           \
    X(WintunCloseAdapter, WINTUN_CLOSE_ADAPTER_FUNC)                         \
    X(WintunDeleteDriver, WINTUN_DELETE_DRIVER_FUNC)                         \
    X(WintunGetAdapterLUID, WINTUN_GET_ADAPTER_LUID_FUNC)                    \
    X(WintunGetRunningDriverVersion, WINTUN_GET_RUNNING_DRIVER_VERSION_FUNC) \
    X(WintunSetLogger, WINTUN_SET_LOGGER_FUNC)                               \
    X(WintunStartSession, WINTUN_START_SESSION_FUNC)                         \
    X(WintunEndSession, WINTUN_END_SESSION_FUNC)                             \
    X(WintunGetReadWaitEvent, WINTUN_GET_READ_WAIT_EVENT_FUNC)               \
    X(WintunReceivePacket, WINTUN_RECEIVE_PACKET_FUNC)                       \
    X(WintunReleaseReceivePacket, WINTUN_RELEASE_RECEIVE_PACKET_FUNC)        \
    X(WintunAllocateSendPacket, WINTUN_ALLOCATE_SEND_PACKET_FUNC)            \
    X(WintunSendPacket, WINTUN_SEND_PACKET_FUNC)

#if defined(__cplusplus)
#define WINTUN_ASSERT static_assert
#else
#define WINTUN_ASSERT _Static_assert
#endif
WINTUN_ASSERT(sizeof(BOOL) == 4, "BOOL is 32 bits");
WINTUN_ASSERT(sizeof(DWORD) == 4, "DWORD is 32 bits");
WINTUN_ASSERT(sizeof(DWORD64) == 8, "DWORD64 is 64 bits");
WINTUN_ASSERT(sizeof(WCHAR) == 2, "WCHAR is a UTF-16 unit");
WINTUN_ASSERT(sizeof(GUID) == 16, "GUID is 16 bytes, without padding");
WINTUN_ASSERT(sizeof(NET_LUID) == 8, "NET_LUID is 64 bits");
WINTUN_ASSERT(sizeof(WINTUN_LOGGER_LEVEL) == 4, "WINTUN_LOGGER_LEVEL is an int");
WINTUN_ASSERT(sizeof(HANDLE) == sizeof(void *), "HANDLE is a pointer");

#ifdef __cplusplus
}
#endif

#endif
