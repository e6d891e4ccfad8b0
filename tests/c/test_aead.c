/* SPDX-License-Identifier: MIT
 *
 * Libraries: published vectors by each sequence of calls, what the known-answer test makes of wrong answers, and files
 * that are not such libraries.
 */
/* build: parts=core,os flags=-ldl */
#include "aead_libraries.h"

#if defined(__linux__)
#include <sys/wait.h>
#include <unistd.h>
#endif

typedef struct vector
{
    tunring_aead_algorithm algorithm;
    const char *key, *nonce, *aad, *text, *sealed, *tag;
} vector;

static const vector vectors[] = {
    /* RFC 8439, section 2.8.2 */
    {TUNRING_CHACHA20_POLY1305, "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
     "070000004041424344454647", "50515253c0c1c2c3c4c5c6c7",
     "4c616469657320616e642047656e746c656d656e206f662074686520636c617373206f66202739393a20496620492063"
     "6f756c64206f6666657220796f75206f6e6c79206f6e652074697020666f7220746865206675747572652c2073756e73"
     "637265656e20776f756c642062652069742e",
     "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b"
     "1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
     "3ff4def08e4b7a9de576d26586cec64b6116",
     "1ae10b594f09e26a7e902ecbd0600691"},
    /* RFC 8439, appendix A.5 */
    {TUNRING_CHACHA20_POLY1305, "1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0",
     "000000000102030405060708", "f33388860000000000004e91",
     "496e7465726e65742d4472616674732061726520647261667420646f63756d656e74732076616c696420666f72206120"
     "6d6178696d756d206f6620736978206d6f6e74687320616e64206d617920626520757064617465642c207265706c6163"
     "65642c206f72206f62736f6c65746564206279206f7468657220646f63756d656e747320617420616e792074696d652e"
     "20497420697320696e617070726f70726961746520746f2075736520496e7465726e65742d4472616674732061732072"
     "65666572656e6365206d6174657269616c206f7220746f2063697465207468656d206f74686572207468616e20617320"
     "2fe2809c776f726b20696e2070726f67726573732e2fe2809d",
     "64a0861575861af460f062c79be643bd5e805cfd345cf389f108670ac76c8cb24c6cfc18755d43eea09ee94e382d26b0"
     "bdb7b73c321b0100d4f03b7f355894cf332f830e710b97ce98c8a84abd0b948114ad176e008d33bd60f982b1ff37c855"
     "9797a06ef4f0ef61c186324e2b3506383606907b6a7c02b0f9f6157b53c867e4b9166c767b804d46a59b5216cde7a4e9"
     "9040c5a40433225ee282a1b0a06c523eaf4534d7f83fa1155b0047718cbc546a0d072b04b3564eea1b422273f548271a"
     "0bb2316053fa76991955ebd63159434ecebb4e466dae5a1073a6727627097a1049e617d91d361094fa68f0ff77987130"
     "305beaba2eda04df997b714d6c6f2c29a6ad5cb4022b02709b",
     "eead9d67890cbb22392336fea1851f38"},
    /* The GCM specification's test cases 4 and 16 */
    {TUNRING_AES_128_GCM, "feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888",
     "feedfacedeadbeeffeedfacedeadbeefabaddad2",
     "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525"
     "b16aedf5aa0de657ba637b39",
     "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa05"
     "1ba30b396a0aac973d58e091",
     "5bc94fbc3221a5db94fae95ae7121a47"},
    {TUNRING_AES_256_GCM, "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
     "cafebabefacedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2",
     "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525"
     "b16aedf5aa0de657ba637b39",
     "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838"
     "c5f61e6393ba7a0abcc9f662",
     "76fc6ece0f4e1768cddf8853bb2d551b"},
};

#define MAX_TEXT 512

static uint32_t
from_hex(const char *text, BYTE *bytes)
{
    uint32_t count = 0;
    for (; *text; text += 2)
    {
        unsigned value;
        CHECK_EQUAL(sscanf(text, "%2x", &value), 1);
        bytes[count++] = (BYTE)value;
    }
    return count;
}

/* A vector with memory of its own, whose messages are made again and again. */
typedef struct sample
{
    BYTE key[AEAD_MAX_KEY], aad[64], text[MAX_TEXT], sealed[MAX_TEXT + TUNRING_AEAD_TAG], tag[TUNRING_AEAD_TAG];
    aead_message message;
} sample;

