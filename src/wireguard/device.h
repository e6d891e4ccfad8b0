/* SPDX-License-Identifier: MIT
 *
 * A device's parts, as its files share them.
 *
 * Locks are taken in this order: the device's, a peer's, the queue's. None is held over a system call that may wait,
 * nor over cryptography. Peers and keypairs are counted: whoever found one under the device's lock keeps it until it
 * lets go, so that peers are removed while their packets are on the way.
 */
#ifndef TUNRING_WIREGUARD_DEVICE_H
#define TUNRING_WIREGUARD_DEVICE_H

#include "core/life.h"
#include "core/session.h"
#include "core/socket.h"
#include "platform/os.h"
#include "tunring_wireguard.h"
#include "wireguard/index.h"

#define NANOSECONDS INT64_C(1000000000)
/* AF41, of handshake messages: the DS byte is 0x88, not capable of ECN. */
#define HANDSHAKE_DSCP 0x22

typedef struct gate gate;
typedef struct transmitter transmitter;

/* ---- Keypairs ---- */

/* The result of a handshake: a key for each direction. */
typedef struct keypair
{
    _Atomic uint32_t users;
    uint32_t index; /* ours, by which data messages find it */
    tunring_sealer *sealer;
    tunring_opener *opener;
    int64_t born;
    uint64_t generation; /* the peer's keypairs are numbered from 1 on; under its lock until it is in use */
    bool initiator;
    bool asked; /* for a new handshake, as data came late in its life; under the peer's lock */
} keypair;

/* ---- Peers ---- */

/* A packet that waits for a key: a copy, which holds nothing of a ring. */
typedef struct staged_packet
{
    uint32_t length;
    BYTE data[];
} staged_packet;

typedef struct peer_stamps
{
    _Atomic int64_t unanswered_since, unacknowledged_since;
    _Atomic int64_t last_data_sent, last_sent, last_received;
    _Atomic int64_t watched_until, wanted_at;
    _Atomic uint64_t received_bytes, sent_bytes;
} peer_stamps;

typedef struct index_use index_use;

struct tunring_wireguard_peer
{
    tunring_wireguard *device; /* each peer is one user of it */
    _Atomic uint32_t users;    /* the device's list, the caller, calls in flight, the queue, and those confirmed */
    uint32_t number;
    peer_stamps stamps;

    _Atomic uint32_t flags;              /* of an event that is not taken yet */
    struct tunring_wireguard_peer *next; /* in the queue; under its lock */
    _Atomic bool confirmed;              /* in the device's list of those */
    struct tunring_wireguard_peer *next_confirmed;

    index_use *indices; /* under the device's lock */

    os_mutex lock; /* guards what follows */
    bool removed;
    tunring_endpoint endpoint; /* port 0: none */
    uint64_t last_generation;  /* of a keypair */
    /* The newest data that the endpoint followed: its keypair's generation, 0 before any, and its counter. */
    uint64_t followed_generation, followed_counter;
    keypair *previous, *current, *upcoming;
    staged_packet *staged[TUNRING_WIREGUARD_STAGED]; /* a ring */
    uint32_t staged_first;
    _Atomic uint32_t staged_count;
};

/* The owner of an index: a peer's handshake, or one of its keypairs. */
struct index_use
{
    index_use *next; /* of the same peer */
    tunring_wireguard_peer *peer;
    keypair *keypair; /* NULL: a handshake */
    uint32_t index;
};

/* ---- Devices ---- */

/* Messages and peers' flags, for tunring_wireguard_take(). */
typedef struct queue
{
    os_mutex lock;  /* guards what follows */
    os_event ready; /* set while there is anything */
    bool signalled, woken;
    uint32_t first;
    _Atomic uint32_t count;
    tunring_wireguard_message *messages; /* a ring of TUNRING_WIREGUARD_QUEUE */
    tunring_wireguard_peer *peers, *last_peer;
} queue;

