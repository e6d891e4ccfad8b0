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
        cdef uint32_t index
        cdef DWORD code
        # To end views may run Python code, which may close the session: until tunring_lease_leave() the slots stay.
        if not self.unfinished or tunring_lease_enter(lease, NULL, &index) != ERROR_SUCCESS:
            return self.settle()
        try:
            if self.views is not None:
                self.views.end()
            fault = self.fault()
        finally:
            tunring_lease_leave(lease, NULL)
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
