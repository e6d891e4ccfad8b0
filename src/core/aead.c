/* SPDX-License-Identifier: MIT
 *
 * Keys and the calls that use them. Each call has a context of its own, from a list of those that are spare.
 */
#include "core/aead.h"

#include "platform/module.h"

#include <stdio.h>

#define AEAD_CLOSED 0x80000000u

WINTUN_ASSERT(AEAD_MAX_KEY <= TUNRING_SECRET_SIZE, "a key has room in a secret's place");

/* Calls in flight in this process, in the low half, and its generation in the high one: after a fork the parent's calls
 * are not the child's, which must not wait for them. */
#define ENDING 0x80000000u
static _Atomic uint64_t calls;

static uint64_t
generation_bits(void)
{
    return (uint64_t)os_generation() << 32;
}

bool
aead_enter(void)
{
    const uint64_t ours = generation_bits();
    uint64_t seen = atomic_load(&calls);
    uint64_t next;
    do
    {
        if (seen & ENDING)
            return false;
        next = (seen >> 32 == ours >> 32 ? seen : ours) + 1;
    } while (!atomic_compare_exchange_weak(&calls, &seen, next));
    return true;
}

void
aead_leave(void)
{
    atomic_fetch_sub(&calls, 1);
}

/* Runs before the library's own cleanup, which must not find a context in use: handlers run in reverse order, and this
 * one is registered once the library is set up. */
static void
await_calls(void)
{
    uint64_t seen = atomic_fetch_or(&calls, ENDING) | ENDING;
    while (seen != (generation_bits() | ENDING) && seen >> 32 == generation_bits() >> 32)
    {
        os_sleep(100000);
        seen = atomic_load(&calls);
    }
}

void
aead_await_calls_at_exit(void)
{
    static atomic_bool registered;
    if (!atomic_exchange(&registered, true))
        os_at_exit(await_calls);
}

DWORD
tunring_aead_load(tunring_aead_kind kind, const tunring_path_char *path, bool loaded, tunring_aead **library,
                  char *detail, size_t detail_size)
{
    void *module = module_find(path);
    const bool ours = !module;
    if (ours && loaded)
    {
        snprintf(detail, detail_size, "this process has not loaded it");
        return ERROR_MOD_NOT_FOUND;
    }
    bool isolated = false;
    if (ours)
        module = kind == TUNRING_BORINGSSL ? module_open_isolated(path, &isolated, detail, detail_size)
                                           : module_open(path, detail, detail_size);
    if (!module)
        return GetLastError();
    switch (kind)
    {
    case TUNRING_IPSEC_MB:
        return ipsec_load(module, library, detail, detail_size);
    case TUNRING_BORINGSSL:
        return boringssl_load(module, isolated, library, detail, detail_size);
    default:
        return libcrypto_load(module, ours, library, detail, detail_size);
    }
}

const char *
tunring_aead_version(const tunring_aead *library)
{
    return library->version;
}

uint32_t
tunring_aead_key_size(tunring_aead_algorithm algorithm)
{
    return algorithm == TUNRING_AES_128_GCM ? 16 : 32;
}

void
aead_wipe(void *memory, size_t size)
{
    static void *(*const volatile fill)(void *, int, size_t) = memset;
    fill(memory, 0, size);
}

DWORD
aead_key_init(aead_key *key, tunring_aead *library, tunring_aead_algorithm algorithm, const BYTE *secret, bool opens)
{
    const aead_sequence *sequence = atomic_load(&library->checked[algorithm]);
    if (!sequence)
        return ERROR_NOT_SUPPORTED;
    if (!secret_take(&key->secret))
        return ERROR_NOT_ENOUGH_MEMORY;
    aead_await_calls_at_exit();
    memcpy(key->secret.bytes, secret, tunring_aead_key_size(algorithm));
    key->library = library;
    key->sequence = sequence;
    key->algorithm = algorithm;
    key->opens = opens;
    key->generation = os_generation();
    atomic_init(&key->life, 0);
    os_mutex_init(&key->lock);
    key->spare = NULL;
    return ERROR_SUCCESS;
}

