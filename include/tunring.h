/* SPDX-License-Identifier: MIT
 *
 * tunring's C core: batches of packets over any library that exports the Wintun ABI, without Python. The Cython layer
 * and the C tests are its callers.
 *
 * Functions return 0 or a Win32 error code. None needs the GIL; those that never wait, or may be called at any time,
 * may be called with it held. After a fork every function does nothing in the child and returns ERROR_HANDLE_EOF.
 */
#ifndef TUNRING_H
#define TUNRING_H

#include "tunring_backend.h"
#include "tunring_endpoint.h"
#include "wintun.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- The library: core/api.c ------------------------------------------------------------------------------------ */

#if defined(_WIN32)
typedef wchar_t tunring_path_char;
#else
typedef char tunring_path_char;
#endif

/* One loaded library. It is never unloaded, and the struct has to stay as long: helper threads use it to the very
 * end. */
typedef struct tunring_api
{
    void *module;
#define TUNRING_API_FIELD(name, type) type *name;
    WINTUN_FUNCTIONS(TUNRING_API_FIELD)
#undef TUNRING_API_FIELD
    const tunring_backend *backend; /* NULL: a library that has the 14 functions and no more, as the official DLL */
    const tunring_simulator *_Atomic simulator; /* NULL: none */
} tunring_api;

/* Loads the file and resolves the 14 functions. ERROR_MOD_NOT_FOUND, ERROR_BAD_EXE_FORMAT with the loader's own words
 * in `detail`; ERROR_PROC_NOT_FOUND with the missing name there. */
DWORD tunring_api_load(tunring_api *api, const tunring_path_char *path, char *detail, size_t detail_size);

/* Major version in the high 16 bits, minor in the low. ERROR_FILE_NOT_FOUND when the driver is not loaded. */
DWORD tunring_api_driver_version(const tunring_api *api, DWORD *version);
/* Removes the driver from the system. */
DWORD tunring_api_delete_driver(const tunring_api *api);

/* ---- Waiting: platform/wait_*.c -------------------------------------------------------------------------------- */

#define TUNRING_FOREVER INT64_MAX

/* How long a call may wait, and what else ends it. */
typedef struct tunring_wait
{
    int64_t deadline; /* in os_now() nanoseconds; 0 polls and settles the read event, TUNRING_FOREVER has no end */
    HANDLE interrupt; /* ready: the call returns ERROR_OPERATION_ABORTED; NULL for none */
    HANDLE cancel;    /* ready: a receive that finds nothing returns ERROR_CANCELLED; NULL for none */
    bool brief;  /* a receive spins, and sleeps for a moment, where that has been enough before; else WAIT_TIMEOUT */
    bool looked; /* such a receive has just found nothing: this one sleeps before it looks */
    /* A receive that has fewer packets than `min_packets` waits for more, `linger` nanoseconds from the first one
     * on. */
    uint32_t min_packets;
    int64_t linger;
} tunring_wait;

/* ---- Adapters and sessions: core/adapter.c, core/session.c ------------------------------------------------------ */

typedef struct tunring_adapter tunring_adapter;
typedef struct tunring_session tunring_session;
/* A lender of slots: a session is one. */
typedef struct tunring_source tunring_source;

/* Options that the library doesn't have are ignored; NULL: all zeros. */
DWORD tunring_adapter_create(const tunring_api *api, LPCWSTR name, LPCWSTR tunnel_type, const GUID *guid,
                             const tunring_adapter_options *options, tunring_adapter **adapter);
DWORD tunring_adapter_open(const tunring_api *api, LPCWSTR name, tunring_adapter **adapter);
/* ERROR_NOT_SUPPORTED by a library that has no descriptors. */
DWORD tunring_adapter_adopt(const tunring_api *api, int descriptor, tunring_adapter **adapter);
/* Returns and clears the system's own error number of a failure of these three calls in the calling thread, or 0. Must
 * be called after each of them. */
int tunring_adapter_system_error(const tunring_api *api);

