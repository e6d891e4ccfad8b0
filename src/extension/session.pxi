# Sessions: receiving, sending, state and close. Included by _core.pyx.

cdef dict _ON_FULL = {"wait": 0, "partial": 1, "drop": 2, "raise": 3}
cdef enum:
    WAIT = 0
    PARTIAL = 1
    DROP = 2
    RAISE = 3


cdef struct _Sending:
    tunring_session *session
    const tunring_packet *packets
    uint32_t count
    uint32_t sent
    bint fill


cdef struct _Reserving:
    tunring_session *session
    const uint32_t *sizes
    uint32_t count
    tunring_lease *lease


cdef DWORD _send(void *state, const tunring_wait *wait) noexcept nogil:
    cdef _Sending *call = <_Sending *>state
    cdef const tunring_packet *rest = call.packets + call.sent
    cdef uint32_t done, left = call.count - call.sent
    cdef DWORD code
    if call.fill:
        code = tunring_send_filled(call.session, rest, left, wait, &done)
    else:
        code = tunring_send(call.session, rest, left, wait, &done)
    call.sent += done
    return code


cdef DWORD _reserve(void *state, const tunring_wait *wait) noexcept nogil:
    cdef _Reserving *call = <_Reserving *>state
    return tunring_reserve(call.session, call.sizes, call.count, wait, &call.lease)


# As a call's defaults have them: the same objects.
cdef str _WAIT = "wait"
cdef str _RAISE = "raise"


cdef bint _is_one_size(sizes, long long *size) noexcept:
    """A list of one int that a slot may have, and its value; anything else is for _sizes() to read."""
    if type(sizes) is not list:
        return False
    with cython.critical_section(sizes):  # another thread could drop the item that is borrowed
        return (len(<list>sizes) == 1 and exact_int(sequence_item(sizes, 0), size)
                and 20 <= size[0] <= WINTUN_MAX_IP_PACKET_SIZE)


cdef int _on_full(on_full, tuple allowed) except -1:
    if on_full is _WAIT:
        return WAIT  # which every call allows
    if on_full is _RAISE:
        return RAISE
    if not isinstance(on_full, str) or on_full not in allowed:
        raise ValueError(f"on_full must be one of {', '.join(map(repr, allowed))}, not {on_full!r}")
    return _ON_FULL[on_full]


cdef bint _fills(checksums) except -1:
    if checksums is None or isinstance(checksums, str) and checksums == "fill":
        return checksums is not None
    raise ValueError(f"checksums must be 'fill' or None, not {checksums!r}")


cdef tunring_coalesce _coalesce(which) except *:
    if which == "all":
        return TUNRING_COALESCE_ALL
    if which == "tcp":
        return TUNRING_COALESCE_TCP
    if which == "none":
        return TUNRING_COALESCE_NONE
    raise ValueError(f"coalesce must be one of 'all', 'tcp', 'none', not {which!r}")


cdef object _start_failure(AdapterHandle handle, DWORD code):
    """The exception for a session that didn't start."""
    cdef str action = "can't start a session"
    if tunring_adapter_forked(handle.adapter):
        return _session_closed(action, "forked", "the adapter was made before the fork: it is the parent process's")
    if code == ERROR_INVALID_HANDLE:
        return _session_closed(action, "closed", "the adapter is closed")
    detail = _last_log_lines()
    if code == ERROR_BUSY:
        detail = f"{handle.pinned} packets of its last session are still held\n{detail}".rstrip()
    error = error_from_code(code, action, detail)
    if isinstance(error, SessionClosed):
        error.reason = "removed"
    return error


