/* SPDX-License-Identifier: MIT
 *
 * The list of interfaces, under one lock. The lock comes before those of a session's rings.
 */
#include "backends/tun_linux/tun_adapter.h"

#include "backends/common/backend_log.h"
#include "backends/tun_linux/tun_device.h"
#include "backends/tun_linux/tun_link.h"
#include "backends/tun_linux/tun_namespace.h"
#include "backends/tun_linux/tun_netlink.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

/* The kernel counts 2304 bytes for a packet of 1400: a full queue takes about as much memory as the ring. */
#define CAPACITY_PER_PACKET 2048u
#define LONGEST_QUEUE 8192u

typedef struct tun_adapter
{
    struct tun_adapter *next;
    tun_device device;    /* closed once its creator is done with it */
    tun_session *session; /* attached, or NULL */
    unsigned users;       /* handles, and the attached session */
} tun_adapter;

/* A handle; several may share an adapter. */
struct _WINTUN_ADAPTER
{
    front_object object;
    tun_adapter *adapter;
    bool creator;
};

static os_mutex lock = OS_MUTEX_INIT;
static tun_adapter *adapters;

/* The child has none of them: its descriptors are closed already, and whoever held the lock is not in it. */
static void
forget_all_in_child(void)
{
    os_mutex_init(&lock);
    adapters = NULL;
}

/* ---- Uses of an adapter. The caller holds the lock, up to "Handles". ---- */

static void
unlist(tun_adapter *adapter)
{
    for (tun_adapter **link = &adapters; *link; link = &(*link)->next)
    {
        if (*link == adapter)
        {
            *link = adapter->next;
            return;
        }
    }
}

/* Gives up the descriptors to `closing`, for the caller to close without the lock: the kernel may take its time. */
static void
give_up_device(tun_adapter *adapter, tun_device *closing)
{
    *closing = adapter->device;
    adapter->device.fd = adapter->device.control = adapter->device.home = -1;
    adapter->device.format = (tun_format){0};
    unlist(adapter);
}

static void
drop_use(tun_adapter *adapter, tun_device *closing)
{
    if (--adapter->users > 0)
        return;
    if (adapter->device.fd >= 0)
        give_up_device(adapter, closing);
    free(adapter);
}

static bool
dropped_by_kernel(tun_adapter *adapter, uint64_t *dropped)
{
    tun_device *device = &adapter->device;
    tun_link_state state;
    if (!tun_device_refresh(device) || !tun_netlink_read(device->control, device->index, &state))
        return false;
    *dropped = state.dropped;
    return true;
}

static void
update_dropped(tun_session *session)
{
    uint64_t now;
    if (session->adapter && dropped_by_kernel(session->adapter, &now))
        session->dropped = now - session->dropped_before;
}

/* True if both are queues of one interface. */
static bool
same_interface(const tun_device *first, const tun_device *second)
{
    return first->index == second->index &&
           (first->home < 0 || second->home < 0 || tun_namespace_same(first->home, second->home));
}

/* After a session of this adapter: the link goes off with the last session on the interface, unless others are
 * attached, and if it was us who switched it on. */
static void
end_link(tun_adapter *ended)
{
    unsigned ours = 0;
    tun_device *lit = NULL;
    for (tun_adapter *adapter = adapters; adapter; adapter = adapter->next)
    {
        if (!same_interface(&adapter->device, &ended->device))
            continue;
        if (adapter->session)
            return;
        ours++;
        lit = adapter->device.lit ? &adapter->device : lit;
    }
    if (lit)
        tun_device_end(lit, ours);
}

static void
detach(tun_session *session, tun_device *closing)
{
    tun_adapter *adapter = session->adapter;
    if (!adapter)
        return;
    update_dropped(session);
    tun_session_detach(session);
    adapter->session = NULL;
    if (tun_device_refresh(&adapter->device))
        end_link(adapter);
    session->adapter = NULL;
    drop_use(adapter, closing);
}

/* An adapter that this process is attached to already. Of an interface of several queues each gets one of its own. */
static tun_adapter *
find(const char *name)
{
    for (tun_adapter *adapter = adapters; adapter; adapter = adapter->next)
        if (!adapter->device.multi_queue && tun_device_is_named(&adapter->device, name))
            return adapter;
    return NULL;
}

static void
list(tun_adapter *adapter)
{
    adapter->next = adapters;
    adapters = adapter;
}

static void
use(WINTUN_ADAPTER_HANDLE handle, tun_adapter *adapter)
{
    handle->adapter = adapter;
    adapter->users++;
}

/* ---- Handles ---- */

static const tun_device closed_device = {.fd = -1, .control = -1, .home = -1};

static void
set_alias(const tun_device *device, const char *tunnel_type)
{
    const int failure = tun_netlink_set_alias(device->control, device->index, tunnel_type);
    if (failure)
        backend_log(WINTUN_LOG_WARN, "The alias of interface \"%s\" could not be set: %s", device->name,
                    strerror(failure));
}

