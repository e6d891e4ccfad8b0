/* SPDX-License-Identifier: MIT
 *
 * Intel's Multi-Buffer Crypto for IPsec: loading it, and the functions that need no manager of their own.
 */
#include "core/aead_ipsec.h"

#include "platform/module.h"

#include <stdio.h>
#include <stdlib.h>

/* The library's own sizes are at most these. */
#define KEY_ROOM 2048u
#define SCRATCH_ROOM 512u

/* All that the library remembers of a message. */
typedef struct scratch
{
    _Alignas(IPSEC_ALIGNMENT) BYTE room[SCRATCH_ROOM];
} scratch;

enum
{
    KEY_16,
    KEY_32 = 2
};

#define VERSION(major, minor) ((major) << 16 | (minor) << 8)
#define FEATURE_AESNI (UINT64_C(1) << 1)
#define FEATURE_EMULATED (UINT64_C(1) << 19)

/* Lies in secret memory of its own. The key is expanded (GCM), or as it is. */
typedef struct ipsec_context
{
    aead_context base;
    const ipsec_manager *manager;
    ipsec_gcm_function *gcm;
    ipsec_chacha_update_function *chacha;
    _Alignas(IPSEC_ALIGNMENT) BYTE key[KEY_ROOM];
} ipsec_context;

static aead_context *
ipsec_start(tunring_aead *base, tunring_aead_algorithm algorithm, const BYTE *key, bool opens)
{
    const ipsec_manager *manager = ((const ipsec *)base)->manager;
    ipsec_context *context = os_secret_alloc(sizeof(*context), NULL);
    if (!context)
        return NULL;
    context->manager = manager;
    if (algorithm == TUNRING_CHACHA20_POLY1305)
    {
        context->chacha = opens ? manager->chacha_decrypt : manager->chacha_encrypt;
        memcpy(context->key, key, tunring_aead_key_size(algorithm));
        return &context->base;
    }
    const int size = algorithm == TUNRING_AES_128_GCM ? KEY_16 : KEY_32;
    context->gcm = opens ? manager->gcm_decrypt[size] : manager->gcm_encrypt[size];
    manager->gcm_expand[size](key, context->key);
    return &context->base;
}

static void
ipsec_end(aead_context *base)
{
    aead_wipe(base, sizeof(ipsec_context));
    os_secret_free(base, sizeof(ipsec_context));
}

static inline void
gcm_one(const ipsec_context *context, const aead_message *message, void *scratch, BYTE *tag)
{
    context->gcm(context->key, scratch, message->out, message->in, message->length, message->nonce, message->aad,
                 message->aad_length, tag, TUNRING_AEAD_TAG);
}

static inline void
chacha_one(const ipsec_context *context, const aead_message *message, void *scratch, BYTE *tag)
{
    const ipsec_manager *manager = context->manager;
    manager->chacha_init(context->key, scratch, message->nonce, message->aad, message->aad_length);
    context->chacha(context->key, scratch, message->out, message->in, message->length);
    manager->chacha_finalize(scratch, tag, TUNRING_AEAD_TAG);
}

typedef void one_message(const ipsec_context *context, const aead_message *message, void *scratch, BYTE *tag);

/* Called with a constant, so that compilers make a loop for each algorithm. */
static inline bool
seal_each(one_message *one, const aead_context *base, aead_message *messages, uint32_t count)
{
    scratch scratch;
    for (uint32_t i = 0; i < count; i++)
        one((const ipsec_context *)base, &messages[i], &scratch, messages[i].tag);
    aead_wipe(&scratch, sizeof(scratch));
    return true;
}

static inline void
open_each(one_message *one, const aead_context *base, aead_message *messages, uint32_t count)
{
    scratch scratch;
    BYTE tag[TUNRING_AEAD_TAG];
    for (uint32_t i = 0; i < count; i++)
    {
        one((const ipsec_context *)base, &messages[i], &scratch, tag);
        messages[i].authentic = aead_tags_equal(tag, messages[i].tag);
    }
    aead_wipe(&scratch, sizeof(scratch));
}

static bool
gcm_seal(aead_context *base, aead_message *messages, uint32_t count)
{
    return seal_each(gcm_one, base, messages, count);
}

