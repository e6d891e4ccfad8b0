# Descriptors that the Python modules use. Included by _core.pyx.

cdef enum:
    # In place of a descriptor: nobody has made one; it is closed.
    _UNMADE = -2
    _CLOSED = -1


@cython.final
@cython.no_gc
cdef class Descriptor:
    """A descriptor of ours: at least 3, not inherited by programs that are executed, and closed in a forked child.

    It is closed with the last reference. :func:`open_socket`, :func:`accept_client` and :func:`open_file` make it.
    """
    cdef int number           # or _UNMADE, or _CLOSED
    cdef unsigned generation  # of the process that it is of

    def __cinit__(self):
        self.number = _UNMADE
        # Before the descriptor is made: one of the parent's is never taken for the child's.
        self.generation = os_generation()

    def __init__(self):
        raise TypeError("open_socket(), accept_client() and open_file() make descriptors")

    def __dealloc__(self):
        if self.number >= 0 and self.generation == os_generation():
            descriptor_close(self.number)

    def __reduce__(self):
        raise TypeError("a descriptor can't be copied or pickled")

    cdef int check(self) except -1:
        if self.number == _UNMADE:
            raise TypeError("open_socket(), accept_client() and open_file() make descriptors")
        return 0

    cdef Descriptor keep(self, int number):
        """Take what the system has made, or its failure."""
        if number < 0:
            raise OSError(-number, os.strerror(-number))
        self.number = number
        return self

    def fileno(self) -> int:
        """The number. Raises OSError once it is closed, and SessionClosed in a forked child."""
        self.check()
        if self.generation != os_generation():
            raise _session_closed("no descriptor", "forked", "it was made before the fork: it is the parent process's")
        if self.number < 0:
            raise OSError(errno.EBADF, "the descriptor is closed")
        return self.number

    def close(self) -> None:
        """Close it. Idempotent. May be called from any thread; in a forked child it does nothing."""
        cdef int number
        self.check()
        with cython.critical_section(self):  # of several threads, one closes it
            number = self.number
            self.number = _CLOSED
        if number < 0 or self.generation != os_generation():
            return
        with nogil:  # the number is a copy
            descriptor_close(number)


def open_socket(int family, int kind, int protocol=0) -> Descriptor:
    """Make a socket. Raises OSError."""
    cdef Descriptor made = Descriptor.__new__(Descriptor)
    cdef int number
    with nogil:
        number = descriptor_socket(family, kind, protocol)
    return made.keep(number)


def open_file(path) -> Descriptor:
    """Open a file to read it. Raises OSError."""
    cdef Descriptor made = Descriptor.__new__(Descriptor)
    cdef bytes encoded = os.fsencode(path)
    cdef const char *chars = encoded
    cdef int number
    with nogil:  # `encoded` holds the characters
        number = descriptor_open(chars)
    return made.keep(number)


def accept_client(Descriptor listening not None) -> Descriptor:
    """Take a client of a listening socket that does not block. Raises OSError; BlockingIOError if there is none."""
    cdef Descriptor made = Descriptor.__new__(Descriptor)
    # With the GIL, as it does not wait: no thread closes `listening`, whose number may then be another file's.
    return made.keep(descriptor_accept(listening.fileno()))