/* Each of these returns ERROR_INVALID_HANDLE once tunring_adapter_close() has begun, and in a forked child. */
DWORD tunring_adapter_luid(tunring_adapter *adapter, NET_LUID *luid);
/* The adapter's name in UTF-8 and its interface index, as our back ends report them. ERROR_NOT_SUPPORTED by other
 * libraries. */
DWORD tunring_adapter_name(tunring_adapter *adapter, char *name, DWORD size);
DWORD tunring_adapter_index(tunring_adapter *adapter, DWORD *index);
/* A descriptor of the network namespace, the caller's to close, or -1. */
DWORD tunring_adapter_namespace(tunring_adapter *adapter, int *descriptor);
/* Lends the library's handle: it is valid until tunring_adapter_give_back(), however early the adapter is closed. */
DWORD tunring_adapter_lend(tunring_adapter *adapter, WINTUN_ADAPTER_HANDLE *handle);
/* May be called at any time. */
void tunring_adapter_give_back(tunring_adapter *adapter);

/* The descriptor of the adapter's interface, which stays the adapter's; or if `leave`, a copy that is the caller's, and
 * from now on sessions and the adapter end without changing the interface. ERROR_NOT_SUPPORTED by a library that has
 * none. */
DWORD tunring_adapter_descriptor(tunring_adapter *adapter, bool leave, int *descriptor);

/* True if others are attached to the adapter's interface; false if it is closed, or the library doesn't know. */
bool tunring_adapter_shared(tunring_adapter *adapter);

/* True if it belongs to the parent of this forked process. May be called at any time. */
bool tunring_adapter_forked(const tunring_adapter *adapter);
/* True if tunring_adapter_shut() was called. May be called at any time. */
bool tunring_adapter_is_shut(const tunring_adapter *adapter);
/* Packets that still pin a closed session of this adapter, which can't end before they are released. May be called at
 * any time. */
uint64_t tunring_adapter_pinned(const tunring_adapter *adapter);

/* From here on no session starts; waits for those that are starting. */
void tunring_adapter_shut(tunring_adapter *adapter);
/* Closes the adapter, and its session first. The library's adapter goes unless loans, or a session that can't end yet,
 * still need it; then it goes with the last of them. Idempotent; may be called from any thread: each call returns when
 * the first is done. */
void tunring_adapter_close(tunring_adapter *adapter);
/* Gives up the caller's pointer; closes the adapter if it is open. May be called at any time: a helper thread does what
 * could block. */
void tunring_adapter_drop(tunring_adapter *adapter);

/* ERROR_INVALID_HANDLE if the adapter is shut; ERROR_BUSY while an older session of it is pinned; else the library's
 * code. Options that the library doesn't have are ignored; NULL: all zeros. */
DWORD tunring_session_start(tunring_adapter *adapter, DWORD capacity, const tunring_session_options *options,
                            tunring_session **session);

/* Sets whether sessions that start from now on are guarded against the lost wake-up of Wintun up to 0.14 (see
 * core/wake_guard.h); they are by default. It concerns only libraries without our own table. May be called at any
 * time. */
void tunring_wake_guard_enable(bool enabled);

/* ---- Sources: core/source.c ------------------------------------------------------------------------------------- */

tunring_source *tunring_session_source(tunring_session *session);

/* Closes the source: wakes every waiter, waits for the calls in flight, and ends what it is made of unless leases still
 * pin it (then the last of them does). Idempotent; may be called from any thread: each call returns when the first is
 * done. */
void tunring_source_close(tunring_source *source);
/* Gives up the caller's pointer; closes the source if it is open. May be called at any time: a helper thread does what
 * could block. */
void tunring_source_drop(tunring_source *source);

typedef enum tunring_state
{
    TUNRING_OPEN,
    TUNRING_CLOSED,  /* by tunring_source_close */
    TUNRING_REMOVED, /* the library returned ERROR_HANDLE_EOF: the adapter is gone */
    TUNRING_FORKED   /* this process is a child of the one that started it */
} tunring_state;

