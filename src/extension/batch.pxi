# Batches: received packets that lie in a ring, over a lease. Included by _core.pyx.

# Releasing this many packets waits for nothing, and takes less time than giving up and taking the GIL.
cdef enum:
    SMALL_BATCH = 64


@cython.final
@cython.no_gc
@cython.freelist(16)
cdef class _Words:
    """The exporter of a memoryview of numbers: memory of its own, which never changes once it is exported."""
    cdef uint32_t *values    # NULL only in an object that _words() did not make
    cdef Py_ssize_t room     # of `values`
    cdef Py_ssize_t count    # of them: the memoryview's shape
    cdef Py_ssize_t stride   # bytes from one to the next
    cdef bint signed         # they are int32 rather than uint32

    def __dealloc__(self):
        _give_table(&_spare_words, self.values, self.room)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if not self.values:
            raise TypeError("Batch.lengths and Batch.offsets make these")
        PyBuffer_FillInfo(buffer, self, self.values, self.count * self.stride, 1, flags)
        if flags & PyBUF_ND == PyBUF_ND:
            buffer.itemsize = self.stride
            buffer.shape = &self.count
        if flags & PyBUF_STRIDES == PyBUF_STRIDES:
            buffer.strides = &self.stride
        if flags & PyBUF_FORMAT == PyBUF_FORMAT:
            buffer.format = "i" if self.signed else "I"


cdef _Words _words(Py_ssize_t count):
    """Room for `count` numbers, which the caller fills before anybody else has it."""
    cdef _Words words = _Words.__new__(_Words)
    words.room = count
    words.values = <uint32_t *>_take_table(&_spare_words, &words.room, sizeof(uint32_t))
    words.count = count
    words.stride = sizeof(uint32_t)
    return words


