/* SPDX-License-Identifier: MIT
 *
 * OpenSSL's libcrypto, 1.1.1 and later. One context serves message after message: the key is set once, a nonce for
 * each.
 */
#include "core/aead.h"

#include "platform/module.h"

#include <stdio.h>
#include <stdlib.h>

/* Constants and one struct of OpenSSL's stable interface. */
#define OPENSSL_VERSION_TEXT 0
#define INIT_NO_ATEXIT UINT64_C(0x00080000)
#define CTRL_GET_TAG 0x10
#define CTRL_SET_TAG 0x11
#define PARAM_OCTET_STRING 5u

typedef struct ossl_param
{
    const char *key;
    unsigned int type;
    void *data;
    size_t size;
    size_t returned;
} ossl_param;

/* Its functions. `void *` stands for the types that only it knows. */
#define FUNCTIONS(X)                                                                           \
    X(OpenSSL_version, const char *, (int))                                                    \
    X(OPENSSL_init_crypto, int, (uint64_t, const void *))                                      \
    X(ERR_set_mark, int, (void))                                                               \
    X(ERR_pop_to_mark, int, (void))                                                            \
    X(EVP_CIPHER_CTX_new, void *, (void))                                                      \
    X(EVP_CIPHER_CTX_free, void, (void *))                                                     \
    X(EVP_CIPHER_CTX_ctrl, int, (void *, int, int, void *))                                    \
    X(EVP_CipherInit_ex, int, (void *, const void *, void *, const BYTE *, const BYTE *, int)) \
    X(EVP_EncryptUpdate, int, (void *, BYTE *, int *, const BYTE *, int))                      \
    X(EVP_EncryptFinal_ex, int, (void *, BYTE *, int *))                                       \
    X(EVP_DecryptUpdate, int, (void *, BYTE *, int *, const BYTE *, int))                      \
    X(EVP_DecryptFinal_ex, int, (void *, BYTE *, int *))
/* Builds may leave some ciphers out, and OpenSSL 1.1 lacks parameters. */
#define OPTIONAL_FUNCTIONS(X)                                       \
    X(EVP_chacha20_poly1305, const void *, (void))                  \
    X(EVP_aes_256_gcm, const void *, (void))                        \
    X(EVP_aes_128_gcm, const void *, (void))                        \
    X(EVP_CIPHER_CTX_set_params, int, (void *, const ossl_param *)) \
    X(EVP_CIPHER_CTX_get_params, int, (void *, ossl_param *))

typedef struct libcrypto
{
    tunring_aead base;
#define FIELD(name, type, arguments) type(*name) arguments;
    FUNCTIONS(FIELD)
    OPTIONAL_FUNCTIONS(FIELD)
#undef FIELD
} libcrypto;

typedef struct crypto_context
{
    aead_context base;
    const libcrypto *library;
    void *evp;
    bool opens;
    ossl_param set[3]; /* the nonce; to open, the tag; the end */
    ossl_param get[2]; /* the tag; the end */
} crypto_context;

static const void *
cipher_of(const libcrypto *library, tunring_aead_algorithm algorithm)
{
    const void *(*const ciphers[TUNRING_AEAD_ALGORITHMS])(void) = {library->EVP_chacha20_poly1305,
                                                                   library->EVP_aes_256_gcm, library->EVP_aes_128_gcm};
    return ciphers[algorithm] ? ciphers[algorithm]() : NULL;
}

static void
crypto_end(aead_context *base)
{
    crypto_context *context = (crypto_context *)base;
    context->library->EVP_CIPHER_CTX_free(context->evp);
    free(context);
}

/* The result reports errors; nothing of them stays on the thread's queue, which Python's `ssl` reads. */
static aead_context *
crypto_start(tunring_aead *base, tunring_aead_algorithm algorithm, const BYTE *key, bool opens)
{
    const libcrypto *library = (const libcrypto *)base;
    crypto_context *context = calloc(1, sizeof(*context));
    if (!context)
        return NULL;
    context->library = library;
    context->opens = opens;
    library->ERR_set_mark();
    const void *cipher = cipher_of(library, algorithm);
    context->evp = cipher ? library->EVP_CIPHER_CTX_new() : NULL;
    const bool begun = context->evp && library->EVP_CipherInit_ex(context->evp, cipher, NULL, key, NULL, !opens) > 0;
    library->ERR_pop_to_mark();
    if (begun)
        return &context->base;
    crypto_end(&context->base);
    return NULL;
}

