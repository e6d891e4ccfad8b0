"""No packet object is made unless it is asked for."""

from __future__ import annotations

import array
import gc
import sys
import tracemalloc
from typing import TYPE_CHECKING

import pytest

import tunring
import tunring.testing
from packets import packet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Pair = tuple[tunring.Session, tunring.Session]


@pytest.fixture
def large_pair(make_pair: Callable[..., Pair]) -> Iterator[Pair]:
    left, right = make_pair(0x800000)
    with left, right:
        yield left, right


def blocks_of_a_batch(left: tunring.Session, right: tunring.Session, count: int) -> int:
    """Return the number of blocks that Python has in addition while a batch of `count` packets is there."""
    items = [packet()] * count
    batch = None
    minimum = sys.maxsize
    for _ in range(5):
        left.send(items)
        gc.collect()
        before = sys.getallocatedblocks()
        batch = right.receive(65536, 0)
        minimum = min(minimum, sys.getallocatedblocks() - before)
        assert len(batch) == count
        batch.release()
        batch = None
    return minimum


@pytest.mark.skipif(sys.getallocatedblocks() == 0, reason="this Python's allocator doesn't count")
def test_a_batch_costs_the_same_whatever_its_size(large_pair: Pair) -> None:
    few = blocks_of_a_batch(*large_pair, 1)
    many = blocks_of_a_batch(*large_pair, 65536)
    assert many == few <= 4


def test_a_million_packets_leave_and_take_nothing(large_pair: Pair) -> None:
    left, right = large_pair
    items = [packet(64)] * 50000
    count = 0
    left.send(items[:10])
    right.receive().release()
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(20):
            left.send(items)
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            taken = 0
            while taken < len(items):
                with right.receive(1024, 0) as batch:
                    taken += len(batch)
                    assert batch.nbytes == 64 * len(batch)
            count += taken
            current, peak = tracemalloc.get_traced_memory()
            assert peak - before < 4096, "memory by packets"
            assert current - before < 1024, "memory that stays"
    finally:
        tracemalloc.stop()
    assert count == 1_000_000
    assert right.stats().received_packets == 1_000_010


def test_views_that_are_dropped_do_not_add_up(large_pair: Pair) -> None:
    left, right = large_pair
    left.send([packet()] * 1000)
    with right.receive(65536) as batch:
        for _ in range(3):
            for view in batch:
                view[0]
        gc.collect()
        before = sys.getallocatedblocks()
        for _ in range(20):
            for view in batch:
                view[0]
        gc.collect()
        assert sys.getallocatedblocks() - before < 500


def peak_bytes(call: Callable[[], object]) -> int:
    call()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", "HiIlLqQ")
def test_integers_of_any_size_make_no_objects(large_pair: Pair, kind: str) -> None:
    """A Python integer takes 28 bytes, and 8 in a list; a length of ours takes 4."""
    left, right = large_pair
    count = 10000
    lengths, data = array.array(kind, [300] * count), packet(300) * count

    def send() -> None:
        assert left.send_packed(data, lengths) == count
        right.receive(65536, 0).release()

    peak = peak_bytes(send)
    lengths = array.array("I", lengths)
    assert peak <= peak_bytes(send) + 4096


def test_splitting_by_rows_makes_an_object_per_group(large_pair: Pair) -> None:
    left, right = large_pair
    count, width = 10000, 8
    left.send([packet()] * count)
    with right.receive(65536, 0) as batch:
        keys = memoryview(bytes(count * width)).cast("B", (count, width))

        def split() -> None:
            ((_, part),) = batch.split(keys)
            part.release()

        # The rows themselves, and a number each.
        assert peak_bytes(split) < count * (width + 8)
