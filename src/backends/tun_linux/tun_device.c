/* SPDX-License-Identifier: MIT
 *
 * /dev/net/tun and its ioctls.
 */
#include "backends/tun_linux/tun_device.h"

#include "backends/common/backend_log.h"
#include "backends/tun_linux/offload_coalesce.h"
#include "backends/tun_linux/offload_virtio.h"
#include "backends/tun_linux/tun_ioctl.h"
#include "backends/tun_linux/tun_link.h"
#include "backends/tun_linux/tun_namespace.h"
#include "backends/tun_linux/tun_netlink.h"
#include "platform/os.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#if !defined(IFF_NO_CARRIER)
#define IFF_NO_CARRIER 0x0040 /* since Linux 6.2: attaching doesn't switch the link on; ignored before */
#endif

/* Since Linux 6.2. */
#if !defined(TUN_F_USO4)
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

#define TUN_PATH "/dev/net/tun"

/* ---- Pieces ---- */

static _Thread_local int system_error;

int
tun_device_system_error(void)
{
    const int error = system_error;
    system_error = 0;
    return error;
}

/* Stores a descriptor that OS_FD returned, or returns the error of making it. */
static DWORD
store_fd(int *place, int fd, const char *what)
{
    const int failure = errno;
    *place = fd;
    if (fd >= 0)
        return ERROR_SUCCESS;
    system_error = failure;
    if (failure == EMFILE || failure == ENFILE)
        backend_log(WINTUN_LOG_ERR, "%s: this process has too many open files", what);
    else
        backend_log(WINTUN_LOG_ERR, "%s failed: %s", what, strerror(failure));
    return os_error_from_errno(failure);
}

/* A service may be refused netlink sockets although it has /dev/net/tun. */
static DWORD
store_control(tun_device *device)
{
    const DWORD code = store_fd(&device->control, tun_namespace_control(), "Opening a netlink socket");
    const bool forbidden = system_error == EAFNOSUPPORT || system_error == EPERM || system_error == EACCES;
    if (code && forbidden)
        backend_log(WINTUN_LOG_ERR, "A sandbox forbids it: let systemd's RestrictAddressFamilies= have AF_NETLINK");
    return code;
}

/* The error of open(), in words that name the next step. */
static DWORD
open_failure(int failure)
{
    system_error = failure;
    switch (failure)
    {
    case EPERM:
        /* The cause is neither the file's mode nor the user: that would be EACCES. */
        backend_log(WINTUN_LOG_ERR,
                    "%s can't be opened by any user: the device rules of this container or service forbid it; start "
                    "it with --device %s (LXC: devices.allow = c 10:200 rwm, systemd: DeviceAllow=%s): %s",
                    TUN_PATH, TUN_PATH, TUN_PATH, strerror(failure));
        return ERROR_ACCESS_DENIED;
    case EACCES:
        backend_log(WINTUN_LOG_ERR,
                    "%s may not be opened by this user; run as root, or let the administrator chmod 0666 it: %s",
                    TUN_PATH, strerror(failure));
        return ERROR_ACCESS_DENIED;
    case ENOENT:
    case ENOTDIR:
    case ENODEV:
    case ENXIO:
        backend_log(WINTUN_LOG_ERR,
                    "%s can't be opened, as the kernel's TUN driver or its device file is missing; load the driver "
                    "(modprobe tun), or start the container with --device %s: %s",
                    TUN_PATH, TUN_PATH, strerror(failure));
        return ERROR_FILE_NOT_FOUND;
    default:
        errno = failure;
        return ERROR_SUCCESS;
    }
}

static DWORD
open_tun(int *fd)
{
    const int opened = OS_FD(open(TUN_PATH, O_RDWR | O_NONBLOCK | O_CLOEXEC));
    *fd = -1;
    const DWORD code = opened < 0 ? open_failure(errno) : ERROR_SUCCESS;
    return code ? code : store_fd(fd, opened, "Opening " TUN_PATH);
}

/* Opens what every device needs: everything that fails without free descriptors comes before the interface. */
static DWORD
open_descriptors(tun_device *device, tun_origin origin)
{
    *device = (tun_device){.origin = origin, .fd = -1, .control = -1, .home = -1};
    DWORD code = store_control(device);
    if (!code)
        code = open_tun(&device->fd);
    if (code)
        return code;
    const int home = tun_namespace_here();
    /* If the system doesn't report it, the calling thread's namespace is used. */
    if (home < 0 && errno != EMFILE && errno != ENFILE)
        return ERROR_SUCCESS;
    return store_fd(&device->home, home, "Opening the network namespace");
}

