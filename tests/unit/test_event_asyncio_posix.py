"""The descriptor in an asyncio loop: its reader is called while something is there, and not otherwise."""

from __future__ import annotations

import asyncio
import threading
import time

import tunring
from packets import packet

BURSTS = 20
BURST = 50


def send_bursts(session: tunring.Session) -> None:
    for _ in range(BURSTS):
        session.send([packet()] * BURST)
        time.sleep(0.002)


async def take(session: tunring.Session, total: int) -> tuple[int, int]:
    """Packets taken one by one by the reader, and its calls that found nothing."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    taken = empty = 0

    def read() -> None:
        nonlocal taken, empty
        with session.receive(1, timeout=0) as batch:
            taken += len(batch)
            empty += not batch
        if taken == total and not done.done():
            done.set_result(None)

    loop.add_reader(session.fileno(), read)
    try:
        await asyncio.wait_for(done, 20)
        await asyncio.sleep(0.05)  # nothing more is there, so nothing more is called
    finally:
        loop.remove_reader(session.fileno())
    return taken, empty


def test_reader_takes_every_packet(pair: tuple[tunring.Session, tunring.Session]) -> None:
    left, right = pair
    sender = threading.Thread(target=send_bursts, args=(left,))
    sender.start()
    taken, empty = asyncio.run(take(right, BURSTS * BURST))
    sender.join()
    assert taken == BURSTS * BURST
    assert empty == 0
    assert right.stats().waits == 0, "the loop waits, not the session"
