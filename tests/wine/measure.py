"""The ring suite of bench/ring.py over the official DLL, beside plain C over the same DLL. Runs in the Windows Python.

    measure.py PLAIN_LOOP_DLL FIGURES_JSON [--turns N] [--sizes N ...]

The stand-in plays the driver. For the suite it is a simulator, which fills the ring and empties it between rounds: what
is measured is the DLL and its caller. *live*, its own thread takes what is sent while it is being sent, by the driver's
protocol of sleeping and waking. The ratios that are asked for are printed, and all figures go into a file.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import sys
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ring import BATCH, SIZES, Cable, CtypesSession, a_list, all_ways, ctypes_library, measured
from turns import Turns, take_turns

import libraries
import tunring
import tunring.testing

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Packets of a batch.
BATCHES = (BATCH, 1024)

#: Packets of a round while the driver takes them: enough that its waking up doesn't count. One by one takes longer.
LIVE_PACKETS, LIVE_SINGLY = 262144, 16384

#: The guard is compared in rounds of this many packets, between which the ring is emptied sooner than the guard looks:
#: before the first ones are timed, it is awake or asleep as it should be.
GUARD_PACKETS, GUARD_FIRST, GUARD_ROUNDS = 4096, 4, 40

#: Turns of the guard's for each of the others': a small difference takes many to tell.
GUARD_TURNS = 4

#: Packets that the C loop commits at a time, as tunring's core does.
CHUNK = 64

#: The ratios that are printed, and the figures that they compare.
GOALS = [
    ("receive", "counted", "plain C", "<= 1.15"),
    ("receive", "lazily", "plain C", "<= 1.15"),
    ("send", "a_list", "plain C", "<= 1.15"),
    ("live", "singly", "tunring", ">= 1.8"),
    ("live", "C each", "tunring", ">= 1.8"),
    ("guard", "guarded", "without", "<= 1.01"),
    ("guard", "without, again", "without", "1"),
]


def capacity_of(size: int) -> int:
    return {64: 0x400000, 576: 0x1000000, 1400: 0x2000000}.get(size, tunring.MAX_CAPACITY)


def packets_of(size: int) -> int:
    """Packets of a round: most of what a ring holds.

    With that many, whatever filling the ring has driven from the caches, Python above all, counts for little.
    """
    return 3 * capacity_of(size) // 4 // (size + 8) // 1024 * 1024 if size <= 1400 else 512


def plain_c(path: str, wintun: str) -> ctypes.CDLL:
    """plain_loop.c, over the functions of that DLL, which is loaded already."""
    loop = ctypes.CDLL(path)
    word, handle = ctypes.c_uint32, ctypes.c_void_p
    for name, result, arguments in [
        ("loop_init", ctypes.c_int, [handle]),
        ("loop_start", handle, [handle, word]),
        ("loop_end", None, [handle]),
        ("loop_receive", ctypes.c_double, [handle, word, word]),
        ("loop_send", ctypes.c_double, [handle, ctypes.c_char_p, word, word, word, word]),
        ("loop_drain", None, [handle, handle]),
        ("loop_copy", ctypes.c_double, [ctypes.c_char_p, ctypes.c_char_p, word, word, word]),
    ]:
        function = getattr(loop, name)
        function.restype, function.argtypes = result, arguments
    assert loop.loop_init(ctypes.CDLL(wintun)._handle)
    return loop


def handle_of(adapter: tunring.Adapter) -> int:
    """The DLL's own handle, which is good as long as the adapter is open: here, throughout a measurement."""
    with adapter._handle.lend() as handle:
        return handle


class ChainPacket(ctypes.Structure):
    """``struct tunring_packet``."""

    _fields_ = (("data", ctypes.c_void_p), ("size", ctypes.c_uint32))


class Functions(ctypes.Structure):
    """The beginning of ``struct tunring_simulator``."""

    _fields_ = (
        ("attach", ctypes.c_void_p),
        ("inject", ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.POINTER(ChainPacket), ctypes.c_uint32)),
        ("drain", ctypes.c_void_p),
    )


