from __future__ import annotations

import array
import contextlib
import gc
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import tunring
from libraries import reported
from packets import MAX_PACKET, number_of, packet
from reservations import closed_reason, fill, received
from running import Threads, eventually
from tunring.packets import clamp_mss, fill_checksums

if TYPE_CHECKING:
    Pair = tuple[tunring.Session, tunring.Session]


@pytest.mark.parametrize(
    "sizes", [[20], [20, 21, 1500, MAX_PACKET], [20] * 1000, array.array("H", [20, 40]), range(20, 30)]
)
def test_what_is_filled_is_sent_at_the_end_of_the_block(pair: Pair, sizes: Any) -> None:
    left, right = pair
    with left.reserve(sizes) as slots:
        assert [len(view) for view in slots] == list(sizes)
        for view in slots:
            assert (view.format, view.ndim, view.readonly) == ("B", 1, False)
        sent = fill(slots)
        assert received(right) == []
        assert left.stats().reservations == 1
    assert received(right) == sent
    stats = left.stats()
    assert (stats.sent_packets, stats.sent_bytes, stats.reservations) == (len(sent), sum(map(len, sent)), 0)
    assert stats.fillers == 0


def test_the_views_end_with_the_block(pair: Pair) -> None:
    with pair[0].reserve([20, 20]) as slots:
        views = list(slots)
        fill(views)
    for view in views:
        with pytest.raises(ValueError, match="released"):
            view[0]
    for use in (lambda: slots[0], lambda: list(slots), lambda: slots.drop(0), lambda: slots.shrink(0, 20)):
        with pytest.raises(ValueError, match="over"):
            use()
    assert len(slots) == 2


@pytest.mark.parametrize("size", [-1, 0, 19, MAX_PACKET + 1, 2**32 + 20, 2**64 + 20])
def test_bad_sizes(pair: Pair, size: int) -> None:
    with pytest.raises(ValueError, match="1"):
        pair[0].reserve([20, size])
    assert pair[0].stats().reservations == 0


@pytest.mark.parametrize("sizes", [[20.0], ["20"], 20, None, "ab", b"ab", [None], array.array("d", [20])])
def test_sizes_of_the_wrong_type(pair: Pair, sizes: Any) -> None:
    with pytest.raises(TypeError):
        pair[0].reserve(sizes)


@pytest.mark.parametrize("sizes", [20, None, "ab", b"ab"])
def test_the_message_says_what_sizes_are(pair: Pair, sizes: Any) -> None:
    found = type(sizes).__name__ if isinstance(sizes, (str, bytes)) else repr(sizes)
    for call in (pair[0].reserve, partial(pair[0].send_packed, bytes(20))):
        with pytest.raises(TypeError, match=rf"s must be a sequence of integers, one per packet, not {found}$"):
            call(sizes)


def test_all_or_none(simulated: tunring.Session, simulator: tunring.testing.Simulator) -> None:
    fits = (simulated.capacity - 4) // 24
    simulated.send([packet()] * (fits - 10), on_full="raise")
    with pytest.raises(tunring.RingFull) as caught:
        simulated.reserve([20] * 11)
    assert (caught.value.winerror, caught.value.sent) == (111, 0)
    stats = simulated.stats()
    # The official DLL can't tell the room beforehand: what fits is allocated, and goes out as filler.
    fillers = 10 if simulated.adapter.library.official else 0
    assert (stats.reservations, stats.fillers, stats.ring_full) == (0, fillers, 1)
    if fillers:
        assert len(simulator.drain_all()) == fits - 10
    with simulated.reserve([20] * 10) as slots:
        fill(slots, 1000)
    assert [number_of(data) for data in simulator.drain_all()][-10:] == list(range(1000, 1010))


def test_as_much_as_the_ring_holds_and_more(pair: Pair) -> None:
    left, right = pair
    fits = (left.capacity - 4) // 24
    with left.reserve([20] * fits) as slots:
        fill(slots)
    assert len(received(right)) == fits
    for mode in ("raise", "wait"):
        with pytest.raises(ValueError, match="fit"):
            left.reserve([20] * (fits + 1), on_full=mode, timeout=1)