static void
adopt_name(tun_device *device, const char *name)
{
    memset(device->name, 0, sizeof(device->name));
    memcpy(device->name, name, strnlen(name, IFNAMSIZ - 1));
}

/* ---- Offloads ---- */

static _Atomic bool offloads_wanted = true;

void
tun_device_want_offloads(bool wanted)
{
    atomic_store(&offloads_wanted, wanted);
}

/* The flag that an interface is attached to with. */
static int
virtio_flag(void)
{
    return atomic_load(&offloads_wanted) ? IFF_VNET_HDR : 0;
}

#define ALL_OFFLOADS (OFFLOAD_TSO4 | OFFLOAD_TSO6 | OFFLOAD_USO)

/* Asks the kernel for superpackets, of as many kinds as it has: TCP and UDP, TCP alone, or none. With `flags` of the
 * attached descriptor. Others that are attached would get them too. */
static void
negotiate_offloads(tun_device *device, int flags)
{
    const unsigned tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
    int header_size = sizeof(virtio_header);
    device->format = (tun_format){.virtio = (flags & IFF_VNET_HDR) != 0};
    if (!device->format.virtio)
        return;
    /* A persistent interface may have kept another size. */
    (void)tun_ioctl(device->fd, TUNSETVNETHDRSZ, &header_size);
    if (tun_ioctl_value(device->fd, TUNSETOFFLOAD, tcp | TUN_F_USO4 | TUN_F_USO6) == 0)
        device->format.offloads = ALL_OFFLOADS;
    else if (tun_ioctl_value(device->fd, TUNSETOFFLOAD, tcp) == 0)
        device->format.offloads = OFFLOAD_TSO4 | OFFLOAD_TSO6;
    else
        (void)tun_ioctl_value(device->fd, TUNSETOFFLOAD, 0);
}

/* Keeps what others have agreed with the kernel. It takes superpackets whether or not it hands over any, and refuses
 * those that it doesn't know, which a session finds out. */
static DWORD
keep_format(tun_device *device, int flags)
{
    int header_size = sizeof(virtio_header);
    device->format = (tun_format){.virtio = (flags & IFF_VNET_HDR) != 0};
    if (!device->format.virtio)
        return ERROR_SUCCESS;
    (void)tun_ioctl(device->fd, TUNGETVNETHDRSZ, &header_size);
    if (header_size < (int)sizeof(virtio_header) || header_size > (int)VIRTIO_MAX_HEADER)
    {
        backend_log(WINTUN_LOG_ERR, "The virtio headers of \"%s\" have %d bytes, not %u to %u", device->name,
                    header_size, (unsigned)sizeof(virtio_header), VIRTIO_MAX_HEADER);
        return ERROR_INVALID_PARAMETER;
    }
    device->format.padding = (unsigned)header_size - (unsigned)sizeof(virtio_header);
    device->format.offloads = atomic_load(&offloads_wanted) ? ALL_OFFLOADS : 0;
    return ERROR_SUCCESS;
}

/* ---- Create and attach ---- */

/* Attaches a descriptor to the interface of this name. Some drivers refuse the flags that they don't know, such as
 * gVisor's: it is tried again without what can be done without. *flags become those that were taken; errno
 * otherwise. */
static bool
set_interface(int fd, const char *name, int *flags)
{
    static const int optional[] = {IFF_NO_CARRIER, IFF_VNET_HDR, IFF_TUN_EXCL};
    for (size_t dropped = 0;; dropped++)
    {
        struct ifreq request = tun_link_request(name);
        request.ifr_flags = (short)*flags;
        if (tun_ioctl(fd, TUNSETIFF, &request) == 0)
            return true;
        if (errno != EINVAL || dropped == sizeof(optional) / sizeof(*optional))
            return false;
        *flags &= ~optional[dropped];
    }
}

