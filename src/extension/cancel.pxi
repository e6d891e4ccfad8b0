# Ending a receive from another thread without closing its session. Included by _core.pyx.

@cython.final
@cython.no_gc
cdef class Cancel:
    """A switch that ends :meth:`Session._receive_or_cancel`, for good."""
    cdef os_event event      # set: receives end
    cdef bint opened         # the event is ours to close
    cdef readonly bint called
    """True after :meth:`set`."""

    def __cinit__(self):
        if not os_event_open(&self.event):
            raise error_from_code(GetLastError(), "can't make an event")
        self.opened = True

    def __dealloc__(self):
        if self.opened:
            os_event_close(&self.event)

    def set(self) -> None:
        """End what waits, and what will. From any thread."""
        self.called = True
        os_event_set(&self.event)
