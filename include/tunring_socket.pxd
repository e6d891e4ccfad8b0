# Declarations of include/tunring_socket.h that Cython code needs.

from libc.stdint cimport uint8_t, uint32_t, uint64_t, uintptr_t

from tunring cimport tunring_endpoint, tunring_figure, tunring_packet, tunring_source, tunring_wait
from wintun cimport DWORD, HANDLE


cdef extern from "tunring_socket.h" nogil:
    ctypedef struct tunring_socket:
        pass
    ctypedef struct tunring_socket_option:
        int level
        int name
        int value
    const int TUNRING_SOCKET_RESTORED
    ctypedef struct tunring_socket_options:
        uintptr_t handle
        bint ipv6
        bint runs
        uint32_t max_chunks
        tunring_socket_option *restored
        uint32_t restored_count
    ctypedef struct tunring_accepted:
        uint32_t count
        uint64_t bytes
    ctypedef struct tunring_sending:
        const tunring_packet *packets
        uint32_t count
        const tunring_endpoint *endpoints
        const uint32_t *index
        const uint8_t *ecn
        uint8_t all_ecn
        uint8_t dscp
        tunring_accepted *accepted
    ctypedef struct tunring_socket_stats:
        uint64_t host_dropped
        bint runs
    const tunring_figure tunring_socket_figures[]
    DWORD tunring_socket_open(const tunring_socket_options *options, tunring_socket **socket) noexcept
    tunring_source *tunring_socket_source(tunring_socket *socket) noexcept
    DWORD tunring_socket_set_mark(tunring_socket *socket, uint32_t mark, int *number) noexcept
    DWORD tunring_socket_mark(tunring_socket *socket, uint32_t *mark) noexcept
    HANDLE tunring_socket_room_event(const tunring_socket *socket) noexcept
    int tunring_socket_receive_error(const tunring_socket *socket) noexcept
    DWORD tunring_socket_send(tunring_socket *socket, const tunring_sending *what, const tunring_wait *wait,
                              uint32_t *done) noexcept
    void tunring_socket_read_stats(tunring_socket *socket, tunring_socket_stats *stats) noexcept
