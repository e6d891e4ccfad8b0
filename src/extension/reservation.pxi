# Room in the send ring: reservations over a lease. Included by _core.pyx.

cdef bint _is_about_an_ended_view(error):
    """True for the ValueError that using a released memoryview raises."""
    view = memoryview(b"")
    view.release()
    try:
        view.tobytes()
    except ValueError as same:
        return error.args == same.args
    return False


@cython.final
@cython.no_gc_clear  # its end needs the lease and the session
@cython.freelist(16)
cdef class Slots:
    """Room in the send ring, to be filled in place: a sequence of writable memoryviews.

    :meth:`Session.reserve` makes it, for a ``with`` block. Leaving the block checks and sends the packets, in order; an
    exception abandons them. The views end with the block: ``slots[i]``, iteration and slices make them on demand.

    Examples
    --------
    >>> import tunring.testing
    >>> left, right = tunring.testing.pair()
    >>> with left.reserve([1400] * 3) as slots:
    ...     for slot in slots:
    ...         slot[:20] = bytes([0x45, 0, 0, 20]) + bytes(16)
    ...     slots.shrink(0, 20)
    ...     slots.drop(1)
    >>> with right.receive(timeout=1) as batch:
    ...     list(batch.lengths)
    [20, 1400]
    >>> left.close(); right.close()
    """
    cdef Lease lease         # the slots; set once. It pins the session until they are sent or given up
    cdef _Views views        # with the same lease; set with it
    cdef _Session session    # where it is
    cdef void *newer         # its neighbours in the session's list of open reservations, while `unfinished`
    cdef void *older
    cdef uint64_t owner      # the thread's, as os_thread_number() gives it
    cdef bint entered        # the block has begun
    cdef bint unfinished     # neither sent nor given up
    cdef bint cut_off        # given up since the session was closed
    cdef object __weakref__

    def __init__(self):
        raise TypeError("Session.reserve() makes reservations")

    def __reduce__(self):
        raise TypeError("a reservation can't be copied or pickled")

    def __dealloc__(self):
        if self.lease is None:
            return
        if self.unfinished:
            self.finish()
            tunring_lease_release(self.lease.slots)
        self.views.keep_for_next()

    cdef tunring_lease *get(self) except NULL:
        if self.lease is None:
            raise TypeError("Session.reserve() makes reservations")
        return self.lease.slots

    cdef object over(self, str action):
        """The exception for a call that comes after the end."""
        if self.cut_off:
            return self.session.failure(ERROR_HANDLE_EOF, action)
        return ValueError("the reservation is over")

    # -- The session's list: the GIL guards it

    cdef void begin(self, _Session session) noexcept:
        """Enter the list of the open ones, at its front."""
        self.session = session
        self.owner = os_thread_number()
        self.unfinished = True
        self.older = session.reservations
        if self.older:
            (<Slots>self.older).newer = <void *>self
        session.reservations = <void *>self

    cdef void finish(self) noexcept:
        """Leave it: what follows sends the slots or gives them up."""
        if not self.unfinished:
            return
        self.unfinished = False
        if self.newer:
            (<Slots>self.newer).older = self.older
        else:
            self.session.reservations = self.older
        if self.older:
            (<Slots>self.older).newer = self.newer

    # -- The block

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

    # Without the binding, which costs more than these two calls.

    @cython.binding(False)
    def __enter__(self):
        self.get()
        if not self.unfinished:
            raise self.over("can't enter the reservation")
        if self.entered:
            raise RuntimeError("the reservation was entered before")
        self.entered = True
        return self

    @cython.binding(False)
    def __exit__(self, kind, value, traceback):
        self.get()
        if kind is None:
            self.commit()
            return
        self.give_up()
        if self.cut_off and isinstance(value, ValueError) and _is_about_an_ended_view(value):
            raise self.over("can't fill the reservation") from value

    cdef int commit(self) except -1:
        cdef tunring_lease *lease = self.lease.slots
        cdef DWORD code
        if self.unfinished:
            self.views.end()  # which may run Python code, and that close the session
        if not self.unfinished:
            return self.settle()
        # Whoever gives the slots up finishes first, and needs the GIL for that.
        fault = self.fault()
        if fault is not None:
            self.give_up()
            raise fault
        self.finish()
        if tunring_lease_commit_is_short(lease):
            code = tunring_lease_commit(lease)
        else:
            with nogil:  # the caller's reference to `self` holds the lease
                code = tunring_lease_commit(lease)
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
        """The exception that says why it can't be sent, or None. This runs no Python code if there is none."""
        cdef tunring_lease *lease = self.lease.slots
        cdef Py_ssize_t i
        for i in range(lease.count):
            if tunring_lease_slot_dropped(lease, i) or _sendable(lease.slots[i].data, lease.slots[i].length):
                continue
            if tunring_lease_held(lease):  # and may still be filled
                return _held_reservation()
            why = _packet_fault(lease.slots[i].data, lease.slots[i].length)
            return ValueError(f"reserved packet {i} {why}: nothing was sent")
        return None

    def abandon(self):
        """Abandon the reservation: each slot goes out as filler, which the host drops, once nothing exports it.

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
        self.finish()
        try:
            self.views.end()
        finally:
            with nogil:  # the caller's reference to `self` holds the lease
                tunring_lease_release(lease)
        return 0

    # -- The sequence

    cdef int check(self, str action) except -1:
        self.get()
        if not self.unfinished:
            raise self.over(action)
        if not self.entered:
            raise RuntimeError("a reservation is to be used inside its `with` block")
        return 0

    cdef Py_ssize_t position(self, index) except -1:
        """A slot's index, counted from 0 and checked."""
        cdef Py_ssize_t count = self.lease.slots.count
        cdef Py_ssize_t i
        cdef long long number
        if exact_int(<PyObject *>index, &number) and -count <= number < count:
            return number + count if number < 0 else number
        try:
            i = operator.index(index)
        except OverflowError:
            i = count
        if i < 0:
            i += count
        if not 0 <= i < count:
            raise IndexError(f"slot {index} of a reservation of {count}")
        return i

    cdef object view(self, Py_ssize_t index):
        self.check("can't fill the reservation")
        if tunring_lease_slot_dropped(self.lease.slots, index):
            raise ValueError(f"slot {index} was dropped")
        view = self.views.take(self.lease, index)
        if not self.unfinished:  # given up meanwhile, which has ended the views that it found
            self.views.end()
        return view

    def __len__(self):
        return self.get().count

    def __getitem__(self, index, /):
        self.check("can't fill the reservation")
        if isinstance(index, slice):
            return [self.view(i) for i in range(*index.indices(self.lease.slots.count))]
        return self.view(self.position(index))

    def __iter__(self):
        self.check("can't fill the reservation")
        cdef SlotsIterator iterator = SlotsIterator.__new__(SlotsIterator)
        iterator.slots = self
        return iterator

    def __repr__(self):
        state = "open" if self.unfinished else "over"
        return f"<tunring.Slots of {len(self)} packets, {state}>"

    def drop(self, index) -> None:
        """Send nothing in one of the slots: it goes out as filler, which the host drops. Idempotent.

        Parameters
        ----------
        index : int
            Index of the slot; from the end if negative.

        Raises
        ------
        IndexError
            There is no such slot.
        ValueError
            The reservation is over.
        """
        self.check("can't drop a slot")
        cdef Py_ssize_t i = self.position(index)
        self.check("can't drop a slot")  # __index__() may have run anything
        if tunring_lease_drop_slot(self.lease.slots, i) != ERROR_SUCCESS:
            raise MemoryError()

    def shrink(self, index, length) -> None:
        """Send a smaller packet in one of the slots: ``slots[index]`` has that length from then on.

        Views that were taken before keep their length, but only the first ``length`` bytes are sent. The official DLL
        sends the whole slot, with zeros behind the packet: hosts go by the length in the IP header and trim the rest.

        Parameters
        ----------
        index : int
            Index of the slot; from the end if negative.
        length : int
            Bytes of the packet: 20 to the slot's length.

        Raises
        ------
        IndexError
            There is no such slot.
        ValueError
            The length is out of range, the slot was dropped, or the reservation is over.
        """
        self.check("can't shrink a slot")
        cdef Py_ssize_t i = self.position(index)
        cdef Py_ssize_t size
        try:
            size = operator.index(length)
        except OverflowError:
            size = -1
        self.check("can't shrink a slot")  # __index__() may have run anything
        if tunring_lease_slot_dropped(self.lease.slots, i):
            raise ValueError(f"slot {i} was dropped")
        if not 20 <= size <= self.lease.slots.slots[i].length:
            raise ValueError(f"length must be 20, an IPv4 header, to {self.lease.slots.slots[i].length}, "
                             f"what slot {i} has, not {length}")
        if tunring_lease_shrink_slot(self.lease.slots, i, <uint32_t>size) != ERROR_SUCCESS:
            raise MemoryError()


@cython.final
@cython.freelist(16)
cdef class SlotsIterator:
    """Iterates over a reservation's slots."""
    cdef Slots slots         # what it iterates over
    cdef Py_ssize_t index    # the next slot

    def __iter__(self):
        if self.slots is None:
            raise TypeError("iter(slots) makes these")
        return self

    def __next__(self):
        if self.slots is None:
            raise TypeError("iter(slots) makes these")
        if self.index >= self.slots.lease.slots.count:
            raise StopIteration
        self.index += 1
        return self.slots.view(self.index - 1)


cdef object _held_reservation():
    return BufferError("something made from a reserved view is still alive: nothing was sent")
