"""Making UDP sockets, and their options. The sockets themselves are in the extension module."""

from __future__ import annotations

import errno
import operator
import os
import platform
import re
import socket
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunring._core import UdpSocket
from tunring._system.own_socket import make_socket

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Bytes of a chunk of memory for datagrams.
_CHUNK = 256 * 1024

#: Bytes of buffers unless asked otherwise: 10 Gbit/s for as long as a thread may have to wait for a processor.
RECEIVE_BUFFER = 16 << 20
SEND_BUFFER = 7 << 20

_WINDOWS = os.name == "nt"

#: The system's numbers, some of which Python does not name.
_SO_REUSEPORT, SO_MARK, _SO_BINDTODEVICE = 15, 36, 25
_SO_PROTOCOL, _SO_DOMAIN = 38, 39
SO_RCVBUFFORCE, SO_SNDBUFFORCE = 33, 32
if _WINDOWS:
    #: UDP_SEND_MSG_SIZE; UDP_RECV_MAX_COALESCED_SIZE and what to set it to.
    _SEGMENT, _COALESCE, _COALESCE_ON = 2, 3, 65535
    _NAMES = "UDP_SEND_MSG_SIZE; Windows 10 2004", "UDP_RECV_MAX_COALESCED_SIZE; Windows 10 2004"
    #: IP_PKTINFO and IP_RECVECN; IPV6_PKTINFO and IPV6_RECVECN.
    _MESSAGES_V4, _MESSAGES_V6 = (19, 50), (19, 50)
else:
    #: UDP_SEGMENT; UDP_GRO.
    _SEGMENT, _COALESCE, _COALESCE_ON = 103, 104, 1
    _NAMES = "UDP_SEGMENT; Linux 4.18", "UDP_GRO; Linux 5.0"
    #: IP_PKTINFO and IP_RECVTOS; IPV6_RECVPKTINFO and IPV6_RECVTCLASS.
    _MESSAGES_V4, _MESSAGES_V6 = (8, 13), (49, 66)
#: IP_RECVERR and IPV6_RECVERR, of Linux.
_ERROR_QUEUES = ((socket.IPPROTO_IP, 11), (socket.IPPROTO_IPV6, 25))


@dataclass(frozen=True, slots=True)
class UdpStats:
    """A socket's figures since it was opened. Each is exact, but they are not all read at the same instant.

    Attributes
    ----------
    received_packets, received_bytes, received_batches : int
        Datagrams, their bytes, and batches that were received.
    sent_packets, sent_bytes, sent_batches : int
        Datagrams that the system accepted, their bytes, and calls that sent some.
    waits, wakes : int
        Times a receive or a send went to sleep, and receives that an event woke.
    full, dropped : int
        Times the system had no room for a datagram, and datagrams given up because of it, by ``on_full="drop"``.
    refused_unreachable, refused_size, refused_other : int
        Datagrams that the system refused: no route or a firewall; too large for the path; any other reason.
    icmp_errors : int
        ICMP errors that earlier datagrams caused, passed over.
    reads, coalesced_reads, runs_sent : int
        System calls that returned datagrams, those of them that returned several, and those that sent several.
    truncated : int
        Datagrams that were longer than the room for them.
    host_dropped : int or None
        Datagrams that the system lost, since its receive buffer was full; None where it can't count them.
    pinned_packets, pinned_bytes : int
        Datagrams, and their bytes, that are received and not let go.
    receive_buffer, send_buffer : int
        Bytes of the system's buffers, as granted.
    segment, coalesce : bool
        True if runs leave by one system call now, and if they arrive by one.
    """

    received_packets: int
    received_bytes: int
    received_batches: int
    sent_packets: int
    sent_bytes: int
    sent_batches: int
    waits: int
    wakes: int
    full: int
    dropped: int
    refused_unreachable: int
    refused_size: int
    refused_other: int
    icmp_errors: int
    reads: int
    coalesced_reads: int
    runs_sent: int
    truncated: int
    host_dropped: int | None
    pinned_packets: int
    pinned_bytes: int
    receive_buffer: int
    send_buffer: int
    segment: bool
    coalesce: bool


