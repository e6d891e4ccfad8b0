/* SPDX-License-Identifier: MIT
 *
 * Datagrams: their bytes, every length, every byte forged, truncated ones, counters that jump, repeat and end.
 */
/* build: parts=core,os flags=-ldl */
#include "aead_libraries.h"

#include "core/counter.h"

#define MAX_PACKETS 512
#define OVERHEAD (HEADER + TUNRING_AEAD_COUNTER + TUNRING_AEAD_TAG)
#define HEADER 5u

static const BYTE header[HEADER] = {0xd1, 2, 3, 4, 5};
static const BYTE key[AEAD_MAX_KEY] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22};
static const tunring_aead_format with_header = {.nonce = {9, 8, 7, 6}, .header = header, .header_size = HEADER};
static uint64_t random_state = 42;

static tunring_sealer *
new_sealer(tunring_aead *library, tunring_aead_algorithm algorithm, const tunring_aead_format *format, uint64_t counter)
{
    tunring_sealer *sealer;
    CHECK_EQUAL(tunring_sealer_new(library, algorithm, key, format, 1, UINT32_MAX, counter, &sealer), ERROR_SUCCESS);
    return sealer;
}

static tunring_opener *
new_opener(tunring_aead *library, tunring_aead_algorithm algorithm, const tunring_aead_format *format, uint32_t window)
{
    tunring_opener *opener;
    CHECK_EQUAL(tunring_opener_new(library, algorithm, key, format, window, false, &opener), ERROR_SUCCESS);
    return opener;
}

/* Seals packets into exactly the memory that they need, which the caller frees. */
static BYTE *
seal(tunring_sealer *sealer, const tunring_packet *packets, uint32_t count, tunring_slot *slots)
{
    size_t size = 0;
    for (uint32_t i = 0; i < count; i++)
        size += tunring_sealer_size(sealer, packets[i].length);
    BYTE *out = malloc(size);
    CHECK(out);
    tunring_sealing call;
    CHECK_EQUAL(tunring_seal_begin(sealer, count, &call), ERROR_SUCCESS);
    CHECK_EQUAL(tunring_seal(&call, packets, count, out, slots), ERROR_SUCCESS);
    tunring_seal_end(&call);
    BYTE *at = out;
    for (uint32_t i = 0; i < count; i++)
    {
        CHECK(slots[i].data == at);
        CHECK_EQUAL(slots[i].length, tunring_sealer_size(sealer, packets[i].length));
        at += slots[i].length;
    }
    CHECK(at == out + size);
    return out;
}

static BYTE *
seal_one(tunring_sealer *sealer, const BYTE *data, uint32_t length, uint32_t *size)
{
    const tunring_packet packet = {data, length};
    tunring_slot slot;
    BYTE *out = seal(sealer, &packet, 1, &slot);
    *size = slot.length;
    return out;
}

/* Opens a copy of one datagram; its bytes afterwards are in `after` unless that is NULL. */
static tunring_opened
open_one(tunring_opener *opener, const BYTE *data, uint32_t length, BYTE *after)
{
    BYTE *copy = malloc(length ? length : 1);
    CHECK(copy);
    memcpy(copy, data, length);
    tunring_datagram datagram = {copy, length, TUNRING_OPENED};
    uint32_t opened = 7;
    CHECK_EQUAL(tunring_open(opener, &datagram, 1, &opened), ERROR_SUCCESS);
    CHECK_EQUAL(opened, datagram.result == TUNRING_OPENED);
    if (after)
        memcpy(after, copy, length);
    free(copy);
    return datagram.result;
}

static bool
all_zero(const BYTE *bytes, size_t size)
{
    BYTE any = 0;
    for (size_t i = 0; i < size; i++)
        any |= bytes[i];
    return !any;
}

