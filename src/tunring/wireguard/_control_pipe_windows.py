r"""The named pipe at which ``wg.exe`` finds a device: ``\\.\pipe\ProtectedPrefix\Administrators\WireGuard\NAME``.

Windows lets only administrators make pipes under that prefix.
"""

from __future__ import annotations

import _winapi
import ctypes
import errno
import io
import logging
import sys
import threading
import time
from contextlib import contextmanager
from ctypes import wintypes
from typing import TYPE_CHECKING, Any

from tunring.wireguard._control_stream import MAX_CLIENTS, converse, start_thread

assert sys.platform == "win32"

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tunring.wireguard.device import Device

log = logging.getLogger("tunring.wireguard")

_PREFIX = "\\\\.\\pipe\\ProtectedPrefix\\Administrators\\WireGuard\\"

#: The system owns the pipe, or wg.exe refuses it. The system and administrators may use it, if they are elevated.
_SECURITY = "O:SYD:P(A;;GA;;;SY)(A;;GA;;;BA)S:(ML;;NWNRNX;;;HI)"

_FIRST_INSTANCE, _REJECT_REMOTE_CLIENTS = 0x80000, 8

#: Codes of Windows for what a process that is not elevated may not do: the pipe's folder, its owner, its label.
_ACCESS_DENIED, _NOT_ALL_ASSIGNED, _INVALID_OWNER, _PRIVILEGE_NOT_HELD = 5, 1300, 1307, 1314
_NOT_ALLOWED = {_ACCESS_DENIED, _NOT_ALL_ASSIGNED, _INVALID_OWNER, _PRIVILEGE_NOT_HELD}

_descriptor_of = ctypes.WinDLL(
    "advapi32.dll", use_last_error=True, winmode=0x800
).ConvertStringSecurityDescriptorToSecurityDescriptorW
_descriptor_of.argtypes = [wintypes.LPCWSTR, wintypes.DWORD, ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p]
_descriptor_of.restype = wintypes.BOOL
_local_free = ctypes.WinDLL("kernel32.dll", winmode=0x800).LocalFree
_local_free.argtypes = [ctypes.c_void_p]
_local_free.restype = ctypes.c_void_p

#: Bytes that may be on their way in each direction.
_BUFFER = 64 << 10

#: UTF-16 units of an interface's name at most, as wintun.h has it, without the NUL.
_MAX_NAME = 127

#: Seconds that a client waits for a free instance, and for each part of an answer.
_PATIENCE = 10.0
_POLL_SECONDS = 0.01

#: Seconds to wait after a failure of the server's, which may last.
_PAUSE = 1.0


def path_of(name: str) -> str:
    """The pipe's path for an interface. Raises ValueError for names that would lead elsewhere."""
    if not name or {"/", "\\", "\0"} & set(name) or len(name.encode("utf-16-le")) > 2 * _MAX_NAME:
        text = f"an interface's name must have 1 to {_MAX_NAME} characters without '/' and '\\'"
        raise ValueError(f"{text}, not {name!r}")
    return _PREFIX + name


class PipeStream(io.RawIOBase):
    """One end of a pipe. An operation ends by data, by a timeout in seconds, or by :meth:`cancel`."""

    def __init__(self, handle: int, timeout: float | None = None) -> None:
        self._handle = handle
        self._wait = _winapi.INFINITE if timeout is None else round(1000 * timeout)
        self._lock = threading.Lock()  # on the next two
        self._pending: set[_winapi.Overlapped] = set()
        self._canceled = False

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def accept(self) -> None:
        """Wait for a client. Raises BrokenPipeError if one has come and is gone."""
        self._complete(lambda: _winapi.ConnectNamedPipe(self._handle, overlapped=True))

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        try:
            done = self._complete(lambda: _winapi.ReadFile(self._handle, len(view), overlapped=True)[0])
        except BrokenPipeError:
            return 0
        data = done.getbuffer() or b""
        view[: len(data)] = data
        return len(data)

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self._complete(lambda: _winapi.WriteFile(self._handle, bytes(data), overlapped=True)[0])
        return size

    def _complete(self, begin: Callable[[], _winapi.Overlapped]) -> _winapi.Overlapped:
        with self._lock:
            if self._canceled:
                raise BrokenPipeError("the pipe is closed")
            operation = begin()
            self._pending.add(operation)
        try:
            if _winapi.WaitForSingleObject(operation.event, self._wait) == _winapi.WAIT_TIMEOUT:
                operation.cancel()
                operation.GetOverlappedResult(True)
                raise TimeoutError("the other end of the pipe does not answer")
            if operation.GetOverlappedResult(True)[1] == _winapi.ERROR_OPERATION_ABORTED:
                raise BrokenPipeError("the pipe is closed")
            return operation
        finally:
            with self._lock:
                self._pending.discard(operation)

    def cancel(self) -> None:
        """End what is going on, and whatever begins later. From any thread."""
        with self._lock:
            self._canceled = True
            for operation in self._pending:
                operation.cancel()

    def close(self) -> None:
        """Close it. Only the thread that reads and writes may do so."""
        if not self.closed:
            super().close()
            _winapi.CloseHandle(self._handle)


