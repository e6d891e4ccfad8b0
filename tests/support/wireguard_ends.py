"""Devices between a cable in memory and a UDP socket on this machine."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any

from tunring import testing
from tunring.wireguard import Device, Key, Peer

if TYPE_CHECKING:
    from contextlib import ExitStack


def ipv4(source: str, destination: str, size: int = 100) -> bytes:
    """A packet with a random payload."""
    addresses = b"".join(bytes(map(int, address.split("."))) for address in (source, destination))
    header = struct.pack(">BBHHHBBH", 0x45, 0, size, 0, 0, 64, 253, 0) + addresses
    total = sum(struct.unpack(">10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    total = ~(total + (total >> 16)) & 0xFFFF
    return header[:10] + total.to_bytes(2, "big") + header[12:] + os.urandom(size - 20)


class End:
    """A device, and the host that uses it by a cable."""

    def __init__(self, stack: ExitStack, **options: Any) -> None:
        self.host, self.session = testing.pair()
        stack.enter_context(self.host)
        stack.enter_context(self.session)
        self.key = Key.generate()
        self.device = stack.enter_context(Device(self.session, private_key=self.key, **options))

    def add(self, other: End, address: str, *, with_endpoint: bool = True, **options: Any) -> Peer:
        """Make the other end a peer."""
        endpoint = ("127.0.0.1", other.device.listen_port) if with_endpoint else None
        return self.device.add_peer(other.key.public, allowed_ips=[address], endpoint=endpoint, **options)

    def received(self, timeout: float = 10) -> list[bytes]:
        """Return the packets that the host receives next."""
        with self.host.receive(timeout=timeout) as batch:
            return batch.tobytes()
