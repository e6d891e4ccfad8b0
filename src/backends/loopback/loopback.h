/* SPDX-License-Identifier: MIT
 *
 * The adapters and sessions of the loopback library.
 */
#ifndef TUNRING_LOOPBACK_H
#define TUNRING_LOOPBACK_H

#include "backends/common/front.h"
#include "backends/loopback/cable.h"

#define LOOPBACK_NAME_UNITS 127

/* Guarded by the registry's lock, but for what never changes. */
typedef struct loopback_adapter
{
    struct loopback_adapter *next;       /* in the registry */
    uint32_t references;                 /* handles and sessions */
    uint32_t index;                      /* constant; for the LUID */
    WCHAR name[LOOPBACK_NAME_UNITS + 1]; /* constant */
    bool has_guid;                       /* constant */
    GUID guid;                           /* constant */
    bool present;                        /* in the registry: created and not removed */
    bool simulated;                      /* the simulator is its host half; never goes back */
    _Atomic uint32_t delay;              /* of the simulator, in microseconds */
    cable_direction *outgoing;           /* constant once it is simulated */
    cable_direction *incoming;
    struct _TUN_SESSION *session; /* the one that is plugged in */
} loopback_adapter;

struct _WINTUN_ADAPTER
{
    front_object object;
    loopback_adapter *adapter;
    bool creator; /* from WintunCreateAdapter: the adapter goes with this handle */
};

struct _TUN_SESSION
{
    front_object object;
    cable_end end;
    loopback_adapter *adapter;
    bool stale;                    /* the simulated system removed the adapter: the device handle is closed already */
    struct _TUN_SESSION *previous; /* the list of stale ones, so that none is unreachable memory */
    struct _TUN_SESSION *next;
};

/* One lock for all adapters. The fork of a process leaves its child an empty registry. */
void registry_enter(void);
void registry_leave(void);

DWORD loopback_create(LPCWSTR name, const GUID *guid, WINTUN_ADAPTER_HANDLE *handle);
DWORD loopback_open(LPCWSTR name, WINTUN_ADAPTER_HANDLE *handle);
void loopback_close(WINTUN_ADAPTER_HANDLE handle);
bool loopback_any_adapter(void);
/* Takes the adapter out of the registry and unplugs its session. The caller holds the registry. */
void loopback_remove(loopback_adapter *adapter);

DWORD loopback_start(loopback_adapter *adapter, DWORD capacity, WINTUN_SESSION_HANDLE *session);
/* Unplugs the session, of which only memory stays. False for a simulated adapter's. */
bool loopback_detach(WINTUN_SESSION_HANDLE session);
void loopback_end(WINTUN_SESSION_HANDLE session);
/* Stale sessions that were ended. */
DWORD loopback_stale_ends(void);

#endif