class Driver:
    """The simulator's part between two rounds, with nothing of Python's for each packet."""

    def __init__(self, loop: ctypes.CDLL, adapter: tunring.Adapter, size: int, packets: int) -> None:
        self._loop, self._address = loop, handle_of(adapter)
        tunring.testing.Simulator.attach(adapter)
        functions = Functions.in_dll(libraries.stand_in(), "StandinSimulator")
        self._inject, self._take = functions.inject, functions.drain
        self._packet = bytes([0x45]) + bytes(size - 1)
        self._chain = (ChainPacket * packets)()
        for entry in self._chain:
            entry.data, entry.size = ctypes.cast(self._packet, ctypes.c_void_p), size

    def fill(self) -> None:
        assert self._inject(self._address, self._chain, len(self._chain)) == 0

    def drain(self) -> None:
        self._loop.loop_drain(self._take, self._address)


class Simulated(Cable):
    """One session at both ends: what it receives the simulator injects, and what it sends waits for the simulator."""

    def __init__(self, loop: ctypes.CDLL, adapter: tunring.Adapter, size: int, packets: int, capacity: int) -> None:
        self._driver = Driver(loop, adapter, size, packets)
        session = adapter.start_session(capacity)
        super().__init__(size, (session, session), packets)

    def fill(self) -> None:
        self._driver.fill()

    def drain(self) -> None:
        while batch := self.right.receive(65536, 0):
            batch.release()
        self._driver.drain()


class Old(CtypesSession):
    """ctypes over a session of its own, likewise."""

    def __init__(self, loop: ctypes.CDLL, adapter: tunring.Adapter, size: int) -> None:
        library = ctypes_library(adapter.library.path)
        packets = min(4096, packets_of(size))
        driver = Driver(loop, adapter, size, packets)
        self.fill, self.drain = driver.fill, driver.drain
        session = library.WintunStartSession(handle_of(adapter), capacity_of(size))
        assert session
        super().__init__(library, session, session, size, packets)

    def close(self) -> None:
        self._library.WintunEndSession(self._sender)


class PlainLoop:
    """plain_loop.c over a session of its own: bench.ring.Loop's part."""

    def __init__(self, loop: ctypes.CDLL, adapter: tunring.Adapter, size: int, *, simulated: bool) -> None:
        self._loop, self.size, self.packets = loop, size, packets_of(size)
        self._source = (bytes([0x45]) + bytes(size - 1)) * BATCH
        self._target = ctypes.create_string_buffer(self.packets * size)
        self._driver = Driver(loop, adapter, size, self.packets) if simulated else None
        self._session = loop.loop_start(handle_of(adapter), capacity_of(size))
        assert self._session

    def rounds(self, what: str, batch: int, count: int = 1) -> list[float]:
        """Nanoseconds of each round."""
        return [getattr(self, f"_{what}")(batch) for _ in range(count)]

    def _receive(self, batch: int) -> float:
        assert self._driver
        self._driver.fill()
        return float(self._loop.loop_receive(self._session, self.packets, batch))

    def send(self, packets: int, chunk: int) -> float:
        taken: float = self._loop.loop_send(self._session, self._source, BATCH, self.size, packets, chunk)
        assert taken > 0
        return taken

    def _send(self, batch: int) -> float:
        assert self._driver
        taken = self.send(self.packets, min(batch, CHUNK))
        self._driver.drain()
        return taken

    def _memcpy(self, batch: int) -> float:
        return float(self._loop.loop_copy(self._target, self._source, BATCH, self.size, self.packets))

    def close(self) -> None:
        self._loop.loop_end(self._session)


@contextmanager
def adapters(library: tunring.Library, count: int) -> Iterator[list[tunring.Adapter]]:
    with ExitStack() as stack:
        yield [stack.enter_context(tunring.Adapter.create(f"bench{i}", library=library)) for i in range(count)]


def ring_turns(library: tunring.Library, c: ctypes.CDLL, size: int, batch: int, turns: int) -> dict[str, Turns]:
    """The same as bench.ring.ring_turns(), over the DLL."""
    with adapters(library, 3) as (one, two, three), ExitStack() as stack:
        loop, old, cable = (
            PlainLoop(c, one, size, simulated=True),
            Old(c, two, size),
            Simulated(c, three, size, packets_of(size), capacity_of(size)),
        )
        for opened in (loop, old, cable):
            stack.callback(opened.close)
        return {what: take_turns(ways, turns) for what, ways in all_ways(cable, loop, old, batch, 1).items()}


