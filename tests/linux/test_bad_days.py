"""The kernel's interventions in a session's life; waiting uses no processor time."""

from __future__ import annotations

import logging
import os
import selectors
import socket
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from datagrams import udp4
from netns import drain
from superpackets import on_and_off

import tunring
from running import NEVER, PROMPT, Threads, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from netns import Namespace

pytestmark = pytest.mark.root

#: One that the host takes without an answer.
PACKET = udp4(("10.9.0.9", 9), ("10.9.0.1", 9), b"")


@pytest.fixture
def link(namespace: Namespace) -> Iterator[socket.socket]:
    """A socket whose datagrams go to Python."""
    with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        yield made


@pytest.fixture
def selector(session: tunring.Session) -> Iterator[selectors.BaseSelector]:
    with selectors.DefaultSelector() as made:
        made.register(session, selectors.EVENT_READ)
        yield made


def outcome(call: Callable[[], object]) -> object:
    """Return a call's result, or the error that it raises."""
    try:
        return call()
    except Exception as error:
        return error


# ---- The interface ----


def delete(namespace: Namespace) -> None:
    namespace.ip("link delete tun0")


@pytest.mark.parametrize("receive", [lambda s: s.receive(), lambda s: s.receive(timeout=30)])
def test_deleted_while_receiving(
    session: tunring.Session, namespace: Namespace, receive: Callable[[tunring.Session], object]
) -> None:
    drain(session)
    with Threads() as threads:
        for _ in range(4):
            threads.start(outcome, lambda: receive(session))
        time.sleep(0.1)
        began = time.monotonic()
        delete(namespace)
    assert max(threads.ended) - began < 1
    for error in threads.results:
        assert isinstance(error, tunring.SessionClosed)
        assert error.reason == "removed"
        assert error.winerror == 38


def test_deleted_interface_ends_everything(
    session: tunring.Session, adapter: tunring.Adapter, namespace: Namespace, selector: selectors.BaseSelector
) -> None:
    drain(session)
    delete(namespace)
    assert selector.select(1)
    assert list(session.batches()) == []
    for call in (
        lambda: session.receive(timeout=0),
        session.receive,
        lambda: [session.send([PACKET]) for _ in range(2)],
    ):
        error = outcome(call)
        assert isinstance(error, tunring.SessionClosed)
        assert error.reason == "removed"
    selector.unregister(session)
    session.close()
    with pytest.raises(FileNotFoundError):
        adapter.start_session()
    adapter.close()


def test_deleted_with_packets_held(session: tunring.Session, namespace: Namespace, link: socket.socket) -> None:
    link.sendto(b"kept", ("10.9.0.9", 9))
    batch = session.receive(timeout=10)
    delete(namespace)
    assert bytes(batch[-1][-4:]) == b"kept"
    with pytest.raises(tunring.SessionClosed):
        session.receive(timeout=5)
    session.close()
    assert batch.tobytes()[-1].endswith(b"kept")
    batch.release()


def test_deleted_while_another_takes_the_name(
    session: tunring.Session, adapter: tunring.Adapter, namespace: Namespace
) -> None:
    """Closing ours must leave what has our name by then alone."""
    delete(namespace)
    namespace.ip("tuntap add dev tun0 mode tun")
    session.close()
    adapter.close()
    assert "tun0" in namespace.interfaces()


def test_interface_down(session: tunring.Session, namespace: Namespace, link: socket.socket) -> None:
    namespace.ip("link set tun0 down")
    assert session.send([PACKET] * 10) == 10
    assert session.stats().write_errors == 10
    drain(session)
    assert not session.receive(timeout=0)

    namespace.ip("link set tun0 up")
    assert session.send([PACKET] * 10) == 10
    assert session.stats().write_errors == 10
    link.sendto(b"up again", ("10.9.0.9", 9))
    with session.receive(timeout=10) as batch:
        assert batch.tobytes()[-1].endswith(b"up again")


@on_and_off
def test_interface_down_is_logged_once(
    session: tunring.Session,
    adapter: tunring.Adapter,
    namespace: Namespace,
    log_lines: list[tuple[int, str]],
    offloads: bool,
) -> None:
    """A send doesn't fail, and a counter is seldom looked at: one warning explains why nothing arrives."""
    assert session.send([PACKET]) == 1
    namespace.ip("link set tun0 down")
    for _ in range(3):
        assert session.send([PACKET] * 4) == 4
    with session.reserve([len(PACKET)]) as [slot]:
        slot[:] = PACKET
    namespace.ip("link set tun0 up")
    assert session.send([PACKET]) == 1
    namespace.ip("link set tun0 down")
    assert session.send([PACKET]) == 1
    assert session.stats().write_errors == 14
    session.close()
    with adapter.start_session(tunring.MIN_CAPACITY) as again:
        assert again.send([PACKET]) == 1
    assert eventually(lambda: len(log_lines) == 2), log_lines
    for level, text in log_lines:
        assert level == logging.WARNING
        assert '"tun0" is down' in text


def test_close_wakes_all(session: tunring.Session) -> None:
    drain(session)
    with Threads() as threads:
        for _ in range(8):
            threads.start(outcome, session.receive)
        time.sleep(0.2)
        began = time.monotonic()
        session.close()
    assert max(threads.ended) - began < PROMPT
    for error in threads.results:
        assert isinstance(error, tunring.SessionClosed)
        assert error.reason == "closed"


def test_queue_overflow_is_counted(session: tunring.Session, link: socket.socket) -> None:
    drain(session)
    sent = 2 * 2048  # twice what the queue holds, by the session's capacity
    for _ in range(sent):
        link.sendto(b"", ("10.9.0.9", 9))
    received = 0
    while batch := session.receive(timeout=0):
        with batch:
            received += len(batch)
    stats = session.stats()
    assert received < sent
    assert stats.host_dropped == sent - received


