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

from ring import BATCH, SIZES, Cable, CtypesSession, a_list, all_ways, capacity_of, ctypes_library, measured
from turns import Turns, take_turns

import libraries
import tunring
import tunring.testing

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Packets of a batch.
BATCHES = (BATCH, 1024)

#: Rounds of a side before it is the other's turn.
ROUNDS = 3

#: Packets of a round while the driver takes them, and of one that compares the guard: waking either after the pause
#: before a round takes as long as hundreds of packets.
LIVE_PACKETS, GUARD_PACKETS = 32768, 524288

#: The C loop commits so many at a time, as tunring's core does.
CHUNK = 64

#: What is asked for: of which figures, what beside what.
GOALS = [
    ("receive", "lazily", "plain C", "<= 1.15"),
    ("send", "a_list", "plain C", "<= 1.15"),
    ("live", "C each", "tunring", ">= 1.8"),
    ("guard", "guarded", "without", "<= 1.01"),
]


def packets_of(size: int) -> int:
    """Packets of a round: most of what a ring holds."""
    return 3 * 2**20 // (size + 8) // 1024 * 1024 if size <= 1400 else 512


class Simulated(Cable):
    """One session at both ends: what it receives the simulator injects, and what it sends waits for the simulator."""

    def __init__(self, adapter: tunring.Adapter, size: int, packets: int, capacity: int) -> None:
        self.simulator = tunring.testing.Simulator.attach(adapter)
        session = adapter.start_session(capacity)
        super().__init__(size, (session, session), packets)
        self._chain = (self.sources * (self.packets // len(self.sources) + 1))[: self.packets]

    def fill(self) -> None:
        self.simulator.inject(self._chain)

    def drain(self) -> None:
        while batch := self.right.receive(65536, 0):
            batch.release()
        self.simulator.drain_all()


class Old(CtypesSession):
    """ctypes over a session of its own, likewise."""

    def __init__(self, adapter: tunring.Adapter, size: int) -> None:
        library = ctypes_library(adapter.library.path)
        self._simulator = tunring.testing.Simulator.attach(adapter)
        session = library.WintunStartSession(adapter._handle.address, capacity_of(size))
        assert session
        super().__init__(library, session, session, size, packets_of(size))

    def fill(self) -> None:
        self._simulator.inject([self._packet] * self.packets)

    def drain(self) -> None:
        self._simulator.drain_all()

    def close(self) -> None:
        self._library.WintunEndSession(self._sender)


class PlainLoop:
    """plain_loop.c over a session of its own: bench.ring.Loop's part."""

    def __init__(self, path: str, adapter: tunring.Adapter, size: int, *, simulated: bool) -> None:
        self._loop = ctypes.CDLL(path)
        word, handle = ctypes.c_uint32, ctypes.c_void_p
        for name, result, arguments in [
            ("loop_init", ctypes.c_int, [handle]),
            ("loop_start", handle, [handle, word]),
            ("loop_end", None, [handle]),
            ("loop_receive", ctypes.c_double, [handle, word, word]),
            ("loop_send", ctypes.c_double, [handle, ctypes.c_char_p, word, word, word, word]),
            ("loop_copy", ctypes.c_double, [ctypes.c_char_p, ctypes.c_char_p, word, word, word]),
        ]:
            function = getattr(self._loop, name)
            function.restype, function.argtypes = result, arguments
        assert self._loop.loop_init(ctypes.CDLL(adapter.library.path)._handle)
        self.size, self.packets = size, packets_of(size)
        packet = bytes([0x45]) + bytes(size - 1)
        self._source, self._chain = packet * BATCH, [packet] * self.packets
        self._target = ctypes.create_string_buffer(self.packets * size)
        self._simulator = tunring.testing.Simulator.attach(adapter) if simulated else None
        self._session = self._loop.loop_start(adapter._handle.address, capacity_of(size))
        assert self._session

    def rounds(self, what: str, batch: int, count: int = ROUNDS) -> list[float]:
        """Nanoseconds of each round."""
        return [getattr(self, f"_{what}")(batch) for _ in range(count)]

    def _receive(self, batch: int) -> float:
        assert self._simulator
        self._simulator.inject(self._chain)
        return float(self._loop.loop_receive(self._session, self.packets, batch))

    def send(self, packets: int, chunk: int) -> float:
        taken: float = self._loop.loop_send(self._session, self._source, BATCH, self.size, packets, chunk)
        assert taken > 0
        return taken

    def _send(self, batch: int) -> float:
        assert self._simulator
        taken = self.send(self.packets, min(batch, CHUNK))
        self._simulator.drain_all()
        return taken

    def _memcpy(self, batch: int) -> float:
        return float(self._loop.loop_copy(self._target, self._source, BATCH, self.size, self.packets))

    def close(self) -> None:
        self._loop.loop_end(self._session)


@contextmanager
def adapters(library: tunring.Library, count: int) -> Iterator[list[tunring.Adapter]]:
    with ExitStack() as stack:
        yield [stack.enter_context(tunring.Adapter.create(f"bench{i}", library=library)) for i in range(count)]


def ring_turns(library: tunring.Library, path: str, size: int, batch: int, turns: int) -> dict[str, Turns]:
    """What bench.ring.ring_turns() gives, over the DLL."""
    with adapters(library, 3) as (one, two, three), ExitStack() as stack:
        loop, old, cable = (
            PlainLoop(path, one, size, simulated=True),
            Old(two, size),
            Simulated(three, size, packets_of(size), capacity_of(size)),
        )
        for opened in (loop, old, cable):
            stack.callback(opened.close)
        return {what: take_turns(ways, turns) for what, ways in all_ways(cable, loop, old, batch, ROUNDS).items()}


def live_turns(library: tunring.Library, path: str, size: int, batch: int, turns: int) -> Turns:
    """Nanoseconds a packet of sending while the driver takes: by batches, and in C by chunks and singly."""
    with adapters(library, 2) as (one, two), ExitStack() as stack:
        loop = PlainLoop(path, one, size, simulated=False)
        stack.callback(loop.close)
        session = stack.enter_context(two.start_session(capacity_of(size)))
        sources = [bytes([0x45]) + bytes(size - 1) for _ in range(BATCH)] * (batch // BATCH)

        def settle() -> None:
            time.sleep(0.002)

        def send() -> None:
            for _ in range(LIVE_PACKETS // batch):
                session.send(sources, timeout=10)

        def in_c(chunk: int) -> list[float]:
            taken = []
            for _ in range(ROUNDS):
                settle()
                taken.append(loop.send(LIVE_PACKETS, chunk) / LIVE_PACKETS)
            return taken

        return take_turns(
            {
                "tunring": lambda: [value / LIVE_PACKETS for value in measured(send, settle, ROUNDS)],
                "C by chunks": partial(in_c, CHUNK),
                "C each": partial(in_c, 1),
            },
            turns,
        )


def guard_turns(library: tunring.Library, size: int, batch: int, turns: int) -> Turns:
    """Nanoseconds a packet of sending batches with the guard against lost wake-ups, and without it."""
    with adapters(library, 2) as (one, two), ExitStack() as stack:
        without = Simulated(one, size, GUARD_PACKETS, tunring.MAX_CAPACITY)
        tunring.load("wintun", wake_guard=True)
        guarded = Simulated(two, size, GUARD_PACKETS, tunring.MAX_CAPACITY)
        tunring.load("wintun", wake_guard=False)

        def side(cable: Simulated) -> list[float]:
            return [value / cable.packets for value in measured(partial(a_list, cable, batch), cable.drain, 1)]

        for cable in (without, guarded):
            stack.callback(cable.close)
        # A small difference takes many turns to tell.
        return take_turns({"without": partial(side, without), "guarded": partial(side, guarded)}, 3 * turns)


def main() -> None:
    """Prints tables and the ratios that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plain_loop")
    parser.add_argument("figures", type=Path)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    options = parser.parse_args()
    library, figures = libraries.load("wintun"), {}

    def show(what: str, turns: Turns, base: str) -> None:
        figures[f"dll {what}"] = turns.taken
        print(f"\n{what}", *turns.lines(base, "ns"), sep="\n  ", flush=True)

    for size, batch in itertools.product(options.sizes, BATCHES):
        if batch > packets_of(size):
            continue
        for what, turns in ring_turns(library, options.plain_loop, size, batch, options.turns).items():
            show(f"{what} {size} {batch}", turns, "plain C")
        if size <= 1400:
            show(f"live {size} {batch}", live_turns(library, options.plain_loop, size, batch, options.turns), "C each")
    show(f"guard 64 {BATCH}", guard_turns(library, 64, BATCH, options.turns), "without")
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
