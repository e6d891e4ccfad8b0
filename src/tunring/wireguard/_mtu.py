"""The MTU of an adapter's interface, read often, and set alone."""

from __future__ import annotations

import socket
import struct
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunring import Adapter

_SIOCGIFMTU, _SIOCSIFMTU = 0x8921, 0x8922


class InterfaceMtu:
    """Reads and sets the MTU. There must be such an interface: adapters of ``loopback`` have none.

    Parameters
    ----------
    adapter : Adapter
        The adapter.
    """

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self._socket: socket.socket | None = None
        if sys.platform == "linux" and adapter.library.name == "tun_linux":
            from tunring._system.namespace_linux import call_in_network

            descriptor = adapter._handle.open_namespace()  # noqa: SLF001
            try:
                self._socket = call_in_network(descriptor, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            finally:
                if descriptor >= 0:
                    _close(descriptor)

    def read(self) -> int | None:
        """The MTU in bytes now, or None where it can't be read."""
        if sys.platform == "linux" and self._socket is not None:
            from fcntl import ioctl

            request = struct.pack("16si12x", self._adapter.name.encode(), 0)
            try:
                return int(struct.unpack("16si12x", ioctl(self._socket, _SIOCGIFMTU, request))[1])
            except OSError:
                pass
        return None

    def set(self, mtu: int) -> None:
        """Set it, and leave everything else of the interface as it is. Raises OSError."""
        if sys.platform == "linux" and self._socket is not None:
            from fcntl import ioctl

            ioctl(self._socket, _SIOCSIFMTU, struct.pack("16si12x", self._adapter.name.encode(), mtu))

    def close(self) -> None:
        """Let the socket go."""
        if self._socket is not None:
            self._socket.close()


def _close(descriptor: int) -> None:
    import os

    os.close(descriptor)
