/* SPDX-License-Identifier: MIT
 *
 * Random numbers and X25519 in children, while threads of the parent ask for their first ones.
 */
/* build: parts=core,wireguard,loopback,common,os,ring */
#include "check.h"
#include "wireguard/hashes.h"
#include "wireguard_net.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define FORKS 300

/* The sanitizers fork without the locks of their allocators. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FORKS_WITH_THREADS 0
#else
#define FORKS_WITH_THREADS 1
#endif

static atomic_bool stop;

static void *
ask(void *unused)
{
    (void)unused;
    uint64_t number;
    CHECK(hashes_random(hashes, &number, sizeof(number)));
    /* A private key and the base point share the public key. */
    static const BYTE base[32] = {9};
    BYTE private_key[32], public_key[32], shared[32];
    CHECK(hashes_random(hashes, private_key, sizeof(private_key)));
    CHECK(tunring_hashes_public_key(hashes, private_key, public_key));
    CHECK_EQUAL(tunring_hashes_exchange(hashes, private_key, public_key, base, shared), ERROR_SUCCESS);
    CHECK(memcmp(shared, public_key, sizeof(shared)) == 0);
    return NULL;
}

static void *
start_threads(void *unused)
{
    (void)unused;
    while (!atomic_load(&stop))
    {
        pthread_t threads[4];
        for (int i = 0; i < 4; i++)
            CHECK(pthread_create(&threads[i], NULL, ask, NULL) == 0);
        for (int i = 0; i < 4; i++)
            pthread_join(threads[i], NULL);
    }
    return NULL;
}

int
main(void)
{
    if (!FORKS_WITH_THREADS)
        return 77;
    load_all();
    ask(NULL);
    pthread_t starters[2];
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&starters[i], NULL, start_threads, NULL) == 0);
    for (int i = 0; i < FORKS; i++)
    {
        const pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0)
        {
            alarm(10);
            ask(NULL);
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child);
        CHECK_EQUAL(status, 0);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < 2; i++)
        pthread_join(starters[i], NULL);
    return 0;
}
