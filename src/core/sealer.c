/* SPDX-License-Identifier: MIT
 *
 * Sealing. Counters are taken for a whole call before it begins, so that neither a failure nor another thread can make
 * one be used twice.
 */
#include "core/aead.h"
#include "core/copy.h"
#include "core/counter.h"

#include <stdlib.h>

struct tunring_sealer
{
    aead_key key;
    aead_format format;
    _Atomic uint64_t counter; /* the next one */
    uint32_t pad_to;
    _Atomic uint32_t pad_limit;
};

DWORD
tunring_sealer_new(tunring_aead *library, tunring_aead_algorithm algorithm, const BYTE *key,
                   const tunring_aead_format *format, uint32_t pad_to, uint32_t pad_limit, uint64_t counter,
                   tunring_sealer **result)
{
    tunring_sealer *sealer = calloc(1, sizeof(*sealer));
    if (!sealer)
        return ERROR_NOT_ENOUGH_MEMORY;
    DWORD code = aead_key_init(&sealer->key, library, algorithm, key, false);
    if (code != ERROR_SUCCESS)
    {
        free(sealer);
        return code;
    }
    aead_format_set(&sealer->format, format);
    atomic_init(&sealer->counter, counter);
    sealer->pad_to = pad_to ? pad_to : 1;
    atomic_init(&sealer->pad_limit, pad_limit);
    *result = sealer;
    return ERROR_SUCCESS;
}

void
tunring_sealer_close(tunring_sealer *sealer)
{
    aead_key_close(&sealer->key);
}

void
tunring_sealer_free(tunring_sealer *sealer)
{
    if (!sealer)
        return;
    aead_key_close(&sealer->key);
    free(sealer);
}

void
tunring_sealer_set_pad_limit(tunring_sealer *sealer, uint32_t pad_limit)
{
    atomic_store_explicit(&sealer->pad_limit, pad_limit, memory_order_relaxed);
}

uint64_t
tunring_sealer_counter(const tunring_sealer *sealer)
{
    return atomic_load(&sealer->counter);
}

/* Bytes of a packet with its padding. */
static inline uint32_t
padded(const tunring_sealer *sealer, uint32_t length)
{
    const uint32_t limit = atomic_load_explicit(&sealer->pad_limit, memory_order_relaxed);
    if (sealer->pad_to == 1 || length >= limit)
        return length;
    const uint32_t rest = length % sealer->pad_to;
    if (!rest)
        return length;
    const uint32_t zeros = sealer->pad_to - rest;
    return zeros < limit - length ? length + zeros : limit;
}

uint32_t
tunring_sealer_size(const tunring_sealer *sealer, uint32_t length)
{
    return sealer->format.overhead + padded(sealer, length);
}

static bool
take_counters(tunring_sealer *sealer, uint32_t count, uint64_t *first)
{
    *first = atomic_load(&sealer->counter);
    do
    {
        if (count > TUNRING_AEAD_LAST_COUNTER + 1 - *first)
            return false;
    } while (!atomic_compare_exchange_weak(&sealer->counter, first, *first + count));
    return true;
}

DWORD
tunring_seal_begin(tunring_sealer *sealer, uint32_t count, tunring_sealing *call)
{
    DWORD code = aead_key_enter(&sealer->key, &call->context);
    if (code != ERROR_SUCCESS)
        return code;
    call->sealer = sealer;
    if (take_counters(sealer, count, &call->counter))
        return ERROR_SUCCESS;
    aead_key_leave(&sealer->key, call->context);
    return ERROR_ARITHMETIC_OVERFLOW;
}

void
tunring_seal_end(tunring_sealing *call)
{
    aead_key_leave(&call->sealer->key, call->context);
}

/* Writes everything of a datagram but ciphertext and tag, and describes those. Returns where the next one begins. */
static inline BYTE *
lay_out(const tunring_sealer *sealer, uint64_t counter, const tunring_packet *packet, BYTE *out, aead_message *message)
{
    const aead_format *format = &sealer->format;
    const uint32_t length = packet->length;
    const uint32_t size = padded(sealer, length);
    BYTE *text = out + format->header_size + TUNRING_AEAD_COUNTER;
    aead_copy_header(out, format->header, format->header_size);
    counter_write(text - TUNRING_AEAD_COUNTER, counter, format->big_endian);
    memcpy(message->nonce, format->nonce, sizeof(format->nonce));
    memcpy(message->nonce + sizeof(format->nonce), text - TUNRING_AEAD_COUNTER, TUNRING_AEAD_COUNTER);
    message->in = length ? packet->data : text; /* nothing may have no address */
    if (size != length)
    {
        copy_packet(text, packet->data, length);
        memset(text + length, 0, size - length);
        message->in = text;
    }
    message->aad = out;
    message->aad_length = format->aad_length;
    message->length = size;
    message->out = text;
    message->tag = text + size;
    return message->tag + TUNRING_AEAD_TAG;
}

DWORD
tunring_seal(tunring_sealing *call, const tunring_packet *packets, uint32_t count, BYTE *out, tunring_slot *slots)
{
    const tunring_sealer *sealer = call->sealer;
    const aead_sequence *sequence = sealer->key.sequence;
    BYTE *const begin = out;
    uint32_t done = 0;
    aead_message messages[AEAD_GROUP];
    while (done < count)
    {
        const uint32_t group = count - done < AEAD_GROUP ? count - done : AEAD_GROUP;
        for (uint32_t i = 0; i < group; i++)
        {
            BYTE *next = lay_out(sealer, call->counter++, &packets[done + i], out, &messages[i]);
            slots[done + i].data = out;
            slots[done + i].length = (uint32_t)(next - out);
            out = next;
        }
        if (!sequence->seal(call->context, messages, group))
        {
            memset(begin, 0, (size_t)(out - begin));
            return ERROR_GEN_FAILURE;
        }
        done += group;
    }
    return ERROR_SUCCESS;
}
