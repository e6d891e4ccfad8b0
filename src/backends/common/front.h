/* SPDX-License-Identifier: MIT
 *
 * One front for all back ends: the 14 functions and what TunringBackend has beside them, over a table of operations. It
 * checks arguments, keeps the last error, makes LUIDs, and refuses handles of the parent in a forked child.
 */
#ifndef TUNRING_FRONT_H
#define TUNRING_FRONT_H

#include "backends/common/exports.h"

/* The beginning of adapter handles and sessions. The front fills it in. */
typedef struct front_object
{
    unsigned generation; /* of the process that made it, see os_generation() */
} front_object;

/* The operations of a back end. Functions that return a code are free to change the last error, as are those without a
 * result; the front sets or restores it. */
typedef struct backend_operations
{
    /* If false, it logs what is allowed. NULL where every name of 1 to 127 UTF-16 units is. */
    bool (*name_valid)(LPCWSTR name);
    /* Names are valid, and tunnel types have 1 to 128 units. */
    DWORD (*create)(LPCWSTR name, LPCWSTR tunnel_type, const GUID *guid, const tunring_adapter_options *options,
                    WINTUN_ADAPTER_HANDLE *adapter);
    DWORD (*open)(LPCWSTR name, WINTUN_ADAPTER_HANDLE *adapter);
    DWORD (*adopt)(int descriptor, WINTUN_ADAPTER_HANDLE *adapter); /* NULL where there are no descriptors */
    void (*close)(WINTUN_ADAPTER_HANDLE adapter);
    bool (*any_adapter)(void);
    DWORD (*driver_version)(DWORD *version);
    /* The number that the LUID is made of; `present`: the system has an interface of this index now. */
    DWORD (*index)(WINTUN_ADAPTER_HANDLE adapter, bool *present);
    DWORD (*name)(WINTUN_ADAPTER_HANDLE adapter, char *name, DWORD size);
    int (*network_namespace)(WINTUN_ADAPTER_HANDLE adapter); /* NULL where there are none */
    /* Both NULL where there are no descriptors. */
    DWORD (*descriptor)(WINTUN_ADAPTER_HANDLE adapter, bool leave, int *descriptor);
    bool (*shared)(WINTUN_ADAPTER_HANDLE adapter);
    DWORD (*set_option)(const char *name, DWORD value); /* NULL where there are none */

    /* The capacity is valid. */
    DWORD (*start)(WINTUN_ADAPTER_HANDLE adapter, DWORD capacity, const tunring_session_options *options,
                   WINTUN_SESSION_HANDLE *session);
    bool (*detach)(WINTUN_SESSION_HANDLE session);
    void (*end)(WINTUN_SESSION_HANDLE session);
    HANDLE (*read_event)(WINTUN_SESSION_HANDLE session);
    void (*count)(WINTUN_SESSION_HANDLE session, tunring_counters *counters); /* they are zeros before */

    /* Packets. A function that fails without returning a code sets the last error; success leaves it alone. */
    DWORD (*receive)(WINTUN_SESSION_HANDLE session, tunring_slot *slots, DWORD count);
    void (*release)(WINTUN_SESSION_HANDLE session, const tunring_slot *slots, DWORD count);
    BYTE *(*allocate)(WINTUN_SESSION_HANDLE session, DWORD size);
    BYTE *(*allocate_now)(WINTUN_SESSION_HANDLE session, DWORD size); /* ERROR_BUSY where that would have to wait */
    void (*send)(WINTUN_SESSION_HANDLE session, const BYTE *packet);
    void (*report_kept)(WINTUN_SESSION_HANDLE session, bool kept);
    DWORD (*send_many)(WINTUN_SESSION_HANDLE session, const tunring_packet *packets, DWORD count, DWORD *sent);
    DWORD (*send_room)(WINTUN_SESSION_HANDLE session);
    /* NULL where there is none. */
    DWORD (*send_filled)(WINTUN_SESSION_HANDLE session, const tunring_packet *packets, DWORD count, DWORD *sent);
} backend_operations;

/* The back end's. */
extern const backend_operations backend;

/* The entries of TunringBackend that every back end has. */
BOOL front_detach(WINTUN_SESSION_HANDLE session);
void front_counters(WINTUN_SESSION_HANDLE session, tunring_counters *counters);
DWORD front_send_room(WINTUN_SESSION_HANDLE session);
DWORD front_adapter_name(WINTUN_ADAPTER_HANDLE adapter, char *name, DWORD size);
DWORD front_adapter_index(WINTUN_ADAPTER_HANDLE adapter, DWORD *index);
int front_adapter_namespace(WINTUN_ADAPTER_HANDLE adapter);
DWORD front_set_option(const char *name, DWORD value);
DWORD front_receive_many(WINTUN_SESSION_HANDLE session, tunring_slot *slots, DWORD count);
void front_release_many(WINTUN_SESSION_HANDLE session, const tunring_slot *slots, DWORD count);
void front_report_kept(WINTUN_SESSION_HANDLE session, BOOL kept);
DWORD front_send_many(WINTUN_SESSION_HANDLE session, const tunring_packet *packets, DWORD count, DWORD *sent);
BYTE *front_allocate_now(WINTUN_SESSION_HANDLE session, DWORD size);
void front_shorten(WINTUN_SESSION_HANDLE session, const BYTE *packet, DWORD size);
/* Those that only some have: for descriptors, for options that have a meaning, and for checksums. */
DWORD front_adapter_descriptor(WINTUN_ADAPTER_HANDLE adapter, BOOL leave, int *descriptor);
BOOL front_adapter_shared(WINTUN_ADAPTER_HANDLE adapter);
DWORD front_adopt(int descriptor, WINTUN_ADAPTER_HANDLE *adapter);
WINTUN_ADAPTER_HANDLE front_create_adapter(LPCWSTR name, LPCWSTR tunnel_type, const GUID *guid,
                                           const tunring_adapter_options *options);
WINTUN_SESSION_HANDLE front_start_session(WINTUN_ADAPTER_HANDLE adapter, DWORD capacity,
                                          const tunring_session_options *options);
DWORD front_send_filled(WINTUN_SESSION_HANDLE session, const tunring_packet *packets, DWORD count, DWORD *sent);

#define FRONT_ENTRIES                                                                                       \
    .version = TUNRING_BACKEND_VERSION, .size = sizeof(tunring_backend), .detach = front_detach,            \
    .counters = front_counters, .send_room = front_send_room, .adapter_name = front_adapter_name,           \
    .adapter_index = front_adapter_index, .adapter_namespace = front_adapter_namespace,                     \
    .set_option = front_set_option, .receive_many = front_receive_many, .release_many = front_release_many, \
    .report_kept = front_report_kept, .send_many = front_send_many, .allocate_now = front_allocate_now,     \
    .shorten = front_shorten

#endif
