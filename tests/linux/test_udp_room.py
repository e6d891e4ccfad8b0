"""Sockets that the system has no room for: a slow interface holds what was sent, until the test lets it go."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import uvloop

import tunring
from running import Threads, eventually
from tunring._loops import aio
from tunring.contrib import anyio as helper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from netns import Namespace

    Pair = tuple[tunring.UdpSocket, tunring.UdpSocket]

COUNT = 400
SIZE = 1200
DATAGRAMS = [number.to_bytes(4, "big") + bytes(SIZE - 4) for number in range(COUNT)]


def slow(namespace: Namespace) -> None:
    """Let nearly nothing through the loopback interface."""
    namespace.run("tc", "qdisc", "replace", "dev", "lo", "root", "tbf", *"rate 8kbit burst 3000 limit 10000000".split())


def let_go(namespace: Namespace) -> None:
    namespace.run("tc", "qdisc", "replace", "dev", "lo", "root", "tbf", *"rate 8gbit burst 1mb limit 10000000".split())


@pytest.fixture
def sockets(namespace: Namespace) -> Iterator[Pair]:
    slow(namespace)
    with (
        namespace.entered(),
        tunring.UdpSocket.bind(("127.0.0.1", 0), segment=False, send_buffer=20000) as left,
        tunring.UdpSocket.bind(("127.0.0.1", 0)) as right,
    ):
        yield left, right


def take(right: tunring.UdpSocket, count: int) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < count:
        with right.receive(timeout=20) as batch:
            assert batch, f"{len(found)} of {count}"
            found += batch.tobytes()
    return found


def test_what_to_do_when_full(sockets: Pair, namespace: Namespace) -> None:
    left, right = sockets
    sent = left.send(DATAGRAMS, right.address, on_full="partial")
    assert 0 < sent < COUNT
    assert left.send(DATAGRAMS, right.address, on_full="drop") == 0
    assert left.stats().dropped == COUNT
    with pytest.raises(tunring.RingFull) as caught:
        left.send(DATAGRAMS, right.address, on_full="raise")
    assert caught.value.sent == 0  # type: ignore[attr-defined]
    began = time.monotonic()
    assert left.send(DATAGRAMS, right.address, timeout=0.2) == 0
    assert 0.15 < time.monotonic() - began < 5
    assert left.send_many([(right.address, [b"a"] * 3), (right.address, [b"b"])], on_full="partial") == [0, 0]
    let_go(namespace)
    assert take(right, sent) == DATAGRAMS[:sent]
    assert left.stats().sent_packets == sent
    assert left.stats().full <= 7  # not by asking again and again


def test_send_many_that_fails_in_the_middle_says_how_many_were_sent(sockets: Pair) -> None:
    left, right = sockets
    with pytest.raises(tunring.RingFull) as caught:
        left.send_many([(right.address, DATAGRAMS[:2]), (right.address, DATAGRAMS[2:])], on_full="raise")
    assert 2 < caught.value.sent < COUNT  # type: ignore[attr-defined]
    assert caught.value.sent == left.stats().sent_packets  # type: ignore[attr-defined]
    assert "batch 1; 2 datagrams of those before it" in caught.value.__notes__[0]


def test_send_many_counts_all_that_it_drops(sockets: Pair) -> None:
    left, right = sockets
    sent = left.send_many(
        [(right.address, DATAGRAMS), (right.address, [b"a"] * 7), (right.address, [])], on_full="drop"
    )
    assert 0 < sent[0] < COUNT
    assert sent[1:] == [0, 0]
    stats = left.stats()
    assert stats.sent_packets == sent[0]
    assert stats.dropped == COUNT + 7 - sent[0]


def test_waiting_is_ended_by_room_or_close(sockets: Pair, namespace: Namespace) -> None:
    left, right = sockets
    results: list[object] = []

    def send() -> None:
        results.append(left.send(DATAGRAMS, right.address))

    with Threads() as threads:
        threads.start(send)
        assert eventually(lambda: left.stats().waits == 1)
        let_go(namespace)
        assert take(right, COUNT) == DATAGRAMS
    assert results == [COUNT]
    assert left.stats().full < COUNT, "it asked rather than waited"
    slow(namespace)

    def fail() -> None:
        with pytest.raises(tunring.SessionClosed) as caught:
            left.send(DATAGRAMS, right.address)
        results.append(caught.value.sent)  # type: ignore[attr-defined]

    waits = left.stats().waits
    with Threads() as threads:
        for _ in range(8):
            threads.start(fail)
        assert eventually(lambda: left.stats().waits >= waits + 8)
        left.close()
    assert len(results) == 9


LOOPS = {
    "selector": (asyncio.SelectorEventLoop, False),
    "selector-thread": (asyncio.SelectorEventLoop, True),
    "uvloop": (uvloop.new_event_loop, False),
}


@pytest.fixture(scope="module", autouse=True)
def _warm_up_loops() -> None:
    """Opens the descriptors that a kind of loop opens once per process."""
    for make, _ in LOOPS.values():
        _run(make, asyncio.sleep(0))


@pytest.mark.parametrize("loop", LOOPS)
def test_a_task_waits_for_room_by_an_event(
    sockets: Pair, namespace: Namespace, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = sockets
    make, threads = LOOPS[loop]
    monkeypatch.setattr(aio, "use_threads", threads)

    async def main() -> None:
        sending = [asyncio.create_task(left.send_async(DATAGRAMS, right.address)) for _ in range(2)]
        await asyncio.sleep(0.3)
        assert not any(task.done() for task in sending)
        # One try found that it is full. Pauses of at most 16 ms would have tried some twenty times.
        assert left.stats().full <= 2
        let_go(namespace)
        found: list[bytes] = []
        async for batch in right.batches_async():
            found += batch.tobytes()
            if len(found) == 2 * COUNT:
                break
        assert await asyncio.gather(*sending) == [COUNT, COUNT]
        assert found == DATAGRAMS * 2  # in line

    _run(make, main())


@pytest.mark.parametrize("loop", LOOPS)
def test_a_task_that_waits_for_room_ends(
    sockets: Pair, namespace: Namespace, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = sockets
    make, threads = LOOPS[loop]
    monkeypatch.setattr(aio, "use_threads", threads)

    async def main() -> None:
        sent = await left.send_async(DATAGRAMS, right.address, timeout=0.05)
        assert 0 < sent < COUNT
        assert await left.send_async(DATAGRAMS, right.address, timeout=0) == 0
        assert await left.send_async(DATAGRAMS, right.address, on_full="partial") == 0
        cancelled = asyncio.create_task(left.send_async(DATAGRAMS, right.address))
        behind = asyncio.create_task(left.send_async(DATAGRAMS[:1], right.address))
        await asyncio.sleep(0.05)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        assert cancelled.cancelled()
        let_go(namespace)
        assert await asyncio.wait_for(behind, 20) == 1
        assert take(right, sent + 1) == [*DATAGRAMS[:sent], DATAGRAMS[0]]
        slow(namespace)
        tasks = [asyncio.create_task(left.send_async(DATAGRAMS, right.address)) for _ in range(3)]
        await asyncio.sleep(0.05)
        threading.Thread(target=left.close).start()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(result, tunring.SessionClosed)

    _run(make, main())


def test_trio_waits_for_room(sockets: Pair, namespace: Namespace) -> None:
    left, right = sockets

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(helper.send, left, DATAGRAMS, right.address)
            await anyio.sleep(0.2)
            assert left.stats().full <= 2
            let_go(namespace)
            found: list[bytes] = []
            while len(found) < COUNT:
                with await helper.receive(right) as batch:
                    found += batch.tobytes()
        assert found == DATAGRAMS

    anyio.run(main, backend="trio")


def _run(make: Callable[[], Any], coroutine: Any) -> None:
    with asyncio.Runner(loop_factory=make) as runner:
        runner.run(asyncio.wait_for(coroutine, 60))