# ---- Readiness ----


def test_selector_tells_what_receive_would_do(
    session: tunring.Session, selector: selectors.BaseSelector, link: socket.socket
) -> None:
    drain(session)
    for burst in (1, 2, 5, 100):
        assert not selector.select(0)
        for number in range(burst):
            link.sendto(bytes([number]), ("10.9.0.9", 9))
        received = []
        while selector.select(0):
            with session.receive(max_packets=1, timeout=0) as batch:
                assert len(batch) == 1
                received += batch.tobytes()
        assert [packet[28] for packet in received] == list(range(burst))
        assert not session.receive(timeout=0)


def test_selector_wakes(session: tunring.Session, selector: selectors.BaseSelector, link: socket.socket) -> None:
    drain(session)
    with Threads() as threads:
        threads.start(selector.select, NEVER)
        time.sleep(0.1)
        link.sendto(b"", ("10.9.0.9", 9))
    assert threads.results[0]
    session.receive(timeout=0).release()


def cpu_while(seconds: float) -> float:
    """CPU seconds that this process takes meanwhile."""
    before = time.process_time()
    time.sleep(seconds)
    return time.process_time() - before


def fill(session: tunring.Session, link: socket.socket) -> list[tunring.Batch]:
    """Hold packets until the ring has room for no more."""
    held = []
    for _ in range(200):
        link.sendto(bytes(1400), ("10.9.0.9", 9))
        if batch := session.receive(timeout=0):
            held.append(batch)
        else:
            return held
    raise AssertionError("the ring is never full")


def test_waiting_takes_no_cpu(session: tunring.Session) -> None:
    drain(session)
    with Threads() as threads:
        for _ in range(4):
            threads.start(outcome, session.receive)
        time.sleep(0.1)
        assert cpu_while(0.5) < 0.05
        session.close()


def test_pinned_ring_is_not_ready_until_released(
    adapter: tunring.Adapter, namespace: Namespace, link: socket.socket
) -> None:
    with adapter.start_session(tunring.MIN_CAPACITY) as session, selectors.DefaultSelector() as selector:
        namespace.set_up("tun0", "10.9.0.1/24")
        drain(session)
        selector.register(session, selectors.EVENT_READ)
        held = fill(session, link)
        assert session.stats().pinned_packets == sum(map(len, held))

        # The kernel has packets, but there is no room.
        for _ in range(10):
            link.sendto(bytes(1400), ("10.9.0.9", 9))
        assert not selector.select(0)
        began = time.monotonic()
        assert not session.receive(timeout=0.3)
        assert time.monotonic() - began >= 0.3
        with Threads() as threads:
            threads.start(session.receive, 256, NEVER)
            time.sleep(0.1)
            assert cpu_while(0.5) < 0.05

            # The oldest pin everything, so nothing changes before they go.
            while len(held) > 1:
                held.pop().release()
            time.sleep(0.05)
            assert threads.threads[0].is_alive()
            held.pop().release()
        with threads.results[0] as batch:
            assert len(batch) >= 1
        drain(session)
        assert not selector.select(0)
        link.sendto(b"", ("10.9.0.9", 9))
        assert selector.select(5)
        assert session.receive(timeout=0)


def test_pinned_ring_with_the_interface_deleted(
    adapter: tunring.Adapter, namespace: Namespace, link: socket.socket
) -> None:
    with adapter.start_session(tunring.MIN_CAPACITY) as session, selectors.DefaultSelector() as selector:
        namespace.set_up("tun0", "10.9.0.1/24")
        drain(session)
        selector.register(session, selectors.EVENT_READ)
        held = fill(session, link)
        with Threads() as threads:
            threads.start(outcome, session.receive)
            time.sleep(0.1)
            delete(namespace)
        assert isinstance(threads.results[0], tunring.SessionClosed)
        assert selector.select(1)
        selector.unregister(session)
        for batch in held:
            batch.release()


# ---- The process ----


def test_out_of_descriptors(namespace: Namespace) -> None:
    """At every number of descriptors something else fails; nothing is left over."""
    script = """
        import errno, os, resource, socket, tunring
        tunring.load("tun_linux")
        free = len(os.listdir("/proc/self/fd")) - 1
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        failures = 0
        for spare in range(20):
            resource.setrlimit(resource.RLIMIT_NOFILE, (free + spare, hard))
            try:
                adapter = tunring.Adapter.create("tun0")
            except OSError as error:
                assert error.errno == errno.EMFILE, error
                failures += 1
                continue
            try:
                adapter.start_session(0x20000).close()
                done = True
            except OSError as error:
                assert error.errno == errno.EMFILE, error
                failures += 1
                done = False
            adapter.close()
            if done:
                break
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 20, hard))
        assert len(os.listdir("/proc/self/fd")) - 1 == free, os.listdir("/proc/self/fd")
        print(done, failures >= 3, [name for _, name in socket.if_nameindex()])
    """
    said = namespace.run(sys.executable, "-W", "error", "-c", textwrap.dedent(script))
    assert said == "True True ['lo']\n"


def test_descriptors_are_not_inherited(session: tunring.Session) -> None:
    """Not even by a program that is given all that may be: it would keep the interface alive."""
    ours = set()
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the listing's own
            ours.add(os.readlink(f"/proc/self/fd/{descriptor}"))
    command = ["ls", "-l", "/proc/self/fd"]
    child = subprocess.run(command, capture_output=True, text=True, check=True, close_fds=False).stdout
    for what in ("/dev/net/tun", "anon_inode:[eventpoll]"):
        assert what in ours
        assert what not in child
