"""The MTU of an interface, which on Windows it has once for IPv4 and once for IPv6."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tunring._system.iphelper_windows import ip_helper
from tunring.configuration._interface_windows import WindowsInterface
from tunring.errors import WintunError

if TYPE_CHECKING:
    from tunring import Adapter

assert sys.platform == "win32"


class WindowsMtu:
    """See :class:`tunring.wireguard._mtu.InterfaceMtu`."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self._interface = WindowsInterface(ip_helper(), adapter.name, adapter.luid)

    def read(self) -> int | None:
        """The smaller MTU in bytes now, or None where it can't be read."""
        try:
            return self._interface.mtu()
        except (WintunError, NotImplementedError):
            return None

    def set(self, mtu: int) -> None:
        """Set both, until the adapter is closed. IPv6 keeps its own if there it would be too small. Raises OSError."""
        self._adapter.configure(mtu=mtu)

    def close(self) -> None:
        """Let go of nothing."""
