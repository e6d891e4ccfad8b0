/* SPDX-License-Identifier: MIT
 *
 * The devices that the system is made to believe in, and handles to them. None is ever freed, so that a late call on
 * one that was removed is harmless.
 */
#ifndef STANDIN_DEVICE_H
#define STANDIN_DEVICE_H

#include "driver.h"

#define DEVICE_NAME_UNITS 256
#define DEVICE_ID_UNITS 200
#define DEVICE_PATH_UNITS 64

/* Guarded by the devices' lock, but for what never changes. */
typedef struct device
{
    struct device *next;             /* constant */
    DWORD number;                    /* constant; the device node, and the index in the LUID */
    GUID guid;                       /* constant */
    WCHAR instance[DEVICE_ID_UNITS]; /* constant */
    WCHAR path[DEVICE_PATH_UNITS];   /* constant */
    WCHAR name[DEVICE_NAME_UNITS];   /* of the connection */
    bool present;                    /* until it is removed */
    _Atomic uint32_t delay;          /* of the simulator, in microseconds */
    direction *outgoing;
    direction *incoming;
    registration *session;
    standin_counters counters;
    os_mutex end_lock; /* held while a session ends; taken before the devices' lock */
} device;

void devices_enter(void);
void devices_leave(void);

/* These want the lock held, and return NULL if there is none such. Only device_numbered() finds removed ones. */
device *device_numbered(DWORD number);
device *device_with_instance(LPCWSTR instance);
device *device_with_guid(const GUID *guid);
device *device_with_path(LPCWSTR path);
/* The index-th of those that are present. */
device *device_at(DWORD index);
DWORD device_count(void);

/* Creates one whose instance ends with `id`, a GUID as text. ERROR_ALREADY_EXISTS if there is one. */
DWORD device_create(LPCWSTR instance, LPCWSTR id, LPCWSTR name, DWORD *number);
/* As when an administrator removes it: its session's handle is closed by force. False if it isn't there. */
bool device_remove(DWORD number);

/* The registry key that describes a device, to be closed by the caller; INVALID_HANDLE_VALUE. */
HKEY device_open_key(DWORD number);

/* Handles, as CreateFileW, DeviceIoControl and CloseHandle have them. The first is NULL for a path of no device,
 * INVALID_HANDLE_VALUE with the last error if the device can't be opened. */
HANDLE device_open(LPCWSTR path);
/* False if `handle` belongs to no device. *code is the result of the request. */
bool device_control(HANDLE handle, DWORD request, const void *input, DWORD size, DWORD *code);
/* Ends the session that the handle owns. The handle itself is still to be closed. */
void device_forget_handle(HANDLE handle);
/* Handles that were closed after the system had closed them: in earnest they would be somebody else's by then. */
DWORD device_stale_closes(void);

/* Moves what the session whose event this is has sent, if it is on a cable; false: the event is to be set. */
bool device_wake(HANDLE send_event);
/* Moves what all sessions on cables have sent. */
void device_settle(void);

#endif
