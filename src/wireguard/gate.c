/* SPDX-License-Identifier: MIT
 *
 * Lets handshake messages through, so that floods of them cost their receiver little: mac1 shows that the sender knows
 * the device's public key. Under load mac2 must show that it receives at its address, and each source has a limit; a
 * sender without mac2 is sent a cookie to make it with.
 */
#include "core/aead.h"
#include "wireguard/buckets.h"
#include "wireguard/device.h"
#include "wireguard/hashes.h"

#include <stdlib.h>

#define KEY TUNRING_WIREGUARD_KEY
#define COOKIE HASHES_MAC
#define COOKIE_LIFE (120 * NANOSECONDS)
#define COOKIE_NONCE 24u
#define COOKIE_REPLY_SIZE 64u
/* Maximum number of cookie replies per second, for all senders together. */
#define MAX_COOKIES 10000u
/* The queue is filling: handshakes come faster than the caller takes them. */
#define LOAD (TUNRING_WIREGUARD_QUEUE / 8)
#define LOAD_LASTS NANOSECONDS
/* The same number of initiations in so short a time is load, too: the caller may well take them as fast as they come,
 * but would take the time from data. */
#define LOAD_WINDOW (NANOSECONDS / 10)

/* Secrets that never leave this process, in memory that no child and no core dump has. */
typedef struct gate_secrets
{
    BYTE mac1_key[KEY], cookie_key[KEY];
    BYTE cookie_secret[KEY];
} gate_secrets;

struct gate
{
    tunring_wireguard *device;
    _Atomic int64_t load_until;
    os_mutex lock; /* guards what follows; held over hashes, but not over system calls */
    mac_context *macs;
    bool identified;
    gate_secrets *secrets;
    int64_t secret_born;
    int64_t cookies_since; /* a second of cookie replies began */
    uint32_t cookies;      /* in it */
    int64_t window_since;  /* a window began */
    uint32_t initiations;  /* in it, with a valid first MAC */
    buckets buckets;
};

#define INITIATION 1

typedef enum verdict
{
    LET_THROUGH,
    WRONG_MAC,
    SEND_COOKIE,
    TOO_MANY
} verdict;

gate *
gate_new(tunring_wireguard *device)
{
    gate *self = calloc(1, sizeof(*self));
    if (!self)
        return NULL;
    self->device = device;
    self->macs = mac_context_new(device->hashes);
    self->secrets = os_secret_alloc(sizeof(*self->secrets), NULL);
    if (self->secrets)
        os_secret_lock(self->secrets, sizeof(*self->secrets));
    os_mutex_init(&self->lock);
    if (self->macs && self->secrets && hashes_random(device->hashes, &self->buckets.seed, sizeof(self->buckets.seed)))
        return self;
    gate_free(self);
    return NULL;
}

void
gate_free(gate *self)
{
    mac_context_free(self->macs);
    if (self->secrets)
    {
        aead_wipe(self->secrets, sizeof(*self->secrets));
        os_secret_free(self->secrets, sizeof(*self->secrets));
    }
    os_mutex_destroy(&self->lock);
    free(self);
}

/* The lock is held. */
static bool
renew_secret(gate *self, int64_t now)
{
    self->secret_born = now;
    return hashes_random(self->device->hashes, self->secrets->cookie_secret, KEY);
}

bool
gate_set_identity(gate *self, const BYTE *mac1_key, const BYTE *cookie_key)
{
    bool good = true;
    os_mutex_lock(&self->lock);
    aead_wipe(self->secrets, sizeof(*self->secrets));
    self->identified = false;
    if (mac1_key && cookie_key)
    {
        memcpy(self->secrets->mac1_key, mac1_key, KEY);
        memcpy(self->secrets->cookie_key, cookie_key, KEY);
        good = self->identified = renew_secret(self, os_boottime());
    }
    os_mutex_unlock(&self->lock);
    return good;
}

bool
gate_under_load(const gate *self)
{
    return os_boottime() < atomic_load(&self->load_until);
}

/* The same, after a look at the queue and at how often initiations come. The lock is held. */
static bool
look_at_load(gate *self, bool initiation, int64_t now)
{
    if (now - self->window_since >= LOAD_WINDOW)
    {
        self->window_since = now;
        self->initiations = 0;
    }
    self->initiations += initiation;
    if (self->initiations > LOAD || atomic_load_explicit(&self->device->queue.count, memory_order_relaxed) >= LOAD)
        atomic_store(&self->load_until, now + LOAD_LASTS);
    return now < atomic_load(&self->load_until);
}

static const BYTE *
mac1_of(const BYTE *data, uint32_t length)
{
    return data + length - 2 * HASHES_MAC;
}

static const BYTE *
mac2_of(const BYTE *data, uint32_t length)
{
    return data + length - HASHES_MAC;
}

static bool
mac_is(gate *self, const BYTE *key, uint32_t key_size, const BYTE *data, const BYTE *expected)
{
    BYTE mac[HASHES_MAC];
    return mac_compute(self->macs, key, key_size, data, (size_t)(expected - data), mac) &&
           aead_tags_equal(mac, expected);
}