/* The datagram of `format`, made by the bare cipher. */
static void
check_layout(tunring_aead *library, tunring_aead_algorithm algorithm, const tunring_aead_format *format,
             uint32_t pad_to, uint32_t pad_limit, uint32_t length, uint32_t padded)
{
    const aead_sequence *sequence = atomic_load(&library->checked[algorithm]);
    const uint64_t counter = UINT64_C(0x0102030405060708);
    BYTE text[256] = {0};
    fill_random(text, length, &random_state);
    tunring_sealer *sealer;
    CHECK_EQUAL(tunring_sealer_new(library, algorithm, key, format, pad_to, pad_limit, counter, &sealer),
                ERROR_SUCCESS);
    uint32_t size;
    BYTE *datagram = seal_one(sealer, text, length, &size);
    CHECK_EQUAL(tunring_sealer_counter(sealer), counter + 1);
    CHECK_EQUAL(size, format->header_size + 8 + padded + 16);
    if (format->header_size)
        CHECK(memcmp(datagram, format->header, format->header_size) == 0);
    for (uint32_t i = 0; i < 8; i++)
        CHECK_EQUAL(datagram[format->header_size + i], format->big_endian ? i + 1 : 8 - i);
    BYTE out[256], tag[TUNRING_AEAD_TAG], aad[64];
    aead_message message = {.aad = aad, .length = padded, .in = text, .out = out, .tag = tag};
    message.aad_length = format->unauthenticated_header ? 0 : format->header_size + 8;
    memcpy(aad, datagram, format->header_size + 8);
    memcpy(message.nonce, format->nonce, 4);
    memcpy(message.nonce + 4, datagram + format->header_size, 8);
    aead_context *context = sequence->start(library, algorithm, key, false);
    CHECK(sequence->seal(context, &message, 1));
    sequence->end(context);
    CHECK(memcmp(datagram + format->header_size + 8, out, padded) == 0);
    CHECK(memcmp(datagram + format->header_size + 8 + padded, tag, sizeof(tag)) == 0);
    free(datagram);
    tunring_sealer_free(sealer);
}

static void
test_layouts(tunring_aead *library, tunring_aead_algorithm algorithm)
{
    static const BYTE eight[8] = {4, 0, 0, 0, 0x78, 0x56, 0x34, 0x12};
    const tunring_aead_format bare = {.nonce = {1, 2, 3, 4}};
    const tunring_aead_format wireguard = {.header = eight, .header_size = 8, .unauthenticated_header = true};
    const tunring_aead_format big = {.header = header, .header_size = HEADER, .big_endian = true};
    check_layout(library, algorithm, &bare, 1, UINT32_MAX, 100, 100);
    check_layout(library, algorithm, &with_header, 1, UINT32_MAX, 0, 0);
    check_layout(library, algorithm, &big, 1, UINT32_MAX, 33, 33);
    check_layout(library, algorithm, &wireguard, 16, UINT32_MAX, 33, 48);
    check_layout(library, algorithm, &wireguard, 16, UINT32_MAX, 48, 48);
    check_layout(library, algorithm, &wireguard, 16, UINT32_MAX, 0, 0);
    check_layout(library, algorithm, &wireguard, 16, 40, 33, 40);
    check_layout(library, algorithm, &wireguard, 16, 33, 33, 33);
    check_layout(library, algorithm, &wireguard, 16, 20, 33, 33);
    check_layout(library, algorithm, &wireguard, 7, 200, 1, 7);
}

/* Every length up to 300 and some others, in one call, opened in one call. */
static void
test_lengths(tunring_aead *library, tunring_aead_algorithm algorithm)
{
    static const uint32_t others[] = {511, 512, 1400, 1500, 9000, TUNRING_AEAD_MAX_PACKET};
    uint32_t count = 301 + sizeof(others) / sizeof(others[0]);
    tunring_sealer *sealer = new_sealer(library, algorithm, &with_header, 0);
    tunring_opener *opener = new_opener(library, algorithm, &with_header, 8192);
    tunring_packet packets[MAX_PACKETS];
    for (uint32_t i = 0; i < count; i++)
    {
        packets[i].length = i <= 300 ? i : others[i - 301];
        BYTE *data = malloc(packets[i].length + 1);
        CHECK(data);
        fill_random(data, packets[i].length, &random_state);
        packets[i].data = data;
    }
    tunring_slot slots[MAX_PACKETS];
    BYTE *out = seal(sealer, packets, count, slots);
    tunring_datagram datagrams[MAX_PACKETS];
    for (uint32_t i = 0; i < count; i++)
        datagrams[i] = (tunring_datagram){slots[i].data, slots[i].length, TUNRING_FOREIGN};
    uint32_t opened;
    CHECK_EQUAL(tunring_open(opener, datagrams, count, &opened), ERROR_SUCCESS);
    CHECK_EQUAL(opened, count);
    for (uint32_t i = 0; i < count; i++)
    {
        CHECK_EQUAL(datagrams[i].result, TUNRING_OPENED);
        CHECK_EQUAL(datagrams[i].length, packets[i].length);
        CHECK(memcmp(datagrams[i].data, packets[i].data, packets[i].length) == 0);
        free((void *)packets[i].data);
    }
    free(out);
    tunring_sealer_free(sealer);
    tunring_opener_free(opener);
}

