"""Two devices through a relay that drops, doubles, delays and reorders by a seed; keys are renewed each second."""

from __future__ import annotations

import heapq
import os
import random
import selectors
import socket
import struct
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

import pytest

from running import eventually
from tunring import testing
from tunring.wireguard import Device, Key
from tunring.wireguard._timers import SECOND, Limits

if TYPE_CHECKING:
    pass

#: The protocol's times by a hundred, or near it.
LIMITS = Limits(
    retry=SECOND // 10,
    jitter=SECOND // 150,
    attempt=2 * SECOND,
    keepalive=SECOND // 5,
    unanswered=SECOND // 3,
    flood=SECOND // 1000,
)
REKEY, REJECT = 120 * SECOND // 100, 180 * SECOND // 100

#: As many rekeys as an hour has, at the tests' length; a few otherwise.
SECONDS = 45.0 if os.environ.get("HYPOTHESIS_PROFILE") == "full" else 8.0


class Relay:
    """Two sockets, one for each device; each believes that the other one is there."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for made in self.sockets:
            made.bind(("127.0.0.1", 0))
            made.setblocking(False)
        self.ports = [made.getsockname()[1] for made in self.sockets]
        self.homes: list[tuple[str, int]] = [("", 0), ("", 0)]
        self.rude = True
        self.data: list[set[tuple[int, int]]] = [set(), set()]
        self.twice = 0
        self.counts = {1: 0, 2: 0, 3: 0, 4: 0}
        self._waiting: list[tuple[float, int, int, bytes]] = []
        self._number = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for made in self.sockets:
            made.close()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for side, made in enumerate(self.sockets):
                selector.register(made, selectors.EVENT_READ, side)
            while not self._stop.is_set():
                for key, _ in selector.select(0.002):
                    self._drain(int(key.data))
                while self._waiting and self._waiting[0][0] <= time.monotonic():
                    _, _, side, datagram = heapq.heappop(self._waiting)
                    self.sockets[side].sendto(datagram, self.homes[side])

    def _drain(self, side: int) -> None:
        while True:
            try:
                datagram = self.sockets[side].recv(65536)
            except BlockingIOError:
                return
            self._record(side, datagram)
            for _ in range(self._copies()):
                pause = self.random.random() * 0.03 if self.rude and self.random.random() < 0.3 else 0.0
                self._number += 1
                heapq.heappush(self._waiting, (time.monotonic() + pause, self._number, 1 - side, datagram))

    def _copies(self) -> int:
        return self.random.choices([0, 1, 2], [10, 80, 10])[0] if self.rude else 1

    def _record(self, side: int, datagram: bytes) -> None:
        self.counts[datagram[0]] += 1
        if datagram[0] == 4:
            # The receiver's index stands for the key: it is new with each.
            pair = struct.unpack_from("<IQ", datagram, 4)
            self.twice += pair in self.data[side]
            self.data[side].add(pair)


class End:
    """A device and its host."""

    def __init__(self, stack: ExitStack, number: int) -> None:
        self.number = number
        self.key = Key.generate()
        self.host, session = testing.pair()
        stack.enter_context(self.host)
        stack.enter_context(session)
        self.device = Device(session, private_key=self.key, _limits=LIMITS)
        stack.callback(self.device.close)
        self.device._core.set_limits(rekey_after=REKEY, reject_after=REJECT, rekey_on_receive=REKEY * 11 // 8)
        self.sent: set[bytes] = set()
        self.handshakes = 0
        self.device.on_handshake = lambda _: setattr(self, "handshakes", self.handshakes + 1)

    def packet(self) -> bytes:
        body = struct.pack(">BBHHHBBH", 0x45, 0, 64, 0, 0x4000, 64, 253, 0)
        body += bytes([10, 0, 0, self.number, 10, 0, 0, 3 - self.number])
        total = sum(struct.unpack(">10H", body))
        total = (total & 0xFFFF) + (total >> 16)
        made = body[:10] + (~(total + (total >> 16)) & 0xFFFF).to_bytes(2, "big") + body[12:] + os.urandom(44)
        self.sent.add(made)
        return made

    def received(self, timeout: float = 0) -> list[bytes]:
        with self.host.receive(timeout=timeout) as batch:
            return batch.tobytes()


@pytest.mark.parametrize("seed", [1, 2])
def test_a_rude_relay(stack: ExitStack, seed: int) -> None:
    relay = stack.enter_context(Relay(seed))
    ends = [End(stack, 1), End(stack, 2)]
    for side, end in enumerate(ends):
        relay.homes[side] = ("127.0.0.1", end.device.listen_port)
    for side, end in enumerate(ends):
        other = ends[1 - side]
        end.device.add_peer(
            other.key.public, allowed_ips=[f"10.0.0.{other.number}"], endpoint=("127.0.0.1", relay.ports[side])
        )
        end.device.start()
    got: list[list[bytes]] = [[], []]
    pauses = random.Random(seed)
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        # Both begin at once, and now and then nobody says anything until all keys are too old.
        for side in (0, 1):
            if pauses.random() < 0.7:
                ends[side].host.send([ends[side].packet() for _ in range(pauses.randint(1, 40))])
        time.sleep(2.2 if pauses.random() < 0.01 else 0.01)
        for side in (0, 1):
            got[side] += ends[side].received()
    relay.rude = False
    for side in (0, 1):
        near, far = ends[side], ends[1 - side]

        def passes(side: int = side, near: End = near, far: End = far) -> bool:
            packet = near.packet()
            near.host.send([packet])
            found = far.received(0.2)
            got[1 - side] += found
            return packet in found

        assert eventually(passes), "the tunnel does not recover"
    print(f"handshakes {[end.handshakes for end in ends]}, messages {relay.counts}, packets {list(map(len, got))}")
    for side in (0, 1):
        # Nothing that was not sent, and nothing twice, whatever was doubled.
        assert len(got[side]) == len(set(got[side]))
        assert set(got[side]) <= ends[1 - side].sent
        assert len(got[side]) > 0.3 * len(ends[1 - side].sent)
        assert ends[side].handshakes >= SECONDS / 3
    assert relay.twice == 0
    assert len(relay.data[0] | relay.data[1]) > 100
