# The driver simulator, for tunring.testing. Included by _core.pyx.

cdef enum:
    MAX_DRAINED = WINTUN_MAX_IP_PACKET_SIZE


cdef int _simulated(AdapterHandle handle, DWORD code, str action) except -1:
    if code == ERROR_INVALID_HANDLE:
        raise handle.refusal()
    if code != ERROR_SUCCESS:
        raise error_from_code(code, action)
    return 0


def simulator_load(Library library not None, str path not None, str symbol not None):
    """Let the table that a module exports by that name play the library's driver."""
    cdef bytes encoded = _path_characters(path)
    cdef bytes name = symbol.encode()
    cdef const char *path_characters = encoded
    cdef const char *name_characters = name
    cdef char detail[512]
    cdef DWORD code
    detail[0] = 0
    with nogil:  # `encoded` and `name` hold the strings
        code = tunring_simulator_load(library.api, <const tunring_path_char *>path_characters, name_characters, detail,
                                      sizeof(detail))
    if code != ERROR_SUCCESS:
        raise error_from_code(code, f"can't load {path!r}", (<bytes>detail).decode("utf-8", "replace"))


def simulator_available(Library library not None) -> bool:
    """True if the library's driver can be simulated."""
    return tunring_simulator_available(library.api)


def simulator_stale_ends(Library library not None) -> int:
    """Sessions that were ended after their adapter was removed."""
    return tunring_simulator_stale_ends(library.api)


def simulator_attach(AdapterHandle handle not None):
    """Take the adapter over."""
    cdef tunring_adapter *adapter = handle.get()
    cdef DWORD code
    with nogil:  # here and below `handle` holds the adapter, and the call itself keeps it open
        code = tunring_simulate_attach(adapter)
    _simulated(handle, code, "can't attach the simulator")


def simulator_inject(AdapterHandle handle not None, packets):
    """Bring a chain of packets: bytes, or sizes of what can't be read."""
    cdef tunring_adapter *adapter = handle.get()
    cdef list items = list(packets)  # ours, so that nobody can let the bytes go meanwhile
    cdef tunring_packet *chain
    cdef Py_ssize_t i, count = len(items)
    cdef DWORD code
    chain = <tunring_packet *>_allocate(count, sizeof(tunring_packet))
    try:
        for i in range(count):
            _link(&chain[i], items[i], i)
        # `items` holds the bytes that `chain` points to, and `chain` is freed below.
        with nogil:
            code = tunring_simulate_inject(adapter, chain, <DWORD>count)
    finally:
        PyMem_Free(chain)
    _simulated(handle, code, "can't inject the chain")


cdef int _link(tunring_packet *link, packet, Py_ssize_t index) except -1:
    """Describe one packet, which the caller holds."""
    if isinstance(packet, bytes):
        link.data = <const BYTE *><const char *>(<bytes>packet)
        link.length = <DWORD>len(<bytes>packet)  # of the bytes: a subclass may have another one
    elif isinstance(packet, int):
        if not 0 <= packet <= 0xFFFFFFFF:
            raise ValueError(f"packet {index}: a size must be 0 to {0xFFFFFFFF} bytes, not {packet}")
        link.data = NULL
        link.length = packet
    else:
        raise TypeError(f"packet {index} must be bytes or a size, not {type(packet).__name__}")
    return 0


def simulator_drain(AdapterHandle handle not None):
    """Take the oldest packet that was sent, or None."""
    cdef tunring_adapter *adapter = handle.get()
    cdef BYTE *buffer = <BYTE *>_allocate(MAX_DRAINED, 1)
    cdef DWORD size = MAX_DRAINED
    cdef DWORD code
    try:
        # `buffer` is freed below.
        with nogil:
            code = tunring_simulate_drain(adapter, buffer, &size)
        if code == ERROR_NO_MORE_ITEMS:
            return None
        _simulated(handle, code, "can't drain")
        return PyBytes_FromStringAndSize(<char *>buffer, size)
    finally:
        PyMem_Free(buffer)


def simulator_corrupt(AdapterHandle handle not None, int what, uint32_t value):
    """Overwrite a word of a ring."""
    cdef tunring_adapter *adapter = handle.get()
    cdef DWORD code
    if not TUNRING_CORRUPT_RECEIVE_TAIL <= what <= TUNRING_CORRUPT_SEND_SIZE:
        raise ValueError(f"what must be a Corruption, not {what}")
    with nogil:
        code = tunring_simulate_corrupt(adapter, <tunring_corruption>what, value)
    _simulated(handle, code, "can't corrupt the ring")


def simulator_delay(AdapterHandle handle not None, uint32_t microseconds):
    """Let injections and drains take this time."""
    cdef tunring_adapter *adapter = handle.get()
    cdef DWORD code
    with nogil:
        code = tunring_simulate_delay(adapter, microseconds)
    _simulated(handle, code, "can't set the delay")


def simulator_remove(AdapterHandle handle not None):
    """Let the system remove the adapter."""
    cdef tunring_adapter *adapter = handle.get()
    cdef DWORD code
    with nogil:
        code = tunring_simulate_remove(adapter)
    _simulated(handle, code, "can't remove the adapter")
