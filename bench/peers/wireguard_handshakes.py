"""Handshakes of one device with others in the same process, for bench/wireguard.py.

    python wireguard_handshakes.py NUMBER

prints the median of the milliseconds that a handshake by itself takes, both ends together, and how many a second are
completed when all begin at once.
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import ExitStack
from statistics import median

from tunring import testing
from tunring.wireguard import Device, Key, Peer

PATIENCE = 30.0


class Count:
    """Waits until this many handshakes are complete at the initiator, which sends its first data then."""

    def __init__(self) -> None:
        self._count = 0
        self._changed = threading.Condition()

    def add(self, _: Peer) -> None:
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    def wait(self, count: int) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._count >= count, PATIENCE):
                raise RuntimeError(f"only {self._count} of {count} handshakes were completed")


def main(number: int) -> None:
    """Make two groups of devices, one for each figure: a peer may begin a handshake only every five seconds."""
    with ExitStack() as stack:

        def make() -> tuple[Device, Key]:
            host, session = testing.pair()
            stack.enter_context(host)
            stack.enter_context(session)
            key = Key.generate()
            return stack.enter_context(Device(session, private_key=key)), key

        hub, hub_key = make()
        peers = []
        for _ in range(2 * number):
            device, key = make()
            where = ("127.0.0.1", device.listen_port)
            peers.append(hub.add_peer(key.public, allowed_ips=[], endpoint=where))
            device.add_peer(hub_key.public, allowed_ips=[])
        done = Count()
        hub.on_handshake = done.add
        times = []
        for count, peer in enumerate(peers[:number], 1):
            began = time.perf_counter()
            peer.handshake()
            done.wait(count)
            times.append(time.perf_counter() - began)
        began = time.perf_counter()
        for peer in peers[number:]:
            peer.handshake()
        done.wait(2 * number)
        print(f"{1000 * median(times):.3f} {number / (time.perf_counter() - began):.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
