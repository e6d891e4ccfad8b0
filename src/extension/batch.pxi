# Packets in a ring: the lease that exports them, and batches and reservations over it. Included by _core.pyx.

@cython.final
@cython.no_gc
@cython.freelist(16)
cdef class Lease:
    """What memoryviews export from: slots of a ring, each held until its last view is gone."""
    cdef tunring_lease *slots  # set once, before anybody has a view; NULL if nothing was received

    def __dealloc__(self):
        if self.slots:
            tunring_lease_free(self.slots)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if exporting.exporter != <void *>self:
            if not self.slots:
                raise TypeError("Session.receive() and Session.reserve() make leases")
            raise BufferError("take a view of one packet instead: batch[i]")
        cdef Py_ssize_t index = exporting.index
        if not tunring_lease_hold(self.slots, <uint32_t>index):
            raise ValueError("the packet was released")
        cdef tunring_slot *slot = &self.slots.slots[index]
        PyBuffer_FillInfo(buffer, self, slot.data, slot.length, 0, flags)
        buffer.internal = <void *>index

    def __releasebuffer__(self, Py_buffer *buffer):
        tunring_lease_unhold(self.slots, <uint32_t><size_t>buffer.internal)

    cdef object view(self, Py_ssize_t index):
        """A new memoryview of one slot."""
        # Making it may collect garbage, and a finalizer take a view of another slot. Each thread has an `exporting`.
        cdef exported_slot outer = exporting
        exporting.exporter = <void *>self
        exporting.index = index
        try:
            return PyMemoryView_FromObject(self)
        finally:
            exporting.exporter = outer.exporter
            exporting.index = outer.index


@cython.final
@cython.no_gc
cdef class _Views:
    """The memoryviews that were handed out, so that they can be ended.

    The references are strong: a weak one costs more than the view. One that nobody else has any more is dropped soon,
    so that a loop over a batch goes through two views' memory again and again, which stays in the cache.
    """
    cdef object newest     # the last one: a loop's variable still has it when the next is asked for
    cdef object older      # the one before, which the loop has usually let go by then
    cdef list views        # those before them that somebody had then
    cdef Py_ssize_t limit  # length at which all those that nobody else has are dropped

    def __cinit__(self):
        self.views = []
        self.limit = 64

    cdef object add(self, object view):
        cdef object older = self.older
        if older is not None and not _only_ours(older, 2):
            self.keep(older)
        self.older = self.newest
        self.newest = view
        return view

    cdef int keep(self, object view) except -1:
        cdef list views = self.views
        views.append(view)
        if len(views) >= self.limit:
            self.views = [view for view in views if not _only_ours(view, 2)]
            self.limit = 2 * len(self.views) + 64
        return 0

    cdef end(self):
        """End every view. One that something derives from can't be: it holds its slot until that is gone."""
        cdef list fresh = []  # which may collect garbage, and a finalizer take a view: before we look
        cdef list views = self.views
        self.views = fresh
        if self.newest is not None:
            views.append(self.newest)
            self.newest = None
        if self.older is not None:
            views.append(self.older)
            self.older = None
        for view in views:
            if not _only_ours(view, 2):
                try:
                    view.release()
                except BufferError:
                    pass


cdef inline bint _only_ours(object view, Py_ssize_t ours) noexcept:
    """True if there are no references but ours."""
    return Py_REFCNT(<PyObject *>view) <= ours


@cython.final
@cython.no_gc
@cython.freelist(16)
cdef class _Words:
    """What a memoryview of numbers exports from: memory of its own, which never changes once it is exported."""
    cdef uint32_t *values    # NULL only in an object that _words() did not make
    cdef Py_ssize_t room     # of `values`
    cdef Py_ssize_t count    # of them: the memoryview's shape
    cdef Py_ssize_t stride   # bytes from one to the next

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
            buffer.format = "I"


