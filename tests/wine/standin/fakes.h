/* SPDX-License-Identifier: MIT
 *
 * For the functions that wintun.dll loads from other modules. They answer as a system would on which all goes well.
 */
#ifndef STANDIN_FAKES_H
#define STANDIN_FAKES_H

#include <windows.h>

#define FAKE __declspec(dllexport)

/* The first part of the key of the property that holds an adapter's name, and the property's type. */
#define NAME_PROPERTY 0x3361C968u
#define STRING_PROPERTY 0x12u

#endif