/* The cookie that a sender at this address must know. The lock is held. */
static bool
make_cookie(gate *self, const tunring_endpoint *from, int64_t now, BYTE *cookie)
{
    if (now - self->secret_born >= COOKIE_LIFE && !renew_secret(self, now))
        return false;
    BYTE address[sizeof(from->host) + 2];
    memcpy(address, from->host, sizeof(from->host));
    address[sizeof(from->host)] = (BYTE)(from->port >> 8);
    address[sizeof(from->host) + 1] = (BYTE)from->port;
    return mac_compute(self->macs, self->secrets->cookie_secret, KEY, address, sizeof(address), cookie);
}

/* One more cookie reply? */
static bool
may_reply(gate *self, int64_t now)
{
    if (now - self->cookies_since >= NANOSECONDS)
    {
        self->cookies_since = now;
        self->cookies = 0;
    }
    return self->cookies++ < MAX_COOKIES;
}

/* Encrypts the cookie by XChaCha20-Poly1305, with the message's mac1 as additional data. The lock is held. */
static bool
write_reply(gate *self, const BYTE *data, uint32_t length, const BYTE *cookie, BYTE *reply)
{
    static const BYTE type[4] = {3};
    memcpy(reply, type, sizeof(type));
    memcpy(reply + 4, data + 4, 4); /* the sender's index */
    memcpy(reply + 8 + COOKIE_NONCE, cookie, COOKIE);
    tunring_wireguard *device = self->device;
    BYTE *long_nonce = reply + 8;
    BYTE key[KEY];
    bool good = hashes_random(device->hashes, long_nonce, COOKIE_NONCE) &&
                hashes_hchacha20(device->hashes, self->secrets->cookie_key, long_nonce, key);
    BYTE nonce[AEAD_NONCE] = {0};
    memcpy(nonce + 4, long_nonce + 16, 8);
    const tunring_aead_text text = {.nonce = nonce,
                                    .aad = mac1_of(data, length),
                                    .aad_length = HASHES_MAC,
                                    .data = reply + 8 + COOKIE_NONCE,
                                    .length = COOKIE,
                                    .tag = reply + 8 + COOKIE_NONCE + COOKIE};
    good = good && tunring_aead_message(device->aead, TUNRING_CHACHA20_POLY1305, key, false, &text) == ERROR_SUCCESS;
    aead_wipe(key, sizeof(key));
    return good;
}

/* Looks at the macs. With SEND_COOKIE, `reply` is what to send. The lock is held. */
static verdict
judge(gate *self, const BYTE *data, uint32_t length, const tunring_endpoint *from, BYTE *reply)
{
    if (!self->identified || !mac_is(self, self->secrets->mac1_key, KEY, data, mac1_of(data, length)))
        return WRONG_MAC;
    const int64_t now = os_boottime();
    if (!look_at_load(self, data[0] == INITIATION, now))
        return LET_THROUGH;
    BYTE cookie[COOKIE];
    if (!make_cookie(self, from, now, cookie))
        return TOO_MANY;
    if (mac_is(self, cookie, COOKIE, data, mac2_of(data, length)))
        return buckets_take(&self->buckets, from->host, now) ? LET_THROUGH : TOO_MANY;
    return may_reply(self, now) && write_reply(self, data, length, cookie, reply) ? SEND_COOKIE : TOO_MANY;
}

static void
count(_Atomic uint64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/* A message that is not too large to be one. */
static void
pass(gate *self, const BYTE *data, uint32_t length, uint32_t peer, const tunring_endpoint *from)
{
    tunring_wireguard_message message = {.length = length, .peer = peer, .source = *from};
    memcpy(message.data, data, length);
    if (!queue_put(&self->device->queue, &message))
        count(&self->device->counts.queue_full);
}

static void
handshake(gate *self, tunring_socket *socket, const BYTE *data, uint32_t length, uint32_t peer,
          const tunring_endpoint *from)
{
    if (!aead_enter())
        return;
    BYTE reply[COOKIE_REPLY_SIZE];
    os_mutex_lock(&self->lock);
    const verdict result = judge(self, data, length, from, reply);
    os_mutex_unlock(&self->lock);
    aead_leave();
    const tunring_packet packet = {.data = reply, .length = sizeof(reply)};
    const tunring_sending what = {.packets = &packet, .count = 1, .endpoints = from, .dscp = HANDSHAKE_DSCP};
    device_counts *counts = &self->device->counts;
    if (result == LET_THROUGH)
        pass(self, data, length, peer, from);
    else if (result == WRONG_MAC)
        count(&counts->wrong_mac);
    else if (result == TOO_MANY)
        count(&counts->limited);
    else if (device_send_now(self->device, socket, &what).count)
        count(&counts->cookies_sent);
}

static uint32_t
read_word(const BYTE *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

void
gate_message(gate *self, tunring_socket *socket, const BYTE *data, uint32_t length, const tunring_endpoint *from)
{
    static const struct
    {
        uint32_t length, receiver; /* where the receiver's index is; 0: there is none */
    } kinds[] = {{0, 0}, {148, 0}, {92, 8}, {COOKIE_REPLY_SIZE, 4}};
    const uint32_t type = length >= 4 ? read_word(data) : 0;
    if (type < 1 || type > 3 || length != kinds[type].length)
    {
        count(&self->device->counts.malformed);
        return;
    }
    uint32_t peer = 0;
    if (kinds[type].receiver)
    {
        peer = device_index_owner(self->device, read_word(data + kinds[type].receiver), type == 3);
        if (!peer)
        {
            count(&self->device->counts.unknown_index);
            return;
        }
    }
    if (type == 3)
        pass(self, data, length, peer, from);
    else
        handshake(self, socket, data, length, peer, from);
}