@cython.final
@cython.no_gc
@cython.freelist(16)
cdef class Batch:
    """Received packets, in ring memory.

    A sequence of writable memoryviews, made on demand: ``batch[i]`` and iteration copy nothing. Return the slots with
    :meth:`release` or a ``with`` block as soon as you can, and copy what you keep: the ring regains room only up to the
    oldest packet that is still held. A Batch may be used and released after its session is closed.

    Examples
    --------
    >>> import tunring.testing
    >>> left, right = tunring.testing.pair()
    >>> left.send([bytes([0x45]) + bytes(19)] * 2)
    2
    >>> with right.receive() as batch:
    ...     len(batch), batch.nbytes, list(batch.lengths), batch[0][0] >> 4
    (2, 40, [20, 20], 4)
    >>> left.close(); right.close()
    """
    cdef Lease lease         # set once, when it is received; without slots for an empty batch
    cdef shared_flag live    # received, and not released yet
    cdef Batch whole         # the batch that it is a part of, or None
    cdef bint from_socket    # its packets have sources, even where there are none
    cdef _Views views        # with the same lease; None before the first view of what was sealed, and in a part
    cdef object _lengths     # None before it is asked for
    cdef object _offsets     # the same

    def __init__(self):
        raise TypeError("Session.receive() makes batches")

    def __reduce__(self):
        raise TypeError("a Batch can't be copied or pickled; tobytes() copies its packets")

    def __dealloc__(self):
        if self.whole is not None or self.lease is None:
            return
        if flag_is_set(&self.live) and self.lease.slots:
            tunring_lease_release(self.lease.slots)
        if self.views is not None:
            self.views.keep_for_next()

    cdef int get(self, tunring_lease **lease) except -1:
        """The lease, or NULL for an empty batch; it stays as long as the batch."""
        if self.lease is None:
            raise TypeError("Session.receive() makes batches")
        lease[0] = self.lease.slots
        return 0

    cdef Py_ssize_t size(self) except -1:
        cdef tunring_lease *lease
        self.get(&lease)
        return self.lease.count() if lease else 0

    cdef int check(self, str verb) except -1:
        if flag_is_set(&self.live) and (self.whole is None or flag_is_set(&self.whole.live)):
            return 0
        if self.lease is None:
            raise TypeError("Session.receive() makes batches")
        raise ValueError(f"the batch was released and can't be {verb}")

    cdef bint enter(self, str verb) except -1:
        """Begin a C operation that reads the packets: until leave() a release waits. False for an empty batch."""
        cdef uint32_t index = 0
        cdef DWORD code
        self.check(verb)
        if not self.lease.slots:
            return False
        code = tunring_lease_enter(self.lease.slots, self.lease.part, &index)
        if code == ERROR_BUSY:
            raise ValueError(f"packet {index} was opened through another batch and can't be {verb}")
        if code == ERROR_NOT_ENOUGH_MEMORY:
            raise MemoryError("too many operations on the batch are in progress")
        if code != ERROR_SUCCESS:
            raise ValueError(f"the batch was released and can't be {verb}")
        return True

    cdef bint sealed(self) noexcept:
        """True for datagrams that a Sealer made, but not for what was opened of them in place."""
        return self.lease.slots and self.lease.slots.sealed and not (self.lease.part and self.lease.part.level)

    cdef void leave(self) noexcept:
        tunring_lease_leave(self.lease.slots, self.lease.part)

    cdef object view(self, Py_ssize_t index):
        cdef Batch whole = self if self.whole is None else self.whole
        self.check("read")
        cdef _Views views = whole.present_views()
        if views is None:
            views = whole.make_views()
        view = views.take(self.lease, index)
        if not flag_is_set(&whole.live):  # a release meanwhile has ended the views that it found
            views.end()
        return view

    cdef inline _Views present_views(self):
        with cython.critical_section(self):  # another thread may be making them
            return self.views

    cdef _Views make_views(self):
        cdef _Views views = _Views.__new__(_Views)
        views.lease = self.lease
        with cython.critical_section(self):  # other threads may make them too: the first ones stay
            if self.views is None:
                self.views = views
            return self.views

    def __len__(self):
        return self.size()

    def __getitem__(self, index, /):
        self.check("read")
        cdef Py_ssize_t count = self.size()
        cdef Py_ssize_t i
        if isinstance(index, slice):
            return _slice_of(self, index)
        try:
            i = operator.index(index)
        except OverflowError:
            i = count
        if i < 0:
            i += count
        if not 0 <= i < count:
            raise IndexError(f"packet {index} of a batch of {count}")
        return self.view(i)

    def __iter__(self):
        self.check("read")
        cdef BatchIterator iterator = BatchIterator.__new__(BatchIterator)
        iterator.batch = self
        iterator.count = self.size()
        return iterator

    def __enter__(self):
        self.check("entered")
        return self

    def __exit__(self, kind, value, traceback):
        self.end()

    def __repr__(self):
        state = "" if flag_is_set(&self.live) else " released"
        return f"<tunring.Batch of {len(self)} packets, {self.nbytes} bytes{state}>"

    @property
    def released(self) -> bool:
        """True after :meth:`release`."""
        cdef tunring_lease *lease
        self.get(&lease)
        return not flag_is_set(&self.live)

    @property
    def nbytes(self) -> int:
        """Bytes of all packets together."""
        cdef tunring_lease *lease
        self.get(&lease)
        return self.lease.nbytes() if lease else 0

    @property
    def lengths(self):
        """The packets' lengths in bytes: a read-only memoryview of format "I", with memory of its own."""
        cdef _Words words
        with cython.critical_section(self):  # another thread may be setting it
            if self._lengths is None:
                words = _words(self.size())
                if words.count:
                    tunring_slots_lengths(self.lease.table(), words.count, words.values)
                self._lengths = PyMemoryView_FromObject(words)
            return self._lengths

    @property
    def offsets(self):
        """Where each packet begins in what :meth:`pack_into` writes: a memoryview like :attr:`lengths`, from 0 on.

        Raises
        ------
        OverflowError
            The packets have 4 GiB or more, as only sealed ones can.
        """
        cdef _Words words
        with cython.critical_section(self):  # as above
            if self._offsets is None:
                words = _words(self.size())
                if words.count and not tunring_slots_offsets(self.lease.table(), words.count, words.values):
                    raise OverflowError(f"offsets have 32 bits, and the packets {self.lease.nbytes()} bytes")
                self._offsets = PyMemoryView_FromObject(words)
            return self._offsets

    def tobytes(self) -> list:
        """The packets as a list of bytes objects: copies, to keep."""
        cdef const tunring_slot *slots
        cdef Py_ssize_t i
        if not self.enter("copied"):
            return []
        slots = self.lease.table()
        try:
            return [PyBytes_FromStringAndSize(<char *>slots[i].data, slots[i].length) for i in range(self.size())]
        finally:
            self.leave()

    def pack_into(self, buffer) -> int:
        """Copy all packets, back to back, into a writable contiguous buffer.

        Returns
        -------
        int
            Bytes written: ``nbytes``.

        Raises
        ------
        ValueError
            The buffer is too small; nothing was written.

        Examples
        --------
        With numpy, the headers of all packets at once:

        >>> import numpy, tunring.testing
        >>> left, right = tunring.testing.pair()
        >>> left.send([bytes([0x45]) + bytes(8) + bytes([protocol]) + bytes(10) for protocol in (1, 6, 17)])
        3
        >>> with right.receive() as batch:
        ...     data = numpy.empty(batch.nbytes, numpy.uint8)
        ...     batch.pack_into(data)
        ...     headers = data[numpy.asarray(batch.offsets)[:, None] + numpy.arange(20)]
        60
        >>> headers.shape, headers[:, 9].tolist()
        ((3, 20), [1, 6, 17])
        >>> left.close(); right.close()
        """
        cdef Py_buffer target
        cdef const tunring_slot *slots
        cdef uint32_t count
        cdef BYTE *at
        if not self.enter("packed"):
            return 0
        slots = self.lease.table()
        count = self.lease.count()
        try:
            PyObject_GetBuffer(buffer, &target, PyBUF_SIMPLE | PyBUF_WRITABLE)
            try:
                if <uint64_t>target.len < self.lease.nbytes():
                    raise ValueError(f"the packets have {self.nbytes} bytes, the buffer only {target.len}")
                at = <BYTE *>target.buf
                with nogil:  # the operation holds the slots, `self` their table, and `target` the buffer
                    tunring_slots_pack(slots, count, at)
                return self.lease.nbytes()
            finally:
                PyBuffer_Release(&target)
        finally:
            self.leave()

    def release(self) -> None:
        """Return the slots to the ring and end the views of them, which raise ValueError from then on.

        An object derived from a view (a slice of it, a numpy array) stays valid and holds its slot until it is gone.
        ``len``, ``lengths``, ``offsets``, ``nbytes`` and ``released`` still work afterwards; everything else raises
        ValueError. Idempotent. May be called from any thread. Releasing a part of a batch only makes the part unusable:
        its slots and views end with the whole batch.
        """
        self.end()

    # -- Parts

    def select(self, packets) -> Batch:
        """A part of the batch, without an object per packet.

        Parameters
        ----------
        packets : buffer of integers or bools, or sequence of them
            The packets' indices, in the part's order, or a mask: one bool per packet.

        Returns
        -------
        Batch
            It holds nothing: its packets stay as long as those of this batch, which it keeps alive.

        Raises
        ------
        IndexError, ValueError
            An index is out of range, or a mask has another length than the batch.

        Examples
        --------
        >>> import tunring.testing
        >>> left, right = tunring.testing.pair()
        >>> left.send([bytes([0x45]) + bytes(19), bytes([0x45]) + bytes(39)])
        2
        >>> with right.receive() as batch:
        ...     right.send(batch.select([length > 20 for length in batch.lengths]))
        1
        >>> left.close(); right.close()
        """
        return _selection_of(self, packets)

    def split(self, keys) -> list:
        """Parts by equal keys.

        Parameters
        ----------
        keys : buffer of integers, or sequence of hashable objects
            One per packet. A two-dimensional buffer of bytes has one row per packet, whose key is a bytes object.

        Returns
        -------
        list of (key, Batch)
            In order of each key's first appearance; each part keeps its packets' order.

        Examples
        --------
        >>> import tunring.testing
        >>> left, right = tunring.testing.pair()
        >>> left.send([bytes([0x45]) + bytes(19), bytes([0x45]) + bytes(39), bytes([0x45]) + bytes(19)])
        3
        >>> with right.receive() as batch:
        ...     [(length, len(part)) for length, part in batch.split(batch.lengths)]
        [(20, 2), (40, 1)]
        >>> left.close(); right.close()
        """
        return _split(self, keys)

    def headers(self, size):
        """The first bytes of every packet, copied.

        Parameters
        ----------
        size : int
            Bytes per packet: 1 to 65535. Shorter packets are followed by zeros.

        Returns
        -------
        memoryview
            Of shape ``(len(batch), size)`` and format "B", with memory of its own.
        """
        return _headers(self, size)

    @property
    def sources(self) -> list:
        """The distinct endpoints that the packets came from, in order of appearance. Only for a socket's batch."""
        return list(_sources(self)[0])

    @property
    def source_index(self):
        """Each packet's index in :attr:`sources`: a read-only memoryview of format "I". Only for a socket's batch."""
        return _sources(self)[1]

    @property
    def ecn(self):
        """Each packet's ECN bits, 0 to 3: a read-only memoryview of format "B". Only for a socket's batch."""
        return _ecn(self)

    def runs(self) -> list:
        """Parts of packets in a row that came from one endpoint, in order of arrival. Only for a socket's batch.

        Returns
        -------
        list of (Endpoint, Batch)
        """
        return _runs(self)

    cdef int end(self) except -1:
        cdef tunring_lease *lease
        self.get(&lease)
        if not flag_clear(&self.live):  # of several threads, one goes on
            return 0
        if self.whole is not None:
            return 0
        cdef _Views views = self.present_views()
        if views is not None:
            views.end()
        if not lease:
            return 0
        if lease.count <= SMALL_BATCH:
            tunring_lease_release(lease)
        else:
            with nogil:  # the caller's reference to `self` holds the lease
                tunring_lease_release(lease)
        return 0


@cython.final
@cython.no_gc
@cython.freelist(16)
cdef class BatchIterator:
    """Iterates over a batch's packets."""
    cdef Batch batch         # what it iterates over
    cdef Py_ssize_t index    # the next packet
    cdef Py_ssize_t count    # of all

    cdef int check(self) except -1:
        if self.batch is None:
            raise TypeError("iter(batch) makes these")
        return 0

    def __iter__(self):
        self.check()
        return self

    def __next__(self):
        cdef Py_ssize_t index
        with cython.critical_section(self):  # each packet goes to one of the threads that iterate
            index = self.index
            if index < self.count:
                self.index = index + 1
        if index >= self.count:
            self.check()
            raise StopIteration
        return self.batch.view(index)
