"""How much more two threads do than one, each with sessions, sockets and keys of its own; and two on one session.

python bench/threads.py [--turns N] [--seconds S] [--threads N]

With a GIL only what is done without it runs side by side; without one (``PYTHON_GIL=0`` in a free-threaded Python) all
of it does. Figures are packets of all threads together over one thread's: medians of turns that alternate.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import tunring
import tunring.testing
from tunring.aead import Opener, Sealer

if TYPE_CHECKING:
    from collections.abc import Callable

    #: Does one batch, and returns how many packets it had.
    Step = Callable[[], int]

COUNT, SIZE = 64, 1400


def _packets() -> list[bytes]:
    """Packets that no other thread has: reference counts of shared ones would be what is measured."""
    return [bytes([0x45]) + os.urandom(SIZE - 1) for _ in range(COUNT)]


def _pair(stack: ExitStack) -> tuple[tunring.Session, tunring.Session]:
    """Two connected sessions, which the stack closes."""
    left, right = tunring.testing.pair()
    return stack.enter_context(left), stack.enter_context(right)


def receive(stack: ExitStack) -> Step:
    """Receive, look at the first byte of each packet, release. The packets are put into the cable before."""
    left, right = _pair(stack)
    packets = _packets()

    def step() -> int:
        left.send(packets)
        with right.receive(COUNT, 1) as batch:
            return sum(view[0] == 0x45 for view in batch)

    return step


def send(stack: ExitStack) -> Step:
    """Send a list of bytes objects. Arriving packets are released, a batch at once."""
    left, right = _pair(stack)
    packets = _packets()

    def step() -> int:
        count = left.send(packets)
        right.receive(COUNT, 1).release()
        return count

    return step


def seal(stack: ExitStack) -> Step:
    """Seal a list of packets."""
    sealer = Sealer("aes-256-gcm", os.urandom(32))
    packets = _packets()

    def step() -> int:
        with sealer.seal(packets) as datagrams:
            return len(datagrams)

    return step


def seal_and_open(stack: ExitStack) -> Step:
    """Seal, and open in place."""
    key = os.urandom(32)
    sealer, opener = Sealer("aes-256-gcm", key), Opener("aes-256-gcm", key)
    packets = _packets()

    def step() -> int:
        with sealer.seal(packets) as datagrams, opener.open(datagrams) as opened:
            return len(opened)

    return step


def udp(stack: ExitStack) -> Step:
    """Send datagrams to a socket of the same thread, and receive them."""
    here = stack.enter_context(tunring.UdpSocket.bind(("127.0.0.1", 0)))
    there = stack.enter_context(tunring.UdpSocket.bind(("127.0.0.1", 0)))
    to = tunring.Endpoint("127.0.0.1", there.address[1])
    packets = _packets()

    def step() -> int:
        here.send(packets, to)
        got = 0
        while got < COUNT and (batch := there.receive(COUNT, 0.01)):
            got += len(batch)
            batch.release()
        return got

    return step


APART = {"receive": receive, "send": send, "seal": seal, "seal, open": seal_and_open, "UDP": udp}


def run(steps: list[Step], seconds: float) -> float:
    """Packets per second of all threads, each of which repeats a step."""
    counts = [0] * len(steps)
    gate = threading.Barrier(len(steps) + 1)
    over = threading.Event()

    def work(index: int) -> None:
        step, count = steps[index], 0
        gate.wait()
        while not over.is_set():
            count += step()
        counts[index] = count

    threads = [threading.Thread(target=work, args=[index]) for index in range(len(steps))]
    for thread in threads:
        thread.start()
    gate.wait()
    began = time.perf_counter()
    time.sleep(seconds)
    over.set()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - began)


def shared_session(stack: ExitStack, threads: int) -> list[Step]:
    """Steps of threads that send on one session and receive from the other end."""
    left, right = _pair(stack)

    def make() -> Step:
        packets = _packets()

        def step() -> int:
            count = left.send(packets, on_full="partial")
            right.receive(COUNT, 0).release()
            return count

        return step

    return [make() for _ in range(threads)]


def compare(one: list[Step], several: list[Step], turns: int, seconds: float) -> str:
    """Both rates, and their ratio."""
    rates: list[tuple[float, float]] = [(run(one, seconds), run(several, seconds)) for _ in range(turns)]
    ratios = [many / single for single, many in rates]
    single, many = (statistics.median(side) for side in zip(*rates, strict=True))
    return (
        f"{single / 1e6:7.2f} {many / 1e6:7.2f} million packets/s, "
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    print(f"{sys.version.split()[0]}, {'with' if gil else 'without'} a GIL: one thread, {options.threads}, ratio")
    for name, make in APART.items():
        with ExitStack() as stack:
            steps = [make(stack) for _ in range(options.threads)]
            print(f"{name:12}", compare(steps[:1], steps, options.turns, options.seconds))
    with ExitStack() as stack:
        steps = shared_session(stack, options.threads)
        print(f"{'one session':12}", compare(steps[:1], steps, options.turns, options.seconds))


if __name__ == "__main__":
    main()
