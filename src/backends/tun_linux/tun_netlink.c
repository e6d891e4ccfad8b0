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

/* IFLA_TUN_NUM_QUEUES, which older headers don't have. */
#define TUN_QUEUES 8

typedef struct link_request
{
    struct nlmsghdr header;
    struct ifinfomsg link;
    char attributes[RTA_SPACE(IFALIASZ)];
} link_request;

/* Large enough for all that the kernel reports about one link. */
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
    const size_t length = strlen(alias);
    if (length >= IFALIASZ)
        return ENAMETOOLONG;
    link_request request;
    start_request(&request, RTM_SETLINK, NLM_F_ACK, index);
    add_attribute(&request, IFLA_IFALIAS, alias, length);
    link_answer answer;
    const ssize_t result = exchange(control, &request, &answer);
    return result < 0 ? (int)-result : 0;
}

static const struct rtattr *
find(const struct rtattr *attribute, int left, uint16_t type)
{
    for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left))
        if ((attribute->rta_type & NLA_TYPE_MASK) == type)
            return attribute;
    return NULL;
}

static const struct rtattr *
find_inside(const struct rtattr *outer, uint16_t type)
{
    return outer ? find(RTA_DATA(outer), (int)RTA_PAYLOAD(outer), type) : NULL;
}

/* A number of the kernel's byte order; 0 if there is none. */
static uint32_t
number_in(const struct rtattr *attribute)
{
    if (attribute && RTA_PAYLOAD(attribute) == 1)
        return *(const uint8_t *)RTA_DATA(attribute);
    uint32_t number = 0;
    if (attribute && RTA_PAYLOAD(attribute) == sizeof(number))
        memcpy(&number, RTA_DATA(attribute), sizeof(number));
    return number;
}

bool
tun_netlink_read(int control, DWORD index, tun_link_state *state)
{
    link_request request;
    start_request(&request, RTM_GETLINK, 0, index);
    link_answer answer;
    if (exchange(control, &request, &answer) <= 0)
        return false;
    const int size = (int)IFLA_PAYLOAD(&answer.header);
    const struct rtattr *first = IFLA_RTA((struct ifinfomsg *)NLMSG_DATA(&answer.header));
    const struct rtattr *counted = find(first, size, IFLA_STATS64);
    const struct rtattr *tun = find_inside(find(first, size, IFLA_LINKINFO), IFLA_INFO_DATA);
    struct rtnl_link_stats64 stats = {0};
    /* Kernels append fields, so that either may know more of them. */
    if (counted)
        memcpy(&stats, RTA_DATA(counted), RTA_PAYLOAD(counted) < sizeof(stats) ? RTA_PAYLOAD(counted) : sizeof(stats));
    *state = (tun_link_state){
        .dropped = stats.tx_dropped,
        .carrier = number_in(find(first, size, IFLA_CARRIER)) != 0,
        .queues = number_in(find_inside(tun, TUN_QUEUES)),
    };
    return counted != NULL;
}
