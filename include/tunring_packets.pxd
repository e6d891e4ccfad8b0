# Declarations of include/tunring_packets.h that Cython code needs.

from libc.stdint cimport uint32_t

from tunring cimport tunring_packet


cdef extern from "tunring_packets.h" nogil:
    uint32_t tunring_packets_fill_checksums(const tunring_packet *packets, uint32_t count) noexcept
    uint32_t tunring_packets_clamp_mss(const tunring_packet *packets, uint32_t count, uint32_t ip4_mss,
                                       uint32_t ip6_mss) noexcept