cdef _Words _words(Py_ssize_t count):
    """Room for so many numbers, which the caller fills before anybody else has it."""
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

    A sequence of writable memoryviews, made when asked for: ``batch[i]`` and iteration copy nothing. Give the slots
    back with :meth:`release` or a ``with`` block as soon as you can, and copy what you keep: the ring regains room only
    up to the oldest packet that is still held. A Batch may be used and released after its session is closed.

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
    cdef bint live           # received, and not released yet
    cdef _Views views        # None before the first view
    cdef object _lengths     # None before it is asked for
    cdef object _offsets     # the same

    def __init__(self):
        raise TypeError("Session.receive() makes batches")

    def __reduce__(self):
        raise TypeError("a Batch can't be copied or pickled; tobytes() copies its packets")

    def __dealloc__(self):
        if self.live and self.lease.slots:
            tunring_lease_release(self.lease.slots)

    cdef int get(self, tunring_lease **lease) except -1:
        """The lease, or NULL for an empty batch; it stays as long as the batch."""
        if self.lease is None:
            raise TypeError("Session.receive() makes batches")
        lease[0] = self.lease.slots
        return 0

    cdef Py_ssize_t size(self) except -1:
        cdef tunring_lease *lease
        self.get(&lease)
        return lease.count if lease else 0

    cdef int check(self, str verb) except -1:
        if self.live:
            return 0
        if self.lease is None:
            raise TypeError("Session.receive() makes batches")
        raise ValueError(f"the batch was released and can't be {verb}")

    cdef tunring_lease *enter(self, str verb) except? NULL:
        """Begin a C operation: until tunring_lease_leave() a release waits. NULL for an empty batch."""
        self.check(verb)
        cdef tunring_lease *lease = self.lease.slots
        if lease and not tunring_lease_enter(lease):
            raise ValueError(f"the batch was released and can't be {verb}")
        return lease

    cdef object view(self, Py_ssize_t index):
        self.check("read")
        if self.views is None:
            views = _Views()
            if self.views is None:  # by another thread, or a finalizer
                self.views = views
        view = self.views.add(self.lease.view(index))
        if not self.live:  # a release meanwhile has ended the views that it found
            self.views.end()
        return view

    def __len__(self):
        return self.size()

    def __getitem__(self, index, /):
        self.check("read")
        cdef Py_ssize_t count = self.size()
        cdef Py_ssize_t i
        if isinstance(index, slice):
            return [self.view(i) for i in range(*index.indices(count))]
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
        return iterator

    def __enter__(self):
        self.check("entered")
        return self

    def __exit__(self, kind, value, traceback):
        self.end()

    def __repr__(self):
        state = "" if self.live else " released"
        return f"<tunring.Batch of {len(self)} packets, {self.nbytes} bytes{state}>"

    @property
    def released(self) -> bool:
        """True after :meth:`release`."""
        cdef tunring_lease *lease
        self.get(&lease)
        return not self.live

    @property
    def nbytes(self) -> int:
        """Bytes of all packets together."""
        cdef tunring_lease *lease
        self.get(&lease)
        return lease.bytes if lease else 0

    @property
    def lengths(self):
        """The packets' lengths in bytes: a read-only memoryview of format "I", with memory of its own."""
        cdef _Words words
        if self._lengths is None:
            words = _words(self.size())
            if words.count:
                tunring_lease_lengths(self.lease.slots, words.values)
            self._lengths = PyMemoryView_FromObject(words)
        return self._lengths

    @property
    def offsets(self):
        """Where each packet begins in what :meth:`pack_into` writes: a memoryview like :attr:`lengths`, from 0 on."""
        cdef _Words words
        if self._offsets is None:
            words = _words(self.size())
            if words.count:
                tunring_lease_offsets(self.lease.slots, words.values)
            self._offsets = PyMemoryView_FromObject(words)
        return self._offsets

    def tobytes(self) -> list:
        """The packets as a list of bytes objects: copies, to keep."""
        cdef tunring_lease *lease = self.enter("copied")
        cdef Py_ssize_t i
        if not lease:
            return []
        try:
            return [PyBytes_FromStringAndSize(<char *>lease.slots[i].data, lease.slots[i].length)
                    for i in range(lease.count)]
        finally:
            tunring_lease_leave(lease)

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
        With numpy, the headers of all packets in one go:

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
        cdef tunring_lease *lease = self.enter("packed")
        cdef BYTE *at
        if not lease:
            return 0
        try:
            PyObject_GetBuffer(buffer, &target, PyBUF_SIMPLE | PyBUF_WRITABLE)
            try:
                if <uint64_t>target.len < lease.bytes:
                    raise ValueError(f"the packets have {lease.bytes} bytes, the buffer only {target.len}")
                at = <BYTE *>target.buf
                with nogil:  # we are in an operation on the lease, and hold the buffer
                    tunring_lease_pack(lease, at)
                return lease.bytes
            finally:
                PyBuffer_Release(&target)
        finally:
            tunring_lease_leave(lease)

    def release(self) -> None:
        """Give the slots back to the ring and end the views that were handed out: they raise ValueError from here on.

        What derives from one (a slice of a memoryview, a numpy array) stays valid and holds its slot until it is gone.
        ``len``, ``lengths``, ``offsets``, ``nbytes`` and ``released`` answer after it, everything else raises
        ValueError. Any number of times, from any thread.
        """
        self.end()

    cdef int end(self) except -1:
        cdef tunring_lease *lease
        self.get(&lease)
        if not self.live:
            return 0
        self.live = False
        if self.views is not None:
            self.views.end()
        if lease:
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

    cdef Batch get(self):
        if self.batch is None:
            raise TypeError("iter(batch) makes these")
        return self.batch

    def __iter__(self):
        self.get()
        return self

    def __next__(self):
        cdef Batch batch = self.get()
        cdef Py_ssize_t index = self.index
        if index >= batch.size():
            raise StopIteration
        self.index = index + 1
        return batch.view(index)