/* No byte can change, whichever it is, and nothing of the text is left; the true one still opens, once. */
static void
test_forged(tunring_aead *library, tunring_aead_algorithm algorithm)
{
    static const uint32_t lengths[] = {0, 1, 40, 100};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
    {
        uint32_t rejected = 0;
        tunring_sealer *sealer = new_sealer(library, algorithm, &with_header, 1000);
        /* Of any header, so that its bytes are looked at by the cipher alone. */
        tunring_aead_format any = with_header;
        any.header = NULL;
        tunring_opener *opener = new_opener(library, algorithm, &any, 64);
        BYTE text[100];
        fill_random(text, sizeof(text), &random_state);
        uint32_t size;
        BYTE *datagram = seal_one(sealer, text, lengths[i], &size);
        BYTE after[200];
        for (uint32_t at = 0; at < size; at++)
        {
            datagram[at] ^= (BYTE)(1u << at % 8);
            CHECK_EQUAL(open_one(opener, datagram, size, after), TUNRING_REJECTED);
            CHECK(all_zero(after + HEADER + 8, lengths[i]));
            datagram[at] ^= (BYTE)(1u << at % 8);
            rejected++;
        }
        CHECK_EQUAL(open_one(opener, datagram, size, after), TUNRING_OPENED);
        CHECK(memcmp(after + HEADER + 8, text, lengths[i]) == 0);
        CHECK_EQUAL(open_one(opener, datagram, size, NULL), TUNRING_REPLAYED);
        tunring_opener_counts counts;
        tunring_opener_counts_read(opener, &counts);
        CHECK_EQUAL(counts.rejected, rejected);
        CHECK_EQUAL(counts.replayed, 1);
        CHECK_EQUAL(counts.foreign, 0);
        free(datagram);
        tunring_sealer_free(sealer);
        tunring_opener_free(opener);
    }
}

/* Each length that is too short, the memory no longer than that. */
static void
test_truncated(tunring_aead *library, tunring_aead_algorithm algorithm)
{
    BYTE text[20] = {1};
    tunring_sealer *sealer = new_sealer(library, algorithm, &with_header, 0);
    tunring_opener *opener = new_opener(library, algorithm, &with_header, 64);
    uint32_t size;
    BYTE *datagram = seal_one(sealer, text, sizeof(text), &size);
    BYTE after[100];
    for (uint32_t length = 0; length < size; length++)
    {
        CHECK_EQUAL(open_one(opener, datagram, length, after), length < HEADER ? TUNRING_FOREIGN : TUNRING_REJECTED);
        if (length >= HEADER && length < OVERHEAD)
            CHECK(all_zero(after, length));
    }
    tunring_opener_counts counts;
    tunring_opener_counts_read(opener, &counts);
    CHECK_EQUAL(counts.foreign, HEADER);
    CHECK_EQUAL(counts.rejected, size - HEADER);
    CHECK_EQUAL(open_one(opener, datagram, size, NULL), TUNRING_OPENED);
    free(datagram);
    tunring_sealer_free(sealer);
    tunring_opener_free(opener);
}

/* A datagram for another opener stays as it is. */
static void
test_foreign(tunring_aead *library, tunring_aead_algorithm algorithm)
{
    tunring_aead_format other = with_header;
    other.header = (const BYTE *)"other";
    tunring_sealer *sealer = new_sealer(library, algorithm, &other, 0);
    tunring_opener *opener = new_opener(library, algorithm, &with_header, 64);
    tunring_opener *theirs = new_opener(library, algorithm, &other, 64);
    BYTE text[64];
    fill_random(text, sizeof(text), &random_state);
    uint32_t size;
    BYTE *datagram = seal_one(sealer, text, sizeof(text), &size);
    BYTE after[128];
    CHECK_EQUAL(open_one(opener, datagram, size, after), TUNRING_FOREIGN);
    CHECK(memcmp(datagram, after, size) == 0);
    CHECK_EQUAL(open_one(theirs, after, size, NULL), TUNRING_OPENED);
    tunring_opener_counts counts;
    tunring_opener_counts_read(opener, &counts);
    CHECK_EQUAL(counts.foreign, 1);
    CHECK_EQUAL(counts.rejected, 0);
    free(datagram);
    tunring_sealer_free(sealer);
    tunring_opener_free(opener);
    tunring_opener_free(theirs);
}

