"""A slow uplink that is full of a device's own data: the downlink does not suffer, and handshakes come through."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import TYPE_CHECKING

import pytest
from wireguard_hosts import join

import tunring
from running import SANITIZED, eventually
from tunring.wireguard import Key, _handshake
from tunring.wireguard._tai64n import STAMPS
from wireguard_ends import End, ipv4

if TYPE_CHECKING:
    from collections.abc import Iterator

    from netns import Namespace

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

#: Packets of 1400 bytes that go to the far end and come from there, every so many seconds.
UP, DOWN, PAUSE = 64, 16, 0.01

#: Of the packets that come while nobody floods, at least; initiations each time.
SHARE, FLOOD = 0.6, 20


class Tunnel:
    """Devices in two namespaces; the way from the first to the second is slow, and has room for much."""

    def __init__(self, stack: ExitStack, namespaces: tuple[Namespace, Namespace], rate: str) -> None:
        join(*namespaces)
        namespaces[0].run(*f"tc qdisc add dev veth0 root tbf rate {rate} burst 200k limit 200m".split())
        ends = []
        for namespace in namespaces:
            with namespace.entered():
                ends.append(End(stack))
        self.here, self.there = ends
        self.peer = self.here.device.add_peer(
            self.there.key.public, allowed_ips=["10.0.0.2"], endpoint=("192.0.2.2", self.there.device.listen_port)
        )
        self.there.device.add_peer(self.here.key.public, allowed_ips=["10.0.0.1"])
        self.here.host.send([ipv4("10.0.0.1", "10.0.0.2")])
        assert self.there.received()
        self.got = 0
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._receive, args=(self.here, True)),
            threading.Thread(target=self._receive, args=(self.there, False)),
            threading.Thread(target=self._send, args=(self.here, ipv4("10.0.0.1", "10.0.0.2", 1400), UP)),
            threading.Thread(target=self._send, args=(self.there, ipv4("10.0.0.2", "10.0.0.1", 1400), DOWN)),
        ]
        for thread in self._threads:
            thread.start()
        stack.callback(self.stop)
        # Until the socket has no room for what the host sends.
        assert eventually(lambda: self.here.device.stats()["unsent"] > 0, 60)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _receive(self, end: End, counted: bool) -> None:
        while not self._stop.is_set():
            with end.host.receive(256, timeout=0.2) as batch:
                if counted:
                    self.got += len(batch)

    def _send(self, end: End, packet: bytes, count: int) -> None:
        while not self._stop.is_set():
            end.host.send([packet] * count, on_full="drop")
            time.sleep(PAUSE)

    def rate(self, seconds: float) -> float:
        """Packets that come in a second."""
        before, began = self.got, time.monotonic()
        time.sleep(seconds)
        return (self.got - before) / (time.monotonic() - began)


@contextmanager
def flood(namespace: Namespace, device: tunring.wireguard.Device, public: bytes) -> Iterator[None]:
    """Initiations with a valid first MAC from one socket, which is not answered by one with a cookie."""
    stranger = _handshake.Identity(Key.generate())
    remote = _handshake.Remote(stranger, public)
    messages = []
    for index in range(100):
        message, _ = _handshake.initiate(stranger, remote, index, STAMPS.next(public))
        messages.append(_handshake.add_macs(message, remote.mac1_key, None))
    stop = threading.Event()
    udp = namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def run() -> None:
        turn = itertools.cycle(messages)
        while not stop.is_set():
            for message in itertools.islice(turn, FLOOD):
                udp.sendto(message, ("192.0.2.1", device.listen_port))
            time.sleep(PAUSE)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        udp.close()


@pytest.mark.skipif(SANITIZED, reason="rates under the sanitizer are its own")
def test_a_flood_beside_a_full_uplink(namespaces: tuple[Namespace, Namespace]) -> None:
    """There is no room for cookie replies: the loop that receives does not wait for it."""
    with ExitStack() as stack:
        tunnel = Tunnel(stack, namespaces, "20mbit")
        device = tunnel.here.device
        alone = [tunnel.rate(2) for _ in range(3)]
        with flood(namespaces[1], device, tunnel.here.key.public.raw):
            assert eventually(lambda: device.stats()["under_load"])
            flooded = [tunnel.rate(2) for _ in range(5)]
        print(
            f"packets a second: {[round(rate) for rate in alone]}, with the flood {[round(rate) for rate in flooded]}"
        )
        assert median(flooded) >= SHARE * median(alone)


def test_a_handshake_beside_a_full_uplink(namespaces: tuple[Namespace, Namespace]) -> None:
    """What stands before it in the socket's own line leaves before it is tried again."""
    with ExitStack() as stack:
        tunnel = Tunnel(stack, namespaces, "10mbit")
        time.sleep(2)
        before = tunnel.peer.latest_handshake
        tunnel.peer.handshake()
        assert eventually(lambda: tunnel.peer.latest_handshake != before, 30)
