# For event loops: calls that find packets or room at once, sends that go on where they stopped, and a
# wait that a thread of theirs sits in. Tasks, in tunring._loops.tasks, decides who waits, in which order and how.
# Included by _core.pyx.

cdef enum:
    # Nanoseconds that a task may go on before it lets the loop's other tasks run.
    SLICE = 1000000

cdef object _running_loop = None
cdef object _make_tasks = None


def use_loops(running_loop, make_tasks):
    """Set what returns the asyncio loop that runs, and what makes a source's Tasks for it."""
    global _running_loop, _make_tasks
    _running_loop = running_loop
    _make_tasks = make_tasks


cdef Turn _tasks_here(_Source source):
    """The source's Tasks in the asyncio loop that runs."""
    loop = _running_loop()
    tasks = source._tasks.get(loop)
    return _make_tasks(source, loop) if tasks is None else tasks


cdef class Turn:
    """Whose turn it is among a loop's tasks that use a source: the part of its Tasks that each call looks at."""
    cdef int64_t slice_ends
    cdef public bint sending
    """True if a task waits for room."""
    cdef public bint woken
    """True if a task was woken for packets and has not looked yet: they are not for one that comes just now."""

    def __cinit__(self):
        self.begin_turn()

    cpdef void begin_turn(self) noexcept:
        """Other tasks have just had their turn."""
        self.slice_ends = os_deadline(SLICE)

    cdef bint is_over(self) noexcept:
        """True if a task has gone on for long enough, and should let others run."""
        return os_deadline(0) > self.slice_ends


async def receive_in_task(_Source source not None, Turn tasks, max_packets, timeout, Cancel cancel=None,
                          Batches batches=None, min_packets=1, linger=0):
    """Take packets, waiting for the first one: :meth:`Session.receive` in a task of any loop.

    Parameters
    ----------
    source, max_packets, timeout, min_packets, linger
        As there. While it lingers, the source keeps the packets, so that a task which is cancelled loses none.
    tasks : tunring._loops.tasks.Tasks, optional
        Those of the loop; by default of the asyncio loop that runs.
    cancel : Cancel, optional
        Ends the wait, with an empty batch, once it is set and the tasks have been woken.
    batches : Batches, optional
        The iterator whose next batch it is.
    """
    cdef Batch batch = None
    cdef uint32_t enough = _packet_count(min_packets, "min_packets")
    cdef int64_t lingering = _nanoseconds(linger, "linger")
    cdef bint lingers = enough > 1 and lingering > 0 and timeout != 0
    source.lender()
    try:
        if tasks is None:
            tasks = _tasks_here(source)
        if tasks.is_over():
            await tasks.yield_turn()
        if not (tasks.woken or lingers) or timeout == 0:
            batch = source.receive_until(max_packets, 0, True)
        if batch is None or not (batch.size() or timeout == 0 or (cancel is not None and flag_is_set(&cancel.was_set))):
            batch = await tasks.receive_in_line(source, max_packets, timeout, cancel,
                                                enough if lingers else 1, lingering / 1e9)
    except SessionClosed:
        if batches is None:
            raise
        raise StopAsyncIteration from None
    if batches is not None:
        batches.keep(batch, tasks)
    return batch


@cython.final
cdef class Batches:
    """Batches as they come: what :meth:`Session.batches_async` gives."""
    cdef _Source source
    cdef object max_packets
    cdef object timeout
    cdef object min_packets
    cdef object linger
    cdef Batch batch     # the last one, or None
    cdef Turn tasks      # None before the first; an iterator stays with the loop that began it

    def __init__(self):
        raise TypeError("Session.batches_async() makes these")

    cdef int check(self) except -1:
        if self.source is None:
            raise TypeError("Session.batches_async() makes these")
        return 0

    def __aiter__(self):
        self.check()
        return self

    cdef int keep(self, Batch batch, Turn tasks) except -1:
        with cython.critical_section(self):  # other threads may be in __anext__()
            self.batch = batch
            self.tasks = tasks
        return 0

    def __anext__(self):
        cdef Batch batch
        cdef Turn tasks
        self.check()
        with cython.critical_section(self):  # each batch is let go once
            batch = self.batch
            self.batch = None
            tasks = self.tasks
        if batch is not None:
            batch.end()
        return receive_in_task(self.source, tasks, self.max_packets, self.timeout, None, self, self.min_packets,
                               self.linger)