/* May be called at any time. */
tunring_state tunring_source_state(const tunring_source *source);
HANDLE tunring_source_read_event(const tunring_source *source);
DWORD tunring_session_capacity(const tunring_session *session);

/* True if the session is one of tunring_sessions_leaked(). May be called at any time. */
bool tunring_session_leaked(const tunring_session *session);
/* Sessions that were never ended, since the system had removed their adapter and ending them would close a handle that
 * is no longer theirs; and sources that wait for their last packet to be let go. Process-wide. May be called at any
 * time. */
uint64_t tunring_sessions_leaked(void);
uint64_t tunring_sources_pinned(void);

/* The name of a figure, and where its uint64_t is in its struct. A table of them ends with a NULL. */
typedef struct tunring_figure
{
    const char *name;
    size_t offset;
} tunring_figure;

#define TUNRING_FIELD(name) uint64_t name;
#define TUNRING_ATOMIC_FIELD(name) _Atomic uint64_t name;

/* All that a source counts, in this one place. tunring.Stats has a field of each name with its meaning; UdpStats has
 * those that apply to sockets, too. */
#define TUNRING_SOURCE_COUNTS(COUNT) \
    COUNT(received_packets)          \
    COUNT(received_bytes)            \
    COUNT(received_batches)          \
    COUNT(sent_packets)              \
    COUNT(sent_bytes)                \
    COUNT(sent_batches)              \
    COUNT(waits)                     \
    COUNT(wakes)                     \
    COUNT(spins)                     \
    COUNT(ring_full)                 \
    COUNT(dropped)                   \
    COUNT(skipped)                   \
    COUNT(fillers)                   \
    COUNT(pinned_packets)            \
    COUNT(pinned_bytes)              \
    COUNT(reservations)

typedef struct tunring_stats
{
    TUNRING_SOURCE_COUNTS(TUNRING_FIELD)
    bool has_counters; /* the library reports the rest */
    tunring_counters counters;
} tunring_stats;

extern const tunring_figure tunring_stats_figures[];

void tunring_session_stats(tunring_session *session, tunring_stats *stats);
/* The same for any source, without what only a session's library knows. May be called at any time. */
void tunring_source_stats(tunring_source *source, tunring_stats *stats);
/* Adds to `dropped` or `skipped`. May be called at any time. */
void tunring_source_count_dropped(tunring_source *source, uint64_t packets);
void tunring_session_count_skipped(tunring_session *session, uint64_t packets);

/* ---- The driver simulator: core/simulate.c ---------------------------------------------------------------------- */

/* Has a table that another module exports, a struct tunring_simulator, play the driver for a library that has none of
 * its own. Codes as for tunring_api_load(). */
DWORD tunring_simulator_load(tunring_api *api, const tunring_path_char *path, const char *symbol, char *detail,
                             size_t detail_size);
/* May be called at any time. */
bool tunring_simulator_available(const tunring_api *api);

/* The calls of struct tunring_simulator, which has the codes. ERROR_INVALID_HANDLE once tunring_adapter_close() has
 * begun, and in a forked child; ERROR_NOT_SUPPORTED without a simulator. */
DWORD tunring_simulate_attach(tunring_adapter *adapter);
DWORD tunring_simulate_inject(tunring_adapter *adapter, const tunring_packet *chain, DWORD count);
DWORD tunring_simulate_drain(tunring_adapter *adapter, BYTE *buffer, DWORD *size);
DWORD tunring_simulate_corrupt(tunring_adapter *adapter, tunring_corruption what, DWORD value);
DWORD tunring_simulate_delay(tunring_adapter *adapter, DWORD microseconds);
DWORD tunring_simulate_remove(tunring_adapter *adapter);
/* 0 without a simulator. */
DWORD tunring_simulator_stale_ends(const tunring_api *api);

/* ---- Leases: core/lease.c --------------------------------------------------------------------------------------- */

/* Where the packets from this slot on came from, up to the next entry. */
typedef struct tunring_origin
{
    uint32_t first;
    uint8_t ecn; /* 0 to 3 */
    tunring_endpoint from;
} tunring_origin;

