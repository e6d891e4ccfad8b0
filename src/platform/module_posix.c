/* SPDX-License-Identifier: MIT
 *
 * module.h for POSIX: dlopen().
 */
#include "platform/module.h"

#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>

void *
module_open(const module_path_char *path, char *detail, size_t detail_size)
{
    void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (module)
        return module;
    const char *reason = dlerror();
    snprintf(detail, detail_size, "%s", reason ? reason : "");
    SetLastError(access(path, R_OK) == 0 ? ERROR_BAD_EXE_FORMAT : ERROR_MOD_NOT_FOUND);
    return NULL;
}

void *
module_find(const module_path_char *path)
{
    return dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
}

void *
module_symbol(void *module, const char *name)
{
    return dlsym(module, name);
}
