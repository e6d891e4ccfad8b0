# Arguments: deadlines, lists of packets and lists of sizes, checked before anything is changed. Included by _core.pyx.

cdef int64_t _deadline(timeout) except? -1:
    """The clock's nanoseconds at which ``timeout`` seconds are over; 0 polls."""
    if timeout is None:
        return TUNRING_FOREVER
    if isinstance(timeout, (str, bytes, bytearray)):
        raise TypeError(f"timeout must be seconds or None, not {timeout!r}")
    try:
        seconds = float(timeout)
    except (TypeError, ValueError):
        raise TypeError(f"timeout must be seconds or None, not {timeout!r}") from None
    except OverflowError:
        seconds = math.inf if timeout > 0 else -math.inf
    if math.isnan(seconds) or seconds < 0:
        raise ValueError(f"timeout must be 0 or more seconds, or None for no limit, not {timeout!r}")
    if seconds == 0:
        return 0
    # int64 nanoseconds reach 292 years ahead.
    return TUNRING_FOREVER if seconds > 9e9 else tunring_deadline(<int64_t>(seconds * 1e9) + 1)


cpdef object check_timeout(timeout):
    """``timeout`` as seconds, or None for no limit."""
    return None if _deadline(timeout) == TUNRING_FOREVER else float(timeout)


cdef str _packet_fault(const unsigned char *data, Py_ssize_t size):
    """Why a host would not accept this packet, or None."""
    if size > WINTUN_MAX_IP_PACKET_SIZE:
        return f"has {size} bytes; at most {WINTUN_MAX_IP_PACKET_SIZE} are allowed"
    if tunring_packet_is_ip(data, <uint32_t>size):
        return None
    version = data[0] >> 4 if size else None
    return (f"is no IP packet: it has {size} bytes and version {version}; "
            "IPv4 takes at least 20 bytes and IPv6 at least 40")


