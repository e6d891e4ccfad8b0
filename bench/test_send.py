"""Sending into an empty ring: loopback against plain C."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
from loop import BATCH, PACKETS

if TYPE_CHECKING:
    from collections.abc import Callable

    from loop import Loop

    import tunring

    Pair = tuple[tunring.Session, tunring.Session]


def drain(session: tunring.Session) -> None:
    while batch := session.receive(65536, 0):
        batch.release()


def a_list(session: tunring.Session, size: int) -> Callable[[], None]:
    """Send lists of bytes objects."""
    packets = [bytes([0x45]) + bytes(size - 1) for _ in range(BATCH)]

    def send() -> None:
        for _ in range(PACKETS // BATCH):
            session.send(packets)

    return send


def packed(session: tunring.Session, size: int) -> Callable[[], None]:
    """Send buffers with packets back to back."""
    buffer, lengths = (bytes([0x45]) + bytes(size - 1)) * BATCH, memoryview(bytearray(4 * BATCH)).cast("I")
    for index in range(BATCH):
        lengths[index] = size

    def send() -> None:
        for _ in range(PACKETS // BATCH):
            session.send_packed(buffer, lengths)

    return send


@pytest.mark.parametrize("make", [a_list, packed])
def test_send(
    compare: Callable[..., None],
    pair: Pair,
    loop: Loop,
    size: int,
    make: Callable[[tunring.Session, int], Callable[[], None]],
) -> None:
    left, right = pair
    others = {"plain C": partial(loop.rounds, "each"), "C by chunks": partial(loop.rounds, "send")}
    compare(f"send {size} B, {make.__name__}", make(left, size), lambda: drain(right), others)
    drain(right)
    assert right.stats().received_packets == left.stats().sent_packets
    assert left.stats().ring_full == 0


def test_send_a_received_batch(compare: Callable[..., None], pair: Pair, loop: Loop, size: int) -> None:
    """What a forwarder does."""
    left, right = pair
    right.send([bytes([0x45]) + bytes(size - 1)] * BATCH)
    with left.receive(BATCH, 0) as batch:
        assert len(batch) == BATCH

        def send() -> None:
            for _ in range(PACKETS // BATCH):
                left.send(batch)

        others = {"plain C": partial(loop.rounds, "each"), "C by chunks": partial(loop.rounds, "send")}
        compare(f"send {size} B, a batch", send, lambda: drain(right), others)