typedef struct tunring_origins
{
    uint32_t count, room;
    tunring_origin list[];
} tunring_origins;

/* A table of slots with one owner: received packets, which go back to the ring, or reserved room, which is sent or
 * becomes filler. A slot's `holds` are the lease's own and one for each exported buffer; at 0 it goes back. The lease
 * pins its source until the last slot is let go, and keeps count and lengths after that. */
typedef struct tunring_lease
{
    tunring_source *source;
    _Atomic uint64_t state; /* lease.c */
    _Atomic uint32_t left;  /* slots not let go yet */
    bool reserved;          /* room to send, rather than packets received */
    bool sealed;            /* datagrams that a Sealer made: nothing for a session to send */
    unsigned generation;    /* of the process, see os_generation() */
    uint32_t room;          /* slots that the table has memory for */
    uint32_t count;
    uint64_t bytes;           /* sum of the lengths */
    tunring_origins *origins; /* of a socket's datagrams; NULL for packets of a ring */
    uint32_t *sizes;          /* of the slots, once one was dropped (0 here) or shrunk; NULL: the lengths */
    tunring_slot slots[];
} tunring_lease;

/* Some of a lease's packets, perhaps opened in place: then they lie elsewhere in their slots. A part holds nothing, and
 * keeps nothing alive: the lease counts for it. */
typedef struct tunring_part
{
    uint32_t level; /* how often the slots were opened; packets of another level can't be read through this part */
    uint32_t count;
    uint64_t bytes; /* sum of the lengths */
    tunring_slot slots[];
} tunring_part;

/* Holds one slot against being let go. False if it was, if it is of another level, or if it has over 16 million
 * holds. May be called at any time. */
bool tunring_lease_hold(tunring_lease *lease, uint32_t index, uint32_t level);
void tunring_lease_unhold(tunring_lease *lease, uint32_t index);

/* Holds the whole lease during a C operation that reads a part of it, or all of it if `part` is NULL: a release takes
 * effect at the end of the operation. ERROR_HANDLE_EOF if it is released; ERROR_BUSY if the packet *index was opened
 * through another batch; ERROR_NOT_ENOUGH_MEMORY if 2^30 - 1 operations are in progress. May be called at any time. */
DWORD tunring_lease_enter(tunring_lease *lease, const tunring_part *part, uint32_t *index);
void tunring_lease_leave(tunring_lease *lease, const tunring_part *part);

/* Begins to open a part in place, or all if `part` is NULL: afterwards only a part of the next level can read the
 * slots. Nothing is changed on failure: ERROR_HANDLE_EOF if it is released; ERROR_BUSY if something else uses the
 * packet *index; ERROR_ALREADY_EXISTS if that was opened through another batch; ERROR_NOT_ENOUGH_MEMORY as above.
 * tunring_lease_opened() ends the operation. May be called at any time. */
DWORD tunring_lease_open(tunring_lease *lease, const tunring_part *part, uint32_t *index);
void tunring_lease_opened(tunring_lease *lease);

/* The owner is done: slots that nobody holds go back (received) or become filler (reserved) now, the others when they
 * are let go. Idempotent. May be called at any time. */
void tunring_lease_release(tunring_lease *lease);
bool tunring_lease_released(const tunring_lease *lease);

/* True if anybody but the lease holds a slot. May be called at any time. */
bool tunring_lease_held(const tunring_lease *lease);

/* Sends a reservation. ERROR_BUSY if a slot is still held: then nothing is sent and it was released instead.
 * ERROR_HANDLE_EOF if it was released or its session closed before. */
DWORD tunring_lease_commit(tunring_lease *lease);
/* True if tunring_lease_commit() waits for nothing and takes less time than giving up the GIL. May be called at any
 * time before it. */
bool tunring_lease_commit_is_short(const tunring_lease *lease);

/* These two change a reservation. Nobody may be sending or releasing it, or in a call of either in the meantime.
 * ERROR_NOT_ENOUGH_MEMORY without memory: then nothing has changed. Never waits. */