class ControlServer:
    """Serves a pipe, and answers requests about a device. It starts no thread before :meth:`start`.

    Parameters
    ----------
    path : str
        The pipe's path.

    Raises
    ------
    OSError
        There is such a pipe already, or the process is not elevated.
    """

    def __init__(self, path: str) -> None:
        self._device: Device | None = None
        self._path = path
        self._lock = threading.Lock()  # on the next two
        self._closed = False
        self._streams = {first := PipeStream(_first_instance(path))}
        self._thread = threading.Thread(
            target=self._serve, args=(first,), name="tunring-wireguard-control", daemon=True
        )

    def start(self, device: Device) -> None:
        """Begin to answer about a device. Earlier connections wait until then."""
        self._device = device
        self._thread.start()

    def is_there(self) -> bool:
        """Return True: nobody else can remove a pipe."""
        return True

    def close(self) -> None:
        """End the pipe, and hang up on everybody."""
        with self._lock:
            self._closed = True
            for stream in self._streams:
                stream.cancel()
        if self._thread.ident is None:  # it never started, perhaps for a lack of threads
            for stream in self._streams:
                stream.close()
        elif self._thread is not threading.current_thread():
            self._thread.join()

    def _serve(self, listening: PipeStream) -> None:
        stream: PipeStream | None = listening
        while stream:
            is_connected = _accept(stream)
            # Before this instance can end: the pipe would end with its last one, and the next would be a new pipe,
            # which the system does not own, and which lacks the security descriptor.
            following = self._next()
            if is_connected:
                self._talk_to(stream)
            else:
                self._end(stream)
            stream = following

    def _next(self) -> PipeStream | None:
        """Another instance of the pipe, for the next client; None once closed."""
        while True:
            try:
                with self._lock:
                    if self._closed:
                        return None
                    made = PipeStream(_instance(self._path, 0, 0))
                    self._streams.add(made)
                    return made
            except OSError as error:
                log.error("can't wait for further clients at %s: %s", self._path, error)
            time.sleep(_PAUSE)

    def _talk_to(self, stream: PipeStream) -> None:
        with self._lock:
            # Without the one that waits for the next client.
            is_refused = self._closed or len(self._streams) - 1 > MAX_CLIENTS
        if is_refused or not start_thread(self._answer, stream):
            self._end(stream)

    def _answer(self, stream: PipeStream) -> None:
        assert self._device
        try:
            with io.BufferedReader(stream) as lines:
                converse(self._device, lines, stream.write)
        finally:
            self._end(stream)

    def _end(self, stream: PipeStream) -> None:
        with self._lock:
            self._streams.discard(stream)
        stream.close()


def _accept(stream: PipeStream) -> bool:
    """Wait for a client. False if there is none."""
    try:
        stream.accept()
    except BrokenPipeError:  # it has gone already, or close()
        return False
    except OSError as error:
        log.error("can't take a client: %s", error)
        time.sleep(_PAUSE)
        return False
    return True


def _first_instance(path: str) -> int:
    try:
        _check_free(path)
        with _security() as attributes:
            try:
                return _instance(path, _FIRST_INSTANCE, attributes)
            except OSError as error:
                if error.winerror != _INVALID_OWNER:
                    raise
            # Administrators may make the system the owner of something, but have to say so.
            from tunring._system.privilege_windows import restore_privilege

            with restore_privilege():
                return _instance(path, _FIRST_INSTANCE, attributes)
    except OSError as error:
        if error.winerror not in _NOT_ALLOWED:
            raise
        text = f"can't serve {path}: that needs an elevated process (Run as administrator)"
        raise PermissionError(errno.EACCES, text) from None


class _SecurityAttributes(ctypes.Structure):
    """SECURITY_ATTRIBUTES."""

    _fields_ = (("size", wintypes.DWORD), ("descriptor", ctypes.c_void_p), ("inherit", wintypes.BOOL))


@contextmanager
def _security() -> Iterator[int]:
    """The address of the pipe's SECURITY_ATTRIBUTES."""
    descriptor = ctypes.c_void_p()
    if not _descriptor_of(_SECURITY, 1, descriptor, None):
        raise ctypes.WinError(ctypes.get_last_error())
    try:
        made = _SecurityAttributes(ctypes.sizeof(_SecurityAttributes), descriptor, False)
        yield ctypes.addressof(made)
    finally:
        _local_free(descriptor)


def _instance(path: str, flags: int, attributes: int) -> int:
    mode = _winapi.PIPE_ACCESS_DUPLEX | _winapi.FILE_FLAG_OVERLAPPED | flags
    return _winapi.CreateNamedPipe(
        path, mode, _REJECT_REMOTE_CLIENTS, _winapi.PIPE_UNLIMITED_INSTANCES, _BUFFER, _BUFFER, 0, attributes
    )


def connect(path: str) -> io.BufferedRWPair:
    """Connect to a device. Raises OSError, which has the path."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            stream = PipeStream(_open(path), _PATIENCE)
        except OSError as error:
            # The server has another instance of the pipe in a moment.
            if error.winerror != _winapi.ERROR_PIPE_BUSY or time.monotonic() >= until:
                error.filename = path
                raise
            time.sleep(_POLL_SECONDS)
        else:
            return io.BufferedRWPair(stream, stream)


def _open(path: str) -> int:
    access = _winapi.GENERIC_READ | _winapi.GENERIC_WRITE
    return _winapi.CreateFile(path, access, 0, 0, _winapi.OPEN_EXISTING, _winapi.FILE_FLAG_OVERLAPPED, 0)


def _check_free(path: str) -> None:
    """Raise OSError if somebody serves a pipe."""
    try:
        _winapi.CloseHandle(_open(path))
    except FileNotFoundError:
        return
    except OSError as error:
        if error.winerror != _winapi.ERROR_PIPE_BUSY:
            raise
    raise OSError(errno.EADDRINUSE, f"another process serves {path} already")
