"""One object in several threads at once: iterators, what is made when it is first asked for, and views."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from typing import TYPE_CHECKING

import pytest

import tunring
from packets import number_of, packet
from running import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Pair = tuple[tunring.Session, tunring.Session]

COUNT = 2000
WORKERS = 4


def together(function: Callable[[], object]) -> list[object]:
    """The results of a function in several threads that begin at once."""
    gate = threading.Barrier(WORKERS)

    def run() -> object:
        gate.wait()
        return function()

    with Threads() as threads:
        for _ in range(WORKERS):
            threads.start(run)
    return threads.results


def drain(session: tunring.Session) -> None:
    while batch := session.receive(timeout=0):
        batch.release()


def test_a_batch_iterator_gives_each_packet_once(pair: Pair) -> None:
    left, right = pair
    for _ in range(10):
        assert left.send([packet(number=i) for i in range(COUNT)]) == COUNT
        batch = right.receive(COUNT, timeout=10)
        iterator = iter(batch)
        counted: Counter[int] = Counter()
        for numbers in together(lambda: [number_of(view) for view in iterator]):
            assert numbers == sorted(numbers)
            counted.update(numbers)
        assert counted == Counter(range(COUNT))
        batch.release()
        assert right.stats().pinned_packets == 0


def test_a_reservations_iterator_gives_each_slot_once(pair: Pair) -> None:
    left, right = pair
    numbers = iter(range(1 << 30))
    next_number = threading.Lock()

    def fill(iterator: Iterable[memoryview]) -> int:
        done = 0
        for slot in iterator:
            with next_number:
                number = next(numbers)
            slot[:] = packet(number=number)
            done += 1
        return done

    for _ in range(10):
        with left.reserve([20] * COUNT) as slots:
            iterator = iter(slots)
            assert sum(together(lambda: fill(iterator))) == COUNT
        with right.receive(COUNT, timeout=10) as batch:
            found = [number_of(view) for view in batch]
        assert len(set(found)) == len(found) == COUNT


def test_what_is_made_when_first_asked_for_is_made_once(pair: Pair) -> None:
    left, right = pair
    for turn in range(100):
        left.send([packet(20 + turn), packet(40)])
        batch = right.receive(timeout=10)
        assert len({id(found) for found in together(lambda: batch.lengths)}) == 1
        assert len({id(found) for found in together(lambda: batch.offsets)}) == 1
        assert batch.lengths.tolist() == [20 + turn, 40]
        endpoint = tunring.Endpoint("192.0.2.1", turn)
        assert set(together(lambda: hash(endpoint))) == {hash(tunring.Endpoint("192.0.2.1", turn))}
        batch.release()


def test_a_reservation_is_entered_once(pair: Pair) -> None:
    def enter(slots: tunring.Slots) -> bool:
        try:
            slots.__enter__()
        except RuntimeError as error:
            assert "entered before" in str(error)
            return False
        return True

    for _ in range(100):
        slots = pair[0].reserve([20])
        assert sum(map(bool, together(lambda: enter(slots)))) == 1
        slots.abandon()


@pytest.mark.parametrize("how", ["release", "drop"])
def test_views_of_another_thread_stay_valid_memory(pair: Pair, how: str) -> None:
    """They end with the batch, or stay as they are where there is no GIL; either way nothing is left pinned."""
    left, right = pair
    expected = [packet(1400, number=i) for i in range(64)]
    for _ in range(20):
        left.send(expected)
        batches = [right.receive(timeout=10)]
        over = threading.Event()

        def read(shared: list[tunring.Batch], begun: threading.Event) -> None:
            views = list(shared[0])
            try:
                while not over.is_set():
                    for view, data in zip(views, expected, strict=True):
                        assert bytes(view) == data
                    begun.set()
            except ValueError:  # released
                begun.set()

        with Threads() as threads:
            for _ in range(2):
                begun = threading.Event()
                threads.start(read, batches, begun)
                assert begun.wait(20)
            if how == "release":
                batches[0].release()
            batches.clear()
            # Packets that lie where the batch was, if its slots were given up too early.
            for _ in range(20):
                left.send([packet(1400, number=1 << 30)] * 64, on_full="partial")
                drain(right)
            over.set()
        del threads
        assert right.stats().pinned_packets == 0
        while rest := right.receive(timeout=0.05):  # what had no room in the ring comes later over the official DLL
            rest.release()


def test_sessions_close_while_reservations_of_other_threads_die(make_pair: Callable[..., Pair]) -> None:
    for _ in range(50):
        left, right = make_pair()
        gate = threading.Barrier(3)

        def reserve(left: tunring.Session = left, gate: threading.Barrier = gate) -> None:
            gate.wait()
            try:
                while True:
                    left.reserve([100] * 3)  # which dies at once
            except tunring.SessionClosed:
                pass

        with right, Threads() as threads:
            threads.start(reserve)
            threads.start(reserve)
            gate.wait()
            left.close()


@pytest.mark.skipif(not hasattr(sys, "_is_gil_enabled"), reason="only since Python 3.13 there is anything to ask")
def test_the_import_does_not_turn_the_gil_on() -> None:
    import os
    import subprocess
    import sysconfig

    script = "import sys, tunring.testing, tunring.aead; tunring.testing.pair(); print(sys._is_gil_enabled())"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON_GIL"}
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=environment)
    assert done.stdout.strip() == str(not sysconfig.get_config_var("Py_GIL_DISABLED"))