static DWORD
create_failure(int failure, const char *name)
{
    system_error = failure;
    switch (failure)
    {
    case EBUSY:
    case EEXIST:
        backend_log(WINTUN_LOG_ERR, "The interface name \"%s\" is taken", name);
        return ERROR_ALREADY_EXISTS;
    case EPERM:
    case EACCES:
        backend_log(WINTUN_LOG_ERR, "Creating the interface \"%s\" needs the capability CAP_NET_ADMIN", name);
        return ERROR_ACCESS_DENIED;
    default:
        backend_log(WINTUN_LOG_ERR, "Creating the interface \"%s\" failed: %s", name, strerror(failure));
        return os_error_from_errno(failure);
    }
}

/* The kernel finds an interface by its alternative names as well, which are nobody's to open or to make anew. */
static bool
is_alternative_name(int control, DWORD index, const char *name)
{
    char own[IFNAMSIZ];
    if (!tun_link_own_name(control, index, own) || strncmp(own, name, IFNAMSIZ) == 0)
        return false;
    backend_log(WINTUN_LOG_ERR, "\"%s\" is an alternative name of the interface \"%s\"", name, own);
    system_error = EEXIST;
    return true;
}

DWORD
tun_device_create(tun_device *device, const char *name, bool multi_queue)
{
    DWORD code = open_descriptors(device, TUN_MADE);
    /* A taken name is found even if no interface may be made. */
    const DWORD index = device->control >= 0 ? tun_link_index(device->control, name) : 0;
    if (index)
    {
        const bool alternative = is_alternative_name(device->control, index, name);
        code = alternative ? ERROR_ALREADY_EXISTS : create_failure(EEXIST, name);
        goto failed;
    }
    if (code)
        goto failed;
    int flags = IFF_TUN | IFF_NO_PI | IFF_NO_CARRIER | IFF_TUN_EXCL | virtio_flag();
    device->multi_queue = multi_queue;
    if (multi_queue)
        flags |= IFF_MULTI_QUEUE;
    if (!set_interface(device->fd, name, &flags))
    {
        code = create_failure(errno, name);
        goto failed;
    }
    adopt_name(device, name);
    device->index = tun_link_index(device->control, device->name);
    negotiate_offloads(device, flags);
    tun_link_set_carrier(device->fd, device->control, device->name, false);
    return ERROR_SUCCESS;

failed:
    tun_device_close(device);
    return code;
}

static DWORD
attach_failure(int failure, const char *name)
{
    system_error = failure;
    switch (failure)
    {
    case EBUSY:
        backend_log(WINTUN_LOG_ERR, "The interface \"%s\" is in use: a process is attached to it already", name);
        return ERROR_ALREADY_INITIALIZED;
    case EPERM:
    case EACCES:
        backend_log(WINTUN_LOG_ERR,
                    "Attaching to the interface \"%s\" needs the capability CAP_NET_ADMIN or to be its owner", name);
        return ERROR_ACCESS_DENIED;
    case EINVAL:
        backend_log(WINTUN_LOG_ERR, "The interface \"%s\" is not a TUN interface", name);
        return ERROR_INVALID_PARAMETER;
    default:
        backend_log(WINTUN_LOG_ERR, "Attaching to the interface \"%s\" failed: %s", name, strerror(failure));
        return os_error_from_errno(failure);
    }
}

static DWORD
not_found(const char *name)
{
    backend_log(WINTUN_LOG_ERR, "There is no interface named \"%s\"", name);
    return ERROR_NOT_FOUND;
}

/* TUNGETIFF can't tell: in its answer, IFF_NO_PI's bit is set as well if there is no filter (IFF_NOFILTER). But zeros
 * are packet information without a packet, which the kernel takes, or would if the interface were up; or else a packet
 * that is not IP, which it refuses. */
static bool
has_packet_information(int fd, int flags)
{
    static const BYTE zeros[64];
    if ((flags & IFF_NO_PI) == 0)
        return true;
    int header_size = 0;
    if ((flags & IFF_VNET_HDR) && (tun_ioctl(fd, TUNGETVNETHDRSZ, &header_size) != 0 || header_size > 60))
        header_size = sizeof(virtio_header);
    return write(fd, zeros, (size_t)header_size + 4) >= 0 || errno == EIO;
}