class Options:
    """The options that were set on a socket, and what they were on one that was taken over.

    Parameters
    ----------
    sock : socket.socket
        The socket.
    taken_over : bool
        True if the options belong to somebody else.
    """

    def __init__(self, sock: socket.socket, taken_over: bool) -> None:
        self._sock = sock
        self._taken_over = taken_over
        self._before: list[tuple[int, int, int]] = []
        self.segment = False
        self.coalesce = False
        self.receive_buffer = 0
        self.send_buffer = 0

    def set(self, level: int, option: int, value: int) -> None:
        """Set an option, and remember what it was."""
        if self._taken_over:
            self._before.append((level, option, self._sock.getsockopt(level, option)))
        self._sock.setsockopt(level, option, value)

    def before(self) -> list[tuple[int, int, int]]:
        """Return the earlier values of a taken-over socket's options, in the order in which to set them again."""
        return self._before[::-1]

    def restore(self) -> None:
        """Put back what was set on a socket that was not taken over after all, unless its owner has closed it."""
        with self._unless_closed():
            for level, option, value in self.before():
                self._sock.setsockopt(level, option, value)
        self.unblock()

    def unblock(self) -> None:
        """On Windows, where a copy that never blocks makes the original one too, let that wait again as it did."""
        if _WINDOWS and self._taken_over:
            with self._unless_closed():
                self._sock.settimeout(self._sock.gettimeout())

    @contextmanager
    def _unless_closed(self) -> Iterator[None]:
        """Ignore errors of a socket that its owner has closed, maybe just now, by another thread or a handler."""
        try:
            yield
        except OSError:
            if self._sock.fileno() >= 0:
                raise


def _offloads(wanted: bool | None, name: str) -> bool | None:
    """The choice by argument or environment; None: try."""
    if wanted is not None and not isinstance(wanted, bool):
        raise TypeError(f"{name} must be a bool or None, not {wanted!r}")
    if os.environ.get("TUNRING_UDP_OFFLOADS") == "0":
        return False
    return wanted


def _mangles_runs() -> bool:
    """True if this kernel is known to mangle runs of equal datagrams: Linux 7.0 to 7.1.4."""
    # Distributions put their own words directly behind the number, as in "7.0.5+deb14-amd64".
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", platform.release())
    if _WINDOWS or match is None:
        return False
    return (7, 0, 0) <= tuple(int(number or 0) for number in match.groups()) <= (7, 1, 4)


def _supports(sock: socket.socket, option: int) -> bool:
    try:
        sock.getsockopt(socket.IPPROTO_UDP, option)
    except OSError:
        return False
    return True


def _set_offloads(sock: socket.socket, options: Options, segment: bool | None, coalesce: bool | None) -> None:
    segment, coalesce = _offloads(segment, "segment"), _offloads(coalesce, "coalesce")
    for wanted, option, name, text in zip(
        (segment, coalesce), (_SEGMENT, _COALESCE), ("segment", "coalesce"), _NAMES, strict=True
    ):
        if wanted and not _supports(sock, option):
            number, _, version = text.partition("; ")
            raise NotImplementedError(f"{name}=True: this system has no {number}; {version} or later has")
    if segment is None:
        segment = _supports(sock, _SEGMENT) and not _mangles_runs()
    if coalesce is None:
        # Windows 11 24H2 coalesces datagrams without a word of how long each is.
        coalesce = not _WINDOWS and _supports(sock, _COALESCE)
    if coalesce:
        options.set(socket.IPPROTO_UDP, _COALESCE, _COALESCE_ON)
    options.segment, options.coalesce = segment, coalesce


def _set_messages(sock: socket.socket, options: Options) -> None:
    """Let each datagram carry the address it was sent to, and its ECN bits as far as the system can."""
    levels = [(socket.IPPROTO_IP, _MESSAGES_V4)]
    if sock.family == socket.AF_INET6:
        levels.append((socket.IPPROTO_IPV6, _MESSAGES_V6))
    for level, (address, ecn) in levels:
        for option in (address, ecn):
            try:
                options.set(level, option, 1)
            except OSError:
                if not _WINDOWS:
                    raise


def _leave_error_queues(sock: socket.socket, options: Options) -> None:
    """Let calls alone report errors: a queue of them that nobody reads would keep the read event ready for good."""
    if not _WINDOWS:
        for level, option in _ERROR_QUEUES[: 2 if sock.family == socket.AF_INET6 else 1]:
            if sock.getsockopt(level, option):
                options.set(level, option, 0)


def _size(value: int | None, name: str, default: int, minimum: int) -> int:
    if value is None:
        return default
    if type(value) is not int:
        raise TypeError(f"{name} must be bytes, not {value!r}")
    if not minimum <= value <= 1 << 30:
        raise ValueError(f"{name} must be {minimum} to {1 << 30} bytes, not {value}")
    return value


