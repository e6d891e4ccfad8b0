/* SPDX-License-Identifier: MIT
 *
 * tun_link.h
 */
#include "backends/tun_linux/tun_link.h"

#include "backends/common/backend_log.h"
#include "backends/tun_linux/tun_ioctl.h"

#include <errno.h>
#include <linux/ethtool.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <string.h>

/* The queue length that a TUN interface has from the beginning. */
#define DEFAULT_QUEUE_LENGTH 500

struct ifreq
tun_link_request(const char *name)
{
    struct ifreq request = {0};
    memcpy(request.ifr_name, name, strnlen(name, IFNAMSIZ - 1));
    return request;
}

DWORD
tun_link_index(int control, const char *name)
{
    struct ifreq request = tun_link_request(name);
    return tun_ioctl(control, SIOCGIFINDEX, &request) == 0 ? (DWORD)request.ifr_ifindex : 0;
}

bool
tun_link_own_name(int control, DWORD index, char name[IFNAMSIZ])
{
    struct ifreq request = {.ifr_ifindex = (int)index};
    if (tun_ioctl(control, SIOCGIFNAME, &request) != 0)
        return false;
    memcpy(name, request.ifr_name, IFNAMSIZ);
    return true;
}

void
tun_link_set_carrier(int fd, int control, const char *name, bool up)
{
    int on = up;
    /* Unknown before Linux 5.0, where the link is up while somebody is attached. */
    if (tun_ioctl(fd, TUNSETCARRIER, &on) != 0)
        return;
    /* The kernel opens and closes its queues for the new state up to a second later, unless it is asked for the link's
     * state. Meanwhile packets would be dropped at the start and queued after the end. */
    struct ethtool_value link = {.cmd = ETHTOOL_GLINK};
    struct ifreq request = tun_link_request(name);
    request.ifr_data = (char *)&link;
    (void)tun_ioctl(control, SIOCETHTOOL, &request);
}

int
tun_link_queue_length(int control, const char *name)
{
    struct ifreq request = tun_link_request(name);
    return tun_ioctl(control, SIOCGIFTXQLEN, &request) == 0 ? request.ifr_qlen : DEFAULT_QUEUE_LENGTH;
}

void
tun_link_raise_queue_length(int control, const char *name, int length)
{
    struct ifreq request = tun_link_request(name);
    const int before = tun_link_queue_length(control, name);
    if (before >= length)
        return;
    request.ifr_qlen = length;
    if (tun_ioctl(control, SIOCSIFTXQLEN, &request) != 0)
        backend_log(WINTUN_LOG_WARN, "The queue of the interface \"%s\" can't be made longer than %d packets: %s", name,
                    before, strerror(errno));
}