/* Opens a device in one of the ways that make an adapter of its own. */
typedef DWORD (*device_opening)(tun_device *device, const void *argument);

static DWORD
add_adapter(device_opening open_device, const void *argument, bool creator, WINTUN_ADAPTER_HANDLE *handle)
{
    DWORD code = ERROR_NOT_ENOUGH_MEMORY;
    WINTUN_ADAPTER_HANDLE made = calloc(1, sizeof(*made));
    tun_adapter *adapter = calloc(1, sizeof(*adapter));
    if (!made || !adapter)
        goto failed;
    os_after_fork_in_child(forget_all_in_child);
    code = open_device(&adapter->device, argument);
    if (code)
        goto failed;
    made->creator = creator;
    os_mutex_lock(&lock);
    use(made, adapter);
    list(adapter);
    os_mutex_unlock(&lock);
    *handle = made;
    return ERROR_SUCCESS;

failed:
    free(adapter);
    free(made);
    return code;
}

typedef struct creation
{
    const char *name;
    const char *tunnel_type;
    bool multi_queue;
} creation;

static DWORD
create_device(tun_device *device, const void *argument)
{
    const creation *wanted = argument;
    const DWORD code = tun_device_create(device, wanted->name, wanted->multi_queue);
    if (!code)
        set_alias(device, wanted->tunnel_type);
    return code;
}

DWORD
tun_adapter_create(const char *name, const char *tunnel_type, bool multi_queue, WINTUN_ADAPTER_HANDLE *handle)
{
    return add_adapter(create_device, &(creation){name, tunnel_type, multi_queue}, true, handle);
}

static DWORD
adopt_device(tun_device *device, const void *argument)
{
    return tun_device_adopt(device, *(const int *)argument);
}

DWORD
tun_adapter_adopt(int fd, WINTUN_ADAPTER_HANDLE *handle)
{
    return add_adapter(adopt_device, &fd, false, handle);
}

/* The adapter of this name, attached to if need be. The caller holds the lock. */
static DWORD
find_or_attach(const char *name, tun_adapter **adapter)
{
    *adapter = find(name);
    if (*adapter)
        return ERROR_SUCCESS;
    tun_adapter *made = calloc(1, sizeof(*made));
    if (!made)
        return ERROR_NOT_ENOUGH_MEMORY;
    const DWORD code = tun_device_attach(&made->device, name);
    if (code)
    {
        free(made);
        return code;
    }
    list(made);
    *adapter = made;
    return ERROR_SUCCESS;
}

DWORD
tun_adapter_open(const char *name, WINTUN_ADAPTER_HANDLE *handle)
{
    WINTUN_ADAPTER_HANDLE made = calloc(1, sizeof(*made));
    if (!made)
        return ERROR_NOT_ENOUGH_MEMORY;
    os_after_fork_in_child(forget_all_in_child);
    os_mutex_lock(&lock);
    tun_adapter *adapter;
    const DWORD code = find_or_attach(name, &adapter);
    if (!code)
        use(made, adapter);
    os_mutex_unlock(&lock);
    if (code)
        free(made);
    else
        *handle = made;
    return code;
}

void
tun_adapter_close(WINTUN_ADAPTER_HANDLE handle)
{
    tun_adapter *adapter = handle->adapter;
    tun_device closing = closed_device;
    os_mutex_lock(&lock);
    if (handle->creator)
    {
        /* This handle is a use of its own, so the adapter outlives its session here. */
        if (adapter->session)
            detach(adapter->session, &closing);
        give_up_device(adapter, &closing);
    }
    drop_use(adapter, &closing);
    os_mutex_unlock(&lock);
    tun_device_close(&closing);
    free(handle);
}

bool
tun_adapters_exist(void)
{
    os_mutex_lock(&lock);
    const bool exist = adapters != NULL;
    os_mutex_unlock(&lock);
    return exist;
}

/* ---- Sessions ---- */

/* Packets that wait in the kernel until the client receives: as many as its capacity suggests that it takes in one go.
 * The kernel gives an interface room for 500, which a burst fills while a program does something else. */
static int
queue_length_for(DWORD capacity)
{
    const DWORD length = capacity / CAPACITY_PER_PACKET;
    return (int)(length < LONGEST_QUEUE ? length : LONGEST_QUEUE);
}

/* The superpackets that a session writes, of those that the kernel takes. */
static unsigned
wanted_offloads(tunring_coalesce coalesce)
{
    switch (coalesce)
    {
    case TUNRING_COALESCE_NONE:
        return 0;
    case TUNRING_COALESCE_TCP:
        return OFFLOAD_TSO4 | OFFLOAD_TSO6;
    default:
        return OFFLOAD_TSO4 | OFFLOAD_TSO6 | OFFLOAD_USO;
    }
}

