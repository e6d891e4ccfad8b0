/* SPDX-License-Identifier: MIT
 *
 * WireGuard, as far as it is done per packet: data messages, the keys that they use, and what is let through of
 * handshake messages. Handshakes themselves, timers and policy are the caller's, who learns here what has happened.
 *
 * Functions return 0 or a Win32 error code; ERROR_HANDLE_EOF once the device is closed, in a child process, and where
 * it is noted when the session's adapter is gone. Times are nanoseconds of os_boottime(); 0 stands for never.
 */
#ifndef TUNRING_WIREGUARD_H
#define TUNRING_WIREGUARD_H

#include "tunring_aead.h"
#include "tunring_routes.h"
#include "tunring_socket.h"

#define TUNRING_WIREGUARD_KEY 32u
/* The largest handshake message, an initiation. */
#define TUNRING_WIREGUARD_MESSAGE 148u
/* Messages that wait to be taken; and packets of a peer that wait for a key, and the memory of all peers' together. */
#define TUNRING_WIREGUARD_QUEUE 1024u
#define TUNRING_WIREGUARD_STAGED 128u
#define TUNRING_WIREGUARD_STAGED_BYTES (64u << 20)
/* Bytes of one packet for which each peer has room beyond that. */
#define TUNRING_WIREGUARD_STAGED_ASSURED 1536u

/* ---- Hashes: wireguard/hashes_libcrypto.c ------------------------------------------------------------------------ */

/* The functions of libcrypto that WireGuard needs in addition to AEAD: BLAKE2s, ChaCha20, X25519 and random numbers. */
typedef struct tunring_hashes tunring_hashes;

/* As tunring_aead_load(). ERROR_NOT_SUPPORTED before OpenSSL 3, and where a published vector comes out wrong. */
DWORD tunring_hashes_load(const tunring_path_char *path, bool loaded, tunring_hashes **hashes, char *detail,
                          size_t detail_size);

/* Keyed BLAKE2s with a result of 16 bytes. `key_size` is at most 32. False if the library fails. */
bool tunring_hashes_mac(tunring_hashes *hashes, const BYTE *key, uint32_t key_size, const BYTE *data, size_t size,
                        BYTE *mac);

/* X25519, all of 32 bytes. A private key may be any; its public key: false if the library fails. */
bool tunring_hashes_public_key(tunring_hashes *hashes, const BYTE *private_key, BYTE *public_key);
/* The secret that both sides share. `own_public` is the private key's, which saves computing it again.
 * ERROR_INVALID_DATA if the secret is all zeros, as with a public key of small order; ERROR_GEN_FAILURE if the library
 * fails, and ERROR_HANDLE_EOF at the process's end. */
DWORD tunring_hashes_exchange(tunring_hashes *hashes, const BYTE *private_key, const BYTE *own_public,
                              const BYTE *public_key, BYTE *shared);

/* ---- Devices: wireguard/device.c --------------------------------------------------------------------------------- */

typedef struct tunring_wireguard tunring_wireguard;
typedef struct tunring_wireguard_peer tunring_wireguard_peer;

/* The AEAD's library must have passed the check of ChaCha20-Poly1305. The device keeps the session's struct, not the
 * session open. */
DWORD tunring_wireguard_new(tunring_session *session, tunring_aead *aead, tunring_hashes *hashes,
                            tunring_wireguard **device);
/* Ends the loops and every wait, waits for the calls in flight, and wipes every key. Idempotent. May be called from any
 * thread. */
void tunring_wireguard_close(tunring_wireguard *device);
/* Gives up the caller's pointer, to a device that is closed; in a child it does nothing. May be called at any time. */
void tunring_wireguard_drop(tunring_wireguard *device);

/* The device is open. TUNRING_REMOVED: the session is over. May be called at any time. */
tunring_state tunring_wireguard_state(const tunring_wireguard *device);

/* The loops. Each returns when the device is closed or the session over, which ends the other one too:
 * ERROR_HANDLE_EOF. ERROR_BUSY if another thread is in the same one. */
DWORD tunring_wireguard_run_outgoing(tunring_wireguard *device);
DWORD tunring_wireguard_run_incoming(tunring_wireguard *device);

/* The socket to use from now on; NULL: none, and nothing is sent or received. The device keeps its struct. */
DWORD tunring_wireguard_set_socket(tunring_wireguard *device, tunring_socket *socket);
/* Keys of 32 bytes that are hashes of the device's public key: that of mac1 in messages to it, and that which encrypts
 * its cookies. NULL for both: no handshake message is let through. */
