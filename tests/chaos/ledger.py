"""Packets that prove themselves, and the account of them: what was accepted has to arrive once, in order, unchanged."""

from __future__ import annotations

import itertools
import random
import struct
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from types import TracebackType

#: IPv4 and UDP headers, and the identity of a packet: magic, direction, flow, number.
_IP = struct.Struct(">BBHHHBBH4s4s")
_UDP = struct.Struct(">HHHH")
_IDENTITY = struct.Struct(">IIII")
_MAGIC = 0xC4A05EED
_HEADERS = _IP.size + _UDP.size

#: The smallest packet that can be told apart.
MIN_SIZE = _HEADERS + _IDENTITY.size
MAX_PACKET = 65535

# Contents are taken from one block of noise at an even place that the packet's identity gives. Sums of its 16-bit words
# up to each place give checksums without a look at every byte.
_NOISE = random.Random(20240).randbytes(1 << 17)
_SUMS = [0, *itertools.accumulate(struct.unpack(f">{len(_NOISE) // 2}H", _NOISE))]
_PLACES = (len(_NOISE) - MAX_PACKET) // 2


class Wrong(AssertionError):
    """A promise is broken: something arrived damaged, twice, out of order, unasked for, or not at all."""


class Route(NamedTuple):
    """The source and destination of packets, and the number of routers between them."""

    source: bytes
    target: bytes
    hops: int = 0


class Identity(NamedTuple):
    """A packet's description of itself."""

    direction: int
    flow: int
    number: int


def _fold(total: int) -> int:
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def _words(data: bytes) -> int:
    return sum(struct.unpack(f">{len(data) // 2}H", data))


