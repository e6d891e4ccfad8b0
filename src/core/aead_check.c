/* SPDX-License-Identifier: MIT
 *
 * The known-answer test of a library: 64 messages of growing and mixed lengths, sealed in place and into other memory,
 * then opened with every fourth one forged, twice through the same contexts. One more message, whose additional data is
 * all that was sealed, makes one tag of it. That tag is known: Python's `cryptography` computed it.
 */
#include "core/aead.h"

#include <stdlib.h>

#define MESSAGES 64u
#define MAX_TEXT 1473u
#define MAX_AAD 16u
#define ROUNDS 2

static const BYTE known_tags[TUNRING_AEAD_ALGORITHMS][TUNRING_AEAD_TAG] = {
    {0xec, 0x54, 0x3d, 0x91, 0x9d, 0xd8, 0x5b, 0x67, 0xb3, 0x0b, 0x9a, 0x04, 0xcc, 0x2f, 0x19, 0x5b},
    {0xee, 0xfd, 0x12, 0xdd, 0x75, 0xce, 0x46, 0x59, 0xdc, 0xbb, 0x84, 0x75, 0x3d, 0xed, 0x88, 0x33},
    {0x2e, 0x40, 0x9e, 0xaf, 0x83, 0xf1, 0x11, 0x36, 0x95, 0x3c, 0xbc, 0xd5, 0x73, 0xa2, 0xd1, 0x92},
};

/* Memory of one test. */
typedef struct trial
{
    aead_message messages[MESSAGES];
    BYTE aad[MESSAGES][MAX_AAD];
    BYTE text[MESSAGES][MAX_TEXT];
    BYTE sealed[MESSAGES * (MAX_TEXT + TUNRING_AEAD_TAG)]; /* back to back */
    BYTE opened[MESSAGES * (MAX_TEXT + TUNRING_AEAD_TAG)];
    size_t sealed_size;
} trial;

static void
fill(BYTE *bytes, size_t size, uint32_t seed)
{
    for (size_t i = 0; i < size; i++)
        bytes[i] = (BYTE)(seed * 29 + i * 7 + (i >> 8));
}

/* The first have every length up to that of a block, the others any. */
static uint32_t
text_length(uint32_t index)
{
    return index <= 17 ? index : index * index * 29 % MAX_TEXT;
}

/* Message `index`, of which the sealed half begins at `at`. */
static void
set_message(trial *trial, uint32_t index, BYTE *at)
{
    aead_message *message = &trial->messages[index];
    message->length = text_length(index);
    message->aad_length = index % 3 * 8;
    message->aad = trial->aad[index];
    message->out = at;
    message->tag = at + message->length;
    fill(message->nonce, sizeof(message->nonce), index + 1);
    fill(trial->aad[index], MAX_AAD, index + 2);
}

static bool
seal_all(const aead_sequence *sequence, aead_context *context, trial *trial)
{
    BYTE *at = trial->sealed;
    for (uint32_t i = 0; i < MESSAGES; i++)
    {
        set_message(trial, i, at);
        aead_message *message = &trial->messages[i];
        fill(trial->text[i], message->length, i);
        message->in = trial->text[i];
        if (i % 2)
        {
            memcpy(at, trial->text[i], message->length);
            message->in = at;
        }
        at += message->length + TUNRING_AEAD_TAG;
    }
    trial->sealed_size = (size_t)(at - trial->sealed);
    return sequence->seal(context, trial->messages, MESSAGES);
}

/* Flips one bit of the ciphertext, the tag, the additional data or the nonce. */
static void
forge(trial *trial, uint32_t index)
{
    aead_message *message = &trial->messages[index];
    switch (index / 4 % 4)
    {
    case 0:
        message->out[0] ^= 1; /* the tag's first byte if there is no text */
        break;
    case 1:
        message->tag[TUNRING_AEAD_TAG - 1] ^= 0x80;
        break;
    case 2:
        if (message->aad_length)
            trial->aad[index][message->aad_length - 1] ^= 4;
        else
            message->aad_length = 1;
        break;
    default:
        message->nonce[AEAD_NONCE - 1] ^= 2;
        break;
    }
}

