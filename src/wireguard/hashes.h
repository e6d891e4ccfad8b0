/* SPDX-License-Identifier: MIT
 *
 * The functions of libcrypto that the gate for handshake messages uses; the public ones are in tunring_wireguard.h.
 */
#ifndef TUNRING_WIREGUARD_HASHES_H
#define TUNRING_WIREGUARD_HASHES_H

#include "tunring_wireguard.h"

#define HASHES_MAC 16u

/* One thread's contexts for MACs; NULL without memory. */
typedef struct mac_context mac_context;
mac_context *mac_context_new(tunring_hashes *hashes);
void mac_context_free(mac_context *context);
/* As tunring_hashes_mac(), without making a context each time. */
bool mac_compute(mac_context *context, const BYTE *key, uint32_t key_size, const BYTE *data, size_t size, BYTE *mac);

/* HChaCha20: a key of 32 bytes from a key of 32 and an input of 16. False if the library fails. */
bool hashes_hchacha20(tunring_hashes *hashes, const BYTE *key, const BYTE *input, BYTE *result);

bool hashes_random(tunring_hashes *hashes, void *bytes, int size);

#endif