/* Agrees with the kernel on how packets look, unless somebody else has: then our flags have no effect. */
static DWORD
agree_on_format(tun_device *device, int flags)
{
    if (!tun_device_is_shared(device, 1))
    {
        negotiate_offloads(device, flags);
        /* Attaching switches it on, before Linux 6.2. */
        tun_link_set_carrier(device->fd, device->control, device->name, false);
        return ERROR_SUCCESS;
    }
    struct ifreq found = {0};
    if (tun_ioctl(device->fd, TUNGETIFF, &found) != 0 || has_packet_information(device->fd, found.ifr_flags))
    {
        backend_log(WINTUN_LOG_ERR,
                    "The process attached to the interface \"%s\" reads packet information, 4 bytes before each packet "
                    "(it lacks IFF_NO_PI)",
                    device->name);
        return ERROR_INVALID_PARAMETER;
    }
    return keep_format(device, found.ifr_flags);
}

/* An interface of several queues takes the flag for that, and others don't. */
static bool
attach_to(tun_device *device, const char *name, int *flags)
{
    const int wanted = *flags;
    if (set_interface(device->fd, name, flags))
        return true;
    *flags = wanted | IFF_MULTI_QUEUE;
    device->multi_queue = errno == EINVAL && set_interface(device->fd, name, flags);
    return device->multi_queue;
}

DWORD
tun_device_attach(tun_device *device, const char *name)
{
    DWORD code = open_descriptors(device, TUN_OPENED);
    const DWORD index = device->control >= 0 ? tun_link_index(device->control, name) : 0;
    if (device->control >= 0 && !index)
        code = not_found(name);
    else if (index && is_alternative_name(device->control, index, name))
        code = ERROR_ALREADY_EXISTS;
    if (code)
        goto failed;
    int flags = IFF_TUN | IFF_NO_PI | IFF_NO_CARRIER | virtio_flag();
    if (!attach_to(device, name, &flags))
    {
        code = attach_failure(errno, name);
        goto failed;
    }
    /* Had it gone meanwhile, the kernel would have made a new one, which goes as we close it. */
    if (tun_link_index(device->control, name) != index)
    {
        code = not_found(name);
        goto failed;
    }
    adopt_name(device, name);
    device->index = index;
    code = agree_on_format(device, flags);
    if (!code)
        return ERROR_SUCCESS;

failed:
    tun_device_close(device);
    return code;
}

/* The fault of a descriptor that was attached elsewhere, or NULL. */
static const char *
descriptor_fault(int fd, struct ifreq *request)
{
    if (tun_ioctl(fd, TUNGETIFF, request) != 0)
        return "is not one of a TUN interface";
    if ((request->ifr_flags & IFF_TUN) == 0)
        return "is of a TAP interface, whose packets have Ethernet headers";
    if (has_packet_information(fd, request->ifr_flags))
        return "is of a TUN interface with packet information, 4 bytes before each packet (it lacks IFF_NO_PI)";
    return NULL;
}

DWORD
tun_device_adopt(tun_device *device, int fd)
{
    *device = (tun_device){.origin = TUN_ADOPTED, .fd = -1, .control = -1, .home = -1};
    struct ifreq request = {0};
    const char *fault = descriptor_fault(fd, &request);
    if (fault)
    {
        backend_log(WINTUN_LOG_ERR, "Descriptor %d %s", fd, fault);
        return ERROR_INVALID_PARAMETER;
    }
    DWORD code = store_fd(&device->fd, OS_FD(fcntl(fd, F_DUPFD_CLOEXEC, 3)), "Copying the descriptor");
    if (!code)
        code = store_control(device);
    if (!code && fcntl(device->fd, F_SETFL, O_RDWR | O_NONBLOCK) != 0)
        code = os_error_from_errno(errno);
    if (code)
    {
        tun_device_close(device);
        return code;
    }
    device->home = tun_namespace_here();
    adopt_name(device, request.ifr_name);
    device->index = tun_link_index(device->control, device->name);
    device->multi_queue = (request.ifr_flags & IFF_MULTI_QUEUE) != 0;
    code = keep_format(device, request.ifr_flags);
    if (code)
        tun_device_close(device);
    else
        (void)tun_device_refresh(device);
    return code;
}

/* True if somebody else is attached to the interface. */
bool
tun_device_is_shared(const tun_device *device, unsigned ours)
{
    tun_link_state state;
    return device->multi_queue && tun_netlink_read(device->control, device->index, &state) && state.queues > ours;
}