/* Passes the nonce as a parameter instead of by another Init, which for a message of 64 bytes takes as long as the
 * cipher. The parameter is meant for TLS, where GCM's has the first bytes of a nonce; with the size -1, which
 * EVP_CTRL_GCM_SET_IV_FIXED passes on for OpenSSH, it sets the whole nonce. */
static aead_context *
fast_start(tunring_aead *base, tunring_aead_algorithm algorithm, const BYTE *key, bool opens)
{
    const libcrypto *library = (const libcrypto *)base;
    if (!library->EVP_CIPHER_CTX_set_params || !library->EVP_CIPHER_CTX_get_params)
        return NULL;
    static const BYTE any_nonce[AEAD_NONCE];
    crypto_context *context = (crypto_context *)crypto_start(base, algorithm, key, opens);
    if (!context)
        return NULL;
    const size_t size = algorithm == TUNRING_CHACHA20_POLY1305 ? AEAD_NONCE : (size_t)-1;
    context->set[0] = (ossl_param){"tlsivfixed", PARAM_OCTET_STRING, NULL, size, 0};
    if (opens)
        context->set[1] = (ossl_param){"tag", PARAM_OCTET_STRING, NULL, TUNRING_AEAD_TAG, 0};
    context->get[0] = (ossl_param){"tag", PARAM_OCTET_STRING, NULL, TUNRING_AEAD_TAG, 0};
    library->ERR_set_mark();
    const bool begun = library->EVP_CipherInit_ex(context->evp, NULL, NULL, NULL, any_nonce, !opens) > 0;
    library->ERR_pop_to_mark();
    if (begun)
        return &context->base;
    crypto_end(&context->base);
    return NULL;
}

/* Additional data and text, after the nonce and before the tag. */
static inline bool
encrypt(const crypto_context *context, const aead_message *message)
{
    const libcrypto *library = context->library;
    int size;
    if (message->aad_length &&
        library->EVP_EncryptUpdate(context->evp, NULL, &size, message->aad, (int)message->aad_length) <= 0)
        return false;
    if (message->length &&
        library->EVP_EncryptUpdate(context->evp, message->out, &size, message->in, (int)message->length) <= 0)
        return false;
    BYTE nothing[TUNRING_AEAD_TAG];
    return library->EVP_EncryptFinal_ex(context->evp, nothing, &size) > 0;
}

static inline bool
decrypt(const crypto_context *context, const aead_message *message)
{
    const libcrypto *library = context->library;
    int size;
    if (message->aad_length &&
        library->EVP_DecryptUpdate(context->evp, NULL, &size, message->aad, (int)message->aad_length) <= 0)
        return false;
    if (message->length &&
        library->EVP_DecryptUpdate(context->evp, message->out, &size, message->in, (int)message->length) <= 0)
        return false;
    BYTE nothing[TUNRING_AEAD_TAG];
    return library->EVP_DecryptFinal_ex(context->evp, nothing, &size) > 0;
}

static bool
plain_seal_one(const crypto_context *context, const aead_message *message)
{
    const libcrypto *library = context->library;
    return library->EVP_CipherInit_ex(context->evp, NULL, NULL, NULL, message->nonce, 1) > 0 &&
           encrypt(context, message) &&
           library->EVP_CIPHER_CTX_ctrl(context->evp, CTRL_GET_TAG, TUNRING_AEAD_TAG, message->tag) > 0;
}

static bool
plain_open_one(const crypto_context *context, const aead_message *message)
{
    const libcrypto *library = context->library;
    return library->EVP_CipherInit_ex(context->evp, NULL, NULL, NULL, message->nonce, 0) > 0 &&
           library->EVP_CIPHER_CTX_ctrl(context->evp, CTRL_SET_TAG, TUNRING_AEAD_TAG, message->tag) > 0 &&
           decrypt(context, message);
}

static bool
fast_seal_one(crypto_context *context, aead_message *message)
{
    const libcrypto *library = context->library;
    context->set[0].data = message->nonce;
    context->get[0].data = message->tag;
    return library->EVP_CIPHER_CTX_set_params(context->evp, context->set) > 0 && encrypt(context, message) &&
           library->EVP_CIPHER_CTX_get_params(context->evp, context->get) > 0;
}

