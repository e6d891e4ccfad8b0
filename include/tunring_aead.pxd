# Declarations of include/tunring_aead.h that Cython code needs.

from libc.stdint cimport uint32_t, uint64_t

from tunring cimport tunring_lease, tunring_packet, tunring_part, tunring_path_char
from wintun cimport BYTE, DWORD


cdef extern from "tunring_aead.h" nogil:
    ctypedef enum tunring_aead_algorithm:
        TUNRING_CHACHA20_POLY1305
        TUNRING_AES_256_GCM
        TUNRING_AES_128_GCM
    ctypedef enum tunring_aead_kind:
        TUNRING_LIBCRYPTO
        TUNRING_IPSEC_MB
        TUNRING_BORINGSSL
    ctypedef struct tunring_aead:
        pass
    DWORD tunring_aead_load(tunring_aead_kind kind, const tunring_path_char *path, bint loaded, tunring_aead **library,
                            char *detail, size_t size) noexcept
    const char *tunring_aead_version(const tunring_aead *library) noexcept
    DWORD tunring_aead_check(tunring_aead *library, tunring_aead_algorithm algorithm) noexcept
    uint32_t tunring_aead_key_size(tunring_aead_algorithm algorithm) noexcept

    ctypedef struct tunring_aead_text:
        const BYTE *nonce
        const BYTE *aad
        uint32_t aad_length
        uint32_t length
        BYTE *data
        BYTE *tag
    DWORD tunring_aead_message(tunring_aead *library, tunring_aead_algorithm algorithm, const BYTE *key, bint opens,
                               const tunring_aead_text *text) noexcept

    const uint32_t TUNRING_AEAD_MAX_HEADER
    const uint32_t TUNRING_AEAD_MAX_PACKET
    const uint32_t TUNRING_AEAD_MAX_DATAGRAM
    const uint32_t TUNRING_AEAD_MAX_WINDOW
    const uint64_t TUNRING_AEAD_LAST_COUNTER
    ctypedef struct tunring_aead_format:
        BYTE nonce[4]
        const BYTE *header
        uint32_t header_size
        bint unauthenticated_header
        bint big_endian

    ctypedef struct tunring_sealer:
        pass
    DWORD tunring_sealer_new(tunring_aead *library, tunring_aead_algorithm algorithm, const BYTE *key,
                             const tunring_aead_format *format, uint32_t pad_to, uint32_t pad_limit, uint64_t counter,
                             tunring_sealer **sealer) noexcept
    void tunring_sealer_close(tunring_sealer *sealer) noexcept
    void tunring_sealer_free(tunring_sealer *sealer) noexcept
    uint64_t tunring_sealer_counter(const tunring_sealer *sealer) noexcept

    ctypedef struct tunring_opener:
        pass
    ctypedef struct tunring_opener_counts:
        uint64_t rejected
        uint64_t replayed
        uint64_t foreign
    DWORD tunring_opener_new(tunring_aead *library, tunring_aead_algorithm algorithm, const BYTE *key,
                             const tunring_aead_format *format, uint32_t window, bint strip_padding,
                             tunring_opener **opener) noexcept
    void tunring_opener_close(tunring_opener *opener) noexcept
    void tunring_opener_free(tunring_opener *opener) noexcept
    void tunring_opener_counts_read(const tunring_opener *opener, tunring_opener_counts *counts) noexcept

    DWORD tunring_open_part(tunring_opener *opener, tunring_lease *lease, const tunring_part *part,
                            tunring_part **opened, uint32_t *index) noexcept

    ctypedef struct tunring_store:
        pass
    DWORD tunring_store_shared(tunring_store **store) noexcept
    DWORD tunring_store_seal(tunring_store *store, tunring_sealer *sealer, const tunring_packet *packets,
                             uint32_t count, tunring_lease **lease) noexcept
    DWORD tunring_store_open(tunring_store *store, tunring_opener *opener, const tunring_packet *datagrams,
                             uint32_t count, tunring_lease **lease) noexcept