@cython.final
@cython.no_gc
cdef class _Sizes:
    """Packet sizes from an integer buffer or a sequence, checked to be 0 to 65535."""
    cdef uint32_t *values   # `count` of them, ours
    cdef Py_ssize_t count   # packets
    cdef uint64_t total     # their sum, in bytes

    def __cinit__(self, sizes, str what):
        if isinstance(sizes, (str, bytes, bytearray)):
            raise TypeError(f"{what} must be integers, not {type(sizes).__name__}")
        if PyObject_CheckBuffer(sizes):
            view = memoryview(sizes)
            if view.ndim != 1:
                raise ValueError(f"{what} must have one dimension, not {view.ndim}")
            # As Batch.lengths is, and numpy's uint32, which is "L" on Windows: without an object each.
            if view.format in ("I", "L") and view.itemsize == sizeof(uint32_t) and view.c_contiguous:
                self.copy(view)
            else:
                try:
                    self.convert(view.tolist(), what)
                except NotImplementedError:
                    self.convert(list(sizes), what)  # a format that only its owner reads, say of the other byte order
        else:
            self.convert(list(sizes), what)
        cdef Py_ssize_t i
        for i in range(self.count):
            if self.values[i] > WINTUN_MAX_IP_PACKET_SIZE:
                raise ValueError(f"{what}[{i}] must be 0 to {WINTUN_MAX_IP_PACKET_SIZE}, not {self.values[i]}")
            self.total += self.values[i]

    cdef int make_room(self, Py_ssize_t count) except -1:
        self.values = <uint32_t *>PyMem_Malloc((count + 1) * sizeof(uint32_t))
        if not self.values:
            raise MemoryError()
        self.count = count
        return 0

    cdef int copy(self, view) except -1:
        cdef Py_buffer buffer
        PyObject_GetBuffer(view, &buffer, PyBUF_SIMPLE)
        try:
            self.make_room(buffer.len // sizeof(uint32_t))
            memcpy(self.values, buffer.buf, buffer.len)
        finally:
            PyBuffer_Release(&buffer)
        return 0

    cdef int convert(self, list items, str what) except -1:
        cdef Py_ssize_t i
        cdef long long size
        self.make_room(len(items))
        for i in range(self.count):
            try:
                size = items[i] if isinstance(items[i], int) else operator.index(items[i])
            except TypeError:
                raise TypeError(f"{what}[{i}] must be an integer, not {items[i]!r}") from None
            except OverflowError:
                size = -1
            if not 0 <= size <= WINTUN_MAX_IP_PACKET_SIZE:
                raise ValueError(f"{what}[{i}] must be 0 to {WINTUN_MAX_IP_PACKET_SIZE}, not {items[i]}")
            self.values[i] = <uint32_t>size
        return 0

    def __dealloc__(self):
        PyMem_Free(self.values)


# A table of packets that was freed, for the next call: it stays in the cache. The GIL guards it.
cdef tunring_packet *_spare_packets = NULL
cdef Py_ssize_t _spare_room = 0


@cython.final
@cython.no_gc
cdef class _Packets:
    """Packets to send, checked, with what keeps their memory in place."""
    cdef tunring_packet *packets  # `count` of them, ours
    cdef Py_ssize_t room          # of `packets`
    cdef uint32_t count           # packets
    cdef uint32_t sent            # how many of them went out
    cdef tuple items              # keeps bytes objects, and with them their memory
    cdef Py_buffer *buffers       # `held` acquired buffers of other objects, ours, or NULL
    cdef Py_ssize_t held          # how many of them to release
    cdef tunring_lease *lease     # a lease we are in an operation on, or NULL
    cdef object owner             # keeps the lease's memory

    def __dealloc__(self):
        global _spare_packets, _spare_room
        cdef Py_ssize_t i
        for i in range(self.held):
            PyBuffer_Release(&self.buffers[i])
        if self.lease:
            tunring_lease_leave(self.lease)
        PyMem_Free(self.buffers)
        if _spare_room < self.room <= 4096:
            self.packets, _spare_packets = _spare_packets, self.packets
            _spare_room = self.room
        PyMem_Free(self.packets)

    cdef int make_room(self, Py_ssize_t packets) except -1:
        global _spare_packets, _spare_room
        if packets > 0x7FFFFFFF:
            raise ValueError(f"too many packets: {packets}")
        if packets <= _spare_room:
            self.packets, _spare_packets = _spare_packets, NULL
            self.room, _spare_room = _spare_room, 0
            return 0
        self.packets = <tunring_packet *>PyMem_Malloc(packets * sizeof(tunring_packet))
        if not self.packets:
            raise MemoryError()
        self.room = packets
        return 0

    cdef Py_buffer *hold(self, object item, Py_ssize_t most) except NULL:
        """Acquire one more buffer, of at most so many from the first on."""
        if not self.buffers:
            self.buffers = <Py_buffer *>PyMem_Malloc(most * sizeof(Py_buffer))
            if not self.buffers:
                raise MemoryError()
        cdef Py_buffer *buffer = &self.buffers[self.held]
        PyObject_GetBuffer(item, buffer, PyBUF_SIMPLE)
        self.held += 1
        return buffer


cdef _Packets _packets_from_items(packets):
    """From an iterable of bytes-like objects: all held and checked, or an exception that names the index."""
    if isinstance(packets, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"send takes an iterable of packets, not one {type(packets).__name__}; "
                        "for a single packet: send([packet])")
    # A copy that nobody can change: buffers may run Python code, and other threads may change the list meanwhile.
    cdef tuple items = tuple(packets)
    cdef _Packets result = _Packets()
    cdef Py_ssize_t i, size, count = len(items)
    cdef Py_buffer *buffer
    cdef char *data
    result.items = items
    result.make_room(count)
    for i in range(count):
        item = items[i]
        if type(item) is bytes:
            PyBytes_AsStringAndSize(item, &data, &size)
        else:
            try:
                buffer = result.hold(item, count - i)
            except TypeError as error:
                raise TypeError(f"packet {i}: {error}") from None
            except (BufferError, ValueError) as error:
                raise ValueError(f"packet {i} must be one contiguous, live buffer: {error}") from None
            data, size = <char *>buffer.buf, buffer.len
        fault = _packet_fault(<const unsigned char *>data, size)
        if fault is not None:
            raise ValueError(f"packet {i} {fault}")
        result.packets[i].data = <const BYTE *>data
        result.packets[i].length = <uint32_t>size
    result.count = <uint32_t>count
    return result


cdef _Packets _packets_from_packed(buffer, lengths):
    """From one buffer of packets back to back."""
    cdef _Sizes sizes = _Sizes(lengths, "lengths")
    cdef _Packets result = _Packets()
    cdef Py_ssize_t i
    cdef Py_buffer *held = result.hold(buffer, 1)
    if sizes.total != <uint64_t>held.len:
        raise ValueError(f"the lengths add up to {sizes.total} bytes, the buffer has {held.len}")
    result.make_room(sizes.count)
    cdef const unsigned char *at = <const unsigned char *>held.buf
    for i in range(sizes.count):
        fault = _packet_fault(at, sizes.values[i])
        if fault is not None:
            raise ValueError(f"packet {i} {fault}")
        result.packets[i].data = <const BYTE *>at
        result.packets[i].length = sizes.values[i]
        at += sizes.values[i]
    result.count = <uint32_t>sizes.count
    return result


cdef _Packets _packets_from_batch(Batch batch, tunring_session *session):
    """From a batch, which can't be let go meanwhile. What is no IP packet is skipped and counted."""
    cdef _Packets result = _Packets()
    cdef tunring_lease *lease = batch.enter("sent")
    if not lease:
        return result
    result.lease = lease
    result.owner = batch.lease
    result.make_room(lease.count)
    with nogil:
        result.count = tunring_lease_packets(lease, result.packets)
    if result.count < lease.count:
        tunring_session_count_skipped(session, lease.count - result.count)
    return result
