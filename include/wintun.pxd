# Declarations of include/wintun.h that Cython code needs.

cdef extern from "wintun.h" nogil:
    ctypedef unsigned int DWORD
    ctypedef unsigned char BYTE
    ctypedef void *HANDLE
    ctypedef const void *LPCWSTR
    ctypedef struct GUID:
        pass
    ctypedef struct NET_LUID:
        unsigned long long Value
    ctypedef void *WINTUN_ADAPTER_HANDLE

    enum:
        WINTUN_MIN_RING_CAPACITY
        WINTUN_MAX_RING_CAPACITY
        WINTUN_MAX_IP_PACKET_SIZE
        ERROR_SUCCESS
        ERROR_FILE_NOT_FOUND
        ERROR_INVALID_HANDLE
        ERROR_NOT_ENOUGH_MEMORY
        ERROR_INVALID_DATA
        ERROR_GEN_FAILURE
        ERROR_HANDLE_EOF
        ERROR_NOT_SUPPORTED
        ERROR_INVALID_PARAMETER
        ERROR_BUFFER_OVERFLOW
        ERROR_BUSY
        ERROR_NOT_SUPPORTED
        ERROR_NOT_FOUND
        ERROR_ALREADY_EXISTS
        ERROR_MOD_NOT_FOUND
        WAIT_TIMEOUT
        ERROR_NO_MORE_ITEMS
        ERROR_ARITHMETIC_OVERFLOW
        ERROR_OPERATION_ABORTED
        ERROR_CANCELLED

    DWORD GetLastError() noexcept
