"""Interfaces with several queues, and sessions on each of them."""

from __future__ import annotations

import os
import resource
import socket
from typing import TYPE_CHECKING

import pytest
from datagrams import udp4, udp_payload
from netns import drain

import tunring
from running import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from netns import Namespace

pytestmark = pytest.mark.root

HERE, THERE = "10.9.0.1", "10.9.0.77"
QUEUES = 4


@pytest.fixture
def wide(namespace: Namespace, tun: tunring.Library) -> Iterator[tunring.Adapter]:
    """An adapter tun0 of four queues, which is up."""
    with namespace.entered(), tunring.Adapter.create("tun0", queues=QUEUES, library=tun) as adapter:
        namespace.set_up("tun0", f"{HERE}/24")
        yield adapter


def has_carrier(namespace: Namespace) -> bool:
    return "NO-CARRIER" not in namespace.flags("tun0")


def take(session: tunring.Session, seconds: float = 0.1) -> list[tuple[int, bytes]]:
    """The datagrams that wait: their target ports and payloads."""
    packets: list[bytes] = []
    while batch := session.receive(timeout=seconds):
        with batch:
            packets += batch.tobytes()
    found = [(int.from_bytes(packet[22:24], "big"), udp_payload(packet)) for packet in packets]
    return [(port, payload) for port, payload in found if payload is not None]


def test_flows_spread_and_stay(wide: tunring.Adapter, namespace: Namespace) -> None:
    sessions = wide.start_sessions(QUEUES, tunring.MIN_CAPACITY)
    assert len(set(sessions)) == QUEUES
    with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.bind((HERE, 4001))
        for session in sessions:
            drain(session)
        # Each session speaks for flows of its own; the kernel answers to the one that spoke last.
        for turn in range(3):
            for number in range(QUEUES):
                owner = sessions[(number + turn) % QUEUES]
                packets = [udp4((THERE, 1000 * number + 500 + i), (HERE, 4001), b"ask") for i in range(20)]
                assert owner.send(packets) == 20
                for _ in packets:
                    data, source = link.recvfrom(100)
                    assert data == b"ask"
                    link.sendto(b"answer", source)
                assert sorted(take(owner)) == [(1000 * number + 500 + i, b"answer") for i in range(20)]
                assert all(take(other, 0) == [] for other in sessions if other is not owner)
        # New flows go to any of the sessions, and none is lost.
        for port in range(10000, 10200):
            link.sendto(b"new", (THERE, port))
        found = [take(session) for session in sessions]
        assert sorted(port for each in found for port, _ in each) == list(range(10000, 10200))
        assert sum(1 for each in found if each) > 1
    for session in sessions:
        session.close()


def test_link_is_on_while_any_lives(wide: tunring.Adapter, namespace: Namespace) -> None:
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2]):
        sessions = wide.start_sessions(QUEUES, tunring.MIN_CAPACITY)
        for index in order:
            assert has_carrier(namespace)
            sessions[index].close()
        assert not has_carrier(namespace)


def test_those_that_are_left_get_everything(wide: tunring.Adapter, namespace: Namespace) -> None:
    """A queue goes with its session."""
    sessions = wide.start_sessions(QUEUES, tunring.MIN_CAPACITY)
    for session in sessions[1:3]:
        session.close()
    left = [sessions[0], sessions[3]]
    for session in left:
        drain(session)
    with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        for port in range(10000, 10100):
            link.sendto(b"new", (THERE, port))
    assert sorted(port for session in left for port, _ in take(session)) == list(range(10000, 10100))
    for session in left:
        session.close()
    wide.start_session(tunring.MIN_CAPACITY).close()


def test_adapter_closes_all(wide: tunring.Adapter, namespace: Namespace) -> None:
    sessions = wide.start_sessions(QUEUES, tunring.MIN_CAPACITY)
    wide.close()
    assert all(session.closed for session in sessions)
    assert eventually(lambda: namespace.interfaces() == {"lo"}, 2)
    with pytest.raises(tunring.SessionClosed):
        wide.start_sessions(2)


