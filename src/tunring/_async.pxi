# What event loops need of the core: sends that go on where they stopped, and an alarm. Included by _core.pyx.

@cython.final
cdef class Outgoing:
    """Packets on their way: checked and held, and sent as far as there was room."""
    cdef _Session session
    cdef _Packets packets        # None once they were let go
    cdef readonly uint32_t sent
    """Packets that went out so far."""
    cdef int mode                # what to do when the ring is full

    def __init__(self):
        raise TypeError("Session.send_async() makes these")

    def let_go(self) -> None:
        """Hold the packets no longer."""
        self.packets = None

    @property
    def waits(self) -> bool:
        """Whether to wait when the ring is full."""
        return self.mode == WAIT

    def proceed(self) -> bool:
        """Send what there is room for. False if the caller is to wait for more; raises what Session.send does.

        At the end the packets are let go.
        """
        cdef _Packets packets = self.packets
        if packets is None:
            raise ValueError("the packets were let go")
        self.packets = None
        try:
            self.session.send_rest(packets, PARTIAL if self.mode == WAIT else self.mode, 0)
        finally:
            self.sent = packets.sent
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
        cdef DWORD code = tunring_alarm_open(session.get(), &self.alarm)
        if code != ERROR_SUCCESS:
            raise error_from_code(code, "can't watch the session")

    def __dealloc__(self):
        if self.alarm:
            tunring_alarm_free(self.alarm)

    def wait(self) -> bool:
        """Wait until :meth:`arm` was called and packets are there, or the session fails. False once it is over."""
        cdef DWORD code
        with nogil:
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
