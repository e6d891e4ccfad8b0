"""One batch in several threads: released in one, used in others."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

import pytest

import tunring
import tunring.testing
from packets import packet
from running import Threads

if TYPE_CHECKING:
    from collections.abc import Callable

    Pair = tuple[tunring.Session, tunring.Session]

SENT = [packet(1400, number=i) for i in range(64)]


def pack(batch: tunring.Batch, target: tunring.Session) -> None:
    buffer = bytearray(batch.nbytes)
    batch.pack_into(buffer)
    assert bytes(buffer) == b"".join(SENT)


def send(batch: tunring.Batch, target: tunring.Session) -> None:
    assert target.send(batch) == len(SENT)


def copy(batch: tunring.Batch, target: tunring.Session) -> None:
    assert batch.tobytes() == SENT


def view(batch: tunring.Batch, target: tunring.Session) -> None:
    for i, one in enumerate(batch):
        assert bytes(one) == SENT[i]


@pytest.mark.parametrize("use", [pack, send, copy, view])
def test_release_in_one_thread_while_another_uses_it(
    pair: Pair, make_pair: Callable[..., Pair], use: Callable[[tunring.Batch, tunring.Session], None]
) -> None:
    left, right = pair
    one, other = make_pair()

    def loop(batch: tunring.Batch, started: threading.Event) -> int:
        turns = 0
        try:
            while True:
                use(batch, one)
                turns += 1
                started.set()
                if use is send:
                    got = other.receive(64, 0)
                    assert got.tobytes() == SENT
                    got.release()
        except ValueError as error:
            assert "released" in str(error)
            started.set()
        return turns

    with one, other:
        for turn in range(30):
            left.send(SENT)
            batch = right.receive()
            started = threading.Event()
            with Threads() as threads:
                threads.start(loop, batch, started)
                if turn % 3:
                    started.wait(10)
                batch.release()
                # The next packets may lie where the batch was.
                left.send([packet(1400, number=1 << 30)] * 80)
                for _ in range(80):
                    right.receive(1, timeout=20).release()
            assert right.stats().pinned_packets == 0
            while rest := other.receive(timeout=0):
                rest.release()


def test_each_slot_goes_back_once_whoever_lets_go_last(pair: Pair) -> None:
    left, right = pair
    choose = random.Random(1)
    count = (left.capacity - 4) // 24
    for _ in range(20):
        assert left.send([packet(number=i) for i in range(count)], on_full="partial") == count
        batches = []
        while batch := right.receive(choose.randint(1, 400), 0):
            batches.append(batch)
        assert sum(map(len, batches)) == count
        derived = [[batch[choose.randrange(len(batch))][:] for batch in batches] for _ in range(3)]
        with Threads() as threads:
            for mine in derived:
                threads.start(mine.clear)
            threads.start(lambda: [batch.release() for batch in batches])
            threads.start(lambda: [batch.release() for batch in reversed(batches)])
        del derived
        assert right.stats().pinned_packets == 0


def test_receivers_share_the_packets(pair: Pair) -> None:
    left, right = pair
    count = 30000

    def take() -> list[int]:
        numbers = []
        for batch in right.batches(7):
            numbers += [int.from_bytes(data[4:8], "big") for data in batch.tobytes()]
            batch.release()
            if len(numbers) and numbers[-1] == count - 1:
                right.close()
        return numbers

    with Threads() as threads:
        for _ in range(4):
            threads.start(take)
        assert left.send([packet(number=i) for i in range(count)]) == count
    assert all(numbers == sorted(numbers) for numbers in threads.results), "each thread sees them in order"
    assert sorted(number for numbers in threads.results for number in numbers) == list(range(count))
