"""Sessions as scapy sockets: ``pip install scapy``.

Examples
--------
>>> import tunring.testing
>>> from scapy.layers.inet import ICMP, IP
>>> from scapy.sendrecv import sniff
>>> from tunring.contrib.scapy import TunSocket
>>> left, right = tunring.testing.pair()
>>> with left, right:
...     TunSocket(left).send(IP(dst="10.0.0.2") / ICMP())
...     [packet.dst for packet in sniff(opened_socket=TunSocket(right), count=1)]
28
['10.0.0.2']

Scapy reads the packets of a batch from bytes: ``[IP(bytes(view)) for view in batch]``.
"""

from __future__ import annotations

import time
from contextlib import suppress
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from tunring._core import Session
from tunring._extras import import_advice
from tunring._win32 import Win32
from tunring.errors import SessionClosed, WintunError

try:
    from scapy.automaton import select_objects
    from scapy.compat import raw
    from scapy.config import conf
    from scapy.consts import WINDOWS
    from scapy.data import MTU
    from scapy.layers.inet import IP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import Ether
    from scapy.packet import Packet
    from scapy.supersocket import SuperSocket
except ImportError as error:
    reason = import_advice(error, "scapy")
    raise ImportError(f"tunring.contrib.scapy {reason}", name="scapy") from error

if TYPE_CHECKING:
    from collections.abc import Iterable


class TunSocket(SuperSocket):  # type: ignore[misc, unused-ignore]  # typed only where scapy is installed
    """A session for scapy, on every system: ``sniff(opened_socket=...)``, ``socket.sr1()``, ``bridge_and_sniff()``, ...

    It receives IP or IPv6, and sends the packet inside an Ethernet frame. The session stays open when the
    socket is closed, which scapy does at its own discretion. One packet may be read ahead; the next
    ``sniff`` of this socket gets it.

    Parameters
    ----------
    session : Session
        Packets come from it and go to it.

    Raises
    ------
    TypeError
        It is not a session.

    Examples
    --------
    A host that answers pings, until Ctrl-C::

        from scapy.layers.inet import ICMPEcho_am

        TunSocket(session).am(ICMPEcho_am)()
    """

    desc = "a session of tunring"
    #: sniff() and its like call select() again and again, rather than add a pipe of their own to wait for.
    nonblocking_socket = True

    def __init__(self, session: Session) -> None:
        if not isinstance(session, Session):
            raise TypeError(f"session must be a tunring.Session, not {session!r}")
        self.session = session
        self.iface = session.adapter.name
        self.promisc = False
        self._ahead: tuple[bytes, float] | None = None

    def send(self, x: Packet) -> int:
        """Send an IP packet, and return its size in bytes.

        Raises
        ------
        ValueError
            It is not an IP packet.
        SessionClosed
            The session or this socket is closed.
        """
        if self.closed:
            raise SessionClosed(Win32.HANDLE_EOF, "the socket is closed")
        if isinstance(x, Packet):
            x.sent_time = time.time()
        data = raw(x.payload if isinstance(x, Ether) else x)
        self.session.send([data])
        return len(data)

    def recv_raw(self, x: int = MTU) -> tuple[type[Packet], bytes, float]:
        """Wait for a packet: its class, at most ``x`` of its bytes, and the time of its receipt.

        Raises
        ------
        SessionClosed
            The session or this socket is closed. It is an EOFError, at which scapy drops the socket.
        """
        while not (self._fetch(None) and (ahead := self._ahead)):
            pass
        self._ahead = None
        data, received = ahead
        return IPv6 if data[0] >> 4 == 6 else IP, data[:x], received

    def _fetch(self, timeout: float | None) -> bool:
        """Read a packet ahead, if none is; whether one is."""
        if self.closed:
            raise SessionClosed(Win32.HANDLE_EOF, "the socket is closed")
        if self._ahead is None:
            with self.session.receive(1, timeout) as batch:
                if batch:
                    self._ahead = batch.tobytes()[0], time.time()
        return self._ahead is not None

    def _is_ready(self) -> bool:
        try:
            return self._fetch(0)
        except WintunError:
            return True  # recv raises it

    def fileno(self) -> int:
        """The session's read event: a descriptor, on Windows a handle."""
        return self.session.read_event

    def close(self) -> None:
        """Close the socket, not the session."""
        self.closed = True

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.TunSocket of {self.iface!r}, {'closed' if self.closed else 'open'}>"

    @staticmethod
    def select(sockets: Iterable[Any], remain: float | None = None) -> list[Any]:
        """Wait for packets, and return the sockets that have some.

        Accepts anything with a ``fileno()``, such as scapy's pipes and other sockets, and waits for all together.
        Returns after at most ``conf.recv_poll_rate`` seconds, so that scapy can check if it should stop.
        """
        sockets = list(sockets)
        if ready := _ready(sockets):
            return ready
        seconds = conf.recv_poll_rate if remain is None else min(remain, conf.recv_poll_rate)
        with suppress(SessionClosed, OSError):  # one that another thread has just closed
            _wait(sockets, max(seconds, 0))
        return _ready(sockets)


def _wait(sockets: list[Any], seconds: float) -> list[Any]:
    """Wait for any of their descriptors, or Windows' handles, and return the sockets whose are ready."""
    if WINDOWS:
        return list(select_objects(sockets, seconds))
    # Not by select.select(), which takes no descriptor above 1023.
    descriptors = [socket.fileno() for socket in sockets]
    found = wait({descriptor for descriptor in descriptors if descriptor >= 0}, seconds)
    return [socket for socket, descriptor in zip(sockets, descriptors, strict=True) if descriptor in found]


def _ready(sockets: list[Any]) -> list[Any]:
    result = []
    for socket in sockets:
        if isinstance(socket, TunSocket):
            if socket._is_ready():  # noqa: SLF001
                result.append(socket)
        else:
            # Some have data that their descriptor doesn't show, and some have no more than a descriptor.
            result += getattr(socket, "select", _wait)([socket], 0)
    return result
