/* SPDX-License-Identifier: MIT
 *
 * Batches that are sealed into chunks and opened as copies: they lie back to back, pin their memory, and give all of it
 * back.
 */
/* build: parts=core,os flags=-ldl */
#include "aead_libraries.h"

#include "core/arena.h"
#include "core/source.h"

#if defined(__linux__)
#include <sys/wait.h>
#include <unistd.h>
#endif

#define PACKETS 700
#define HEADER 4u
#define OVERHEAD (HEADER + TUNRING_AEAD_COUNTER + TUNRING_AEAD_TAG)

static const BYTE key[AEAD_MAX_KEY] = {4};
static const tunring_aead_format format = {.header = (const BYTE *)"head", .header_size = HEADER};
static tunring_sealer *sealer;
static tunring_opener *opener;
static tunring_store *store;
static BYTE text[PACKETS * 2 + 8];

static uint64_t
pinned(void)
{
    return atomic_load(&tunring_store_source(store)->counts.pinned_packets);
}

static void
begin(tunring_aead *library, tunring_aead_algorithm algorithm)
{
    CHECK_EQUAL(tunring_sealer_new(library, algorithm, key, &format, 1, UINT32_MAX, 0, &sealer), ERROR_SUCCESS);
    CHECK_EQUAL(tunring_opener_new(library, algorithm, key, &format, 8192, false, &opener), ERROR_SUCCESS);
    CHECK_EQUAL(tunring_store_new(&store), ERROR_SUCCESS);
}

static void
finish(void)
{
    CHECK_EQUAL(pinned(), 0);
    tunring_source_close(tunring_store_source(store));
    tunring_source_drop(tunring_store_source(store));
    tunring_sealer_free(sealer);
    tunring_opener_free(opener);
}

static tunring_lease *
seal(const tunring_packet *packets, uint32_t count)
{
    tunring_lease *lease;
    CHECK_EQUAL(tunring_store_seal(store, sealer, packets, count, &lease), ERROR_SUCCESS);
    CHECK_EQUAL(lease->count, count);
    return lease;
}

static tunring_lease *
open_all(const tunring_lease *lease)
{
    tunring_packet packets[PACKETS];
    for (uint32_t i = 0; i < lease->count; i++)
        packets[i] = (tunring_packet){lease->slots[i].data, lease->slots[i].length};
    tunring_lease *opened;
    CHECK_EQUAL(tunring_store_open(store, opener, packets, lease->count, &opened), ERROR_SUCCESS);
    return opened;
}

static void
let_go(tunring_lease *lease)
{
    tunring_lease_release(lease);
    tunring_lease_free(lease);
}

/* More than a chunk holds, of all lengths from 0 on. */
static void
test_round_trip(tunring_aead *library, tunring_aead_algorithm algorithm)
{
    begin(library, algorithm);
    tunring_packet packets[PACKETS];
    for (uint32_t i = 0; i < PACKETS; i++)
        packets[i] = (tunring_packet){text + i % 5, i * 2};
    tunring_lease *sealed = seal(packets, PACKETS);
    uint64_t bytes = 0;
    uint32_t breaks = 0;
    for (uint32_t i = 0; i < PACKETS; i++)
    {
        CHECK_EQUAL(sealed->slots[i].length, packets[i].length + OVERHEAD);
        bytes += sealed->slots[i].length;
        breaks += i && sealed->slots[i].data != sealed->slots[i - 1].data + sealed->slots[i - 1].length;
    }
    CHECK_EQUAL(sealed->bytes, bytes);
    CHECK_EQUAL(breaks, bytes / ARENA_CHUNK);
    tunring_lease *opened = open_all(sealed);
    CHECK_EQUAL(opened->count, PACKETS);
    CHECK_EQUAL(pinned(), 2 * PACKETS);
    let_go(sealed);
    for (uint32_t i = 0; i < PACKETS; i++)
    {
        CHECK_EQUAL(opened->slots[i].length, packets[i].length);
        CHECK(memcmp(opened->slots[i].data, packets[i].data, packets[i].length) == 0);
    }
    let_go(opened);
    finish();
}

