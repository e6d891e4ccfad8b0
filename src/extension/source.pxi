# Lenders of packets: the part that sessions and sockets share. Included by _core.pyx.

# Ending a receive from another thread without closing its session.
@cython.final
@cython.no_gc
cdef class Cancel:
    """A switch that ends :meth:`Session._receive_or_cancel`, for good."""
    cdef os_event event      # set: receives end
    cdef bint opened         # the event is ours to close
    cdef unsigned generation  # of the process that made it: in a child, its number may be another file's
    cdef shared_flag was_set

    def __cinit__(self):
        if not os_event_open(&self.event):
            raise error_from_code(GetLastError(), "can't make an event")
        self.opened = True
        self.generation = os_generation()

    def __dealloc__(self):
        if self.opened and self.generation == os_generation():
            os_event_close(&self.event)

    cdef HANDLE handle(self) noexcept:
        """The event to wait for; NULL in a child."""
        return self.event.wait if self.generation == os_generation() else NULL

    @property
    def called(self) -> bool:
        """True after :meth:`set`."""
        return flag_is_set(&self.was_set)

    def set(self) -> None:
        """End what waits, and what will. From any thread."""
        flag_set(&self.was_set)
        if self.generation == os_generation():
            os_event_set_if_ours(&self.event)


cdef struct _Receiving:
    tunring_source *source
    uint32_t max
    tunring_lease *lease


cdef dict _figures(const tunring_figure *figure, const void *counts):
    """The figures of a struct by name, as its table lists them."""
    figures = {}
    while figure.name:
        figures[figure.name.decode("ascii")] = (<uint64_t *>(<char *>counts + figure.offset))[0]
        figure += 1
    return figures


# The calls that may wait, in one shape: what is to be done, and for how long to wait for it (NULL: not at all).
ctypedef DWORD (*_Call)(void *state, const tunring_wait *wait) noexcept nogil


cdef DWORD _receive(void *state, const tunring_wait *wait) noexcept nogil:
    cdef _Receiving *call = <_Receiving *>state
    return tunring_receive(call.source, call.max, wait, &call.lease)


cdef DWORD _wait_for(_Call call, void *state, int64_t deadline, HANDLE cancel=NULL,
                     uint32_t min_packets=1, int64_t linger=0, bint brief=False) except? 0xFFFFFFFF:
    """Make a call without the GIL, and wait for it until the deadline; signals are handled meanwhile.

    A brief one, a receive, may wait for a moment before that is prepared.
    """
    cdef tunring_wait wait
    cdef interrupt signal
    cdef DWORD code
    wait.interrupt = NULL
    wait.cancel = cancel
    wait.deadline = deadline
    wait.brief = wait.looked = False
    wait.min_packets = min_packets
    wait.linger = linger
    # In each of these the caller holds whatever `state` has pointers to, and the object of which `cancel` is an event;
    # the core waits for this call when the source is closed.
    if deadline and not interrupt_possible():
        with nogil:
            return call(state, &wait)
    # At once first: where packets keep coming, a wait need not be prepared.
    if min_packets <= 1:
        wait.brief = brief and deadline != 0
        with nogil:
            code = call(state, &wait if wait.brief else NULL)
        if not deadline or code not in (WAIT_TIMEOUT, ERROR_BUFFER_OVERFLOW):
            return code
        wait.looked = wait.brief
        wait.brief = False
    try:
        interrupt_arm(&signal)
        while True:
            wait.interrupt = signal.handle
            with nogil:
                code = call(state, &wait)
            if code != ERROR_OPERATION_ABORTED:
                return code
            interrupt_check(&signal)
            wait.looked = False
    finally:
        interrupt_disarm(&signal)


cdef object _session_closed(str action, str reason, str why):
    error = SessionClosed(ERROR_HANDLE_EOF, f"{action}: {why}")
    error.reason = reason
    return error


cdef uint32_t _packet_count(value, str name) except 0:
    cdef long long number
    if type(value) is int and value == 1:
        return 1
    try:
        number = value if type(value) is int else operator.index(value)
    except OverflowError:
        number = 0
    if not 1 <= number <= TUNRING_MAX_BATCH:
        raise ValueError(f"{name} must be 1 to {TUNRING_MAX_BATCH}, not {value}")
    return <uint32_t>number