static bool
fast_open_one(crypto_context *context, aead_message *message)
{
    context->set[0].data = message->nonce;
    context->set[1].data = message->tag;
    return context->library->EVP_CIPHER_CTX_set_params(context->evp, context->set) > 0 && decrypt(context, message);
}

static bool
plain_seal(aead_context *base, aead_message *messages, uint32_t count)
{
    crypto_context *context = (crypto_context *)base;
    context->library->ERR_set_mark();
    bool good = true;
    for (uint32_t i = 0; i < count && good; i++)
        good = plain_seal_one(context, &messages[i]);
    context->library->ERR_pop_to_mark();
    return good;
}

static void
plain_open(aead_context *base, aead_message *messages, uint32_t count)
{
    crypto_context *context = (crypto_context *)base;
    context->library->ERR_set_mark();
    for (uint32_t i = 0; i < count; i++)
        messages[i].authentic = plain_open_one(context, &messages[i]);
    context->library->ERR_pop_to_mark();
}

static bool
fast_seal(aead_context *base, aead_message *messages, uint32_t count)
{
    crypto_context *context = (crypto_context *)base;
    context->library->ERR_set_mark();
    bool good = true;
    for (uint32_t i = 0; i < count && good; i++)
        good = fast_seal_one(context, &messages[i]);
    context->library->ERR_pop_to_mark();
    return good;
}

static void
fast_open(aead_context *base, aead_message *messages, uint32_t count)
{
    crypto_context *context = (crypto_context *)base;
    context->library->ERR_set_mark();
    for (uint32_t i = 0; i < count; i++)
        messages[i].authentic = fast_open_one(context, &messages[i]);
    context->library->ERR_pop_to_mark();
}

static const aead_sequence plain = {crypto_start, crypto_end, plain_seal, plain_open};
static const aead_sequence fast = {fast_start, crypto_end, fast_seal, fast_open};
static const aead_sequence *const fast_first[] = {&fast, &plain, NULL};

/* LibreSSL, BoringSSL and AWS-LC have some of the same functions; older AWS-LC says "OpenSSL ... (compatible; ...)". */
static bool
is_openssl(const char *version)
{
    return version && (strncmp(version, "OpenSSL ", 8) == 0 || strncmp(version, "OPENSSL ", 8) == 0) &&
           !strstr(version, "compatible");
}

/* The name of a function that is missing, or NULL. */
static const char *
resolve(libcrypto *library, void *module)
{
    void *symbol;
#define LOAD(name, type, arguments)        \
    symbol = module_symbol(module, #name); \
    memcpy(&library->name, &symbol, sizeof(symbol));
#define LOAD_ALWAYS(name, type, arguments) \
    LOAD(name, type, arguments)            \
    if (!symbol)                           \
        return #name;
    FUNCTIONS(LOAD_ALWAYS)
    OPTIONAL_FUNCTIONS(LOAD)
#undef LOAD_ALWAYS
#undef LOAD
    return NULL;
}

DWORD
libcrypto_load(void *module, bool ours, tunring_aead **result, char *detail, size_t detail_size)
{
    libcrypto *library = calloc(1, sizeof(*library));
    if (!library)
        return ERROR_NOT_ENOUGH_MEMORY;
    const char *missing = resolve(library, module);
    if (missing)
    {
        snprintf(detail, detail_size, "it lacks %s", missing);
        free(library);
        return ERROR_PROC_NOT_FOUND;
    }
    const char *version = library->OpenSSL_version(OPENSSL_VERSION_TEXT);
    if (!is_openssl(version))
    {
        snprintf(detail, detail_size, "it is %s, not OpenSSL", version ? version : "something nameless");
        free(library);
        return ERROR_NOT_SUPPORTED;
    }
    /* At the process's end threads may still be in it. Whoever else loaded it cleans it up. */
    if (ours)
    {
        os_fork_hold();
        library->OPENSSL_init_crypto(INIT_NO_ATEXIT, NULL);
        os_fork_release();
    }
    snprintf(library->base.version, sizeof(library->base.version), "%s", version);
    library->base.candidates[TUNRING_CHACHA20_POLY1305] = fast_first;
    library->base.candidates[TUNRING_AES_256_GCM] = fast_first;
    library->base.candidates[TUNRING_AES_128_GCM] = fast_first;
    *result = &library->base;
    return ERROR_SUCCESS;
}
