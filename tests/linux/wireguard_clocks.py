"""Two devices under clocks that are moved, for test_wireguard_clocks.py: each word of the command line is a scenario.

clock_shim.c must be preloaded, and CLOCK_OFFSETS name its file.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from running import eventually
from tunring._core import wireguard_now
from wireguard_ends import End, ipv4

if TYPE_CHECKING:
    from collections.abc import Callable

DAY = 86400

#: A device looks at its timers at least once a second of the clock that stands still in a suspended system.
SOON = 5.0


class Clocks:
    """Both clocks of the process."""

    def __init__(self) -> None:
        with open(os.environ["CLOCK_OFFSETS"], "r+b") as file:
            self._offsets = mmap.mmap(file.fileno(), 16)

    def _move(self, position: int, seconds: int) -> None:
        [before] = struct.unpack_from("=q", self._offsets, position)
        struct.pack_into("=q", self._offsets, position, before + seconds * 10**9)

    def set_clock(self, seconds: int) -> None:
        """Somebody sets the clock, by that much."""
        before = time.time()
        self._move(0, seconds)
        assert abs(time.time() - before - seconds) < 5, "the clock is not moved"

    def suspend(self, seconds: int) -> None:
        """The system was suspended for that long: its clock goes on, too."""
        before, monotonic = wireguard_now(), time.monotonic()
        self._move(0, seconds)
        self._move(8, seconds)
        assert abs((wireguard_now() - before) / 1e9 - seconds) < 5, "the clock is not moved"
        assert time.monotonic() - monotonic < 5


class Tunnel:
    """Two ends, of which the first begins."""

    def __init__(self, stack: ExitStack) -> None:
        self.clocks = Clocks()
        self.near, self.far = End(stack), End(stack)
        self.peer = self.near.add(self.far, "10.0.0.2")
        self.back = self.far.add(self.near, "10.0.0.1", with_endpoint=False)
        self.handshakes = 0
        self.near.device.on_handshake = lambda _: setattr(self, "handshakes", self.handshakes + 1)
        self.passes()
        assert self.shaken(1)

    def passes(self) -> None:
        """A packet passes each way."""
        for near, far, route in (
            (self.near, self.far, ("10.0.0.1", "10.0.0.2")),
            (self.far, self.near, ("10.0.0.2", "10.0.0.1")),
        ):
            packet = ipv4(*route)
            near.host.send([packet])
            assert packet in far.received(SOON), "a packet is lost"

    def shaken(self, count: int) -> bool:
        """True once there are that many handshakes, or more: both ends may begin at once."""
        return eventually(lambda: self.handshakes >= count, SOON)

    def settled(self) -> int:
        """The number of handshakes once no more are under way."""
        before = -1
        while before != self.handshakes:
            before = self.handshakes
            time.sleep(0.5)
        return before


def suspended_for_a_minute(tunnel: Tunnel) -> None:
    """The keys are still good."""
    tunnel.clocks.suspend(60)
    tunnel.passes()
    assert tunnel.handshakes == 1


def suspended_past_a_rekey(tunnel: Tunnel) -> None:
    """The old keys carry the packet that asks for new ones."""
    tunnel.clocks.suspend(130)
    tunnel.passes()
    assert tunnel.shaken(2)


def suspended_past_the_keys(tunnel: Tunnel) -> None:
    """Nothing is sent or accepted under the old keys: the first packet waits for new ones."""
    tunnel.clocks.suspend(200)
    tunnel.passes()
    assert tunnel.shaken(2)
    assert tunnel.near.device.stats()["expired"] == tunnel.far.device.stats()["expired"] == 0


def suspended_for_ten_minutes(tunnel: Tunnel) -> None:
    """Keys are wiped soon after the system is back, though nobody asks for anything."""
    keys = {peer: peer._state.core.state().newest_born for peer in (tunnel.peer, tunnel.back)}
    tunnel.clocks.suspend(600)
    for peer, born in keys.items():
        assert eventually(lambda peer=peer, born=born: peer._state.core.state().newest_born != born, SOON), "keys stay"
    tunnel.passes()
    assert tunnel.shaken(2)  # the hook may be called after the packets


def keepalives_after_a_suspend(tunnel: Tunnel) -> None:
    """They are sent soon after the system is back."""
    tunnel.peer.persistent_keepalive = 25
    sent = tunnel.peer.sent_bytes
    time.sleep(0.5)
    assert tunnel.peer.sent_bytes == sent
    tunnel.clocks.suspend(30)
    assert eventually(lambda: tunnel.peer.sent_bytes > sent, SOON)


def a_clock_that_is_set(tunnel: Tunnel) -> None:
    """Back, forward and back again: initiations' stamps rise all the same, and keys have the age that they have."""
    for seconds in (-DAY, 3 * DAY, -DAY, -1):
        before = tunnel.settled()
        tunnel.clocks.set_clock(seconds)
        tunnel.passes()
        assert tunnel.handshakes == before, "a clock that is set made keys old"
        tunnel.clocks.suspend(200)
        tunnel.passes()
        assert tunnel.shaken(before + 1)
        assert abs((tunnel.peer.latest_handshake or 0) - time.time()) < 20


SCENARIOS: dict[str, Callable[[Tunnel], None]] = {
    function.__name__: function
    for function in (
        suspended_for_a_minute,
        suspended_past_a_rekey,
        suspended_past_the_keys,
        suspended_for_ten_minutes,
        keepalives_after_a_suspend,
        a_clock_that_is_set,
    )
}


def main() -> None:
    for name in sys.argv[1:]:
        with ExitStack() as stack:
            SCENARIOS[name](Tunnel(stack))
        print(name)


if __name__ == "__main__":
    main()
