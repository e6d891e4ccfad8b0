"""Measures batches over the official DLL beside plain C over the same DLL, taking turns. Runs in the Windows Python.

    measure.py PLAIN_LOOP_DLL

The stand-in plays the driver: as a simulator, which fills the ring and empties it between rounds; and by its own
thread, which takes what is sent while it is being sent.
"""

from __future__ import annotations

import array
import ctypes
import statistics
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import libraries
import tunring
import tunring.testing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIZES, BATCH, CHUNK, PACKETS, CAPACITY = (64, 1400), 1024, 64, 2048, 0x400000
#: Turns, and rounds of a turn.
TURNS, ROUNDS = 15, 6
#: How much longer than plain C a batch may take, and how much faster than single packets in C it has to be while the
#: driver takes them.
MOST_RATIO, LEAST_GAIN = 1.2, 1.8

Sides = dict[str, "Callable[..., list[float]]"]


class PlainLoop:
    """The C functions."""

    def __init__(self, path: str, library: tunring.Library) -> None:
        loop = ctypes.CDLL(path)
        loop.loop_start.restype = ctypes.c_void_p
        loop.loop_start.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
        loop.loop_end.argtypes = [ctypes.c_void_p]
        loop.loop_init.argtypes = [ctypes.c_void_p]
        loop.loop_receive.restype = loop.loop_send.restype = ctypes.c_double
        loop.loop_receive.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32]
        loop.loop_send.argtypes = [ctypes.c_void_p, ctypes.c_char_p, *[ctypes.c_uint32] * 3]
        assert loop.loop_init(ctypes.CDLL(library.path)._handle)
        self.loop = loop

    @contextmanager
    def session(self, adapter: tunring.Adapter) -> Iterator[int]:
        session = self.loop.loop_start(adapter._handle.address, CAPACITY)
        assert session
        yield session
        self.loop.loop_end(session)


def receive_all(session: tunring.Session) -> float:
    left, began = PACKETS, time.perf_counter_ns()
    while left > 0:
        with session.receive(BATCH, 0) as batch:
            left -= len(batch.lengths)
    return time.perf_counter_ns() - began


def send_all(session: tunring.Session, packed: bytes, lengths: array.array[int]) -> float:
    began = time.perf_counter_ns()
    for _ in range(PACKETS // BATCH):
        session.send_packed(packed, lengths)
    return time.perf_counter_ns() - began


def rounds(prepare: Callable[[], object], measured: Callable[[], float], finish: Callable[[], object]) -> list[float]:
    taken = []
    for i in range(ROUNDS):
        prepare()
        nanoseconds = measured()
        finish()
        assert nanoseconds > 0
        if i:  # the first one warms up
            taken.append(nanoseconds / PACKETS)
    return taken


def nothing() -> None:
    """Nothing has to be done between rounds."""


def compare(adapter: tunring.Adapter, plain: PlainLoop, sides: Sides) -> dict[str, float]:
    """Medians of sides that take turns; a side whose name begins with "C" gets a plain session, others one of ours."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(TURNS):
        for name, side in sides.items():
            opened = plain.session(adapter) if name.startswith("C") else adapter.start_session(CAPACITY)
            with opened as session:
                taken[name] += side(session)
    return {name: statistics.median(values) for name, values in taken.items()}


def receiving(library: tunring.Library, plain: PlainLoop, size: int) -> dict[str, float]:
    chain = [bytes([0x45]) + bytes(size - 1)] * PACKETS
    with tunring.Adapter.create(f"receive{size}", library=library) as adapter:
        simulator = tunring.testing.Simulator.attach(adapter)
        fill = lambda: simulator.inject(chain)  # noqa: E731
        sides = {
            "tunring": lambda session: rounds(fill, lambda: receive_all(session), nothing),
            "C": lambda session: rounds(fill, lambda: plain.loop.loop_receive(session, PACKETS, BATCH), nothing),
        }
        return compare(adapter, plain, sides)


def sending(library: tunring.Library, plain: PlainLoop, size: int) -> dict[str, float]:
    packet = bytes([0x45]) + bytes(size - 1)
    packets = packet * BATCH, array.array("I", [size] * BATCH)
    with tunring.Adapter.create(f"send{size}", library=library) as adapter:
        drain = tunring.testing.Simulator.attach(adapter).drain_all
        sides = {
            "tunring": lambda session: rounds(nothing, lambda: send_all(session, *packets), drain),
            "C": lambda session: rounds(
                nothing, lambda: plain.loop.loop_send(session, packet, size, PACKETS, CHUNK), drain
            ),
        }
        return compare(adapter, plain, sides)


def sending_live(library: tunring.Library, plain: PlainLoop, size: int) -> dict[str, float]:
    packet = bytes([0x45]) + bytes(size - 1)
    packets = packet * BATCH, array.array("I", [size] * BATCH)
    settle = lambda: time.sleep(0.002)  # noqa: E731
    with tunring.Adapter.create(f"live{size}", library=library) as adapter:
        sides = {
            "tunring": lambda session: rounds(settle, lambda: send_all(session, *packets), nothing),
            "C by chunks": lambda session: rounds(
                settle, lambda: plain.loop.loop_send(session, packet, size, PACKETS, CHUNK), nothing
            ),
            "C each": lambda session: rounds(
                settle, lambda: plain.loop.loop_send(session, packet, size, PACKETS, 1), nothing
            ),
        }
        return compare(adapter, plain, sides)


def main() -> int:
    """Prints a line for each; 1 if a ratio is not what is asked for."""
    library = libraries.load("wintun")
    plain = PlainLoop(sys.argv[1], library)
    failed = []
    for size in SIZES:
        for what, measure in {"receive": receiving, "send": sending}.items():
            found = measure(library, plain, size)
            ratio = found["tunring"] / found["C"]
            print(f"{what} {size} B: tunring {found['tunring']:.1f} ns a packet, C {found['C']:.1f}, ratio {ratio:.2f}")
            if ratio > MOST_RATIO:
                failed.append(f"{what} {size} B takes {ratio:.2f} times as long as plain C")
        found = sending_live(library, plain, size)
        gain = found["C each"] / found["tunring"]
        print(
            f"send {size} B while the driver takes: tunring {found['tunring']:.1f}, C by chunks "
            f"{found['C by chunks']:.1f}, C packet by packet {found['C each']:.1f}, gain {gain:.2f}"
        )
        if gain < LEAST_GAIN:
            failed.append(f"batches of {size} B are only {gain:.2f} times faster than packet by packet")
    print("\n".join(failed) or "every ratio is what is asked for")
    return bool(failed)


sys.exit(main())