def test_detach_with_several(wide: tunring.Adapter, namespace: Namespace, tun: tunring.Library) -> None:
    sessions = wide.start_sessions(QUEUES, tunring.MIN_CAPACITY)
    descriptor = wide.detach()
    assert all(session.closed for session in sessions)
    assert has_carrier(namespace)
    try:
        with tunring.Adapter.from_fd(descriptor, library=tun) as adapter, adapter.start_session() as session:
            drain(session)
            with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
                for port in range(10000, 10050):
                    link.sendto(b"new", (THERE, port))
            assert len(take(session)) == 50
            with pytest.raises(ValueError, match="count must be 1 to 1"):
                adapter.start_sessions(2)
    finally:
        os.close(descriptor)


def test_all_or_none(wide: tunring.Adapter, namespace: Namespace) -> None:
    """Whatever is lacking, no session is left and the next attempt begins anew."""

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    for session in wide.start_sessions(QUEUES, tunring.MIN_CAPACITY):  # loads what is loaded once
        session.close()
    before, limits = descriptors(), resource.getrlimit(resource.RLIMIT_NOFILE)
    for spare in range(1, 14, 3):
        resource.setrlimit(resource.RLIMIT_NOFILE, (before + spare, limits[1]))
        try:
            with pytest.raises(OSError):
                wide.start_sessions(QUEUES, tunring.MIN_CAPACITY)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert descriptors() == before
        assert not has_carrier(namespace)
    with wide.start_session(tunring.MIN_CAPACITY):
        with pytest.raises(tunring.AdapterBusy):
            wide.start_sessions(2)
        assert descriptors() > before
    for session in wide.start_sessions(QUEUES, tunring.MIN_CAPACITY):
        session.close()


def test_opened_by_as_many_as_like(namespace: Namespace, tun: tunring.Library) -> None:
    namespace.ip("tuntap add mode tun name tun0 multi_queue")
    namespace.set_up("tun0", f"{HERE}/24")
    with namespace.entered(), tunring.Adapter.open("tun0", library=tun) as first:
        sessions = first.start_sessions(2, tunring.MIN_CAPACITY)
        with tunring.Adapter.open("tun0", library=tun) as second:
            sessions += second.start_sessions(2, tunring.MIN_CAPACITY)
            for session in sessions:
                drain(session)
            with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
                for port in range(10000, 10100):
                    link.sendto(b"new", (THERE, port))
            assert sorted(port for session in sessions for port, _ in take(session)) == list(range(10000, 10100))
        assert has_carrier(namespace)
        assert [session.closed for session in sessions] == [False, False, True, True]
    assert not has_carrier(namespace)


def test_from_another_namespace(namespaces: tuple[Namespace, Namespace], tun: tunring.Library) -> None:
    """Further queues are attached where the interface is, wherever the caller is."""
    here, there = namespaces
    with here.entered():
        adapter = tunring.Adapter.create("tun0", queues=2, library=tun)
    with there.entered(), adapter:
        for session in adapter.start_sessions(2, tunring.MIN_CAPACITY):
            session.close()
        assert there.interfaces() == {"lo"}
    assert eventually(lambda: here.interfaces() == {"lo"}, 2)


@pytest.mark.parametrize("queues", [0, -1, 257, 2**40])
def test_bad_numbers_of_queues(namespace: Namespace, tun: tunring.Library, queues: int) -> None:
    with namespace.entered(), pytest.raises(ValueError, match=f"queues must be 1 to 256, not {queues}"):
        tunring.Adapter.create("tun0", queues=queues, library=tun)
    assert namespace.interfaces() == {"lo"}


@pytest.mark.parametrize("count", [0, -1, QUEUES + 1])
def test_bad_numbers_of_sessions(wide: tunring.Adapter, namespace: Namespace, count: int) -> None:
    with pytest.raises(ValueError, match=f"count must be 1 to 4, not {count}"):
        wide.start_sessions(count)
    assert not has_carrier(namespace)


def test_one_queue_is_the_default(adapter: tunring.Adapter) -> None:
    [session] = adapter.start_sessions(1)
    session.close()
    with pytest.raises(ValueError, match="count must be 1 to 1, not 2"):
        adapter.start_sessions(2)
