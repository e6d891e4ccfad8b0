/* SPDX-License-Identifier: MIT
 *
 * Authenticated encryption of batches: the cryptography is a well-kept library's, which is loaded at run time.
 *
 * A datagram is a header, an 8-byte counter, the ciphertext and a 16-byte tag, back to back. The cipher's 12-byte nonce
 * is 4 fixed bytes and the counter's 8; its additional data is header and counter, or nothing.
 *
 * Functions return 0 or a Win32 error code. After a fork every function does nothing in the child and returns
 * ERROR_HANDLE_EOF: a nonce is never used twice.
 */
#ifndef TUNRING_AEAD_H
#define TUNRING_AEAD_H

#include "tunring.h"

/* ---- Libraries: core/aead_libcrypto.c, core/aead_ipsec.c, core/aead_boringssl.c, core/aead_check.c --------------- */

typedef enum tunring_aead_algorithm
{
    TUNRING_CHACHA20_POLY1305,
    TUNRING_AES_256_GCM,
    TUNRING_AES_128_GCM
} tunring_aead_algorithm;
#define TUNRING_AEAD_ALGORITHMS 3

typedef enum tunring_aead_kind
{
    TUNRING_LIBCRYPTO, /* OpenSSL 1.1.1 or later */
    TUNRING_IPSEC_MB,  /* Intel's Multi-Buffer Crypto for IPsec, version 1.1 or later 1.x, x86-64 only */
    TUNRING_BORINGSSL  /* Google's BoringSSL or Amazon's AWS-LC */
} tunring_aead_kind;

/* A loaded library. It stays to the process's end. */
typedef struct tunring_aead tunring_aead;

/* Loads a library by its path or, if `loaded`, finds one that this process has loaded: its cleanup at exit is then its
 * loader's business, else there will be none. ERROR_MOD_NOT_FOUND, ERROR_BAD_EXE_FORMAT, ERROR_PROC_NOT_FOUND,
 * ERROR_NOT_SUPPORTED for another product or version, each with the reason in `detail`. */
DWORD tunring_aead_load(tunring_aead_kind kind, const tunring_path_char *path, bool loaded, tunring_aead **library,
                        char *detail, size_t detail_size);
/* As the library puts it. */
const char *tunring_aead_version(const tunring_aead *library);
/* 0 once the library has passed the known-answer test of this algorithm: 64 messages, sealed, opened and forged,
 * through one context by the very calls that are made later. The first call runs it. ERROR_NOT_SUPPORTED if the library
 * lacks the algorithm, ERROR_INVALID_DATA if its answers are wrong, ERROR_NOT_ENOUGH_MEMORY. */
DWORD tunring_aead_check(tunring_aead *library, tunring_aead_algorithm algorithm);

/* Bytes of a key. */
uint32_t tunring_aead_key_size(tunring_aead_algorithm algorithm);

/* One message by itself, under a key that is used for nothing else: a handshake's, or a published vector's. */
typedef struct tunring_aead_text
{
    const BYTE *nonce; /* 12 bytes */
    const BYTE *aad;
    uint32_t aad_length;
    uint32_t length;
    BYTE *data; /* encrypted or decrypted in place */
    BYTE *tag;  /* 16 bytes: written, or compared */
} tunring_aead_text;

/* The library must have passed the check. ERROR_INVALID_DATA for a message that isn't authentic, ERROR_GEN_FAILURE if
 * the library fails: then `data` is zeros. */
DWORD tunring_aead_message(tunring_aead *library, tunring_aead_algorithm algorithm, const BYTE *key, bool opens,
                           const tunring_aead_text *text);

/* ---- Sealers: core/sealer.c -------------------------------------------------------------------------------------- */

#define TUNRING_AEAD_COUNTER 8u
#define TUNRING_AEAD_TAG 16u
#define TUNRING_AEAD_MAX_HEADER 128u
#define TUNRING_AEAD_MAX_PACKET 65535u
#define TUNRING_AEAD_MAX_DATAGRAM \
    (TUNRING_AEAD_MAX_HEADER + TUNRING_AEAD_COUNTER + TUNRING_AEAD_MAX_PACKET + TUNRING_AEAD_TAG)
/* Counters that are used are at most this; the next counter can be one more. */
#define TUNRING_AEAD_LAST_COUNTER (UINT64_MAX - 1)

/* The format that both ends of a datagram agree on. */
typedef struct tunring_aead_format
{
    BYTE nonce[4];               /* in front of the counter, in the cipher's nonce */
    const BYTE *header;          /* opening: NULL for any */
    uint32_t header_size;        /* at most TUNRING_AEAD_MAX_HEADER */
    bool unauthenticated_header; /* no additional data, rather than header and counter */
    bool big_endian;             /* the counter */
} tunring_aead_format;

typedef struct tunring_sealer tunring_sealer;

/* The library must have passed the check. Zeros are added to a packet up to a multiple of `pad_to`, but not past
 * `pad_limit` bytes. `counter` is the first. ERROR_NOT_ENOUGH_MEMORY. */
DWORD tunring_sealer_new(tunring_aead *library, tunring_aead_algorithm algorithm, const BYTE *key,
                         const tunring_aead_format *format, uint32_t pad_to, uint32_t pad_limit, uint64_t counter,
                         tunring_sealer **sealer);
/* Later calls return ERROR_HANDLE_EOF; keys are wiped once the calls in flight have ended. Idempotent. May be called at
 * any time. */
void tunring_sealer_close(tunring_sealer *sealer);
/* Nobody may be in a call. Never waits. */
void tunring_sealer_free(tunring_sealer *sealer);
/* Changes the limit; calls in flight may see the old one. Room for a datagram is then its size without the limit.
 * May be called at any time. */
