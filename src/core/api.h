/* SPDX-License-Identifier: MIT
 *
 * The last error of the library's functions.
 */
#ifndef TUNRING_API_H
#define TUNRING_API_H

#include "tunring.h"

/* Before a call, and directly after it if it failed. The official DLL can fail without setting the last error: what an
 * earlier call left there is then not reported, but ERROR_GEN_FAILURE. */
void api_prime_last_error(void);
DWORD api_last_error(void);

#endif