static void
gcm_open(aead_context *base, aead_message *messages, uint32_t count)
{
    open_each(gcm_one, base, messages, count);
}

static bool
chacha_seal(aead_context *base, aead_message *messages, uint32_t count)
{
    return seal_each(chacha_one, base, messages, count);
}

static void
chacha_open(aead_context *base, aead_message *messages, uint32_t count)
{
    open_each(chacha_one, base, messages, count);
}

static const aead_sequence gcm = {ipsec_start, ipsec_end, gcm_seal, gcm_open};
static const aead_sequence chacha = {ipsec_start, ipsec_end, chacha_seal, chacha_open};
static const aead_sequence *const only_gcm[] = {&gcm, NULL};
static const aead_sequence *const direct_chacha[] = {&chacha, NULL};
static const aead_sequence *const any_chacha[] = {&ipsec_chacha_jobs, &chacha, NULL};

static ipsec_manager *
new_manager(const ipsec *library)
{
    ipsec_manager *manager = library->allocate(0);
    if (manager)
        library->set_up(manager, NULL);
    return manager;
}

ipsec_manager *
ipsec_take_manager(ipsec *library)
{
    for (int i = 0; i < IPSEC_SPARE; i++)
    {
        ipsec_manager *manager = atomic_exchange(&library->spare[i], NULL);
        if (manager)
            return manager;
    }
    return new_manager(library);
}

void
ipsec_give_manager(ipsec *library, ipsec_manager *manager)
{
    for (int i = 0; i < IPSEC_SPARE; i++)
    {
        ipsec_manager *none = NULL;
        if (atomic_compare_exchange_strong(&library->spare[i], &none, manager))
            return;
    }
    library->release(manager);
}

/* The name of a function that is missing, or NULL. */
static const char *
resolve(ipsec *library, void *module)
{
    const struct
    {
        const char *name;
        void *field;
    } functions[] = {{"alloc_mb_mgr", &library->allocate},
                     {"init_mb_mgr_auto", &library->set_up},
                     {"free_mb_mgr", &library->release}};
    for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++)
    {
        void *symbol = module_symbol(module, functions[i].name);
        if (!symbol)
            return functions[i].name;
        memcpy(functions[i].field, &symbol, sizeof(symbol));
    }
    return NULL;
}

static unsigned
version_of(void *module)
{
    unsigned (*version)(void);
    void *symbol = module_symbol(module, "imb_get_version");
    if (!symbol)
        return 0;
    memcpy(&version, &symbol, sizeof(version));
    return version();
}

DWORD
ipsec_load(void *module, tunring_aead **result, char *detail, size_t detail_size)
{
    const unsigned version = version_of(module);
    if (version < VERSION(1u, 1u) || version >= VERSION(2u, 0u))
    {
        snprintf(detail, detail_size, "its version is %u.%u.%u, not 1.1 or later 1.x", version >> 16,
                 version >> 8 & 255, version & 255);
        return ERROR_NOT_SUPPORTED;
    }
    ipsec *library = calloc(1, sizeof(*library));
    if (!library)
        return ERROR_NOT_ENOUGH_MEMORY;
    DWORD code = ERROR_NOT_SUPPORTED;
    const char *missing = resolve(library, module);
    if (missing)
        snprintf(detail, detail_size, "it lacks %s", missing);
    else if (!(library->manager = new_manager(library)))
        code = ERROR_NOT_ENOUGH_MEMORY;
    else if (!(library->manager->features & FEATURE_AESNI) || (library->manager->features & FEATURE_EMULATED))
        snprintf(detail, detail_size, "this processor has no AES instructions");
    else
        code = ERROR_SUCCESS;
    if (code != ERROR_SUCCESS)
    {
        free(library);
        return code;
    }
    snprintf(library->base.version, sizeof(library->base.version), "ipsec-mb %u.%u.%u", version >> 16,
             version >> 8 & 255, version & 255);
    library->base.candidates[TUNRING_CHACHA20_POLY1305] = ipsec_knows_jobs(version) ? any_chacha : direct_chacha;
    library->base.candidates[TUNRING_AES_256_GCM] = only_gcm;
    library->base.candidates[TUNRING_AES_128_GCM] = only_gcm;
    *result = &library->base;
    return ERROR_SUCCESS;
}
