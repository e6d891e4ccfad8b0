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

/* Before a call, and directly after it if it failed. The official DLL can fail without setting the last error: what an
 * earlier call left there is then not reported, but ERROR_GEN_FAILURE. */
void api_prime_last_error(void);
DWORD api_last_error(void);

#endif
