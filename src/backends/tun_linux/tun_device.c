/* SPDX-License-Identifier: MIT
 *
 * /dev/net/tun and its ioctls.
 */
#include "backends/tun_linux/tun_device.h"

#include "backends/common/backend_log.h"
#include "backends/tun_linux/offload_coalesce.h"
#include "backends/tun_linux/offload_virtio.h"
#include "backends/tun_linux/tun_ioctl.h"
#include "platform/os.h"

#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/sockios.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
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
#define NAMESPACE_PATH "/proc/thread-self/ns/net"

/* ---- Names ---- */

/* The kernel's idea of white space, which includes byte 0xA0 wherever it stands. */
static bool
is_space(unsigned char byte)
{
    return byte == ' ' || (byte >= '\t' && byte <= '\r') || byte == 0xA0;
}

static const char *
name_fault(const char *name)
{
    const size_t length = strlen(name);
    if (length == 0)
        return "it is empty";
    if (length >= IFNAMSIZ)
        return "it has more than 15 bytes in UTF-8";
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return "\".\" and \"..\" are not allowed";
    if (strpbrk(name, "/:"))
        return "'/' and ':' are not allowed";
    /* The kernel would put a number in its place and make an interface of another name. */
    if (strchr(name, '%'))
        return "'%' is not allowed";
    if (strstr(name, "\xEF\xBF\xBD"))
        return "it was no valid UTF-16";
    for (size_t i = 0; i < length; i++)
    {
        if (is_space((unsigned char)name[i]))
            return "white space is not allowed";
    }
    return NULL;
}

bool
tun_name_valid(const char *name)
{
    const char *fault = name_fault(name);
    if (fault)
        backend_log(WINTUN_LOG_ERR,
                    "\"%s\" is no interface name: %s (1 to 15 bytes, without '%%', '/', ':' and white space)", name,
                    fault);
    return !fault;
}

/* ---- Pieces ---- */

/* Stores a descriptor that OS_FD gave, or returns what making it failed with. */
static DWORD
store_fd(int *place, int fd, const char *what)
{
    const DWORD code = fd < 0 ? os_error_from_errno(errno) : ERROR_SUCCESS;
    *place = fd;
    if (code == ERROR_TOO_MANY_OPEN_FILES)
        backend_log(WINTUN_LOG_ERR, "%s: this process has too many open files", what);
    else if (code)
        backend_log(WINTUN_LOG_ERR, "%s failed with error %u", what, (unsigned)code);
    return code;
}

static DWORD
open_tun(int *fd)
{
    const int opened = OS_FD(open(TUN_PATH, O_RDWR | O_NONBLOCK | O_CLOEXEC));
    const int failure = errno;
    *fd = -1;
    if (opened < 0 && (failure == EACCES || failure == EPERM))
    {
        backend_log(WINTUN_LOG_ERR, "%s may not be opened by this user: %s", TUN_PATH, strerror(failure));
        return ERROR_ACCESS_DENIED;
    }
    if (opened < 0 && (failure == ENOENT || failure == ENOTDIR || failure == ENODEV || failure == ENXIO))
    {
        backend_log(WINTUN_LOG_ERR, "%s can't be opened: the kernel's TUN driver, or its device file, is missing: %s",
                    TUN_PATH, strerror(failure));
        return ERROR_FILE_NOT_FOUND;
    }
    errno = failure;
    return store_fd(fd, opened, "Opening " TUN_PATH);
}

static struct ifreq
request_for(const char *name)
{
    struct ifreq request = {0};
    memcpy(request.ifr_name, name, strnlen(name, IFNAMSIZ - 1));
    return request;
}

/* 0 if there is no such interface. */
static DWORD
index_of(int control, const char *name)
{
    struct ifreq request = request_for(name);
    return tun_ioctl(control, SIOCGIFINDEX, &request) == 0 ? (DWORD)request.ifr_ifindex : 0;
}

