"""``send`` when the ring is full: the four modes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

import libraries
import tunring
from packets import MAX_PACKET, number_of, packet, slot_size
from running import Threads, eventually

if TYPE_CHECKING:
    Pair = tuple[tunring.Session, tunring.Session]


@pytest.fixture
def session(simulated: tunring.Session) -> tunring.Session:
    """A session whose ring only the test empties."""
    return simulated


def fill(session: tunring.Session, spare: int) -> None:
    """Leaves exactly `spare` bytes of room."""
    room = session.capacity - 4 - spare
    while room:
        # Whatever remains must hold a packet too.
        slot = room if room <= slot_size(MAX_PACKET) else min(slot_size(MAX_PACKET), room - 24)
        assert session.send([packet(min(slot - 4, MAX_PACKET))], on_full="raise") == 1
        room -= slot


def test_exactly_what_the_ring_holds(session: tunring.Session) -> None:
    fits = (session.capacity - 4) // 24
    items = [packet(number=i) for i in range(fits + 10)]
    assert session.send(items, on_full="partial") == fits
    assert session.send(items, on_full="partial") == 0
    assert session.stats().ring_full == 2


@pytest.mark.parametrize("spare", [24, 28, 24 + 4 * 5])
def test_a_packet_that_just_fits(session: tunring.Session, spare: int) -> None:
    fill(session, spare)
    with pytest.raises(tunring.RingFull):
        session.send([packet(spare - 4 + 1)], on_full="raise")
    assert session.send([packet(spare - 4)], on_full="raise") == 1
    with pytest.raises(tunring.RingFull):
        session.send([packet()], on_full="raise")


def test_partial_sends_what_fits(session: tunring.Session) -> None:
    fill(session, 3 * 24)
    assert session.send([packet()] * 5, on_full="partial") == 3
    assert session.stats().dropped == 0


def test_drop_lets_no_later_smaller_one_slip_in(session: tunring.Session, simulator: tunring.testing.Simulator) -> None:
    fill(session, 3 * 24)
    items = [packet(number=1), packet(100, number=2), packet(number=3), packet(number=4)]
    assert session.send(items, on_full="drop") == 1
    assert session.stats().dropped == 3
    drained = simulator.drain_all()
    assert number_of(drained[-1]) == 1


def test_raise_sends_what_fits_and_says_how_much(
    session: tunring.Session, simulator: tunring.testing.Simulator
) -> None:
    fill(session, 70 * 24)
    with pytest.raises(tunring.RingFull) as caught:
        session.send([packet(number=i) for i in range(100)], on_full="raise")
    assert (caught.value.sent, caught.value.winerror) == (70, 111)
    assert isinstance(caught.value, BlockingIOError)
    assert session.stats().dropped == 0
    assert [number_of(data) for data in simulator.drain_all()][-70:] == list(range(70))


@pytest.mark.parametrize("timeout", [0, 0.03])
def test_wait_sends_fewer_when_the_time_is_up(session: tunring.Session, timeout: float) -> None:
    fill(session, 2 * 24)
    began = time.perf_counter()
    assert session.send([packet()] * 5, timeout=timeout) == 2
    assert timeout <= time.perf_counter() - began < timeout + 1


def test_wait_sends_all_as_room_comes(session: tunring.Session, simulator: tunring.testing.Simulator) -> None:
    count = 3 * session.capacity // 24
    got: list[bytes] = []

    def drain() -> None:
        # Only once the sender waits in a full ring: a drain from the start might prevent that.
        assert eventually(lambda: session.stats().waits)
        while len(got) < count:
            got.extend(simulator.drain_all())
            time.sleep(0.001)

    with Threads() as threads:
        threads.start(drain)
        assert session.send([packet(number=i) for i in range(count)], timeout=20) == count
    assert [number_of(data) for data in got] == list(range(count))
    assert session.stats().waits >= 1


def test_a_full_far_ring_holds_the_near_one_up(library: tunring.Library, pair: Pair) -> None:
    left, right = pair
    each = (left.capacity - 4) // 24
    assert left.send([packet(number=i) for i in range(3 * each)], on_full="partial") == 2 * each
    got = []
    while batch := right.receive(timeout=0):
        with batch:
            got += [number_of(view) for view in batch]
        libraries.settle(library)
    assert got == list(range(2 * each)), "nothing is lost, in order"


def test_modes_for_a_batch_and_for_packed_packets(pair: Pair, session: tunring.Session) -> None:
    pair[0].send([packet()] * 5)
    fill(session, 2 * 24)
    with pair[1].receive() as batch:
        assert session.send(batch, on_full="drop") == 2
        assert session.send(batch, on_full="partial") == 0
        with pytest.raises(tunring.RingFull):
            session.send(batch, on_full="raise")
    assert session.send_packed(packet() * 5, [20] * 5, timeout=0) == 0
    assert session.send_packed(packet() * 5, [20] * 5, on_full="drop") == 0
    assert session.stats().dropped == 8
