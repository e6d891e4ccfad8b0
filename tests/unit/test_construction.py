"""Objects that only the library makes: nobody can make, copy or pickle them, and trying never crashes."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import pytest

import tunring
from packets import packet
from tunring import _core

if TYPE_CHECKING:
    Pair = tuple[tunring.Session, tunring.Session]


@pytest.mark.parametrize("kind", [tunring.Session, tunring.Batch, tunring.Slots])
def test_a_call_of_the_class_is_refused(kind: Any) -> None:
    with pytest.raises(TypeError):
        kind()


def test_an_adapter_needs_a_handle() -> None:
    with pytest.raises(TypeError):
        tunring.Adapter(None, "x", None)


@pytest.mark.parametrize("kind", [tunring.Session, tunring.Batch, tunring.Slots, tunring.Library])
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


def test_an_adapter_without_content_raises_and_never_crashes() -> None:
    thing = tunring.Adapter.__new__(tunring.Adapter)
    for use in (thing.start_session, lambda: thing.name, lambda: repr(thing), lambda: thing.ifindex):
        with pytest.raises(AttributeError):
            use()


def test_a_batch_that_nothing_was_received_into_is_empty(pair: Pair) -> None:
    with pair[0].receive(timeout=0) as batch:
        assert (len(batch), batch.nbytes, batch.tobytes(), list(batch[:]), list(batch.lengths)) == (0, 0, [], [], [])
        assert (pair[0].send(batch), batch.pack_into(bytearray()), batch.released) == (0, 0, False)
    assert batch.released


@pytest.mark.parametrize("count", [0, 1, 2**20, 2**62, 2**63 - 1])
def test_numbers_cant_be_made_of_any_size(pair: Pair, count: int) -> None:
    kind = type(pair[0].receive(timeout=0).lengths.obj)
    for make in (kind, lambda count: kind.__new__(kind, count)):
        with pytest.raises(TypeError):
            memoryview(make(count))


@pytest.mark.parametrize("guid", [b"", b"xy", bytes(15), bytes(17), bytes(2**20)])
def test_a_guid_has_16_bytes(library: tunring.Library, guid: bytes) -> None:
    with pytest.raises(ValueError, match=f"16 bytes, not {len(guid)}"):
        library.create_adapter("a", "b", guid)


def test_none_is_refused_as_adapter_library_session_or_text(library: tunring.Library, adapter: tunring.Adapter) -> None:
    handle = adapter._handle
    for call in (
        lambda: tunring.Library(None),
        lambda: library.create_adapter(None, "b", None),
        lambda: library.create_adapter("a", None, None),
        lambda: library.open_adapter(None),
        lambda: library.set_option(None, 1),
        lambda: tunring.Session._start(adapter, None, 0x20000, False),
        lambda: _core.Notifier(None),
        lambda: _core.PcapngFile(1, None, None),
        lambda: _core.receive_in_task(None, None, 1, 0),
        lambda: _core.send_in_task(None, None, 0),
        lambda: _core.log_enable(None, True),
        lambda: _core.simulator_load(library, None, None),
        lambda: _core.simulator_attach(None),
        lambda: _core.simulator_inject(None, []),
        lambda: _core.simulator_inject(handle, None),
        lambda: _core.simulator_inject(handle, [None]),
    ):
        with pytest.raises(TypeError):
            call()


def test_init_again_changes_nothing(pair: Pair) -> None:
    pair[0].send([packet()])
    batch = pair[1].receive()
    for thing in (pair[0], batch):
        with pytest.raises(TypeError):
            thing.__init__()
    assert batch.tobytes() == [packet()]
    batch.release()
