/* SPDX-License-Identifier: MIT
 *
 * The libraries that this system has, each with every sequence of calls by which it can serve an algorithm.
 */
#ifndef TUNRING_AEAD_LIBRARIES_H
#define TUNRING_AEAD_LIBRARIES_H

#include "check.h"
#include "core/aead.h"

#include <string.h>

#define MAX_LIBRARIES 6

static const char *const algorithm_names[TUNRING_AEAD_ALGORITHMS] = {"ChaCha20-Poly1305", "AES-256-GCM", "AES-128-GCM"};

static tunring_aead *libraries[MAX_LIBRARIES];

/* Once: they stay to the end. */
static inline uint32_t
load_libraries(void)
{
    static const struct
    {
        tunring_aead_kind kind;
        const char *path;
    } names[] = {{TUNRING_LIBCRYPTO, "libcrypto.so.4"},
                 {TUNRING_LIBCRYPTO, "libcrypto.so.3"},
                 {TUNRING_LIBCRYPTO, "libcrypto.so.1.1"},
                 {TUNRING_IPSEC_MB, "libIPSec_MB.so.1"},
                 {TUNRING_BORINGSSL, "/usr/lib/x86_64-linux-gnu/android/libcrypto.so.0"},
                 {TUNRING_BORINGSSL, "/usr/lib/aarch64-linux-gnu/android/libcrypto.so.0"}};
    static uint32_t count;
    static bool loaded;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && !loaded; i++)
    {
        char detail[256];
        if (tunring_aead_load(names[i].kind, names[i].path, false, &libraries[count], detail, sizeof(detail)) ==
            ERROR_SUCCESS)
            count++;
    }
    loaded = true;
    return count;
}

/* Calls `run` for each algorithm and sequence of each library: exactly what a sealer made meanwhile uses. A sequence
 * that the library can't begin is left out. Exit code 77 without any library. */
static inline void
with_each(void (*run)(tunring_aead *, tunring_aead_algorithm))
{
    const uint32_t count = load_libraries();
    if (!count)
    {
        printf("no library for AEAD\n");
        exit(77);
    }
    for (uint32_t i = 0; i < count; i++)
        for (int algorithm = 0; algorithm < TUNRING_AEAD_ALGORITHMS; algorithm++)
        {
            const aead_sequence *const *all = libraries[i]->candidates[algorithm];
            for (const aead_sequence *const *one = all; *one; one++)
            {
                const aead_sequence *const only[] = {*one, NULL};
                atomic_store(&libraries[i]->checked[algorithm], NULL);
                libraries[i]->candidates[algorithm] = only;
                const DWORD code = tunring_aead_check(libraries[i], (tunring_aead_algorithm)algorithm);
                printf("%s, %s, sequence %d: %lu\n", libraries[i]->version, algorithm_names[algorithm],
                       (int)(one - all), (unsigned long)code);
                if (code == ERROR_SUCCESS)
                    run(libraries[i], (tunring_aead_algorithm)algorithm);
                else
                    CHECK_EQUAL(code, ERROR_NOT_SUPPORTED);
            }
            libraries[i]->candidates[algorithm] = all;
        }
}

static inline void
fill_random(BYTE *bytes, size_t size, uint64_t *random)
{
    for (size_t i = 0; i < size; i++)
        bytes[i] = (BYTE)check_random(random);
}

#endif
