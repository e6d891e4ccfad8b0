/* SPDX-License-Identifier: MIT
 *
 * Names that the kernel takes as they are.
 */
#include "backends/common/backend_log.h"
#include "backends/tun_linux/tun_device.h"

#include <string.h>

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
        return "it was not valid UTF-16";
    for (size_t i = 0; i < length; i++)
        if (is_space((unsigned char)name[i]))
            return "white space is not allowed";
    return NULL;
}

bool
tun_name_valid(const char *name)
{
    const char *fault = name_fault(name);
    if (fault)
        backend_log(WINTUN_LOG_ERR,
                    "\"%s\" is not an interface name: %s (1 to 15 bytes, without '%%', '/', ':' and white space)", name,
                    fault);
    return !fault;
}
