# What event loops need of the core: turns of tasks that find packets or room at once, sends that go on where they
# stopped, and an alarm. Included by _core.pyx.

cdef enum:
    # Nanoseconds that a task may go on before it lets the loop's other tasks run.
    SLICE = 1000000

cdef object _aio = None
cdef object _running_loop = None


cdef class Turns:
    """Whose turn it is among the tasks of an event loop that use a session: the part that each call looks at."""
    cdef int64_t slice_ends
    cdef public bint sending
    """Whether a task waits for room."""
    cdef public bint woken
    """Whether a task was woken for packets and has not looked yet: they are not for one that comes just now."""

    def __cinit__(self):
        self.begin_turn()

    cpdef void begin_turn(self) noexcept:
        """Other tasks have just had their turn."""
        self.slice_ends = os_deadline(SLICE)

    cpdef bint turn_is_over(self) noexcept:
        """Whether a task has gone on for long enough, and should let others run."""
        return os_deadline(0) > self.slice_ends


cdef Turns _waiters_here(_Session session):
    """The session's :class:`tunring._loops.waiters.Waiters` of the asyncio loop that runs."""
    global _aio, _running_loop
    if _aio is None:  # imported when it is first needed
        import asyncio
        from tunring._loops import aio
        _running_loop = asyncio.get_running_loop
        _aio = aio
    loop = _running_loop()
    waiters = session._waiters.get(loop)
    return _aio.waiters_of(session, loop, _aio.LoopWaiters) if waiters is None else waiters


async def receive_in_loop(_Session session not None, Turns waiters, max_packets, timeout):
    """:meth:`Session.receive_async`, with the waiters of any loop; None for those of the asyncio loop that runs."""
    cdef Batch batch
    session.get()
    if waiters is None:
        waiters = _waiters_here(session)
    if waiters.turn_is_over():
        await waiters.yield_turn()
    if not waiters.woken or timeout == 0:
        batch = session.receive_until(max_packets, 0, True)
        if batch.size() or timeout == 0:
            return batch
    return await waiters.receive_later(session, max_packets, timeout)


@cython.final
cdef class Batches:
    """Batches of a session as they come: what :meth:`Session.batches_async` gives."""
    cdef _Session session
    cdef object max_packets
    cdef Batch batch     # the last one, or None
    cdef Turns waiters   # None before the first; an iterator stays with the loop that began it

    def __init__(self):
        raise TypeError("Session.batches_async() makes these")

    cdef int check(self) except -1:
        if self.session is None:
            raise TypeError("Session.batches_async() makes these")
        return 0

    def __aiter__(self):
        self.check()
        return self

    async def __anext__(self):
        self.check()
        cdef Batch batch = self.batch
        if batch is not None:
            self.batch = None
            batch.end()
        # As receive_in_loop() does, without a coroutine of its own.
        try:
            if self.waiters is None:
                self.waiters = _waiters_here(self.session)
            if self.waiters.turn_is_over():
                await self.waiters.yield_turn()
            batch = None
            if not self.waiters.woken:
                batch = self.session.receive_until(self.max_packets, 0, True)
            if batch is None or not batch.size():
                batch = await self.waiters.receive_later(self.session, self.max_packets, None)
        except SessionClosed:
            raise StopAsyncIteration from None
        self.batch = batch
        return batch


async def send_in_loop(Outgoing outgoing not None, Turns waiters, timeout):
    """:meth:`Session.send_async`, with the waiters of any loop; None for those of the asyncio loop that runs."""
    cdef bint in_line
    outgoing.check()
    try:
        if waiters is None:
            waiters = _waiters_here(outgoing.session)
        if waiters.turn_is_over():
            await waiters.yield_turn()
        in_line = waiters.sending and outgoing.mode == WAIT and timeout != 0
        if in_line or not (outgoing.proceed() or timeout == 0):
            await waiters.send_later(outgoing, timeout)
        return outgoing.sent
    finally:
        outgoing.packets = None  # an exception may keep this frame


@cython.final
cdef class Outgoing:
    """Packets on their way: checked and held, and sent as far as there was room."""
    cdef _Session session
    cdef _Packets packets        # None once they were let go
    cdef uint32_t count_sent     # packets that went out so far
    cdef int mode                # what to do when the ring is full

    def __init__(self):
        raise TypeError("Session.send_async() makes these")

    cdef int check(self) except -1:
        if self.session is None:
            raise TypeError("Session.send_async() makes these")
        return 0

    @property
    def sent(self) -> int:
        """Packets that went out so far."""
        self.check()
        return self.count_sent

    def let_go(self) -> None:
        """Hold the packets no longer."""
        self.check()
        self.packets = None

    cpdef bint proceed(self) except -1:
        """Send what there is room for. False if the caller is to wait for more; raises what Session.send does.

        At the end the packets are let go.
        """
        cdef _Packets packets = self.packets
        self.check()
        if packets is None:
            raise ValueError("the packets were let go")
        self.packets = None
        try:
            self.session.send_rest(packets, PARTIAL if self.mode == WAIT else self.mode, 0)
        finally:
            self.count_sent = packets.sent
        if self.mode != WAIT or packets.sent == packets.count:
            return True
        self.packets = packets
        return False


@cython.final
@cython.no_gc
cdef class Alarm:
    """Waits for packets in a thread, for an event loop. It doesn't keep the Session."""
    cdef tunring_alarm *alarm  # ours

    def __cinit__(self, _Session session not None):
        cdef DWORD code = tunring_alarm_open(tunring_session_source(session.get()), &self.alarm)
        if code != ERROR_SUCCESS:
            raise error_from_code(code, "can't watch the session")

    def __dealloc__(self):
        if self.alarm:
            tunring_alarm_free(self.alarm)

    def wait(self) -> bool:
        """Wait until :meth:`arm` was called and packets are there, or the session fails. False once it is over."""
        cdef DWORD code
        with nogil:  # the caller's reference to `self` holds the alarm
            code = tunring_alarm_wait(self.alarm)
        if code not in (ERROR_SUCCESS, ERROR_HANDLE_EOF):
            raise error_from_code(code, "can't wait for packets")
        return code == ERROR_SUCCESS

    def arm(self) -> None:
        """Let :meth:`wait` go on. Not again before it has returned."""
        tunring_alarm_arm(self.alarm)

    def end(self) -> None:
        """End :meth:`wait` for good."""
        tunring_alarm_end(self.alarm)
