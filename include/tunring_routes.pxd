# Declarations of include/tunring_routes.h that Cython code needs.

from libc.stdint cimport int32_t, uint8_t, uint32_t

from tunring cimport tunring_slot
from wintun cimport BYTE, DWORD


cdef extern from "tunring_routes.h" nogil:
    ctypedef struct tunring_prefix:
        uint8_t address[16]
        uint8_t version
        uint8_t length
    ctypedef struct tunring_route:
        tunring_prefix prefix
        int32_t value
    ctypedef struct tunring_routes:
        pass

    tunring_routes *tunring_routes_new() noexcept
    void tunring_routes_free(tunring_routes *table) noexcept
    int32_t tunring_routes_lookup(tunring_routes *table, unsigned version, const BYTE *address) noexcept
    void tunring_routes_lookup_slots(tunring_routes *table, const tunring_slot *slots, uint32_t count, bint source,
                                     int32_t *values) noexcept
    DWORD tunring_routes_set(tunring_routes *table, const tunring_route *routes, uint32_t count,
                             uint32_t *done) noexcept
    DWORD tunring_routes_remove(tunring_routes *table, const tunring_prefix *prefix, int32_t *value) noexcept
    DWORD tunring_routes_remove_value(tunring_routes *table, int32_t value, uint32_t *removed) noexcept
    DWORD tunring_routes_clear(tunring_routes *table) noexcept
    DWORD tunring_routes_get(tunring_routes *table, const tunring_prefix *prefix, int32_t *value) noexcept
    uint32_t tunring_routes_count(tunring_routes *table) noexcept
    uint32_t tunring_routes_list(tunring_routes *table, tunring_route *routes, uint32_t room) noexcept