void
tun_device_close(tun_device *device)
{
    const bool ours = device->origin != TUN_ADOPTED && !device->left;
    /* A persistent interface keeps them, and its next user may not know of superpackets. */
    if (device->format.virtio && ours && !tun_device_is_shared(device, 1))
        (void)tun_ioctl_value(device->fd, TUNSETOFFLOAD, 0);
    device->format = (tun_format){0};
    os_fd_close(device->fd);
    os_fd_close(device->control);
    os_fd_close(device->home);
    device->fd = device->control = device->home = -1;
}

/* ---- Where it is now ---- */

/* Takes over the descriptor. If the system doesn't allow that, everything stays as it was. */
static void
follow_to(tun_device *device, int space)
{
    const bool moved = device->home < 0 || !tun_namespace_same(space, device->home);
    /* A socket belongs to the namespace that its maker was in, so a thread goes there and makes one. */
    const int control = moved ? tun_namespace_call(space, tun_namespace_control) : -1;
    if (control < 0)
    {
        os_fd_close(space);
        return;
    }
    os_fd_close(device->control);
    os_fd_close(device->home);
    device->control = control;
    device->home = space;
    device->index = tun_link_index(control, device->name);
}

bool
tun_device_refresh(tun_device *device)
{
    struct ifreq request = {0};
    if (device->fd < 0 || tun_ioctl(device->fd, TUNGETIFF, &request) != 0)
        return false;
    adopt_name(device, request.ifr_name);
    const int space = OS_FD(tun_ioctl_value(device->fd, TUNGETDEVNETNS, 0));
    if (space >= 0)
        follow_to(device, space);
    return true;
}

/* True if the calling thread is in the interface's namespace; if the system doesn't report it, it is. */
static bool
is_here(const tun_device *device)
{
    const int here = tun_namespace_here();
    const bool same = here < 0 || device->home < 0 || tun_namespace_same(here, device->home);
    os_fd_close(here);
    return same;
}

bool
tun_device_is_named(tun_device *device, const char *name)
{
    return tun_device_refresh(device) && strcmp(device->name, name) == 0 && is_here(device);
}

int
tun_device_namespace(const tun_device *device)
{
    /* The question needs CAP_NET_ADMIN; an interface that its owner opened is most likely still where it was. */
    const int space = device->fd >= 0 ? os_fd_move(tun_ioctl_value(device->fd, TUNGETDEVNETNS, 0)) : -1;
    return space >= 0 || device->home < 0 ? space : fcntl(device->home, F_DUPFD_CLOEXEC, 3);
}

/* ---- Link, queue and driver ---- */

static void
drain(const tun_device *device)
{
    /* A short buffer takes a whole packet as well. */
    int left = tun_link_queue_length(device->control, device->name);
    char start[16];
    while (left-- > 0 && read(device->fd, start, sizeof(start)) >= 0)
        continue;
}

void
tun_device_begin(tun_device *device)
{
    if (device->origin != TUN_ADOPTED)
        drain(device);
    tun_link_state state;
    /* An interface that we made has no other state than ours, whatever anybody did to it. */
    if (device->origin != TUN_MADE && tun_netlink_read(device->control, device->index, &state) && state.carrier)
        return;
    device->lit = true;
    tun_link_set_carrier(device->fd, device->control, device->name, true);
}

void
tun_device_end(tun_device *device, unsigned ours)
{
    if (!device->lit || device->left || device->origin == TUN_ADOPTED || tun_device_is_shared(device, ours))
        return;
    device->lit = false;
    tun_link_set_carrier(device->fd, device->control, device->name, false);
}

bool
tun_device_is_dark(const tun_device *device)
{
    struct ifreq request = tun_link_request(device->name);
    tun_link_state state;
    /* The flag follows the link a little later, so it isn't enough. */
    return tun_ioctl(device->control, SIOCGIFFLAGS, &request) == 0 && (request.ifr_flags & IFF_UP) &&
           !(request.ifr_flags & IFF_RUNNING) && tun_netlink_read(device->control, device->index, &state) &&
           !state.carrier;
}

DWORD
tun_driver_version(DWORD *version)
{
    int fd;
    const DWORD code = open_tun(&fd);
    if (code)
        return code;
    os_fd_close(fd);
    unsigned major = 0;
    unsigned minor = 0;
    struct utsname system;
    if (uname(&system) != 0 || sscanf(system.release, "%u.%u", &major, &minor) != 2)
        return ERROR_NOT_SUPPORTED;
    *version = (major & 0xFFFF) << 16 | (minor & 0xFFFF);
    return ERROR_SUCCESS;
}
