/* SPDX-License-Identifier: MIT
 *
 * How Sealers and Openers use a library: keys, contexts and messages.
 */
#ifndef TUNRING_CORE_AEAD_H
#define TUNRING_CORE_AEAD_H

#include "core/secret.h"
#include "platform/os.h"
#include "tunring_aead.h"

#include <string.h>

#define AEAD_NONCE 12u
#define AEAD_MAX_KEY 32u
/* Messages that are handed to a library at once: enough for one that computes several side by side. */
#define AEAD_GROUP 64u

/* One message. `out` is `in`, or doesn't overlap it. */
typedef struct aead_message
{
    BYTE nonce[AEAD_NONCE];
    uint32_t aad_length;
    uint32_t length;
    bool authentic; /* opening: the verdict */
    const BYTE *aad;
    const BYTE *in;
    BYTE *out;
    BYTE *tag; /* written by sealing, compared by opening */
} aead_message;

/* A key, made ready for one direction, and what the library keeps between messages. One call at a time uses it.
 * Libraries' own structs begin with this one. */
typedef struct aead_context
{
    struct aead_context *next; /* in a key's list */
} aead_context;

/* One sequence of calls by which a library does one algorithm. */
typedef struct aead_sequence
{
    aead_context *(*start)(tunring_aead *library, tunring_aead_algorithm algorithm, const BYTE *key, bool opens);
    void (*end)(aead_context *context); /* wipes the key */
    /* False if the library failed; then the output is worth nothing. */
    bool (*seal)(aead_context *context, aead_message *messages, uint32_t count);
    /* Sets `authentic`. Text of messages that aren't may have been written nevertheless. */
    void (*open)(aead_context *context, aead_message *messages, uint32_t count);
} aead_sequence;

/* The part that all loaded libraries have in common. Their own structs begin with this one. */
struct tunring_aead
{
    char version[80];
    /* By algorithm, those to try in order of preference, up to a NULL. */
    const aead_sequence *const *candidates[TUNRING_AEAD_ALGORITHMS];
    const aead_sequence *_Atomic checked[TUNRING_AEAD_ALGORITHMS]; /* the one that passed, or NULL */
};

DWORD libcrypto_load(void *module, bool ours, tunring_aead **library, char *detail, size_t detail_size);
DWORD ipsec_load(void *module, tunring_aead **library, char *detail, size_t detail_size);
/* `isolated`: module_open_isolated() has just loaded it so. */
DWORD boringssl_load(void *module, bool isolated, tunring_aead **library, char *detail, size_t detail_size);

/* Overwrites memory with zeros, also where the compiler sees that nobody reads it afterwards. */
void aead_wipe(void *memory, size_t size);

/* Compares tags in a time that doesn't depend on where they differ. */
static inline bool
aead_tags_equal(const BYTE *one, const BYTE *other)
{
    uint64_t a[2];
    memcpy(a, one, TUNRING_AEAD_TAG);
    uint64_t b[2];
    memcpy(b, other, TUNRING_AEAD_TAG);
    return ((a[0] ^ b[0]) | (a[1] ^ b[1])) == 0;
}

/* The part of a format that Sealers and Openers keep. */
typedef struct aead_format
{
    BYTE nonce[AEAD_NONCE - TUNRING_AEAD_COUNTER];
    BYTE header[TUNRING_AEAD_MAX_HEADER];
    bool any_header; /* opening: the header's bytes aren't looked at */
    bool big_endian;
    uint32_t header_size;
    uint32_t aad_length; /* from the datagram's beginning */
    uint32_t overhead;   /* bytes that a datagram has more than its text */
} aead_format;

static inline void
aead_format_set(aead_format *format, const tunring_aead_format *from)
{
    memcpy(format->nonce, from->nonce, sizeof(format->nonce));
    if (from->header)
        memcpy(format->header, from->header, from->header_size);
    format->any_header = !from->header;
    format->big_endian = from->big_endian;
    format->header_size = from->header_size;
    format->aad_length = from->unauthenticated_header ? 0 : from->header_size + TUNRING_AEAD_COUNTER;
    format->overhead = from->header_size + TUNRING_AEAD_COUNTER + TUNRING_AEAD_TAG;
}

/* Headers are so short that a call of memcpy() or memcmp() takes longer than its work. Both ends of the longest words
 * that fit are looked at, which overlap. */

static inline void
aead_copy_header(BYTE *to, const BYTE *from, uint32_t size)
{
    if (size > 16)
        memcpy(to, from, size);
    else if (size >= 8)
    {
        memcpy(to, from, 8);
        memcpy(to + size - 8, from + size - 8, 8);
    }
    else
        for (uint32_t i = 0; i < size; i++)
            to[i] = from[i];
}

static inline bool
aead_headers_equal(const BYTE *one, const BYTE *other, uint32_t size)
{
    if (size > 16)
        return memcmp(one, other, size) == 0;
    if (size >= 8)
    {
        uint64_t a[2];
        memcpy(&a[0], one, 8);
        uint64_t b[2];
        memcpy(&b[0], other, 8);
        memcpy(&a[1], one + size - 8, 8);
        memcpy(&b[1], other + size - 8, 8);
        return a[0] == b[0] && a[1] == b[1];
    }
    for (uint32_t i = 0; i < size; i++)
        if (one[i] != other[i])
            return false;
    return true;
}

/* Calls into libraries in flight, so that the process's end can wait for them. False once it has begun. */
bool aead_enter(void);
void aead_leave(void);
/* From this call on, the process's end waits for calls in flight. Must be called after the library is set up, so that
 * the library's own cleanup runs later. Idempotent. */
void aead_await_calls_at_exit(void);

/* A key that any number of calls use at once, each with a context of its own. */
typedef struct aead_key
{
    tunring_aead *library;
    const aead_sequence *sequence;
    tunring_aead_algorithm algorithm;
    bool opens;
    unsigned generation;   /* of the process that made it */
    _Atomic uint32_t life; /* AEAD_CLOSED and the number of calls in flight */
    os_mutex lock;         /* guards `spare` */
    aead_context *spare;   /* contexts that no call uses */
    secret_place secret;   /* the key, for further contexts */
} aead_key;

/* ERROR_NOT_ENOUGH_MEMORY, ERROR_NOT_SUPPORTED by a library that has not passed the check. */
DWORD aead_key_init(aead_key *key, tunring_aead *library, tunring_aead_algorithm algorithm, const BYTE *secret,
                    bool opens);
/* Lets no more calls in. Secrets are wiped when the last call has left. Idempotent. */
void aead_key_close(aead_key *key);
/* Registers a call and lends it a context. ERROR_HANDLE_EOF when closed, in a child, and at the process's end. */
DWORD aead_key_enter(aead_key *key, aead_context **context);
void aead_key_leave(aead_key *key, aead_context *context);

#endif