cdef int64_t _nanoseconds(value, str name) except -1:
    cdef double seconds
    if type(value) is int and value == 0:
        return 0
    try:
        seconds = value
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be seconds, not {value!r}") from None
    except OverflowError:
        seconds = math.inf
    if not 0 <= seconds <= 9e9:
        raise ValueError(f"{name} must be 0 to 9e9 seconds, not {value!r}")
    return <int64_t>(seconds * 1e9)


cdef class _Source:
    """The part that a Session and a UdpSocket share: receiving, state, and the tasks that wait for them."""
    cdef tunring_source *source   # set once, and freed by __dealloc__: a call's own `self` holds it
    cdef shared_flag close_called  # the C core's state tells of a removed adapter first
    cdef bint datagrams           # its packets have sources
    cdef readonly dict _tasks     # by event loop, tunring._loops.tasks.Tasks: notified when it is closed

    def __dealloc__(self):
        if self.source:
            tunring_source_drop(self.source)

    def __enter__(self):
        self.lender()
        return self

    def __exit__(self, *exception):
        self.lender()
        self.close()

    cdef tunring_source *lender(self) except NULL:
        if not self.source:
            raise TypeError("Adapter.start_session() makes sessions, and UdpSocket.bind() sockets")
        return self.source

    @property
    def closed(self) -> bool:
        """True once :meth:`close` was called."""
        cdef tunring_source *source = self.lender()
        return flag_is_set(&self.close_called) or tunring_source_state(source) in (TUNRING_CLOSED, TUNRING_FORKED)

    cdef str kind(self):
        return "socket" if self.datagrams else "session"

    cdef int receive_error(self) noexcept:
        """The system's own number of the error that made a receive fail, or 0."""
        return 0

    cdef object failure(self, DWORD code, str action, int number=0):
        """The exception for a code; ``number`` is the system's own, if there was one."""
        cdef str what = self.kind()
        state = tunring_source_state(self.lender())
        if code != ERROR_HANDLE_EOF:
            return error_from_code(code, action, "", number)
        if state == TUNRING_FORKED:
            return _session_closed(action, "forked", f"the {what} was made before the fork: it is the parent process's")
        if self.datagrams:
            return _session_closed(action, "closed", "the socket is closed")
        error = error_from_code(code, action)
        # A close that has begun may not have come to the core yet.
        by_close = state == TUNRING_CLOSED or state == TUNRING_OPEN and flag_is_set(&self.close_called)
        error.reason = "closed" if by_close else "removed"
        return error

    # -- Receiving

    cdef Batch receive_until(self, max_packets, int64_t deadline, bint settle=False, HANDLE cancel=NULL,
                             min_packets=1, linger=0):
        cdef Batch batch = Batch.__new__(Batch)
        cdef _Views views = _views()
        cdef _Receiving call
        cdef tunring_wait settling
        cdef DWORD code
        call.source = self.lender()
        call.lease = NULL
        call.max = _packet_count(max_packets, "max_packets")
        if settle:
            settling.deadline = 0
            settling.interrupt = NULL
            settling.cancel = NULL
            settling.brief = settling.looked = False
            settling.min_packets = 0
            settling.linger = 0
            with nogil:  # `self` holds the source
                code = _receive(&call, &settling)
        else:
            code = _wait_for(_receive, &call, deadline, cancel, _packet_count(min_packets, "min_packets"),
                             _nanoseconds(linger, "linger"), True)
        views.lease.slots = call.lease
        batch.from_socket = self.datagrams
        if code not in (ERROR_SUCCESS, WAIT_TIMEOUT, ERROR_CANCELLED):
            raise self.failure(code, "can't receive", self.receive_error())
        batch.views = views
        batch.lease = views.lease
        flag_set(&batch.live)
        return batch

    def _receive_or_cancel(self, max_packets, timeout, Cancel cancel not None) -> Batch:
        """:meth:`receive` that also ends, with an empty batch, once ``cancel`` is set."""
        return self.receive_until(max_packets, _deadline(timeout), False, cancel.handle())

    def _poll(self, max_packets) -> Batch:
        """For event loops: ``receive(max_packets, 0)`` after which one may wait for the read event."""
        return self.receive_until(max_packets, 0, True)

    def _gather(self, max_packets) -> int:
        """For event loops: let the source keep what is there, up to that many packets; returns how many it keeps.

        The next receive, by anybody, begins with them. The read event reports those that come after them.
        """
        cdef tunring_source *source = self.lender()
        cdef uint32_t maximum = _packet_count(max_packets, "max_packets")
        cdef uint32_t count
        cdef DWORD code
        with nogil:  # `self` holds the source
            code = tunring_gather(source, maximum, &count)
        if code != ERROR_SUCCESS and not count:
            raise self.failure(code, "can't receive", self.receive_error())
        return count if code == ERROR_SUCCESS else maximum

    def _gather_end(self) -> None:
        """For event loops: let the read event report what is kept, as nobody lingers for more."""
        cdef tunring_source *source = self.lender()
        with nogil:  # `self` holds the source
            tunring_gather_end(source)

    def receive(self, max_packets=256, timeout=None, *, min_packets=1, linger=0) -> Batch:
        """Take the packets that are there, waiting for the first one.

        Parameters
        ----------
        max_packets : int
            Maximum number of packets to take: 1 to 65536.
        timeout : float, optional
            Seconds to wait for the first packet; 0 polls, None waits for ever.
        min_packets : int, optional
            Wait for more while there are fewer packets than this, for at most ``linger``: 1 to 65536.
        linger : float, optional
            Maximum number of seconds to wait for more, from the first packet on.

        Returns
        -------
        Batch
            Empty, hence false, on timeout.

        Raises
        ------
        SessionClosed
            It was closed, here or in another thread, or the adapter was removed.
        RingCorrupt
            The ring's state is invalid.
        """
        return self.receive_until(max_packets, _deadline(timeout), False, NULL, min_packets, linger)

    def batches(self, max_packets=256, *, timeout=None, min_packets=1, linger=0):
        """Iterate over batches as they come, releasing each when the next is asked for.

        Ends silently when the session or socket is over.

        Parameters
        ----------
        max_packets, min_packets, linger
            As for :meth:`receive`.
        timeout : float, optional
            Seconds after which an empty batch comes, as a tick; None: never.
        """
        cdef Batch batch
        while True:
            try:
                batch = self.receive_until(max_packets, _deadline(timeout), False, NULL, min_packets, linger)
            except SessionClosed:
                return
            try:
                yield batch
            finally:
                batch.end()

    # -- Receiving by event loops

    def receive_async(self, max_packets=256, timeout=None, *, min_packets=1, linger=0):
        """:meth:`receive` for an asyncio task: the event loop runs on while this waits.

        Returns an awaitable of the batch. Any number of tasks and threads may receive from one source. A task that is
        cancelled has taken nothing: the next receive gets the packets for which it lingered.

        Parameters
        ----------
        max_packets, timeout, min_packets, linger
            As for :meth:`receive`, as are the result and the errors. ``timeout=0`` takes what is there at once.

        Examples
        --------
        >>> import asyncio, tunring.testing
        >>> async def main():
        ...     left, right = tunring.testing.pair()
        ...     with left, right:
        ...         receiving = asyncio.create_task(right.receive_async())
        ...         await left.send_async([bytes([0x45]) + bytes(19)] * 3)
        ...         with await receiving as batch:
        ...             return len(batch)
        >>> asyncio.run(main())
        3
        """
        _packet_count(min_packets, "min_packets")
        _nanoseconds(linger, "linger")
        return receive_in_task(self, None, max_packets, check_timeout(timeout), None, None, min_packets, linger)

    def batches_async(self, max_packets=256, *, timeout=None, min_packets=1, linger=0):
        """:meth:`batches` for an asyncio task: ``async for batch in session.batches_async():``.

        Releases each batch when the next is asked for, and ends silently when the session or socket is over.

        Parameters
        ----------
        max_packets, min_packets, linger
            As for :meth:`receive_async`.
        timeout : float, optional
            Seconds after which an empty batch comes, as a tick; None: never.
        """
        cdef Batches batches = Batches.__new__(Batches)
        self.lender()
        _packet_count(min_packets, "min_packets")
        _nanoseconds(linger, "linger")
        batches.source = self
        batches.max_packets = max_packets
        batches.timeout = check_timeout(timeout)
        batches.min_packets = min_packets
        batches.linger = linger
        return batches

    # -- Capturing

    def capture(self, writer, *, interface=0, received=True, sent=True):
        """Write the packets received and sent to a file, until the end of a ``with`` block.

        The calls that receive and send, async ones too, copy each batch into the writer's buffer, without a Python
        object per packet. They never fail because of the capture, and never wait for a slow disk or reader: packets
        that don't fit are counted in the writer's ``dropped``. A failure of the file is raised at the end of the block,
        or by :meth:`tunring.pcapng.Writer.close`.

        A socket's datagrams get IP and UDP headers, made from their endpoints. The source of a sent datagram is the
        endpoint's ``local`` address if it has one, else the address that the socket is bound to, even 0.0.0.0 or ::.

        Parameters
        ----------
        writer : tunring.pcapng.Writer
            The file. Any number of sessions and sockets may be captured to it.
        interface : int
            The number of the packets' interface, as :meth:`tunring.pcapng.Writer.add_interface` returned it.
        received, sent : bool
            The directions to capture.

        Returns
        -------
        tunring.pcapng.Recording
            A context manager, with a method ``close``. Closing the session or socket ends it, too.

        Raises
        ------
        RuntimeError
            The session or socket is captured already.
        SessionClosed
            It is closed.

        Examples
        --------
        >>> import os, tempfile, tunring.testing
        >>> from tunring.pcapng import Writer
        >>> path = os.path.join(tempfile.mkdtemp(), "left.pcapng")
        >>> left, right = tunring.testing.pair()
        >>> with left, right, Writer(path) as writer, left.capture(writer):
        ...     left.send([bytes([0x45]) + bytes(19)] * 3)
        3
        """
        from tunring.pcapng import Recording

        return Recording(self, writer, interface, received, sent)

    def _capture(self, PcapngFile file not None, unsigned int interface, bint received, bint sent) -> int:
        """Start a capture for :class:`tunring.pcapng.Recording`, and return its number."""
        cdef tunring_source *source = self.lender()
        cdef tunring_pcapng_file *target = file.get()
        cdef uint32_t number = 0
        cdef DWORD code
        # The caller's references to `self` and `file` hold both pointers; what C keeps of the file, C counts.
        with nogil:
            code = tunring_source_capture(source, target, interface, received, sent, &number)
        if code == ERROR_BUSY:
            raise RuntimeError(f"the {self.kind()} is captured already: end that recording first")
        if code == ERROR_INVALID_PARAMETER:
            raise ValueError(f"the file has no interface {interface}, only {file.interfaces}")
        if code != ERROR_SUCCESS:
            raise self.failure(code, f"can't capture the {self.kind()}")
        return number

    def _end_capture(self, unsigned int number):
        """End the capture of that number, for :class:`tunring.pcapng.Recording`. Idempotent."""
        cdef tunring_source *source = self.lender()
        # The caller's reference to `self` holds the pointer.
        with nogil:
            tunring_source_capture_end(source, number)

    # -- What sending by event loops needs

    cdef object send_rest(self, _Packets packets, _Destinations where, int on_full, int64_t deadline):
        """Send what was not sent before; returns how many of all were. Sessions and sockets each have their own."""
        raise TypeError("nothing can be sent")

    cdef HANDLE room_event(self) except? NULL:
        """The event that is ready while there is room; NULL where only another try shows it."""
        self.lender()
        return NULL

    @property
    def _room_event(self):
        """For event loops: the descriptor of :meth:`room_event`, or None."""
        cdef HANDLE event = self.room_event()
        return None if event == NULL else <size_t>event

    # -- State

    @property
    def read_event(self) -> int:
        """The read event: a handle on Windows, a descriptor elsewhere. It is not the caller's to close."""
        cdef tunring_source *source = self.lender()
        if self.closed:
            raise self.failure(ERROR_HANDLE_EOF, "no read event")
        return <size_t>tunring_source_read_event(source)

    def fileno(self) -> int:
        """The read event's descriptor, for select, poll, epoll and event loops; not on Windows.

        It is readable if and only if ``receive(timeout=0)`` would return a packet or raise.

        Raises
        ------
        io.UnsupportedOperation
            On Windows: wait for :attr:`read_event` there.
        SessionClosed
            It is closed.
        """
        self.lender()
        if os.name == "nt":
            raise io.UnsupportedOperation("no descriptor on Windows; wait for read_event")
        return self.read_event

    cdef int close_source(self) except -1:
        """Close what lends the packets, and tell the tasks that wait."""
        cdef tunring_source *source = self.lender()
        try:
            with nogil:  # `self` holds the source
                tunring_source_close(source)
        finally:
            self.notify_tasks()
        return 0

    cdef int notify_tasks(self) except -1:
        failure = None
        # A forked child has none of its parent's loops, and a lock of theirs may have been held at the fork.
        if tunring_source_state(self.source) == TUNRING_FORKED:
            return 0
        for tasks in list(self._tasks.values()):
            try:
                tasks.session_closed()
            except BaseException as error:  # say a signal handler's, which the others' tasks must not wait for
                failure = error
        if failure is not None:
            raise failure
        return 0
