"""A session whose driver the test plays: chains, overflow, nonsense in the rings, delays."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

import tunring
from libraries import reported
from packets import MAX_PACKET, number_of, packet
from running import Threads
from tunring.testing import Corruption, Simulator

if TYPE_CHECKING:
    Pair = tuple[tunring.Session, tunring.Session]


def test_packets_both_ways(simulated: tunring.Session, simulator: Simulator) -> None:
    sent = [packet(20 + i, number=i) for i in range(100)]
    simulator.inject(sent)
    with simulated.receive() as batch:
        assert batch.tobytes() == sent
        assert simulated.send(batch) == 100
    assert simulator.drain_all() == sent
    assert simulator.drain() is None


def test_the_length_of_a_subclass_is_not_asked_for(simulated: tunring.Session, simulator: Simulator) -> None:
    class Liar(bytes):
        def __len__(self) -> int:
            return 60_000

    simulator.inject([Liar(packet(20))])
    with simulated.receive(timeout=5) as batch:
        assert batch.tobytes() == [packet(20)]


def test_what_a_driver_may_bring(simulated: tunring.Session, simulator: Simulator) -> None:
    """A packet without data, one that could not be read, and one that is too large, which is skipped."""
    simulator.inject([b"", 30, packet(MAX_PACKET) + b"x", b"\xff", packet(MAX_PACKET)])
    with simulated.receive() as batch:
        assert batch.lengths.tolist() == [0, 30, 1, MAX_PACKET]
        assert batch.tobytes() == [b"", bytes(30), b"\xff", packet(MAX_PACKET)]
        assert len(batch[0]) == 0
        batch[0].release()


def test_overflow_drops_the_whole_chain(simulated: tunring.Session, simulator: Simulator) -> None:
    fits = (simulated.capacity - 4) // 24
    simulator.inject([packet()] * (fits - 5))
    with pytest.raises(tunring.RingFull):
        simulator.inject([packet(number=1)] * 6)
    simulator.inject([packet(number=2)] * 5)
    with pytest.raises(tunring.RingFull):
        simulator.inject([packet(number=3)])
    assert simulated.stats().host_dropped == reported(simulated, 7)
    with simulated.receive(65536) as batch:
        assert len(batch) == fits
        assert [number_of(view) for view in batch[-5:]] == [2] * 5


def test_one_packet_that_is_kept_pins_the_ring(simulated: tunring.Session, simulator: Simulator) -> None:
    fits = (simulated.capacity - 4) // 24
    simulator.inject([packet()] * fits)
    with simulated.receive(1) as kept:
        simulated.receive(65536).release()
        with pytest.raises(tunring.RingFull):
            simulator.inject([packet()])
        assert simulated.stats().pinned_packets == len(kept) == 1
    simulator.inject([packet()] * fits)


@pytest.mark.parametrize("size", [0x10000, 0x7FFFFFFF, 0xFFFFFFFF, 1000])
def test_a_corrupt_size(simulated: tunring.Session, simulator: Simulator, size: int) -> None:
    simulator.inject([packet()])
    simulator.corrupt(Corruption.RECEIVE_SIZE, size)
    for _ in range(3):
        with pytest.raises(tunring.RingCorrupt) as caught:
            simulated.receive()
        assert caught.value.winerror == 13
    with pytest.raises(tunring.RingCorrupt):
        next(iter(simulated.batches()))


def test_an_error_in_mid_batch_is_for_the_next_call(simulated: tunring.Session, simulator: Simulator) -> None:
    simulator.inject([packet(number=i) for i in range(3)])
    with simulated.receive(2) as first:
        # A tail that cuts the third packet in two.
        simulator.corrupt(Corruption.RECEIVE_TAIL, 2 * 24 + 12)
        assert len(first) == 2
        with pytest.raises(tunring.RingCorrupt):
            simulated.receive()
    assert simulated.stats().received_packets == 2


def test_packets_before_the_nonsense_are_returned(simulated: tunring.Session, simulator: Simulator) -> None:
    simulator.inject([packet(number=1), packet(number=2)])
    # A tail that cuts the second packet in two.
    simulator.corrupt(Corruption.RECEIVE_TAIL, 24 + 12)
    with simulated.receive() as batch:
        assert [number_of(view) for view in batch] == [1]
    with pytest.raises(tunring.RingCorrupt):
        simulated.receive()


@pytest.mark.filterwarnings("ignore:the system had removed:ResourceWarning")
@pytest.mark.parametrize("tail", [0xFFFFFFFF, tunring.MIN_CAPACITY])
def test_a_tail_outside_the_ring_ends_the_session(simulated: tunring.Session, simulator: Simulator, tail: int) -> None:
    simulator.inject([packet()])
    simulator.corrupt(Corruption.RECEIVE_TAIL, tail)
    with pytest.raises(tunring.SessionClosed) as caught:
        simulated.receive()
    assert caught.value.reason == "removed"


def test_a_head_outside_the_ring_ends_sending_only(simulated: tunring.Session, simulator: Simulator) -> None:
    simulator.corrupt(Corruption.SEND_HEAD, 0xFFFFFFFF)
    with pytest.raises(tunring.SessionClosed) as caught:
        simulated.send([packet()])
    assert (caught.value.reason, caught.value.sent) == ("removed", 0)
    with pytest.raises(tunring.SessionClosed):
        simulated.reserve([20])
    simulator.inject([packet()])
    with simulated.receive() as batch:
        assert len(batch) == 1


def test_a_driver_that_finds_nonsense_stops_sending(simulated: tunring.Session, simulator: Simulator) -> None:
    simulated.send([packet()])
    simulator.corrupt(Corruption.SEND_SIZE, 70000)
    with pytest.raises(tunring.RingCorrupt):
        simulator.drain()
    with pytest.raises(tunring.SessionClosed):
        simulated.send([packet()])


def test_nothing_to_corrupt(simulated: tunring.Session, simulator: Simulator) -> None:
    for what in (Corruption.RECEIVE_SIZE, Corruption.SEND_SIZE):
        with pytest.raises(tunring.WintunError) as caught:
            simulator.corrupt(what, 0)
        assert caught.value.winerror == 259


def test_after_corruption_another_session_works(adapter: tunring.Adapter, simulator: Simulator) -> None:
    with adapter.start_session() as session:
        simulator.inject([packet()])
        simulator.corrupt(Corruption.RECEIVE_SIZE, 70000)
        with pytest.raises(tunring.RingCorrupt):
            session.receive()
    with adapter.start_session() as session:
        simulator.inject([packet()])
        with session.receive() as batch:
            assert len(batch) == 1


def test_a_slow_driver(simulated: tunring.Session, simulator: Simulator) -> None:
    simulator.delay(0.05)
    with Threads() as threads:
        began = time.perf_counter()
        threads.start(simulator.inject, [packet()])
        with simulated.receive(timeout=20):
            assert time.perf_counter() - began >= 0.05
    assert not simulated.receive(timeout=0.01)
    simulator.delay(0)


def test_fillers_are_dropped_by_the_driver(simulated: tunring.Session, simulator: Simulator) -> None:
    simulated.reserve([20, 1500]).abandon()
    simulated.send([packet(number=4)])
    assert simulator.drain_all() == [packet(number=4)]
    assert simulated.stats().host_filtered == reported(simulated, 2)


def test_what_is_refused(adapter: tunring.Adapter, pair: Pair) -> None:
    with pytest.raises(tunring.AdapterBusy):
        Simulator.attach(pair[0].adapter)
    simulator = Simulator.attach(adapter)
    for call in (
        lambda: simulator.inject([packet()]),
        simulator.drain,
        lambda: simulator.corrupt(Corruption.RECEIVE_TAIL, 0),
    ):
        with pytest.raises(tunring.SessionClosed):
            call()
    adapter.close()
    with pytest.raises(ValueError, match="closed"):
        simulator.remove()
