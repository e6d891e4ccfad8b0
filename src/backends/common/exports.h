/* SPDX-License-Identifier: MIT
 *
 * Declares what a back end exports; its definitions follow these declarations.
 */
#ifndef TUNRING_EXPORTS_H
#define TUNRING_EXPORTS_H

#include "tunring_backend.h"

#if defined(_WIN32)
#define BACKEND_EXPORT __declspec(dllexport)
#else
#define BACKEND_EXPORT __attribute__((visibility("default")))
#endif

#define BACKEND_DECLARE(name, type) BACKEND_EXPORT type name;
WINTUN_FUNCTIONS(BACKEND_DECLARE)
#undef BACKEND_DECLARE

BACKEND_EXPORT extern const tunring_backend TunringBackend;

#endif
