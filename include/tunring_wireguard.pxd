# Declarations of include/tunring_wireguard.h and of what it takes of include/tunring_routes.h that Cython code needs.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from tunring cimport tunring_endpoint, tunring_path_char, tunring_session, tunring_state, tunring_wait
from tunring_aead cimport tunring_aead
from tunring_socket cimport tunring_socket
from wintun cimport BYTE, DWORD


cdef extern from * nogil:
    ctypedef bint c_bool "bool"

cdef extern from "tunring_routes.h" nogil:
    ctypedef struct tunring_prefix:
        uint8_t address[16]
        uint8_t version
        uint8_t length

cdef extern from "tunring_wireguard.h" nogil:
    const uint32_t TUNRING_WIREGUARD_KEY
    const uint32_t TUNRING_WIREGUARD_MESSAGE

    ctypedef struct tunring_hashes:
        pass
    DWORD tunring_hashes_load(const tunring_path_char *path, bint loaded, tunring_hashes **hashes, char *detail,
                              size_t detail_size) noexcept
    bint tunring_hashes_public_key(tunring_hashes *hashes, const BYTE *private_key, BYTE *public_key) noexcept
    DWORD tunring_hashes_exchange(tunring_hashes *hashes, const BYTE *private_key, const BYTE *own_public,
                                  const BYTE *public_key, BYTE *shared) noexcept

    ctypedef struct tunring_wireguard:
        pass
    ctypedef struct tunring_wireguard_peer:
        pass
    DWORD tunring_wireguard_new(tunring_session *session, tunring_aead *aead, tunring_hashes *hashes,
                                tunring_wireguard **device) noexcept
    void tunring_wireguard_close(tunring_wireguard *device) noexcept
    void tunring_wireguard_drop(tunring_wireguard *device) noexcept
    tunring_state tunring_wireguard_state(const tunring_wireguard *device) noexcept
    DWORD tunring_wireguard_run_outgoing(tunring_wireguard *device) noexcept
    DWORD tunring_wireguard_run_incoming(tunring_wireguard *device) noexcept
    DWORD tunring_wireguard_set_socket(tunring_wireguard *device, tunring_socket *socket) noexcept
    DWORD tunring_wireguard_set_identity(tunring_wireguard *device, const BYTE *mac1_key,
                                         const BYTE *cookie_key) noexcept
    DWORD tunring_wireguard_set_mtu(tunring_wireguard *device, uint32_t mtu) noexcept

    ctypedef struct tunring_wireguard_limits:
        uint64_t rekey_messages
        uint64_t reject_messages
        int64_t rekey_after
        int64_t reject_after
        int64_t rekey_on_receive
    DWORD tunring_wireguard_set_limits(tunring_wireguard *device, const tunring_wireguard_limits *limits) noexcept
    DWORD tunring_wireguard_send_to(tunring_wireguard *device, const BYTE *data, uint32_t size,
                                    const tunring_endpoint *to, c_bool *sent) noexcept

    ctypedef struct tunring_wireguard_figures:
        uint64_t malformed
        uint64_t unknown_index
        uint64_t expired
        uint64_t rejected
        uint64_t replayed
        uint64_t wrong_source
        uint64_t undelivered
        uint64_t no_peer
        uint64_t unsent
        uint64_t staged_dropped
        uint64_t staged_bytes
        uint64_t wrong_mac
        uint64_t cookies_sent
        uint64_t limited
        uint64_t queue_full
        bint under_load
    void tunring_wireguard_figures_read(tunring_wireguard *device, tunring_wireguard_figures *figures) noexcept

    ctypedef struct tunring_wireguard_message:
        uint32_t length
        uint32_t peer
        tunring_endpoint source
        BYTE *data
    ctypedef enum tunring_wireguard_flag:
        TUNRING_WIREGUARD_WANT_HANDSHAKE
        TUNRING_WIREGUARD_CONFIRMED
        TUNRING_WIREGUARD_ACTIVE
        TUNRING_WIREGUARD_ENDPOINT
    ctypedef struct tunring_wireguard_event:
        uint32_t peer
        uint32_t flags
    ctypedef struct tunring_wireguard_news:
        uint32_t messages
        uint32_t events
        tunring_wireguard_message *message
        tunring_wireguard_event *event
    DWORD tunring_wireguard_take(tunring_wireguard *device, const tunring_wait *wait,
                                 tunring_wireguard_news *news) noexcept
    void tunring_wireguard_wake(tunring_wireguard *device) noexcept

    DWORD tunring_wireguard_peer_add(tunring_wireguard *device, tunring_wireguard_peer **peer) noexcept
    void tunring_wireguard_peer_remove(tunring_wireguard_peer *peer) noexcept
    void tunring_wireguard_peer_drop(tunring_wireguard_peer *peer) noexcept
    uint32_t tunring_wireguard_peer_number(const tunring_wireguard_peer *peer) noexcept
    DWORD tunring_wireguard_peer_allow(tunring_wireguard_peer *peer, const tunring_prefix *networks, uint32_t count,
                                       bint replace) noexcept
    DWORD tunring_wireguard_peer_allowed(tunring_wireguard_peer *peer, tunring_prefix *networks, uint32_t room,
                                         uint32_t *count) noexcept
    DWORD tunring_wireguard_peer_endpoint(tunring_wireguard_peer *peer, tunring_endpoint *endpoint) noexcept
    DWORD tunring_wireguard_peer_set_endpoint(tunring_wireguard_peer *peer, const tunring_endpoint *endpoint) noexcept
    DWORD tunring_wireguard_index_new(tunring_wireguard_peer *peer, uint32_t *index) noexcept
    DWORD tunring_wireguard_index_free(tunring_wireguard *device, uint32_t index) noexcept

    ctypedef struct tunring_wireguard_keys:
        uint32_t index
        uint32_t remote_index
        const BYTE *send
        const BYTE *receive
        bint initiator
    DWORD tunring_wireguard_peer_install(tunring_wireguard_peer *peer, const tunring_wireguard_keys *keys) noexcept
    DWORD tunring_wireguard_peer_wipe(tunring_wireguard_peer *peer) noexcept
    DWORD tunring_wireguard_peer_drop_staged(tunring_wireguard_peer *peer) noexcept
    DWORD tunring_wireguard_peer_send(tunring_wireguard_peer *peer, const BYTE *data, uint32_t size,
                                      c_bool *sent) noexcept
    DWORD tunring_wireguard_peer_keepalive(tunring_wireguard_peer *peer, c_bool *sent) noexcept
    DWORD tunring_wireguard_peer_heard(tunring_wireguard_peer *peer, uint32_t size,
                                       const tunring_endpoint *source) noexcept
    DWORD tunring_wireguard_peer_watch(tunring_wireguard_peer *peer, int64_t until) noexcept

    ctypedef struct tunring_wireguard_status:
        int64_t unanswered_since
        int64_t unacknowledged_since
        int64_t last_data_sent
        int64_t last_sent
        int64_t last_received
        uint64_t received_bytes
        uint64_t sent_bytes
        int64_t current_born
        int64_t newest_born
        bint current_initiator
        bint has_next
        uint32_t staged
    void tunring_wireguard_peer_status(tunring_wireguard_peer *peer, tunring_wireguard_status *status) noexcept