cdef class _Session(_Source):
    """An adapter's open rings. :meth:`tunring.Adapter.start_session` makes it.

    Any thread may use it. No call holds the GIL while it waits, and each wait ends by data, its deadline,
    :meth:`close`, or in the main thread a signal such as Ctrl-C.

    Attributes
    ----------
    adapter : tunring.Adapter
        The adapter whose session it is.
    """
    cdef tunring_session *session   # set once, by _start(), and freed by __dealloc__: a call's own `self` holds it
    cdef readonly object adapter    # kept alive by its session
    cdef void *reservations         # the open ones, a list of Slots that each enters and leaves itself; no references
    cdef bint closes_adapter        # the adapter is the session's own, and goes with it
    cdef AdapterHandle queue        # of several, the one that is the session's own and goes with it, or None
    cdef shared_flag leak_warned    # a warning has said that the rings can't be freed
    # Here rather than in _Source: it is cleared before `adapter`, whose end looks for its sessions by weak references.
    # Without a GIL such a reference does not see that the session is dying.
    cdef object __weakref__

    def __init__(self):
        raise TypeError("Adapter.start_session() makes sessions")

    def __reduce__(self):
        raise TypeError("a Session can't be copied or pickled")

    @staticmethod
    def _start(adapter, AdapterHandle handle not None, unsigned int capacity, coalesce, bint keep_queue,
               bint closes_adapter, AdapterHandle queue):
        """For :meth:`tunring.Adapter.start_session`."""
        # Before there is a session, of which a signal handler could ask stats() while this is half imported.
        import tunring._stats

        cdef _Session self = Session.__new__(Session)
        cdef tunring_adapter *target = handle.get()
        cdef tunring_session_options options
        cdef DWORD code
        options.coalesce = _coalesce(coalesce)
        options.keep_queue = keep_queue
        self.adapter = adapter
        self._tasks = {}
        self.closes_adapter = closes_adapter
        self.queue = queue
        # `handle` holds the adapter, whose close waits for this call; nobody else has `self` yet.
        with nogil:
            tunring_log_forget()
            code = tunring_session_start(target, capacity, &options, &self.session)
        if code != ERROR_SUCCESS:
            raise _start_failure(handle, code)
        self.source = tunring_session_source(self.session)
        # Lists first and looks second: AdapterHandle.close_sessions() shuts the door first and reads the list second.
        handle.sessions.add(weakref.ref(self, handle.sessions.discard))
        if tunring_adapter_is_shut(target):
            self.end()
            raise _start_failure(handle, ERROR_INVALID_HANDLE)
        return self

    def __repr__(self):
        state = "closed" if self.closed else "open"
        return f"<tunring.Session of {self.adapter!r}, {state}>"

    @property
    def capacity(self) -> int:
        """Bytes of each ring."""
        return tunring_session_capacity(self.get())

    cdef tunring_session *get(self) except NULL:
        if not self.session:
            raise TypeError("Adapter.start_session() makes sessions")
        return self.session

    # -- Sending

    cdef object send_packets(self, _Packets packets, int on_full, int64_t deadline):
        self.check_thread()
        return self.send_rest(packets, None, on_full, deadline)

    cdef object send_rest(self, _Packets packets, _Destinations where, int on_full, int64_t deadline):
        """Send what was not sent before; returns how many of all were."""
        cdef _Sending call
        cdef DWORD code
        cdef uint32_t sent
        call.session = self.get()
        call.packets = packets.packets
        call.count = packets.count
        call.sent = packets.sent
        call.fill = packets.fill
        try:
            code = _wait_for(_send, &call, deadline if on_full == WAIT else 0)
        except BaseException as error:  # a signal handler's
            packets.sent = call.sent
            error.add_note(f"tunring: {call.sent} of {packets.count} packets were sent")
            raise
        sent = packets.sent = call.sent
        if code == ERROR_SUCCESS or code == WAIT_TIMEOUT:
            return sent
        if code == ERROR_BUFFER_OVERFLOW and on_full != RAISE:
            if on_full == DROP:
                tunring_source_count_dropped(self.source, packets.count - sent)
            return sent
        error = self.failure(code, f"sent {sent} of {packets.count} packets")
        error.sent = sent
        raise error

    def send(self, packets, *, on_full="wait", timeout=None, checksums=None) -> int:
        """Send packets, in order.

        Parameters
        ----------
        packets : iterable of bytes-like objects, or Batch
            IP packets of at most 65535 bytes. All are checked before the first is sent. A Batch, of any session, is not
            released; its packets that are not IP are skipped and counted.
        on_full : {"wait", "partial", "drop", "raise"}
            If the ring is full: "wait" waits for room. The others send what fits: "partial" returns then, "drop"
            counts the rest as dropped, and "raise" raises RingFull.
        timeout : float, optional
            Seconds to wait for room; None waits for ever.
        checksums : "fill", optional
            Fill in checksums, as :func:`tunring.packets.fill_checksums` does, in the packets that are sent; the
            caller's buffers stay as they are. Where the interface has offloads, the kernel computes them.

        Returns
        -------
        int
            The number sent. A packet that the kernel refuses later is counted in :meth:`stats`.

        Raises
        ------
        TypeError, ValueError
            An item can't be sent; its index is named, and nothing was sent.
        RingFull
            With ``on_full="raise"``; its ``sent`` is the number sent.
        SessionClosed
            Its ``sent`` is the number sent.
        RuntimeError
            This thread has an open reservation on the session, which would hold the packets back.
        """
        cdef int mode = _on_full(on_full, ("wait", "partial", "drop", "raise"))
        cdef int64_t deadline = _deadline(timeout)
        cdef bint fill = _fills(checksums)
        cdef _Packets held
        if isinstance(packets, Batch):
            held = _packets_from_batch(packets, self.get())
        else:
            held = _packets_from_items(packets)
        held.fill = fill
        return self.send_packets(held, mode, deadline)

    def send_packed(self, buffer, lengths, *, on_full="wait", timeout=None, checksums=None) -> int:
        """Send packets that lie back to back in one contiguous buffer.

        Parameters
        ----------
        buffer : bytes-like object
            The packets.
        lengths : buffer of integers, or sequence of int
            Their lengths in bytes; the sum is the buffer's size.
        on_full, timeout, checksums
            As for :meth:`send`, as are the result and the errors.
        """
        cdef int mode = _on_full(on_full, ("wait", "partial", "drop", "raise"))
        cdef int64_t deadline = _deadline(timeout)
        cdef bint fill = _fills(checksums)
        cdef _Packets held = _packets_from_packed(buffer, lengths)
        held.fill = fill
        return self.send_packets(held, mode, deadline)

    def _outgoing(self, packets, lengths, on_full, checksums=None) -> Outgoing:
        """For event loops: packets on their way, packed ones if there are lengths."""
        cdef Outgoing outgoing = Outgoing.__new__(Outgoing)
        self.get()
        outgoing.mode = _on_full(on_full, ("wait", "partial", "drop", "raise"))
        cdef bint fill = _fills(checksums)
        outgoing.source = self
        if lengths is not None:
            outgoing.packets = _packets_from_packed(packets, lengths)
        elif isinstance(packets, Batch):
            outgoing.packets = _packets_from_batch(packets, self.get())
        else:
            outgoing.packets = _packets_from_items(packets)
        outgoing.packets.fill = fill
        self.check_thread()
        return outgoing

    def send_async(self, packets, *, on_full="wait", timeout=None, checksums=None):
        """:meth:`send` for an asyncio task: the event loop runs on while this waits for room.

        Returns an awaitable. The call itself checks all packets, which can't be changed or released until the awaitable
        is done. Tasks of one loop that wait for room get it in the order in which they asked.

        Parameters
        ----------
        packets, on_full, timeout, checksums
            As for :meth:`send`, as are the result and the errors. A task that is cancelled may have sent some: with
            ``timeout`` the error counts them.

        Examples
        --------
        >>> import asyncio, tunring.testing
        >>> async def echo(session):
        ...     async for batch in session.batches_async():
        ...         await session.send_async(batch)
        >>> async def main():
        ...     left, right = tunring.testing.pair()
        ...     with left, right:
        ...         echoing = asyncio.create_task(echo(right))
        ...         await left.send_async([bytes([0x45]) + bytes(19)])
        ...         with await left.receive_async() as batch:
        ...             return len(batch)
        >>> asyncio.run(main())
        1
        """
        return send_in_task(self._outgoing(packets, None, on_full, checksums), None, check_timeout(timeout))

    def send_packed_async(self, buffer, lengths, *, on_full="wait", timeout=None, checksums=None):
        """:meth:`send_packed` for an asyncio task, as :meth:`send_async` is :meth:`send` for one."""
        if lengths is None:
            raise TypeError("lengths must be integers, not NoneType")
        return send_in_task(self._outgoing(buffer, lengths, on_full, checksums), None, check_timeout(timeout))

    def reserve(self, sizes, *, on_full="raise", timeout=None) -> Slots:
        """Reserve room for packets in the send ring, to be filled in place: all of them or none.

        Parameters
        ----------
        sizes : buffer of integers, or sequence of int
            Bytes of each packet: 20 to 65535.
        on_full : {"raise", "wait"}
            The reaction if the ring lacks room.
        timeout : float, optional
            Seconds to wait for room; None waits for ever.

        Returns
        -------
        Slots
            A context manager and a sequence of writable memoryviews. Leaving the block checks and sends the packets; an
            exception abandons them. Until then the ring holds back everything that any thread sends later.

        Raises
        ------
        ValueError
            A size is out of range, or the ring could never hold them all.
        RingFull
            The ring lacks room, or still lacked it on timeout.
        """
        cdef int mode = _on_full(on_full, ("raise", "wait"))
        cdef int64_t deadline = _deadline(timeout)
        cdef tunring_session *session = self.get()
        cdef Slots slots = _slots()
        cdef long long size
        self.check_thread()
        # One packet after another is the common case, and worth a way without a table of sizes or a wait.
        if _is_one_size(sizes, &size):
            if tunring_reserve_now(session, <uint32_t>size, &slots.lease.slots) == ERROR_SUCCESS:
                return self.reserved(slots)
        return self.reserve_all(slots, sizes, deadline if mode == WAIT else 0)

    cdef Slots reserve_all(self, Slots slots, sizes, int64_t deadline):
        cdef _Sizes wanted = _sizes(sizes, "sizes")
        cdef _Reserving call
        cdef DWORD code
        cdef Py_ssize_t i
        for i in range(wanted.count):
            if wanted.values[i] < 20:
                raise ValueError(f"sizes[{i}] must be at least 20, an IPv4 header, not {wanted.values[i]}")
        call.session = self.get()
        call.sizes = wanted.values
        call.count = <uint32_t>wanted.count
        call.lease = NULL
        self.check_thread()  # again: __index__() of a size may have reserved
        code = _wait_for(_reserve, &call, deadline)
        if code == ERROR_INVALID_PARAMETER:
            raise ValueError(f"{wanted.count} packets of {wanted.total} bytes don't fit a ring of {self.capacity}")
        if code == WAIT_TIMEOUT:
            code = ERROR_BUFFER_OVERFLOW
        if code != ERROR_SUCCESS:
            raise self.failure(code, f"can't reserve room for {wanted.count} packets")
        tunring_lease_free(slots.lease.slots)
        slots.lease.slots = call.lease
        return self.reserved(slots)

    cdef Slots reserved(self, Slots slots):
        """The reservation, now that it has its room."""
        # Lists first and looks second: close() says so first and reads the list second.
        slots.begin(self)
        if flag_is_set(&self.close_called):
            slots.give_up(True)
            raise slots.over(f"can't reserve room for {len(slots)} packets")
        return slots

    cdef int check_thread(self) except -1:
        if self.has_reservation() and not self.closed:
            raise RuntimeError("this thread has an open reservation on the session: leave its block first")
        return 0

    cdef bint has_reservation(self) noexcept:
        """True if this thread has an open one."""
        cdef void *at
        cdef uint64_t thread
        with cython.critical_section(self):  # it guards the list, and whatever is on it exists
            at = self.reservations
            thread = os_thread_number() if at else 0
            while at and (<Slots>at).owner != thread:
                at = (<Slots>at).older
        return at != NULL

    # -- State

    def stats(self):
        """The session's figures so far, as a :class:`tunring.Stats`."""
        from tunring._stats import Stats

        cdef tunring_stats stats
        tunring_session_stats(self.get(), &stats)
        dropped = filtered = write_errors = None
        if stats.has_counters:
            dropped, filtered = stats.counters.host_dropped, stats.counters.host_filtered
            write_errors = stats.counters.write_errors
        return Stats(
            **_figures(tunring_stats_figures, &stats),
            capacity=self.capacity,
            host_dropped=dropped,
            host_filtered=filtered,
            write_errors=write_errors,
        )

    def close(self) -> None:
        """End the session: wake its waiting calls, wait for all calls in flight, and end the rings.

        Open reservations are abandoned. Batches and views stay valid; the ring's memory is freed with the last of them.
        Idempotent. May be called from any thread, and from signal handlers and destructors.
        """
        try:
            self.end()
        finally:
            if self.closes_adapter:
                self.adapter.close()
            if self.queue is not None:
                self.adapter._close_queue(self.queue)

    cdef int end(self) except -1:
        """Close the session, but not an adapter of its own. Each call returns when the first is done."""
        cdef tunring_session *session = self.get()
        flag_set(&self.close_called)
        try:
            self.cut_reservations()
        finally:
            self.close_source()
        if tunring_session_leaked(session) and flag_set(&self.leak_warned):
            warnings.warn("the system had removed the adapter: the session's rings can't be freed", ResourceWarning)
        return 0

    cdef int cut_reservations(self) except -1:
        cdef _Views views
        cdef Lease lease
        while True:
            views = lease = None
            # Off the list first. The reservation itself may be dying in another thread, which waits for this to leave
            # the list: it must not get a reference; its parts may.
            with cython.critical_section(self):
                if self.reservations:
                    views = (<Slots>self.reservations).views
                    lease = (<Slots>self.reservations).lease
                    (<Slots>self.reservations).leave(True)
            if views is None:
                return 0
            _give_up(views, lease)


class Session(_Session):
    # A class of Python's: in the stable ABI, Cython's have no __del__.
    __slots__ = ()
    __doc__ = _Session.__doc__

    def __init_subclass__(cls):
        raise TypeError("Session is not an acceptable base type")

    def __del__(self, *, warn=warnings.warn):  # at exit, modules may be empty already
        try:
            unclosed = not self.closed
        except TypeError:  # it never started
            return
        if unclosed:
            try:
                warn(f"unclosed {self!r}", ResourceWarning, source=self)
            finally:  # also where warnings are errors
                self.close()