DWORD tunring_wireguard_set_identity(tunring_wireguard *device, const BYTE *mac1_key, const BYTE *cookie_key);
/* Padding doesn't go past this many bytes. */
DWORD tunring_wireguard_set_mtu(tunring_wireguard *device, uint32_t mtu);

typedef struct tunring_wireguard_limits
{
    uint64_t rekey_messages, reject_messages; /* of one key: a new handshake is wanted; no more are sent or opened */
    int64_t rekey_after, reject_after;        /* the same by its age */
    int64_t rekey_on_receive;                 /* a new handshake is wanted when data arrives at this age */
} tunring_wireguard_limits;

/* For tests: other limits than the protocol's. */
DWORD tunring_wireguard_set_limits(tunring_wireguard *device, const tunring_wireguard_limits *limits);

/* Sends a handshake message to an endpoint, from its local address. *sent is false if the system refused it, or
 * there is no socket. */
DWORD tunring_wireguard_send_to(tunring_wireguard *device, const BYTE *data, uint32_t size, const tunring_endpoint *to,
                                bool *sent);

typedef struct tunring_wireguard_figures
{
    uint64_t malformed;          /* datagrams that are not a message, and data that is not a whole IP packet */
    uint64_t unknown_index;      /* messages for an index that nobody has */
    uint64_t expired;            /* data messages under a key that is too old */
    uint64_t rejected, replayed; /* data messages that were not authentic or past a key's last, or not new */
    uint64_t wrong_source;       /* packets from a source that their peer is not allowed */
    uint64_t undelivered;        /* packets that the session had no room for */
    uint64_t no_peer;            /* packets to a destination that no peer is allowed, or too long */
    uint64_t unsent;             /* datagrams that the system had no room for or refused, or without a socket */
    uint64_t staged_dropped;     /* packets that waited for a key and had to give way */
    uint64_t staged_bytes;       /* of memory that those waiting now take */
    uint64_t wrong_mac;          /* handshake messages whose mac1 was wrong, or without an identity */
    uint64_t cookies_sent;       /* to those without mac2 under load */
    uint64_t limited;            /* of sources that sent too many under load */
    uint64_t queue_full;         /* of those that were let through, dropped */
    bool under_load;
} tunring_wireguard_figures;

/* May be called at any time. */
void tunring_wireguard_figures_read(tunring_wireguard *device, tunring_wireguard_figures *figures);

/* ---- What has happened: wireguard/queue.c ------------------------------------------------------------------------ */

/* A handshake message or cookie reply that was let through. */
typedef struct tunring_wireguard_message
{
    uint32_t length;
    uint32_t peer; /* the number of the peer whose index it answers; 0 for initiations */
    tunring_endpoint source;
    BYTE data[TUNRING_WIREGUARD_MESSAGE];
} tunring_wireguard_message;

typedef enum tunring_wireguard_flag
{
    TUNRING_WIREGUARD_WANT_HANDSHAKE = 1, /* a packet has no key to go by, or the key is old */
    TUNRING_WIREGUARD_CONFIRMED = 2,      /* authentic data came under the responder's new key: it is in use */
    TUNRING_WIREGUARD_ACTIVE = 4,         /* a stamp was set that the caller doesn't watch for */
    TUNRING_WIREGUARD_ENDPOINT = 8        /* the endpoint followed authentic data */
} tunring_wireguard_flag;

/* A peer's flags since they were taken last. */
typedef struct tunring_wireguard_event
{
    uint32_t peer;
    uint32_t flags;
} tunring_wireguard_event;

#define TUNRING_WIREGUARD_TAKE 64u
typedef struct tunring_wireguard_news
{
    uint32_t messages, events;
    tunring_wireguard_message message[TUNRING_WIREGUARD_TAKE];
    tunring_wireguard_event event[TUNRING_WIREGUARD_TAKE];
} tunring_wireguard_news;

/* Takes what has happened, waiting for it, or not if `wait` is NULL. WAIT_TIMEOUT at the deadline;
 * ERROR_OPERATION_ABORTED when interrupted; ERROR_HANDLE_EOF also when the session is over. */
DWORD tunring_wireguard_take(tunring_wireguard *device, const tunring_wait *wait, tunring_wireguard_news *news);
/* Ends a tunring_wireguard_take(), or the next, with 0 and perhaps nothing. May be called at any time. */
void tunring_wireguard_wake(tunring_wireguard *device);

/* ---- Peers: wireguard/peer.c ------------------------------------------------------------------------------------- */

