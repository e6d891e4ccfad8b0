"""Failures, as exceptions.

Every failure that a library of the Wintun ABI reports becomes a :class:`WintunError` or one of its subclasses. Each is
an OSError, and where Python has a closer built-in exception, that one as well (``PermissionError``,
``FileNotFoundError``, ...). The library's own code is in ``winerror`` on every system; ``errno`` is the POSIX
equivalent.
"""

from __future__ import annotations

import errno

from tunring._win32 import Win32

#: Win32 code -> (text, POSIX equivalent). The texts are ours: libraries and systems differ in theirs.
_CODES: dict[int, tuple[str, int]] = {
    Win32.FILE_NOT_FOUND: ("not found", errno.ENOENT),
    Win32.TOO_MANY_OPEN_FILES: ("out of file descriptors or handles", errno.EMFILE),
    Win32.ACCESS_DENIED: ("access denied", errno.EACCES),
    Win32.NOT_ENOUGH_MEMORY: ("out of memory", errno.ENOMEM),
    Win32.INVALID_DATA: ("the ring is corrupt", errno.EIO),
    Win32.GEN_FAILURE: ("the system refused", errno.EIO),
    Win32.HANDLE_EOF: ("the session is over", errno.ESHUTDOWN),
    Win32.NOT_SUPPORTED: ("not supported", errno.EOPNOTSUPP),
    Win32.INVALID_PARAMETER: ("invalid argument", errno.EINVAL),
    Win32.BUFFER_OVERFLOW: ("the ring is full", errno.EAGAIN),
    Win32.MOD_NOT_FOUND: ("the library was not found", errno.ENOENT),
    Win32.PROC_NOT_FOUND: ("the library lacks a function", errno.ENOSYS),
    Win32.BUSY: ("busy", errno.EBUSY),
    Win32.ALREADY_EXISTS: ("the name is taken", errno.EEXIST),
    Win32.BAD_EXE_FORMAT: ("not a library for this machine", errno.ENOEXEC),
    Win32.EXE_MACHINE_TYPE_MISMATCH: ("a library for another machine", errno.ENOEXEC),
    Win32.INVALID_IMAGE_HASH: ("not an official build", errno.ENOEXEC),
    Win32.NOT_FOUND: ("not found", errno.ENOENT),
    Win32.ALREADY_INITIALIZED: ("the adapter has a session already", errno.EBUSY),
}


class WintunError(OSError):
    """A call of the Wintun ABI failed.

    Parameters
    ----------
    code : int
        The Win32 error code.
    message : str, optional
        The failure in words; the code's own text by default.
    number : int, optional
        The system's own error number, where a call of the system has failed; the code's POSIX equivalent by default.

    Attributes
    ----------
    winerror : int
        The Win32 error code, on every system.
    errno : int
        The system's own error number where there was one, else the code's POSIX equivalent: ``EACCES`` for
        ERROR_ACCESS_DENIED.
    sent : int
        Packets that were sent before the failure, where the call was sending.

    Examples
    --------
    >>> from tunring.errors import error_from_code
    >>> error = error_from_code(5, "can't create the adapter")
    >>> isinstance(error, PermissionError), error.winerror, error.errno
    (True, 5, 13)
    """

    sent: int = 0

    def __init__(self, code: int, message: str | None = None, number: int | None = None) -> None:
        text, equivalent = _CODES.get(code, (f"error {code}", errno.EIO))
        super().__init__(number or equivalent, message or text)
        self.winerror = int(code)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.winerror, self.strerror, self.errno), self.__dict__)


class SessionClosed(WintunError, EOFError):
    """The session is over.

    Attributes
    ----------
    reason : str
        ``"closed"`` by :meth:`Session.close`, ``"removed"`` with its adapter, or ``"forked"``: it belongs to the
        parent process.
    """

    reason: str = "closed"


class AccessDenied(WintunError, PermissionError):
    """The caller lacks the privilege."""


class NotFound(WintunError, FileNotFoundError):
    """There is no such adapter, driver or device."""


class AlreadyExists(WintunError, FileExistsError):
    """The adapter's name is taken."""


class InvalidArgument(WintunError, ValueError):
    """The library refused a value."""


class RingCorrupt(WintunError):
    """The ring's contents are corrupt. The session can't be used any more; start another one."""


class RingFull(WintunError, BlockingIOError):
    """The ring has no room now; ``sent`` is the number of packets sent before."""


class AdapterBusy(WintunError):
    """The adapter has a session, or packets of an old one are still held."""


class FamilyDisabled(WintunError):
    """IPv4 or IPv6 is switched off for the interface, or for the whole system.

    Attributes
    ----------
    version : int
        The IP version, 4 or 6.
    """

    version: int = 6


class LibraryNotFound(WintunError, FileNotFoundError):
    """There is no such library. The message lists the places that were tried."""


class LibraryInvalid(WintunError):
    """The file is not a library for this machine, or lacks one of the 14 functions."""


_CLASSES: dict[int, type[WintunError]] = {
    Win32.FILE_NOT_FOUND: NotFound,
    Win32.ACCESS_DENIED: AccessDenied,
    Win32.INVALID_DATA: RingCorrupt,
    Win32.HANDLE_EOF: SessionClosed,
    Win32.INVALID_PARAMETER: InvalidArgument,
    Win32.BUFFER_OVERFLOW: RingFull,
    Win32.MOD_NOT_FOUND: LibraryNotFound,
    Win32.PROC_NOT_FOUND: LibraryInvalid,
    Win32.BUSY: AdapterBusy,
    Win32.ALREADY_EXISTS: AlreadyExists,
    Win32.BAD_EXE_FORMAT: LibraryInvalid,
    Win32.EXE_MACHINE_TYPE_MISMATCH: LibraryInvalid,
    Win32.INVALID_IMAGE_HASH: LibraryInvalid,
    Win32.NOT_FOUND: NotFound,
    Win32.ALREADY_INITIALIZED: AdapterBusy,
}


def error_from_code(code: int, action: str, detail: str = "", number: int | None = None) -> WintunError:
    """Make the exception for a Win32 code.

    Parameters
    ----------
    code : int
        The Win32 error code.
    action : str
        The action that failed: "can't open the adapter 'x'".
    detail : str, optional
        More on the reason, as the library logged it.
    number : int, optional
        The system's own error number, where there was one.
    """
    kind = _CLASSES.get(code, WintunError)
    text, _ = _CODES.get(code, (f"error {code}", errno.EIO))
    message = f"{action}: {text} (code {code})"
    return kind(code, f"{message}\n{detail}" if detail else message, number)