static bool
forged(uint32_t index)
{
    return index % 4 == 3;
}

/* Opens a copy of what was sealed. */
static bool
open_all(const aead_sequence *sequence, aead_context *context, trial *trial)
{
    BYTE *at = trial->opened;
    memcpy(trial->opened, trial->sealed, trial->sealed_size);
    for (uint32_t i = 0; i < MESSAGES; i++)
    {
        set_message(trial, i, at);
        trial->messages[i].in = at;
        trial->messages[i].authentic = forged(i);
        at += trial->messages[i].length + TUNRING_AEAD_TAG;
        if (forged(i))
            forge(trial, i);
    }
    sequence->open(context, trial->messages, MESSAGES);
    for (uint32_t i = 0; i < MESSAGES; i++)
    {
        const aead_message *message = &trial->messages[i];
        if (message->authentic == forged(i))
            return false;
        if (message->authentic && memcmp(message->out, trial->text[i], message->length) != 0)
            return false;
    }
    return true;
}

/* One message that has everything sealed as its additional data, and no text. */
static bool
digest(const aead_sequence *sequence, aead_context *context, const trial *trial, BYTE *tag)
{
    BYTE nothing[1] = {0};
    aead_message message = {
        .aad = trial->sealed, .aad_length = (uint32_t)trial->sealed_size, .in = nothing, .out = nothing, .tag = tag};
    return sequence->seal(context, &message, 1);
}

static bool
passes(const aead_sequence *sequence, aead_context *sealing, aead_context *opening, trial *trial, const BYTE *known)
{
    BYTE tag[TUNRING_AEAD_TAG];
    for (int round = 0; round < ROUNDS; round++)
        if (!seal_all(sequence, sealing, trial) || !digest(sequence, sealing, trial, tag) ||
            memcmp(tag, known, sizeof(tag)) != 0 || !open_all(sequence, opening, trial))
            return false;
    return true;
}

/* ERROR_NOT_SUPPORTED: the library can't begin. */
static DWORD
try_sequence(tunring_aead *library, tunring_aead_algorithm algorithm, const aead_sequence *sequence, trial *trial)
{
    BYTE key[AEAD_MAX_KEY];
    fill(key, sizeof(key), 3);
    aead_context *sealing = sequence->start(library, algorithm, key, false);
    aead_context *opening = sequence->start(library, algorithm, key, true);
    DWORD code = ERROR_NOT_SUPPORTED;
    if (sealing && opening)
        code = passes(sequence, sealing, opening, trial, known_tags[algorithm]) ? ERROR_SUCCESS : ERROR_INVALID_DATA;
    if (sealing)
        sequence->end(sealing);
    if (opening)
        sequence->end(opening);
    return code;
}

/* The best code of all sequences; the first that passes is used from here on. */
static DWORD
try_all(tunring_aead *library, tunring_aead_algorithm algorithm, trial *trial)
{
    DWORD code = ERROR_NOT_SUPPORTED;
    for (const aead_sequence *const *next = library->candidates[algorithm]; *next; next++)
    {
        const DWORD tried = try_sequence(library, algorithm, *next, trial);
        if (tried == ERROR_SUCCESS)
        {
            atomic_store(&library->checked[algorithm], *next);
            return ERROR_SUCCESS;
        }
        /* Wrong answers are the reason that is worth telling. */
        if (tried == ERROR_INVALID_DATA)
            code = tried;
    }
    return code;
}

DWORD
tunring_aead_check(tunring_aead *library, tunring_aead_algorithm algorithm)
{
    if (atomic_load(&library->checked[algorithm]))
        return ERROR_SUCCESS;
    if (!aead_enter())
        return ERROR_HANDLE_EOF;
    DWORD code = ERROR_NOT_ENOUGH_MEMORY;
    trial *room = malloc(sizeof(*room));
    if (!room)
        goto leave;
    /* The first use sets the library up: a child that is forked meanwhile would wait for its locks for ever. */
    os_fork_hold();
    code = try_all(library, algorithm, room);
    os_fork_release();
    free(room);
leave:
    aead_leave();
    return code;
}
