/* SPDX-License-Identifier: MIT
 *
 * A TUN interface as the kernel shows it: made or attached to through /dev/net/tun, asked by ioctl. Nothing here is
 * thread-safe; tun_adapter.c holds its lock around every call.
 */
#ifndef TUNRING_TUN_DEVICE_H
#define TUNRING_TUN_DEVICE_H

#include "wintun.h"

#include <net/if.h>
#include <stdbool.h>

/* How packets look on the descriptor. */
typedef struct tun_format
{
    bool virtio;       /* a virtio header stands before each, and what is read may be a superpacket */
    unsigned padding;  /* bytes between that header and the packet */
    unsigned offloads; /* OFFLOAD_ flags: superpackets that may be written */
} tun_format;

/* How an interface came to this process. */
typedef enum tun_origin
{
    TUN_MADE,   /* it goes with us */
    TUN_OPENED, /* it was there, and stays */
    TUN_ADOPTED /* by a descriptor that another program opened, and keeps */
} tun_origin;

typedef struct tun_device
{
    tun_origin origin;
    bool multi_queue;    /* others may be attached to the interface as well */
    bool lit;            /* it was we who switched the link on */
    bool left;           /* somebody else goes on with it: it stays as it is */
    int fd;              /* of /dev/net/tun, non-blocking; -1 once closed */
    int control;         /* a route socket in the interface's namespace, for ioctls and netlink */
    int home;            /* that namespace; -1 if the system doesn't report it */
    DWORD index;         /* of the interface in it */
    char name[IFNAMSIZ]; /* as last seen: it may be renamed */
    tun_format format;
} tun_device;

/* Sets whether devices that are made or attached to from now on use offloads, as far as the kernel has them. */
void tun_device_want_offloads(bool wanted);

/* True for a name that the kernel takes as it is; otherwise logs what is allowed. */
bool tun_name_valid(const char *name);

/* Returns and clears the system's own number of a failure of the three calls below in the calling thread, or 0. */
int tun_device_system_error(void);

/* Makes a new interface, its carrier down. ERROR_INVALID_PARAMETER, ERROR_ALREADY_EXISTS, ERROR_ACCESS_DENIED,
 * ERROR_FILE_NOT_FOUND without /dev/net/tun, ERROR_TOO_MANY_OPEN_FILES; each with a line in the log. */
DWORD tun_device_create(tun_device *device, const char *name, bool multi_queue);

/* Attaches to an interface that exists: to a queue of its own if that has several. As above, and ERROR_NOT_FOUND;
 * ERROR_ALREADY_EXISTS for an alternative name; ERROR_INVALID_PARAMETER if it is not a TUN interface, or somebody reads
 * other packets from it; ERROR_ALREADY_INITIALIZED if some process is attached to it and it has one queue. */
DWORD tun_device_attach(tun_device *device, const char *name);

/* Takes a descriptor that somebody has attached already, of which it makes a copy, and leaves the interface as it is.
 * ERROR_INVALID_PARAMETER, with a line in the log, if it is not that of a TUN interface without packet information. */
DWORD tun_device_adopt(tun_device *device, int fd);

/* True if more than `ours` descriptors are attached to the interface. */
bool tun_device_is_shared(const tun_device *device, unsigned ours);

/* Lets the interface go: the kernel removes it unless it is persistent. Idempotent. */
void tun_device_close(tun_device *device);

/* Brings `name` up to date, and `index` and `control` if the interface was moved to another namespace. False when the
 * interface is gone; both then stay as they were. */
bool tun_device_refresh(tun_device *device);

/* True if an interface of this name, seen from the calling thread's namespace, is this one. */
bool tun_device_is_named(tun_device *device, const char *name);

/* For the first session: throws away what the kernel has queued, unless the descriptor is somebody else's too, and
 * switches the link on if it is off. */
void tun_device_begin(tun_device *device);
/* After the last one: switches it off if that is ours to do, and nobody is attached but us by `ours` descriptors. */
void tun_device_end(tun_device *device, unsigned ours);

/* True if the link is off although the interface is up. Costs little while all is well. */
bool tun_device_is_dark(const tun_device *device);

/* A descriptor of the interface's namespace, for the caller to close; -1. */
int tun_device_namespace(const tun_device *device);

/* The running kernel's version, of which the driver is part, as major << 16 | minor. Fails if /dev/net/tun can't be
 * opened. */
DWORD tun_driver_version(DWORD *version);

#endif
