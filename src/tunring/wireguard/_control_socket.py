"""The socket at which ``wg`` finds a device: /var/run/wireguard/NAME.sock."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import stat
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tunring._system.own_socket import accept, make_socket
from tunring.wireguard._control_stream import MAX_CLIENTS, converse, start_thread

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator

    from tunring.wireguard.device import Device

assert sys.platform != "win32"

log = logging.getLogger("tunring.wireguard")

#: Where ``wg`` looks.
FOLDER = Path("/var/run/wireguard")

#: Seconds that each part of an answer may take.
_PATIENCE = 10.0

#: Seconds to wait where the process has no descriptor for a client.
_PAUSE = 0.1


def path_of(name: str, folder: Path = FOLDER) -> Path:
    """The socket's path for an interface. Raises ValueError for names that would lead elsewhere."""
    if not name or "/" in name or name in {".", ".."} or len(name) > 15 or any(map(str.isspace, name)):
        raise ValueError(f"an interface's name must have 1 to 15 characters without '/' and white space, not {name!r}")
    return folder / f"{name}.sock"


class ControlServer:
    """Listens at a path, and answers requests about a device. It starts no thread before :meth:`start`.

    Parameters
    ----------
    path : Path
        The socket's path. A socket there that nobody listens at is replaced.

    Raises
    ------
    OSError
        Somebody listens there, or the path is something else than a socket.
    """

    def __init__(self, path: Path) -> None:
        self._device: Device | None = None
        self._path = path
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._socket = make_socket(socket.AddressFamily["AF_UNIX"], socket.SOCK_STREAM)
        try:
            self._identity = _listen_at(self._socket, path)
        except BaseException:
            self._socket.close()
            raise
        self._clients: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._serve, name="tunring-wireguard-control", daemon=True)

    def start(self, device: Device) -> None:
        """Begin to answer about a device. Earlier connections wait until then."""
        self._device = device
        self._thread.start()

    def is_there(self) -> bool:
        """Return whether the file is still the one that was made."""
        try:
            return _identity(self._path) == self._identity
        except OSError:
            return False

    def close(self) -> None:
        """Remove the file, if it is still ours, and hang up on everybody. In a forked child it does nothing."""
        if self._process != os.getpid():
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
        if self.is_there():
            self._path.unlink(missing_ok=True)
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        with self._lock:
            clients = list(self._clients)
        for client in clients:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        while True:
            try:
                client = accept(self._socket)
            except OSError as error:
                if error.errno in {errno.EMFILE, errno.ENFILE}:
                    # The client still waits, so the next call would fail at once, too.
                    time.sleep(_PAUSE)
                    continue
                if error.errno in {errno.ECONNABORTED, errno.EINTR}:
                    continue
                return
            with self._lock:
                # close() disconnects the clients that it finds here, and none that come later.
                refused = self._closed or len(self._clients) >= MAX_CLIENTS
                if not refused:
                    self._clients.add(client)
            if refused:
                client.close()
            elif not start_thread(self._answer, client):
                self._end(client)

    def _answer(self, client: socket.socket) -> None:
        assert self._device
        try:
            with client.makefile("rb") as lines:
                converse(self._device, lines, client.sendall)
        finally:
            self._end(client)

    def _end(self, client: socket.socket) -> None:
        client.close()
        with self._lock:
            self._clients.discard(client)


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def _listen_at(listening: socket.socket, path: Path) -> tuple[int, int]:
    """Let a socket listen at a path, and return its file's identity.

    A socket that is bound but does not listen yet looks like one that was left over: it gets its name last of all.
    """
    new = path.with_suffix(".new")  # wg lists those that end in .sock
    with _turn_at(path):
        _remove_stale(path)
        try:
            new.unlink(missing_ok=True)
            listening.bind(str(new))
            # Nobody can connect before listen().
            new.chmod(0o600)
            listening.listen(16)
            os.link(new, path)
            return _identity(path)
        except OSError as error:
            raise _about(error, path) from None
        finally:
            with suppress(OSError):
                new.unlink(missing_ok=True)


@contextmanager
def _turn_at(path: Path) -> Iterator[None]:
    """Let one process at a time find that nobody serves a path, and begin to. Nothing is left over."""
    file = path.with_suffix(".lock")
    while True:
        try:
            lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise _about(error, path) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_at(lock, file):
                continue  # the one before us has removed it
            try:
                yield
            finally:
                file.unlink(missing_ok=True)
                fcntl.flock(lock, fcntl.LOCK_UN)  # a child that was forked meanwhile has the descriptor, too
            return
        finally:
            os.close(lock)


def _is_at(descriptor: int, file: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), file.lstat())
    return False


def _about(error: OSError, path: Path) -> OSError:
    """The error with this path, whichever file it was about. One without a number, such as a timeout, takes none."""
    return OSError(error.errno, error.strerror, str(path)) if error.errno is not None else error


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, f"{path} is there, and is not a socket")
    with make_socket(socket.AddressFamily["AF_UNIX"], socket.SOCK_STREAM) as probe:
        probe.settimeout(5)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            pass
        except FileNotFoundError:
            return
        else:
            raise OSError(errno.EADDRINUSE, f"another process serves {path} already")
    log.info("%s is left over from an ended process, and is replaced", path)
    path.unlink(missing_ok=True)


def connect(path: Path) -> io.BufferedRWPair:
    """Connect to a device. Raises OSError, which has the path."""
    with make_socket(socket.AddressFamily["AF_UNIX"], socket.SOCK_STREAM) as client:
        client.settimeout(_PATIENCE)
        try:
            client.connect(str(path))
        except OSError as error:
            raise _about(error, path) from None
        return client.makefile("rwb")