/* Out of order, repeated within a call and over calls, a jump, and then one from before it. */
static void
test_counters(tunring_aead *library, tunring_aead_algorithm algorithm)
{
    static const uint64_t sent[] = {3, 0, 3, 2, 2, 1, 500, 4, 501, 300, 436, 437, 438};
    static const tunring_opened expected[] = {TUNRING_OPENED,   TUNRING_OPENED,   TUNRING_REPLAYED, TUNRING_OPENED,
                                              TUNRING_REPLAYED, TUNRING_OPENED,   TUNRING_OPENED,   TUNRING_REPLAYED,
                                              TUNRING_OPENED,   TUNRING_REPLAYED, TUNRING_REPLAYED, TUNRING_REPLAYED,
                                              TUNRING_OPENED};
    enum
    {
        COUNT = sizeof(sent) / sizeof(sent[0])
    };
    BYTE text[50] = {7};
    tunring_opener *opener = new_opener(library, algorithm, &with_header, 64);
    BYTE *all[COUNT];
    tunring_datagram datagrams[COUNT];
    for (int i = 0; i < COUNT; i++)
    {
        tunring_sealer *sealer = new_sealer(library, algorithm, &with_header, sent[i]);
        uint32_t size;
        all[i] = seal_one(sealer, text, sizeof(text), &size);
        tunring_sealer_free(sealer);
        datagrams[i] = (tunring_datagram){all[i], size, TUNRING_OPENED};
    }
    uint32_t opened;
    CHECK_EQUAL(tunring_open(opener, datagrams, COUNT, &opened), ERROR_SUCCESS);
    CHECK_EQUAL(opened, 7);
    for (int i = 0; i < COUNT; i++)
    {
        CHECK_EQUAL(datagrams[i].result, expected[i]);
        free(all[i]);
    }
    tunring_opener_free(opener);
}

static void
test_counters_end(tunring_aead *library, tunring_aead_algorithm algorithm)
{
    BYTE text[10] = {1};
    tunring_opener *opener = new_opener(library, algorithm, &with_header, 64);
    tunring_sealer *sealer = new_sealer(library, algorithm, &with_header, TUNRING_AEAD_LAST_COUNTER - 1);
    tunring_sealing call;
    CHECK_EQUAL(tunring_seal_begin(sealer, 3, &call), ERROR_ARITHMETIC_OVERFLOW);
    CHECK_EQUAL(tunring_sealer_counter(sealer), TUNRING_AEAD_LAST_COUNTER - 1);
    uint32_t size;
    for (int i = 0; i < 2; i++)
    {
        BYTE *datagram = seal_one(sealer, text, sizeof(text), &size);
        CHECK_EQUAL(counter_read(datagram + HEADER, false), TUNRING_AEAD_LAST_COUNTER - 1 + (uint64_t)i);
        CHECK_EQUAL(open_one(opener, datagram, size, NULL), TUNRING_OPENED);
        CHECK_EQUAL(open_one(opener, datagram, size, NULL), TUNRING_REPLAYED);
        free(datagram);
    }
    for (int i = 0; i < 2; i++)
        CHECK_EQUAL(tunring_seal_begin(sealer, 1, &call), ERROR_ARITHMETIC_OVERFLOW);
    CHECK_EQUAL(tunring_sealer_counter(sealer), TUNRING_AEAD_LAST_COUNTER + 1);
    CHECK_EQUAL(tunring_seal_begin(sealer, 0, &call), ERROR_SUCCESS);
    tunring_seal_end(&call);
    /* A counter that no sealer uses is not even tried. */
    BYTE beyond[OVERHEAD + 10];
    memcpy(beyond, header, HEADER);
    memset(beyond + HEADER, 0xff, sizeof(beyond) - HEADER);
    CHECK_EQUAL(open_one(opener, beyond, sizeof(beyond), NULL), TUNRING_REJECTED);
    tunring_sealer_free(sealer);
    tunring_opener_free(opener);
}

/* An IP packet of 28 bytes in `padded`, whose header claims `claimed`. */
static tunring_opened
strip_one(tunring_sealer *sealer, tunring_opener *opener, BYTE first, uint32_t claimed, uint32_t padded,
          uint32_t *stripped)
{
    BYTE text[128] = {first};
    if (first >> 4 == 6)
        text[5] = (BYTE)(claimed - 40);
    else
        text[3] = (BYTE)claimed;
    uint32_t size;
    BYTE *data = seal_one(sealer, text, padded, &size);
    tunring_datagram datagram = {data, size, TUNRING_OPENED};
    uint32_t opened;
    CHECK_EQUAL(tunring_open(opener, &datagram, 1, &opened), ERROR_SUCCESS);
    *stripped = datagram.length;
    free(data);
    return datagram.result;
}

