/* SPDX-License-Identifier: MIT
 *
 * libcrypto's BLAKE2s, ChaCha20 and random numbers, from OpenSSL 3 on: older ones have no keyed BLAKE2s.
 */
#include "wireguard/hashes.h"

#include "core/aead.h"
#include "core/counter.h"
#include "platform/module.h"

#include <stdio.h>
#include <stdlib.h>

/* Two types and one struct of OpenSSL's stable interface. */
#define OPENSSL_VERSION_TEXT 0
#define PARAM_UNSIGNED_INTEGER 2u

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

static const BYTE constants[16] = "expand 32-byte k";

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

bool
hashes_random(tunring_hashes *hashes, void *bytes, int size)
{
    hashes->ERR_set_mark();
    const bool good = hashes->RAND_bytes(bytes, size) > 0;
    hashes->ERR_pop_to_mark();
    return good;
}

/* ---- Loading ---- */

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
           memcmp(derived, expected_key, sizeof(derived)) == 0;
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
             hashes->mac ? "gives wrong answers in the test of BLAKE2s and ChaCha20" : "has no keyed BLAKE2s");
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
    const DWORD code = load_from(module, hashes, detail, detail_size);
    if (code == ERROR_SUCCESS)
        *result = hashes;
    else
        free(hashes);
    return code;
}
