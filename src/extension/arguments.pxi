# Arguments: deadlines, lists of packets and lists of sizes, checked before anything is changed. Included by _core.pyx.

cdef object _integer(value, str what, minimum, maximum):
    """An integer argument within its limits. index() returns an exact int, whose comparisons no user wrote."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{what} must be an integer, not {value!r}") from None
    if not minimum <= number <= maximum:
        raise ValueError(f"{what} must be {minimum} to {maximum}, not {number}")
    return number


cdef double _seconds(timeout) except? -1:
    """``timeout`` as seconds, infinity for no limit."""
    cdef double seconds
    if timeout is None:
        return math.inf
    try:
        seconds = timeout
    except (TypeError, ValueError):
        raise TypeError(f"timeout must be seconds or None, not {timeout!r}") from None
    except OverflowError:
        seconds = math.inf if timeout > 0 else -math.inf
    if not seconds >= 0:  # nor is NaN
        raise ValueError(f"timeout must be 0 or more seconds, or None for no limit, not {timeout!r}")
    # int64 nanoseconds reach 292 years ahead.
    return math.inf if seconds > 9e9 else seconds


cdef int64_t _deadline(timeout) except? -1:
    """The clock's nanoseconds at which ``timeout`` seconds are over; 0 polls."""
    cdef double seconds
    if timeout is None:
        return TUNRING_FOREVER
    seconds = _seconds(timeout)
    if seconds == 0:
        return 0
    return TUNRING_FOREVER if seconds > 9e9 else os_deadline(<int64_t>(seconds * 1e9) + 1)


cpdef object check_timeout(timeout):
    """``timeout`` as seconds, or None for no limit."""
    cdef double seconds = _seconds(timeout)
    return None if seconds > 9e9 else seconds


cdef inline bint _sendable(const unsigned char *data, Py_ssize_t size) noexcept:
    """True for what a host accepts."""
    return size <= WINTUN_MAX_IP_PACKET_SIZE and tunring_packet_is_ip(data, <uint32_t>size)


cdef str _packet_fault(const unsigned char *data, Py_ssize_t size, Py_ssize_t limit=0):
    """Why a host would not accept this packet; with a limit, what is too large, whatever it is."""
    if size > (limit or WINTUN_MAX_IP_PACKET_SIZE):
        return f"has {size} bytes; at most {limit or WINTUN_MAX_IP_PACKET_SIZE} are allowed"
    version = data[0] >> 4 if size else None
    return (f"is not an IP packet: it has {size} bytes and version {version}; "
            "IPv4 takes at least 20 bytes and IPv6 at least 40")


cdef void *_allocate(Py_ssize_t count, size_t entry) except NULL:
    """Memory for `count` entries of that size, however large a product that is. PyMem_Free() frees it."""
    cdef void *memory = NULL
    if 0 <= count <= PY_SSIZE_T_MAX // <Py_ssize_t>entry:
        memory = PyMem_Malloc(count * entry)  # not NULL for 0 entries
    if not memory:
        raise MemoryError()
    return memory


cdef bint _get_integers(items, Py_buffer *buffer, bint bools) except -1:
    """Acquire a buffer of machine integers in one dimension, or perhaps of bools; false if it has something else."""
    cdef char kind = 0
    try:
        PyObject_GetBuffer(items, buffer, PyBUF_FORMAT | PyBUF_STRIDES)
    except (BufferError, ValueError):  # not in one piece of memory, or not at all
        return False
    if not buffer.format:
        kind = b"B"
    elif not buffer.format[1]:
        kind = buffer.format[0]
    if buffer.ndim == 1 and buffer.itemsize in (1, 2, 4, 8) and (kind in b"bBhHiIlLqQ" or bools and kind == b"?"):
        return True
    PyBuffer_Release(buffer)
    return False


cdef inline bint _is_signed(const Py_buffer *buffer) noexcept:
    return buffer.format and buffer.format[0] in b"bhilq"


