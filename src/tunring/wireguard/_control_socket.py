"""The socket at which ``wg`` finds a device: /var/run/wireguard/NAME.sock."""

from __future__ import annotations

import errno
import logging
import socket
import stat
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from tunring.wireguard._control import answer

if TYPE_CHECKING:
    from tunring.wireguard.device import Device

log = logging.getLogger("tunring.wireguard")

#: Where ``wg`` looks.
FOLDER = Path("/var/run/wireguard")

#: Bytes of a request at most: a million allowed IPs.
_MAX_REQUEST = 64 << 20

#: Clients that may ask at the same time.
_MAX_CLIENTS = 32


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
        _remove_stale(path)
        self._socket = socket.socket(socket.AddressFamily["AF_UNIX"], socket.SOCK_STREAM)
        try:
            self._socket.bind(str(path))
            # Nobody can connect before listen().
            path.chmod(0o600)
            self._identity = _identity(path)
            self._socket.listen(16)
        except BaseException:
            self._socket.close()
            raise
        self._clients: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = False
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
        """Remove the file, if it is still ours, and hang up on everybody."""
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
                client, _ = self._socket.accept()
            except OSError as error:
                if error.errno in {errno.EMFILE, errno.ENFILE, errno.ECONNABORTED, errno.EINTR}:
                    continue
                return
            with self._lock:
                # close() hangs up on whom it finds here, and on nobody who comes later.
                refused = self._closed or len(self._clients) >= _MAX_CLIENTS
                if not refused:
                    self._clients.add(client)
            if refused:
                client.close()
                continue
            threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        assert self._device
        try:
            with client, client.makefile("rb") as lines:
                while (request := _read_request(lines)) is not None:
                    client.sendall(answer(self._device, request).encode())
        except OSError as error:
            log.debug("a client of the control socket went: %s", error)
        except ValueError as error:
            log.warning("a client of the control socket was hung up on: %s", error)
        finally:
            with self._lock:
                self._clients.discard(client)


def _read_request(lines: BinaryIO) -> list[str] | None:
    """The lines up to an empty one; None at the end. Raises ValueError for what is too long or not text."""
    request: list[str] = []
    size = 0
    while line := lines.readline(_MAX_REQUEST):
        size += len(line)
        if size > _MAX_REQUEST:
            raise ValueError(f"a request must have at most {_MAX_REQUEST} bytes")
        text = line.rstrip(b"\n").decode("ascii", "strict")
        if not text:
            if request:
                return request
            continue
        request.append(text)
    return None


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, f"{path} is there, and is not a socket")
    with socket.socket(socket.AddressFamily["AF_UNIX"], socket.SOCK_STREAM) as probe:
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
