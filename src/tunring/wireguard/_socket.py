"""The UDP socket of a tunnel: one port for both families, whose mark can be changed while it is used."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress

from tunring._core import UdpSocket
from tunring._udp import (
    RECEIVE_BUFFER,
    SO_MARK,
    SO_RCVBUFFORCE,
    SO_SNDBUFFORCE,
    check_number,
    set_buffer,
    signed_mark,
)
from tunring._win32 import Win32
from tunring.errors import SessionClosed

#: Bytes. Handshake messages stand in line behind the data of a slow uplink, and are worth nothing once their sender has
#: tried again: 2 MiB, which the system makes of it, leave in 5 s by 4 Mbit/s; and last for 4 ms at 4 Gbit/s.
SEND_BUFFER = 1 << 20

_NO_IPV6 = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT}


def check_port(port: int) -> int:
    """A port to listen on, 0 for any. Raises ValueError or TypeError."""
    return check_number(port, "listen_port", 65535)


class TunnelSocket:
    """A :class:`tunring.UdpSocket`, and the system's socket beneath it.

    Parameters
    ----------
    port : int
        The port, 0 for any.
    mark : int
        The mark of its datagrams, 0 for none.

    Raises
    ------
    OSError
        The port is taken, or the mark is not allowed.
    """

    def __init__(self, port: int, mark: int) -> None:
        self._made = _bind(port)
        try:
            self.set_mark(mark)
            set_buffer(self._made, socket.SO_RCVBUF, SO_RCVBUFFORCE, RECEIVE_BUFFER)
            set_buffer(self._made, socket.SO_SNDBUF, SO_SNDBUFFORCE, SEND_BUFFER)
            self.udp = UdpSocket.from_socket(self._made)
            #: The port that it has, or had before it was closed.
            self.port = int(self._made.getsockname()[1])
        except BaseException:
            self._made.close()
            raise

    def set_mark(self, mark: int) -> None:
        """Mark what is sent from now on. Raises SessionClosed once it is closed."""
        try:
            if os.name == "nt":
                self._made.getsockname()  # Windows has no marks; this fails once the socket is closed
            elif not self.has_mark(mark):
                self._made.setsockopt(socket.SOL_SOCKET, SO_MARK, signed_mark(mark))
        except OSError:
            if self._made.fileno() < 0:
                raise SessionClosed(Win32.HANDLE_EOF, "the device is closed") from None
            raise

    def has_mark(self, mark: int) -> bool:
        """True if this is the mark of what is sent. False, too, once it is closed."""
        if os.name == "nt":
            return mark == 0
        with suppress(OSError):
            return signed_mark(mark) == self._made.getsockopt(socket.SOL_SOCKET, SO_MARK)
        return False

    def close(self) -> None:
        """Close both. May be called several times."""
        self.udp.close()
        self._made.close()


def _bind(port: int) -> socket.socket:
    for family, host in ((socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")):
        try:
            made = socket.socket(family, socket.SOCK_DGRAM)
        except OSError as error:
            if family == socket.AF_INET6 and error.errno in _NO_IPV6:
                continue
            raise
        try:
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            made.bind((host, port))
        except OSError as error:
            made.close()
            if family == socket.AF_INET6 and error.errno in _NO_IPV6:
                continue
            raise OSError(error.errno, f"can't listen on UDP port {port}: {error.strerror}") from None
        return made
    raise AssertionError("unreachable")
