from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

import tunring
from packets import MAX_PACKET, number_of, packet
from running import Threads

if TYPE_CHECKING:
    Pair = tuple[tunring.Session, tunring.Session]


def test_what_is_there_comes_at_once_in_order(pair: Pair) -> None:
    left, right = pair
    sent = [packet(20 + i, number=i) for i in range(300)]
    assert left.send(sent) == 300
    with right.receive(65536) as batch:
        assert batch.tobytes() == sent


def test_at_most_max_packets_come(pair: Pair) -> None:
    left, right = pair
    left.send([packet(number=i) for i in range(10)])
    got = []
    for maximum, expected in ((3, 3), (1, 1), (256, 6)):
        with right.receive(maximum) as batch:
            assert len(batch) == expected
            got += [number_of(view) for view in batch]
    assert got == list(range(10))


def test_the_default_is_256(pair: Pair) -> None:
    left, right = pair
    left.send([packet()] * 300)
    with right.receive() as first, right.receive() as second:
        assert (len(first), len(second)) == (256, 44)


@pytest.mark.parametrize("size", [20, 21, 22, 23, 40, 1500, 65533, 65534, MAX_PACKET])
@pytest.mark.parametrize("version", [4, 6])
def test_every_byte_of_every_size(pair: Pair, size: int, version: int) -> None:
    left, right = pair
    if version == 6 and size < 40:
        with pytest.raises(ValueError):
            left.send([packet(size, version=6)])
        return
    data = bytes([version << 4]) + bytes(i * 7 & 0xFF for i in range(size - 1))
    # Packets are received again and again, past the end of the ring.
    for _ in range(5):
        left.send([data])
        with right.receive(timeout=1) as batch:
            assert batch.tobytes() == [data]


def test_polling_an_empty_ring_gives_an_empty_batch(pair: Pair) -> None:
    batch = pair[0].receive(timeout=0)
    assert not batch
    assert (len(batch), batch.nbytes, list(batch), batch.tobytes(), batch.lengths.tolist()) == (0, 0, [], [], [])
    assert batch.pack_into(bytearray()) == 0
    assert list(batch[:]) == []
    with pytest.raises(IndexError):
        batch[0]
    with batch:
        pass
    assert batch.released


def test_a_packet_ends_the_wait(pair: Pair) -> None:
    left, right = pair

    def send_later() -> None:
        time.sleep(0.05)
        left.send([packet()])

    with Threads() as threads:
        began = time.perf_counter()
        threads.start(send_later)
        with right.receive() as batch:
            assert len(batch) == 1
        assert 0.04 < time.perf_counter() - began < 5


def test_closed_here(pair: Pair) -> None:
    pair[0].close()
    with pytest.raises(tunring.SessionClosed) as caught:
        pair[0].receive()
    assert (caught.value.reason, caught.value.winerror) == ("closed", 38)
    assert isinstance(caught.value, EOFError)


def test_batches_gives_each_and_releases_it_when_the_next_is_asked_for(pair: Pair) -> None:
    left, right = pair
    left.send([packet(number=i) for i in range(5)])
    seen: list[tunring.Batch] = []
    for batch in right.batches(2):
        assert all(old.released for old in seen)
        seen.append(batch)
        if sum(len(batch) for batch in seen) == 5:
            right.close()
    assert [len(batch) for batch in seen] == [2, 2, 1]
    assert all(batch.released for batch in seen)


def test_batches_takes_batches_that_the_loop_released(pair: Pair) -> None:
    left, right = pair
    left.send([packet()] * 2)
    count = 0
    for batch in right.batches(1):
        with batch:
            count += 1
        if count == 2:
            right.close()
    assert count == 2


def test_batches_releases_when_the_loop_is_left(pair: Pair) -> None:
    left, right = pair
    left.send([packet()] * 2)
    iterator = right.batches(1)
    batch = next(iterator)
    iterator.close()
    assert batch.released
    assert right.stats().pinned_packets == 0


def test_batches_of_a_closed_session_is_empty(pair: Pair) -> None:
    pair[0].close()
    assert list(pair[0].batches()) == []