static void
read_sample(const vector *vector, sample *sample)
{
    memset(sample, 0, sizeof(*sample));
    from_hex(vector->key, sample->key);
    from_hex(vector->nonce, sample->message.nonce);
    sample->message.aad_length = from_hex(vector->aad, sample->aad);
    sample->message.length = from_hex(vector->text, sample->text);
    CHECK_EQUAL(from_hex(vector->sealed, sample->sealed), sample->message.length);
    from_hex(vector->tag, sample->tag);
    sample->message.aad = sample->aad;
}

static void
check_vector(tunring_aead *library, const vector *vector)
{
    const aead_sequence *sequence = atomic_load(&library->checked[vector->algorithm]);
    sample sample;
    read_sample(vector, &sample);
    aead_message *message = &sample.message;
    message->in = sample.text;
    BYTE out[MAX_TEXT];
    message->out = out;
    BYTE tag[TUNRING_AEAD_TAG];
    message->tag = tag;
    aead_context *context = sequence->start(library, vector->algorithm, sample.key, false);
    CHECK(context);
    CHECK(sequence->seal(context, message, 1));
    sequence->end(context);
    CHECK(memcmp(out, sample.sealed, message->length) == 0);
    CHECK(memcmp(tag, sample.tag, sizeof(tag)) == 0);
    context = sequence->start(library, vector->algorithm, sample.key, true);
    CHECK(context);
    message->in = out;
    sequence->open(context, message, 1);
    CHECK(message->authentic);
    CHECK(memcmp(out, sample.text, message->length) == 0);
    /* The ciphertext is gone, so the tag is wrong. */
    sequence->open(context, message, 1);
    CHECK(!message->authentic);
    sequence->end(context);
}

static void
test_vectors(tunring_aead *library, tunring_aead_algorithm algorithm)
{
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++)
        if (vectors[i].algorithm == algorithm)
            check_vector(library, &vectors[i]);
}

/* ---- A library that fails in one way: it wraps another ----------------------------------------------------------- */

typedef enum fault
{
    WRONG_TAG_LATE, /* in the last message of a group only */
    WRONG_TEXT,
    ACCEPTS_ALL,
    ACCEPTS_NONE,
    STALE_NONCE, /* from the second message on */
    FAILS,
    CANT_BEGIN
} fault;
#define FAULTS (CANT_BEGIN + 1)

static fault present;
static const aead_sequence *wrapped;

static aead_context *
faulty_start(tunring_aead *library, tunring_aead_algorithm algorithm, const BYTE *key, bool opens)
{
    return present == CANT_BEGIN ? NULL : wrapped->start(library, algorithm, key, opens);
}

static void
faulty_end(aead_context *context)
{
    wrapped->end(context);
}

static bool
faulty_seal(aead_context *context, aead_message *messages, uint32_t count)
{
    if (present == STALE_NONCE)
        for (uint32_t i = 2; i < count; i++)
            memcpy(messages[i].nonce, messages[1].nonce, AEAD_NONCE);
    bool good = wrapped->seal(context, messages, count);
    if (present == WRONG_TAG_LATE && count > 1)
        messages[count - 1].tag[3] ^= 1;
    if (present == WRONG_TEXT && count > 9)
        messages[9].out[5] ^= 1;
    return good && present != FAILS;
}

static void
faulty_open(aead_context *context, aead_message *messages, uint32_t count)
{
    wrapped->open(context, messages, count);
    for (uint32_t i = 0; i < count; i++)
        if (present == ACCEPTS_ALL || present == ACCEPTS_NONE)
            messages[i].authentic = present == ACCEPTS_ALL;
}

static void
test_faults(tunring_aead *library, tunring_aead_algorithm algorithm)
{
    static const aead_sequence faulty = {faulty_start, faulty_end, faulty_seal, faulty_open};
    static const aead_sequence *const bad[] = {&faulty, NULL};
    const aead_sequence *const *whole = library->candidates[algorithm];
    wrapped = atomic_load(&library->checked[algorithm]);
    for (int i = 0; i < FAULTS; i++)
    {
        present = (fault)i;
        atomic_store(&library->checked[algorithm], NULL);
        library->candidates[algorithm] = bad;
        CHECK_EQUAL(tunring_aead_check(library, algorithm),
                    present == CANT_BEGIN ? ERROR_NOT_SUPPORTED : ERROR_INVALID_DATA);
        CHECK(!atomic_load(&library->checked[algorithm]));
        const BYTE secret[AEAD_MAX_KEY] = {0};
        aead_key key;
        CHECK_EQUAL(aead_key_init(&key, library, algorithm, secret, false), ERROR_NOT_SUPPORTED);
        /* The next sequence that passes is taken instead. */
        const aead_sequence *const both[] = {&faulty, wrapped, NULL};
        library->candidates[algorithm] = both;
        CHECK_EQUAL(tunring_aead_check(library, algorithm), ERROR_SUCCESS);
        CHECK(atomic_load(&library->checked[algorithm]) == wrapped);
    }
    library->candidates[algorithm] = whole;
}