/* Forged, foreign, repeated, too short and empty ones are left out; the caller's own memory stays as it is. */
static void
test_left_out(tunring_aead *library, tunring_aead_algorithm algorithm)
{
    const tunring_packet packets[] = {{text, 100}, {text, 200}, {text, 0}};
    begin(library, algorithm);
    tunring_lease *sealed = seal(packets, 3);
    BYTE forged[300];
    memcpy(forged, sealed->slots[1].data, sealed->slots[1].length);
    BYTE foreign[300];
    memcpy(foreign, sealed->slots[1].data, sealed->slots[1].length);
    forged[20] ^= 1;
    foreign[0] ^= 1;
    const BYTE byte = forged[21];
    const tunring_packet datagrams[] = {
        {forged, sealed->slots[1].length},
        {sealed->slots[0].data, sealed->slots[0].length},
        {foreign, sealed->slots[1].length},
        {sealed->slots[0].data, sealed->slots[0].length},
        {foreign, 0},
        {sealed->slots[0].data, 10},
        {sealed->slots[2].data, sealed->slots[2].length},
        {foreign, 0},
    };
    tunring_lease *opened;
    CHECK_EQUAL(tunring_store_open(store, opener, datagrams, 8, &opened), ERROR_SUCCESS);
    CHECK_EQUAL(opened->count, 2);
    CHECK_EQUAL(opened->slots[0].length, 100);
    CHECK_EQUAL(opened->slots[1].length, 0);
    CHECK_EQUAL(opened->bytes, 100);
    CHECK_EQUAL(forged[21], byte);
    tunring_opener_counts counts;
    tunring_opener_counts_read(opener, &counts);
    CHECK_EQUAL(counts.rejected, 2);
    CHECK_EQUAL(counts.replayed, 1);
    CHECK_EQUAL(counts.foreign, 3);
    CHECK_EQUAL(pinned(), 5);
    let_go(opened);
    /* Nothing opened: no lease. */
    CHECK_EQUAL(tunring_store_open(store, opener, datagrams, 8, &opened), ERROR_SUCCESS);
    CHECK(!opened);
    CHECK_EQUAL(tunring_store_open(store, opener, datagrams, 0, &opened), ERROR_SUCCESS);
    CHECK(!opened);
    CHECK_EQUAL(tunring_store_seal(store, sealer, packets, 0, &opened), ERROR_SUCCESS);
    CHECK(!opened);
    let_go(sealed);
    finish();
}

/* Empty datagrams up to a chunk's very end are slots of that chunk. */
static void
test_chunk_ends(tunring_aead *library, tunring_aead_algorithm algorithm)
{
    begin(library, algorithm);
    tunring_lease *opened;
    static tunring_packet datagrams[2 * ARENA_CHUNK];
    CHECK_EQUAL(tunring_store_open(store, opener, datagrams, 2 * ARENA_CHUNK, &opened), ERROR_SUCCESS);
    CHECK(!opened);
    finish();
}

/* A failed call lends nothing. */
static void
test_failures(tunring_aead *library, tunring_aead_algorithm algorithm)
{
    const tunring_packet packet = {text, 100};
    begin(library, algorithm);
    tunring_lease *sealed = seal(&packet, 1);
    tunring_sealer_close(sealer);
    tunring_opener_close(opener);
    tunring_lease *lease;
    CHECK_EQUAL(tunring_store_seal(store, sealer, &packet, 1, &lease), ERROR_HANDLE_EOF);
    CHECK(!lease);
    CHECK_EQUAL(tunring_store_open(store, opener, &packet, 1, &lease), ERROR_HANDLE_EOF);
    CHECK(!lease);
    let_go(sealed);
    tunring_source_close(tunring_store_source(store));
    CHECK_EQUAL(tunring_store_seal(store, sealer, &packet, 1, &lease), ERROR_HANDLE_EOF);
    tunring_source_drop(tunring_store_source(store));
    tunring_sealer_free(sealer);
    tunring_opener_free(opener);
}

#if defined(__linux__)
/* Lent memory stays readable in a child, where the process's store is another. */
static void
test_fork(tunring_aead *library, tunring_aead_algorithm algorithm)
{
    const tunring_packet packet = {text, 100};
    begin(library, algorithm);
    tunring_source_close(tunring_store_source(store));
    tunring_source_drop(tunring_store_source(store));
    CHECK_EQUAL(tunring_store_shared(&store), ERROR_SUCCESS);
    tunring_store *same;
    CHECK_EQUAL(tunring_store_shared(&same), ERROR_SUCCESS);
    CHECK(same == store);
    tunring_lease *sealed = seal(&packet, 1);
    fflush(NULL);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0)
    {
        tunring_lease *lease;
        CHECK_EQUAL(tunring_store_seal(store, sealer, &packet, 1, &lease), ERROR_HANDLE_EOF);
        CHECK(memcmp(sealed->slots[0].data, "head", 4) == 0);
        CHECK_EQUAL(tunring_store_shared(&same), ERROR_SUCCESS);
        CHECK(same != store);
        tunring_sealer *own;
        CHECK_EQUAL(tunring_sealer_new(library, algorithm, key, &format, 1, UINT32_MAX, 0, &own), ERROR_SUCCESS);
        CHECK_EQUAL(tunring_store_seal(same, own, &packet, 1, &lease), ERROR_SUCCESS);
        CHECK(memcmp(lease->slots[0].data, sealed->slots[0].data, sealed->slots[0].length) == 0);
        _exit(0);
    }
    int status;
    CHECK_EQUAL(waitpid(child, &status, 0), child);
    CHECK_EQUAL(status, 0);
    let_go(sealed);
    CHECK_EQUAL(pinned(), 0);
    tunring_sealer_free(sealer);
    tunring_opener_free(opener);
}
#endif

int
main(void)
{
    uint64_t random = 5;
    fill_random(text, sizeof(text), &random);
    with_each(test_round_trip);
    with_each(test_left_out);
    with_each(test_chunk_ends);
    with_each(test_failures);
#if defined(__linux__)
    with_each(test_fork);
#endif
    return 0;
}
