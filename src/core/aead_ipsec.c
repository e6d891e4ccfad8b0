/* SPDX-License-Identifier: MIT
 *
 * Intel's Multi-Buffer Crypto for IPsec. Its manager is a table of functions for the processor that it runs on. The
 * table grows at its end within versions 1.x; these are the places of what is used here, as its documentation lists
 * them.
 */
#include "core/aead.h"

#include "platform/module.h"

#include <stdio.h>
#include <stdlib.h>

/* The library's own sizes are at most these. */
#define KEY_ROOM 2048u
#define SCRATCH_ROOM 512u
#define ALIGNMENT 64u

/* All that the library remembers of a message. */
typedef struct scratch
{
    _Alignas(ALIGNMENT) BYTE room[SCRATCH_ROOM];
} scratch;

/* key, scratch, out, in, length, nonce, additional data, its length, tag, its length */
typedef void gcm_function(const void *, void *, BYTE *, const BYTE *, uint64_t, const BYTE *, const BYTE *, uint64_t,
                          BYTE *, uint64_t);
typedef void gcm_expand_function(const void *key, void *expanded);
/* key, scratch, nonce, additional data, its length */
typedef void chacha_init_function(const void *, void *, const void *, const void *, uint64_t);
/* key, scratch, out, in, length */
typedef void chacha_update_function(const void *, void *, void *, const void *, uint64_t);
/* scratch, tag, its length */
typedef void chacha_finalize_function(void *, void *, uint64_t);

typedef struct manager
{
    uint64_t flags, features, reserved[5];
    uint32_t architecture;
    int failure;
    void (*others_before_gcm[24])(void);
    gcm_function *gcm_encrypt[3], *gcm_decrypt[3]; /* by key: 16, 24, 32 bytes */
    void (*others_between_gcm[18])(void);
    gcm_expand_function *gcm_expand[3];
    void (*others_before_chacha[56])(void);
    chacha_init_function *chacha_init;
    chacha_update_function *chacha_encrypt, *chacha_decrypt;
    chacha_finalize_function *chacha_finalize;
} manager;

enum
{
    KEY_16,
    KEY_32 = 2
};

#define VERSION(major, minor) ((major) << 16 | (minor) << 8)
#define FEATURE_AESNI (UINT64_C(1) << 1)
#define FEATURE_EMULATED (UINT64_C(1) << 19)

typedef struct ipsec
{
    tunring_aead base;
    const manager *manager; /* only read once it is set up, so all threads share it */
} ipsec;

/* Lies in secret memory of its own. The key is expanded (GCM), or as it is. */
typedef struct ipsec_context
{
    aead_context base;
    const manager *manager;
    gcm_function *gcm;
    chacha_update_function *chacha;
    _Alignas(ALIGNMENT) BYTE key[KEY_ROOM];
} ipsec_context;

static aead_context *
ipsec_start(tunring_aead *base, tunring_aead_algorithm algorithm, const BYTE *key, bool opens)
{
    const manager *manager = ((const ipsec *)base)->manager;
    ipsec_context *context = os_secret_alloc(sizeof(*context));
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
    const manager *manager = context->manager;
    manager->chacha_init(context->key, scratch, message->nonce, message->aad, message->aad_length);
    context->chacha(context->key, scratch, message->out, message->in, message->length);
    manager->chacha_finalize(scratch, tag, TUNRING_AEAD_TAG);
}

static bool
gcm_seal(aead_context *base, aead_message *messages, uint32_t count)
{
    scratch scratch;
    for (uint32_t i = 0; i < count; i++)
        gcm_one((const ipsec_context *)base, &messages[i], &scratch, messages[i].tag);
    aead_wipe(&scratch, sizeof(scratch));
    return true;
}

static void
gcm_open(aead_context *base, aead_message *messages, uint32_t count)
{
    scratch scratch;
    BYTE tag[TUNRING_AEAD_TAG];
    for (uint32_t i = 0; i < count; i++)
    {
        gcm_one((const ipsec_context *)base, &messages[i], &scratch, tag);
        messages[i].authentic = aead_tags_equal(tag, messages[i].tag);
    }
    aead_wipe(&scratch, sizeof(scratch));
}

static bool
chacha_seal(aead_context *base, aead_message *messages, uint32_t count)
{
    scratch scratch;
    for (uint32_t i = 0; i < count; i++)
        chacha_one((const ipsec_context *)base, &messages[i], &scratch, messages[i].tag);
    aead_wipe(&scratch, sizeof(scratch));
    return true;
}

static void
chacha_open(aead_context *base, aead_message *messages, uint32_t count)
{
    scratch scratch;
    BYTE tag[TUNRING_AEAD_TAG];
    for (uint32_t i = 0; i < count; i++)
    {
        chacha_one((const ipsec_context *)base, &messages[i], &scratch, tag);
        messages[i].authentic = aead_tags_equal(tag, messages[i].tag);
    }
    aead_wipe(&scratch, sizeof(scratch));
}

static const aead_sequence gcm = {ipsec_start, ipsec_end, gcm_seal, gcm_open};
static const aead_sequence chacha = {ipsec_start, ipsec_end, chacha_seal, chacha_open};
static const aead_sequence *const only_gcm[] = {&gcm, NULL};
static const aead_sequence *const only_chacha[] = {&chacha, NULL};

/* Sets up a manager, which stays to the process's end. NULL with the reason. */
static const manager *
new_manager(void *module, char *detail, size_t detail_size)
{
    manager *(*allocate)(uint64_t);
    void (*set_up)(manager *, int *);
    void *symbols[] = {module_symbol(module, "alloc_mb_mgr"), module_symbol(module, "init_mb_mgr_auto")};
    if (!symbols[0] || !symbols[1])
    {
        snprintf(detail, detail_size, "it lacks %s", symbols[0] ? "init_mb_mgr_auto" : "alloc_mb_mgr");
        return NULL;
    }
    memcpy(&allocate, &symbols[0], sizeof(allocate));
    memcpy(&set_up, &symbols[1], sizeof(set_up));
    manager *manager = allocate(0);
    if (!manager)
    {
        snprintf(detail, detail_size, "it can't set up a manager");
        return NULL;
    }
    set_up(manager, NULL);
    if (!(manager->features & FEATURE_AESNI) || (manager->features & FEATURE_EMULATED))
    {
        snprintf(detail, detail_size, "this processor has no AES instructions");
        return NULL;
    }
    return manager;
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
    const manager *manager = new_manager(module, detail, detail_size);
    if (!manager)
        return ERROR_NOT_SUPPORTED;
    ipsec *library = calloc(1, sizeof(*library));
    if (!library)
        return ERROR_NOT_ENOUGH_MEMORY;
    library->manager = manager;
    snprintf(library->base.version, sizeof(library->base.version), "ipsec-mb %u.%u.%u", version >> 16,
             version >> 8 & 255, version & 255);
    library->base.candidates[TUNRING_CHACHA20_POLY1305] = only_chacha;
    library->base.candidates[TUNRING_AES_256_GCM] = only_gcm;
    library->base.candidates[TUNRING_AES_128_GCM] = only_gcm;
    *result = &library->base;
    return ERROR_SUCCESS;
}
