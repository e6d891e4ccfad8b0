/* SPDX-License-Identifier: MIT
 *
 * Measures what sealing and opening cost beside the library's own work: the same messages, to the same addresses,
 * through one context that is used again.
 *
 *     aead KIND PATH ALGORITHM SIZE PACKETS ROUNDS
 *
 * KIND is libcrypto, ipsec-mb or boringssl, ALGORITHM a number of tunring_aead_algorithm. Each round seals and opens
 * PACKETS packets of SIZE bytes by the library alone and by tunring, in turns. It prints the smallest times, in
 * nanoseconds per packet: seal alone, seal, open alone, open.
 */
#include "clock.h"
#include "core/aead.h"

#include <stdio.h>
#include <stdlib.h>

#define MAX_PACKETS 1024
#define HEADER 8u

typedef struct bench
{
    uint32_t size, packets;
    const aead_sequence *sequence;
    aead_context *sealing, *opening;
    tunring_sealer *sealer;
    tunring_opener *opener;
    tunring_packet texts[MAX_PACKETS];
    tunring_slot slots[MAX_PACKETS];
    tunring_datagram datagrams[MAX_PACKETS];
    aead_message messages[MAX_PACKETS];
    BYTE *sealed;
    int64_t best[4];
} bench;

static void
fail(const char *why)
{
    fprintf(stderr, "aead: %s\n", why);
    exit(1);
}

static void
note(int64_t *best, int64_t began)
{
    const int64_t took = now() - began;
    if (!*best || took < *best)
        *best = took;
}

static void
seal_by_tunring(bench *bench)
{
    const int64_t began = now();
    tunring_sealing call;
    if (tunring_seal_begin(bench->sealer, bench->packets, &call) != ERROR_SUCCESS ||
        tunring_seal(&call, bench->texts, bench->packets, bench->sealed, bench->slots) != ERROR_SUCCESS)
        fail("can't seal");
    tunring_seal_end(&call);
    note(&bench->best[1], began);
}

/* Describes what seal_by_tunring() wrote: the same again, or the way back. */
static void
describe(bench *bench, bool opens)
{
    for (uint32_t i = 0; i < bench->packets; i++)
    {
        BYTE *datagram = bench->slots[i].data, *text = datagram + HEADER + TUNRING_AEAD_COUNTER;
        aead_message *message = &bench->messages[i];
        *message = (aead_message){.aad = datagram, .aad_length = HEADER + TUNRING_AEAD_COUNTER, .length = bench->size};
        message->in = opens ? text : bench->texts[i].data;
        message->out = text;
        message->tag = text + bench->size;
        memcpy(message->nonce + 4, datagram + HEADER, TUNRING_AEAD_COUNTER);
    }
}

static void
seal_alone(bench *bench)
{
    describe(bench, false);
    const int64_t began = now();
    for (uint32_t i = 0; i < bench->packets; i += AEAD_GROUP)
    {
        const uint32_t left = bench->packets - i;
        if (!bench->sequence->seal(bench->sealing, bench->messages + i, left < AEAD_GROUP ? left : AEAD_GROUP))
            fail("the library fails");
    }
    note(&bench->best[0], began);
}

static void
open_alone(bench *bench)
{
    describe(bench, true);
    const int64_t began = now();
    for (uint32_t i = 0; i < bench->packets; i += AEAD_GROUP)
    {
        const uint32_t left = bench->packets - i;
        bench->sequence->open(bench->opening, bench->messages + i, left < AEAD_GROUP ? left : AEAD_GROUP);
    }
    note(&bench->best[2], began);
    for (uint32_t i = 0; i < bench->packets; i++)
        if (!bench->messages[i].authentic)
            fail("the library rejects its own");
}

static void
open_by_tunring(bench *bench)
{
    for (uint32_t i = 0; i < bench->packets; i++)
        bench->datagrams[i] = (tunring_datagram){bench->slots[i].data, bench->slots[i].length, TUNRING_OPENED};
    const int64_t began = now();
    uint32_t opened;
    if (tunring_open(bench->opener, bench->datagrams, bench->packets, &opened) != ERROR_SUCCESS)
        fail("can't open");
    note(&bench->best[3], began);
    if (opened != bench->packets)
        fail("something was rejected");
}

static tunring_aead_kind
kind_of(const char *name)
{
    if (strcmp(name, "ipsec-mb") == 0)
        return TUNRING_IPSEC_MB;
    return strcmp(name, "boringssl") == 0 ? TUNRING_BORINGSSL : TUNRING_LIBCRYPTO;
}

int
main(int count, char **words)
{
    static const BYTE key[AEAD_MAX_KEY] = {1, 2, 3};
    const tunring_aead_format format = {.header = (const BYTE *)"8 bytes.", .header_size = HEADER};
    char detail[256] = "";
    if (count != 7)
        fail("KIND PATH ALGORITHM SIZE PACKETS ROUNDS");
    const tunring_aead_kind kind = kind_of(words[1]);
    const tunring_aead_algorithm algorithm = (tunring_aead_algorithm)atoi(words[3]);
    static bench bench;
    bench.size = (uint32_t)atoi(words[4]);
    bench.packets = (uint32_t)atoi(words[5]);
    if (algorithm >= TUNRING_AEAD_ALGORITHMS || bench.packets < 1 || bench.packets > MAX_PACKETS)
        fail("a number is out of range");
    tunring_aead *library;
    if (tunring_aead_load(kind, words[2], false, &library, detail, sizeof(detail)) != ERROR_SUCCESS)
        fail(detail);
    if (tunring_aead_check(library, algorithm) != ERROR_SUCCESS ||
        tunring_sealer_new(library, algorithm, key, &format, 1, UINT32_MAX, 0, &bench.sealer) != ERROR_SUCCESS ||
        tunring_opener_new(library, algorithm, key, &format, 8192, false, &bench.opener) != ERROR_SUCCESS)
        fail("the library doesn't serve this algorithm");
    bench.sequence = atomic_load(&library->checked[algorithm]);
    bench.sealing = bench.sequence->start(library, algorithm, key, false);
    bench.opening = bench.sequence->start(library, algorithm, key, true);
    const size_t room = bench.packets * (size_t)(bench.size + HEADER + TUNRING_AEAD_COUNTER + TUNRING_AEAD_TAG);
    bench.sealed = malloc(room);
    BYTE *copy = malloc(room), *texts = calloc(bench.packets, bench.size + 1u);
    if (!bench.sealing || !bench.opening || !bench.sealed || !copy || !texts)
        fail("no memory");
    for (uint32_t i = 0; i < bench.packets; i++)
        bench.texts[i] = (tunring_packet){texts + (size_t)i * bench.size, bench.size};
    for (int round = atoi(words[6]); round > 0; round--)
    {
        seal_by_tunring(&bench);
        seal_alone(&bench);
        memcpy(copy, bench.sealed, room);
        open_alone(&bench);
        memcpy(bench.sealed, copy, room);
        open_by_tunring(&bench);
    }
    for (int i = 0; i < 4; i++)
        printf("%.1f\n", (double)bench.best[i] / bench.packets);
    return 0;
}
