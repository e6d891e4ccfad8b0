/* SPDX-License-Identifier: MIT
 *
 * Under AddressSanitizer, ring memory that nobody may use is poisoned, so that a use of a packet after it was released
 * or sent is caught at once. Elsewhere all of this is nothing.
 */
#ifndef TUNRING_POISON_H
#define TUNRING_POISON_H

#include <stddef.h>
#include <stdint.h>

#if defined(__SANITIZE_ADDRESS__)
#define POISON_ENABLED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POISON_ENABLED 1
#endif
#endif

#if defined(POISON_ENABLED)

#include <sanitizer/asan_interface.h>

#define POISON_GRANULE ((uintptr_t)8)

/* For functions that read a size word wherever a corrupt ring places it. */
#if defined(_MSC_VER)
#define POISON_UNCHECKED __declspec(no_sanitize_address)
#else
#define POISON_UNCHECKED __attribute__((no_sanitize("address")))
#endif

/* Poisons what lies wholly inside. A granule that is shared with a neighbouring slot stays usable: marking half of it
 * would be a read and a write, and race with whoever marks the other half. */
static inline void
poison(const void *start, size_t size)
{
    uintptr_t first = ((uintptr_t)start + POISON_GRANULE - 1) & ~(POISON_GRANULE - 1);
    uintptr_t end = ((uintptr_t)start + size) & ~(POISON_GRANULE - 1);
    if (first < end)
        __asan_poison_memory_region((const void *)first, end - first);
}

/* Makes usable whatever it touches. */
static inline void
unpoison(const void *start, size_t size)
{
    uintptr_t first = (uintptr_t)start & ~(POISON_GRANULE - 1);
    uintptr_t end = ((uintptr_t)start + size + POISON_GRANULE - 1) & ~(POISON_GRANULE - 1);
    __asan_unpoison_memory_region((const void *)first, end - first);
}

#else

#define POISON_UNCHECKED

static inline void
poison(const void *start, size_t size)
{
    (void)start;
    (void)size;
}

static inline void
unpoison(const void *start, size_t size)
{
    (void)start;
    (void)size;
}

#endif

#endif
