# Secrets that are kept for longer than a call. Included by _core.pyx.

@cython.final
@cython.no_gc
cdef class Secret:
    """A secret of 1 to 32 bytes, in memory that a forked child finds empty and a core dump lacks.

    It is a read-only buffer: what takes bytes-like objects takes it, too. It is wiped by :meth:`wipe`, and when it is
    dropped. Any thread may use it.

    Parameters
    ----------
    value : bytes-like object
        It is copied.

    Raises
    ------
    SessionClosed
        By each use, :meth:`wipe` apart: the secret was wiped, or was made before a fork.
    """
    cdef tunring_secret *secret  # NULL only if __cinit__ failed; freed by __dealloc__

    def __cinit__(self, value):
        cdef Py_buffer buffer
        cdef DWORD code
        try:
            PyObject_GetBuffer(value, &buffer, PyBUF_SIMPLE)
        except (TypeError, BufferError):
            raise TypeError(f"a secret must be bytes-like and contiguous, not {type(value).__name__}") from None
        try:
            if not 1 <= buffer.len <= TUNRING_SECRET_SIZE:
                raise ValueError(f"a secret must have 1 to {TUNRING_SECRET_SIZE} bytes, not {buffer.len}")
            code = tunring_secret_new(<const BYTE *>buffer.buf, <uint32_t>buffer.len, &self.secret)
        finally:
            PyBuffer_Release(&buffer)
        if code != ERROR_SUCCESS:
            raise error_from_code(code, "can't keep a secret")

    def __dealloc__(self):
        tunring_secret_free(self.secret)  # buffers and calls hold us, so nobody is inside

    cdef BYTE *enter(self) except NULL:
        """Its bytes, until leave()."""
        cdef BYTE *data = tunring_secret_enter(self.secret)
        if data:
            return data
        if tunring_secret_state(self.secret) == TUNRING_FORKED:
            raise _session_closed("can't use a secret", "forked",
                                  "it was made before the fork: it is the parent process's")
        raise _session_closed("can't use a secret", "closed", "it was wiped")

    cdef void leave(self) noexcept:
        tunring_secret_leave(self.secret)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        cdef BYTE *data = self.enter()
        try:
            PyBuffer_FillInfo(buffer, self, data, tunring_secret_size(self.secret), 1, flags)
        except BaseException:
            self.leave()
            raise

    def __releasebuffer__(self, Py_buffer *buffer):
        self.leave()

    def __len__(self):
        return tunring_secret_size(self.secret)

    def __eq__(self, other):
        """Compare in constant time with another Secret of the same length."""
        cdef Secret right
        cdef const BYTE *mine
        cdef const BYTE *its
        cdef uint32_t i
        cdef uint32_t size = tunring_secret_size(self.secret)
        cdef BYTE difference = 0
        if not isinstance(other, Secret):
            return NotImplemented
        right = other
        mine = self.enter()
        try:
            its = right.enter()
        except BaseException:
            self.leave()
            raise
        if size == tunring_secret_size(right.secret):
            for i in range(size):
                difference |= mine[i] ^ its[i]
        else:
            difference = 1
        right.leave()
        self.leave()
        return not difference

    def __repr__(self):
        return f"<tunring._core.Secret of {len(self)} bytes{', wiped' if self.wiped else ''}>"

    def __reduce__(self):
        raise TypeError("a Secret can't be copied or pickled")

    @property
    def wiped(self) -> bool:
        """True once :meth:`wipe` was called, and in a forked child."""
        return tunring_secret_state(self.secret) != TUNRING_OPEN

    @property
    def protection(self) -> dict:
        """How far the system protects its memory: ``empty_in_child``, ``not_dumped`` and ``locked``, each a bool."""
        cdef unsigned flags = tunring_secret_protection(self.secret)
        return {
            "empty_in_child": bool(flags & OS_SECRET_EMPTY_IN_CHILD),
            "not_dumped": bool(flags & OS_SECRET_NOT_DUMPED),
            "locked": bool(flags & OS_SECRET_LOCKED),
        }

    def wipe(self) -> None:
        """Overwrite it by zeros: at once or, while a buffer or a call uses it, after that. Idempotent.

        May be called from any thread. A child that was forked does nothing.
        """
        tunring_secret_close(self.secret)