def live_turns(library: tunring.Library, c: ctypes.CDLL, size: int, batch: int, turns: int) -> Turns:
    """ns per packet of sending while the driver takes: by batches and singly, and in C by chunks and singly."""
    with adapters(library, 2) as (one, two), ExitStack() as stack:
        loop = PlainLoop(c, one, size, simulated=False)
        stack.callback(loop.close)
        session = stack.enter_context(two.start_session(capacity_of(size)))
        sources = [bytes([0x45]) + bytes(size - 1) for _ in range(BATCH)] * (batch // BATCH)
        single = [[packet] for packet in sources]

        def settle() -> None:
            time.sleep(0.002)

        def by_batches() -> None:
            for _ in range(LIVE_PACKETS // batch):
                session.send(sources, timeout=10)

        def singly() -> None:
            for _ in range(LIVE_SINGLY // batch):
                for packet in single:
                    session.send(packet, timeout=10)

        def in_c(chunk: int) -> list[float]:
            settle()
            return [loop.send(LIVE_PACKETS, chunk) / LIVE_PACKETS]

        return take_turns(
            {
                "tunring": lambda: [value / LIVE_PACKETS for value in measured(by_batches, settle, 1)],
                "singly": lambda: [value / LIVE_SINGLY for value in measured(singly, settle, 1)],
                "C by chunks": partial(in_c, CHUNK),
                "C each": partial(in_c, 1),
            },
            turns,
        )


def guard_turns(library: tunring.Library, c: ctypes.CDLL, size: int, batch: int, turns: int) -> Turns:
    """ns per packet of a busy sender with the guard against lost wake-ups, without it, and without it again, by
    another session: what differs between those two is noise."""
    with adapters(library, 3) as made, ExitStack() as stack:
        cables = {}
        for name, adapter in zip(("without", "guarded", "without, again"), made, strict=True):
            tunring.load("wintun", wake_guard=name == "guarded")
            cables[name] = Simulated(c, adapter, size, GUARD_PACKETS, capacity_of(size))
            stack.callback(cables[name].close)
        tunring.load("wintun", wake_guard=False)

        def side(cable: Simulated) -> list[float]:
            time.sleep(0.01)  # the guard falls asleep
            taken = measured(partial(a_list, cable, batch), cable.drain, GUARD_FIRST + GUARD_ROUNDS)
            return [sum(taken[GUARD_FIRST:]) / GUARD_ROUNDS / cable.packets]

        return take_turns({name: partial(side, cable) for name, cable in cables.items()}, GUARD_TURNS * turns)


def main() -> None:
    """Prints tables and the ratios that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plain_loop")
    parser.add_argument("figures", type=Path)
    parser.add_argument("--turns", type=int, default=41)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    options = parser.parse_args()
    library, figures = libraries.load("wintun"), {}
    c = plain_c(options.plain_loop, library.path)

    def show(what: str, turns: Turns, base: str) -> None:
        figures[f"dll {what}"] = turns.taken
        print(f"\n{what}", *turns.lines(base, "ns"), sep="\n  ", flush=True)

    for size, batch in itertools.product(options.sizes, BATCHES):
        if batch > packets_of(size):
            continue
        for what, turns in ring_turns(library, c, size, batch, options.turns).items():
            show(f"{what} {size} {batch}", turns, "plain C")
        if size <= 1400:
            show(f"live {size} {batch}", live_turns(library, c, size, batch, options.turns), "C each")
    show(f"guard 64 {BATCH}", guard_turns(library, c, 64, BATCH, options.turns), "without")
    print()
    for size, batch in itertools.product((64, 1400), BATCHES):
        for what, side, other, goal in GOALS:
            taken = figures.get(f"dll {what} {size} {batch}")
            if taken:
                ratio = Turns(taken).ratio(side, other)
                print(f"{what} {size} B by {batch}: {side} / {other}: {ratio}, wanted {goal}")
    options.figures.write_text(json.dumps(figures), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