cdef bint _is_about_an_ended_view(error):
    """Whether a ValueError is what using a released memoryview raises."""
    view = memoryview(b"")
    view.release()
    try:
        view.tobytes()
    except ValueError as same:
        return error.args == same.args
    return False


@cython.final
@cython.no_gc_clear  # its end needs the lease
cdef class Reservation:
    """Room in the send ring, to be filled in place. :meth:`Session.reserve` makes it; use it in a ``with`` block."""
    cdef Lease lease         # the slots; set once. It pins the session until they are sent or given up
    cdef _Views views        # None before the block is entered
    cdef _Session session    # where it is
    cdef uint64_t owner      # the thread's, as os_thread_number() gives it
    cdef bint unfinished     # neither sent nor given up
    cdef bint cut_off        # given up since the session was closed
    cdef object __weakref__

    def __init__(self):
        raise TypeError("Session.reserve() makes reservations")

    def __reduce__(self):
        raise TypeError("a Reservation can't be copied or pickled")

    def __dealloc__(self):
        if self.lease is not None:
            tunring_lease_release(self.lease.slots)

    cdef tunring_lease *get(self) except NULL:
        if self.lease is None:
            raise TypeError("Session.reserve() makes reservations")
        return self.lease.slots

    cdef object over(self, str action):
        """The exception for a call that comes after the end."""
        if self.cut_off:
            return self.session.failure(ERROR_HANDLE_EOF, action)
        return ValueError("the reservation is over")

    @property
    def thread(self) -> int:
        """Number of the thread that reserved: it can't send elsewhere on this session meanwhile."""
        self.get()
        return self.owner

    @property
    def open(self) -> bool:
        """True until the block is left."""
        self.get()
        return self.unfinished

    def __len__(self):
        return self.get().count

    def __enter__(self):
        cdef tunring_lease *lease = self.get()
        cdef Py_ssize_t i
        if not self.unfinished:
            raise self.over("can't enter the reservation")
        if self.views is not None:
            raise RuntimeError("the reservation was entered before")
        self.views = _Views()
        try:
            for i in range(lease.count):
                self.views.views.append(self.lease.view(i))
        except ValueError:  # it was given up meanwhile
            if self.unfinished:
                raise
        if not self.unfinished:
            self.views.end()
            raise self.over("can't enter the reservation")
        return list(self.views.views)

    def __exit__(self, kind, value, traceback):
        self.get()
        if kind is None:
            self.commit()
            return
        self.give_up()
        if self.cut_off and isinstance(value, ValueError) and _is_about_an_ended_view(value):
            raise self.over("can't fill the reservation") from value

    cdef int commit(self) except -1:
        cdef tunring_lease *lease = self.get()
        cdef DWORD code
        # To end views may run Python code, which may close the session: until tunring_lease_leave() the slots stay.
        if not self.unfinished or not tunring_lease_enter(lease):
            return self.settle()
        try:
            if self.views is not None:
                self.views.end()
            fault = self.fault()
        finally:
            tunring_lease_leave(lease)
        if not self.unfinished:
            return self.settle()
        if fault is not None:
            self.give_up()
            raise fault
        self.unfinished = False
        with nogil:  # the caller's reference to `self` holds the lease
            code = tunring_lease_commit(lease)
        self.session.forget(self)
        if code == ERROR_BUSY:
            raise _held_reservation()
        if code != ERROR_SUCCESS:
            raise self.session.failure(code, "can't send the reservation")
        return 0

    cdef int settle(self) except -1:
        """The block has ended, and the reservation before it: that is fine if the program gave it up itself."""
        if self.cut_off:
            raise self.over("can't send the reservation")
        return 0

    cdef object fault(self):
        """The exception that says why it can't be sent, or None."""
        cdef tunring_lease *lease = self.lease.slots
        cdef Py_ssize_t i
        if tunring_lease_held(lease):
            return _held_reservation()
        for i in range(lease.count):
            if not _sendable(lease.slots[i].data, lease.slots[i].length):
                why = _packet_fault(lease.slots[i].data, lease.slots[i].length)
                return ValueError(f"reserved packet {i} {why}: nothing was sent")
        return None

    def abandon(self):
        """Give the room up: each slot goes out as filler, which the host drops, once nothing is exported from it.

        Leaving the block then sends nothing.
        """
        self.get()
        self.give_up()

    cdef int cut(self) except -1:
        """The same, since the session is closed."""
        if self.unfinished:
            self.cut_off = True
            self.give_up()
        return 0

    cdef int give_up(self) except -1:
        cdef tunring_lease *lease = self.lease.slots
        if not self.unfinished:
            return 0
        self.unfinished = False
        try:
            if self.views is not None:
                self.views.end()
        finally:
            with nogil:  # the caller's reference to `self` holds the lease
                tunring_lease_release(lease)
            self.session.forget(self)
        return 0


cdef object _held_reservation():
    return BufferError("something made from a reserved view is still alive: nothing was sent")