def build(route: Route, identity: Identity, size: int, hops: int = 0) -> bytes:
    """Make a UDP packet of `size` bytes, valid in every checksum, as it is after that many routers."""
    flow, number = identity.flow, identity.number
    place = 2 * ((flow * 7919 + number * 104729) % _PLACES)
    body = _IDENTITY.pack(_MAGIC, *identity)
    length = size - MIN_SIZE
    content = _NOISE[place : place + length]
    # One flow's packets have equal headers except for their numbers, so that they can be merged into superpackets.
    port = 1024 + flow % 60000
    total = _SUMS[place // 2 + length // 2] - _SUMS[place // 2] + (content[-1] << 8 if length % 2 else 0)
    total += _words(body) + port + 4000 + 2 * (size - _IP.size) + 17 + _words(route.source + route.target)
    udp = _UDP.pack(port, 4000, size - _IP.size, _fold(total) ^ 0xFFFF or 0xFFFF)
    header = _IP.pack(0x45, 0, size, number & 0xFFFF, 0x4000, 64 - hops, 17, 0, route.source, route.target)
    checksum = _fold(_words(header)) ^ 0xFFFF
    return header[:10] + checksum.to_bytes(2, "big") + header[12:] + udp + body + content


def identify(data: bytes) -> Identity | None:
    """The packet's description of itself; None for one that is not ours, such as the kernel's own."""
    if len(data) < MIN_SIZE or data[0] != 0x45 or data[9] != 17:
        return None
    magic, *numbers = _IDENTITY.unpack_from(data, _HEADERS)
    return Identity(*numbers) if magic == _MAGIC else None


@dataclass
class _Record:
    """The state of a flow."""

    next: int = 0  # the number of the next packet that is offered
    offers: list[str] = field(default_factory=list)  # what became of the last ones
    accepted: list[range] = field(default_factory=list)  # numbers that must arrive
    unsure: list[range] = field(default_factory=list)  # numbers of which only the first ones may arrive
    arrived: set[int] = field(default_factory=set)


class Offer:
    """Packets that are about to be sent: a ``with`` block, in which :meth:`accept` gets the number that went out.

    Without it none has; when it is left by an exception with `sent`, that many have.
    """

    def __init__(self, direction: Direction, flow: int, first: int, sizes: list[int], label: str) -> None:
        self.label = label
        self._direction = direction
        self._flow = flow
        self._first = first
        self.sizes = sizes
        self.packets = [
            build(direction.route, Identity(direction.number, flow, first + i), size) for i, size in enumerate(sizes)
        ]
        self._sent: int | None = 0

    def accept(self, count: int | None) -> None:
        """Note that the first `count` packets went out. None: the number is unknown."""
        if count is not None and not 0 <= count <= len(self.packets):
            raise Wrong(f"{count} of {len(self.packets)} packets were sent")
        self._sent = count

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        sent = getattr(value, "sent", None)
        if sent is not None and self._sent == 0:
            self.accept(sent)
        outcome = "" if value is None else f", {type(value).__name__}: {value}"
        outcome = f"{self._sent} of {len(self.packets)} from {self._first} on by {self.label}{outcome}"
        self._direction.settle(self._flow, range(self._first, self._first + len(self.packets)), self._sent, outcome)


class Direction:
    """The account of one direction of a link. Any thread may use it.

    Parameters
    ----------
    number : int
        Of the direction, which no other has.
    route : Route
        Its packets' addresses.
    window : int, optional
        Packets that may be under way at once, where the path would lose more.
    """

    def __init__(self, number: int, route: Route, window: int | None = None) -> None:
        self.number = number
        self.route = route
        self._window = window
        self._lock = threading.Lock()
        self._flows: dict[int, _Record] = {}
        self._numbers = itertools.count()
        self._last: dict[tuple[object, int], int] = {}  # by receiver and flow
        self._under_way = 0

    def new_flow(self) -> int:
        """Begin a flow, whose packets arrive in order. One thread or task sends it."""
        flow = next(self._numbers)
        with self._lock:
            self._flows[flow] = _Record()
        return flow

    def offer(self, flow: int, sizes: list[int], label: str) -> Offer:
        """Make packets of these sizes; fewer, maybe none, where the path has no room for all."""
        with self._lock:
            if self._window is not None:
                del sizes[max(0, self._window - self._under_way) :]
            record = self._flows[flow]
            first = record.next
            record.next += len(sizes)
            self._under_way += len(sizes)
        return Offer(self, flow, first, sizes, label)

    def settle(self, flow: int, numbers: range, sent: int | None, outcome: str) -> None:
        """Note how an offer ended. For :class:`Offer`."""
        with self._lock:
            record = self._flows[flow]
            record.offers.append(outcome)
            del record.offers[:-10]
            if sent is None:
                record.unsure.append(numbers)
                self._under_way -= len(numbers) - len(record.arrived.intersection(numbers))
            else:
                record.accepted.append(numbers[:sent])
                self._under_way -= len(numbers) - sent

    def receive(self, receiver: object, packets: list[bytes], *, ordered: bool = True) -> int:
        """Enter what one receiver got, in that order unless the path may change it. Returns how many are ours."""
        found = [(identity, data) for data in packets if (identity := identify(data))]
        for identity, data in found:
            if identity.direction != self.number:
                raise Wrong(f"{identity} arrived in direction {self.number}")
            if data != build(self.route, identity, len(data), self.route.hops):
                raise Wrong(f"{identity} of {len(data)} bytes is damaged: {data.hex()}")
        with self._lock:
            for identity, _ in found:
                self._enter(receiver, identity, ordered)
        return len(found)

    def _enter(self, receiver: object, identity: Identity, ordered: bool) -> None:
        record = self._flows.get(identity.flow)
        if record is None or identity.number >= record.next:
            raise Wrong(f"{identity} arrived, which nobody has sent")
        if identity.number in record.arrived:
            raise Wrong(f"{identity} arrived twice")
        record.arrived.add(identity.number)
        if not any(identity.number in numbers for numbers in record.unsure):
            self._under_way -= 1
        if not ordered:
            return
        key = receiver, identity.flow
        if identity.number <= self._last.get(key, -1):
            raise Wrong(f"{identity} arrived after {self._last[key]}")
        self._last[key] = identity.number

    def missing(self) -> int:
        """The number of packets that were accepted and have not arrived."""
        with self._lock:
            return sum(
                len(numbers) - len(record.arrived.intersection(numbers))
                for record in self._flows.values()
                for numbers in record.accepted
            )

    def _wrong(self, flow: int, record: _Record, numbers: set[int], what: str) -> Wrong:
        offers = "\n  ".join(record.offers)
        return Wrong(f"direction {self.number}, flow {flow}: {sorted(numbers)} {what}; the last offers:\n  {offers}")

    def check(self, *, complete: bool) -> int:
        """Check what can be once nobody sends any more, and return how many have arrived.

        `complete`: everything that was accepted must have.
        """
        arrived = 0
        with self._lock:
            for flow, record in self._flows.items():
                expected: set[int] = set()
                for numbers in record.accepted:
                    expected.update(numbers)
                for numbers in record.unsure:
                    # The first ones have gone out, and some of those may be lost where not all has to arrive.
                    found = record.arrived.intersection(numbers)
                    expected.update(numbers[: len(found)] if complete else found)
                if surplus := record.arrived - expected:
                    raise self._wrong(flow, record, surplus, "arrived, but were not sent")
                if complete and (lost := expected - record.arrived):
                    raise self._wrong(flow, record, lost, "are lost")
                arrived += len(record.arrived)
        return arrived
