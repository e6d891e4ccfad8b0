"""The MTU of a TUN interface: two ioctl() calls on a socket of its network namespace."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
from typing import TYPE_CHECKING

from tunring._core import open_socket
from tunring._system.namespace_linux import call_in_network

if TYPE_CHECKING:
    from tunring import Adapter

assert sys.platform == "linux"

_SIOCGIFMTU, _SIOCSIFMTU = 0x8921, 0x8922


class LinuxMtu:
    """See :class:`tunring.wireguard._mtu.InterfaceMtu`."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        namespace = adapter._handle.open_namespace()  # noqa: SLF001
        try:
            self._socket = call_in_network(namespace, lambda: open_socket(socket.AF_INET, socket.SOCK_DGRAM))
        finally:
            if namespace >= 0:
                os.close(namespace)

    def read(self) -> int | None:
        """The MTU in bytes now, or None where it can't be read."""
        try:
            return int(struct.unpack("16si12x", fcntl.ioctl(self._socket, _SIOCGIFMTU, self._request(0)))[1])
        except OSError:
            return None

    def set(self, mtu: int) -> None:
        """Set it, and leave everything else of the interface as it is. Raises OSError."""
        fcntl.ioctl(self._socket, _SIOCSIFMTU, self._request(mtu))

    def _request(self, mtu: int) -> bytes:
        return struct.pack("16si12x", self._adapter.name.encode(), mtu)

    def close(self) -> None:
        """Let the socket go."""
        self._socket.close()
