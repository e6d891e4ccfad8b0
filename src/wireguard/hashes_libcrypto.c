/* SPDX-License-Identifier: MIT
 *
 * libcrypto's BLAKE2s, ChaCha20, X25519 and random numbers, from OpenSSL 3 on: older ones have no keyed BLAKE2s.
 */
#include "wireguard/hashes.h"

#include "core/aead.h"
#include "core/counter.h"
#include "platform/module.h"

#include <stdio.h>
#include <stdlib.h>

/* Constants and one struct of OpenSSL's stable interface. */
#define OPENSSL_VERSION_TEXT 0
#define PARAM_UNSIGNED_INTEGER 2u
#define PARAM_OCTET_STRING 5u
#define PKEY_X25519 1034
#define PKEY_KEYPAIR 0x87

#define KEY TUNRING_WIREGUARD_KEY

typedef struct ossl_param
{
    const char *key;
    unsigned int type;
    void *data;
    size_t size;
    size_t returned;
} ossl_param;

#define FUNCTIONS(X)                                                                           \
    X(OpenSSL_version, const char *, (int))                                                    \
    X(ERR_set_mark, int, (void))                                                               \
    X(ERR_pop_to_mark, int, (void))                                                            \
    X(EVP_MAC_fetch, void *, (void *, const char *, const char *))                             \
    X(EVP_MAC_CTX_new, void *, (void *))                                                       \
    X(EVP_MAC_CTX_free, void, (void *))                                                        \
    X(EVP_MAC_init, int, (void *, const BYTE *, size_t, const ossl_param *))                   \
    X(EVP_MAC_update, int, (void *, const BYTE *, size_t))                                     \
    X(EVP_MAC_final, int, (void *, BYTE *, size_t *, size_t))                                  \
    X(EVP_chacha20, const void *, (void))                                                      \
    X(EVP_CIPHER_CTX_new, void *, (void))                                                      \
    X(EVP_CIPHER_CTX_free, void, (void *))                                                     \
    X(EVP_CipherInit_ex, int, (void *, const void *, void *, const BYTE *, const BYTE *, int)) \
    X(EVP_EncryptUpdate, int, (void *, BYTE *, int *, const BYTE *, int))                      \
    X(EVP_PKEY_CTX_new_from_name, void *, (void *, const char *, const char *))                \
    X(EVP_PKEY_CTX_new, void *, (void *, void *))                                              \
    X(EVP_PKEY_CTX_free, void, (void *))                                                       \
    X(EVP_PKEY_fromdata_init, int, (void *))                                                   \
    X(EVP_PKEY_fromdata, int, (void *, void **, int, ossl_param *))                            \
    X(EVP_PKEY_new_raw_public_key, void *, (int, void *, const BYTE *, size_t))                \
    X(EVP_PKEY_get_raw_public_key, int, (const void *, BYTE *, size_t *))                      \
    X(EVP_PKEY_free, void, (void *))                                                           \
    X(EVP_PKEY_derive_init, int, (void *))                                                     \
    X(EVP_PKEY_derive_set_peer_ex, int, (void *, void *, int))                                 \
    X(EVP_PKEY_derive, int, (void *, BYTE *, size_t *))                                        \
    X(RAND_bytes, int, (BYTE *, int))

struct tunring_hashes
{
    void *mac; /* BLAKE2s, fetched once */
#define FIELD(name, type, arguments) type(*name) arguments;
    FUNCTIONS(FIELD)
#undef FIELD
};

struct mac_context
{
    const tunring_hashes *hashes;
    void *evp;
};

/* ---- BLAKE2s ---- */

mac_context *
mac_context_new(tunring_hashes *hashes)
{
    mac_context *context = calloc(1, sizeof(*context));
    if (!context)
        return NULL;
    context->hashes = hashes;
    hashes->ERR_set_mark();
    context->evp = hashes->EVP_MAC_CTX_new(hashes->mac);
    hashes->ERR_pop_to_mark();
    if (context->evp)
        return context;
    free(context);
    return NULL;
}

