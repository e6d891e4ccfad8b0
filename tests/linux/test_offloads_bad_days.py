"""Superpackets on bad days: interfaces that go, sessions that close."""

from __future__ import annotations

import random
import socket
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from netns import drain
from superpackets import (
    SEGMENTS,
    both_families,
    datagram,
    expect_only,
    listener,
    numbered,
    payloads_of,
    pin,
    receive,
    send_segments,
    sender,
)

import tunring
from running import NEVER, PROMPT, Threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from netns import Namespace

pytestmark = pytest.mark.root


def test_interface_down_and_up_between_superpackets(session: tunring.Session, namespace: Namespace) -> None:
    dice = random.Random(6)
    here, there = "10.9.0.1", "10.9.0.77"
    with sender(namespace, socket.AF_INET, there) as out, listener(namespace, socket.AF_INET, here, 4001) as link:
        payloads = numbered(SEGMENTS, 700)
        packets = [datagram((there, 5), (here, 4001), payload, i) for i, payload in enumerate(payloads)]
        for turn in range(1, 4):
            expected = send_segments(out, b"".join(payloads), 700)
            assert receive(session, len(expected), dice) == expected
            namespace.ip("link set tun0 down")
            assert session.send(packets) == len(packets)
            assert session.stats().write_errors == turn * len(packets)
            drain(session)
            assert not session.receive(timeout=0)
            namespace.ip("link set tun0 up")
            assert session.send(packets) == len(packets)
            expect_only(link, payloads)
    assert session.stats().write_errors == 3 * SEGMENTS
    assert not namespace.damage()


@both_families
def test_mtu_changed_while_running(
    session: tunring.Session, namespace: Namespace, family: int, here: str, there: str
) -> None:
    dice = random.Random(7)
    headers = 28 if family == socket.AF_INET else 48
    with sender(namespace, family, there) as out, listener(namespace, family, here, 4001) as link:
        for mtu in (1500, 1280, 9000, 30000, 1400, 65535):
            namespace.ip(f"link set tun0 mtu {mtu}")
            size = min(mtu - headers, 31000)
            expected = send_segments(out, dice.randbytes(min(65000, size * SEGMENTS)), size)
            assert len(expected) > 1
            assert receive(session, len(expected), dice) == expected
            packets = [datagram((there, 5), (here, 4001), payload, i) for i, payload in enumerate(expected)]
            assert session.send(packets) == len(packets)
            assert [link.recv(70000) for _ in expected] == expected
    assert session.stats().write_errors == 0
    assert not namespace.damage()


def test_two_adapters_four_threads(namespace: Namespace, create: Callable[..., tunring.Adapter]) -> None:
    def to_python(session: tunring.Session, link: socket.socket, seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(150):
            size = dice.randint(4, 1400)
            expected = send_segments(link, dice.randbytes(size * dice.randint(1, 40)), size)
            assert receive(session, len(expected), dice) == expected

    def from_python(session: tunring.Session, link: socket.socket, there: str, here: str, seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(150):
            payloads = numbered(dice.randint(1, 60), dice.randint(4, 1400))
            session.send([datagram((there, 5), (here, 4001), payload, i) for i, payload in enumerate(payloads)])
            assert [link.recv(2000) for _ in payloads] == payloads

    with ExitStack() as stack, Threads() as threads:
        for number in range(2):
            here, there = f"10.9.{number}.1", f"10.9.{number}.77"
            session = stack.enter_context(create(f"tun{number}").start_session(tunring.MIN_CAPACITY))
            namespace.set_up(f"tun{number}", f"{here}/24")
            out = stack.enter_context(sender(namespace, socket.AF_INET, there))
            link = stack.enter_context(listener(namespace, socket.AF_INET, here, 4001))
            threads.start(to_python, session, out, number)
            threads.start(from_python, session, link, there, here, number)
        threads.join()
    assert not namespace.damage()


def test_close_while_a_superpacket_waits(adapter: tunring.Adapter, namespace: Namespace) -> None:
    """Its rest goes with the session; the next session knows nothing of it."""
    dice = random.Random(8)
    namespace.set_up("tun0", "10.9.0.1/24")
    with sender(namespace, socket.AF_INET, "10.9.0.77") as link:
        for taken in (1, 30):
            session = adapter.start_session(tunring.MIN_CAPACITY)
            drain(session)
            payloads = numbered(SEGMENTS, 900)
            for _ in range(4):
                send_segments(link, b"".join(payloads), 900)
            held = session.receive(taken, timeout=10)
            full = pin(session)
            session.close()
            assert payloads_of(held) == payloads[:taken]
            for batch in (held, *full):
                batch.release()
            with adapter.start_session(tunring.MIN_CAPACITY) as session:
                drain(session)
                expected = send_segments(link, b"".join(payloads[::-1]), 900)
                assert receive(session, len(expected), dice) == expected


def test_closed_by_another_thread_while_splitting(adapter: tunring.Adapter, namespace: Namespace) -> None:
    namespace.set_up("tun0", "10.9.0.1/24")
    stop: list[bool] = []

    def flood(link: socket.socket) -> None:
        while not stop:
            send_segments(link, bytes(64000), 1000)

    def take(session: tunring.Session) -> None:
        with pytest.raises(tunring.SessionClosed):
            while True:
                session.receive(64, timeout=NEVER).release()

    with sender(namespace, socket.AF_INET, "10.9.0.77") as link, Threads() as threads:
        threads.start(flood, link)
        for _ in range(10):
            session = adapter.start_session(tunring.MIN_CAPACITY)
            with Threads() as takers:
                for _ in range(2):
                    takers.start(take, session)
                time.sleep(0.02)
                began = time.monotonic()
                session.close()
            assert max(takers.ended) - began < 10 * PROMPT  # four threads, and a flood
        stop.append(True)
