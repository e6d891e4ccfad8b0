# Declarations of include/tunring_pcapng.h that Cython code needs.

from libc.stdint cimport uint32_t, uint64_t

from tunring cimport tunring_packet, tunring_slot, tunring_source, tunring_wait
from wintun cimport BYTE, DWORD, HANDLE


cdef extern from "tunring_pcapng.h" nogil:
    ctypedef struct tunring_pcapng_file:
        pass
    ctypedef enum tunring_direction:
        TUNRING_UNKNOWN
        TUNRING_RECEIVED
        TUNRING_SENT
    ctypedef struct tunring_captured:
        const tunring_packet *packets
        const tunring_slot *slots
        uint32_t count
        uint32_t (*headers)(void *context, uint32_t index, const BYTE *data, uint32_t length, BYTE *at) noexcept
        uint32_t interface_id
        tunring_direction direction
        const uint64_t *times
        bint one_time
    DWORD tunring_pcapng_open(HANDLE original, const char *application, tunring_pcapng_file **file) noexcept
    DWORD tunring_pcapng_add_interface(tunring_pcapng_file *file, const char *name, const char *description,
                                       uint32_t snaplen, const tunring_wait *wait, uint32_t *number) noexcept
    uint32_t tunring_pcapng_interfaces(const tunring_pcapng_file *file) noexcept
    DWORD tunring_pcapng_write(tunring_pcapng_file *file, const tunring_captured *what, const tunring_wait *wait,
                               uint32_t *done) noexcept
    uint64_t tunring_pcapng_position(tunring_pcapng_file *file) noexcept
    DWORD tunring_pcapng_flush(tunring_pcapng_file *file, uint64_t position, const tunring_wait *wait) noexcept
    DWORD tunring_pcapng_close(tunring_pcapng_file *file, const tunring_wait *wait) noexcept
    void tunring_pcapng_give_up(tunring_pcapng_file *file) noexcept
    void tunring_pcapng_drop(tunring_pcapng_file *file) noexcept
    int tunring_pcapng_failure(const tunring_pcapng_file *file) noexcept
    uint64_t tunring_pcapng_packets(const tunring_pcapng_file *file) noexcept
    uint64_t tunring_pcapng_dropped(const tunring_pcapng_file *file) noexcept
    DWORD tunring_pcapng_exit(const tunring_wait *wait) noexcept
    DWORD tunring_source_capture(tunring_source *source, tunring_pcapng_file *file, uint32_t interface_id,
                                 bint received, bint sent, uint32_t *number) noexcept
    void tunring_source_capture_end(tunring_source *source, uint32_t number) noexcept
