from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

import tunring
from libraries import reported
from packets import packet

if TYPE_CHECKING:
    from collections.abc import Callable


def test_what_an_adapter_knows(library: tunring.Library, name: str) -> None:
    with tunring.Adapter.create(name, library=library) as adapter:
        assert (adapter.name, adapter.library, adapter.closed, adapter.ifindex) == (name, library, False, None)
        assert adapter.luid >> 48 == 53
        assert name in repr(adapter)
        assert "open" in repr(adapter)
    assert (adapter.name, adapter.closed) == (name, True)
    assert adapter.luid >> 48 == 53
    assert "closed" in repr(adapter)


def test_luids_differ(library: tunring.Library, name: str) -> None:
    with (
        tunring.Adapter.create(name, library=library) as one,
        tunring.Adapter.create(name + "b", library=library) as other,
    ):
        assert one.luid != other.luid


@pytest.mark.parametrize("name", ["", "x" * 128, "a\0b", "\U0001f600" * 64])
def test_names_that_the_abi_refuses(library: tunring.Library, name: str) -> None:
    with pytest.raises(ValueError):
        tunring.Adapter.create(name, library=library)
    with pytest.raises(ValueError):
        tunring.Adapter.open(name, library=library)


@pytest.mark.parametrize("name", [None, b"name", 3])
def test_names_of_the_wrong_type(library: tunring.Library, name: object) -> None:
    with pytest.raises(TypeError):
        tunring.Adapter.create(name, library=library)
    with pytest.raises(TypeError):
        tunring.Adapter.open(name, library=library)


@pytest.mark.parametrize("name", ["x" * 127, "Büro ≠ Netz", "\U0001f600" * 63, "a"])
def test_names_that_the_abi_takes(library: tunring.Library, name: str) -> None:
    with tunring.Adapter.create(name, library=library) as adapter:
        assert adapter.name == name


@pytest.mark.parametrize(
    ("kind", "error"), [("", ValueError), ("x" * 129, ValueError), ("\0", ValueError), (3, TypeError)]
)
def test_bad_tunnel_types(library: tunring.Library, name: str, kind: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        tunring.Adapter.create(name, kind, library=library)


@pytest.mark.parametrize(("guid", "error"), [("no guid", ValueError), (3, TypeError), (bytes(16), TypeError)])
def test_bad_guids(library: tunring.Library, name: str, guid: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        tunring.Adapter.create(name, guid=guid, library=library)


@pytest.mark.ours_only(reason="to the official DLL a GUID is one adapter's identity; to ours, the cable's")
def test_a_guid_as_text_is_the_same(library: tunring.Library, name: str) -> None:
    guid = uuid.uuid4()
    with (
        tunring.Adapter.create(name, guid=guid, library=library) as one,
        tunring.Adapter.create(name + "b", guid=str(guid), library=library) as other,
        one.start_session() as left,
        other.start_session() as right,
    ):
        left.send([packet()])
        assert right.receive(timeout=1).tobytes() == [packet()]


def test_a_taken_name(adapter: tunring.Adapter) -> None:
    with pytest.raises(tunring.AlreadyExists) as caught:
        tunring.Adapter.create(adapter.name, library=adapter.library)
    assert isinstance(caught.value, FileExistsError)
    assert caught.value.winerror == 183


def test_a_name_is_free_again_after_close(library: tunring.Library, name: str) -> None:
    for _ in range(3):
        tunring.Adapter.create(name, library=library).close()


def test_open_shares_the_adapter_and_its_close_leaves_it(adapter: tunring.Adapter) -> None:
    with tunring.Adapter.open(adapter.name, library=adapter.library) as other:
        assert other.luid == adapter.luid
    with tunring.Adapter.open(adapter.name, library=adapter.library), adapter.start_session():
        pass


def test_open_of_what_is_not_there(library: tunring.Library, name: str) -> None:
    with pytest.raises(tunring.NotFound) as caught:
        tunring.Adapter.open(name, library=library)
    assert caught.value.winerror == 1168
    assert isinstance(caught.value, FileNotFoundError)


def test_a_second_session_is_refused(adapter: tunring.Adapter) -> None:
    with adapter.start_session() as session:
        with pytest.raises(tunring.AdapterBusy) as caught:
            adapter.start_session()
        assert caught.value.winerror == 1247
        with (
            tunring.Adapter.open(adapter.name, library=adapter.library) as other,
            pytest.raises(tunring.AdapterBusy),
        ):
            other.start_session()
        assert not session.closed
    adapter.start_session().close()


@pytest.mark.parametrize("capacity", [0x20000, 0x400000, 0x4000000])
def test_capacities_that_are_taken(adapter: tunring.Adapter, capacity: int) -> None:
    with adapter.start_session(capacity) as session:
        assert session.capacity == session.stats().capacity == capacity


@pytest.mark.parametrize("capacity", [0, -1, 1, 0x10000, 0x20001, 0x30000, 0x8000000, 2**31, 2**32, 2**64, True])
def test_capacities_that_are_refused(adapter: tunring.Adapter, make_pair: Callable[..., object], capacity: int) -> None:
    with pytest.raises(ValueError):
        adapter.start_session(capacity)
    with pytest.raises(ValueError):
        make_pair(capacity)
    adapter.start_session().close()


@pytest.mark.parametrize("capacity", [131072.0, "131072", None])
def test_capacities_of_the_wrong_type(adapter: tunring.Adapter, capacity: object) -> None:
    with pytest.raises(TypeError):
        adapter.start_session(capacity)


def test_close_any_number_of_times_and_what_fails_after(adapter: tunring.Adapter) -> None:
    for _ in range(3):
        adapter.close()
    with pytest.raises(tunring.SessionClosed, match="the adapter is closed") as caught:
        adapter.start_session()
    assert caught.value.reason == "closed"
    with pytest.raises(ValueError, match="closed"):
        _ = adapter.ifindex


def test_close_ends_the_session(adapter: tunring.Adapter) -> None:
    session = adapter.start_session()
    adapter.close()
    assert session.closed
    with pytest.raises(tunring.SessionClosed):
        session.receive(timeout=0)


def test_an_adapter_that_is_not_closed_warns_and_goes(library: tunring.Library, name: str) -> None:
    with pytest.warns(ResourceWarning, match=name):
        tunring.Adapter.create(name, library=library)
    tunring.Adapter.create(name, library=library).close()


def test_an_adapter_without_a_peer_drops_and_counts(adapter: tunring.Adapter) -> None:
    with adapter.start_session() as session:
        assert session.send([packet()] * 3) == 3
        assert session.stats().host_dropped == reported(session, 3)


def test_other_libraries_have_one_queue(library: tunring.Library, name: str) -> None:
    with pytest.raises(NotImplementedError, match="one queue"):
        tunring.Adapter.create(name, queues=2, library=library)
    with tunring.Adapter.create(name, queues=1, library=library) as adapter:
        [session] = adapter.start_sessions(1, tunring.MIN_CAPACITY)
        session.close()
        with pytest.raises(ValueError, match="count must be 1 to 1, not 2"):
            adapter.start_sessions(2)
