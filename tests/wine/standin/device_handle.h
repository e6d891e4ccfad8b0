/* SPDX-License-Identifier: MIT
 *
 * The fate of a device's handles when it goes.
 */
#ifndef STANDIN_DEVICE_HANDLE_H
#define STANDIN_DEVICE_HANDLE_H

#include "device.h"

/* The system closes all handles to the device. The caller holds the devices' lock. */
void device_force_close(const device *removed);
/* Ends the device's session, if `owner` is its handle or NULL, and returns when it has ended. */
void device_end_session(device *of, HANDLE owner);

#endif