DWORD tunring_wireguard_peer_add(tunring_wireguard *device, tunring_wireguard_peer **peer);
/* Takes it out of its device, with its allowed IPs, indices, keys and staged packets: later calls return
 * ERROR_HANDLE_EOF. Idempotent. */
void tunring_wireguard_peer_remove(tunring_wireguard_peer *peer);
/* Gives up the caller's pointer. May be called at any time. */
void tunring_wireguard_peer_drop(tunring_wireguard_peer *peer);
/* Never 0, and never another peer's of the same device. */
uint32_t tunring_wireguard_peer_number(const tunring_wireguard_peer *peer);

/* Gives networks to the peer, taking each from its present owner. `replace`: it then has no others. A packet meanwhile
 * finds the network's old peer or the new one. ERROR_INVALID_PARAMETER, before anything is changed, for a prefix
 * that is not valid; ERROR_NOT_ENOUGH_MEMORY: it may have some of them. */
DWORD tunring_wireguard_peer_allow(tunring_wireguard_peer *peer, const tunring_prefix *networks, uint32_t count,
                                   bool replace);
/* Lists the peer's networks: up to `room` of them, IPv4 first. *count is the number that exist. */
DWORD tunring_wireguard_peer_allowed(tunring_wireguard_peer *peer, tunring_prefix *networks, uint32_t room,
                                     uint32_t *count);

/* A zero port: there is none. */
DWORD tunring_wireguard_peer_endpoint(tunring_wireguard_peer *peer, tunring_endpoint *endpoint);
DWORD tunring_wireguard_peer_set_endpoint(tunring_wireguard_peer *peer, const tunring_endpoint *endpoint);

/* An index for a handshake: random, and unlike every other of the device. ERROR_GEN_FAILURE without random numbers. */
DWORD tunring_wireguard_index_new(tunring_wireguard_peer *peer, uint32_t *index);
/* Gives up an index of a handshake. One of a keypair's stays, and others are ignored. */
DWORD tunring_wireguard_index_free(tunring_wireguard *device, uint32_t index);

typedef struct tunring_wireguard_keys
{
    uint32_t index, remote_index; /* ours, of a handshake; the far end's */
    const BYTE *send, *receive;   /* 32 bytes each, which are copied */
    bool initiator;
} tunring_wireguard_keys;

/* The outcome of a handshake. The initiator sends under it at once: staged packets or, without any, a keepalive, in
 * this call. The responder does so once authentic data has come under it. ERROR_NOT_FOUND: the index is not a
 * handshake's of this peer (any more). */
DWORD tunring_wireguard_peer_install(tunring_wireguard_peer *peer, const tunring_wireguard_keys *keys);
/* Wipes its keys. */
DWORD tunring_wireguard_peer_wipe(tunring_wireguard_peer *peer);

/* Drops the packets that wait for a key. */
DWORD tunring_wireguard_peer_drop_staged(tunring_wireguard_peer *peer);

/* Sends a handshake message to the peer's endpoint. *sent is false without one, or if the system refused it. */
DWORD tunring_wireguard_peer_send(tunring_wireguard_peer *peer, const BYTE *data, uint32_t size, bool *sent);
/* The same of an empty data message; *sent is false also without a key that may be used. */
DWORD tunring_wireguard_peer_keepalive(tunring_wireguard_peer *peer, bool *sent);
/* A handshake message of `size` bytes was authenticated; the peer's endpoint follows `source` unless that is NULL. */
DWORD tunring_wireguard_peer_heard(tunring_wireguard_peer *peer, uint32_t size, const tunring_endpoint *source);

/* The caller looks at the peer's stamps again at that time: TUNRING_WIREGUARD_ACTIVE is for stamps that are set more
 * than 9 seconds earlier. INT64_MAX: never, which is so at first. */
DWORD tunring_wireguard_peer_watch(tunring_wireguard_peer *peer, int64_t until);

typedef struct tunring_wireguard_status
{
    int64_t unanswered_since;     /* data was first sent since anything authentic came */
    int64_t unacknowledged_since; /* data first came since anything was sent */
    int64_t last_data_sent, last_sent, last_received;
    uint64_t received_bytes, sent_bytes; /* of whole messages */
    int64_t current_born, newest_born;   /* the current key, and the youngest of the three */
    bool current_initiator, has_next;
    uint32_t staged;
} tunring_wireguard_status;

/* Zeros once the peer is removed. May be called at any time. */
void tunring_wireguard_peer_status(tunring_wireguard_peer *peer, tunring_wireguard_status *status);

#endif
