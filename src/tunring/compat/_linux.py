"""The drop-in device with its meanings on Linux."""

from __future__ import annotations

import errno
import itertools
import sys
from ipaddress import IPv6Address, IPv6Interface
from typing import TYPE_CHECKING

from tunring.compat._device import PREFIX_SIZE, PROTOCOLS, Device
from tunring.errors import AlreadyExists

if TYPE_CHECKING:
    from tunring._core import Library

IFF_TUN = 0x0001
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000

#: In the flags of packet information: the packet was longer than what was read of it.
_CUT = (0x0001).to_bytes(2, sys.byteorder)
_WHOLE = bytes(2)


class TunTapDevice(Device):
    """A TUN interface that appears with the object; :meth:`up` and :meth:`down` bring it up and down.

    Parameters
    ----------
    name : str
        The interface's name; without one it is the first of tun0, tun1, ... that is free.
    flags : int
        ``IFF_TUN``, and ``IFF_NO_PI`` for packets without packet information.
    dev : str
        Ignored.
    library : Library, optional
        The library that creates it; that of :func:`tunring.load` by default.

    Examples
    --------
    >>> import tunring
    >>> from tunring.compat._linux import TunTapDevice
    >>> with TunTapDevice("tun7", library=tunring.load("loopback")) as device:
    ...     device.write(bytes([0, 0, 8, 0, 0x45]) + bytes(19))
    24
    """

    def __init__(
        self,
        name: str = "",
        flags: int = IFF_TUN,
        dev: str = "/dev/net/tun",
        *,
        library: Library | None = None,
    ) -> None:
        if flags & IFF_TAP or not flags & IFF_TUN:
            raise OSError(errno.EINVAL, "flags must have IFF_TUN and not IFF_TAP")
        self._prefixed = not flags & IFF_NO_PI
        self._create(name, library)
        try:
            self._start(0x400000)
        except BaseException:
            self._adapter.close()
            raise

    def _create(self, name: str, library: Library | None) -> None:
        if name:
            super().__init__(name, "Tunring", library)
            return
        for number in itertools.count():
            try:
                super().__init__(f"tun{number}", "Tunring", library)
            except AlreadyExists:
                continue
            return

    @property
    def addr(self) -> str:
        """The interface's first IPv6 address that isn't link-local; setting it adds one, of a network of 64 bits.

        Raises
        ------
        OSError
            It has none, or the value is not an IPv6 address.
        """
        for address in self._adapter.configuration().addresses:
            if isinstance(address, IPv6Interface) and not address.is_link_local:
                return str(address.ip)
        raise OSError(errno.EADDRNOTAVAIL, f"{self.name} has no IPv6 address")

    @addr.setter
    def addr(self, value: str) -> None:
        try:
            address = IPv6Address(value)
        except ValueError as error:
            raise OSError(errno.EINVAL, str(error)) from None
        self._adapter.configure(addresses=[f"{address}/64"], up=self._adapter.configuration().up)

    @property
    def mtu(self) -> int:
        """The interface's largest packet, in bytes.

        Raises
        ------
        OSError
            The value is refused.
        """
        return self._adapter.configuration().mtu

    @mtu.setter
    def mtu(self, value: int) -> None:
        try:
            self._adapter.configure(mtu=value, up=self._adapter.configuration().up)
        except (TypeError, ValueError) as error:
            raise OSError(errno.EINVAL, str(error)) from None

    def up(self) -> None:
        """Bring the interface up."""
        self._adapter.configure(up=True)

    def down(self) -> None:
        """Bring the interface down. It can be brought up again."""
        self._adapter.configure(up=False)

    def read(self, size: int) -> bytes | None:
        """Read a packet, waiting for one, of at most ``size`` bytes with its packet information.

        Returns
        -------
        bytes or None
            Four bytes of packet information, unless the device was made with ``IFF_NO_PI``, and the packet, cut if it
            is longer. None if :meth:`cancel_read` was called.

        Raises
        ------
        ValueError
            ``size`` isn't positive.
        OSError
            ``size`` has no room for the packet information, or the device is closed.
        """
        if size <= 0:
            raise ValueError(f"size must be positive, not {size}")
        if not self._prefixed:
            packet = self._receive(None)
            return None if packet is None else packet[:size]
        room = size - PREFIX_SIZE
        if room < 0:
            raise OSError(errno.EINVAL, f"size must be at least {PREFIX_SIZE}, not {size}")
        packet = self._receive(None)
        if packet is None:
            return None
        flags = _CUT if len(packet) > room else _WHOLE
        return flags + PROTOCOLS[packet[0] >> 4].to_bytes(2, "big") + packet[:room]

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Write a packet with its packet information; returns the size of both.

        Raises
        ------
        OSError
            It is not an IP packet, or the device is closed.
        """
        view = memoryview(data).cast("B")
        try:
            self._send(view[PREFIX_SIZE:] if self._prefixed else view)
        except ValueError as error:
            raise OSError(errno.EINVAL, str(error)) from None
        return len(view)

    def fileno(self) -> int:
        """A descriptor that is readable while a packet is there, for select, poll and event loops."""
        session, _ = self._running()
        return session.fileno()
