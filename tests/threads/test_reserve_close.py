"""Closing a session while other threads reserve, and while Python collects garbage in the middle of it."""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
from typing import TYPE_CHECKING

import pytest

import tunring
from packets import number_of, packet
from running import SANITIZED, Threads, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Pair = tuple[tunring.Session, tunring.Session]
    MakePair = Callable[..., Pair]

ROUNDS = 100 if SANITIZED else 500


@pytest.fixture(autouse=True)
def _often_another_thread() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_every_reservation_that_was_made_is_given_up(make_pair: MakePair) -> None:
    for turn in range(ROUNDS):
        left, right = make_pair(tunring.MIN_CAPACITY)
        going = threading.Barrier(5)
        made: list[tunring.Slots] = []

        def reserve(
            left: tunring.Session = left,
            going: threading.Barrier = going,
            made: list[tunring.Slots] = made,
        ) -> None:
            going.wait()
            with contextlib.suppress(tunring.SessionClosed):
                made.append(left.reserve([20]))

        with Threads() as threads:
            for _ in range(4):
                threads.start(reserve)
            going.wait()
            for _ in range(turn % 50):
                pass
            left.close()
        assert not any(reservation.open for reservation in made)
        assert left.stats().reservations == 0
        right.close()


@contextlib.contextmanager
def collected_in_here(work: Callable[[], None]) -> Iterator[None]:
    """Calls a function from a finalizer, in the next collection: on Python 3.11 any allocation may start it."""

    class Finalizer:
        def __del__(self) -> None:
            work()

    thresholds = gc.get_threshold()
    gc.collect()
    gc.disable()
    cycle: list[object] = [Finalizer()]
    cycle.append(cycle)
    del cycle
    gc.set_threshold(1)
    gc.enable()
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.collect()


def test_a_commit_during_which_a_finalizer_closes_the_session(pair: Pair) -> None:
    left, right = pair
    reservation = left.reserve([20] * 100)
    for view in reservation.__enter__():
        view[:] = packet()
    ended: list[BaseException | None] = []
    with collected_in_here(left.close):
        try:
            reservation.__exit__(None, None, None)
        except Exception as error:
            ended.append(error)
    # The collection came before, in the middle, or after.
    if ended:
        assert isinstance(ended[0], tunring.SessionClosed), repr(ended[0])
        assert ended[0].reason == "closed"
    assert len(right.receive(65536, timeout=0)) == (0 if ended else 100)
    assert not reservation.open


@pytest.mark.parametrize("allocations", range(1, 12))
def test_close_while_a_collection_takes_reservations_along(pair: Pair, allocations: int) -> None:
    left, _ = pair
    reserved: list[int] = []
    done = threading.Event()

    def reserve_in_a_cycle() -> None:
        cell: list[object] = [left.reserve([20])]
        cell.append(cell)
        del cell
        reserved.append(1)
        done.wait()

    thresholds = gc.get_threshold()
    gc.collect()
    gc.disable()
    with Threads() as threads:
        for _ in range(25):
            threads.start(reserve_in_a_cycle)
        assert eventually(lambda: len(reserved) == 25)
        done.set()
    gc.set_threshold(gc.get_count()[0] + allocations)
    gc.enable()
    try:
        left.close()
    finally:
        gc.set_threshold(*thresholds)
    with pytest.raises(tunring.SessionClosed):
        left.receive(timeout=0)


def test_nobody_elses_request_gets_the_view_that_a_thread_is_making(pair: Pair) -> None:
    pair[0].send([packet()] * 2)
    with pair[1].receive() as batch:
        lease = batch[0].obj
        asked, answered = threading.Event(), threading.Event()
        answers: list[type[BaseException] | None] = []

        def ask(lease: object = lease) -> None:
            asked.wait(10)
            try:
                memoryview(lease)
            except BufferError as error:
                answers.append(type(error))
            else:
                answers.append(None)
            answered.set()

        def switch() -> None:
            asked.set()
            answered.wait(10)

        with Threads() as threads:
            threads.start(ask)
            with collected_in_here(switch):
                view = batch[1]
        assert answers == [BufferError]
        assert bytes(view) == packet()
        del view, lease, ask


def test_slots_that_shrink_and_drop_while_the_session_is_closed(make_pair: MakePair) -> None:
    for turn in range(ROUNDS // 5):
        left, right = make_pair(tunring.MIN_CAPACITY)
        going = threading.Barrier(3)
        sent: list[int] = []

        def fill(
            number: int, left: tunring.Session = left, going: threading.Barrier = going, sent: list[int] = sent
        ) -> None:
            going.wait()
            with contextlib.suppress(tunring.SessionClosed):
                for i in range(20):
                    with left.reserve([100] * 4, on_full="wait", timeout=20) as slots:
                        for k in range(4):
                            slots[k][:40] = packet(40, number=number + 4 * i + k)
                            slots.shrink(k, 40)
                        slots.drop(i % 4)
                    sent.append(3)

        with Threads() as threads:
            threads.start(fill, 0)
            threads.start(fill, 1000)
            going.wait()
            for _ in range(turn * 20):
                pass
            left.close()
        with right.receive(65536, timeout=0) as batch:
            lengths = {100} if right.adapter.library.official else {40}
            assert set(batch.lengths) <= lengths
            # Packets that were sent may be lost at the end of their session, but nothing else may arrive.
            assert len(batch) <= sum(sent) + 6
            for flow in (0, 1000):
                numbers = [number_of(view) - flow for view in batch if flow <= number_of(view) < flow + 1000]
                assert numbers == sorted(numbers)
                assert not [number for number in numbers if number % 4 == number // 4 % 4]
        assert left.stats().reservations == 0
        right.close()
