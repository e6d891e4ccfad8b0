"""Views and what derives from them: valid until they die, whatever ends before."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest

import tunring
import tunring.testing
from packets import number_of, packet
from running import Threads, eventually
from tunring import _core

if TYPE_CHECKING:
    from collections.abc import Callable

    Pair = tuple[tunring.Session, tunring.Session]

DATA = packet(64, number=0x01020304)


def numpy_array(view: memoryview) -> Any:
    return pytest.importorskip("numpy").frombuffer(view, dtype="u1")


def numpy_slice(view: memoryview) -> Any:
    return numpy_array(view)[::1]


DERIVE: dict[str, Callable[[memoryview], Any]] = {
    "slice": lambda view: view[:],
    "slice of slice": lambda view: view[0:64][:],
    "cast": lambda view: view.cast("c").cast("B"),
    "read only": lambda view: view.toreadonly(),
    "memoryview": memoryview,
    "numpy array": numpy_array,
    "numpy slice": numpy_slice,
}


@pytest.fixture(params=list(DERIVE))
def derive(request: pytest.FixtureRequest) -> Callable[[memoryview], Any]:
    return DERIVE[request.param]


def test_release_ends_the_views_it_handed_out(pair: Pair) -> None:
    pair[0].send([DATA] * 3)
    batch = pair[1].receive()
    views = [*batch, batch[0], *batch[1:]]
    batch.release()
    for view in views:
        with pytest.raises(ValueError, match="released"):
            view[0]
        with pytest.raises(ValueError, match="released"):
            bytes(view)
    assert pair[1].stats().pinned_packets == 0


def test_what_derives_lives_on_and_holds_its_slot(pair: Pair, derive: Callable[[memoryview], Any]) -> None:
    left, right = pair
    left.send([DATA] * 3)
    with right.receive() as batch:
        derived = derive(batch[1])
    assert (right.stats().pinned_packets, right.stats().pinned_bytes) == (1, 64)
    # New packets all around it.
    for _ in range(50):
        left.send([packet(1400)] * 100, on_full="partial")
        right.receive(65536, 0).release()
    assert bytes(derived) == DATA
    del derived
    assert right.stats().pinned_packets == 0


def test_after_close(pair: Pair, derive: Callable[[memoryview], Any]) -> None:
    left, right = pair
    left.send([DATA])
    batch = right.receive()
    view, derived = batch[0], derive(batch[0])
    right.close()
    left.close()
    assert bytes(view) == bytes(derived) == DATA
    view[1] = 7
    assert batch.tobytes()[0][1] == 7
    batch.release()
    assert bytes(derived)[1] == 7
    with pytest.raises(ValueError):
        view[0]
    assert _core.pinned_sessions() == 1
    del derived, view
    assert eventually(lambda: _core.pinned_sessions() == 0, 2)


def test_after_the_session_object_is_gone(make_pair: Callable[..., Pair], derive: Callable[[memoryview], Any]) -> None:
    left, right = make_pair(tunring.MIN_CAPACITY)
    left.send([DATA])
    derived = derive(right.receive()[0])
    left.close()
    right.close()
    del left, right
    gc.collect()
    assert bytes(derived) == DATA
    assert _core.pinned_sessions() == 1


def test_after_the_session_object_is_gone_without_close(
    make_pair: Callable[..., Pair], derive: Callable[[memoryview], Any]
) -> None:
    left, right = make_pair(tunring.MIN_CAPACITY)
    left.send([DATA])
    derived = derive(right.receive()[0])
    with pytest.warns(ResourceWarning, match="unclosed"):
        del left, right
        gc.collect()
    assert bytes(derived) == DATA


def test_a_batch_dropped_without_release_returns_each_slot_as_its_views_die(pair: Pair) -> None:
    left, right = pair
    left.send([packet(20 + i) for i in range(5)])
    batch = right.receive()
    views = list(batch)[1:4]
    del batch
    for left_over in (3, 2, 1):
        assert (right.stats().pinned_packets) == left_over
        assert [len(view) for view in views] == [21, 22, 23][-left_over:]
        views.pop(0)
    assert right.stats().pinned_packets == 0


def test_a_batch_dropped_without_views_returns_everything(pair: Pair) -> None:
    pair[0].send([DATA] * 5)
    pair[1].receive()
    assert pair[1].stats().pinned_packets == 0


def test_a_view_that_its_user_released(pair: Pair) -> None:
    pair[0].send([DATA] * 2)
    with pair[1].receive() as batch:
        view = batch[0]
        view.release()
        with batch[1]:
            pass
        assert bytes(batch[0]) == DATA
    assert pair[1].stats().pinned_packets == 0


def test_many_views_of_one_packet(pair: Pair) -> None:
    pair[0].send([DATA])
    batch = pair[1].receive()
    derived = [batch[0][:] for _ in range(1000)]
    batch.release()
    while derived:
        assert pair[1].stats().pinned_packets == 1
        del derived[:100]
    assert pair[1].stats().pinned_packets == 0


def test_the_last_view_dies_in_another_thread(pair: Pair) -> None:
    pair[0].send([DATA])
    batch = pair[1].receive()
    box = [batch[0][:]]
    batch.release()
    pair[1].close()
    assert _core.pinned_sessions() == 1
    with Threads() as threads:
        threads.start(box.clear)
    assert eventually(lambda: _core.pinned_sessions() == 0, 2)


def test_slots_let_go_in_any_order_give_the_room_back(pair: Pair) -> None:
    left, right = pair
    count = (left.capacity - 4) // 24
    for order in (slice(None), slice(None, None, -1)):
        assert left.send([packet()] * count, on_full="partial") == count
        batches = [right.receive(100, 0) for _ in range(count // 100 + 1)]
        for batch in batches[order]:
            batch.release()
    assert right.stats().pinned_packets == 0


# ---- Memoryviews are used again, in the next packet's turn and in the next batch's: never one that anybody can see


KEEP: dict[str, Callable[[memoryview], Any]] = {**DERIVE, "itself": lambda view: view, "weak reference": weakref.ref}


@pytest.fixture(params=list(KEEP))
def keep(request: pytest.FixtureRequest) -> Callable[[memoryview], Any]:
    return KEEP[request.param]


@pytest.mark.parametrize("every", [1, 2, 3, 5])
def test_what_was_kept_of_an_iteration_never_changes(pair: Pair, keep: Callable[[memoryview], Any], every: int) -> None:
    left, right = pair
    sent = [packet(20 + i, number=i) for i in range(30)]
    left.send(sent)
    batch = right.receive(30)
    kept = {}
    for i, view in enumerate(batch):
        assert bytes(view) == sent[i]
        if i % every == 0:
            kept[i] = keep(view)
    del view
    for i, what in kept.items():
        if isinstance(what, weakref.ref):
            seen = what()
            assert seen is None or bytes(seen) == sent[i]
        else:
            assert bytes(what) == sent[i]
    del what, kept
    batch.release()


def test_what_was_kept_of_a_batch_is_not_the_next_ones(pair: Pair, keep: Callable[[memoryview], Any]) -> None:
    left, right = pair
    kept = []
    for number in range(12):
        left.send([packet(number=number)] * 3)
        with right.receive(3) as batch:
            views = [keep(view) for view in batch]
            kept.append((number, views[number % 3]))
            del views
    assert right.stats().pinned_packets == sum(1 for _, what in kept if alive(what) and not ended(what))
    for number, what in kept:
        if alive(what) and not ended(what):
            assert bytes(what) == packet(number=number)
        else:  # the batch has ended what it handed out itself
            assert keep in (KEEP["itself"], weakref.ref)
    del what, kept, batch
    assert right.stats().pinned_packets == 0


def alive(what: Any) -> bool:
    return not isinstance(what, weakref.ref)


def ended(what: Any) -> bool:
    try:
        bytes(what)
    except ValueError:
        return True
    return False


def test_a_view_that_was_released_is_not_used_again(pair: Pair) -> None:
    left, right = pair
    left.send([packet(number=i) for i in range(10)])
    with right.receive(10) as batch:
        for i, view in enumerate(batch):
            assert number_of(view) == i
            if i % 3 != 1:
                view.release()
    with pytest.raises(ValueError):
        view[0]


def test_views_of_parts_and_of_the_whole_in_turns(pair: Pair) -> None:
    left, right = pair
    left.send([packet(number=i) for i in range(20)])
    with right.receive(20) as batch:
        part = batch[5:15]
        both = [(number_of(whole), number_of(half)) for whole, half in zip(batch, part, strict=False)]
        assert both == [(i, i + 5) for i in range(10)]
        assert [number_of(part[i]) for i in range(10)] == [number_of(view) for view in batch[5:15]]


def test_a_batch_that_is_dropped_with_its_last_view_returns_its_slots(pair: Pair) -> None:
    left, right = pair
    for turn in range(20):
        left.send([packet(number=i) for i in range(4)])
        batch = right.receive(4)
        view = next(iter(batch))
        if turn % 2:
            first = view[1:]
            del view, batch
            assert right.stats().pinned_packets == 1
            assert bytes(first) == packet()[1:]
            del first
        else:
            del batch, view
        assert right.stats().pinned_packets == 0


def test_a_batch_that_is_dropped_without_release_leaves_the_last_view(pair: Pair) -> None:
    left, right = pair
    for number in range(10):
        left.send([packet(number=number)])
        [view] = right.receive()
        assert bytes(view) == packet(number=number)
        assert right.stats().pinned_packets == 1
    del view
    assert right.stats().pinned_packets == 0


# ---- The same of reservations, which are used again themselves


def by_loop(slots: tunring.Slots) -> memoryview:
    for view in slots:
        last = view
    return last


def by_index(slots: tunring.Slots) -> memoryview:
    return slots[-1]


@pytest.mark.parametrize("take", [by_loop, by_index])
@pytest.mark.parametrize("every", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [1, 3])
def test_a_view_of_a_reservation_ends_with_it(
    pair: Pair, take: Callable[[tunring.Slots], memoryview], every: int, count: int
) -> None:
    left, right = pair
    kept = []
    for number in range(30):
        with left.reserve([20] * count) as slots:
            for i in range(count):
                slots[i][:] = packet(number=number)
            view = take(slots)
            view[:] = packet(number=number)
        if number % every == 0:
            kept.append(view)
        for old in kept:
            for use in (bytes, memoryview, len, list, lambda view: view[0], lambda view: view[:]):
                with pytest.raises(ValueError, match="released"):
                    use(old)
            with pytest.raises(ValueError, match="released"):
                old[0] = 1
            assert old != view or old is view
    for old in kept:
        old.release()
    with right.receive(100) as batch:
        assert [number_of(data) for data in batch] == [number for number in range(30) for _ in range(count)]


@pytest.mark.parametrize("every", [1, 2, 3])
def test_a_reservation_that_somebody_has_is_not_used_again(pair: Pair, every: int) -> None:
    left, right = pair
    kept: list[Any] = []
    keep = [lambda slots: slots, iter, weakref.ref, lambda slots: slots.__exit__]
    for number in range(24):
        with left.reserve([20 + number]) as slots:
            slots[0][:] = packet(20 + number)
            if number % every == 0:
                kept.append((slots, [how(slots) for how in keep]))
    assert len({id(slots) for slots, _ in kept}) == len(kept)
    del slots
    for number in range(24, 30):
        with left.reserve([20 + number]) as slots:
            assert all(slots is not old for old, _ in kept)
            for old, [same, iterator, reference, leave] in kept:
                assert same is old is reference()
                assert not old.open
                assert repr(old) == "<tunring.Slots of 1 packets, over>"
                leave(None, None, None)
                with pytest.raises((ValueError, StopIteration)):
                    next(iterator)
                for use in (lambda: old[0], lambda: old.drop(0), old.__enter__):
                    with pytest.raises(ValueError, match="over"):
                        use()
            slots[0][:] = packet(20 + number)
    with right.receive(100) as batch:
        assert batch.tobytes() == [packet(20 + number) for number in range(30)]


def test_only_a_weak_reference_to_a_reservation(pair: Pair) -> None:
    left, right = pair
    references = []
    for _ in range(20):
        with left.reserve([20]) as slots:
            slots[0][:] = packet()
            references.append(weakref.ref(slots))
    for reference in references:
        seen = reference()
        assert seen is None or not seen.open
    assert len(right.receive(100)) == 20


def test_a_reservation_that_is_over_keeps_no_session(make_pair: Callable[..., Pair]) -> None:
    left, right = make_pair(tunring.MIN_CAPACITY)
    with left.reserve([20]) as slots:
        slots[0][:] = packet()
    reference = weakref.ref(left)
    left.close()
    right.close()
    del left, slots
    gc.collect()
    assert reference() is None


def test_reservations_of_sessions_in_turns(make_pair: Callable[..., Pair]) -> None:
    pairs = [make_pair(tunring.MIN_CAPACITY) for _ in range(3)]
    for number in range(30):
        with pairs[number % 3][0].reserve([20 + number]) as slots, pairs[(number + 1) % 3][0].reserve([20]) as others:
            slots[0][:] = packet(20 + number, number=number)
            others[0][:] = packet(number=number)
        if number % 4 == 0:
            with pytest.raises(KeyError), pairs[0][0].reserve([20]) as slots:
                raise KeyError
    for i, (left, right) in enumerate(pairs):
        with right.receive(100) as batch:
            assert {number_of(data) % 3 for data in batch if len(data) > 20} == {i}
            assert len(batch) == 20
        assert left.stats().reservations == 0
        left.close()
        right.close()
