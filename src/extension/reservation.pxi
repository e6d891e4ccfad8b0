# Room in the send ring: reservations over a lease. Included by _core.pyx.

cdef bint _is_about_an_ended_view(error):
    """True for the ValueError that using a released memoryview raises, and for ours, which names the packet first."""
    if len(error.args) != 1 or not isinstance(error.args[0], str):
        return False
    view = memoryview(b"")
    view.release()
    try:
        view.tobytes()
    except ValueError as same:
        return error.args[0].endswith(same.args[0])
    return False


@cython.final
@cython.no_gc
cdef class _BlockMethod:
    """``__enter__`` and ``__exit__`` of Slots: a ``with`` block calls the Slots themselves.

    Python before 3.14 asks for both, and would make two bound methods for one block, which take longer than to reserve.
    """
    def __get__(self, Slots slots, owner):
        return self if slots is None else slots

    def __call__(self, Slots slots not None, *exception):
        return slots(*exception)


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
    cdef _Session session    # where it is; None once the slots are sent
    cdef void *newer         # its neighbours in the session's list of open reservations, while `unfinished`
    cdef void *older
    cdef void *call          # _call_slots(), for callers that need no tuple of arguments
    cdef uint64_t owner      # the thread's, as os_thread_number() gives it
    cdef shared_flag entered     # the block has begun
    cdef shared_flag unfinished  # neither sent nor given up
    cdef shared_flag cut_off     # given up since the session was closed
    cdef object __weakref__

    def __cinit__(self):
        self.call = <void *>_call_slots

    def __init__(self):
        raise TypeError("Session.reserve() makes reservations")

    def __reduce__(self):
        raise TypeError("a reservation can't be copied or pickled")

    def __dealloc__(self):
        if self.lease is None:
            return
        if self.finish(False):
            tunring_lease_release(self.lease.slots)
        self.views.keep_for_next()

    cdef tunring_lease *get(self) except NULL:
        if self.lease is None:
            raise TypeError("Session.reserve() makes reservations")
        return self.lease.slots

    cdef object over(self, str action):
        """The exception for a call that comes after the end."""
        if flag_is_set(&self.cut_off):
            return self.session.failure(ERROR_HANDLE_EOF, action)
        return ValueError("the reservation is over")

    # -- The session's list. A critical section of the session guards it, and with it the state of what is on it; with a
    # GIL that is nothing more than the GIL.

    cdef void begin(self, _Session session) noexcept:
        """Enter the list of the open ones, at its front."""
        self.session = session
        self.owner = os_thread_number()
        flag_set(&self.unfinished)
        self.newer = NULL
        with cython.critical_section(session):
            self.older = session.reservations
            if self.older:
                (<Slots>self.older).newer = <void *>self
            session.reservations = <void *>self

    cdef bint finish(self, bint cut_off) noexcept:
        """Leave it: what follows sends the slots or gives them up. False if that was done before."""
        cdef bint first
        with cython.critical_section(self.session):
            first = flag_is_set(&self.unfinished)
            if first:
                self.leave(cut_off)
        return first

    cdef void leave(self, bint cut_off) noexcept:
        """Leave it, inside the critical section."""
        if cut_off:  # first: who asks for it has seen the other
            flag_set(&self.cut_off)
        flag_clear(&self.unfinished)
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
        return flag_is_set(&self.unfinished)

    __enter__ = _BlockMethod()
    __exit__ = _BlockMethod()

    def __call__(self, *exception):
        cdef Py_ssize_t given = len(exception)
        if given < 2:
            return self.block(given, None, None)
        return self.block(given, exception[0], exception[1])

    cdef object block(self, Py_ssize_t arguments, kind, value):
        """Begin the block, without arguments, or end it with those of ``__exit__()``."""
        if arguments == 0:
            return self.begin_block()
        if arguments != 3:
            raise TypeError(f"a block takes no arguments at its begin and three at its end, not {arguments}")
        self.end_block(kind, value)

    cdef Slots begin_block(self):
        self.get()
        if not flag_is_set(&self.unfinished):
            raise self.over("can't enter the reservation")
        if not flag_set(&self.entered):
            raise RuntimeError("the reservation was entered before")
        return self

    cdef int end_block(self, kind, value) except -1:
        self.get()
        if kind is None:
            return self.commit()
        self.give_up(False)
        if flag_is_set(&self.cut_off) and isinstance(value, ValueError) and _is_about_an_ended_view(value):
            raise self.over("can't fill the reservation") from value
        return 0

    cdef int commit(self) except -1:
        cdef tunring_lease *lease = self.lease.slots
        cdef DWORD code
        cdef bint unfinished
        fault = None
        if flag_is_set(&self.unfinished):
            self.views.end()  # which may run Python code, and that close the session
        # Whoever gives the slots up, or changes them, needs the critical section for that.
        with cython.critical_section(self.session):
            unfinished = flag_is_set(&self.unfinished)
            if unfinished:
                fault = self.fault()
                if fault is None:
                    self.leave(False)
        if not unfinished:
            return self.settle()
        if fault is not None:
            self.give_up(False)
            raise fault
        if tunring_lease_commit_is_short(lease):
            code = tunring_lease_commit(lease)
        else:
            with nogil:  # the caller's reference to `self` holds the lease
                code = tunring_lease_commit(lease)
        if code == ERROR_BUSY:
            raise _held_reservation()
        if code != ERROR_SUCCESS:
            raise self.session.failure(code, "can't send the reservation")
        self.keep_for_next()
        return 0

    cdef int settle(self) except -1:
        """The block has ended, and the reservation before it: that is fine if the program gave it up itself."""
        if flag_is_set(&self.cut_off):
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
        self.give_up(False)

    cdef int give_up(self, bint cut_off) except -1:
        """The same; with `cut_off` since the session is closed."""
        if self.finish(cut_off):
            _give_up(self.views, self.lease)
        return 0

    # -- Again: a reservation of one packet costs little more than its parts, so that making them shows

    cdef void keep_for_next(self) noexcept:
        """Now that the slots are sent, keep this for another reservation, if nothing of it is in use by then."""
        cdef PyObject *other
        cdef Py_ssize_t i
        if WITHOUT_GIL:
            return
        self.session = None
        if not KEEPS_OBJECTS or not self.views.all_rest():
            return
        for i in range(KEPT_SLOTS):
            other = _kept_slots[i]
            if other and _nobody_has(other):
                continue
            Py_INCREF(<PyObject *>self)
            _kept_slots[i] = <PyObject *>self
            if other:
                Py_DECREF(other)
            return

    # -- The sequence

    cdef int check(self, str action) except -1:
        self.get()
        if not flag_is_set(&self.unfinished):
            raise self.over(action)
        if not flag_is_set(&self.entered):
            raise RuntimeError("a reservation must be used inside its `with` block")
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
        return self.take(index)

    cdef object take(self, Py_ssize_t index):
        """The same, directly after a check."""
        with cython.critical_section(self.session):  # another thread gives the slots up before, or after
            if not flag_is_set(&self.unfinished):
                raise self.over("can't fill the reservation")
            if tunring_lease_slot_dropped(self.lease.slots, index):
                raise ValueError(f"slot {index} was dropped")
            view = self.views.take(self.lease, index)
        if not flag_is_set(&self.unfinished):  # given up meanwhile, which has ended the views that it found
            self.views.end()
        return view

    def __len__(self):
        return self.get().count

    def __getitem__(self, index, /):
        cdef long long number
        self.check("can't fill the reservation")
        if exact_int(<PyObject *>index, &number) and 0 <= number < self.lease.slots.count:
            return self.take(number)
        if isinstance(index, slice):
            return [self.view(i) for i in range(*index.indices(self.lease.slots.count))]
        return self.view(self.position(index))

    def __iter__(self):
        self.check("can't fill the reservation")
        cdef SlotsIterator iterator = SlotsIterator.__new__(SlotsIterator)
        iterator.slots = self
        return iterator

    def __repr__(self):
        state = "open" if flag_is_set(&self.unfinished) else "over"
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
        with cython.critical_section(self.session):
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
        with cython.critical_section(self.session):
            self.check("can't shrink a slot")  # __index__() may have run anything
            if tunring_lease_slot_dropped(self.lease.slots, i):
                raise ValueError(f"slot {i} was dropped")
            if not 20 <= size <= self.lease.slots.slots[i].length:
                raise ValueError(f"length must be 20, an IPv4 header, to {self.lease.slots.slots[i].length}, "
                                 f"what slot {i} has, not {length}")
            if tunring_lease_shrink_slot(self.lease.slots, i, <uint32_t>size) != ERROR_SUCCESS:
                raise MemoryError()


