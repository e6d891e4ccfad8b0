"""The ring alone, over a loopback cable: what is measured, and what it is measured beside.

    python bench/ring.py [--turns N] [--sizes N ...] [--batches N ...]

prints a table. Each side is measured in turns with the same work in C, over the same library and the same functions.
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from programs import c_program
from turns import Turns, take_turns

import tunring
import tunring.testing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Ways = dict[str, Callable[[], list[float]]]

#: Bytes per packet, and packets per batch.
SIZES, BATCHES = (64, 576, 1400, 65535), (1, 8, 64, 256, 1024)

#: The batch that most is measured with.
BATCH = 256

#: Rounds of a side before it is the other's turn: each finds the caches as the one before left them.
ROUNDS = 10


def packets_of(size: int) -> int:
    """Packets of a round. With 1400 bytes each they fill most of a ring of 4 MiB, the largest half of one of 64 MiB."""
    return 2048 if size <= 1400 else 512


def capacity_of(size: int) -> int:
    return 0x400000 if size <= 1400 else 0x4000000


class Loop:
    """The C program: plain C over the same functions of the same library."""

    def __init__(self, size: int) -> None:
        words = [tunring.load("loopback").path, size, packets_of(size), capacity_of(size)]
        self._process = subprocess.Popen(
            [c_program("c/loop.c"), *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def rounds(self, what: str, batch: int, count: int = ROUNDS) -> list[float]:
        """Nanoseconds of each of that many rounds."""
        assert self._process.stdin
        assert self._process.stdout
        # All at once, so that the program never waits between two.
        self._process.stdin.write(f"{what} {batch}\n" * count)
        self._process.stdin.flush()
        return [float(self._process.stdout.readline()) for _ in range(count)]

    def close(self) -> None:
        self._process.communicate(timeout=10)


class Cable:
    """Two sessions, and packets to send. `fill` and `drain` are what comes before a round, and isn't measured."""

    def __init__(
        self, size: int, ends: tuple[tunring.Session, tunring.Session] | None = None, packets: int | None = None
    ) -> None:
        self.size, self.packets = size, packets or packets_of(size)
        self.left, self.right = ends or tunring.testing.pair(capacity_of(size))
        # A batch of different ones: one alone would stay in the nearest cache.
        self.sources = [bytes([0x45]) + bytes(size - 1) for _ in range(BATCH)]
        self.packed = b"".join(self.sources)
        self.lengths = np.full(BATCH, size, np.uint32)
        self.target = np.empty(1024 * size, np.uint8)

    def fill(self) -> None:
        for left in range(self.packets, 0, -BATCH):
            self.left.send(self.sources[:left])

    def drain(self) -> None:
        for session in (self.left, self.right):
            while batch := session.receive(65536, 0):
                batch.release()

    def close(self) -> None:
        self.left.close()
        self.right.close()


# ---- Receive: everything in a ring that was filled ----


def lazily(cable: Cable, batch: int) -> None:
    """The lengths, and no more."""
    session, left = cable.right, cable.packets
    while left > 0:
        with session.receive(batch, 0) as got:
            left -= len(got.lengths)


def counted(cable: Cable, batch: int) -> None:
    """The bytes of all added up, which is what the C loop does with them."""
    session, left, seen = cable.right, cable.packets, 0
    while left > 0:
        with session.receive(batch, 0) as got:
            left -= len(got)
            seen += got.nbytes


def views(cable: Cable, batch: int) -> None:
    """A memoryview of each packet."""
    session, left = cable.right, cable.packets
    while left > 0:
        with session.receive(batch, 0) as got:
            for _packet in got:
                left -= 1


def tobytes(cable: Cable, batch: int) -> None:
    """A bytes object of each packet."""
    session, left = cable.right, cable.packets
    while left > 0:
        with session.receive(batch, 0) as got:
            left -= len(got.tobytes())


def pack_into(cable: Cable, batch: int) -> None:
    """All packets of a batch copied into a numpy array."""
    session, left, target = cable.right, cable.packets, cable.target
    while left > 0:
        with session.receive(batch, 0) as got:
            got.pack_into(target)
            left -= len(got)


