/* SPDX-License-Identifier: MIT
 *
 * A context that ended has left its key nowhere in memory, whichever library kept it.
 */
/* build: parts=core,os flags=-ldl */
#include "aead_libraries.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#define SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define SANITIZED 0
#endif

#if defined(__linux__) && !SANITIZED
#include <fcntl.h>
#include <inttypes.h>
#include <unistd.h>

/* Read at a time; each piece begins with the end of the one before it. */
#define PIECE (1 << 20)

static uint32_t
count_in(int memory, uint64_t first, uint64_t end, const BYTE *key, size_t size)
{
    static BYTE piece[PIECE];
    uint32_t found = 0;
    for (uint64_t at = first; at + size <= end; at += PIECE - size + 1)
    {
        const size_t wanted = end - at < PIECE ? (size_t)(end - at) : PIECE;
        const ssize_t got = pread(memory, piece, wanted, (off_t)at);
        if (got < (ssize_t)size)
            break; /* a device's */
        for (const BYTE *next = piece; (next = memmem(next, (size_t)(piece + got - next), key, size)); next++)
            found++;
    }
    aead_wipe(piece, sizeof(piece));
    return found;
}

/* How often the key lies in memory. The stack is left out: on it are the test's own, and what registers held. */
static uint32_t
count_in_memory(const BYTE *key, size_t size)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    const int memory = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
    CHECK(maps && memory >= 0);
    uint32_t found = 0;
    char line[512];
    while (fgets(line, sizeof(line), maps))
    {
        uint64_t first;
        uint64_t end;
        char rights[5];
        CHECK_EQUAL(sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s", &first, &end, rights), 3);
        if (strncmp(rights, "rw", 2) == 0 && !strstr(line, "[stack]"))
            found += count_in(memory, first, end, key, size);
    }
    fclose(maps);
    close(memory);
    return found;
}

static void
test_wiped(tunring_aead *library, tunring_aead_algorithm algorithm)
{
    const aead_sequence *sequence = atomic_load(&library->checked[algorithm]);
    static uint64_t random = 77;
    BYTE key[AEAD_MAX_KEY];
    fill_random(key, sizeof(key), &random);
    const size_t size = tunring_aead_key_size(algorithm);
    BYTE text[100] = {0};
    BYTE tag[TUNRING_AEAD_TAG];
    aead_message message = {.in = text, .out = text, .length = sizeof(text), .aad = text, .tag = tag};
    aead_context *sealing = sequence->start(library, algorithm, key, false);
    aead_context *opening = sequence->start(library, algorithm, key, true);
    CHECK(sealing && opening);
    CHECK(sequence->seal(sealing, &message, 1));
    sequence->open(opening, &message, 1);
    CHECK(message.authentic);
    /* AES's may be kept in another order of bytes only. */
    if (algorithm == TUNRING_CHACHA20_POLY1305)
        CHECK(count_in_memory(key, size) >= 2);
    sequence->end(sealing);
    sequence->end(opening);
    CHECK_EQUAL(count_in_memory(key, size), 0);
}

int
main(void)
{
    with_each(test_wiped);
    return 0;
}
#else
int
main(void)
{
    printf("memory is read on Linux, without a sanitizer, which keeps what was freed\n");
    return 77;
}
#endif
