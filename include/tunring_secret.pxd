# Declarations of include/tunring_secret.h that Cython code needs.

from libc.stdint cimport uint32_t

from tunring cimport tunring_state
from wintun cimport BYTE, DWORD


cdef extern from "tunring_secret.h" nogil:
    const uint32_t TUNRING_SECRET_SIZE

    ctypedef struct tunring_secret:
        pass
    DWORD tunring_secret_new(const BYTE *bytes, uint32_t size, tunring_secret **secret) noexcept
    BYTE *tunring_secret_enter(tunring_secret *secret) noexcept
    void tunring_secret_leave(tunring_secret *secret) noexcept
    uint32_t tunring_secret_size(const tunring_secret *secret) noexcept
    unsigned tunring_secret_protection(const tunring_secret *secret) noexcept
    tunring_state tunring_secret_state(const tunring_secret *secret) noexcept
    void tunring_secret_close(tunring_secret *secret) noexcept
    void tunring_secret_free(tunring_secret *secret) noexcept
