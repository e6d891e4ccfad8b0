/* SPDX-License-Identifier: MIT
 *
 * The stand-in for the kernel half of Wintun: a DLL for tests, with which the unmodified official wintun.dll creates
 * adapters and moves packets under Wine. These are its exports for tests;
 * wintun.dll finds the others in place of setupapi.dll's and the like.
 */
#ifndef STANDIN_H
#define STANDIN_H

#include "driver.h"

#define STANDIN_EXPORT __declspec(dllexport)

/* Call it before wintun.dll is loaded. FALSE if that is loaded already, or if Wine's modules can't be redirected. */
STANDIN_EXPORT BOOL StandinInstall(void);

/* The simulator's functions, for adapters of wintun.dll. */
STANDIN_EXPORT extern const tunring_simulator StandinSimulator;

/* Plugs Right into the other end of Left's cable: what one sends, the other receives, and nothing that passes the
 * filter is lost while the far side has a session; a full far ring holds the near one up. Right may replace an adapter
 * that is gone. 0; ERROR_BUSY while an adapter that has to be plugged in has a session; ERROR_NOT_FOUND. */
STANDIN_EXPORT DWORD StandinConnect(WINTUN_ADAPTER_HANDLE Left, WINTUN_ADAPTER_HANDLE Right);

/* Moves what is stalled and has room by now. Without it that is done within a few milliseconds: a release isn't
 * told. */
STANDIN_EXPORT void StandinSettle(void);

STANDIN_EXPORT DWORD StandinCounters(WINTUN_ADAPTER_HANDLE Adapter, standin_counters *Counters);

/* Sets whether the system has the driver in its store and has it loaded; by default it has. */
STANDIN_EXPORT void StandinDriverState(BOOL InStore, BOOL Loaded);

/* Sets whether the process is elevated as far as wintun.dll can tell. It remembers what it found, so call it before the
 * first adapter. */
STANDIN_EXPORT void StandinElevated(BOOL Elevated);

/* Adapters that there are in this process. */
STANDIN_EXPORT DWORD StandinAdapterCount(void);

#endif
