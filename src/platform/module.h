/* SPDX-License-Identifier: MIT
 *
 * Loading a library: module_posix.c, module_windows.c. It is never unloaded.
 */
#ifndef TUNRING_MODULE_H
#define TUNRING_MODULE_H

#include "wintun.h"

#include <stddef.h>

#if defined(_WIN32)
typedef wchar_t module_path_char;
#else
typedef char module_path_char;
#endif

/* The module, or NULL with the last error and the loader's own words. */
void *module_open(const module_path_char *path, char *detail, size_t detail_size);
/* A module that this process has loaded already, which will stay, or NULL. */
void *module_find(const module_path_char *path);
/* The address of an export as data, or NULL. */
void *module_symbol(void *module, const char *name);

#endif
