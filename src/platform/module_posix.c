/* SPDX-License-Identifier: MIT
 *
 * module.h for POSIX: dlopen(). No fork comes in between: a child would find a library that is mapped but not yet
 * relocated, take it for loaded, and crash in its first call.
 */
#include "platform/module.h"

#include "platform/os.h"

#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>

static void *
load(const char *path, int mode)
{
    os_fork_hold();
    void *module = dlopen(path, mode);
    os_fork_release();
    return module;
}

static void *
open_with(int mode, const char *path, char *detail, size_t detail_size)
{
    void *module = load(path, RTLD_NOW | RTLD_LOCAL | mode);
    if (module)
        return module;
    const char *reason = dlerror();
    snprintf(detail, detail_size, "%s", reason ? reason : "");
    SetLastError(access(path, R_OK) == 0 ? ERROR_BAD_EXE_FORMAT : ERROR_MOD_NOT_FOUND);
    return NULL;
}

void *
module_open(const module_path_char *path, char *detail, size_t detail_size)
{
    return open_with(0, path, detail, detail_size);
}

/* macOS always binds a call to the library that it was linked with; glibc binds a library to itself first if asked to,
 * which the sanitizers answer by ending the process. */
void *
module_open_isolated(const module_path_char *path, bool *isolated, char *detail, size_t detail_size)
{
#if defined(RTLD_DEEPBIND)
    *isolated = !dlsym(RTLD_DEFAULT, "__sanitizer_print_stack_trace");
    return open_with(*isolated ? RTLD_DEEPBIND : 0, path, detail, detail_size);
#elif defined(__APPLE__)
    *isolated = true;
    return module_open(path, detail, detail_size);
#else
    *isolated = false;
    return module_open(path, detail, detail_size);
#endif
}

bool
module_shadowed(void *module, const char *name)
{
    const void *other = dlsym(RTLD_DEFAULT, name);
    return other && other != dlsym(module, name);
}

void *
module_find(const module_path_char *path)
{
    return load(path, RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
}

void *
module_symbol(void *module, const char *name)
{
    return dlsym(module, name);
}
