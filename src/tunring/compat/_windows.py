"""The drop-in device with its meanings on Windows."""

from __future__ import annotations

import io
from ipaddress import ip_interface
from typing import TYPE_CHECKING

from tunring.compat._device import PREFIX_SIZE, PROTOCOLS, Device

if TYPE_CHECKING:
    from tunring._core import Library

#: Milliseconds that stand for no limit.
INFINITE = 0xFFFFFFFF

#: Packet information of IPv6.
_PREFIX = PROTOCOLS[6].to_bytes(PREFIX_SIZE, "big")

#: Prefix lengths of addresses that are given without.
_PREFIXES = {4: 32, 6: 64}


class TunTapDevice(Device):
    """An adapter that appears with the object, and passes packets between :meth:`up` and :meth:`down`.

    Parameters
    ----------
    name : str
        The adapter's name.
    library : Library, optional
        The library that creates it; that of :func:`tunring.load` by default.

    Examples
    --------
    >>> import tunring
    >>> from tunring.compat._windows import TunTapDevice
    >>> with TunTapDevice("OfficeNet", library=tunring.load("loopback")) as device:
    ...     device.up()
    ...     device.cancel_read()
    ...     device.read() is None
    True
    """

    def __init__(self, name: str = "pywintun", *, library: Library | None = None) -> None:
        super().__init__(name, "WinTun", library)
        self._addr = ""

    @property
    def luid(self) -> int:
        """The adapter's NET_LUID."""
        return self._adapter.luid

    @property
    def interface_index(self) -> int | None:
        """The interface's index."""
        return self._adapter.ifindex

    @property
    def addr(self) -> str:
        """The address that was set last, as it was set; ``"address"`` or ``"address/prefix"``."""
        return self._addr

    @addr.setter
    def addr(self, value: str) -> None:
        interface = ip_interface(value)
        if "/" not in value:
            interface = ip_interface(f"{value}/{_PREFIXES[interface.version]}")
        self._adapter.configure(addresses=[interface])
        self._addr = value

    @property
    def mtu(self) -> int:
        """The interface's largest packet, in bytes."""
        return self._adapter.configuration().mtu

    @mtu.setter
    def mtu(self, value: int) -> None:
        self._adapter.configure(mtu=value)

    def up(self, capacity: int = 0x400000) -> None:
        """Connect the link; each ring has ``capacity`` bytes."""
        self._start(capacity)

    def down(self) -> None:
        """Disconnect the link. Reads in progress end with an OSError."""
        self._stop()

    def read(self, timeout: int = INFINITE) -> bytes | None:
        """Read a packet, waiting at most that many milliseconds for one.

        Returns
        -------
        bytes or None
            The packet, without packet information. None if :meth:`cancel_read` was called.

        Raises
        ------
        TimeoutError
            No packet arrived in time.
        OSError
            The device isn't up, or goes down.
        """
        return self._receive(None if timeout == INFINITE else timeout / 1000)

    def write(self, payload: bytes) -> None:
        """Write a packet. IPv6 packet information in front of it is taken off."""
        packet = memoryview(payload)
        if packet[:PREFIX_SIZE] == _PREFIX:
            packet = packet[PREFIX_SIZE:]
        self._send(packet)

    def fileno(self) -> int:
        """There is no descriptor on Windows."""
        raise io.UnsupportedOperation("no descriptor on Windows; use async_read()")
