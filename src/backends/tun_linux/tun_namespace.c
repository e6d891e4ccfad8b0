/* SPDX-License-Identifier: MIT
 *
 * tun_namespace.h
 */
#include "backends/tun_linux/tun_namespace.h"

#include "backends/tun_linux/tun_ioctl.h"
#include "platform/os.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/sockios.h>
#include <pthread.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/stat.h>

/* Since Linux 4.10. */
#if !defined(SIOCGSKNS)
#define SIOCGSKNS 0x894C
#endif

int
tun_namespace_control(void)
{
    return OS_FD(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
}

/* The same for a socket. */
static int
space_of_socket(void)
{
    const int control = tun_namespace_control();
    if (control < 0)
        return -1;
    const int space = OS_FD(tun_ioctl_value(control, SIOCGSKNS, 0));
    const int failure = errno;
    os_fd_close(control);
    errno = failure;
    return space;
}

int
tun_namespace_here(void)
{
    const int space = OS_FD(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
    return space >= 0 || errno == EMFILE || errno == ENFILE ? space : space_of_socket();
}

bool
tun_namespace_same(int first, int second)
{
    struct stat a;
    struct stat b;
    return fstat(first, &a) == 0 && fstat(second, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

typedef struct visit
{
    int space;
    int (*function)(void);
    int result;
} visit;

static void *
call_there(void *parameter)
{
    visit *made = parameter;
    made->result = setns(made->space, CLONE_NEWNET) == 0 ? made->function() : -1;
    return NULL;
}

int
tun_namespace_call(int space, int (*function)(void))
{
    visit made = {.space = space, .function = function, .result = -1};
    pthread_t thread;
    if (pthread_create(&thread, NULL, call_there, &made) != 0)
        return -1;
    pthread_join(thread, NULL);
    return made.result;
}
