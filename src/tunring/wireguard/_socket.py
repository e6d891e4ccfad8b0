"""The UDP socket of a tunnel: one port for both families, whose mark can be changed while it is used."""

from __future__ import annotations

import errno

from tunring._core import UdpSocket
from tunring._udp import check_number
from tunring.errors import WintunError

#: Bytes. Handshake messages stand in line behind the data of a slow uplink, and are worth nothing once their sender has
#: tried again: 2 MiB, which the system makes of it, leave in 5 s by 4 Mbit/s; and last for 4 ms at 4 Gbit/s.
SEND_BUFFER = 1 << 20

_NO_IPV6 = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT}


def check_port(port: int) -> int:
    """A port to listen on, 0 for any. Raises ValueError or TypeError."""
    return check_number(port, "listen_port", 65535)


class TunnelSocket:
    """A :class:`tunring.UdpSocket`, and what else a tunnel asks of one.

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
        self.udp = _bind(port)
        try:
            self.set_mark(mark)
        except BaseException:
            self.udp.close()
            raise

    @property
    def port(self) -> int:
        """The port that it has, or had before it was closed."""
        return self.udp.address[1]

    def set_mark(self, mark: int) -> None:
        """Mark what is sent from now on. Raises SessionClosed once it is closed."""
        self.udp._set_mark(mark)  # noqa: SLF001

    def has_mark(self, mark: int) -> bool:
        """True if this is the mark of what is sent. False, too, once it is closed."""
        return self.udp._mark == mark  # noqa: SLF001

    def close(self) -> None:
        """Close it. May be called several times."""
        self.udp.close()


def _bind(port: int) -> UdpSocket:
    for host in ("::", "0.0.0.0"):
        try:
            return UdpSocket.bind((host, port), send_buffer=SEND_BUFFER)
        except WintunError:  # the port is ours, and something else fails
            raise
        except OSError as error:
            if host == "::" and error.errno in _NO_IPV6:
                continue
            raise OSError(error.errno, f"can't listen on UDP port {port}: {error.strerror}") from None
    raise AssertionError("unreachable")
