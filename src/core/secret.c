/* SPDX-License-Identifier: MIT
 *
 * Places are taken and given back by compare-and-swap: a lock could be held by another thread at the time of a fork. A
 * child leaves its parent's pages alone and makes its own.
 */
#include "core/secret.h"

#include "core/aead.h"

#include <stdlib.h>

#define PAGE 4096u
#define WORD 64u
#define WORDS (PAGE / TUNRING_SECRET_SIZE / WORD)

#define SECRET_CLOSED 0x80000000u

struct secret_page
{
    secret_page *older;
    BYTE *memory;
    unsigned generation; /* of the process whose secrets are here */
    unsigned protection;
    _Atomic uint64_t taken[WORDS]; /* a bit for each place */
};

/* Pages are never freed: those who look for a place may be reading the list. */
static secret_page *_Atomic newest;

/* ---- Places ---- */

static bool
take_bit(_Atomic uint64_t *word, unsigned *bit)
{
    uint64_t taken = atomic_load(word);
    while (~taken)
    {
        for (*bit = 0; taken >> *bit & 1; ++*bit)
            continue;
        if (atomic_compare_exchange_weak(word, &taken, taken | UINT64_C(1) << *bit))
            return true;
    }
    return false;
}

static bool
take_from(secret_page *page, secret_place *place)
{
    for (unsigned word = 0; word < WORDS; word++)
    {
        unsigned bit;
        if (!take_bit(&page->taken[word], &bit))
            continue;
        place->page = page;
        place->bytes = page->memory + (word * WORD + bit) * TUNRING_SECRET_SIZE;
        return true;
    }
    return false;
}

static bool
add_page(void)
{
    secret_page *page = calloc(1, sizeof(*page));
    if (!page)
        return false;
    page->memory = os_secret_alloc(PAGE, &page->protection);
    if (!page->memory)
    {
        free(page);
        return false;
    }
    page->protection |= os_secret_lock(page->memory, PAGE);
    page->generation = os_generation();
    page->older = atomic_load(&newest);
    while (!atomic_compare_exchange_weak(&newest, &page->older, page))
        continue;
    return true;
}

bool
secret_take(secret_place *place)
{
    os_watch_forks();
    do
    {
        for (secret_page *page = atomic_load(&newest); page && !OS_FOREIGN(page); page = page->older)
            if (take_from(page, place))
                return true;
    } while (add_page());
    return false;
}

void
secret_give(const secret_place *place)
{
    secret_page *page = place->page;
    const size_t number = (size_t)(place->bytes - page->memory) / TUNRING_SECRET_SIZE;
    aead_wipe(place->bytes, TUNRING_SECRET_SIZE);
    atomic_fetch_and(&page->taken[number / WORD], ~(UINT64_C(1) << number % WORD));
}

/* ---- Secrets as objects ---- */

struct tunring_secret
{
    secret_place place;
    uint32_t size;
    unsigned generation;   /* of the process that made it */
    _Atomic uint32_t life; /* SECRET_CLOSED and the number of those inside */
};

DWORD
tunring_secret_new(const BYTE *bytes, uint32_t size, tunring_secret **secret)
{
    tunring_secret *self = calloc(1, sizeof(*self));
    if (!self)
        return ERROR_NOT_ENOUGH_MEMORY;
    if (!secret_take(&self->place))
    {
        free(self);
        return ERROR_NOT_ENOUGH_MEMORY;
    }
    memcpy(self->place.bytes, bytes, size);
    self->size = size;
    self->generation = os_generation();
    atomic_init(&self->life, 0);
    *secret = self;
    return ERROR_SUCCESS;
}

BYTE *
tunring_secret_enter(tunring_secret *self)
{
    if (OS_FOREIGN(self))
        return NULL;
    uint32_t life = atomic_load(&self->life);
    do
    {
        if (life & SECRET_CLOSED)
            return NULL;
    } while (!atomic_compare_exchange_weak(&self->life, &life, life + 1));
    return self->place.bytes;
}

void
tunring_secret_leave(tunring_secret *self)
{
    if (!OS_FOREIGN(self) && atomic_fetch_sub(&self->life, 1) == SECRET_CLOSED + 1)
        secret_give(&self->place);
}

uint32_t
tunring_secret_size(const tunring_secret *self)
{
    return self->size;
}

unsigned
tunring_secret_protection(const tunring_secret *self)
{
    return self->place.page->protection;
}

tunring_state
tunring_secret_state(const tunring_secret *self)
{
    if (OS_FOREIGN(self))
        return TUNRING_FORKED;
    return atomic_load(&self->life) & SECRET_CLOSED ? TUNRING_CLOSED : TUNRING_OPEN;
}

void
tunring_secret_close(tunring_secret *self)
{
    if (!OS_FOREIGN(self) && atomic_fetch_or(&self->life, SECRET_CLOSED) == 0)
        secret_give(&self->place);
}

void
tunring_secret_free(tunring_secret *self)
{
    if (!self)
        return;
    tunring_secret_close(self);
    free(self);
}