void tunring_sealer_set_pad_limit(tunring_sealer *sealer, uint32_t pad_limit);
/* The next counter. May be called at any time. */
uint64_t tunring_sealer_counter(const tunring_sealer *sealer);
/* Bytes of the datagram that a packet becomes. May be called at any time. */
uint32_t tunring_sealer_size(const tunring_sealer *sealer, uint32_t length);

/* A call in flight: counters that were taken, and a context. */
typedef struct tunring_sealing
{
    tunring_sealer *sealer;
    struct aead_context *context;
    uint64_t counter; /* the next datagram's */
} tunring_sealing;

/* Takes `count` counters, which nobody will take again whatever becomes of the call. ERROR_HANDLE_EOF when closed,
 * ERROR_ARITHMETIC_OVERFLOW when fewer are left (none is taken then), ERROR_NOT_ENOUGH_MEMORY. */
DWORD tunring_seal_begin(tunring_sealer *sealer, uint32_t count, tunring_sealing *call);
/* Seals the call's next packets into `out`, back to back, which has room for the sum of their sizes and doesn't overlap
 * them. `slots` gets where each datagram lies; holds are left alone. ERROR_GEN_FAILURE if the library fails, with zeros
 * in place of the datagrams. */
DWORD tunring_seal(tunring_sealing *call, const tunring_packet *packets, uint32_t count, BYTE *out,
                   tunring_slot *slots);
void tunring_seal_end(tunring_sealing *call);

/* ---- Openers: core/opener.c -------------------------------------------------------------------------------------- */

#define TUNRING_AEAD_MAX_WINDOW (1u << 20)

typedef struct tunring_opener tunring_opener;

typedef struct tunring_opener_counts
{
    uint64_t rejected; /* not authentic, too short, or, if padding is stripped, no whole IP packet */
    uint64_t replayed; /* authentic, but seen before or older than the window */
    uint64_t foreign;  /* of another header */
} tunring_opener_counts;

/* The library must have passed the check. A counter is accepted once, and only within the last `window` (1 to
 * TUNRING_AEAD_MAX_WINDOW) counters up to the highest that was authentic. `strip_padding` cuts a packet to the length
 * that its IP header gives. ERROR_NOT_ENOUGH_MEMORY. */
DWORD tunring_opener_new(tunring_aead *library, tunring_aead_algorithm algorithm, const BYTE *key,
                         const tunring_aead_format *format, uint32_t window, bool strip_padding,
                         tunring_opener **opener);
/* As tunring_sealer_close() and tunring_sealer_free(). */
void tunring_opener_close(tunring_opener *opener);
void tunring_opener_free(tunring_opener *opener);
/* Datagrams with a counter past `last` are rejected before anything of them is looked at; at first it is the last that
 * Sealers use. May be called at any time; calls in flight may see the old one. */
void tunring_opener_set_last_counter(tunring_opener *opener, uint64_t last);
/* May be called at any time. */
void tunring_opener_counts_read(const tunring_opener *opener, tunring_opener_counts *counts);

typedef enum tunring_opened
{
    TUNRING_OPENED,
    TUNRING_REJECTED, /* overwritten with zeros */
    TUNRING_REPLAYED,
    TUNRING_FOREIGN /* left as it was */
} tunring_opened;

typedef struct tunring_datagram
{
    BYTE *data;      /* in: the datagram; out: the packet, if it was opened */
    uint32_t length; /* the same */
    tunring_opened result;
} tunring_datagram;

/* Opens datagrams in place; *opened counts the packets. Every tag is checked before the replay window looks at the
 * counters, in order. ERROR_HANDLE_EOF when closed, ERROR_NOT_ENOUGH_MEMORY: nothing was changed. */
DWORD tunring_open(tunring_opener *opener, tunring_datagram *datagrams, uint32_t count, uint32_t *opened);

/* Opens datagrams of a lease, or of a part of it, where they lie. Afterwards only *opened can read the slots of those
 * that it took: all but the foreign ones, which stay as they are. *opened has the packets that were opened, NULL if
 * there are none; free() ends it. Nothing is changed on failure: ERROR_BUSY if something else uses packet *index;
 * ERROR_ALREADY_EXISTS if that was opened before; ERROR_INVALID_HANDLE if the lease is released; ERROR_HANDLE_EOF when
 * closed; ERROR_NOT_ENOUGH_MEMORY. */
DWORD tunring_open_part(tunring_opener *opener, tunring_lease *lease, const tunring_part *part, tunring_part **opened,
                        uint32_t *index);

/* ---- Stores: core/store.c ---------------------------------------------------------------------------------------- */

/* A source that nothing is received from: memory that batches are written into. */
typedef struct tunring_store tunring_store;

/* The process's own, which stays to its end; a child process makes another. ERROR_NOT_ENOUGH_MEMORY. */
DWORD tunring_store_shared(tunring_store **store);
/* Closed and dropped as any other source. */
DWORD tunring_store_new(tunring_store **store);
tunring_source *tunring_store_source(tunring_store *store);

/* Seals packets into the store. Codes as of tunring_seal_begin() and tunring_seal(). *lease is NULL for 0 packets. */
DWORD tunring_store_seal(tunring_store *store, tunring_sealer *sealer, const tunring_packet *packets, uint32_t count,
                         tunring_lease **lease);
/* Copies datagrams into the store and opens them there. Codes as of tunring_open(). *lease has the packets that were
 * opened; NULL if there are none. */
DWORD tunring_store_open(tunring_store *store, tunring_opener *opener, const tunring_packet *datagrams, uint32_t count,
                         tunring_lease **lease);

#endif
