/* SPDX-License-Identifier: MIT
 *
 * Secrets, each an object: in memory that, as far as the system goes along, a child process finds empty, a core dump
 * lacks and nothing swaps out. Any thread may use them at any time.
 */
#ifndef TUNRING_SECRET_H
#define TUNRING_SECRET_H

#include "tunring.h"

/* Bytes that a secret has at most. */
#define TUNRING_SECRET_SIZE 32u

typedef struct tunring_secret tunring_secret;

/* Copies 1 to TUNRING_SECRET_SIZE bytes. ERROR_NOT_ENOUGH_MEMORY. */
DWORD tunring_secret_new(const BYTE *bytes, uint32_t size, tunring_secret **secret);
/* The bytes, which stay until tunring_secret_leave(); NULL once it is closed, and in a forked child. Only its maker may
 * write them, before anybody else has it. */
BYTE *tunring_secret_enter(tunring_secret *secret);
void tunring_secret_leave(tunring_secret *secret);
uint32_t tunring_secret_size(const tunring_secret *secret);
/* How its memory is protected: flags of platform/os.h. */
unsigned tunring_secret_protection(const tunring_secret *secret);
tunring_state tunring_secret_state(const tunring_secret *secret);
/* Lets nobody enter any more, and wipes the secret as soon as the last one has left: at once if there is none.
 * Idempotent. */
void tunring_secret_close(tunring_secret *secret);
/* The same, and frees the object, which nobody uses any more. NULL is allowed. */
void tunring_secret_free(tunring_secret *secret);

#endif
