"""Threads with a pair of sessions each: what one sends never comes out of another's."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from packets import number_of, packet
from running import NEVER, Threads

if TYPE_CHECKING:
    from collections.abc import Callable

    import tunring

    Pair = tuple[tunring.Session, tunring.Session]

#: Each way of sending is tried for that long; the full run takes minutes.
SECONDS = float(os.environ.get("TUNRING_APART_SECONDS", "1"))

COUNT = 64


def by_bytes(session: tunring.Session, tag: int) -> int:
    return session.send([packet(number=tag) for _ in range(COUNT)], on_full="partial")


def by_buffers(session: tunring.Session, tag: int) -> int:
    return session.send([bytearray(packet(number=tag)) for _ in range(COUNT)], on_full="partial")


def by_packed(session: tunring.Session, tag: int) -> int:
    return session.send_packed(packet(number=tag) * COUNT, [20] * COUNT, on_full="partial")


def by_reservation(session: tunring.Session, tag: int) -> int:
    with session.reserve([20] * COUNT, on_full="wait", timeout=10) as slots:
        for slot in slots:
            slot[:] = packet(number=tag)
    return COUNT


def one_by_one(session: tunring.Session, tag: int) -> int:
    with session.reserve([20], on_full="wait", timeout=10) as slots:
        slots[0][:] = packet(number=tag)
    return 1


@pytest.mark.parametrize("send", [by_bytes, by_buffers, by_packed, by_reservation, one_by_one])
@pytest.mark.parametrize("read", ["views", "copies"])
def test_each_packet_comes_out_of_its_own_session(
    make_pair: Callable[..., Pair], send: Callable[[Any, int], int], read: str
) -> None:
    def work(tag: int) -> tuple[int, int]:
        left, right = make_pair()
        sent = received = 0
        limit = time.monotonic() + SECONDS
        with left, right:
            while time.monotonic() < limit:
                sent += send(left, tag)
                while batch := right.receive(48, timeout=0):
                    packets = batch if read == "views" else batch.tobytes()
                    numbers = [number_of(one) for one in packets]
                    assert numbers == [tag] * len(batch), f"session {tag} got {set(numbers)}"
                    assert batch.lengths.tolist() == [20] * len(batch)
                    received += len(batch)
                    batch.release()
        return sent, received

    with Threads(SECONDS + NEVER) as threads:
        threads.limit = SECONDS + 20
        for tag in (1, 2, 3):
            threads.start(work, tag)
    for sent, received in threads.results:
        assert sent == received > 0