void
mac_context_free(mac_context *context)
{
    if (!context)
        return;
    context->hashes->EVP_MAC_CTX_free(context->evp);
    free(context);
}

bool
mac_compute(mac_context *context, const BYTE *key, uint32_t key_size, const BYTE *data, size_t size, BYTE *mac)
{
    const tunring_hashes *hashes = context->hashes;
    static const char name[] = "size";
    size_t result = HASHES_MAC;
    const ossl_param parameters[] = {{name, PARAM_UNSIGNED_INTEGER, &result, sizeof(result), 0}, {0}};
    size_t written = 0;
    hashes->ERR_set_mark();
    const bool good = hashes->EVP_MAC_init(context->evp, key, key_size, parameters) > 0 &&
                      hashes->EVP_MAC_update(context->evp, data, size) > 0 &&
                      hashes->EVP_MAC_final(context->evp, mac, &written, HASHES_MAC) > 0;
    hashes->ERR_pop_to_mark();
    return good && written == HASHES_MAC;
}

bool
tunring_hashes_mac(tunring_hashes *hashes, const BYTE *key, uint32_t key_size, const BYTE *data, size_t size, BYTE *mac)
{
    if (!aead_enter())
        return false;
    mac_context *context = mac_context_new(hashes);
    const bool good = context && mac_compute(context, key, key_size, data, size, mac);
    mac_context_free(context);
    aead_leave();
    return good;
}

/* ---- ChaCha20 ---- */

static const BYTE constants[] = "expand 32-byte k";

