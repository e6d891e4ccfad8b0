# Files that captures are written to. Included by _core.pyx.

cdef struct _PcapngWriting:
    tunring_pcapng_file *file
    tunring_captured what
    uint32_t done


cdef struct _PcapngDescribing:
    tunring_pcapng_file *file
    const char *name
    const char *description
    uint32_t snaplen
    uint32_t number


cdef struct _PcapngFlushing:
    tunring_pcapng_file *file
    uint64_t position


cdef DWORD _pcapng_write(void *state, const tunring_wait *wait) noexcept nogil:
    cdef _PcapngWriting *call = <_PcapngWriting *>state
    return tunring_pcapng_write(call.file, &call.what, wait, &call.done)


cdef DWORD _pcapng_describe(void *state, const tunring_wait *wait) noexcept nogil:
    cdef _PcapngDescribing *call = <_PcapngDescribing *>state
    return tunring_pcapng_add_interface(call.file, call.name, call.description, call.snaplen, wait, &call.number)


cdef DWORD _pcapng_flush(void *state, const tunring_wait *wait) noexcept nogil:
    cdef _PcapngFlushing *call = <_PcapngFlushing *>state
    return tunring_pcapng_flush(call.file, call.position, wait)


cdef DWORD _pcapng_close(void *state, const tunring_wait *wait) noexcept nogil:
    return tunring_pcapng_close(<tunring_pcapng_file *>state, wait)


cdef DWORD _pcapng_exit(void *state, const tunring_wait *wait) noexcept nogil:
    return tunring_pcapng_exit(wait)


def finish_pcapng_files(timeout) -> bool:
    """For the interpreter's exit: let no file take anything more, and wait until what they have is written.

    Returns false if it was not within that many seconds.
    """
    return _wait_for(_pcapng_exit, NULL, _deadline(timeout)) == ERROR_SUCCESS


@cython.final
@cython.no_gc
cdef class _Times:
    """Times of packets, in nanoseconds since 1970 UTC: one for all, or one each."""
    cdef uint64_t one      # for all
    cdef uint64_t *each    # `count` of them, ours; NULL: one for all
    cdef Py_ssize_t count  # packets

    def __cinit__(self, timestamps):
        if timestamps is None:
            self.one = time.time_ns()
            return
        if isinstance(timestamps, int):
            self.one = self.check(timestamps, "timestamps")
            return
        if isinstance(timestamps, (float, str, bytes, bytearray)):
            raise TypeError("timestamps must be an integer, in nanoseconds since 1970 as time.time_ns() gives it, or a "
                            f"sequence of such integers, not {timestamps!r}")
        cdef list items = list(timestamps)
        self.count = len(items)
        self.each = <uint64_t *>_allocate(self.count, sizeof(uint64_t))
        cdef Py_ssize_t i
        for i in range(self.count):
            self.each[i] = self.check(items[i], f"timestamps[{i}]")

    cdef uint64_t check(self, value, str what) except? 0:
        try:
            number = operator.index(value)
        except TypeError:
            raise TypeError(f"{what} must be an integer, in nanoseconds since 1970, not {value!r}") from None
        if not 0 <= number < 1 << 64:
            raise ValueError(f"{what} must be 0 or more nanoseconds since 1970, and less than 2**64, not {value}")
        return number

    def __dealloc__(self):
        PyMem_Free(self.each)