static int
open_control(void)
{
    return OS_FD(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
}

/* The calling thread's. */
static int
open_namespace(void)
{
    return OS_FD(open(NAMESPACE_PATH, O_RDONLY | O_CLOEXEC));
}

static bool
same_namespace(int first, int second)
{
    struct stat a;
    struct stat b;
    return fstat(first, &a) == 0 && fstat(second, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* Opens what every device needs: everything that can fail for want of descriptors comes before the interface. */
static DWORD
open_descriptors(tun_device *device)
{
    *device = (tun_device){.fd = -1, .control = -1, .home = -1};
    DWORD code = store_fd(&device->control, open_control(), "Opening a netlink socket");
    if (!code)
        code = open_tun(&device->fd);
    if (code)
        return code;
    const int home = open_namespace();
    /* Without /proc the calling thread's namespace will have to do. */
    if (home < 0 && errno != EMFILE && errno != ENFILE)
        return ERROR_SUCCESS;
    return store_fd(&device->home, home, "Opening " NAMESPACE_PATH);
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

/* Asks the kernel for superpackets, of as many kinds as it has: TCP and UDP, TCP alone, or none. With `flags` of the
 * attached descriptor. */
static void
negotiate_offloads(tun_device *device, int flags)
{
    const unsigned tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
    int header_size = sizeof(virtio_header);
    device->format = (tun_format){.virtio = (flags & IFF_VNET_HDR) != 0};
    if (!device->format.virtio)
        return;
    /* A persistent interface, or another process, may have left another size. */
    (void)tun_ioctl(device->fd, TUNSETVNETHDRSZ, &header_size);
    if (tun_ioctl_value(device->fd, TUNSETOFFLOAD, tcp | TUN_F_USO4 | TUN_F_USO6) == 0)
        device->format.offloads = OFFLOAD_TSO4 | OFFLOAD_TSO6 | OFFLOAD_USO;
    else if (tun_ioctl_value(device->fd, TUNSETOFFLOAD, tcp) == 0)
        device->format.offloads = OFFLOAD_TSO4 | OFFLOAD_TSO6;
    else
        (void)tun_ioctl_value(device->fd, TUNSETOFFLOAD, 0);
}

/* ---- Create and attach ---- */

static DWORD
create_failure(int failure, const char *name)
{
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

DWORD
tun_device_create(tun_device *device, const char *name)
{
    DWORD code = open_descriptors(device);
    /* Whether the name is taken can be told even if no interface may be made. */
    if (device->control >= 0 && index_of(device->control, name))
    {
        code = create_failure(EEXIST, name);
        goto failed;
    }
    if (code)
        goto failed;
    struct ifreq request = request_for(name);
    request.ifr_flags = (short)(IFF_TUN | IFF_NO_PI | IFF_NO_CARRIER | IFF_TUN_EXCL | virtio_flag());
    if (tun_ioctl(device->fd, TUNSETIFF, &request) != 0)
    {
        code = create_failure(errno, name);
        goto failed;
    }
    adopt_name(device, request.ifr_name);
    device->index = index_of(device->control, device->name);
    negotiate_offloads(device, request.ifr_flags);
    tun_device_set_carrier(device, false);
    return ERROR_SUCCESS;

failed:
    tun_device_close(device);
    return code;
}

static DWORD
attach_failure(int failure, const char *name)
{
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
        backend_log(WINTUN_LOG_ERR, "The interface \"%s\" is no TUN interface, or one of several queues", name);
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

DWORD
tun_device_attach(tun_device *device, const char *name)
{
    DWORD code = open_descriptors(device);
    const DWORD index = device->control >= 0 ? index_of(device->control, name) : 0;
    if (device->control >= 0 && !index)
        code = not_found(name);
    if (code)
        goto failed;
    struct ifreq request = request_for(name);
    request.ifr_flags = (short)(IFF_TUN | IFF_NO_PI | IFF_NO_CARRIER | virtio_flag());
    if (tun_ioctl(device->fd, TUNSETIFF, &request) != 0)
    {
        code = attach_failure(errno, name);
        goto failed;
    }
    /* Had it gone meanwhile, the kernel would have made a new one, which goes as we close it. */
    if (index_of(device->control, name) != index)
    {
        code = not_found(name);
        goto failed;
    }
    adopt_name(device, name);
    device->index = index;
    negotiate_offloads(device, request.ifr_flags);
    /* Attaching switches it on, before Linux 6.2. */
    tun_device_set_carrier(device, false);
    return ERROR_SUCCESS;

failed:
    tun_device_close(device);
    return code;
}

/* TUNGETIFF can't tell: in its answer, IFF_NO_PI's bit is set as well for what has no filter (IFF_NOFILTER). But zeros
 * are packet information without a packet, which the kernel takes, or would if the interface were up; or else a packet
 * that is no IP, which it refuses. */
static bool
has_packet_information(int fd, int flags)
{
    static const BYTE zeros[64];
    int header_size = 0;
    if ((flags & IFF_NO_PI) == 0)
        return true;
    if ((flags & IFF_VNET_HDR) && (tun_ioctl(fd, TUNGETVNETHDRSZ, &header_size) != 0 || header_size > 60))
        header_size = sizeof(virtio_header);
    return write(fd, zeros, (size_t)header_size + 4) >= 0 || errno == EIO;
}

/* What is wrong with a descriptor that was attached elsewhere, or NULL. */
static const char *
descriptor_fault(int fd, struct ifreq *request)
{
    if (tun_ioctl(fd, TUNGETIFF, request) != 0)
        return "is none of a TUN interface";
    if ((request->ifr_flags & IFF_TUN) == 0)
        return "is of a TAP interface, whose packets have Ethernet headers";
    if (has_packet_information(fd, request->ifr_flags))
        return "is of a TUN interface with packet information, 4 bytes before each packet (it lacks IFF_NO_PI)";
    return NULL;
}

DWORD
tun_device_adopt(tun_device *device, int fd)
{
    struct ifreq request = {0};
    *device = (tun_device){.fd = -1, .control = -1, .home = -1};
    const char *fault = descriptor_fault(fd, &request);
    if (fault)
    {
        backend_log(WINTUN_LOG_ERR, "Descriptor %d %s", fd, fault);
        return ERROR_INVALID_PARAMETER;
    }
    DWORD code = store_fd(&device->fd, OS_FD(fcntl(fd, F_DUPFD_CLOEXEC, 3)), "Copying the descriptor");
    if (!code)
        code = store_fd(&device->control, open_control(), "Opening a netlink socket");
    if (!code && fcntl(device->fd, F_SETFL, O_RDWR | O_NONBLOCK) != 0)
        code = os_error_from_errno(errno);
    if (code)
    {
        tun_device_close(device);
        return code;
    }
    device->home = open_namespace();
    adopt_name(device, request.ifr_name);
    device->index = index_of(device->control, device->name);
    negotiate_offloads(device, request.ifr_flags);
    (void)tun_device_refresh(device);
    return ERROR_SUCCESS;
}

void
tun_device_close(tun_device *device)
{
    /* A persistent interface keeps them, and its next user may not know of superpackets. */
    if (device->format.virtio)
        (void)tun_ioctl_value(device->fd, TUNSETOFFLOAD, 0);
    device->format = (tun_format){0};
    os_fd_close(device->fd);
    os_fd_close(device->control);
    os_fd_close(device->home);
    device->fd = device->control = device->home = -1;
}

/* ---- Where it is now ---- */

typedef struct control_opening
{
    int space;
    int control;
} control_opening;

static void *
open_control_there(void *parameter)
{
    control_opening *opening = parameter;
    opening->control = setns(opening->space, CLONE_NEWNET) == 0 ? open_control() : -1;
    return NULL;
}

/* A socket belongs to the namespace that its maker was in, so a thread goes there and makes one. */
static int
open_control_in(int space)
{
    control_opening opening = {.space = space, .control = -1};
    pthread_t thread;
    if (pthread_create(&thread, NULL, open_control_there, &opening) != 0)
        return -1;
    pthread_join(thread, NULL);
    return opening.control;
}

/* Takes over the descriptor. What the system doesn't allow leaves things as they were. */
static void
follow_to(tun_device *device, int space)
{
    if (device->home >= 0 && same_namespace(space, device->home))
    {
        os_fd_close(space);
        return;
    }
    const int control = open_control_in(space);
    if (control < 0)
    {
        os_fd_close(space);
        return;
    }
    os_fd_close(device->control);
    os_fd_close(device->home);
    device->control = control;
    device->home = space;
    device->index = index_of(control, device->name);
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

bool
tun_device_is_named(tun_device *device, const char *name)
{
    if (!tun_device_refresh(device) || strcmp(device->name, name) != 0)
        return false;
    const int here = open_namespace();
    /* Without /proc nothing is known of either. */
    const bool same = here < 0 || device->home < 0 || same_namespace(here, device->home);
    os_fd_close(here);
    return same;
}

int
tun_device_namespace(const tun_device *device)
{
    /* The question needs CAP_NET_ADMIN; an interface that its owner opened is most likely still where it was. */
    const int space = device->fd >= 0 ? os_fd_move(tun_ioctl_value(device->fd, TUNGETDEVNETNS, 0)) : -1;
    return space >= 0 || device->home < 0 ? space : fcntl(device->home, F_DUPFD_CLOEXEC, 3);
}

/* ---- Link and queue ---- */

void
tun_device_set_carrier(tun_device *device, bool up)
{
    int on = up;
    /* Unknown before Linux 5.0, where the link is up while somebody is attached. */
    if (tun_ioctl(device->fd, TUNSETCARRIER, &on) != 0)
        return;
    /* The kernel opens and closes its queues for the new state up to a second later, unless it is asked for the link's
     * state. Meanwhile packets would be dropped at the start and queued after the end. */
    struct ethtool_value link = {.cmd = ETHTOOL_GLINK};
    struct ifreq request = request_for(device->name);
    request.ifr_data = (char *)&link;
    (void)tun_ioctl(device->control, SIOCETHTOOL, &request);
}

void
tun_device_drain(tun_device *device)
{
    /* A short buffer takes a whole packet as well. */
    char start[16];
    struct ifreq request = request_for(device->name);
    int left = tun_ioctl(device->control, SIOCGIFTXQLEN, &request) == 0 ? request.ifr_qlen : 1000;
    while (left-- > 0 && read(device->fd, start, sizeof(start)) >= 0)
        continue;
}

DWORD
tun_driver_version(DWORD *code)
{
    int fd;
    *code = open_tun(&fd);
    if (*code)
        return 0;
    os_fd_close(fd);
    struct utsname system;
    unsigned major = 0;
    unsigned minor = 0;
    if (uname(&system) != 0 || sscanf(system.release, "%u.%u", &major, &minor) != 2)
    {
        *code = ERROR_NOT_SUPPORTED;
        return 0;
    }
    return (major & 0xFFFF) << 16 | (minor & 0xFFFF);
}