static uint32_t
word_read(const BYTE *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static void
word_write(BYTE *bytes, uint32_t word)
{
    for (int i = 0; i < 4; i++)
        bytes[i] = (BYTE)(word >> 8 * i);
}

/* The first and last row of a block, from which the input is subtracted again: HChaCha20 lacks that last addition. */
bool
hashes_hchacha20(tunring_hashes *hashes, const BYTE *key, const BYTE *input, BYTE *result)
{
    BYTE block[64] = {0};
    int size = 0;
    hashes->ERR_set_mark();
    void *evp = hashes->EVP_CIPHER_CTX_new();
    const bool good = evp && hashes->EVP_CipherInit_ex(evp, hashes->EVP_chacha20(), NULL, key, input, 1) > 0 &&
                      hashes->EVP_EncryptUpdate(evp, block, &size, block, sizeof(block)) > 0 &&
                      size == (int)sizeof(block);
    if (evp)
        hashes->EVP_CIPHER_CTX_free(evp);
    hashes->ERR_pop_to_mark();
    for (int i = 0; i < 16; i += 4)
    {
        word_write(result + i, word_read(block + i) - word_read(constants + i));
        word_write(result + 16 + i, word_read(block + 48 + i) - word_read(input + i));
    }
    aead_wipe(block, sizeof(block));
    return good;
}

/* ---- X25519 ---- */

/* The library's object of a private key, which it wipes when that is freed. Without `public_key`, it computes that. */
static void *
import_private(const tunring_hashes *hashes, const BYTE *private_key, const BYTE *public_key)
{
    /* They are only read, but the library's struct is for both ways. */
    ossl_param parameters[] = {{"priv", PARAM_OCTET_STRING, (void *)(uintptr_t)private_key, KEY, 0},
                               {public_key ? "pub" : NULL, PARAM_OCTET_STRING, (void *)(uintptr_t)public_key, KEY, 0},
                               {0}};
    void *key = NULL;
    void *context = hashes->EVP_PKEY_CTX_new_from_name(NULL, "X25519", NULL);
    if (context && hashes->EVP_PKEY_fromdata_init(context) > 0 &&
        hashes->EVP_PKEY_fromdata(context, &key, PKEY_KEYPAIR, parameters) <= 0)
        key = NULL;
    hashes->EVP_PKEY_CTX_free(context);
    return key;
}

static bool
compute_public(const tunring_hashes *hashes, const BYTE *private_key, BYTE *public_key)
{
    size_t size = KEY;
    hashes->ERR_set_mark();
    void *key = import_private(hashes, private_key, NULL);
    const bool good = key && hashes->EVP_PKEY_get_raw_public_key(key, public_key, &size) > 0 && size == KEY;
    hashes->EVP_PKEY_free(key);
    hashes->ERR_pop_to_mark();
    return good;
}

static DWORD
compute_shared(const tunring_hashes *hashes, const BYTE *private_key, const BYTE *own_public, const BYTE *public_key,
               BYTE *shared)
{
    DWORD code = ERROR_GEN_FAILURE;
    size_t size = KEY;
    hashes->ERR_set_mark();
    void *own = import_private(hashes, private_key, own_public);
    void *other = hashes->EVP_PKEY_new_raw_public_key(PKEY_X25519, NULL, public_key, KEY);
    void *context = own && other ? hashes->EVP_PKEY_CTX_new(own, NULL) : NULL;
    /* Without a check of the peer's key: every 32 bytes are one, and zeros as the result fail. */
    if (context && hashes->EVP_PKEY_derive_init(context) > 0 &&
        hashes->EVP_PKEY_derive_set_peer_ex(context, other, 0) > 0)
        code = hashes->EVP_PKEY_derive(context, shared, &size) > 0 && size == KEY ? ERROR_SUCCESS : ERROR_INVALID_DATA;
    hashes->EVP_PKEY_CTX_free(context);
    hashes->EVP_PKEY_free(other);
    hashes->EVP_PKEY_free(own);
    hashes->ERR_pop_to_mark();
    return code;
}

/* The library looks for the algorithm under locks of its own, which a child that is forked meanwhile would wait for. */

bool
tunring_hashes_public_key(tunring_hashes *hashes, const BYTE *private_key, BYTE *public_key)
{
    if (!aead_enter())
        return false;
    os_fork_hold();
    const bool good = compute_public(hashes, private_key, public_key);
    os_fork_release();
    aead_leave();
    return good;
}

DWORD
tunring_hashes_exchange(tunring_hashes *hashes, const BYTE *private_key, const BYTE *own_public, const BYTE *public_key,
                        BYTE *shared)
{
    if (!aead_enter())
        return ERROR_HANDLE_EOF;
    os_fork_hold();
    const DWORD code = compute_shared(hashes, private_key, own_public, public_key, shared);
    os_fork_release();
    aead_leave();
    return code;
}

/* ---- Random numbers ---- */

/* A thread's first random numbers come under a lock of all threads, which a child that is forked meanwhile would wait
 * for without end. */
bool
hashes_random(tunring_hashes *hashes, void *bytes, int size)
{
    if (!aead_enter())
        return false;
    os_fork_hold();
    hashes->ERR_set_mark();
    const bool good = hashes->RAND_bytes(bytes, size) > 0;
    hashes->ERR_pop_to_mark();
    os_fork_release();
    aead_leave();
    return good;
}

/* ---- Loading ---- */

/* X25519 by the vector of RFC 7748, 5.2. The private key has the bytes of the base point, so that its public key is the
 * secret that it shares with the base point. The point of zeros is of small order. */
static bool
exchanges_right(const tunring_hashes *hashes)
{
    static const BYTE nine[KEY] = {9};
    static const BYTE zeros[KEY];
    static const BYTE expected[KEY] = {0x42, 0x2c, 0x8e, 0x7a, 0x62, 0x27, 0xd7, 0xbc, 0xa1, 0x35, 0x0b,
                                       0x3e, 0x2b, 0xb7, 0x27, 0x9f, 0x78, 0x97, 0xb8, 0x7b, 0xb6, 0x85,
                                       0x4b, 0x78, 0x3c, 0x60, 0xe8, 0x03, 0x11, 0xae, 0x30, 0x79};
    BYTE public_key[KEY], shared[KEY], none[KEY];
    return compute_public(hashes, nine, public_key) && memcmp(public_key, expected, KEY) == 0 &&
           compute_shared(hashes, nine, public_key, nine, shared) == ERROR_SUCCESS &&
           memcmp(shared, expected, KEY) == 0 &&
           compute_shared(hashes, nine, public_key, zeros, none) == ERROR_INVALID_DATA;
}

/* Keyed BLAKE2s of 16 bytes, and HChaCha20 by the vector of its Internet draft (draft-irtf-cfrg-xchacha, 2.2.1). */
static bool
answers_right(tunring_hashes *hashes)
{
    static const BYTE expected_mac[HASHES_MAC] = {0xa7, 0x91, 0xda, 0xa3, 0x41, 0x8e, 0xef, 0x65,
                                                  0x5b, 0xee, 0xca, 0xbd, 0x06, 0x9f, 0x45, 0xe4};
    static const BYTE input[16] = {0, 0, 0, 0x09, 0, 0, 0, 0x4a, 0, 0, 0, 0, 0x31, 0x41, 0x59, 0x27};
    static const BYTE expected_key[32] = {0x82, 0x41, 0x3b, 0x42, 0x27, 0xb2, 0x7b, 0xfe, 0xd3, 0x0e, 0x42,
                                          0x50, 0x8a, 0x87, 0x7d, 0x73, 0xa0, 0xf9, 0xe4, 0xd5, 0x8a, 0x74,
                                          0xa8, 0x53, 0xc1, 0x2e, 0xc4, 0x13, 0x26, 0xd3, 0xec, 0xdc};
    BYTE key[32], mac[HASHES_MAC], derived[32];
    for (int i = 0; i < 32; i++)
        key[i] = (BYTE)i;
    return tunring_hashes_mac(hashes, key, sizeof(key), input, sizeof(input), mac) &&
           memcmp(mac, expected_mac, sizeof(mac)) == 0 && hashes_hchacha20(hashes, key, input, derived) &&
           memcmp(derived, expected_key, sizeof(derived)) == 0 && exchanges_right(hashes);
}

/* The name of a function that is missing, or NULL. */
static const char *
resolve(tunring_hashes *hashes, void *module)
{
    void *symbol;
#define LOAD(name, type, arguments)        \
    symbol = module_symbol(module, #name); \
    if (!symbol)                           \
        return #name;                      \
    memcpy(&hashes->name, &symbol, sizeof(symbol));
    FUNCTIONS(LOAD)
#undef LOAD
    return NULL;
}

static DWORD
load_from(void *module, tunring_hashes *hashes, char *detail, size_t detail_size)
{
    const char *missing = resolve(hashes, module);
    if (missing)
    {
        snprintf(detail, detail_size, "it lacks %s, which OpenSSL 3 has", missing);
        return ERROR_NOT_SUPPORTED;
    }
    hashes->ERR_set_mark();
    hashes->mac = hashes->EVP_MAC_fetch(NULL, "BLAKE2SMAC", NULL);
    hashes->ERR_pop_to_mark();
    if (hashes->mac && answers_right(hashes))
        return ERROR_SUCCESS;
    snprintf(detail, detail_size, "%s %s", hashes->OpenSSL_version(OPENSSL_VERSION_TEXT),
             hashes->mac ? "gives wrong answers in the test of BLAKE2s, ChaCha20 and X25519" : "has no keyed BLAKE2s");
    return ERROR_NOT_SUPPORTED;
}

DWORD
tunring_hashes_load(const tunring_path_char *path, bool loaded, tunring_hashes **result, char *detail,
                    size_t detail_size)
{
    void *module = module_find(path);
    if (!module && loaded)
    {
        snprintf(detail, detail_size, "this process has not loaded it");
        return ERROR_MOD_NOT_FOUND;
    }
    if (!module)
        module = module_open(path, detail, detail_size);
    if (!module)
        return GetLastError();
    tunring_hashes *hashes = calloc(1, sizeof(*hashes));
    if (!hashes)
        return ERROR_NOT_ENOUGH_MEMORY;
    /* As in tunring_aead_check(): the first use takes locks that a child would wait for. */
    os_fork_hold();
    const DWORD code = load_from(module, hashes, detail, detail_size);
    os_fork_release();
    if (code != ERROR_SUCCESS)
    {
        free(hashes);
        return code;
    }
    aead_await_calls_at_exit();
    *result = hashes;
    return ERROR_SUCCESS;
}