cdef object _call_slots(PyObject *slots, PyObject **arguments, size_t count, PyObject *names):
    """:meth:`Slots.__call__`, as ``PyObject_Vectorcall()`` calls it."""
    cdef Py_ssize_t given = vectorcall_arguments(count)
    if names and len(<tuple>names):
        raise TypeError("a block takes no keyword arguments")
    if given < 2:
        return (<Slots>slots).block(given, None, None)
    return (<Slots>slots).block(given, <object>arguments[0], <object>arguments[1])


cdef int _use_vectorcall() except -1:
    cdef Slots slots = Slots.__new__(Slots)
    use_vectorcall(Slots, <char *>&slots.call - <char *><PyObject *>slots)
    return 0


_use_vectorcall()


# Those that were sent: the variable of a loop has one, and the next call gets the other. The GIL guards them.
cdef enum:
    KEPT_SLOTS = 2

cdef PyObject *_kept_slots[KEPT_SLOTS]


cdef bint _nobody_has(PyObject *slots) noexcept:
    """True for one that only `_kept_slots` has."""
    return Py_REFCNT(slots) == 1 and not has_weak_references(slots)


cdef Slots _slots():
    """For a new reservation. Its lease has the table of an old one, or NULL."""
    cdef Slots slots
    cdef PyObject *kept
    cdef Py_ssize_t i
    for i in range(KEPT_SLOTS):
        kept = _kept_slots[i]
        if kept and _nobody_has(kept):
            slots = <Slots>kept
            _kept_slots[i] = NULL
            Py_DECREF(kept)
            flag_clear(&slots.entered)
            return slots
    slots = Slots.__new__(Slots)
    slots.views = _views()
    slots.lease = slots.views.lease
    return slots


@cython.final
@cython.no_gc
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
        cdef Py_ssize_t index, count = self.slots.lease.slots.count
        with cython.critical_section(self):  # each slot goes to one of the threads that iterate
            index = self.index
            if index < count:
                self.index = index + 1
        if index >= count:
            raise StopIteration
        return self.slots.view(index)


cdef int _give_up(_Views views, Lease lease) except -1:
    """End the views of a reservation that is finished, and let its slots go out as filler."""
    cdef tunring_lease *slots = lease.slots
    try:
        views.end()
    finally:
        with nogil:  # the caller's reference to `lease` holds the slots
            tunring_lease_release(slots)
    return 0


cdef object _held_reservation():
    return BufferError("something made from a reserved view is still alive: nothing was sent")
