"""Two sides of a handshake with clocks and random numbers of the test's own."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunring.wireguard import Key, _handshake, _tai64n
from tunring.wireguard._exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import Callable

    from tunring.wireguard._handshake import SessionKeys

FLOOD = 20_000_000


def reproducible(seed: str) -> Callable[[int], bytes]:
    """Bytes that look random, and are the same each time."""
    numbers = itertools.count()

    def make(count: int) -> bytes:
        return hashlib.shake_128(f"{seed} {next(numbers)}".encode()).digest(count)

    return make


@dataclass
class Side:
    """One side's knowledge of itself and of the other."""

    identity: _handshake.Identity
    remote: _handshake.Remote
    exchange: Exchange
    stamps: _tai64n.Stamps

    def initiate(self, index: int, now: int = 0) -> bytes:
        return self.exchange.initiate(self.identity, self.remote, index, self.stamps.next(self.remote.public), now)

    def respond(self, message: bytes, index: int, now: int = 0) -> tuple[bytes, SessionKeys]:
        opened = _handshake.open_initiation(self.identity, message)
        self.exchange.accept(opened, self.remote, now)
        return self.exchange.respond(opened, self.remote, index, now)

    def finish(self, message: bytes) -> SessionKeys:
        return self.exchange.finish(message)


def key_of(seed: str) -> Key:
    return Key(hashlib.sha256(seed.encode()).digest())


def make_sides(seed: str = "", preshared: bytes = _handshake.NO_PRESHARED_KEY) -> tuple[Side, Side]:
    """Two sides that know each other."""
    identities = [_handshake.Identity(key_of(f"{seed} {name}")) for name in "ab"]
    sides = []
    for name, own, other in (("a", *identities), ("b", *identities[::-1])):
        remote = _handshake.Remote(own, other.public, preshared)
        exchange = Exchange(other.public, FLOOD, reproducible(f"{seed} {name}"))
        sides.append(Side(own, remote, exchange, _tai64n.Stamps(lambda: 1_700_000_000_000_000_000)))
    return sides[0], sides[1]
