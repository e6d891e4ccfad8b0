"""How cost grows: with the batch, the packet, the number of adapters and of threads; and what an idle session costs.

python bench/scaling.py [--turns N]
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from ring import BATCH, BATCHES, SIZES, Cable, Loop, lazily, measured, packets_of
from turns import Turns, take_turns

import tunring.testing

ADAPTERS, THREADS = (1, 2, 4, 8, 16, 32, 64), (1, 2, 4)

#: Bytes of all rings of one direction together, and packets in them.
TOTAL, PACKETS = 0x800000, 65536


def by_batch(turns: int, size: int = 64) -> Turns:
    """Lazily, by batches of this size; "C" is the loop by batches of 256."""
    with ExitStack() as stack:
        loop, cable = Loop(size), Cable(size)
        stack.callback(loop.close)
        stack.callback(cable.close)

        def refill() -> None:
            cable.drain()
            cable.fill()

        def side(batch: int) -> list[float]:
            return [taken / cable.packets for taken in measured(lambda: lazily(cable, batch), refill)]

        sides = {str(batch): lambda batch=batch: side(batch) for batch in BATCHES}
        sides["C"] = lambda: [taken / cable.packets for taken in loop.rounds("receive", BATCH)]
        return take_turns(sides, turns)


def by_size(turns: int) -> Turns:
    """Lazily, packets of this size in bytes."""
    with ExitStack() as stack:
        cables = {size: Cable(size) for size in SIZES}
        for cable in cables.values():
            stack.callback(cable.close)

        def side(size: int) -> list[float]:
            cable = cables[size]

            def refill() -> None:
                cable.drain()
                cable.fill()

            return [taken / packets_of(size) for taken in measured(lambda: lazily(cable, BATCH), refill, 3)]

        return take_turns({str(size): lambda size=size: side(size) for size in SIZES}, turns)


class Cables:
    """So many cables with packets of 64 bytes, in the same memory whatever their number."""

    def __init__(self, stack: ExitStack, count: int) -> None:
        self.each = PACKETS // count
        self.pairs = [tunring.testing.pair(TOTAL // count) for _ in range(count)]
        for session in (session for pair in self.pairs for session in pair):
            stack.callback(session.close)
        self._packets = [bytes([0x45]) + bytes(63)] * 1024

    def fill(self) -> None:
        for left, _ in self.pairs:
            for _ in range(self.each // len(self._packets)):
                left.send(self._packets)

    def take(self) -> None:
        for _, right in self.pairs:
            take(right, self.each)


def take(session: tunring.Session, packets: int) -> None:
    while packets > 0:
        with session.receive(BATCH, 0) as batch:
            packets -= len(batch.lengths)


def by_adapters(turns: int) -> Turns:
    with ExitStack() as stack:
        all_cables = {count: Cables(stack, count) for count in ADAPTERS}

        def side(count: int) -> list[float]:
            cables = all_cables[count]
            return [taken / PACKETS for taken in measured(cables.take, cables.fill, 3)]

        return take_turns({str(count): lambda count=count: side(count) for count in ADAPTERS}, turns)


def by_threads(turns: int) -> Turns:
    """Nanoseconds of the whole per packet, by threads with a session each."""
    with ExitStack() as stack:
        all_cables = {count: Cables(stack, count) for count in THREADS}

        def work(cables: Cables) -> None:
            threads = [threading.Thread(target=take, args=(right, cables.each)) for _, right in cables.pairs]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        def side(count: int) -> list[float]:
            cables = all_cables[count]
            return [taken / PACKETS for taken in measured(lambda: work(cables), cables.fill, 3)]

        return take_turns({str(count): lambda count=count: side(count) for count in THREADS}, turns)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def session_memory(sessions: int = 64) -> float:
    """Resident bytes of a session, with rings of 4 MiB, before any packet."""
    with ExitStack() as stack:
        before = _resident()
        for _ in range(sessions // 2):
            for session in tunring.testing.pair():
                stack.callback(session.close)
        return (_resident() - before) / sessions


def idle(seconds: float = 3) -> tuple[int, float]:
    """Wake-ups and processor milliseconds of a thread that waits in receive() for this time."""
    left, right = tunring.testing.pair()
    found: list[int] = []

    def wait() -> None:
        found.append(threading.get_native_id())
        with right.receive() as batch:
            found.append(len(batch))

    def used() -> tuple[int, float]:
        task = Path(f"/proc/self/task/{found[0]}")
        switches = [int(line.split()[1]) for line in (task / "status").read_text().splitlines() if "ctxt" in line]
        ticks = sum(map(int, (task / "stat").read_text().rpartition(")")[2].split()[11:13]))
        return sum(switches), ticks / os.sysconf("SC_CLK_TCK") * 1000

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.5)
    before = used()
    time.sleep(seconds)
    after = used()
    left.send([bytes([0x45]) + bytes(19)])
    thread.join()
    left.close()
    right.close()
    assert found[1] == 1
    return after[0] - before[0], after[1] - before[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    turns = parser.parse_args().turns
    for what, measure, base in [
        ("batch", by_batch, "256"),
        ("bytes per packet", by_size, "64"),
        ("adapters", by_adapters, "1"),
        ("threads", by_threads, "1"),
    ]:
        print(f"\nby {what}", *measure(turns).lines(base, "ns"), sep="\n  ")
    print(f"\na session: {session_memory() / 1024:.0f} KiB resident before any packet")
    print("idle for 3 s: {} wake-ups, {} ms of processor".format(*idle()))


if __name__ == "__main__":
    main()
