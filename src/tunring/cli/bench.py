"""``tunring bench``: what tunring does on this machine, by rounds that take turns with what does the same."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from tunring import Session, load
from tunring.cli.arguments import JSON_HELP, seconds
from tunring.cli.report import describe, describe_json, exit_code_of, reason_of, say, say_json
from tunring.testing import pair

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

#: Packets of a round, and of a batch. A round of large ones fits the ring.
PACKETS, BATCH = 2048, 256

#: Rounds before it is the other's turn: each finds the caches as the one before left them.
_TURN = 10

#: Bytes of a packet, small and large.
SIZES = (64, 1400)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("--seconds", type=seconds, default=4.0, help="approximate duration in seconds (default: 4)")
    parser.add_argument(
        "--library",
        choices=("tun_linux", "loopback"),
        help="measure only this one (default: loopback, and tun_linux where that is allowed)",
    )
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


@dataclass
class Measured:
    """The cost of one thing: nanoseconds per packet, medians of rounds; and its comparison."""

    library: str
    what: str
    size: int
    ns_per_packet: float
    packets_per_second: int
    beside: str | None = None
    beside_ns_per_packet: float | None = None
    times_as_fast: float | None = None


@dataclass
class Side:
    """A measurement: ``prepare`` before each round is not part of it, ``run`` is."""

    prepare: Callable[[], object]
    run: Callable[[], object]

    def round(self) -> int:
        """Nanoseconds of one round."""
        self.prepare()
        began = time.perf_counter_ns()
        self.run()
        return time.perf_counter_ns() - began


@dataclass
class Contest:
    """One thing to measure, alone or in turns with another."""

    library: str
    what: str
    size: int
    packets: int
    ours: Side
    beside: str | None = None
    theirs: Side | None = None

    def measure(self, duration: float) -> Measured:
        """Take this time in seconds, or a turn if that is longer."""
        ours: list[int] = []
        theirs: list[int] = []
        # The first one finds nothing ready.
        self.ours.round()
        if self.theirs:
            self.theirs.round()
        until = time.monotonic() + duration
        while not ours or time.monotonic() < until:
            ours += [self.ours.round() for _ in range(_TURN)]
            if self.theirs:
                theirs += [self.theirs.round() for _ in range(_TURN)]
        each = median(ours) / self.packets
        result = Measured(self.library, self.what, self.size, round(each, 1), round(1e9 / each))
        if self.theirs:
            other = median(theirs) / self.packets
            result.beside, result.beside_ns_per_packet = self.beside, round(other, 1)
            result.times_as_fast = round(other / each, 2)
        return result


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    if arguments.library == "loopback":
        return _run(arguments, "only loopback was asked for")
    if sys.platform == "linux":
        # The part with the kernel takes a network namespace of its own, for good.
        from tunring.cli.isolation_linux import run_in_child

        return run_in_child(partial(exit_code_of, partial(_run, arguments), as_json=arguments.json))
    elif arguments.library == "tun_linux":
        raise NotImplementedError(f"there is no tun_linux on {sys.platform}; try --library loopback")
    else:
        return _run(arguments, f"the kernel's packets are measured on Linux only, not on {sys.platform}")


def _run(arguments: argparse.Namespace, reason: str | None = None) -> int:
    as_json: bool = arguments.json
    measured: list[Measured] = []

    def report(contest: Contest, duration: float) -> None:
        measured.append(contest.measure(duration))
        if not as_json:
            say(_line(measured[-1]))

    loopback = load("loopback")
    if not as_json:
        say(describe(loopback))
        say(f"{'':36}{'ns per packet':>13}{'packets/s':>13}   beside")
    if arguments.library != "tun_linux":
        left, right = pair()
        with left, right:
            contests = list(_cable(left, right))
            for contest in contests:
                report(contest, arguments.seconds / 2 / len(contests))
    if sys.platform == "linux" and reason is None:
        from tunring.cli.bench_linux import contests_with_the_kernel

        try:
            with contests_with_the_kernel() as kernel:
                for contest in kernel:
                    report(contest, arguments.seconds / 2 / len(kernel))
        except OSError as error:
            if arguments.library is not None:
                raise
            reason = reason_of(error)
    if as_json:
        say_json({"ok": True, **describe_json(loopback), "left_out": reason, "measured": list(map(asdict, measured))})
    elif reason:
        say(f"without the kernel's packets: {reason}")
    return 0


def _line(measured: Measured) -> str:
    what = f"{measured.library}: {measured.what}, {measured.size} B"
    line = f"{what:38}{measured.ns_per_packet:11,.0f}{measured.packets_per_second:13,}"
    if measured.beside is None:
        return line
    line += f"   {measured.beside} {measured.beside_ns_per_packet:,.0f} ns: "
    return f"{line}{measured.times_as_fast:.2f} times as fast"


def _cable(left: Session, right: Session) -> Iterator[Contest]:
    """Into a ring, and out of the one at the cable's other end."""
    for size in SIZES:
        packets = [bytes([0x45]) + bytes(size - 1)] * BATCH
        buffer, lengths = b"".join(packets), memoryview(bytearray(4 * BATCH)).cast("I")
        for index in range(BATCH):
            lengths[index] = size
        fill, empty = partial(send_list, left, packets, PACKETS), partial(drain, right)
        packed = partial(_send_packed, left, buffer, lengths)
        for what, ours in (
            ("send a list", Side(empty, fill)),
            ("send a buffer", Side(empty, packed)),
            ("receive", Side(fill, partial(take, right, PACKETS))),
            ("receive, view each", Side(fill, partial(take_views, right, PACKETS))),
        ):
            empty()
            yield Contest("loopback", what, size, PACKETS, ours)
            empty()


def send_list(session: Session, packets: list[bytes], count: int) -> None:
    """Send a round of packets, a list at a time."""
    for _ in range(count // len(packets)):
        session.send(packets)


def _send_packed(session: Session, buffer: bytes, lengths: memoryview[int]) -> None:
    for _ in range(PACKETS // BATCH):
        session.send_packed(buffer, lengths)


def take(session: Session, packets: int) -> None:
    """Receive a round, and look at the lengths."""
    while packets > 0:
        with session.receive(BATCH, 10) as batch:
            packets -= len(batch.lengths) or packets


def take_views(session: Session, packets: int) -> None:
    """Receive a round, and look at each packet."""
    while packets > 0:
        with session.receive(BATCH, 10) as batch:
            packets -= sum(1 for _ in batch) or packets


def drain(session: Session) -> None:
    """Receive what is there."""
    while batch := session.receive(65536, 0):
        batch.release()
