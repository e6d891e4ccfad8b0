"""Superpackets received: nobody can tell that the kernel handed them over whole."""

from __future__ import annotations

import asyncio
import random
import selectors
import socket
from typing import TYPE_CHECKING

import pytest
from netns import drain
from superpackets import (
    SEGMENTS,
    both_families,
    frames,
    numbered,
    on_and_off,
    payloads_of,
    receive,
    send_segments,
    sender,
)

import tunring

if TYPE_CHECKING:
    from netns import Namespace

pytestmark = pytest.mark.root


@on_and_off
@both_families
def test_segments_received(
    session: tunring.Session, namespace: Namespace, offloads: bool, family: int, here: str, there: str
) -> None:
    """Superpackets and plain datagrams, mixed: each arrives byte for byte, with right checksums, in order."""
    dice = random.Random(1)
    largest = 65507 if family == socket.AF_INET else 65487
    with sender(namespace, family, there) as link:
        _, before = frames(namespace)
        packets = 0
        for size in (1, 2, 7, 48, 64, 65, 511, 1000, 1399, 1400, 1452):
            for count in (2, 3, 17, SEGMENTS):
                for last in (size, (size + 1) // 2, 1):
                    data = dice.randbytes(min((count - 1) * size + last, largest))
                    alone = dice.randbytes(dice.randint(0, 1452))
                    expected = send_segments(link, data, size)
                    link.send(alone)
                    expected.append(alone)
                    assert receive(session, len(expected), dice) == expected
                    packets += len(expected)
        _, after = frames(namespace)
    # Otherwise the kernel has split them, and this has tested nothing.
    assert after - before == (2 * 11 * 4 * 3 if offloads else packets)
    assert (session.stats().host_dropped, session.stats().host_filtered) == (0, 0)
    assert not namespace.damage()


@both_families
def test_event_is_exact_within_a_superpacket(
    session: tunring.Session, namespace: Namespace, family: int, here: str, there: str
) -> None:
    drain(session)
    with sender(namespace, family, there) as link, selectors.DefaultSelector() as selector:
        selector.register(session, selectors.EVENT_READ)
        for count in (1, 2, 5, SEGMENTS):
            assert not selector.select(0)
            expected = send_segments(link, b"".join(numbered(count, 100)), 100)
            received = []
            while selector.select(0):
                with session.receive(1, timeout=0) as batch:
                    assert len(batch) == 1
                    received += payloads_of(batch)
            assert received == expected
            assert not session.receive(timeout=0)


def test_asyncio_takes_leftovers(session: tunring.Session, namespace: Namespace) -> None:
    """A superpacket's packets, one by one, by a loop's reader, which is called for each and no more."""
    drain(session)
    received: list[bytes] = []
    calls = 0

    def read() -> None:
        nonlocal calls
        calls += 1
        with session.receive(1, timeout=0) as batch:
            received.extend(payloads_of(batch))

    async def take(count: int) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(session.fileno(), read)
        for _ in range(2000):
            if len(received) == count:
                break
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
        loop.remove_reader(session.fileno())

    with sender(namespace, socket.AF_INET, "10.9.0.9") as link:
        expected = send_segments(link, b"".join(numbered(SEGMENTS, 100)), 100)
        asyncio.run(take(len(expected)))
    assert received == expected
    assert calls == len(expected)
