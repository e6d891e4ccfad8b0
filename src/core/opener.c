/* SPDX-License-Identifier: MIT
 *
 * Opening in place. Tags are checked first, by any number of threads at once; then the window looks at the counters of
 * those that were authentic, in order and under a lock.
 */
#include "core/aead.h"
#include "core/counter.h"
#include "core/replay.h"
#include "core/table.h"

#include <stdlib.h>

struct tunring_opener
{
    aead_key key;
    aead_format format;
    bool strip_padding;
    _Atomic uint64_t last_counter; /* that is opened */
    _Atomic uint64_t rejected, replayed, foreign;
    os_mutex lock; /* guards the window */
    replay_window window;
};

DWORD
tunring_opener_new(tunring_aead *library, tunring_aead_algorithm algorithm, const BYTE *key,
                   const tunring_aead_format *format, uint32_t window, bool strip_padding, tunring_opener **result)
{
    const uint32_t words = replay_words(window);
    tunring_opener *opener = calloc(1, sizeof(*opener) + words * sizeof(uint64_t));
    if (!opener)
        return ERROR_NOT_ENOUGH_MEMORY;
    DWORD code = aead_key_init(&opener->key, library, algorithm, key, true);
    if (code != ERROR_SUCCESS)
    {
        free(opener);
        return code;
    }
    aead_format_set(&opener->format, format);
    opener->strip_padding = strip_padding;
    atomic_init(&opener->last_counter, TUNRING_AEAD_LAST_COUNTER);
    os_mutex_init(&opener->lock);
    opener->window.size = window;
    opener->window.words = words;
    opener->window.bits = (uint64_t *)(opener + 1);
    *result = opener;
    return ERROR_SUCCESS;
}

void
tunring_opener_set_last_counter(tunring_opener *opener, uint64_t last)
{
    if (last > TUNRING_AEAD_LAST_COUNTER)
        last = TUNRING_AEAD_LAST_COUNTER;
    if (atomic_load_explicit(&opener->last_counter, memory_order_relaxed) != last)
        atomic_store_explicit(&opener->last_counter, last, memory_order_relaxed);
}

void
tunring_opener_close(tunring_opener *opener)
{
    aead_key_close(&opener->key);
}

void
tunring_opener_free(tunring_opener *opener)
{
    if (!opener)
        return;
    aead_key_close(&opener->key);
    os_mutex_destroy(&opener->lock);
    free(opener);
}

void
tunring_opener_counts_read(const tunring_opener *opener, tunring_opener_counts *counts)
{
    counts->rejected = atomic_load_explicit(&opener->rejected, memory_order_relaxed);
    counts->replayed = atomic_load_explicit(&opener->replayed, memory_order_relaxed);
    counts->foreign = atomic_load_explicit(&opener->foreign, memory_order_relaxed);
}

static inline bool
takes(const aead_format *format, const BYTE *data, uint32_t length)
{
    return format->any_header ||
           (length >= format->header_size && aead_headers_equal(data, format->header, format->header_size));
}

static inline uint64_t
counter_of(const aead_format *format, const BYTE *text)
{
    return counter_read(text - TUNRING_AEAD_COUNTER, format->big_endian);
}

/* Describes the ciphertext, and lets the datagram be its text. False if there is none, or its counter is past the
 * last. */
static inline bool
describe(const aead_format *format, uint64_t last_counter, tunring_datagram *datagram, aead_message *message)
{
    if (datagram->length < format->overhead)
        return false;
    BYTE *text = datagram->data + format->header_size + TUNRING_AEAD_COUNTER;
    if (counter_of(format, text) > last_counter)
        return false;
    const uint32_t length = datagram->length - format->overhead;
    memcpy(message->nonce, format->nonce, sizeof(format->nonce));
    memcpy(message->nonce + sizeof(format->nonce), text - TUNRING_AEAD_COUNTER, TUNRING_AEAD_COUNTER);
    message->aad = datagram->data;
    message->aad_length = format->aad_length;
    message->length = length;
    message->in = text;
    message->out = text;
    message->tag = text + length;
    datagram->data = text;
    datagram->length = length;
    return true;
}

/* A forged datagram leaves its text behind, which nobody may read. */
static void
reject(tunring_datagram *datagram)
{
    memset(datagram->data, 0, datagram->length);
    datagram->result = TUNRING_REJECTED;
}

