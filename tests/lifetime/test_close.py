"""Use after close of everything, and closing twice."""

from __future__ import annotations

import gc
import itertools
import warnings
from typing import TYPE_CHECKING

import pytest

import libraries
import tunring
import tunring.testing
from packets import packet
from running import Threads
from tunring import _core

if TYPE_CHECKING:
    from collections.abc import Callable

    Pair = tuple[tunring.Session, tunring.Session]


def test_double_close(pair: Pair) -> None:
    for session in pair:
        for _ in range(3):
            session.close()
        assert session.closed
        assert session.adapter.closed
        with session:
            pass


def test_what_answers_after_close_and_what_raises(pair: Pair) -> None:
    session = pair[0]
    iterator = session.batches()
    session.close()
    for call in (
        session.receive,
        lambda: session.receive(timeout=0),
        lambda: session.send([packet()]),
        lambda: session.send_packed(packet(), [20]),
        lambda: session.reserve([20]),
        lambda: session.read_event,
    ):
        with pytest.raises(tunring.SessionClosed) as caught:
            call()
        assert (caught.value.reason, caught.value.winerror) == ("closed", 38)
    assert list(iterator) == []
    assert session.capacity == session.stats().capacity == tunring.MIN_CAPACITY
    assert "closed" in repr(session)


def test_bad_arguments_are_named_after_close_too(pair: Pair) -> None:
    pair[0].close()
    with pytest.raises(ValueError):
        pair[0].receive(0)
    with pytest.raises(TypeError):
        pair[0].send(packet())


@pytest.mark.parametrize("first", [0, 1])
def test_pairs_close_in_any_order_and_each_owns_its_adapter(make_pair: Callable[..., Pair], first: int) -> None:
    pair = make_pair()
    names = [session.adapter.name for session in pair]
    library = pair[0].adapter.library
    pair[first].close()
    with pytest.raises(tunring.NotFound):
        tunring.Adapter.open(names[first], library=library)
    tunring.Adapter.open(names[1 - first], library=library).close()
    assert pair[1 - first].send([packet()]) == 1
    assert not pair[1 - first].receive(timeout=0)
    pair[1 - first].close()


@pytest.mark.parametrize("order", list(itertools.permutations(["views", "batch", "session", "adapter"])))
def test_things_die_in_any_order(library: tunring.Library, name: str, order: tuple[str, ...]) -> None:
    other, adapter = libraries.cable(library, name, name + "b")
    with other, other.start_session() as far:
        things: dict[str, object] = {}
        session = adapter.start_session()
        far.send([packet()] * 3)
        batch = session.receive()
        things.update(adapter=adapter, session=session, batch=batch, views=[view[:] for view in batch])
        adapter.close()
        del adapter, session, batch
        for what in order:
            del things[what]
            gc.collect()


@pytest.mark.parametrize("order", list(itertools.permutations(["batch", "session", "adapter"])))
def test_things_die_in_any_order_unclosed(library: tunring.Library, name: str, order: tuple[str, ...]) -> None:
    adapter = tunring.Adapter.create(name, library=library)
    simulator = tunring.testing.Simulator.attach(adapter)
    session = adapter.start_session()
    simulator.inject([packet()] * 3)
    things = {"adapter": adapter, "session": session, "batch": session.receive()}
    del adapter, session
    # A recorded warning would keep its source alive.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for what in order:
            del things[what]
            if what == "adapter":
                del simulator
            gc.collect()


def test_double_release_and_release_from_another_thread(pair: Pair) -> None:
    pair[0].send([packet()] * 4)
    batch = pair[1].receive(2)
    with Threads() as threads:
        for _ in range(4):
            threads.start(batch.release)
    batch.release()
    assert pair[1].stats().pinned_packets == 2 - 2
    with pair[1].receive() as rest:
        assert len(rest) == 2, "a double release must not touch other slots"
        batch.release()
        assert rest.tobytes() == [packet()] * 2


def test_an_unclosed_session_warns_and_is_closed(adapter: tunring.Adapter) -> None:
    with pytest.warns(ResourceWarning, match=adapter.name):
        adapter.start_session()
    adapter.start_session().close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_is_unclosed_is_closed_at_once_where_warnings_are_errors(adapter: tunring.Adapter) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        adapter.start_session()
        adapter.start_session().close()  # the one before has ended
        socket = tunring.UdpSocket.bind(("127.0.0.1", 0))
        address = socket.address
        del socket
        tunring.UdpSocket.bind(address).close()


def test_session_and_reservation_in_a_cycle(adapter: tunring.Adapter) -> None:
    session = adapter.start_session()
    adapter.mine = [session, session.reserve([20]), session.receive(timeout=0)]
    adapter.mine.append(adapter.mine)
    del session
    with pytest.warns(ResourceWarning):
        adapter.mine = None
        gc.collect()
    assert _core.pinned_sessions() == 0
    adapter.start_session().close()
