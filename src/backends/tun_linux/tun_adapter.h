/* SPDX-License-Identifier: MIT
 *
 * The TUN interfaces that this process is attached to, and the handles and sessions on them. Linux lets one descriptor
 * attach to an interface, so all handles of a process on one interface share it.
 */
#ifndef TUNRING_TUN_ADAPTER_H
#define TUNRING_TUN_ADAPTER_H

#include "backends/tun_linux/tun_session.h"

/* Either gives a new handle, or an error as tun_device_create() and tun_device_attach() do. */
DWORD tun_adapter_create(const char *name, const char *tunnel_type, bool multi_queue, WINTUN_ADAPTER_HANDLE *handle);
DWORD tun_adapter_open(const char *name, WINTUN_ADAPTER_HANDLE *handle);

/* The same for a descriptor that another process attached: see tun_device_adopt(). */
DWORD tun_adapter_adopt(int fd, WINTUN_ADAPTER_HANDLE *handle);

/* The interface goes, and its session ends, with the handle that created it; else with the last handle and session. */
void tun_adapter_close(WINTUN_ADAPTER_HANDLE handle);

/* True if this process is attached to any interface. */
bool tun_adapters_exist(void);

/* ERROR_ALREADY_INITIALIZED, ERROR_NOT_FOUND when the interface is gone, or what the session lacks. */
DWORD tun_adapter_start_session(WINTUN_ADAPTER_HANDLE handle, DWORD capacity, const tunring_session_options *options,
                                tun_session **session);

/* Ends all but the memory of the session's rings. No call that may wait is made on the session any more. Idempotent. */
void tun_adapter_detach_session(tun_session *session);

/* Packets to the client that the kernel dropped while the session was attached. */
uint64_t tun_adapter_session_dropped(tun_session *session);

/* Looks whether somebody has switched the link off under the session, and logs that once, until it is on again. */
void tun_adapter_watch_link(tun_session *session);

/* The descriptor of the interface, which stays ours. If `leave`, a copy of it instead, which is the caller's, and from
 * now on sessions and handles that end leave the interface as it is. ERROR_HANDLE_EOF, or the copy's error. */
DWORD tun_adapter_descriptor(WINTUN_ADAPTER_HANDLE handle, bool leave, int *descriptor);

/* True if others are attached to the interface. */
bool tun_adapter_shared(WINTUN_ADAPTER_HANDLE handle);

/* `name` has room for `size` bytes. ERROR_BUFFER_OVERFLOW; of an interface that is gone, its last name. */
DWORD tun_adapter_name(WINTUN_ADAPTER_HANDLE handle, char *name, DWORD size);

/* The interface's index, or the last one of an interface that is not `present` any more. */
DWORD tun_adapter_index(WINTUN_ADAPTER_HANDLE handle, bool *present);

/* A descriptor of the interface's namespace, the caller's, or -1. */
int tun_adapter_namespace(WINTUN_ADAPTER_HANDLE handle);

#endif