def check_number(value: int, name: str, maximum: int, other: str = "") -> int:
    """An exact int, whose comparisons no user wrote. Raises ValueError or TypeError."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be 0 to {maximum}{other}, not {value!r}") from None
    if not 0 <= number <= maximum:
        raise ValueError(f"{name} must be 0 to {maximum}{other}, not {number}")
    return number


def check_mark(mark: int | None) -> int:
    """A mark as the kernel has it: 0 for none. Raises ValueError, TypeError or, on Windows, NotImplementedError."""
    number = 0 if mark is None else check_number(mark, "mark", 0xFFFFFFFF, " or None")
    if number and _WINDOWS:
        raise NotImplementedError(f"mark must be None or 0 on Windows, not {number}: only Linux has marks")
    return number


def signed_mark(mark: int) -> int:
    """A checked mark as setsockopt() takes it and getsockopt() returns it."""
    return mark - (1 << 32) if mark >> 31 else mark


def _check_interface(interface: str | None) -> bytes:
    """An interface's name, empty for none. The kernel would cut a longer one off, and take the interface named so."""
    if interface is None:
        return b""
    if not isinstance(interface, str):
        raise TypeError(f"interface must be an interface's name or None, not {interface!r}")
    name = os.fsencode(interface)
    if not 1 <= len(name) <= 15 or b"\0" in name:
        raise ValueError(f"interface must be a name of 1 to 15 bytes and no NUL, or None, not {interface!r}")
    return name


def set_buffer(sock: socket.socket, option: int, force: int, size: int) -> int:
    """Ask for a buffer, past the system's limit if privileges allow; returns what was granted."""
    if _WINDOWS:
        sock.setsockopt(socket.SOL_SOCKET, option, size)
        return _buffer_size(sock, option)
    try:
        sock.setsockopt(socket.SOL_SOCKET, force, size)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, option, size)
    return _buffer_size(sock, option)


def _buffer_size(sock: socket.socket, option: int) -> int:
    # Linux doubles what it is asked for, to have room for its own bookkeeping.
    return sock.getsockopt(socket.SOL_SOCKET, option) // (1 if _WINDOWS else 2)


def _family(address: Any) -> tuple[int, tuple[Any, ...]]:
    """The family of an address to bind to, and the address, checked."""
    if not isinstance(address, tuple) or len(address) not in (2, 4) or not isinstance(address[0], str):
        raise TypeError(f"address must be (host, port) or (host, port, flow, scope), not {address!r}")
    numbers = [
        check_number(value, name, maximum)
        for value, name, maximum in zip(
            address[1:], ("the port", "flow", "scope"), (65535, 0xFFFFF, 0xFFFFFFFF), strict=False
        )
    ]
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, address[0])
        except OSError:
            continue
        return int(family), (address[0], *numbers)
    raise ValueError(f"the host must be an address such as '0.0.0.0' or '::', not {address[0]!r}")


def _check_ipv6_only(family: int, address: tuple[Any, ...], ipv6_only: bool) -> None:
    if ipv6_only and (family == socket.AF_INET or _is_mapped(address[0])):
        raise ValueError(f"ipv6_only must be False for a socket of IPv4, and {address[0]!r} is an IPv4 address")


def _not_here() -> None:
    if sys.platform not in ("linux", "win32"):
        raise NotImplementedError("UdpSocket needs Linux or Windows")


def _only_linux(**options: object) -> None:
    for name, value in options.items():
        neutral = False if name == "reuse_port" else None
        if _WINDOWS and value not in (None, False):
            raise NotImplementedError(f"{name} must be {neutral!r} on Windows, not {value!r}: only Linux has that")


# A subclass of socket.socket may say anything of its descriptor. So these ask the base class, which asks the system.


def _check_udp(sock: socket.socket) -> None:
    """Refuse what is not a UDP socket of the family that the object has."""
    family = sock.family
    wanted: list[tuple[int, int]] = [(socket.SO_TYPE, socket.SOCK_DGRAM)]
    if not _WINDOWS:
        wanted += [(_SO_DOMAIN, family), (_SO_PROTOCOL, socket.IPPROTO_UDP)]
    if family not in (socket.AF_INET, socket.AF_INET6) or any(
        socket.socket.getsockopt(sock, socket.SOL_SOCKET, option) != value for option, value in wanted
    ):
        raise ValueError(f"from_socket takes a UDP socket of IPv4 or IPv6, and its descriptor is one, not {sock!r}")


def _own_address(sock: socket.socket) -> tuple[Any, ...]:
    address = socket.socket.getsockname(sock)
    if isinstance(address, tuple):
        match address:
            case (str(), int()) | (str(), int(), int(), int()):
                return address
    raise ValueError(f"the socket's own address must be (host, port) or (host, port, flow, scope), not {address!r}")