static void
test_strip(tunring_aead *library, tunring_aead_algorithm algorithm)
{
    tunring_sealer *sealer = new_sealer(library, algorithm, &with_header, 0);
    tunring_opener *opener;
    CHECK_EQUAL(tunring_opener_new(library, algorithm, key, &with_header, 64, true, &opener), ERROR_SUCCESS);
    uint32_t size;
    CHECK_EQUAL(strip_one(sealer, opener, 0x45, 28, 32, &size), TUNRING_OPENED);
    CHECK_EQUAL(size, 28);
    CHECK_EQUAL(strip_one(sealer, opener, 0x45, 32, 32, &size), TUNRING_OPENED);
    CHECK_EQUAL(size, 32);
    CHECK_EQUAL(strip_one(sealer, opener, 0x60, 45, 48, &size), TUNRING_OPENED);
    CHECK_EQUAL(size, 45);
    CHECK_EQUAL(strip_one(sealer, opener, 0x45, 0, 0, &size), TUNRING_OPENED);
    CHECK_EQUAL(size, 0);
    CHECK_EQUAL(strip_one(sealer, opener, 0x45, 33, 32, &size), TUNRING_REJECTED);
    CHECK_EQUAL(strip_one(sealer, opener, 0x45, 19, 32, &size), TUNRING_REJECTED);
    CHECK_EQUAL(strip_one(sealer, opener, 0x60, 49, 48, &size), TUNRING_REJECTED);
    CHECK_EQUAL(strip_one(sealer, opener, 0x15, 28, 32, &size), TUNRING_REJECTED);
    CHECK_EQUAL(strip_one(sealer, opener, 0x45, 10, 10, &size), TUNRING_REJECTED);
    tunring_sealer_free(sealer);
    tunring_opener_free(opener);
}

/* A library that fails leaves zeros, and the counters are gone all the same. */
static bool
failing_seal(aead_context *context, aead_message *messages, uint32_t count)
{
    (void)context;
    memset(messages[0].out, 1, messages[0].length);
    return count == 0;
}

static void
test_failure(tunring_aead *library, tunring_aead_algorithm algorithm)
{
    const aead_sequence *good = atomic_load(&library->checked[algorithm]);
    aead_sequence bad = *good;
    bad.seal = failing_seal;
    atomic_store(&library->checked[algorithm], &bad);
    tunring_sealer *sealer = new_sealer(library, algorithm, &with_header, 5);
    const tunring_packet packets[2] = {{(const BYTE *)"hello", 5}, {(const BYTE *)"world", 5}};
    BYTE out[2 * (OVERHEAD + 5)];
    memset(out, 0xee, sizeof(out));
    tunring_sealing call;
    CHECK_EQUAL(tunring_seal_begin(sealer, 2, &call), ERROR_SUCCESS);
    tunring_slot slots[2];
    CHECK_EQUAL(tunring_seal(&call, packets, 2, out, slots), ERROR_GEN_FAILURE);
    tunring_seal_end(&call);
    CHECK(all_zero(out, sizeof(out)));
    CHECK_EQUAL(tunring_sealer_counter(sealer), 7);
    tunring_sealer_free(sealer);
    atomic_store(&library->checked[algorithm], good);
}

static void
test_closed(tunring_aead *library, tunring_aead_algorithm algorithm)
{
    tunring_sealer *sealer = new_sealer(library, algorithm, &with_header, 0);
    tunring_opener *opener = new_opener(library, algorithm, &with_header, 64);
    tunring_datagram datagram = {NULL, 0, TUNRING_OPENED};
    uint32_t opened;
    tunring_sealing call;
    for (int i = 0; i < 2; i++)
    {
        tunring_sealer_close(sealer);
        tunring_opener_close(opener);
        CHECK_EQUAL(tunring_seal_begin(sealer, 1, &call), ERROR_HANDLE_EOF);
        CHECK_EQUAL(tunring_open(opener, &datagram, 1, &opened), ERROR_HANDLE_EOF);
    }
    CHECK_EQUAL(tunring_sealer_counter(sealer), 0);
    tunring_sealer_free(sealer);
    tunring_opener_free(opener);
}

int
main(void)
{
    with_each(test_layouts);
    with_each(test_lengths);
    with_each(test_forged);
    with_each(test_truncated);
    with_each(test_foreign);
    with_each(test_counters);
    with_each(test_counters_end);
    with_each(test_strip);
    with_each(test_failure);
    with_each(test_closed);
    return 0;
}