typedef struct device_counts
{
    _Atomic uint64_t malformed, unknown_index, expired, rejected, replayed, wrong_source, undelivered;
    _Atomic uint64_t no_peer, unsent, staged_dropped, staged_bytes;
    _Atomic uint64_t wrong_mac, cookies_sent, limited, queue_full;
} device_counts;

struct tunring_wireguard
{
    unsigned generation;
    life_word life;
    _Atomic uint32_t users;                      /* the caller, and each peer */
    _Atomic bool over;                           /* the session is */
    os_event stop;                               /* set for good by the first close, or when the session is over */
    os_event changed;                            /* the incoming loop has to look at the socket again */
    _Atomic bool sending, receiving;             /* a thread is in the loop */
    os_event flush;                              /* the outgoing loop has to look at `confirmed` */
    _Atomic(tunring_wireguard_peer *) confirmed; /* peers with a new key for what is staged */
    tunring_session *session;                    /* its struct is kept */
    tunring_aead *aead;
    tunring_hashes *hashes;
    _Atomic uint32_t mtu;
    device_counts counts;
    queue queue;
    gate *gate;
    tunring_routes *allowed; /* numbers of peers by network */

    os_mutex lock; /* guards what follows */
    tunring_wireguard_limits limits;
    tunring_socket *socket; /* its struct is kept; NULL: none */
    index_table peers;      /* by number */
    uint32_t last_number;
    index_table indices; /* index_use by index */
};

/* Registers a call. False when the device is closing, or not of this process. */
bool device_enter(tunring_wireguard *device);
void device_leave(tunring_wireguard *device);
void device_use(tunring_wireguard *device);
void device_put(tunring_wireguard *device);
/* The session is over: everything ends as by a close. */
void device_over(tunring_wireguard *device);

static inline bool
device_ending(const tunring_wireguard *device)
{
    return life_closing(&device->life) || atomic_load_explicit(&device->over, memory_order_relaxed);
}

/* The socket, to be given back by device_put_socket(); NULL: none. */
tunring_socket *device_socket(tunring_wireguard *device);
void device_put_socket(tunring_socket *socket);

tunring_wireguard_limits device_limits(tunring_wireguard *device);

/* Sends datagrams of one kind to one endpoint; waits for room, not for long. Returns what the system accepted. */
tunring_accepted device_send(tunring_wireguard *device, tunring_socket *socket, const tunring_sending *what);
/* The same without a wait, for the incoming loop: while it waited, everything that comes would be lost. */
tunring_accepted device_send_now(tunring_wireguard *device, tunring_socket *socket, const tunring_sending *what);

/* ---- incoming.c ---- */

/* Datagrams that are received at a time. */
#define DEVICE_TAKE 512u

/* Takes what was received from the socket: packets go to the session, and handshake messages to the gate. Not 0 when
 * the session is over. */
DWORD device_take(tunring_wireguard *device, tunring_socket *socket, const tunring_lease *lease);

/* ---- outgoing.c ---- */

/* Has the outgoing loop send what is staged, which may have to wait for room. */
void outgoing_flush(tunring_wireguard_peer *peer);
/* Lets go of the peers that the loop was to look at: it has ended. */
void outgoing_end(tunring_wireguard *device);

/* ---- keypair.c ---- */

void keypair_use(keypair *self);
void keypair_put(keypair *self);
/* May packets still be sent, or opened, under it? */
bool keypair_may_send(const keypair *self, const tunring_wireguard_limits *limits, int64_t now);
bool keypair_may_receive(const keypair *self, const tunring_wireguard_limits *limits, int64_t now);
/* Takes every keypair from a peer. Both locks are held. */
void peer_forget_keys(tunring_wireguard_peer *peer);
/* Authentic data came. If that is late in the life of the current key, its initiator wants a new handshake, once. */
void peer_refresh_key(tunring_wireguard_peer *peer, const tunring_wireguard_limits *limits, int64_t now);
/* Authentic data came under the keypair: if it was to come, it is the current one from now on. True if it was. */
bool peer_confirm(tunring_wireguard_peer *peer, keypair *self);
/* Sends what is staged, if there is a key for it. */
void peer_send_staged(tunring_wireguard_peer *peer);

