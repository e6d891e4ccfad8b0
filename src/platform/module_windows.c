/* SPDX-License-Identifier: MIT
 *
 * module.h for Windows: LoadLibraryExW() of an absolute path, which looks for further DLLs in System32 alone.
 */
#include "platform/module.h"

#include <stdio.h>
#include <string.h>

void *
module_open(const module_path_char *path, char *detail, size_t detail_size)
{
    HMODULE module = LoadLibraryExW(path, NULL, LOAD_LIBRARY_SEARCH_SYSTEM32);
    if (module)
        return module;
    DWORD code = GetLastError();
    snprintf(detail, detail_size, "LoadLibraryExW failed with code %lu", code);
    SetLastError(code);
    return NULL;
}

/* Here modules are bound by the names of files. */
void *
module_open_isolated(const module_path_char *path, bool *isolated, char *detail, size_t detail_size)
{
    *isolated = true;
    return module_open(path, detail, detail_size);
}

bool
module_shadowed(void *module, const char *name)
{
    (void)module;
    (void)name;
    return false;
}

void *
module_find(const module_path_char *path)
{
    HMODULE module;
    return GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_PIN, path, &module) ? module : NULL;
}

void *
module_symbol(void *module, const char *name)
{
    FARPROC address = GetProcAddress(module, name);
    void *symbol;
    memcpy(&symbol, &address, sizeof(symbol));
    return symbol;
}
