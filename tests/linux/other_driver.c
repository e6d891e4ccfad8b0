/* SPDX-License-Identifier: MIT
 *
 * Another TUN driver, or none that may be opened, by LD_PRELOAD:
 *
 *   OTHER_DRIVER_OPEN=errno   opening /dev/net/tun fails with it
 *   OTHER_DRIVER_FLAGS=mask   TUNSETIFF refuses all other flags with EINVAL, and of the other calls of TUN only
 *                             TUNGETIFF is known: the rest fail with ENOTTY
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

static int
number_of(const char *name)
{
    const char *text = getenv(name);
    return text ? (int)strtol(text, NULL, 0) : -1;
}

int
ioctl(int fd, unsigned long request, ...)
{
    static int (*real)(int, unsigned long, ...);
    const int known = number_of("OTHER_DRIVER_FLAGS");
    va_list list;
    va_start(list, request);
    void *argument = va_arg(list, void *);
    va_end(list);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "ioctl");
    const unsigned type = (unsigned)(request >> 8) & 0xFF, number = (unsigned)request & 0xFF;
    if (known < 0 || type != 'T' || number < 200)
        return real(fd, request, argument);
    if ((unsigned)request == (unsigned)TUNSETIFF)
    {
        const struct ifreq *wanted = argument;
        if ((unsigned short)wanted->ifr_flags & ~known)
        {
            errno = EINVAL;
            return -1;
        }
    }
    else if ((unsigned)request != (unsigned)TUNGETIFF)
    {
        errno = ENOTTY;
        return -1;
    }
    return real(fd, request, argument);
}

#define OPEN(name)                                                                               \
    int name(const char *path, int flags, ...);                                                  \
    int name(const char *path, int flags, ...)                                                   \
    {                                                                                            \
        static int (*real)(const char *, int, ...);                                              \
        const int failure = number_of("OTHER_DRIVER_OPEN");                                      \
        va_list list;                                                                            \
        va_start(list, flags);                                                                   \
        const int mode = flags & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY)) ? va_arg(list, int) : 0; \
        va_end(list);                                                                            \
        if (failure > 0 && strcmp(path, "/dev/net/tun") == 0)                                    \
        {                                                                                        \
            errno = failure;                                                                     \
            return -1;                                                                           \
        }                                                                                        \
        if (!real)                                                                               \
            *(void **)&real = dlsym(RTLD_NEXT, #name);                                           \
        return real(path, flags, mode);                                                          \
    }

OPEN(open)
OPEN(open64)
OPEN(__open_2)
OPEN(__open64_2)
