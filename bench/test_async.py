"""The cost of an asyncio loop: the echo of batches of 256 in a task, in turns with the same by plain calls."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import tunring.testing

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH = 256


def test_echo(compare: Callable[..., None], size: int) -> None:
    """A round takes longer than a task may go on at a time, so that its turns are among what is measured.

    It includes the start and stop of the loop, some tens of microseconds, of which many packets leave little.
    """
    left, right = tunring.testing.pair(0x1000000)
    count = min(128 * BATCH, 0x800000 // size // BATCH * BATCH)
    packets = [bytes([0x45]) + bytes(size - 1)] * count
    loop = asyncio.new_event_loop()

    def fill() -> None:
        while left.receive(65536, timeout=0):
            pass
        assert left.send(packets, on_full="partial") == count

    def plain(rounds: int) -> list[float]:
        taken = []
        for _ in range(rounds):
            fill()
            began = time.perf_counter_ns()
            echoed = 0
            for batch in right.batches(BATCH):
                echoed += right.send(batch)
                if echoed == count:
                    break
            taken.append(float(time.perf_counter_ns() - began))
        return taken

    async def echo() -> None:
        echoed = 0
        async for batch in right.batches_async(BATCH):
            echoed += await right.send_async(batch)
            if echoed == count:
                return

    compare(
        f"echo in a task, {size} B",
        lambda: loop.run_until_complete(echo()),
        fill,
        {"plain calls": plain},
        packets=count,
    )
    loop.close()
    left.close()
    right.close()
