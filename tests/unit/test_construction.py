"""Objects that only the library makes: nobody can make, copy or pickle them, and trying never crashes."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import pytest

import tunring
from packets import packet
from running import check_script
from tunring import _core

if TYPE_CHECKING:
    Pair = tuple[tunring.Session, tunring.Session]


@pytest.mark.parametrize("kind", [tunring.Session, tunring.Batch, tunring.Reservation])
def test_a_call_of_the_class_is_refused(kind: Any) -> None:
    with pytest.raises(TypeError):
        kind()


def test_an_adapter_needs_a_handle() -> None:
    with pytest.raises(TypeError):
        tunring.Adapter(None, "x", None)


@pytest.mark.parametrize("kind", [tunring.Session, tunring.Batch, tunring.Reservation, tunring.Library])
def test_no_subclasses(kind: Any) -> None:
    with pytest.raises(TypeError):
        type("Mine", (kind,), {})


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_nothing_can_be_copied_or_pickled(pair: Pair, duplicate: Any) -> None:
    pair[0].send([packet()])
    reservation = pair[1].reserve([20])
    with pair[1].receive() as batch:
        things = [pair[0], batch, iter(batch), reservation, batch[0].obj, pair[0].adapter.library]
        things.append(pair[0].adapter._handle)
        for thing in things:
            with pytest.raises(TypeError):
                duplicate(thing)
    reservation.abandon()


def test_no_view_of_all_packets_at_once(pair: Pair) -> None:
    pair[0].send([packet()])
    with pair[1].receive() as batch:
        view = batch[0]
        with pytest.raises(BufferError):
            memoryview(view.obj)
        with pytest.raises((TypeError, BufferError)):
            memoryview(batch)
        with pytest.raises((TypeError, BufferError)):
            bytes(view.obj)


# Each in a process of its own: what fails here fails by a crash.
USES = {
    "Session": """
        lambda x: x.receive(timeout=0), lambda x: next(iter(x.batches())), lambda x: x.send([packet()]),
        lambda x: x.send([]), lambda x: x.send_packed(packet(), [20]), lambda x: x.reserve([20]), lambda x: x.stats(),
        lambda x: x.capacity, lambda x: x.fileno(), lambda x: x.read_event,
    """,
    "Reservation": """
        lambda x: x.__enter__(), len, lambda x: x.abandon(), lambda x: x.__exit__(None, None, None),
        lambda x: x.__exit__(KeyError, KeyError(), None),
    """,
    "_core.BatchIterator": "next,",
    "_core.AdapterHandle": """
        lambda x: x.address, lambda x: x.luid, lambda x: x.name, lambda x: x.index, lambda x: x.open_namespace(),
        lambda x: tunring.Adapter(x, "x", tunring.load("loopback")),
        lambda x: tunring.Session._start(None, x, 131072, False),
    """,
    "_core.Lease": "memoryview, bytes,",
    "tunring.Adapter": "lambda x: x.start_session(), lambda x: x.name, repr, lambda x: x.ifindex,",
}


@pytest.mark.parametrize("kind", list(USES))
def test_objects_without_content_raise_and_never_crash(kind: str) -> None:
    check_script(
        f"""
from tunring import _core
from tunring import *
thing = {kind}.__new__({kind})
for number, use in enumerate([{USES[kind]}]):
    try:
        use(thing)
    except (TypeError, ValueError, AttributeError, BufferError):
        pass
    else:
        raise AssertionError(f"use {{number}} raised nothing")
for harmless in ("closed", "close", "released", "open", "thread", "__repr__"):
    try:
        found = getattr(thing, harmless, None)
        if callable(found):
            found()
    except (TypeError, ValueError, AttributeError):
        pass
del thing
""",
        "-X",
        "dev",
    )


def test_an_empty_batch_object_is_an_empty_batch(pair: Pair) -> None:
    batch = tunring.Batch.__new__(tunring.Batch)
    assert (len(batch), batch.nbytes, batch.tobytes(), batch[:], pair[0].send(batch)) == (0, 0, [], [], 0)
    batch.release()


def test_a_view_of_an_empty_lease_object(pair: Pair) -> None:
    pair[0].send([packet()])
    with pair[1].receive() as batch:
        kind = type(batch[0].obj)
        assert kind is _core.Lease
    for make in (kind, lambda: kind.__new__(kind)):
        with pytest.raises(BufferError):
            memoryview(make())


def test_init_again_changes_nothing(pair: Pair) -> None:
    pair[0].send([packet()])
    batch = pair[1].receive()
    for thing in (pair[0], batch):
        with pytest.raises(TypeError):
            thing.__init__()
    assert batch.tobytes() == [packet()]
    batch.release()
