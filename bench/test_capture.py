"""The cost of a capture: packets through a cable and into a file in memory, in turns with the same, not captured."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from ring import Cable, packets_of

from tunring.pcapng import Writer

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

MEMORY = Path("/dev/shm")


def rewind(file: BinaryIO) -> None:
    """Lets a round begin with an empty file, so that memory lasts."""
    os.ftruncate(file.fileno(), 0)
    os.lseek(file.fileno(), 0, os.SEEK_SET)


def without_capture(cable: Cable, rounds: int) -> list[float]:
    taken = []
    for _ in range(rounds):
        cable.drain()
        began = time.perf_counter_ns()
        cable.fill()
        taken.append(float(time.perf_counter_ns() - began))
    return taken


def test_capture(compare: Callable[..., None], size: int, tmp_path: Path) -> None:
    """A round ends when the file has it all: a writer that fell behind would have dropped packets otherwise."""
    path = (MEMORY if MEMORY.is_dir() else tmp_path) / f"tunring-bench-{os.getpid()}.pcapng"
    with ExitStack() as stack:
        captured, plain = Cable(size), Cable(size)
        stack.callback(captured.close)
        stack.callback(plain.close)
        file = stack.enter_context(path.open("wb", buffering=0))
        stack.callback(path.unlink)
        writer = stack.enter_context(Writer(file))
        stack.enter_context(captured.left.capture(writer, received=False))

        def prepare() -> None:
            captured.drain()
            rewind(file)

        def send() -> None:
            captured.fill()
            writer.flush()

        others = {"no capture": lambda rounds: without_capture(plain, rounds)}
        compare(f"captured send {size} B", send, prepare, others, packets=packets_of(size))
        assert writer.dropped == 0
        assert writer.packets == captured.left.stats().sent_packets
