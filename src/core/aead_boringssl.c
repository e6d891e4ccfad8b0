/* SPDX-License-Identifier: MIT
 *
 * Google's BoringSSL, and Amazon's AWS-LC, which comes from it. Their interface for AEAD takes a whole message at once,
 * with the tag wherever it lies. It promises no stability, so no function is used that either of them lacks.
 */
#include "core/aead.h"

#include "platform/module.h"

#include <stdio.h>
#include <stdlib.h>

#define VERSION_TEXT 0

/* `void *` stands for the types that only it knows. */
#define FUNCTIONS(X)                                                                                        \
    X(ERR_set_mark, int, (void))                                                                            \
    X(ERR_pop_to_mark, int, (void))                                                                         \
    X(EVP_aead_chacha20_poly1305, const void *, (void))                                                     \
    X(EVP_aead_aes_256_gcm, const void *, (void))                                                           \
    X(EVP_aead_aes_128_gcm, const void *, (void))                                                           \
    X(EVP_AEAD_CTX_new, void *, (const void *, const BYTE *key, size_t, size_t tag_size))                   \
    X(EVP_AEAD_CTX_free, void, (void *))                                                                    \
    X(EVP_AEAD_CTX_seal_scatter, int,                                                                       \
      (const void *, BYTE *out, BYTE *tag, size_t *tag_size, size_t tag_room, const BYTE *nonce, size_t,    \
       const BYTE *in, size_t, const BYTE *more_in, size_t, const BYTE *aad, size_t))                       \
    X(EVP_AEAD_CTX_open_gather, int,                                                                        \
      (const void *, BYTE *out, const BYTE *nonce, size_t, const BYTE *in, size_t, const BYTE *tag, size_t, \
       const BYTE *aad, size_t))

typedef struct boringssl
{
    tunring_aead base;
    void *module;
    struct boringssl *next; /* in the list of all */
#define FIELD(name, type, arguments) type(*name) arguments;
    FUNCTIONS(FIELD)
#undef FIELD
} boringssl;

typedef struct boring_context
{
    aead_context base;
    const boringssl *library;
    void *evp;
} boring_context;

/* Those that are loaded; nothing is ever taken out. */
static boringssl *_Atomic all;

/* Its contexts hold the key. Freeing one overwrites it with zeros, as all memory that the library frees. */
static void
boring_end(aead_context *base)
{
    boring_context *context = (boring_context *)base;
    context->library->EVP_AEAD_CTX_free(context->evp);
    free(context);
}

/* Errors go to a queue of the thread, of which nothing is wanted here: results say enough. Whoever else uses the
 * library in this process finds the queue as they left it. */
static aead_context *
boring_start(tunring_aead *base, tunring_aead_algorithm algorithm, const BYTE *key, bool opens)
{
    (void)opens; /* a context does both */
    const boringssl *library = (const boringssl *)base;
    const void *(*const ciphers[TUNRING_AEAD_ALGORITHMS])(void) = {
        library->EVP_aead_chacha20_poly1305, library->EVP_aead_aes_256_gcm, library->EVP_aead_aes_128_gcm};
    boring_context *context = calloc(1, sizeof(*context));
    if (!context)
        return NULL;
    context->library = library;
    library->ERR_set_mark();
    context->evp =
        library->EVP_AEAD_CTX_new(ciphers[algorithm](), key, tunring_aead_key_size(algorithm), TUNRING_AEAD_TAG);
    library->ERR_pop_to_mark();
    if (context->evp)
        return &context->base;
    free(context);
    return NULL;
}

static bool
boring_seal(aead_context *base, aead_message *messages, uint32_t count)
{
    const boring_context *context = (const boring_context *)base;
    const boringssl *library = context->library;
    library->ERR_set_mark();
    bool good = true;
    for (uint32_t i = 0; i < count && good; i++)
    {
        const aead_message *message = &messages[i];
        size_t written;
        good = library->EVP_AEAD_CTX_seal_scatter(context->evp, message->out, message->tag, &written, TUNRING_AEAD_TAG,
                                                  message->nonce, AEAD_NONCE, message->in, message->length, NULL, 0,
                                                  message->aad, message->aad_length) == 1;
    }
    library->ERR_pop_to_mark();
    return good;
}