async def send_in_task(Outgoing outgoing not None, Turn tasks, timeout):
    """Send packets, waiting for room, as :meth:`Session.send` in a task; ``tasks`` as for :func:`receive_in_task`."""
    cdef bint in_line
    outgoing.check()
    try:
        if tasks is None:
            tasks = _tasks_here(outgoing.source)
        if tasks.is_over():
            await tasks.yield_turn()
        in_line = tasks.sending and outgoing.mode == WAIT and timeout != 0
        if in_line or not (outgoing.proceed() or timeout == 0):
            await tasks.send_in_line(outgoing, timeout)
        return outgoing.sent
    finally:
        outgoing.take_packets()  # an exception may keep this frame


@cython.final
cdef class Outgoing:
    """Packets on their way: checked and held, and sent as far as there was room."""
    cdef readonly _Source source
    cdef _Packets packets        # None once they were let go
    cdef _Destinations where     # of a socket's datagrams
    cdef uint32_t count_sent     # packets that went out so far
    cdef int mode                # what to do when there is no room

    def __init__(self):
        raise TypeError("Session.send_async() makes these")

    cdef int check(self) except -1:
        if self.source is None:
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
        self.take_packets()

    cdef _Packets take_packets(self):
        cdef _Packets packets
        with cython.critical_section(self):  # one thread gets them
            packets = self.packets
            self.packets = None
        return packets

    cpdef bint proceed(self) except -1:
        """Send as many packets as fit. False if the caller must wait for more room; raises what Session.send does.

        At the end the packets are released.
        """
        cdef _Packets packets = self.take_packets()
        self.check()
        if packets is None:
            raise ValueError("the packets were released")
        try:
            self.source.send_rest(packets, self.where, PARTIAL if self.mode == WAIT else self.mode, 0)
        finally:
            self.count_sent = packets.sent
        if self.mode != WAIT or packets.sent == packets.count:
            return True
        with cython.critical_section(self):
            self.packets = packets
        return False


@cython.final
@cython.no_gc
cdef class Notifier:
    """Waits for packets, or for room, in a thread, for an event loop. It doesn't keep what it watches."""
    cdef tunring_notifier *notifier  # ours

    def __cinit__(self, _Source source not None, bint room=False):
        cdef tunring_source *lender = source.lender()
        cdef HANDLE event = source.room_event() if room else tunring_source_read_event(lender)
        cdef DWORD code
        if not event:
            raise TypeError(f"{source!r} has no event for room")
        code = tunring_notifier_open(lender, event, &self.notifier)
        if code != ERROR_SUCCESS:
            raise error_from_code(code, "can't watch for packets")

    def __dealloc__(self):
        if self.notifier:
            tunring_notifier_free(self.notifier)

    def wait(self) -> bool:
        """Wait until :meth:`arm` was called and the event is ready. False once it is over."""
        cdef DWORD code
        with nogil:  # the caller's reference to `self` holds the notifier
            code = tunring_notifier_wait(self.notifier)
        if code not in (ERROR_SUCCESS, ERROR_HANDLE_EOF):
            raise error_from_code(code, "can't wait for packets")
        return code == ERROR_SUCCESS

    def arm(self) -> None:
        """Let :meth:`wait` go on. Not again before it has returned."""
        tunring_notifier_arm(self.notifier)

    def end(self) -> None:
        """End :meth:`wait` for good."""
        tunring_notifier_end(self.notifier)
