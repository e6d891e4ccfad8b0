/* SPDX-License-Identifier: MIT
 *
 * The one symbol that tunring's own libraries (tun_linux, loopback) export in addition to the 14 functions of the ABI:
 * `TunringBackend`, for what those functions can't express. The official wintun.dll has no such table; tunring then
 * reports these figures as unknown and keeps to the driver's stricter rules for ending a session.
 */
#ifndef TUNRING_BACKEND_H
#define TUNRING_BACKEND_H

#include "tunring_packet.h"
#include "wintun.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define TUNRING_BACKEND_VERSION 1
#define TUNRING_BACKEND_SYMBOL "TunringBackend"

/* The counters of a session's host half since the session started. */
typedef struct tunring_counters
{
    uint64_t host_dropped;  /* packets to the client lost for lack of room, or of a session at the far end */
    uint64_t host_filtered; /* packets the driver's filter refused, either way; fillers are among them */
    uint64_t write_errors;  /* packets to the host that it refused (Linux: write() failed) */
} tunring_counters;

/* The word that tunring_simulator.corrupt() overwrites. */
typedef enum tunring_corruption
{
    TUNRING_CORRUPT_RECEIVE_TAIL, /* the index that the client reads to see what has come */
    TUNRING_CORRUPT_RECEIVE_SIZE, /* the size word of the oldest packet that is not received yet */
    TUNRING_CORRUPT_SEND_HEAD,    /* the index that the client reads to see what room there is */
    TUNRING_CORRUPT_SEND_SIZE     /* the size word of the oldest packet that is sent and not drained */
} tunring_corruption;

/* The driver simulator: from attach() on, the adapter is not a cable end; its host half does what these calls ask, as
 * the real driver would. Each returns 0 or a Win32 error code. All are thread-safe. */
typedef struct tunring_simulator
{
    /* Takes the adapter over. ERROR_BUSY while it has a session. */
    DWORD (*attach)(WINTUN_ADAPTER_HANDLE Adapter);
    /* One chain towards the client: all of it or, when the ring lacks room, nothing (ERROR_BUFFER_OVERFLOW, counted).
     * Packets over 65535 bytes are skipped, and of one without data all bytes are 0. */
    DWORD (*inject)(WINTUN_ADAPTER_HANDLE Adapter, const tunring_packet *Chain, DWORD Count);
    /* Takes the oldest packet the client has sent: *Size holds the buffer's size, then the packet's.
     * ERROR_NO_MORE_ITEMS; ERROR_BUFFER_OVERFLOW if the buffer is too small (the packet stays). */
    DWORD (*drain)(WINTUN_ADAPTER_HANDLE Adapter, BYTE *Buffer, DWORD *Size);
    DWORD (*corrupt)(WINTUN_ADAPTER_HANDLE Adapter, tunring_corruption What, DWORD Value);
    /* From now on every publication towards the client, and every drain, takes this long. */
    DWORD (*delay)(WINTUN_ADAPTER_HANDLE Adapter, DWORD Microseconds);
    /* The system removes the adapter: the session's device handle is force-closed, both directions return
     * ERROR_HANDLE_EOF. */
    DWORD (*remove)(WINTUN_ADAPTER_HANDLE Adapter);
    /* The number of sessions that were ended after that, which with the real driver closes a foreign handle. */
    DWORD (*stale_ends)(void);
} tunring_simulator;

/* A place in a ring that is the client's for now. */
typedef struct tunring_slot
{
    BYTE *data;
    uint32_t length;
    /* The core's: a back end leaves it alone. */
    union
    {
        _Atomic uint32_t holds;
        uint32_t root; /* in a part of a batch: the slot's number in the whole */
    };
} tunring_slot;

/* Options that WintunCreateAdapter has no parameters for. Zeros are what it does. */
typedef struct tunring_adapter_options
{
    DWORD queues; /* more than 1: others may attach to queues of their own, by WintunOpenAdapter too */
} tunring_adapter_options;

/* Which packets a session puts together on their way to the host. */
typedef enum tunring_coalesce
{
    TUNRING_COALESCE_ALL,
    TUNRING_COALESCE_TCP,
    TUNRING_COALESCE_NONE
} tunring_coalesce;

/* Options that WintunStartSession has no parameters for. Zeros are what it does. */
typedef struct tunring_session_options
{
    tunring_coalesce coalesce;
    bool keep_queue; /* the system's queue before the ring stays as long as it is, even on an interface of our own */
} tunring_session_options;

