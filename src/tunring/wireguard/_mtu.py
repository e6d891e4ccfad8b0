"""The MTU of an adapter's interface, read often, and set alone."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

# Not by the first device: a child that is forked meanwhile would wait for the module without end.
if sys.platform == "linux":
    from tunring.wireguard._mtu_linux import LinuxMtu
elif sys.platform == "win32":
    from tunring.wireguard._mtu_windows import WindowsMtu

if TYPE_CHECKING:
    from tunring import Adapter


class InterfaceMtu(Protocol):
    """Reads and sets the MTU."""

    def read(self) -> int | None:
        """The MTU in bytes now, or None where it can't be read."""

    def set(self, mtu: int) -> None:
        """Set it, and leave everything else of the interface as it is. Raises OSError."""

    def close(self) -> None:
        """Let go of what it holds."""


class _NoMtu:
    """That of an adapter that has no interface."""

    def read(self) -> int | None:
        return None

    def set(self, mtu: int) -> None:
        pass

    def close(self) -> None:
        pass


def interface_mtu(adapter: Adapter) -> InterfaceMtu:
    """Return what reads and sets the MTU of an adapter's interface. Adapters of ``loopback`` have none."""
    if sys.platform == "linux" and adapter.library.name == "tun_linux":
        return LinuxMtu(adapter)
    if sys.platform == "win32" and adapter.library.official:
        return WindowsMtu(adapter)
    return _NoMtu()
