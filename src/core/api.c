/* SPDX-License-Identifier: MIT
 *
 * Resolving the 14 functions, and the table that our own libraries export besides.
 */
#include "core/api.h"

#include "platform/module.h"

#include <stdio.h>
#include <string.h>

/* Fills one function pointer of the api. Copied as bytes: C has no cast from a data to a function pointer. */
static bool
resolve(void *module, const char *name, void *field, size_t size)
{
    void *symbol = module_symbol(module, name);
    memcpy(field, &symbol, size);
    return symbol != NULL;
}

static const tunring_backend *
find_backend(void *module)
{
    const tunring_backend *backend = module_symbol(module, TUNRING_BACKEND_SYMBOL);
    return backend && backend->version == TUNRING_BACKEND_VERSION && backend->size == sizeof(*backend) ? backend : NULL;
}

DWORD
tunring_api_load(tunring_api *api, const tunring_path_char *path, char *detail, size_t detail_size)
{
    tunring_api loaded = {.module = module_open(path, detail, detail_size)};
    if (!loaded.module)
        return GetLastError();
#define RESOLVE(name, type)                                                \
    if (!resolve(loaded.module, #name, &loaded.name, sizeof(loaded.name))) \
    {                                                                      \
        snprintf(detail, detail_size, "%s", #name);                        \
        return ERROR_PROC_NOT_FOUND;                                       \
    }
    WINTUN_FUNCTIONS(RESOLVE)
#undef RESOLVE
    loaded.backend = find_backend(loaded.module);
    atomic_init(&loaded.simulator, loaded.backend ? loaded.backend->simulator : NULL);
    *api = loaded;
    return ERROR_SUCCESS;
}

void
api_prime_last_error(void)
{
    SetLastError(ERROR_GEN_FAILURE);
}

DWORD
api_last_error(void)
{
    const DWORD code = GetLastError();
    return code == ERROR_SUCCESS ? ERROR_GEN_FAILURE : code;
}

DWORD
tunring_api_driver_version(const tunring_api *api, DWORD *version)
{
    api_prime_last_error();
    *version = api->WintunGetRunningDriverVersion();
    return *version ? ERROR_SUCCESS : api_last_error();
}

DWORD
tunring_api_delete_driver(const tunring_api *api)
{
    /* The official DLL returns TRUE for a failure without a last error: with this it can't. */
    api_prime_last_error();
    return api->WintunDeleteDriver() ? ERROR_SUCCESS : api_last_error();
}