/* A message of each that may be authentic. `which` is its index. */
static uint32_t
gather(const tunring_opener *opener, tunring_datagram *datagrams, uint32_t count, bool chosen, aead_message *messages,
       uint32_t *which)
{
    const uint64_t last_counter = atomic_load_explicit(&opener->last_counter, memory_order_relaxed);
    uint32_t gathered = 0;
    for (uint32_t i = 0; i < count; i++)
    {
        tunring_datagram *datagram = &datagrams[i];
        if (!chosen && !takes(&opener->format, datagram->data, datagram->length))
            datagram->result = TUNRING_FOREIGN;
        else if (!describe(&opener->format, last_counter, datagram, &messages[gathered]))
            reject(datagram);
        else
            which[gathered++] = i;
    }
    return gathered;
}

static void
open_group(const tunring_opener *opener, aead_context *context, tunring_datagram *datagrams, uint32_t count,
           bool chosen)
{
    aead_message messages[AEAD_GROUP];
    uint32_t which[AEAD_GROUP];
    const uint32_t gathered = gather(opener, datagrams, count, chosen, messages, which);
    opener->key.sequence->open(context, messages, gathered);
    for (uint32_t i = 0; i < gathered; i++)
        if (messages[i].authentic)
            datagrams[which[i]].result = TUNRING_OPENED;
        else
            reject(&datagrams[which[i]]);
}

/* Bytes that the IP header claims; 0 where there is none. */
static uint32_t
claimed_length(const BYTE *packet, uint32_t length)
{
    if (!tunring_packet_is_ip(packet, length))
        return 0;
    return packet[0] >> 4 == 4 ? (uint32_t)packet[2] << 8 | packet[3] : ((uint32_t)packet[4] << 8 | packet[5]) + 40;
}

/* An empty packet stays one: tunnels send them to be heard of. */
static void
strip(tunring_datagram *datagram)
{
    const uint32_t claimed = claimed_length(datagram->data, datagram->length);
    if (datagram->length == 0)
        return;
    if (claimed >= 20 && claimed <= datagram->length)
        datagram->length = claimed;
    else
        reject(datagram);
}

/* Looks at what was authentic, in order, and adds up the results. Returns how many are packets to deliver. */
static uint32_t
judge(tunring_opener *opener, tunring_datagram *datagrams, uint32_t count)
{
    uint32_t counts[TUNRING_FOREIGN + 1] = {0};
    uint32_t opened = 0; /* apart from the rest, so that almost all are counted in a register */
    os_mutex_lock(&opener->lock);
    for (uint32_t i = 0; i < count; i++)
    {
        tunring_datagram *datagram = &datagrams[i];
        if (datagram->result == TUNRING_OPENED)
        {
            if (!replay_accept(&opener->window, counter_of(&opener->format, datagram->data)))
                datagram->result = TUNRING_REPLAYED;
            else if (opener->strip_padding)
                strip(datagram);
        }
        if (datagram->result == TUNRING_OPENED)
            opened++;
        else
            counts[datagram->result]++;
    }
    os_mutex_unlock(&opener->lock);
    atomic_fetch_add_explicit(&opener->rejected, counts[TUNRING_REJECTED], memory_order_relaxed);
    atomic_fetch_add_explicit(&opener->replayed, counts[TUNRING_REPLAYED], memory_order_relaxed);
    atomic_fetch_add_explicit(&opener->foreign, counts[TUNRING_FOREIGN], memory_order_relaxed);
    return opened;
}

/* Opens groups, then judges them all. Returns how many are packets to deliver. `chosen`: none is foreign. */
static uint32_t
open_all(tunring_opener *opener, aead_context *context, tunring_datagram *datagrams, uint32_t count, bool chosen)
{
    for (uint32_t done = 0; done < count; done += AEAD_GROUP)
    {
        const uint32_t left = count - done;
        open_group(opener, context, datagrams + done, left < AEAD_GROUP ? left : AEAD_GROUP, chosen);
    }
    return judge(opener, datagrams, count);
}

DWORD
tunring_open(tunring_opener *opener, tunring_datagram *datagrams, uint32_t count, uint32_t *opened)
{
    aead_context *context;
    DWORD code = aead_key_enter(&opener->key, &context);
    if (code != ERROR_SUCCESS)
        return code;
    *opened = open_all(opener, context, datagrams, count, false);
    aead_key_leave(&opener->key, context);
    return ERROR_SUCCESS;
}

/* A call that opens in place the slots of `from` that are not foreign. */
typedef struct in_place
{
    tunring_lease *lease;
    const tunring_part *from; /* NULL: the whole lease */
    tunring_part *ours;       /* the slots to open; then what was opened */
    tunring_datagram *datagrams;
} in_place;

