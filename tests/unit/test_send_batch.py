from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import tunring
from packets import packet

if TYPE_CHECKING:
    from collections.abc import Callable

    Pair = tuple[tunring.Session, tunring.Session]


def test_back_where_it_came_from_and_it_stays_the_callers(pair: Pair) -> None:
    left, right = pair
    sent = [packet(20 + i, number=i) for i in range(200)]
    left.send(sent)
    with right.receive() as batch:
        assert right.send(batch) == 200
        assert right.send(batch) == 200
        assert not batch.released
        assert batch.tobytes() == sent
    for _ in range(2):
        with left.receive(200) as back:
            assert back.tobytes() == sent


def test_of_another_session_and_of_a_closed_one(pair: Pair, make_pair: Callable[..., Pair]) -> None:
    left, right = pair
    left.send([packet(100)])
    batch = right.receive()
    right.close()
    one, other = make_pair()
    with one, other, batch:
        assert one.send(batch) == 1
        with other.receive(timeout=1) as got:
            assert got.tobytes() == [packet(100)]


def test_a_packet_that_is_not_ip_is_skipped_and_counted(
    pair: Pair, simulated: tunring.Session, simulator: tunring.testing.Simulator
) -> None:
    good = [packet(), packet(40, version=6)]
    simulator.inject([good[0], b"", bytes(60), 30, good[1], packet(40, version=6)[:39], b"\x45"])
    with simulated.receive() as batch:
        assert len(batch) == 7
        assert pair[0].send(batch) == 2
    assert pair[0].stats().skipped == 5
    assert simulated.stats().skipped == 0
    with pair[1].receive() as got:
        assert got.tobytes() == good


def test_a_packet_spoilt_by_its_user_is_skipped(pair: Pair) -> None:
    left, right = pair
    left.send([packet(number=1), packet(number=2)])
    with right.receive() as batch:
        batch[0][0] = 0
        assert right.send(batch) == 1
    with left.receive() as back:
        assert back.tobytes() == [packet(number=2)]


def test_an_empty_batch(pair: Pair) -> None:
    assert pair[0].send(pair[0].receive(timeout=0)) == 0


def test_some_views_of_a_batch(pair: Pair) -> None:
    left, right = pair
    left.send([packet(number=i) for i in range(4)])
    with right.receive() as batch:
        assert right.send(batch[::2]) == 2
        assert right.send(view[:20] for view in batch) == 4
    with left.receive() as back:
        assert len(back) == 6
    assert right.stats().pinned_packets == 0


def test_to_a_closed_session(pair: Pair) -> None:
    left, right = pair
    left.send([packet()])
    with right.receive() as batch:
        left.close()
        with pytest.raises(tunring.SessionClosed):
            left.send(batch)
        assert batch.tobytes() == [packet()]
    assert right.stats().pinned_packets == 0