cdef inline int64_t _machine_integer(const Py_buffer *buffer, Py_ssize_t i, bint signed) noexcept:
    cdef const char *at = <const char *>buffer.buf + i * buffer.strides[0]
    cdef uint8_t one
    cdef uint16_t two
    cdef uint32_t four
    cdef int64_t eight
    # Both sides of one type: else the narrow one is made like the unsigned one.
    if buffer.itemsize == 1:
        memcpy(&one, at, 1)
        return <int64_t><int8_t>one if signed else <int64_t>one
    if buffer.itemsize == 2:
        memcpy(&two, at, 2)
        return <int64_t><int16_t>two if signed else <int64_t>two
    if buffer.itemsize == 4:
        memcpy(&four, at, 4)
        return <int64_t><int32_t>four if signed else <int64_t>four
    memcpy(&eight, at, 8)
    return eight


# Sizes that need no memory of their own.
cdef enum:
    FEW_SIZES = 16


@cython.final
@cython.no_gc
@cython.freelist(8)
cdef class _Sizes:
    """Packet sizes from an integer buffer or a sequence, checked to be 0 to 65535. _sizes() makes it."""
    cdef uint32_t *values           # `count` of them: `few`, or memory of ours
    cdef Py_ssize_t count           # packets
    cdef uint64_t total             # their sum, in bytes
    cdef uint32_t[FEW_SIZES] few

    cdef int read(self, sizes, str what) except -1:
        cdef Py_ssize_t i
        if not self.copy_ints(sizes):
            if isinstance(sizes, (str, bytes, bytearray)):
                raise TypeError(f"{what} must be a sequence of integers, one per packet, not {type(sizes).__name__}")
            if not PyObject_CheckBuffer(sizes):
                self.convert(self.iterated(sizes, what), what)
            elif not self.copy(sizes, what):
                self.convert(self.listed(sizes, what), what)
        for i in range(self.count):
            if self.values[i] > WINTUN_MAX_IP_PACKET_SIZE:
                raise ValueError(f"{what}[{i}] must be 0 to {WINTUN_MAX_IP_PACKET_SIZE}, not {self.values[i]}")
            self.total += self.values[i]
        return 0

    cdef int make_room(self, Py_ssize_t count) except -1:
        self.free()
        self.values = &self.few[0] if count <= FEW_SIZES else <uint32_t *>_allocate(count, sizeof(uint32_t))
        self.count = count
        return 0

    cdef void free(self) noexcept:
        if self.values != &self.few[0]:
            PyMem_Free(self.values)
        self.values = NULL

    cdef bint copy_ints(self, sizes) except -1:
        """From a list or tuple of ints that fit, which runs no Python code; false if it is something else."""
        cdef long long size
        cdef Py_ssize_t i
        if type(sizes) is not list and type(sizes) is not tuple:
            return False
        if WITHOUT_GIL:
            sizes = tuple(sizes)  # another thread may change a list at any time
        self.make_room(len(sizes))
        for i in range(self.count):
            if not exact_int(sequence_item(sizes, i), &size) or not 0 <= size <= WINTUN_MAX_IP_PACKET_SIZE:
                return False
            self.values[i] = <uint32_t>size
        return True

    cdef bint copy(self, sizes, str what) except -1:
        """From a buffer of machine integers; false if it has something else."""
        cdef Py_buffer buffer
        if not _get_integers(sizes, &buffer, False):
            return False
        try:
            self.make_room(buffer.shape[0])
            if buffer.itemsize == sizeof(uint32_t) == buffer.strides[0] and not _is_signed(&buffer):
                memcpy(self.values, buffer.buf, self.count * sizeof(uint32_t))  # as Batch.lengths has them
            else:
                self.narrow(&buffer, what)
            return True
        finally:
            PyBuffer_Release(&buffer)

    cdef int narrow(self, const Py_buffer *buffer, str what) except -1:
        cdef Py_ssize_t i
        cdef int64_t size
        cdef object given
        cdef bint signed = _is_signed(buffer)
        for i in range(self.count):
            size = _machine_integer(buffer, i, signed)
            if not 0 <= size <= WINTUN_MAX_IP_PACKET_SIZE:
                given = size if signed else <object><uint64_t>size
                raise ValueError(f"{what}[{i}] must be 0 to {WINTUN_MAX_IP_PACKET_SIZE}, not {given}")
            self.values[i] = <uint32_t>size
        return 0

    cdef list iterated(self, sizes, str what):
        """The items of an iterable. A single number is a common mistake, for which Python's own message has no name."""
        try:
            iterator = iter(sizes)
        except TypeError as error:
            raise TypeError(f"{what} must be a sequence of integers, one per packet, not {sizes!r}") from error
        return list(iterator)

    cdef list listed(self, sizes, str what):
        """The items of any other buffer."""
        view = memoryview(sizes)
        if view.ndim != 1:
            raise ValueError(f"{what} must have one dimension, not {view.ndim}")
        try:
            return view.tolist()
        except NotImplementedError:
            return list(sizes)  # a format that only its owner reads, say of the other byte order

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
        self.free()


