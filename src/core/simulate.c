/* SPDX-License-Identifier: MIT
 *
 * The driver simulator's calls, each of them a call on its adapter: it can't be closed before the call is back.
 */
#include "core/api.h"
#include "core/session.h"
#include "platform/module.h"

#include <stdio.h>

DWORD
tunring_simulator_load(tunring_api *api, const tunring_path_char *path, const char *symbol, char *detail,
                       size_t detail_size)
{
    void *module = module_open(path, detail, detail_size);
    if (!module)
        return GetLastError();
    const tunring_simulator *simulator = module_symbol(module, symbol);
    if (!simulator)
    {
        snprintf(detail, detail_size, "%s", symbol);
        return ERROR_PROC_NOT_FOUND;
    }
    atomic_store(&api->simulator, simulator);
    return ERROR_SUCCESS;
}

bool
tunring_simulator_available(const tunring_api *api)
{
    return atomic_load(&api->simulator) != NULL;
}

/* Begins a call on the adapter. NULL with the reason if there can be none. */
static const tunring_simulator *
enter(tunring_adapter *adapter, DWORD *code)
{
    const tunring_simulator *simulator = atomic_load(&adapter->api->simulator);
    *code = simulator ? ERROR_INVALID_HANDLE : ERROR_NOT_SUPPORTED;
    return simulator && adapter_enter(adapter) ? simulator : NULL;
}

/* Ends it. */
static DWORD
leave(tunring_adapter *adapter, DWORD code)
{
    adapter_leave(adapter);
    return code;
}

DWORD
tunring_simulate_attach(tunring_adapter *adapter)
{
    DWORD code;
    const tunring_simulator *simulator = enter(adapter, &code);
    return simulator ? leave(adapter, simulator->attach(adapter->handle)) : code;
}

DWORD
tunring_simulate_inject(tunring_adapter *adapter, const tunring_packet *chain, DWORD count)
{
    DWORD code;
    const tunring_simulator *simulator = enter(adapter, &code);
    return simulator ? leave(adapter, simulator->inject(adapter->handle, chain, count)) : code;
}

DWORD
tunring_simulate_drain(tunring_adapter *adapter, BYTE *buffer, DWORD *size)
{
    DWORD code;
    const tunring_simulator *simulator = enter(adapter, &code);
    return simulator ? leave(adapter, simulator->drain(adapter->handle, buffer, size)) : code;
}

DWORD
tunring_simulate_corrupt(tunring_adapter *adapter, tunring_corruption what, DWORD value)
{
    DWORD code;
    const tunring_simulator *simulator = enter(adapter, &code);
    return simulator ? leave(adapter, simulator->corrupt(adapter->handle, what, value)) : code;
}

DWORD
tunring_simulate_delay(tunring_adapter *adapter, DWORD microseconds)
{
    DWORD code;
    const tunring_simulator *simulator = enter(adapter, &code);
    return simulator ? leave(adapter, simulator->delay(adapter->handle, microseconds)) : code;
}

DWORD
tunring_simulate_remove(tunring_adapter *adapter)
{
    DWORD code;
    const tunring_simulator *simulator = enter(adapter, &code);
    return simulator ? leave(adapter, simulator->remove(adapter->handle)) : code;
}

DWORD
tunring_simulator_stale_ends(const tunring_api *api)
{
    const tunring_simulator *simulator = atomic_load(&api->simulator);
    return simulator ? simulator->stale_ends() : 0;
}
