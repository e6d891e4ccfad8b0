"""The part of WireGuard that is done per packet: two devices over loopback UDP, with keys installed by hand."""

from __future__ import annotations

import os
import struct
import threading
import time
from typing import TYPE_CHECKING

import tunring
from tunring import _core
from tunring.errors import SessionClosed
from tunring.testing import pair

if TYPE_CHECKING:
    from collections.abc import Callable

LEFT, RIGHT = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
DEVICE = _core._WireGuardDevice


def ipv4(source: bytes, destination: bytes, size: int = 100, tos: int = 0) -> bytes:
    header = struct.pack(">BBHHHBBH4s4s", 0x45, tos, size, 0, 0, 64, 253, 0, source, destination)
    total = sum(struct.unpack(">10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return header[:10] + struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF) + header[12:] + os.urandom(size - 20)


def eventually(condition: Callable[[], bool]) -> bool:
    """Waits for what another thread is about to do."""
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class End:
    """A device between a cable and a socket; `host` is the cable's other end."""

    def __init__(self) -> None:
        self.host, self.session = pair()
        self.socket = tunring.UdpSocket.bind(("127.0.0.1", 0))
        self.device = DEVICE(self.session)
        self.device.set_socket(self.socket)
        self.threads = [threading.Thread(target=self.loop, args=(name,)) for name in ("outgoing", "incoming")]
        self.ended: list[str] = []
        for thread in self.threads:
            thread.start()

    def loop(self, name: str) -> None:
        try:
            getattr(self.device, f"run_{name}")()
            self.ended.append("closed")
        except SessionClosed as error:
            self.ended.append(error.reason)

    def close(self) -> None:
        self.device.close()
        for thread in self.threads:
            thread.join(10)
            assert not thread.is_alive()
        for what in (self.socket, self.session, self.host):
            what.close()

    def flags(self, wanted: int) -> None:
        """Waits for flags of any peer."""
        seen, deadline = 0, time.monotonic() + 10
        while wanted & ~seen:
            assert time.monotonic() < deadline, f"only flags {seen} came, not {wanted}"
            for _, flags in self.device.take(1)[1]:
                seen |= flags

    def receive(self, count: int = 1) -> list[bytes]:
        packets: list[bytes] = []
        while len(packets) < count:
            with self.host.receive(timeout=10) as batch:
                assert batch, f"only {len(packets)} of {count} came"
                packets += batch.tobytes()
        return packets

    def counted(self, name: str, count: int = 1) -> None:
        """Waits until a figure has that value."""
        assert eventually(lambda: self.device.stats()[name] == count), self.device.stats()


class Joined:
    """Two ends that know each other; `left` has started the handshake."""

    def __init__(self) -> None:
        self.left, self.right = End(), End()
        self.to_right, self.to_left = self.left.device.add_peer("right"), self.right.device.add_peer("left")
        self.to_right.set_allowed_ips([(RIGHT, 32)])
        self.to_left.set_allowed_ips([(LEFT, 32)])
        self.to_right.endpoint = self.right.socket.address  # type: ignore[assignment]

    def install(self) -> tuple[bytes, bytes]:
        ours, theirs = self.left.device.new_index(self.to_right), self.right.device.new_index(self.to_left)
        sent, received = os.urandom(32), os.urandom(32)
        self.to_left.install(theirs, ours, received, sent, initiator=False)
        self.to_right.install(ours, theirs, sent, received, initiator=True)
        self.indices = ours, theirs
        return sent, received

    def close(self) -> None:
        self.left.close()
        self.right.close()


def data_message(key: bytes, index: int, counter: int, packet: bytes) -> bytes:
    text = packet + bytes(-len(packet) % 16)
    sealed = _core.aead_message("chacha20-poly1305", key, bytes(4) + struct.pack("<Q", counter), b"", text)
    return struct.pack("<IIQ", 4, index, counter) + sealed[0] + sealed[1]