def forward(cable: Cable, batch: int) -> None:
    """Each batch sent on, whole."""
    session, left = cable.right, cable.packets
    while left > 0:
        with session.receive(batch, 0) as got:
            left -= session.send(got)


# ---- Send: into an empty ring ----


def a_list(cable: Cable, batch: int) -> None:
    """Lists of bytes objects."""
    session, packets = cable.left, (cable.sources * 4)[:batch]
    for _ in range(cable.packets // batch):
        session.send(packets)


def packed(cable: Cable, batch: int) -> None:
    """One buffer of packets, back to back."""
    session, buffer, lengths = cable.left, cable.packed[: batch * cable.size], cable.lengths[:batch]
    for _ in range(cable.packets // len(lengths)):
        session.send_packed(buffer, lengths)


def reserved(cable: Cable, batch: int) -> None:
    """Room in the ring, filled in place."""
    session, source = cable.left, cable.sources[0]
    sizes = cable.lengths[:batch] if batch > 1 else [cable.size]
    for _ in range(cable.packets // len(sizes)):
        with session.reserve(sizes) as slots:
            for slot in slots:
                slot[:] = source


def send_one(cable: Cable, _batch: int) -> None:
    """Packet after packet, each in a list of its own."""
    session, packet = cable.left, cable.sources[0]
    for _ in range(cable.packets):
        session.send([packet])


def reserve_one(cable: Cable, _batch: int) -> None:
    """The same into room in the ring, by its index."""
    session, packet, size = cable.left, cable.sources[0], cable.size
    for _ in range(cable.packets):
        with session.reserve([size]) as slots:
            slots[0][:] = packet


RECEIVE: tuple[Callable[[Cable, int], None], ...] = (lazily, counted, views, tobytes, pack_into, forward)
SEND: tuple[Callable[[Cable, int], None], ...] = (a_list, packed, reserved)
SEND_ONE: tuple[Callable[[Cable, int], None], ...] = (send_one, reserve_one)


def measured(work: Callable[[], object], prepare: Callable[[], object], rounds: int = ROUNDS) -> list[float]:
    """Nanoseconds of each round."""
    taken = []
    for _ in range(rounds):
        prepare()
        began = time.perf_counter_ns()
        work()
        taken.append(float(time.perf_counter_ns() - began))
    return taken


# ---- The shape of pytun-pmd3 on Windows: ctypes, a packet per call ----


def ctypes_library(path: str) -> ctypes.CDLL:
    """A library with the functions' types."""
    library = ctypes.CDLL(path)
    data, handle = ctypes.POINTER(ctypes.c_ubyte), ctypes.c_void_p
    for name, result, arguments in [
        ("WintunCreateAdapter", handle, [ctypes.c_void_p] * 3),
        ("WintunStartSession", handle, [handle, ctypes.c_uint32]),
        ("WintunReceivePacket", data, [handle, ctypes.POINTER(ctypes.c_uint32)]),
        ("WintunReleaseReceivePacket", None, [handle, data]),
        ("WintunAllocateSendPacket", data, [handle, ctypes.c_uint32]),
        ("WintunSendPacket", None, [handle, ctypes.c_void_p]),
        ("WintunEndSession", None, [handle]),
        ("WintunCloseAdapter", None, [handle]),
    ]:
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class CtypesSession:
    """The library as pytun-pmd3 calls the DLL: `read` returns a bytes object, `write` takes one."""

    def __init__(self, library: ctypes.CDLL, sender: int, receiver: int, size: int, packets: int) -> None:
        self._library, self._sender, self._receiver = library, sender, receiver
        self._packet, self.packets = bytes([0x45]) + bytes(size - 1), packets

    def read(self) -> bytes:
        library, session = self._library, self._receiver
        size = ctypes.c_uint32()
        packet = library.WintunReceivePacket(session, ctypes.byref(size))
        data = ctypes.string_at(packet, size.value)
        library.WintunReleaseReceivePacket(session, packet)
        return data

    def write(self, payload: bytes) -> None:
        library, session = self._library, self._sender
        if payload.startswith(b"\x00\x00\x86\xdd"):
            payload = payload[4:]
        packet = library.WintunAllocateSendPacket(session, len(payload))
        ctypes.memmove(packet, payload, len(payload))
        library.WintunSendPacket(session, packet)

    def read_all(self) -> None:
        for _ in range(self.packets):
            self.read()

    def write_all(self) -> None:
        for _ in range(self.packets):
            self.write(self._packet)


class CtypesCable(CtypesSession):
    """Two of them, over a loopback cable."""

    def __init__(self, size: int) -> None:
        library = ctypes_library(tunring.load("loopback").path)
        self._adapters, self._sessions = [], []
        for name in ("left", "right"):
            wide = ctypes.create_string_buffer(f"ctypes {size} {name}\0".encode("utf-16-le"))
            guid = ctypes.create_string_buffer(f"ctypes cable {size:03}"[-16:].encode(), 16)
            self._adapters.append(library.WintunCreateAdapter(wide, wide, guid))
            self._sessions.append(library.WintunStartSession(self._adapters[-1], capacity_of(size)))
        super().__init__(library, *self._sessions, size, packets_of(size))

    fill, drain = CtypesSession.write_all, CtypesSession.read_all

    def close(self) -> None:
        for session in self._sessions:
            self._library.WintunEndSession(session)
        for adapter in self._adapters:
            self._library.WintunCloseAdapter(adapter)


# ---- Tables ----


def all_ways(cable: Cable, loop: Loop, old: CtypesCable, batch: int, rounds: int = ROUNDS) -> dict[str, Ways]:
    """Every way to receive and to send, and what it is measured beside: nanoseconds per packet of that many rounds."""

    def each(taken: list[float], packets: int = cable.packets) -> list[float]:
        return [value / packets for value in taken]

    def ours(work: Callable[[Cable, int], None], prepare: Callable[[], None]) -> Callable[[], list[float]]:
        return lambda: each(measured(partial(work, cable, batch), prepare, rounds))

    def both() -> None:
        cable.drain()
        cable.fill()

    receive: Ways = {"plain C": lambda: each(loop.rounds("receive", batch, rounds))}
    receive["memcpy"] = lambda: each(loop.rounds("memcpy", batch, rounds))
    receive |= {work.__name__: ours(work, both) for work in RECEIVE}
    send: Ways = {"plain C": lambda: each(loop.rounds("send", batch, rounds))}
    send |= {work.__name__: ours(work, cable.drain) for work in SEND if batch <= BATCH or work is a_list}
    send |= {work.__name__: ours(work, cable.drain) for work in SEND_ONE if batch == 1}

    def write() -> list[float]:
        taken = measured(old.write_all, lambda: None, 1)
        old.drain()
        return each(taken, old.packets)

    receive["ctypes"] = lambda: each(measured(old.read_all, old.fill, 1), old.packets)
    send["ctypes"] = write
    return {"receive": receive, "send": send}


def ring_turns(size: int, batch: int, *, turns: int) -> dict[str, Turns]:
    """Nanoseconds per packet of every way to receive and to send."""
    with ExitStack() as stack:
        loop, cable, old = Loop(size), Cable(size), CtypesCable(size)
        for opened in (loop, cable, old):
            stack.callback(opened.close)
        return {what: take_turns(ways, turns) for what, ways in all_ways(cable, loop, old, batch).items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 1400])
    parser.add_argument("--batches", type=int, nargs="+", default=[BATCH])
    options = parser.parse_args(arguments)
    for size in options.sizes:
        for batch in (batch for batch in options.batches if batch <= packets_of(size)):
            for what, turns in ring_turns(size, batch, turns=options.turns).items():
                print(f"\n{what}, {size} B, batches of {batch}", *turns.lines("plain C", "ns"), sep="\n  ")


if __name__ == "__main__":
    sys.exit(main())
