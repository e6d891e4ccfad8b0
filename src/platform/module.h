/* SPDX-License-Identifier: MIT
 *
 * Loading a library: module_posix.c, module_windows.c. It is never unloaded.
 */
#ifndef TUNRING_MODULE_H
#define TUNRING_MODULE_H

#include "wintun.h"

#include <stdbool.h>
#include <stddef.h>

#if defined(_WIN32)
typedef wchar_t module_path_char;
#else
typedef char module_path_char;
#endif

/* The module, or NULL with the last error and the loader's own words. */
void *module_open(const module_path_char *path, char *detail, size_t detail_size);
/* The same for a library whose exports have names that others export, too. `isolated`: its calls of its own functions
 * don't go to those others, whichever the process has loaded for all to use. Not every system can. */
void *module_open_isolated(const module_path_char *path, bool *isolated, char *detail, size_t detail_size);
/* True if the process offers all its modules another function of the name than the one that this module exports. */
bool module_shadowed(void *module, const char *name);
/* A module that this process has loaded already, which will stay, or NULL. */
void *module_find(const module_path_char *path);
/* The address of an export as data, or NULL. */
void *module_symbol(void *module, const char *name);

#endif
