/* SPDX-License-Identifier: MIT
 *
 * Threads seal with one sealer and open with one opener, while another closes them; a thread that is still at it when
 * the process ends is waited for.
 */
/* build: parts=core,os flags=-ldl */
#include "aead_libraries.h"

#include "core/counter.h"

#include <pthread.h>

#define THREADS 4
#define ROUNDS 40
#define BATCH 8
#define SIZE (TUNRING_AEAD_COUNTER + TEXT + TUNRING_AEAD_TAG)
#define TEXT 100

static const BYTE key[AEAD_MAX_KEY] = {3};
static const tunring_aead_format format = {.nonce = {1}};
static tunring_sealer *sealer;
static tunring_opener *opener;
static _Atomic uint32_t seen[THREADS * ROUNDS * BATCH];
static _Atomic uint32_t opened_at_all, replayed_at_all;
static atomic_bool closing;

/* Seals a batch and opens it twice. False once either is closed. */
static bool
round_trip(uint32_t *opened, uint32_t *again)
{
    const BYTE text[TEXT] = {0x45};
    tunring_packet packets[BATCH];
    for (int i = 0; i < BATCH; i++)
        packets[i] = (tunring_packet){text, TEXT};
    tunring_sealing call;
    DWORD code = tunring_seal_begin(sealer, BATCH, &call);
    if (code == ERROR_HANDLE_EOF)
        return false;
    CHECK_EQUAL(code, ERROR_SUCCESS);
    BYTE out[BATCH * SIZE];
    tunring_slot slots[BATCH];
    CHECK_EQUAL(tunring_seal(&call, packets, BATCH, out, slots), ERROR_SUCCESS);
    tunring_seal_end(&call);
    BYTE copy[BATCH * SIZE];
    memcpy(copy, out, sizeof(out));
    tunring_datagram datagrams[BATCH];
    tunring_datagram copies[BATCH];
    for (int i = 0; i < BATCH; i++)
    {
        const uint64_t counter = counter_read(slots[i].data, false);
        if (counter < sizeof(seen) / sizeof(seen[0]))
            atomic_fetch_add(&seen[counter], 1);
        datagrams[i] = (tunring_datagram){slots[i].data, slots[i].length, TUNRING_REJECTED};
        copies[i] = (tunring_datagram){copy + i * SIZE, slots[i].length, TUNRING_REJECTED};
    }
    if (tunring_open(opener, datagrams, BATCH, opened) != ERROR_SUCCESS)
        return false;
    for (int i = 0; i < BATCH; i++)
        CHECK(datagrams[i].result == TUNRING_REPLAYED || memcmp(datagrams[i].data, text, TEXT) == 0);
    return tunring_open(opener, copies, BATCH, again) == ERROR_SUCCESS;
}

static void *
work(void *argument)
{
    (void)argument;
    for (int i = 0; i < ROUNDS; i++)
    {
        uint32_t opened, again;
        CHECK(round_trip(&opened, &again));
        CHECK_EQUAL(again, 0);
        atomic_fetch_add(&opened_at_all, opened);
        atomic_fetch_add(&replayed_at_all, BATCH - opened);
    }
    return NULL;
}

static void *
work_until_closed(void *argument)
{
    (void)argument;
    uint32_t opened, again;
    while (round_trip(&opened, &again))
        ;
    CHECK(atomic_load(&closing));
    return NULL;
}

static void
start(tunring_aead *library, tunring_aead_algorithm algorithm)
{
    CHECK_EQUAL(tunring_sealer_new(library, algorithm, key, &format, 1, UINT32_MAX, 0, &sealer), ERROR_SUCCESS);
    CHECK_EQUAL(tunring_opener_new(library, algorithm, key, &format, 8192, false, &opener), ERROR_SUCCESS);
}

static void
test_counters_are_taken_once(tunring_aead *library, tunring_aead_algorithm algorithm)
{
    start(library, algorithm);
    memset((void *)seen, 0, sizeof(seen));
    atomic_store(&opened_at_all, 0);
    atomic_store(&replayed_at_all, 0);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, work, NULL) == 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (uint32_t i = 0; i < sizeof(seen) / sizeof(seen[0]); i++)
        CHECK_EQUAL(seen[i], 1);
    /* Fewer than the window's counters were used, so none was too old. */
    CHECK_EQUAL(opened_at_all, sizeof(seen) / sizeof(seen[0]));
    CHECK_EQUAL(replayed_at_all, 0);
    tunring_opener_counts counts;
    tunring_opener_counts_read(opener, &counts);
    CHECK_EQUAL(counts.replayed, sizeof(seen) / sizeof(seen[0]));
    CHECK_EQUAL(counts.rejected, 0);
    tunring_sealer_free(sealer);
    tunring_opener_free(opener);
}

static void
test_close_meanwhile(tunring_aead *library, tunring_aead_algorithm algorithm)
{
    start(library, algorithm);
    atomic_store(&closing, false);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, work_until_closed, NULL) == 0);
    os_sleep(3000000);
    atomic_store(&closing, true);
    tunring_sealer_close(sealer);
    tunring_opener_close(opener);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    tunring_sealer_free(sealer);
    tunring_opener_free(opener);
}

static tunring_aead *last_library;
static tunring_aead_algorithm last_algorithm;

static void
remember(tunring_aead *library, tunring_aead_algorithm algorithm)
{
    last_library = library;
    last_algorithm = algorithm;
}

int
main(void)
{
    with_each(test_counters_are_taken_once);
    with_each(test_close_meanwhile);
    with_each(remember);
    start(last_library, last_algorithm);
    atomic_store(&closing, true); /* the end closes them */
    for (int i = 0; i < THREADS; i++)
    {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, work_until_closed, NULL) == 0);
        pthread_detach(thread);
    }
    os_sleep(3000000);
    return 0;
}
