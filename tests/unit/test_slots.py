"""Slots of a reservation: the sequence, and those that are dropped or shrunk before they are sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import tunring
from libraries import reported
from packets import MAX_PACKET, number_of, packet
from pcapng_reader import read
from reservations import closed_reason, fill, received
from tunring.pcapng import Writer

if TYPE_CHECKING:
    from pathlib import Path

    Pair = tuple[tunring.Session, tunring.Session]


def padded(session: tunring.Session, data: bytes, size: int) -> bytes:
    """The packet as it arrives from a larger slot: the official DLL's slots keep their sizes."""
    return data + bytes(size - len(data)) if session.adapter.library.official else data


def test_slots_are_a_sequence(pair: Pair) -> None:
    with pytest.raises(KeyError), pair[0].reserve([20, 30, 40]) as slots:
        assert isinstance(slots, tunring.Slots)
        assert len(slots) == 3
        assert [len(slots[i]) for i in (0, 1, 2, -1, -3, True)] == [20, 30, 40, 40, 20, 30]
        assert [len(view) for view in slots] == [20, 30, 40]
        assert [len(view) for view in reversed(slots)] == [40, 30, 20]
        assert [len(view) for view in slots[1:]] == [30, 40]
        assert [len(view) for view in slots[::-2]] == [40, 20]
        for index in (3, -4, 2**70):
            with pytest.raises(IndexError, match="of a reservation of 3"):
                slots[index]
        for wrong in (None, "0", 0.0):
            with pytest.raises(TypeError):
                slots[wrong]
        assert repr(slots) == "<tunring.Slots of 3 packets, open>"
        raise KeyError
    assert repr(slots) == "<tunring.Slots of 3 packets, over>"


def test_slots_are_for_inside_the_block(pair: Pair) -> None:
    slots = pair[0].reserve([20])
    for use in (lambda: slots[0], lambda: iter(slots), lambda: slots.drop(0), lambda: slots.shrink(0, 20)):
        with pytest.raises(RuntimeError, match="block"):
            use()
    slots.abandon()


def test_a_view_of_a_slot_that_somebody_keeps_never_changes(pair: Pair) -> None:
    left, right = pair
    with left.reserve([20] * 8) as slots:
        kept = [view for i, view in enumerate(slots) if i % 3 == 0]
        for i in range(8):
            slots[i][:] = packet(number=i)
        assert [bytes(view) for view in kept] == [packet(number=i) for i in (0, 3, 6)]
    assert [number_of(data) for data in received(right)] == list(range(8))


def test_a_dropped_slot_goes_out_as_filler(pair: Pair) -> None:
    left, right = pair
    with left.reserve([20, 30, 40, 50]) as slots:
        sent = fill(slots)
        slots.drop(1)
        slots.drop(-1)
        slots.drop(1)
        for index in (1, 3, -1):
            with pytest.raises(ValueError, match=r"slot \d was dropped"):
                slots[index]
            with pytest.raises(ValueError, match=r"slot \d was dropped"):
                slots.shrink(index, 20)
        assert len(slots) == 4
    assert received(right) == [sent[0], sent[2]]
    stats = left.stats()
    assert (stats.sent_packets, stats.sent_bytes, stats.fillers, stats.reservations) == (2, 60, 2, 0)
    assert stats.host_filtered == reported(left, 2)


def test_a_dropped_slot_needs_no_packet_in_it(pair: Pair) -> None:
    left, right = pair
    with left.reserve([20, 20]) as slots:
        slots[0][:] = packet(number=5)
        slots.drop(1)
    assert received(right) == [packet(number=5)]


def test_all_slots_dropped(pair: Pair) -> None:
    left, right = pair
    with left.reserve([20] * 3) as slots:
        for i in range(3):
            slots.drop(i)
    assert received(right) == []
    assert left.send([packet(number=1)]) == 1
    assert received(right) == [packet(number=1)]
    assert (left.stats().fillers, left.stats().sent_packets) == (3, 1)


SIZES = (20, 21, 22, 23, 24, 1400, MAX_PACKET)


@pytest.mark.parametrize(
    ("size", "length"), [(size, length) for size in SIZES for length in (20, 21, 24, 1399) if length <= size]
)
def test_a_slot_shrinks_to_its_packet(pair: Pair, size: int, length: int) -> None:
    left, right = pair
    for _ in range(3):  # what is behind is found, too
        with left.reserve([size, 40]) as slots:
            slots.shrink(0, length)
            assert len(slots[0]) == length
            sent = fill(slots)
        assert [len(data) for data in sent] == [length, 40]
        assert received(right) == [padded(left, sent[0], size), sent[1]]
    stats = left.stats()
    assert (stats.sent_packets, stats.sent_bytes, stats.fillers) == (6, 3 * (length + 40), 0)


