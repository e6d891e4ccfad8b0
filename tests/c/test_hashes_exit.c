/* SPDX-License-Identifier: MIT
 *
 * The end of a process while threads compute: it waits for their calls, and lets none begin when libcrypto has cleaned
 * up. There is no AEAD key, which would see to that, too.
 */
/* build: parts=core,wireguard,loopback,common,os,ring */
#include "check.h"
#include "wireguard/hashes.h"
#include "wireguard_net.h"

#define THREADS 4

static const BYTE key[TUNRING_WIREGUARD_KEY] = {9};

static void *
compute(void *unused)
{
    (void)unused;
    BYTE shared[TUNRING_WIREGUARD_KEY];
    while (tunring_hashes_exchange(hashes, key, key, key, shared) == ERROR_SUCCESS)
        continue;
    return NULL;
}

/* The first handler that is registered is the last to run. */
static void
look(void)
{
    BYTE result[TUNRING_WIREGUARD_KEY];
    if (hashes && (tunring_hashes_exchange(hashes, key, key, key, result) != ERROR_HANDLE_EOF ||
                   tunring_hashes_public_key(hashes, key, result) ||
                   tunring_hashes_mac(hashes, key, sizeof(key), key, sizeof(key), result) ||
                   hashes_random(hashes, result, sizeof(result))))
    {
        fprintf(stderr, "the library is called after its own cleanup\n");
        _exit(1);
    }
}

int
main(void)
{
    CHECK(atexit(look) == 0);
    load_all();
    BYTE shared[TUNRING_WIREGUARD_KEY];
    CHECK_EQUAL(tunring_hashes_exchange(hashes, key, key, key, shared), ERROR_SUCCESS);
    for (int i = 0; i < THREADS; i++)
    {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, compute, NULL) == 0);
        CHECK(pthread_detach(thread) == 0);
    }
    os_sleep(10 * 1000 * 1000);
    return 0;
}