/* ---- index_use.c ---- */

/* The keypair of an index and its peer, each with one more user; NULL if it has none. */
keypair *device_find_keypair(tunring_wireguard *device, uint32_t index, tunring_wireguard_peer **peer);
/* The number of the peer that has the index, or 0. `of_keypair`: a keypair's will do as well as a handshake's. */
uint32_t device_index_owner(tunring_wireguard *device, uint32_t index, bool of_keypair);
/* These are called with the device's lock. */
index_use *index_use_find(tunring_wireguard *device, uint32_t index);
void index_use_remove(index_use *use);

/* ---- peer.c ---- */

void peer_use(tunring_wireguard_peer *peer);
void peer_put(tunring_wireguard_peer *peer);
/* One more user, or NULL. */
tunring_wireguard_peer *device_find_peer(tunring_wireguard *device, uint32_t number);
/* Takes a peer out of its device. */
void peer_take_out(tunring_wireguard_peer *peer);
/* Registers a call on a peer, which device_leave() ends. False if it is removed, or its device closing. */
bool peer_enter(tunring_wireguard_peer *peer);
/* Datagrams are sent to it, or authentic ones came; `data`: with packets in them. */
void peer_note_sent(tunring_wireguard_peer *peer, int64_t now, bool data);
void peer_count_sent(tunring_wireguard_peer *peer, uint64_t bytes);
void peer_note_received(tunring_wireguard_peer *peer, int64_t now, uint64_t bytes, bool data);
/* The endpoint follows an authentic handshake message. */
void peer_roam(tunring_wireguard_peer *peer, const tunring_endpoint *to);
/* The endpoint follows authentic data, unless it has followed newer data before. */
void peer_follow(tunring_wireguard_peer *peer, const keypair *keys, uint64_t counter, const tunring_endpoint *to);
/* Has TUNRING_WIREGUARD_WANT_HANDSHAKE noted, at most once a second. */
void peer_want_handshake(tunring_wireguard_peer *peer, int64_t now);

/* ---- staging.c ---- */

/* Copies packets, in the place of the oldest. The peer's lock is held. */
void peer_stage(tunring_wireguard_peer *peer, const tunring_packet *packets, uint32_t count);
/* Takes them all, for the caller to free. Returns how many; the peer's lock is held. */
uint32_t peer_unstage(tunring_wireguard_peer *peer, staged_packet **packets);
void staged_free(tunring_wireguard *device, staged_packet **packets, uint32_t count);

/* ---- queue.c ---- */

bool queue_open(queue *self);
/* Lets go of the peers in it, and of its event: nobody takes or puts anything any more. */
void queue_end(queue *self);
/* After queue_end(). */
void queue_close(queue *self);
/* False if it is full. */
bool queue_put(queue *self, const tunring_wireguard_message *message);
/* Notes flags of a peer. May be called at any time. */
void queue_flag(tunring_wireguard_peer *peer, uint32_t flags);

/* ---- transmit.c ---- */

/* Packets that one call takes. */
#define TRANSMIT_MAX 512u

transmitter *transmitter_new(void);
void transmitter_free(transmitter *self);
/* Seals packets and sends them; `packets` of length 0 are keepalives. False if the key may not be used any more. */
bool transmit(tunring_wireguard_peer *peer, transmitter *self, keypair *keys, const tunring_endpoint *to,
              const tunring_packet *packets, uint32_t count);
/* Sends packets of one peer, or stages them where there is no key. */
void transmit_or_stage(tunring_wireguard_peer *peer, transmitter *self, const tunring_packet *packets, uint32_t count);

/* ---- gate.c ---- */

gate *gate_new(tunring_wireguard *device);
void gate_free(gate *self);
bool gate_set_identity(gate *self, const BYTE *mac1_key, const BYTE *cookie_key);
bool gate_under_load(const gate *self);
/* Lets a handshake message through to the queue, or not. By the incoming loop. */
void gate_message(gate *self, tunring_socket *socket, const BYTE *data, uint32_t length, const tunring_endpoint *from);

#endif
