/* SPDX-License-Identifier: MIT
 *
 * The part of Intel's Multi-Buffer Crypto for IPsec that is used. Its manager is a table of functions for the processor
 * that it runs on, which grows at its end within versions 1.x; these are the places of some, as its documentation lists
 * them.
 */
#ifndef TUNRING_AEAD_IPSEC_H
#define TUNRING_AEAD_IPSEC_H

#include "core/aead.h"

#define IPSEC_ALIGNMENT 64u

struct ipsec_manager;
struct ipsec_job; /* aead_ipsec_jobs.c */

/* key, scratch, out, in, length, nonce, additional data, its length, tag, its length */
typedef void ipsec_gcm_function(const void *, void *, BYTE *, const BYTE *, uint64_t, const BYTE *, const BYTE *,
                                uint64_t, BYTE *, uint64_t);
typedef void ipsec_expand_function(const void *key, void *expanded);
/* key, scratch, nonce, additional data, its length */
typedef void ipsec_chacha_init_function(const void *, void *, const void *, const void *, uint64_t);
/* key, scratch, out, in, length */
typedef void ipsec_chacha_update_function(const void *, void *, void *, const void *, uint64_t);
/* scratch, tag, its length */
typedef void ipsec_chacha_finalize_function(void *, void *, uint64_t);
typedef struct ipsec_job *ipsec_job_function(struct ipsec_manager *);

typedef struct ipsec_manager
{
    uint64_t flags, features, reserved[5];
    uint32_t architecture;
    int failure;
    ipsec_job_function *next_job, *submit_job, *submit_job_unchecked, *completed_job, *flush_job;
    void (*others_before_gcm[19])(void);
    ipsec_gcm_function *gcm_encrypt[3], *gcm_decrypt[3]; /* by key: 16, 24, 32 bytes */
    void (*others_between_gcm[18])(void);
    ipsec_expand_function *gcm_expand[3];
    void (*others_before_chacha[56])(void);
    ipsec_chacha_init_function *chacha_init;
    ipsec_chacha_update_function *chacha_encrypt, *chacha_decrypt;
    ipsec_chacha_finalize_function *chacha_finalize;
} ipsec_manager;

/* Managers that no call uses; more than these are freed. */
#define IPSEC_SPARE 8

typedef struct ipsec
{
    tunring_aead base;
    ipsec_manager *(*allocate)(uint64_t flags);
    void (*set_up)(ipsec_manager *, int *architecture);
    void (*release)(ipsec_manager *);
    const ipsec_manager *manager; /* of which all threads use those functions that don't change it */
    ipsec_manager *_Atomic spare[IPSEC_SPARE];
} ipsec;

/* ChaCha20-Poly1305 by jobs: each takes one call rather than three. */
extern const aead_sequence ipsec_chacha_jobs;
/* The versions whose jobs are laid out as is known. */
bool ipsec_knows_jobs(unsigned version);

/* A manager of the caller's own, or NULL without memory. */
ipsec_manager *ipsec_take_manager(ipsec *library);
void ipsec_give_manager(ipsec *library, ipsec_manager *manager);

#endif
