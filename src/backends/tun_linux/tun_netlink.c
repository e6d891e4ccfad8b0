/* SPDX-License-Identifier: MIT
 *
 * One rtnetlink request and its one answer at a time.
 */
#include "backends/tun_linux/tun_netlink.h"

#include <linux/if.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct link_request
{
    struct nlmsghdr header;
    struct ifinfomsg link;
    char attributes[RTA_SPACE(IFALIASZ)];
} link_request;

/* Large enough for all that the kernel tells about one link. */
typedef union link_answer
{
    struct nlmsghdr header;
    char bytes[16384];
} link_answer;

static void
start_request(link_request *request, uint16_t type, uint16_t flags, DWORD index)
{
    memset(request, 0, sizeof(*request));
    request->header.nlmsg_len = NLMSG_LENGTH(sizeof(request->link));
    request->header.nlmsg_type = type;
    request->header.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
    request->link.ifi_family = AF_UNSPEC;
    request->link.ifi_index = (int)index;
}

static void
add_attribute(link_request *request, uint16_t type, const void *data, size_t size)
{
    struct rtattr *attribute = (struct rtattr *)((char *)request + NLMSG_ALIGN(request->header.nlmsg_len));
    attribute->rta_type = type;
    attribute->rta_len = (uint16_t)RTA_LENGTH(size);
    memcpy(RTA_DATA(attribute), data, size);
    request->header.nlmsg_len = NLMSG_ALIGN(request->header.nlmsg_len) + (uint32_t)RTA_SPACE(size);
}

/* Returns the answer's length, 0 for an acknowledgement, or a negative errno. */
static ssize_t
exchange(int control, link_request *request, link_answer *answer)
{
    /* An answer that an interrupted exchange left behind must not be taken for this one's. */
    static _Atomic uint32_t sequence;
    request->header.nlmsg_seq = ++sequence;
    if (send(control, request, request->header.nlmsg_len, 0) < 0)
        return -errno;
    for (;;)
    {
        const ssize_t length = recv(control, answer, sizeof(*answer), 0);
        if (length < 0 && errno == EINTR)
            continue;
        if (length < 0)
            return -errno;
        if (!NLMSG_OK(&answer->header, (size_t)length))
            return -EPROTO;
        if (answer->header.nlmsg_seq != request->header.nlmsg_seq)
            continue;
        if (answer->header.nlmsg_type == NLMSG_ERROR)
            return ((const struct nlmsgerr *)NLMSG_DATA(&answer->header))->error;
        return length;
    }
}

int
tun_netlink_set_alias(int control, DWORD index, const char *alias)
{
    link_request request;
    link_answer answer;
    const size_t length = strlen(alias);
    if (length >= IFALIASZ)
        return ENAMETOOLONG;
    start_request(&request, RTM_SETLINK, NLM_F_ACK, index);
    add_attribute(&request, IFLA_IFALIAS, alias, length);
    const ssize_t result = exchange(control, &request, &answer);
    return result < 0 ? (int)-result : 0;
}

bool
tun_netlink_dropped(int control, DWORD index, uint64_t *dropped)
{
    link_request request;
    link_answer answer;
    start_request(&request, RTM_GETLINK, 0, index);
    if (exchange(control, &request, &answer) <= 0)
        return false;
    int left = (int)IFLA_PAYLOAD(&answer.header);
    const struct rtattr *attribute = IFLA_RTA((struct ifinfomsg *)NLMSG_DATA(&answer.header));
    for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left))
    {
        struct rtnl_link_stats64 stats = {0};
        if (attribute->rta_type != IFLA_STATS64)
            continue;
        /* Kernels append fields, so that either may know more of them. */
        const size_t size = RTA_PAYLOAD(attribute);
        memcpy(&stats, RTA_DATA(attribute), size < sizeof(stats) ? size : sizeof(stats));
        *dropped = stats.tx_dropped;
        return true;
    }
    return false;
}