typedef struct tunring_backend
{
    DWORD version;    /* TUNRING_BACKEND_VERSION */
    DWORD size;       /* of this struct */
    const char *name; /* "tun_linux", "loopback" */

    /* Device, carrier and the session's handles go now, the read event's too: nobody may be waiting. Ring memory stays
     * valid until WintunEndSession, which must still follow and may come after WintunCloseAdapter. No call but
     * ReleaseReceivePacket and SendPacket may be made on the session from here on. Returns FALSE where the session must
     * be treated as the official DLL's (a simulated adapter). */
    BOOL (*detach)(WINTUN_SESSION_HANDLE Session);
    void (*counters)(WINTUN_SESSION_HANDLE Session, tunring_counters *Counters);
    /* Ring bytes that sends can still allocate, exact while nobody else allocates: a packet takes its size plus 4,
     * rounded up to 4. 0xFFFFFFFF when the session is over: the allocation then reports it. */
    DWORD (*send_room)(WINTUN_SESSION_HANDLE Session);
    /* The adapter's name in UTF-8 as the system knows it now, and its interface index (0: the system has none). */
    DWORD (*adapter_name)(WINTUN_ADAPTER_HANDLE Adapter, char *Name, DWORD Size);
    DWORD (*adapter_index)(WINTUN_ADAPTER_HANDLE Adapter, DWORD *Index);
    /* A descriptor of the network namespace that the adapter lives in, the caller's to close; -1 where there is
     * none. */
    int (*adapter_namespace)(WINTUN_ADAPTER_HANDLE Adapter);

    /* The descriptor of the adapter's interface, which stays the adapter's. If Leave, a copy instead, which is the
     * caller's, and from now on sessions and the adapter end without changing the interface. NULL where there are
     * none. */
    DWORD (*adapter_descriptor)(WINTUN_ADAPTER_HANDLE Adapter, BOOL Leave, int *Descriptor);

    /* True if others are attached to the adapter's interface, too. NULL where there are none. */
    BOOL (*adapter_shared)(WINTUN_ADAPTER_HANDLE Adapter);

    /* An adapter on a descriptor of a TUN interface that somebody else attached; a copy of it is taken, which becomes
     * non-blocking with the original. NULL where there are none. */
    DWORD (*adopt)(int Descriptor, WINTUN_ADAPTER_HANDLE *Adapter);
    /* Returns and clears the system's own error number of a failed creation, opening or adoption in the calling
     * thread; 0 if there was none since it was last taken. NULL where there never is one. */
    int (*system_error)(void);
    /* Sets an option for adapters that are made from now on. ERROR_NOT_FOUND if it is unknown, ERROR_INVALID_PARAMETER
     * for a value out of range. tun_linux: "offloads", 0 or 1. */
    DWORD (*set_option)(const char *Name, DWORD Value);

    /* WintunCreateAdapter with options. NULL where there are none. */
    WINTUN_ADAPTER_HANDLE (*create_adapter)(LPCWSTR Name, LPCWSTR TunnelType, const GUID *RequestedGUID,
                                            const tunring_adapter_options *Options);

    /* WintunStartSession with options. NULL where none of them has a meaning: they are ignored then. */
    WINTUN_SESSION_HANDLE (*start_session)(WINTUN_ADAPTER_HANDLE Adapter, DWORD Capacity,
                                           const tunring_session_options *Options);

    /* Do in one call what Count calls of WintunReceivePacket or WintunReleaseReceivePacket would. Fewer than Count are
     * returned if there was nothing more, or if something failed that will fail again; for 0 the last error is set. */
    DWORD (*receive_many)(WINTUN_SESSION_HANDLE Session, tunring_slot *Slots, DWORD Count);
    void (*release_many)(WINTUN_SESSION_HANDLE Session, const tunring_slot *Slots, DWORD Count);

    /* The client keeps packets for the next receive: the read event is set while it does, in addition to what the
     * session itself has. */
    void (*report_kept)(WINTUN_SESSION_HANDLE Session, BOOL Kept);

    /* Allocates, copies and commits, in order, until all are sent or there is no more room: then the code is not 0.
     * If the send ring is empty, packets may go to the host without being copied to the ring. */
    DWORD (*send_many)(WINTUN_SESSION_HANDLE Session, const tunring_packet *Packets, DWORD Count, DWORD *Sent);

    /* The same with the packets' checksums filled, see tunring_fill_checksums(); the packets stay as they are. NULL
     * if the caller had better fill them while it copies them to the ring. */
    DWORD (*send_filled)(WINTUN_SESSION_HANDLE Session, const tunring_packet *Packets, DWORD Count, DWORD *Sent);

    /* WintunAllocateSendPacket that waits for nobody: ERROR_BUSY, or ERROR_BUFFER_OVERFLOW, where that function might
     * succeed. */
    BYTE *(*allocate_now)(WINTUN_SESSION_HANDLE Session, DWORD Size);
    /* WintunSendPacket makes system calls for the packets; else only to set an event. */
    BOOL sends_by_system_call;
    /* The packet in a slot of WintunAllocateSendPacket, which was not sent yet, has only that many bytes: at most what
     * was allocated. */
    void (*shorten)(WINTUN_SESSION_HANDLE Session, const BYTE *Packet, DWORD Size);

    const tunring_simulator *simulator; /* NULL but in loopback */
} tunring_backend;

#endif