@cython.final
@cython.no_gc
cdef class PcapngFile:
    """A pcapng file that is being written: what :class:`tunring.pcapng.Writer` is made of.

    It takes a copy of the descriptor; on Windows of the handle.
    """
    cdef tunring_pcapng_file *file  # NULL only when __cinit__ failed; this object has one of its references
    cdef str file_name             # for messages

    def __cinit__(self, size_t original, str application not None, str file_name not None):
        cdef bytes text = application.encode()
        cdef const char *characters = text
        cdef DWORD code
        # `text` holds the name, and nobody else has `self` yet. The descriptor, which the call copies, is the caller's.
        with nogil:
            code = tunring_pcapng_open(<HANDLE>original, characters, &self.file)
        if code != ERROR_SUCCESS:
            raise error_from_code(code, f"can't write to {file_name}")
        self.file_name = file_name

    def __dealloc__(self):
        # A session that is captured to it keeps the C core's part of it.
        if self.file:
            # The reference that is given up holds the file.
            with nogil:
                tunring_pcapng_drop(self.file)

    def __reduce__(self):
        raise TypeError("a pcapng file can't be copied or pickled")

    cdef tunring_pcapng_file *get(self) except NULL:
        if not self.file:
            raise TypeError("tunring.pcapng.Writer makes pcapng files")
        return self.file

    cdef int check(self, DWORD code) except -1:
        if code == ERROR_HANDLE_EOF:
            raise ValueError(f"{self.file_name}: the capture is closed, was opened by the process that forked this "
                             "one, or the interpreter exits")
        if code == ERROR_GEN_FAILURE:
            raise self.failure
        if code != ERROR_SUCCESS:
            raise error_from_code(code, f"can't write to {self.file_name}")
        return 0

    @property
    def failure(self):
        """The OSError that ended the capture, or None."""
        cdef int code = tunring_pcapng_failure(self.get())
        if not code:
            return None
        if os.name == "nt":
            import ctypes

            return OSError(0, ctypes.FormatError(code), self.file_name, code)
        return OSError(code, os.strerror(code), self.file_name)

    @property
    def interfaces(self) -> int:
        """The number of interfaces that the file has."""
        return tunring_pcapng_interfaces(self.get())

    @property
    def packets(self) -> int:
        """Packets that the file has or is about to get."""
        return tunring_pcapng_packets(self.get())

    @property
    def dropped(self) -> int:
        """Packets that are missing: there was no room for them, or the file failed or was given up before."""
        return tunring_pcapng_dropped(self.get())

    def add(self, str name not None, str description not None, unsigned int snaplen) -> int:
        """Describe an interface, and return its number."""
        cdef bytes name_bytes = name.encode()
        cdef bytes description_bytes = description.encode()
        cdef _PcapngDescribing call
        cdef DWORD code
        call.file = self.get()
        call.name = name_bytes
        call.description = description_bytes
        call.snaplen = snaplen
        call.number = 0
        # The caller's reference to `self` holds the file, this function's the texts.
        code = _wait_for(_pcapng_describe, &call, TUNRING_FOREVER)
        if code == ERROR_INVALID_PARAMETER:
            raise ValueError("a capture has at most 64 interfaces")
        self.check(code)
        return call.number

    def write(self, packets, int direction, timestamps, unsigned int interface) -> int:
        """Put packets into the buffer, waiting for room there, and return their number."""
        cdef _Times times = _Times(timestamps)
        cdef _Packets held = None
        cdef Batch batch
        cdef bint entered = False
        cdef _PcapngWriting call
        call.file = self.get()
        call.done = 0
        call.what.interface_id = interface
        call.what.direction = <tunring_direction>direction
        call.what.packets = NULL
        call.what.slots = NULL
        call.what.count = 0
        call.what.headers = NULL
        if interface >= tunring_pcapng_interfaces(call.file):
            raise ValueError(f"the capture has no interface {interface}, only {self.interfaces}")
        try:
            if isinstance(packets, Batch):
                batch = packets
                entered = batch.enter("captured")
                if entered:
                    call.what.slots = batch.lease.table()
                    call.what.count = batch.lease.count()
            else:
                held = _packets_from_items(packets)
                call.what.packets = held.packets
                call.what.count = held.count
            if times.each and times.count != call.what.count:
                raise ValueError(f"{call.what.count} packets need as many timestamps, not {times.count}")
            call.what.times = times.each if times.each else &times.one
            call.what.one_time = times.each == NULL
            # The caller's reference to `self` holds the file; `held`, or the lease in its operation, the packets.
            self.check(_wait_for(_pcapng_write, &call, TUNRING_FOREVER))
        finally:
            if entered:
                batch.leave()
        return call.done

    def flush(self, timeout) -> bool:
        """Wait until the system has taken what was written so far; false if it has not within that many seconds."""
        cdef int64_t deadline = _deadline(timeout)
        cdef _PcapngFlushing call
        cdef DWORD code
        call.file = self.get()
        call.position = tunring_pcapng_position(call.file)
        # The caller's reference to `self` holds the file.
        code = _wait_for(_pcapng_flush, &call, deadline)
        if code == WAIT_TIMEOUT:
            return False
        self.check(code)
        return True

    def close(self, timeout) -> bool:
        """Take nothing more, and wait until the file is closed; false if it is not within that many seconds.

        The error that has ended the file is not raised: see ``failure``.
        """
        cdef int64_t deadline = _deadline(timeout)
        cdef DWORD code
        # The caller's reference to `self` holds the file.
        code = _wait_for(_pcapng_close, self.get(), deadline)
        if code == ERROR_HANDLE_EOF:
            self.check(code)
        return code != WAIT_TIMEOUT

    def give_up(self) -> None:
        """Take nothing more, and write nothing more."""
        cdef tunring_pcapng_file *file = self.get()
        # The caller's reference to `self` holds the file.
        with nogil:
            tunring_pcapng_give_up(file)