static void
boring_open(aead_context *base, aead_message *messages, uint32_t count)
{
    const boring_context *context = (const boring_context *)base;
    const boringssl *library = context->library;
    library->ERR_set_mark();
    for (uint32_t i = 0; i < count; i++)
    {
        aead_message *message = &messages[i];
        message->authentic = library->EVP_AEAD_CTX_open_gather(
                                 context->evp, message->out, message->nonce, AEAD_NONCE, message->in, message->length,
                                 message->tag, TUNRING_AEAD_TAG, message->aad, message->aad_length) == 1;
        if (message->authentic)
            continue;
        /* Each forged message queues an error, and the queue has room for 16: more would push the mark out. */
        library->ERR_pop_to_mark();
        library->ERR_set_mark();
    }
    library->ERR_pop_to_mark();
}

static const aead_sequence whole_messages = {boring_start, boring_end, boring_seal, boring_open};
static const aead_sequence *const only_whole_messages[] = {&whole_messages, NULL};

/* BoringSSL has no version. AWS-LC says "AWS-LC 1.2.3", up to some version in parentheses after OpenSSL's. False for
 * anything else. */
static bool
name_version(const char *said, char *version, size_t size)
{
    const char *amazon = strstr(said, "AWS-LC");
    if (amazon)
        snprintf(version, size, "%.*s", (int)strcspn(amazon, ")"), amazon);
    else if (strncmp(said, "BoringSSL", 9) == 0)
        snprintf(version, size, "%s", said);
    else
        return false;
    return true;
}

/* The name of a function that is missing, or NULL. */
static const char *
resolve(boringssl *library, void *module)
{
    void *symbol;
#define LOAD(name, type, arguments)        \
    symbol = module_symbol(module, #name); \
    if (!symbol)                           \
        return #name;                      \
    memcpy(&library->name, &symbol, sizeof(symbol));
    FUNCTIONS(LOAD)
#undef LOAD
    return NULL;
}

/* Names of OpenSSL's functions, which it has, too. If the process has them from elsewhere, the library's calls of
 * itself may go there. Asked only where that was not ruled out when it was loaded. */
static bool
calls_others(void *module, bool isolated)
{
    for (const boringssl *one = atomic_load(&all); one; one = one->next)
        if (one->module == module)
            return false;
    return !isolated && (module_shadowed(module, "OpenSSL_version") || module_shadowed(module, "ERR_set_mark"));
}

static DWORD
set_up(boringssl *library, bool isolated, char *detail, size_t detail_size)
{
    const char *(*version)(int);
    void *symbol = module_symbol(library->module, "OpenSSL_version");
    if (!symbol)
    {
        snprintf(detail, detail_size, "it lacks OpenSSL_version");
        return ERROR_PROC_NOT_FOUND;
    }
    memcpy(&version, &symbol, sizeof(version));
    const char *said = version(VERSION_TEXT);
    if (!said || !name_version(said, library->base.version, sizeof(library->base.version)))
    {
        snprintf(detail, detail_size, "it is %s, neither BoringSSL nor AWS-LC", said ? said : "something nameless");
        return ERROR_NOT_SUPPORTED;
    }
    const char *missing = resolve(library, library->module);
    if (missing)
    {
        snprintf(detail, detail_size, "%s lacks %s", library->base.version, missing);
        return ERROR_PROC_NOT_FOUND;
    }
    if (calls_others(library->module, isolated))
    {
        snprintf(detail, detail_size, "its calls may go to an OpenSSL that this process has loaded for all to use");
        return ERROR_NOT_SUPPORTED;
    }
    return ERROR_SUCCESS;
}

DWORD
boringssl_load(void *module, bool isolated, tunring_aead **result, char *detail, size_t detail_size)
{
    boringssl *library = calloc(1, sizeof(*library));
    if (!library)
        return ERROR_NOT_ENOUGH_MEMORY;
    library->module = module;
    const DWORD code = set_up(library, isolated, detail, detail_size);
    if (code != ERROR_SUCCESS)
    {
        free(library);
        return code;
    }
    for (int algorithm = 0; algorithm < TUNRING_AEAD_ALGORITHMS; algorithm++)
        library->base.candidates[algorithm] = only_whole_messages;
    library->next = atomic_load(&all);
    while (!atomic_compare_exchange_weak(&all, &library->next, library))
        ;
    *result = &library->base;
    return ERROR_SUCCESS;
}