static uint32_t
count_of(const in_place *what)
{
    return what->from ? what->from->count : what->lease->count;
}

/* Lists the slots that are not foreign. ERROR_INVALID_HANDLE if the lease is released; ERROR_ALREADY_EXISTS. */
static DWORD
choose(const tunring_opener *opener, const in_place *what, uint32_t *index)
{
    const tunring_part *from = what->from;
    const tunring_slot *slots = from ? from->slots : what->lease->slots;
    const uint32_t count = count_of(what);
    const DWORD code = tunring_lease_enter(what->lease, from, index);
    if (code == ERROR_BUSY)
        return ERROR_ALREADY_EXISTS;
    if (code != ERROR_SUCCESS)
        return code == ERROR_HANDLE_EOF ? ERROR_INVALID_HANDLE : code;
    uint32_t chosen = 0; /* not in `ours`, where each packet would wait for the one before it */
    for (uint32_t i = 0; i < count; i++)
    {
        const tunring_slot *slot = &slots[i];
        if (!takes(&opener->format, slot->data, slot->length))
            continue;
        what->ours->slots[chosen].root = from ? slot->root : i;
        what->datagrams[chosen++] = (tunring_datagram){.data = slot->data, .length = slot->length};
    }
    what->ours->count = chosen;
    tunring_lease_leave(what->lease, from);
    return ERROR_SUCCESS;
}

/* Where the packet at `index` of what was chosen is in what it was chosen from. */
static uint32_t
index_from(const in_place *what, uint32_t index)
{
    const uint32_t root = what->ours->slots[index].root;
    uint32_t at = root;
    if (what->from)
        for (at = 0; what->from->slots[at].root != root; at++)
            ;
    return at;
}

/* Claims the slots that were chosen. */
static DWORD
claim(const in_place *what, uint32_t *index)
{
    const bool whole = !what->from && what->ours->count == what->lease->count;
    const DWORD code = tunring_lease_open(what->lease, whole ? NULL : what->ours, index);
    if (code == ERROR_SUCCESS)
        return code;
    if (code == ERROR_HANDLE_EOF)
        return ERROR_INVALID_HANDLE;
    *index = index_from(what, *index);
    return code;
}

/* Opens what was claimed, and keeps of `ours` what was opened. */
static void
open_claimed(tunring_opener *opener, aead_context *context, const in_place *what)
{
    tunring_part *ours = what->ours;
    const uint32_t count = ours->count;
    open_all(opener, context, what->datagrams, count, true);
    tunring_lease_opened(what->lease);
    uint32_t kept = 0;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < count; i++)
    {
        const tunring_datagram *datagram = &what->datagrams[i];
        if (datagram->result != TUNRING_OPENED)
            continue;
        tunring_slot *slot = &ours->slots[kept++];
        slot->root = ours->slots[i].root;
        slot->data = datagram->data;
        slot->length = datagram->length;
        bytes += datagram->length;
    }
    ours->level++;
    ours->count = kept;
    ours->bytes = bytes;
}

static void
count_foreign(tunring_opener *opener, uint32_t foreign)
{
    if (foreign)
        atomic_fetch_add_explicit(&opener->foreign, foreign, memory_order_relaxed);
}

DWORD
tunring_open_part(tunring_opener *opener, tunring_lease *lease, const tunring_part *part, tunring_part **opened,
                  uint32_t *index)
{
    in_place what = {.lease = lease, .from = part};
    const uint32_t count = count_of(&what);
    *opened = NULL;
    aead_context *context;
    DWORD code = aead_key_enter(&opener->key, &context);
    if (code != ERROR_SUCCESS)
        return code;
    what.ours = tunring_part_new(count, part ? part->level : 0);
    what.datagrams = table_alloc(sizeof(*what.datagrams), count, sizeof(*what.datagrams));
    code = what.ours && what.datagrams ? choose(opener, &what, index) : ERROR_NOT_ENOUGH_MEMORY;
    const uint32_t chosen = code == ERROR_SUCCESS ? what.ours->count : 0;
    if (chosen)
        code = claim(&what, index);
    if (code == ERROR_SUCCESS)
        count_foreign(opener, count - chosen);
    if (code == ERROR_SUCCESS && chosen)
        open_claimed(opener, context, &what);
    aead_key_leave(&opener->key, context);
    free(what.datagrams);
    if (code == ERROR_SUCCESS && what.ours->count)
        *opened = what.ours;
    else
        free(what.ours);
    return code;
}