/* Nobody uses the key any more, and nobody will. */
static void
end(aead_key *key)
{
    while (key->spare)
    {
        aead_context *context = key->spare;
        key->spare = context->next;
        key->sequence->end(context);
    }
    secret_give(&key->secret);
    os_mutex_destroy(&key->lock);
}

static bool
foreign(const aead_key *key)
{
    return OS_FOREIGN(key);
}

void
aead_key_close(aead_key *key)
{
    if (!foreign(key) && atomic_fetch_or(&key->life, AEAD_CLOSED) == 0)
        end(key);
}

static bool
enter(aead_key *key)
{
    uint32_t life = atomic_load(&key->life);
    do
    {
        if (life & AEAD_CLOSED)
            return false;
    } while (!atomic_compare_exchange_weak(&key->life, &life, life + 1));
    return true;
}

static void
leave(aead_key *key)
{
    if (atomic_fetch_sub(&key->life, 1) == AEAD_CLOSED + 1)
        end(key);
    aead_leave();
}

/* A library looks for its cipher under locks of its own. */
static aead_context *
start_context(const aead_sequence *sequence, tunring_aead *library, tunring_aead_algorithm algorithm, const BYTE *key,
              bool opens)
{
    os_fork_hold();
    aead_context *context = sequence->start(library, algorithm, key, opens);
    os_fork_release();
    return context;
}

static aead_context *
take_spare(aead_key *key)
{
    os_mutex_lock(&key->lock);
    aead_context *context = key->spare;
    if (context)
        key->spare = context->next;
    os_mutex_unlock(&key->lock);
    return context;
}

DWORD
aead_key_enter(aead_key *key, aead_context **context)
{
    if (foreign(key) || !aead_enter())
        return ERROR_HANDLE_EOF;
    if (!enter(key))
    {
        aead_leave();
        return ERROR_HANDLE_EOF;
    }
    *context = take_spare(key);
    if (!*context)
        *context = start_context(key->sequence, key->library, key->algorithm, key->secret.bytes, key->opens);
    if (*context)
        return ERROR_SUCCESS;
    leave(key);
    return ERROR_NOT_ENOUGH_MEMORY;
}

void
aead_key_leave(aead_key *key, aead_context *context)
{
    os_mutex_lock(&key->lock);
    context->next = key->spare;
    key->spare = context;
    os_mutex_unlock(&key->lock);
    leave(key);
}

DWORD
tunring_aead_message(tunring_aead *library, tunring_aead_algorithm algorithm, const BYTE *key, bool opens,
                     const tunring_aead_text *text)
{
    const aead_sequence *sequence = atomic_load(&library->checked[algorithm]);
    if (!sequence)
        return ERROR_NOT_SUPPORTED;
    if (!aead_enter())
        return ERROR_HANDLE_EOF;
    DWORD code = ERROR_NOT_ENOUGH_MEMORY;
    aead_message message = {.aad = text->aad,
                            .aad_length = text->aad_length,
                            .in = text->data,
                            .out = text->data,
                            .length = text->length,
                            .tag = text->tag};
    memcpy(message.nonce, text->nonce, AEAD_NONCE);
    aead_context *context = start_context(sequence, library, algorithm, key, opens);
    if (!context)
        goto leave;
    if (opens)
    {
        sequence->open(context, &message, 1);
        code = message.authentic ? ERROR_SUCCESS : ERROR_INVALID_DATA;
    }
    else
        code = sequence->seal(context, &message, 1) ? ERROR_SUCCESS : ERROR_GEN_FAILURE;
    sequence->end(context);
    if (code != ERROR_SUCCESS)
        memset(text->data, 0, text->length);
leave:
    aead_leave();
    return code;
}
