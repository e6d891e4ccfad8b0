/* SPDX-License-Identifier: MIT
 *
 * Places for secrets. Many share a page of os_secret_alloc(), so that thousands of keys neither take a page each nor
 * use up the memory that a process may lock.
 */
#ifndef TUNRING_CORE_SECRET_H
#define TUNRING_CORE_SECRET_H

#include "platform/os.h"
#include "tunring_secret.h"

typedef struct secret_page secret_page;

typedef struct secret_place
{
    BYTE *bytes; /* TUNRING_SECRET_SIZE of them */
    secret_page *page;
} secret_place;

/* Finds a place, of zeros. False without memory. From then on forks are counted. */
bool secret_take(secret_place *place);
/* Wipes it, for others to take. Must not be called in a child, whose parent's places are not its own. */
void secret_give(const secret_place *place);

#endif