/* The caller holds the lock. */
static DWORD
start(tun_adapter *adapter, DWORD capacity, const tunring_session_options *options, tun_session **session)
{
    tun_device *device = &adapter->device;
    if (adapter->session)
    {
        backend_log(WINTUN_LOG_ERR, "The interface \"%s\" has a session already", device->name);
        return ERROR_ALREADY_INITIALIZED;
    }
    if (!tun_device_refresh(device))
    {
        backend_log(WINTUN_LOG_ERR, "The interface \"%s\" was removed", device->name);
        return ERROR_NOT_FOUND;
    }
    DWORD code;
    tun_session *made = tun_session_open(device->fd, &device->format, capacity, &code);
    if (!made)
    {
        backend_log_error(code, "The session on \"%s\" can't start", device->name);
        return code;
    }
    made->send.offloads &= wanted_offloads(options->coalesce);
    if (device->origin == TUN_MADE && !options->keep_queue)
        tun_link_raise_queue_length(device->control, device->name, queue_length_for(capacity));
    (void)dropped_by_kernel(adapter, &made->dropped_before);
    tun_device_begin(device);
    memcpy(made->name, device->name, sizeof(made->name));
    made->adapter = adapter;
    adapter->session = made;
    adapter->users++;
    *session = made;
    return ERROR_SUCCESS;
}

DWORD
tun_adapter_start_session(WINTUN_ADAPTER_HANDLE handle, DWORD capacity, const tunring_session_options *options,
                          tun_session **session)
{
    os_mutex_lock(&lock);
    const DWORD code = start(handle->adapter, capacity, options, session);
    os_mutex_unlock(&lock);
    return code;
}

void
tun_adapter_detach_session(tun_session *session)
{
    tun_device closing = closed_device;
    os_mutex_lock(&lock);
    detach(session, &closing);
    os_mutex_unlock(&lock);
    tun_session_shrink(session);
    tun_device_close(&closing);
}

uint64_t
tun_adapter_session_dropped(tun_session *session)
{
    os_mutex_lock(&lock);
    update_dropped(session);
    const uint64_t dropped = session->dropped;
    os_mutex_unlock(&lock);
    return dropped;
}

void
tun_adapter_watch_link(tun_session *session)
{
    os_mutex_lock(&lock);
    const tun_adapter *adapter = session->adapter;
    const bool dark = adapter && tun_device_is_dark(&adapter->device);
    if (dark && !session->dark)
        backend_log(WINTUN_LOG_WARN,
                    "The link of the interface \"%s\" was switched off by somebody else: nothing comes to its session "
                    "until it is on again",
                    adapter->device.name);
    session->dark = dark;
    os_mutex_unlock(&lock);
}

/* ---- Questions ---- */

bool
tun_adapter_shared(WINTUN_ADAPTER_HANDLE handle)
{
    os_mutex_lock(&lock);
    const bool shared = tun_device_is_shared(&handle->adapter->device, 1);
    os_mutex_unlock(&lock);
    return shared;
}

DWORD
tun_adapter_descriptor(WINTUN_ADAPTER_HANDLE handle, bool leave, int *descriptor)
{
    tun_device *device = &handle->adapter->device;
    os_mutex_lock(&lock);
    *descriptor = device->fd;
    DWORD code = ERROR_SUCCESS;
    if (device->fd < 0)
        code = ERROR_HANDLE_EOF;
    else if (leave)
    {
        *descriptor = fcntl(device->fd, F_DUPFD_CLOEXEC, 3);
        if (*descriptor < 0)
            code = os_error_from_errno(errno);
        else
            device->left = true;
    }
    os_mutex_unlock(&lock);
    return code;
}

DWORD
tun_adapter_name(WINTUN_ADAPTER_HANDLE handle, char *name, DWORD size)
{
    tun_device *device = &handle->adapter->device;
    os_mutex_lock(&lock);
    (void)tun_device_refresh(device);
    const size_t length = strlen(device->name);
    DWORD code = ERROR_SUCCESS;
    if (length < size)
        memcpy(name, device->name, length + 1);
    else
        code = ERROR_BUFFER_OVERFLOW;
    os_mutex_unlock(&lock);
    return code;
}

DWORD
tun_adapter_index(WINTUN_ADAPTER_HANDLE handle, bool *present)
{
    tun_device *device = &handle->adapter->device;
    os_mutex_lock(&lock);
    *present = tun_device_refresh(device);
    const DWORD index = device->index;
    os_mutex_unlock(&lock);
    return index;
}

int
tun_adapter_namespace(WINTUN_ADAPTER_HANDLE handle)
{
    os_mutex_lock(&lock);
    const int space = tun_device_namespace(&handle->adapter->device);
    os_mutex_unlock(&lock);
    return space;
}
