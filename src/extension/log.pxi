# Log lines, and the process-wide counts. Included by _core.pyx.

def log_enable(Library library not None, bint enabled):
    """Queue the library's log lines for :func:`log_next`, or don't."""
    cdef DWORD code = tunring_log_enable(library.log_id, enabled)
    if code != ERROR_SUCCESS:
        raise error_from_code(code, "can't open the log queue")


def log_next():
    """Wait for a line: (library's number, level, time in 100 ns since 1601, text). None after :func:`log_stop`."""
    cdef tunring_log_line line
    cdef DWORD code
    # `line` is on this stack, and the queue is static.
    with nogil:
        code = tunring_log_next(&line)
    if code != ERROR_SUCCESS:
        return None
    return line.library, line.level, line.time, (<bytes>line.text).decode("utf-8", "replace")


def log_stop():
    """End :func:`log_next` for good."""
    tunring_log_stop()


def log_lost() -> int:
    """Lines lost because the queue was full."""
    return tunring_log_lost()


def pinned_sessions() -> int:
    """Closed sessions that wait for their last packet to be let go."""
    return tunring_sources_pinned()


def leaked_sessions() -> int:
    """Sessions that could not be ended, since the system had removed their adapter."""
    return tunring_sessions_leaked()