cdef _Sizes _sizes(sizes, str what):
    cdef _Sizes result = _Sizes.__new__(_Sizes)
    result.read(sizes, what)
    return result


# A table that was freed, for the next call that needs one like it: it stays in the cache. The GIL guards it; without
# one, each thread's own memory allocator does as well.
cdef struct _Spare:
    void *table
    Py_ssize_t room  # of entries

cdef _Spare _spare_packets
cdef _Spare _spare_words


cdef void *_take_table(_Spare *spare, Py_ssize_t *room, size_t entry) except NULL:
    """A table with room for `count` entries of that size; ``room`` becomes what it has."""
    cdef void *table
    if not WITHOUT_GIL and 0 < room[0] <= spare.room:
        table, room[0] = spare.table, spare.room
        spare.table, spare.room = NULL, 0
        return table
    cdef Py_ssize_t wanted = room[0]
    room[0] = 0
    table = _allocate(wanted, entry)
    room[0] = wanted
    return table


cdef void _give_table(_Spare *spare, void *table, Py_ssize_t room) noexcept:
    """Free a table, or keep it instead of a smaller one."""
    if not WITHOUT_GIL and spare.room < room <= 4096:
        table, spare.table = spare.table, table
        spare.room = room
    PyMem_Free(table)


@cython.final
@cython.no_gc
cdef class _Packets:
    """Packets to send, checked, with what keeps their memory in place."""
    cdef tunring_packet *packets  # `count` of them, ours
    cdef PyObject **objects       # references to `kept` bytes objects that packets are in; behind `packets`
    cdef Py_ssize_t room          # of `packets`, and of `objects`
    cdef uint32_t count           # packets
    cdef uint32_t sent            # how many of them went out
    cdef bint fill                # they go out with checksums
    cdef Py_ssize_t kept
    cdef Py_ssize_t limit         # bytes that anything may have; 0: they must be IP packets
    cdef Py_buffer *buffers       # `held` acquired buffers of other objects, ours, or NULL
    cdef Py_ssize_t held          # how many of them to release
    cdef Batch batch              # a batch we are in an operation on, or None

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self.kept):
            Py_DECREF(self.objects[i])
        for i in range(self.held):
            PyBuffer_Release(&self.buffers[i])
        if self.batch is not None:
            self.batch.leave()
        PyMem_Free(self.buffers)
        _give_table(&_spare_packets, self.packets, self.room)

    cdef inline bint takes(self, const unsigned char *data, Py_ssize_t size) noexcept:
        return size <= self.limit if self.limit else _sendable(data, size)

    cdef int make_room(self, Py_ssize_t packets) except -1:
        if packets > 0x7FFFFFFF:
            raise ValueError(f"too many packets: {packets}")
        self.room = packets
        self.packets = <tunring_packet *>_take_table(&_spare_packets, &self.room,
                                                     sizeof(tunring_packet) + sizeof(PyObject *))
        self.objects = <PyObject **>(self.packets + self.room)
        return 0

    cdef void keep_bytes(self, sequence, Py_ssize_t count) noexcept:
        """Add the bytes objects that a list or tuple of ``count`` items begins with. This runs no Python code."""
        cdef tunring_packet *packets = self.packets
        cdef PyObject **objects = self.objects
        cdef PyObject *item
        cdef const unsigned char *data
        cdef Py_ssize_t size, i = 0
        while i < count:
            item = sequence_item(sequence, i)
            if not exact_bytes(item, &data, &size) or not self.takes(data, size):
                break
            Py_INCREF(item)
            objects[i] = item
            packets[i].data = <const BYTE *>data
            packets[i].length = <uint32_t>size
            i += 1
        self.kept = i
        self.count = <uint32_t>i

    cdef Py_buffer *hold(self, object item, Py_ssize_t maximum) except NULL:
        """Acquire one more buffer, up to the given maximum."""
        if not self.buffers:
            self.buffers = <Py_buffer *>_allocate(maximum, sizeof(Py_buffer))
        cdef Py_buffer *buffer = &self.buffers[self.held]
        PyObject_GetBuffer(item, buffer, PyBUF_SIMPLE)
        self.held += 1
        return buffer