/* The slot will be sent as filler. Idempotent. */
DWORD tunring_lease_drop_slot(tunring_lease *lease, uint32_t index);
/* The slot, which was not dropped, will be sent as a packet of `length` bytes: at least 1, and at most its length. A
 * library without our own table sends it in full, with zeros behind the packet. */
DWORD tunring_lease_shrink_slot(tunring_lease *lease, uint32_t index, uint32_t length);
/* Never waits. */
bool tunring_lease_slot_dropped(const tunring_lease *lease, uint32_t index);

/* Frees the table; every hold must be gone. Never waits. */
void tunring_lease_free(tunring_lease *lease);

/* ---- Slots of a lease or a part: core/slots.c -------------------------------------------------------------------- */

/* The packets' lengths in bytes, and where each begins in what tunring_slots_pack() writes: false if they have 4 GiB
 * or more in all. May be called at any time. */
void tunring_slots_lengths(const tunring_slot *slots, uint32_t count, uint32_t *lengths);
bool tunring_slots_offsets(const tunring_slot *slots, uint32_t count, uint32_t *offsets);

/* These read the packets: between tunring_lease_enter and tunring_lease_leave, or while slots can't go otherwise. */

/* Copies the packets back to back. */
void tunring_slots_pack(const tunring_slot *slots, uint32_t count, BYTE *buffer);
/* Copies the first `size` bytes of each packet, zeros behind shorter ones. */
void tunring_slots_headers(const tunring_slot *slots, uint32_t count, uint32_t size, BYTE *buffer);
/* Lists those that a host accepts, or all; returns how many. `packets` has room for all. */
uint32_t tunring_slots_packets(const tunring_slot *slots, uint32_t count, bool only_ip, tunring_packet *packets);

/* The number of each packet's entry in the lease's origins, which it has. May be called at any time. */
void tunring_slots_origins(const tunring_lease *lease, const tunring_part *part, uint32_t *numbers);

/* A part with room for `count` packets, and none yet; NULL without memory. free() ends it. */
tunring_part *tunring_part_new(uint32_t count, uint32_t level);
/* Appends a packet of a lease or of one of its parts. */
static inline void
tunring_part_append(tunring_part *part, const tunring_slot *slot, uint32_t root)
{
    tunring_slot *own = &part->slots[part->count++];
    own->data = slot->data;
    own->length = slot->length;
    own->root = root;
    part->bytes += slot->length;
}

/* Numbers groups of equal keys in order of first appearance; returns how many there are, or 0 without memory. */
uint32_t tunring_group(const int64_t *keys, uint32_t count, uint32_t *groups);
/* The same, of rows of `width` bytes that lie back to back. */
uint32_t tunring_group_rows(const BYTE *rows, size_t width, uint32_t count, uint32_t *groups);

/* ---- Packets: core/receive.c, core/send.c ----------------------------------------------------------------------- */

/* The largest max_packets. */
#define TUNRING_MAX_BATCH 65536u

/* Takes what is there, up to `max` packets, waiting for the first one, or not if `wait` is NULL. WAIT_TIMEOUT on
 * timeout; after a poll with a deadline of 0 the read event then isn't set for packets that somebody took long ago;
 * ERROR_OPERATION_ABORTED when interrupted; ERROR_HANDLE_EOF; ERROR_INVALID_DATA; ERROR_NOT_ENOUGH_MEMORY before
 * anything is taken. An error in the middle of a batch is left for the next call. */
DWORD tunring_receive(tunring_source *source, uint32_t max, const tunring_wait *wait, tunring_lease **lease);

/* Takes what is there for a caller that lingers and may be cancelled: the source keeps it, up to `max` packets in all.
 * *count is their number; the next receive, by anybody, begins with them. Meanwhile the read event reports only
 * packets that come after them. Fails as tunring_receive() does. */
DWORD tunring_gather(tunring_source *source, uint32_t max, uint32_t *count);
/* The caller will not receive what was gathered: the read event reports it from then on. */
void tunring_gather_end(tunring_source *source);

