/* SPDX-License-Identifier: MIT
 *
 * Loading a library: api_posix.c, api_windows.c. It is never unloaded.
 */
#ifndef TUNRING_API_H
#define TUNRING_API_H

#include "tunring.h"

/* The module, or NULL with the last error and the loader's own words. */
void *module_open(const tunring_path_char *path, char *detail, size_t detail_size);
/* The address of an export as data, or NULL. */
void *module_symbol(void *module, const char *name);

#endif