def test_wait_gives_up_in_time(simulated: tunring.Session) -> None:
    simulated.send([packet()] * ((simulated.capacity - 4) // 24), on_full="raise")
    for timeout in (0, 0.03):
        began = time.perf_counter()
        with pytest.raises(tunring.RingFull):
            simulated.reserve([20], on_full="wait", timeout=timeout)
        assert timeout <= time.perf_counter() - began < timeout + 1


def test_wait_gets_the_room_that_comes(simulated: tunring.Session, simulator: tunring.testing.Simulator) -> None:
    simulated.send([packet()] * ((simulated.capacity - 4) // 24), on_full="raise")

    def drain() -> int:
        time.sleep(0.05)
        return len(simulator.drain_all())

    with Threads() as threads:
        threads.start(drain)
        with simulated.reserve([1400] * 10, on_full="wait", timeout=20) as slots:
            fill(slots)
    assert len(simulator.drain_all()) + threads.results[0] == (simulated.capacity - 4) // 24 + 10


def test_an_exception_abandons(pair: Pair) -> None:
    left, right = pair
    with pytest.raises(KeyError, match="mine"), left.reserve([20, 30]) as slots:
        view = slots[0]
        fill(slots)
        raise KeyError("mine")
    with pytest.raises(ValueError, match="released"):
        view[0]
    assert left.send([packet(number=7)]) == 1
    assert received(right) == [packet(number=7)]
    stats = left.stats()
    assert (stats.fillers, stats.host_filtered, stats.reservations, stats.sent_packets) == (2, reported(left, 2), 0, 1)


def test_abandon_inside_the_block(pair: Pair) -> None:
    reservation = pair[0].reserve([20])
    with reservation as slots:
        fill(slots)
        reservation.abandon()
    assert received(pair[1]) == []
    assert pair[0].stats().fillers == 1


def test_left_without_being_entered(pair: Pair) -> None:
    reservation = pair[0].reserve([20])
    with pytest.raises(ValueError, match="reserved packet 0"):
        reservation.__exit__(None, None, None)
    assert not reservation.open
    assert pair[0].stats().fillers == 1


@pytest.mark.parametrize("data", [bytes(40), b"\x55" + bytes(39), b"\x65" + bytes(38)])
def test_a_packet_that_is_not_ip_is_named_and_nothing_is_sent(pair: Pair, data: bytes) -> None:
    left, right = pair
    with pytest.raises(ValueError, match=r"\b1\b"), left.reserve([40, len(data), 40]) as slots:
        fill(slots)
        slots[1][:] = data
    left.send([packet(number=5)])
    assert received(right) == [packet(number=5)]
    assert left.stats().fillers == 3


def test_an_unfilled_slot_is_not_a_packet_though_the_ring_has_old_ones(pair: Pair) -> None:
    left, right = pair
    for _ in range(20):
        left.send([packet(1500)] * 10)
        received(right)
    with pytest.raises(ValueError), left.reserve([1500] * 10):
        pass
    assert received(right) == []


def make_slice(view: memoryview) -> Any:
    return view[4:8]


def make_cast(view: memoryview) -> Any:
    return view.cast("H")


def make_memoryview(view: memoryview) -> Any:
    return memoryview(view)


def make_array(view: memoryview) -> Any:
    return pytest.importorskip("numpy").frombuffer(view, dtype="u1")


@pytest.mark.parametrize("derive", [make_slice, make_cast, make_memoryview, make_array])
def test_something_derived_that_lives_holds_back_until_it_dies(pair: Pair, derive: Any) -> None:
    left, right = pair
    with pytest.raises(BufferError), left.reserve([20, 20, 20]) as slots:
        fill(slots)
        derived = derive(slots[1])
    assert len(derived)
    assert left.stats().sent_packets == 0
    assert left.stats().reservations == 1
    # The room is out of this thread's hands: it may send, but what it sends waits for the slot.
    assert left.send([packet(number=9)]) == 1
    assert received(right) == []
    del derived
    gc.collect()
    assert received(right) == [packet(number=9)]
    assert left.stats().fillers == 3
    assert left.stats().reservations == 0


def test_this_thread_can_not_send_meanwhile(pair: Pair) -> None:
    left, right = pair
    with left.reserve([20]) as slots:
        for call in (
            lambda: left.send([packet()]),
            lambda: left.send([]),
            lambda: left.send_packed(packet(), [20]),
            lambda: left.reserve([20]),
        ):
            with pytest.raises(RuntimeError, match="reservation"):
                call()
        fill(slots)
        assert right.send([packet()]) == 1, "the other session is not concerned"
        assert len(received(left)) == 1
    assert left.send([packet()]) == 1


def test_other_threads_sends_are_held_back_until_the_exit(pair: Pair) -> None:
    left, right = pair
    with left.reserve([20]) as slots:
        with Threads() as threads:
            threads.start(left.send, [packet(number=2)])
        assert threads.results == [1]
        assert received(right) == []
        fill(slots, 1)
    assert [number_of(data) for data in received(right)] == [1, 2]


def test_reservations_of_several_threads(pair: Pair) -> None:
    left, right = pair

    def send(number: int) -> None:
        with left.reserve([20] * 3) as slots:
            fill(slots, number)
            time.sleep(0.01)

    with Threads() as threads:
        for i in range(8):
            threads.start(send, 10 * i)
    assert sorted(number_of(data) for data in received(right)) == sorted(10 * i + k for i in range(8) for k in range(3))


def test_left_in_another_thread(pair: Pair) -> None:
    left, right = pair
    reservation = left.reserve([20])
    with Threads() as threads:

        def use() -> None:
            with reservation as slots:
                fill(slots, 3)

        threads.start(use)
    assert [number_of(data) for data in received(right)] == [3]
    assert left.send([packet()]) == 1


def test_dropped_without_being_entered(pair: Pair) -> None:
    left, right = pair
    reservation = left.reserve([20, 30])
    assert len(reservation) == 2
    del reservation
    assert left.send([packet()]) == 1
    assert received(right) == [packet()]
    assert left.stats().fillers == 2


def test_dropped_inside_the_block(pair: Pair) -> None:
    left, right = pair
    reservation = left.reserve([20])
    [view] = reservation.__enter__()
    del reservation
    assert left.stats().reservations == 1, "the view holds the slot"
    del view
    assert left.send([packet()]) == 1
    assert received(right) == [packet()]


def test_dropped_in_a_cycle(pair: Pair) -> None:
    left, right = pair
    cycle: list[Any] = [left.reserve([20])]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert left.send([packet()]) == 1
    assert received(right) == [packet()]


def test_once_only(pair: Pair) -> None:
    reservation = pair[0].reserve([20])
    with reservation as slots:
        with pytest.raises(RuntimeError):
            reservation.__enter__()
        fill(slots)
    with pytest.raises(ValueError):
        reservation.__enter__()
    assert not reservation.open
    reservation.abandon()
    assert len(received(pair[1])) == 1


def test_by_the_methods_of_its_class(pair: Pair) -> None:
    left, right = pair
    for number in range(3):
        reservation = left.reserve([20])
        assert isinstance(reservation, contextlib.AbstractContextManager)
        with contextlib.ExitStack() as stack:
            fill(stack.enter_context(reservation), number)
        assert not reservation.open
    reservation = left.reserve([20])
    kind = type(reservation)
    assert kind.__enter__(reservation) is reservation
    fill(reservation, 3)
    kind.__exit__(reservation, None, None, None)
    assert [number_of(data) for data in received(right)] == [0, 1, 2, 3]
    for call in (
        lambda: kind.__enter__(left),  # type: ignore[arg-type]
        lambda: kind.__enter__(None),  # type: ignore[arg-type]
        lambda: kind.__exit__(left, None, None, None),  # type: ignore[arg-type]
        lambda: kind.__exit__(reservation, None),  # type: ignore[call-arg]
        lambda: reservation.__exit__(None, None),  # type: ignore[call-arg]
        lambda: reservation.__exit__(None, None, traceback=None),
    ):
        with pytest.raises(TypeError):
            call()


@pytest.mark.parametrize("entered", [False, True])
def test_close_abandons(pair: Pair, entered: bool) -> None:
    left, right = pair
    reservation = left.reserve([20] * 2)
    views = list(reservation.__enter__()) if entered else []
    left.close()
    for view in views:
        with pytest.raises(ValueError):
            view[0]
    assert not reservation.open
    stats = left.stats()
    assert (stats.fillers, stats.reservations) == (2, 0)
    if entered:
        with pytest.raises(tunring.SessionClosed) as caught:
            reservation.__exit__(None, None, None)
        assert caught.value.reason == "closed"
    assert received(right) == []


def test_close_while_a_derived_view_lives(pair: Pair) -> None:
    left, _ = pair
    with pytest.raises(tunring.SessionClosed), left.reserve([20]) as slots:
        fill(slots)
        kept = slots[0][:]
        left.close()
    kept[0] = 1
    assert bytes(kept[:1]) == b"\1"
    del kept
    assert eventually(lambda: left.stats().reservations == 0, 2)


@pytest.mark.parametrize("leave", ["commit", "abandon", "raise", "drop", "close"])
def test_no_packets_at_all(pair: Pair, leave: str) -> None:
    left, _ = pair
    reservation = left.reserve([])
    if leave == "commit":
        with reservation as slots:
            assert list(slots) == []
    elif leave == "raise":
        with pytest.raises(KeyError), reservation:
            raise KeyError
    elif leave == "abandon":
        reservation.abandon()
    elif leave == "drop":
        del reservation
    else:
        left.close()
    assert left.stats().reservations == 0


def test_of_a_closed_session(pair: Pair) -> None:
    pair[0].close()
    with pytest.raises(tunring.SessionClosed) as caught:
        pair[0].reserve([20])
    assert caught.value.reason == "closed"


def test_a_reservation_of_a_session_that_was_closed_meanwhile(pair: Pair) -> None:
    reservation = pair[0].reserve([20])
    pair[0].close()
    assert closed_reason(reservation.__enter__) == ("closed", None)
    assert closed_reason(lambda: reservation.__exit__(None, None, None)) == ("closed", None)


def test_a_block_that_fails_since_the_session_was_closed_meanwhile(pair: Pair) -> None:
    def fill_in_vain() -> None:
        with pair[0].reserve([20, 20]) as [first, second]:
            first[:] = packet()
            pair[0].close()
            second[:] = packet()

    reason, cause = closed_reason(fill_in_vain)
    assert reason == "closed"
    assert isinstance(cause, ValueError)


@pytest.mark.parametrize("use", [fill_checksums, partial(clamp_mss, mtu=1400)], ids=["fill_checksums", "clamp_mss"])
def test_a_call_with_views_of_a_session_that_was_closed_meanwhile(pair: Pair, use: Any) -> None:
    def fill_in_vain() -> None:
        with pair[0].reserve([20, 20]) as slots:
            views = list(slots)
            pair[0].close()
            use(views)

    reason, cause = closed_reason(fill_in_vain)
    assert reason == "closed"
    assert isinstance(cause, ValueError)
    assert "packet 0" in str(cause)


def test_a_slot_of_a_session_that_was_closed_meanwhile(pair: Pair) -> None:
    def look() -> None:
        with pair[0].reserve([20, 20]) as slots:
            pair[0].close()
            slots[1][:] = packet()

    assert closed_reason(look) == ("closed", None)


def test_a_blocks_own_error_stays_though_the_session_was_closed_meanwhile(pair: Pair) -> None:
    with pytest.raises(ValueError, match="mine"), pair[0].reserve([20]):
        pair[0].close()
        raise ValueError("mine")


def test_a_released_views_error_stays_while_the_session_is_open(pair: Pair) -> None:
    with pytest.raises(ValueError, match="released memoryview"), pair[0].reserve([20]) as slots:
        view = slots[0]
        view.release()
        view[0] = 1


def test_threads_that_end_with_a_reservation_leave_others_theirs(pair: Pair) -> None:
    # The system gives the next thread the identity of the last.
    kept: list[tunring.Slots] = []
    for _ in range(20):
        with Threads() as threads:
            threads.start(lambda: kept.append(pair[0].reserve([20])))
    assert len({reservation.thread for reservation in kept}) == len(kept) == 20
    with Threads() as threads:
        threads.start(pair[0].send, [packet()])
    for reservation in kept:
        reservation.abandon()