cdef _Packets _packets_from_items(packets, str verb="send", Py_ssize_t limit=0):
    """From an iterable of bytes-like objects: all held and checked, or an exception that names the index.

    With a limit in bytes they may be anything, else they must be IP packets.
    """
    if isinstance(packets, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"{verb} takes an iterable of packets, not one {type(packets).__name__}; "
                        f"for a single packet: {verb}([packet])")
    cdef object items = packets
    # Another thread may change a list at any time, but for a GIL.
    if not (type(packets) is list and not WITHOUT_GIL or type(packets) is tuple):
        items = tuple(packets)
    cdef _Packets result = _Packets()
    cdef Py_ssize_t i, count = len(items)
    cdef Py_buffer *buffer
    cdef const unsigned char *data
    result.limit = limit
    result.make_room(count)
    result.keep_bytes(items, count)
    if result.count == count:
        return result
    # A copy that nobody can change: buffers may run Python code, and other threads may change the list meanwhile.
    items = tuple(items)
    for i in range(result.count, count):
        try:
            buffer = result.hold(items[i], count - i)
        except TypeError as error:
            raise TypeError(f"packet {i}: {error}") from None
        except (BufferError, ValueError) as error:
            raise ValueError(f"packet {i} must be one contiguous, live buffer: {error}") from None
        data = <const unsigned char *>buffer.buf
        if not result.takes(data, buffer.len):
            raise ValueError(f"packet {i} {_packet_fault(data, buffer.len, limit)}")
        result.packets[i].data = <const BYTE *>data
        result.packets[i].length = <uint32_t>buffer.len
    result.count = <uint32_t>count
    return result


cdef _Packets _packets_from_packed(buffer, lengths, Py_ssize_t limit=0):
    """From one buffer of packets back to back; limit is that of _packets_from_items()."""
    cdef _Sizes sizes = _sizes(lengths, "lengths")
    cdef _Packets result = _Packets()
    cdef Py_ssize_t i
    cdef Py_buffer *held = result.hold(buffer, 1)
    if sizes.total != <uint64_t>held.len:
        raise ValueError(f"the lengths add up to {sizes.total} bytes, the buffer has {held.len}")
    result.limit = limit
    result.make_room(sizes.count)
    cdef const unsigned char *at = <const unsigned char *>held.buf
    for i in range(sizes.count):
        if not result.takes(at, sizes.values[i]):
            raise ValueError(f"packet {i} {_packet_fault(at, sizes.values[i], limit)}")
        result.packets[i].data = <const BYTE *>at
        result.packets[i].length = sizes.values[i]
        at += sizes.values[i]
    result.count = <uint32_t>sizes.count
    return result


cdef _Packets _packets_from_batch(Batch batch, tunring_session *session):
    """From a batch, which can't be let go meanwhile. Packets that are not IP are skipped and counted."""
    cdef _Packets result = _held_batch(batch, "sent", True)
    if batch.sealed():
        raise TypeError("the batch holds sealed datagrams, which a session does not take: send them by a socket")
    if result.count < batch.size():
        tunring_session_count_skipped(session, batch.size() - result.count)
    return result


cdef _Packets _held_batch(Batch batch, str verb, bint only_ip):
    """A batch's packets, which can't be let go meanwhile: all of them, or those that are IP."""
    cdef _Packets result = _Packets()
    cdef const tunring_slot *slots
    cdef uint32_t count
    if not batch.enter(verb):
        return result
    result.batch = batch
    count = batch.lease.count()
    slots = batch.lease.table()
    result.make_room(count)
    with nogil:  # the operation holds the slots, and `batch` their table
        result.count = tunring_slots_packets(slots, count, only_ip, result.packets)
    return result