def test_the_room_of_a_slot_that_shrank_comes_back(simulated: tunring.Session, simulator: Any) -> None:
    for _ in range(20):
        with simulated.reserve([10_000] * 12, on_full="raise") as slots:
            for i in range(12):
                slots.shrink(i, 20 + i)
            fill(slots)
        assert len(simulator.drain_all()) == 12


def test_what_lay_behind_a_shrunk_packet_is_not_sent(pair: Pair) -> None:
    left, right = pair
    with left.reserve([1400]) as slots:
        whole = slots[0]
        whole[:] = packet(20) + b"secret" * 230
        slots.shrink(0, 20)
        assert len(whole) == 1400, "views that were taken before keep their length"
    assert received(right) == [padded(left, packet(20), 1400)]


def test_shrunk_again_and_never_grown(pair: Pair) -> None:
    left, right = pair
    with left.reserve([100]) as slots:
        slots.shrink(0, 100)
        slots.shrink(0, 60)
        slots.shrink(-1, 30)
        for length in (31, 100, 19, 0, -1, 2**40, 2**70):
            with pytest.raises(ValueError, match="length must be 20, an IPv4 header, to 30"):
                slots.shrink(0, length)
        for wrong in (None, "20", 20.0):
            with pytest.raises(TypeError):
                slots.shrink(0, wrong)
        for index in (1, -2, 2**70):
            with pytest.raises(IndexError):
                slots.shrink(index, 20)
            with pytest.raises(IndexError):
                slots.drop(index)
        sent = fill(slots)
    assert received(right) == [padded(left, sent[0], 100)]


def test_a_shrunk_slot_is_checked_by_its_own_length(pair: Pair) -> None:
    left, right = pair
    with (
        pytest.raises(ValueError, match="reserved packet 1 is not an IP packet: it has 39 bytes"),
        left.reserve([40, 60]) as slots,
    ):
        fill(slots)
        slots[1][0] = 0x65
        slots.shrink(1, 39)
    assert received(right) == []
    assert left.stats().fillers == 2


@pytest.mark.parametrize("end", ["abandon", "raise", "close", "drop the last reference"])
def test_dropped_and_shrunk_slots_are_given_up_as_others(pair: Pair, end: str) -> None:
    left, right = pair
    reservation = left.reserve([20, 30, 40])
    slots = reservation.__enter__()
    fill(slots)
    slots.drop(0)
    slots.shrink(2, 20)
    if end == "abandon":
        slots.abandon()
    elif end == "raise":
        slots.__exit__(KeyError, KeyError(), None)
    elif end == "close":
        left.close()
    del slots, reservation
    assert (left.stats().fillers, left.stats().reservations) == (3, 0)
    if end != "close":
        left.send([packet(number=1)])
        assert received(right) == [packet(number=1)]


def test_a_dropped_slot_that_something_derives_from_holds_back_too(pair: Pair) -> None:
    left, right = pair
    with pytest.raises(BufferError), left.reserve([20, 20]) as slots:
        fill(slots)
        derived = slots[1][:]
        slots.drop(1)
    derived[0] = 0x45
    left.send([packet(number=9)])
    assert received(right) == []
    del derived
    assert received(right) == [packet(number=9)]
    assert left.stats().fillers == 2


class Closes:
    """An index that closes the session when it is asked for."""

    def __init__(self, session: tunring.Session) -> None:
        self.session = session

    def __index__(self) -> int:
        self.session.close()
        return 20 if self.session.closed else 0


@pytest.mark.parametrize("which", ["drop", "shrink", "length"])
def test_an_index_that_closes_the_session(pair: Pair, which: str) -> None:
    left, _ = pair

    def use() -> None:
        with left.reserve([20] * 21) as slots:
            if which == "drop":
                slots.drop(Closes(left))
            elif which == "shrink":
                slots.shrink(Closes(left), 20)
            else:
                slots.shrink(0, Closes(left))

    assert closed_reason(use)[0] == "closed"
    assert left.stats().reservations == 0


def test_captures_have_what_was_sent(pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "sent.pcapng"
    left, right = pair
    with Writer(path) as writer, left.capture(writer):
        with left.reserve([20, 30, 40, 50, 60]) as slots:
            fill(slots)
            for i in (0, 2, 4):
                slots.drop(i)
            slots.shrink(3, 33)
        assert writer.packets == 2
    assert len(received(right)) == 2
    assert [len(each.data) for each in read(path).packets] == [30, 33]


def test_one_slot_after_another_in_a_ring_that_is_full(simulated: tunring.Session, simulator: Any) -> None:
    fits = (simulated.capacity - 4) // 24
    for i in range(fits):
        with simulated.reserve([20]) as slots:
            slots[0][:] = packet(number=i)
    with pytest.raises(tunring.RingFull):
        simulated.reserve([20])
    assert simulated.stats().ring_full == 1
    assert [number_of(data) for data in simulator.drain_all()] == list(range(fits))