/* Sends packets in order, each of at most WINTUN_MAX_IP_PACKET_SIZE bytes; *sent counts them, on failure too. When the
 * ring is full: waits for room if `wait` is given, else ERROR_BUFFER_OVERFLOW. */
DWORD tunring_send(tunring_session *session, const tunring_packet *packets, uint32_t count, const tunring_wait *wait,
                   uint32_t *sent);
/* The same, with the checksums of what is sent: see tunring_fill_checksums(). The packets stay as they are. */
DWORD tunring_send_filled(tunring_session *session, const tunring_packet *packets, uint32_t count,
                          const tunring_wait *wait, uint32_t *sent);

/* Reserves room for all sizes or none. ERROR_BUFFER_OVERFLOW and `wait` as above; ERROR_INVALID_PARAMETER if they
 * would not fit an empty ring. */
DWORD tunring_reserve(tunring_session *session, const uint32_t *sizes, uint32_t count, const tunring_wait *wait,
                      tunring_lease **lease);
/* The same for one packet, at once; never waits. ERROR_BUSY: call tunring_reserve(), which may wait or fail. *lease is
 * NULL or a lease whose slots are all gone: it is used again or freed, and NULL after ERROR_BUSY. */
DWORD tunring_reserve_now(tunring_session *session, uint32_t size, tunring_lease **lease);

/* ---- Notifiers: core/notifier.c --------------------------------------------------------------------------------- */

/* Notifies an event loop that can't wait for an event itself: a thread of the caller's sits in tunring_notifier_wait.
 * It keeps the source's struct, but is a call in flight only while it is armed. */
typedef struct tunring_notifier tunring_notifier;

/* `event` is the source's read event, or a socket's room event. */
DWORD tunring_notifier_open(tunring_source *source, HANDLE event, tunring_notifier **notifier);
/* Waits until the notifier is armed, and then until the event is ready; that disarms it. ERROR_HANDLE_EOF once the
 * source is closed or the notifier ended. One thread at a time. */
DWORD tunring_notifier_wait(tunring_notifier *notifier);
/* Not again before tunring_notifier_wait has returned. Never waits. */
void tunring_notifier_arm(tunring_notifier *notifier);
/* Ends tunring_notifier_wait for good. May be called at any time. */
void tunring_notifier_end(tunring_notifier *notifier);
/* Nobody may be in tunring_notifier_wait. Never waits. */
void tunring_notifier_free(tunring_notifier *notifier);

/* ---- Log lines: core/log.c -------------------------------------------------------------------------------------- */

#define TUNRING_LOG_LIBRARIES 8
#define TUNRING_LOG_TEXT 512

typedef struct tunring_log_line
{
    uint32_t library;            /* the number that tunring_log_attach gave */
    uint32_t level;              /* WINTUN_LOGGER_LEVEL */
    uint64_t time;               /* 100 ns units since 1601-01-01 UTC */
    char text[TUNRING_LOG_TEXT]; /* UTF-8, cut on a character if need be */
} tunring_log_line;

/* Sets the library's log callback to ours. False if TUNRING_LOG_LIBRARIES are attached already. */
bool tunring_log_attach(const tunring_api *api, uint32_t *library);
/* Sets whether lines of this library are queued for tunring_log_next; failed calls keep them in any case. Fails
 * when the queue can't be opened. */
DWORD tunring_log_enable(uint32_t library, bool enabled);
/* The oldest queued line, waiting for one. ERROR_NO_MORE_ITEMS once tunring_log_stop was called and all are taken. */
DWORD tunring_log_next(tunring_log_line *line);
/* Ends tunring_log_next for good; later lines are dropped. */
void tunring_log_stop(void);
/* Lines lost because the queue was full. */
uint64_t tunring_log_lost(void);
/* The last lines that this thread caused since tunring_log_forget, newest last, joined by line feeds, in `text`. */
void tunring_log_forget(void);
size_t tunring_log_recall(char *text, size_t size);

#endif