static void
test_no_libraries(void)
{
    char detail[256] = "";
    tunring_aead *library;
    CHECK_EQUAL(tunring_aead_load(TUNRING_LIBCRYPTO, "/nowhere/libcrypto.so", false, &library, detail, sizeof(detail)),
                ERROR_MOD_NOT_FOUND);
    CHECK(detail[0]);
    CHECK_EQUAL(tunring_aead_load(TUNRING_LIBCRYPTO, "/nowhere/libcrypto.so", true, &library, detail, sizeof(detail)),
                ERROR_MOD_NOT_FOUND);
    CHECK(strstr(detail, "not loaded it"));
#if defined(__linux__)
    CHECK_EQUAL(tunring_aead_load(TUNRING_LIBCRYPTO, "libm.so.6", false, &library, detail, sizeof(detail)),
                ERROR_PROC_NOT_FOUND);
    CHECK(strstr(detail, "lacks OpenSSL_version"));
    CHECK_EQUAL(tunring_aead_load(TUNRING_IPSEC_MB, "libm.so.6", false, &library, detail, sizeof(detail)),
                ERROR_NOT_SUPPORTED);
    CHECK(strstr(detail, "version"));
    CHECK_EQUAL(tunring_aead_load(TUNRING_BORINGSSL, "libm.so.6", false, &library, detail, sizeof(detail)),
                ERROR_PROC_NOT_FOUND);
    CHECK(strstr(detail, "lacks OpenSSL_version"));
#endif
}

/* ---- Keys -------------------------------------------------------------------------------------------------------- */

static void
test_key_life(tunring_aead *library, tunring_aead_algorithm algorithm)
{
    BYTE secret[AEAD_MAX_KEY];
    memset(secret, 0x5a, sizeof(secret));
    aead_key key;
    CHECK_EQUAL(aead_key_init(&key, library, algorithm, secret, false), ERROR_SUCCESS);
    aead_context *one;
    CHECK_EQUAL(aead_key_enter(&key, &one), ERROR_SUCCESS);
    aead_context *two;
    CHECK_EQUAL(aead_key_enter(&key, &two), ERROR_SUCCESS);
    CHECK(one != two); /* one call at a time */
    aead_key_leave(&key, one);
    aead_context *three;
    CHECK_EQUAL(aead_key_enter(&key, &three), ERROR_SUCCESS);
    CHECK(three == one); /* and used again */
    aead_key_close(&key);
    CHECK_EQUAL(aead_key_enter(&key, &one), ERROR_HANDLE_EOF);
    aead_key_leave(&key, two);
    CHECK_EQUAL(key.secret.bytes[0], 0x5a); /* the last call may still need it */
    aead_key_leave(&key, three);
    aead_key_close(&key);
}

#if defined(__linux__)
/* A child finds no key, and gets no context. */
static void
test_fork(tunring_aead *library, tunring_aead_algorithm algorithm)
{
    BYTE secret[AEAD_MAX_KEY];
    memset(secret, 0x5a, sizeof(secret));
    aead_key key;
    CHECK_EQUAL(aead_key_init(&key, library, algorithm, secret, false), ERROR_SUCCESS);
    aead_context *context;
    CHECK_EQUAL(aead_key_enter(&key, &context), ERROR_SUCCESS);
    fflush(NULL);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0)
    {
        alarm(20);
        aead_context *another;
        CHECK_EQUAL(aead_key_enter(&key, &another), ERROR_HANDLE_EOF);
        aead_key_close(&key);
        CHECK_EQUAL(key.secret.bytes[0], 0);
        /* A key of its own works, and the parent's call isn't awaited at the end. */
        aead_key own;
        CHECK_EQUAL(aead_key_init(&own, library, algorithm, secret, false), ERROR_SUCCESS);
        CHECK_EQUAL(aead_key_enter(&own, &another), ERROR_SUCCESS);
        aead_key_leave(&own, another);
        aead_key_close(&own);
        exit(0);
    }
    int status;
    CHECK_EQUAL(waitpid(child, &status, 0), child);
    CHECK_EQUAL(status, 0);
    aead_key_leave(&key, context);
    aead_key_close(&key);
}
#endif

int
main(void)
{
    test_no_libraries();
    with_each(test_vectors);
    with_each(test_faults);
    with_each(test_key_life);
#if defined(__linux__)
    with_each(test_fork);
#endif
    return 0;
}
