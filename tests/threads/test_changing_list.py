"""A list that changes while send reads it."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import tunring
from packets import number_of, packet
from running import Threads

if TYPE_CHECKING:
    from collections.abc import Iterator

    Pair = tuple[tunring.Session, tunring.Session]


def received(session: tunring.Session) -> list[int]:
    with session.receive(65536, timeout=0) as batch:
        return [number_of(view) for view in batch]


class Changing:
    """Iterates over a list that it changes meanwhile."""

    def __init__(self) -> None:
        self.items = [packet(number=i) for i in range(10)]

    def __iter__(self) -> Iterator[bytes]:
        for item in self.items:
            if len(self.items) < 20:
                self.items.append(packet(number=100))
            yield item
        self.items.clear()


def test_an_iterable_that_changes_itself(pair: Pair) -> None:
    assert pair[0].send(Changing()) == 20
    assert received(pair[1]) == [*range(10), *[100] * 10]


def test_an_index_that_changes_the_list_of_lengths(pair: Pair) -> None:
    class Index:
        def __index__(self) -> int:
            lengths.clear()
            return 20

    lengths: list[Any] = [Index(), 20, 20]
    assert pair[0].send_packed(packet() * 3, lengths) == 3
    assert lengths == []
    lengths.extend([Index(), 20, 20])
    reservation = pair[0].reserve(lengths)
    assert len(reservation) == 3
    reservation.abandon()


def test_an_index_that_closes_the_session(pair: Pair) -> None:
    import tunring

    class Index:
        def __index__(self) -> int:
            pair[0].close()
            return 20

    with pytest.raises(tunring.SessionClosed):
        pair[0].send_packed(packet(), [Index()])
    with pytest.raises(tunring.SessionClosed):
        pair[0].reserve([Index()])


def test_a_time_that_closes_the_session(pair: Pair) -> None:
    import tunring

    class Seconds:
        def __float__(self) -> float:
            pair[0].close()
            return 5.0

    with pytest.raises(tunring.SessionClosed):
        pair[0].receive(timeout=Seconds())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="only Python 3.12 lets a class export a buffer")
@pytest.mark.parametrize("change", ["clear", "replace", "grow", "close", "raise"])
def test_a_buffer_whose_export_changes_the_list(pair: Pair, change: str) -> None:
    import tunring

    class Item:
        def __buffer__(self, flags: int) -> memoryview:
            if change == "clear":
                items.clear()
            elif change == "replace":
                items[1:] = [bytearray(5)] * 50
            elif change == "grow":
                items.extend([packet(number=9)] * 100)
            elif change == "close":
                pair[0].close()
            else:
                raise KeyError("mine")
            return memoryview(packet(number=7))

    items: list[Any] = [Item(), *[packet(number=1)] * 5]
    if change == "close":
        with pytest.raises(tunring.SessionClosed):
            pair[0].send(items)
    elif change == "raise":
        with pytest.raises(KeyError, match="mine"):
            pair[0].send(items)
        assert received(pair[1]) == []
    else:
        assert pair[0].send(items) == 6
        assert received(pair[1]) == [7, 1, 1, 1, 1, 1]


def test_another_thread_changes_the_list(pair: Pair) -> None:
    left, right = pair
    items = [packet(number=i) for i in range(500)]
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            items.append(packet(number=1000))
            del items[::7]
            items[:] = [packet(number=i) for i in range(500)]

    with Threads() as threads:
        threads.start(change)
        limit = time.monotonic() + 0.5
        while time.monotonic() < limit:
            sent = left.send(items)
            assert len(received(right)) == sent
        stop.set()


def test_a_buffer_can_not_shrink_while_send_waits(simulated: tunring.Session) -> None:
    simulated.send([packet()] * 10000, on_full="partial")
    data = bytearray(packet())

    def send() -> None:
        with contextlib.suppress(tunring.SessionClosed):
            simulated.send([data], timeout=20)

    with Threads() as threads:
        threads.start(send)
        time.sleep(0.2)
        try:
            with pytest.raises(BufferError):
                data.clear()
        finally:
            simulated.close()
    data.clear()