def _open(sock: socket.socket, options: Options, pinned_limit: int) -> UdpSocket:
    address = _own_address(sock)
    to_ipv4, to_ipv6 = _reach(sock, address)
    chunks = max(2, pinned_limit // _CHUNK)
    handle = socket.socket.fileno(sock)
    if handle < 0:
        raise OSError(errno.EBADF, "the socket is closed")
    made = UdpSocket._open(handle, address, options, to_ipv4, to_ipv6, options.segment, chunks)  # noqa: SLF001
    if socket.socket.fileno(sock) != handle:  # closed meanwhile, or a child's now: the copy may be of another file
        made.close()
        raise OSError(errno.EBADF, "the socket is closed")
    return made


def _reach(sock: socket.socket, address: tuple[Any, ...]) -> tuple[bool, bool]:
    """Return two bools: a socket with that address can send to IPv4, and to IPv6."""
    if len(address) == 2 or _is_mapped(address[0]):
        return True, False
    # One with an address of IPv6's own sends nothing to IPv4: Linux sets the option then, and others need not.
    only = address[0] != "::" or bool(sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
    return not only, True


def _is_mapped(host: str) -> bool:
    """True for an IPv4 address in the form that a socket of IPv6 has it in."""
    return socket.inet_pton(socket.AF_INET6, host.partition("%")[0])[:12] == bytes(10) + b"\xff\xff"


def bind(
    address: Any,
    segment: bool | None,
    coalesce: bool | None,
    receive_buffer: int | None,
    send_buffer: int | None,
    pinned_limit: int | None,
    ipv6_only: bool,
    reuse_port: bool,
    mark: int | None,
    interface: str | None,
) -> UdpSocket:
    """Make a socket, for :meth:`UdpSocket.bind`."""
    _not_here()
    _only_linux(reuse_port=reuse_port, mark=mark, interface=interface)
    family, own = _family(address)
    _check_ipv6_only(family, own, ipv6_only)
    number, device = check_mark(mark), _check_interface(interface)
    receive_size = _size(receive_buffer, "receive_buffer", RECEIVE_BUFFER, 4096)
    send_size = _size(send_buffer, "send_buffer", SEND_BUFFER, 4096)
    limit = _size(pinned_limit, "pinned_limit", 64 * _CHUNK, 2 * _CHUNK)
    with make_socket(family, socket.SOCK_DGRAM) as sock:
        options = Options(sock, taken_over=False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1 if ipv6_only else 0)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, _SO_REUSEPORT, 1)
        if number:
            sock.setsockopt(socket.SOL_SOCKET, SO_MARK, signed_mark(number))
        if device:
            sock.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, device)
        _set_offloads(sock, options, segment, coalesce)
        _set_messages(sock, options)
        options.receive_buffer = set_buffer(sock, socket.SO_RCVBUF, SO_RCVBUFFORCE, receive_size)
        options.send_buffer = set_buffer(sock, socket.SO_SNDBUF, SO_SNDBUFFORCE, send_size)
        sock.bind(own)
        return _open(sock, options, limit)


def from_socket(sock: socket.socket) -> UdpSocket:
    """Take a socket over, for :meth:`UdpSocket.from_socket`."""
    _not_here()
    if not isinstance(sock, socket.socket):
        raise TypeError(f"from_socket takes a socket.socket, not {sock!r}")
    _check_udp(sock)
    options = Options(sock, taken_over=True)
    try:
        _set_offloads(sock, options, None, None)
        _set_messages(sock, options)
        _leave_error_queues(sock, options)
        options.receive_buffer = _buffer_size(sock, socket.SO_RCVBUF)
        options.send_buffer = _buffer_size(sock, socket.SO_SNDBUF)
        return _open(sock, options, 64 * _CHUNK)
    except BaseException:
        options.restore()
        raise


def stats_of(options: Options, common: dict[str, int], figures: dict[str, int], runs: bool) -> UdpStats:
    """Put a socket's figures together, for :meth:`UdpSocket.stats`."""
    own = {name: common[name] for name in UdpStats.__slots__ if name in common}
    lost = figures.pop("host_dropped")
    return UdpStats(
        **own,
        **figures,
        host_dropped=None if _WINDOWS else lost,
        full=common["ring_full"],
        receive_buffer=options.receive_buffer,
        send_buffer=options.send_buffer,
        segment=runs,
        coalesce=options.coalesce,
    )
